//! Changes to the bytes of a valid packet.

use std::net::{IpAddr, Ipv4Addr};

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
    /// So many bytes of IPv4 options, which do nothing.
    Options(usize),
    /// IPv6 extension headers before the transport header: number and bytes of each.
    Extensions(Vec<(u8, Vec<u8>)>),
    /// The fragment with these bytes of what follows the network header, of a packet with this identification.
    /// It is the last one where the packet ends.
    Piece { id: u16, from: usize, to: usize },
    /// Routers may fragment it (IPv4; those of IPv6 never do).
    MayBeFragmented,
    /// So many bytes from the network header on, which is more than that can say (BIG TCP).
    Big(usize),
    /// Inside another packet from one address to the other, of two nodes.
    Inside(Ipv4Addr, Ipv4Addr),
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
            Edit::Options(len) => {
                bytes.splice(IP + 20..IP + 20, vec![1; *len]);
                bytes[IP] += (len / 4) as u8;
                set_ip_len::<F>(bytes);
            }
            Edit::Extensions(chain) => {
                for (number, header) in chain.iter().rev() {
                    insert_extension::<F>(bytes, *number, header);
                }
            }
            Edit::Piece { id, from, to } => {
                let start = if ipv4 { IP + (bytes[IP] & 0xf) as usize * 4 } else { F::TRANSPORT };
                let more = start + to < bytes.len();
                bytes.truncate(start + to);
                bytes.drain(start..start + from);
                if ipv4 {
                    let word = (from / 8) as u16 | if more { 0x2000 } else { 0 };
                    bytes[IP + 4..][..2].copy_from_slice(&id.to_be_bytes());
                    bytes[IP + 6..][..2].copy_from_slice(&word.to_be_bytes());
                    set_ip_len::<F>(bytes);
                } else {
                    let [high, low] = (*from as u16 | more as u16).to_be_bytes();
                    let [first, second] = id.to_be_bytes();
                    insert_extension::<F>(bytes, 44, &[0, high, low, 0, 0, first, second]);
                }
            }
            Edit::MayBeFragmented if ipv4 => {
                bytes[IP + 6] &= !0x40;
                set_ip_len::<F>(bytes);
            }
            Edit::MayBeFragmented => {}
            Edit::Big(len) => {
                bytes.resize(IP + len, 0x5a);
                let length = if ipv4 { IP + 2 } else { IP + 4 };
                bytes[length..][..2].fill(0);
                if ipv4 {
                    set_ip_check(bytes);
                }
            }
            Edit::Inside(source, destination) => {
                let mut outer = match (F::ip(*source), F::ip(*destination)) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        let start = [0x45, bytes[IP + 1] & 0xfc, 0, 0, 0, 0, 0x40, 0, 64, 4, 0, 0];
                        [&start[..], &source.octets(), &destination.octets()].concat()
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        let (class, label) = (bytes[IP + 1] & 0xcf, &bytes[IP + 2..IP + 4]);
                        let start = [&[bytes[IP], class], label, &[0, 0, 41, 64]].concat();
                        [&start[..], &source.octets(), &destination.octets()].concat()
                    }
                    _ => unreachable!("both addresses are of one family"),
                };
                outer.splice(0..0, bytes[..IP].iter().copied());
                bytes.splice(..IP, outer);
                set_ip_len::<F>(bytes);
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

/// Puts an extension header before what follows the network header; `rest` is all of it but its first byte.
fn insert_extension<F: Net>(bytes: &mut Vec<u8>, number: u8, rest: &[u8]) {
    let next = std::mem::replace(&mut bytes[20], number);
    bytes.splice(F::TRANSPORT..F::TRANSPORT, [next].into_iter().chain(rest.iter().copied()));
    set_ip_len::<F>(bytes);
}

/// Makes the network header agree with the packet's length and, in IPv4, with its checksum.
fn set_ip_len<F: Net>(bytes: &mut [u8]) {
    if F::TRANSPORT == 34 {
        let len = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        set_ip_check(bytes);
    } else {
        let len = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
    }
}

/// Computes the checksum of an IPv4 header.
fn set_ip_check(bytes: &mut [u8]) {
    let header = (bytes[14] & 0xf) as usize * 4;
    bytes[24..26].fill(0);
    let words = bytes[14..14 + header].chunks(2);
    let sum: u32 = words.map(|word| u16::from_be_bytes([word[0], word[1]]) as u32).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
}
