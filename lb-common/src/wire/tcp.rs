//! TCP (RFC 9293).

use super::{Ports, TcpFlags};

/// The header without options.
#[repr(C)]
#[derive(Copy, Clone, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Tcp {
    /// Source and destination.
    pub ports: Ports,
    sequence: [u16; 2],
    acknowledgement: [u16; 2],
    data_offset: u8,
    flags: u8,
    window: u16,
    /// Checksum over the pseudo header, the header and the payload.
    pub check: u16,
    urgent: u16,
}

const _: () = assert!(size_of::<Tcp>() == 20);

impl Tcp {
    /// The reset of a segment that is for no connection; `None` for a reset, which gets no answer
    /// (section 3.10.7.1). `len`: bytes of the segment, header included. The checksum is left zero.
    #[inline(always)]
    pub fn reset_for(&self, len: u32) -> Option<Tcp> {
        let flags = TcpFlags(self.flags);
        if flags.resets() {
            return None;
        }
        let zero = [0; 2];
        let (sequence, acknowledgement, answer) = if flags.acknowledges() {
            (self.acknowledgement, zero, TcpFlags::RST)
        } else {
            let header = (self.data_offset >> 4) as u32 * 4;
            // SYN and FIN count as a byte each.
            let taken = len.wrapping_sub(header) + flags.synchronizes() as u32 + flags.finishes() as u32;
            let next = u32::from_be(bytemuck::cast(self.sequence)).wrapping_add(taken);
            (zero, bytemuck::cast(next.to_be()), TcpFlags::RST | TcpFlags::ACK)
        };
        let Ports { source, destination } = self.ports;
        Some(Tcp {
            ports: Ports { source: destination, destination: source },
            sequence,
            acknowledgement,
            data_offset: (size_of::<Tcp>() as u8 / 4) << 4,
            flags: answer,
            window: 0,
            check: 0,
            urgent: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, acknowledgement: u32, flags: u8) -> Tcp {
        Tcp {
            ports: Ports { source: 1, destination: 2 },
            sequence: bytemuck::cast(sequence.to_be()),
            acknowledgement: bytemuck::cast(acknowledgement.to_be()),
            data_offset: 0x80, // 12 bytes of options
            flags,
            window: 7,
            check: 9,
            urgent: 3,
        }
    }

    #[test]
    fn resets_have_the_numbers_of_the_rfc() {
        let cases = [
            // A SYN is acknowledged; so are bytes and a FIN; numbers wrap.
            (segment(100, 0, TcpFlags::SYN), 32, Some((0, 101, 0x14))),
            (segment(100, 0, 0), 32 + 5, Some((0, 105, 0x14))),
            (segment(u32::MAX, 0, TcpFlags::FIN), 32 + 5, Some((0, 5, 0x14))),
            // What acknowledges is reset where it stands.
            (segment(100, 77, TcpFlags::ACK), 32 + 5, Some((77, 0, 0x04))),
            (segment(100, 77, TcpFlags::RST), 32, None),
        ];
        for (segment, len, expected) in cases {
            let number = |words| u32::from_be(bytemuck::cast::<[u16; 2], u32>(words));
            let answer = segment.reset_for(len);
            let found = answer.map(|rst| (number(rst.sequence), number(rst.acknowledgement), rst.flags));
            assert_eq!(found, expected, "{segment:?}");
            if let Some(answer) = answer {
                assert_eq!((answer.ports.source, answer.ports.destination), (2, 1));
            }
        }
    }
}
