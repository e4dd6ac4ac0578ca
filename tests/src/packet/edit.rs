//! Changes to the bytes of a valid packet.

use etherparse::IpFragOffset;

use crate::family::Net;

/// What a builder of valid packets won't make.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The UDP checksum is left out (IPv4 only).
    NoChecksum,
    /// Bytes of the Ethernet frame from an offset on.
    Frame(usize, Vec<u8>),
    /// Bytes from an offset on, counted from the transport header.
    Transport(usize, Vec<u8>),
    /// IPv4 options or an IPv6 hop-by-hop header, padding only.
    Options,
    /// One of several fragments, at this offset in units of 8 bytes.
    Fragment(u16),
    /// A VLAN tag.
    Tag(u16),
    /// Ends after so many bytes.
    Cut(usize),
    /// Ends after so many bytes behind the network header, which says so too.
    Shorten(usize),
    /// So many bytes behind the end of the IP packet.
    Padding(usize),
}

impl Edit {
    /// Changes the bytes of a packet of family `F`.
    pub fn apply<F: Net>(&self, bytes: &mut Vec<u8>) {
        const IP: usize = 14;
        let ipv4 = F::TRANSPORT == 34;
        match self {
            Edit::NoChecksum => bytes[F::TRANSPORT + 6..][..2].fill(0),
            Edit::Frame(offset, new) => bytes[*offset..][..new.len()].copy_from_slice(new),
            Edit::Transport(offset, new) => bytes[F::TRANSPORT + offset..][..new.len()].copy_from_slice(new),
            Edit::Options if ipv4 => {
                bytes.splice(IP + 20..IP + 20, [1; 4]);
                bytes[IP] += 1;
                set_ip_len::<F>(bytes);
            }
            Edit::Options => insert_extension::<F>(bytes, 0, [1, 4, 0, 0, 0, 0]),
            Edit::Fragment(offset) if ipv4 => {
                let offset = IpFragOffset::try_new(*offset).expect("a fragment offset").value();
                bytes[IP + 6..][..2].copy_from_slice(&(offset | 0x2000).to_be_bytes());
                set_ip_len::<F>(bytes);
            }
            Edit::Fragment(offset) => {
                let [high, low] = (offset << 3 | 1).to_be_bytes();
                // The byte for the length is reserved in this header.
                insert_extension::<F>(bytes, 44, [high, low, 0, 0, 0, 7]);
            }
            Edit::Tag(id) => {
                let [high, low] = id.to_be_bytes();
                bytes.splice(12..12, [0x81, 0x00, high, low]);
            }
            Edit::Cut(len) => bytes.truncate(*len),
            Edit::Shorten(len) => {
                bytes.truncate(F::TRANSPORT + len);
                set_ip_len::<F>(bytes);
            }
            Edit::Padding(len) => bytes.resize(bytes.len() + len, 0x55),
        }
    }
}

/// Puts an extension header of 8 bytes before the transport header.
fn insert_extension<F: Net>(bytes: &mut Vec<u8>, number: u8, rest: [u8; 6]) {
    let next = std::mem::replace(&mut bytes[20], number);
    bytes.splice(F::TRANSPORT..F::TRANSPORT, [next, 0].into_iter().chain(rest));
    set_ip_len::<F>(bytes);
}

/// Makes the network header agree with the packet's length and, in IPv4, with its checksum.
fn set_ip_len<F: Net>(bytes: &mut [u8]) {
    if F::TRANSPORT == 34 {
        let header = (bytes[14] & 0xf) as usize * 4;
        let len = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        bytes[24..26].fill(0);
        let words = bytes[14..14 + header].chunks(2);
        let sum: u32 = words.map(|word| u16::from_be_bytes([word[0], word[1]]) as u32).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let check = !((sum & 0xffff) + (sum >> 16)) as u16;
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
    } else {
        let len = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
    }
}
