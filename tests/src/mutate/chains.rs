//! IPv4 options and chains of IPv6 extension headers.

use super::{
    fields::{IP, is_v4},
    packets::few,
    rng::Rng,
};
use crate::family::Net;

/// IPv6's extension headers: hop-by-hop options, routing, fragment, authentication, destination options,
/// mobility.
const EXTENSIONS: [u8; 6] = [0, 43, 44, 51, 60, 135];

/// Longest chain that is followed here: longer than any that is served.
const CHAIN: usize = 16;

/// Offset of the transport header, if the headers before it are to be believed.
pub fn transport<F: Net>(bytes: &[u8]) -> usize {
    if is_v4::<F>() { IP + (bytes.get(IP).copied().unwrap_or(0) & 0xf) as usize * 4 } else { walk(bytes).0 }
}

/// What the chain of an IPv6 packet ends in.
pub fn last_protocol(bytes: &[u8]) -> u8 {
    walk(bytes).1
}

fn walk(bytes: &[u8]) -> (usize, u8) {
    let (mut at, mut protocol) = (IP + 40, bytes.get(IP + 6).copied().unwrap_or(59));
    for _ in 0..CHAIN {
        let (true, Some(&[next, len])) = (EXTENSIONS.contains(&protocol), bytes.get(at..at + 2)) else {
            break;
        };
        at += match protocol {
            44 => 8,
            51 => (len as usize + 2) * 4,
            _ => (len as usize + 1) * 8,
        };
        protocol = next;
    }
    (at, protocol)
}

/// Inserts options or extension headers. The lengths before them agree more often than not.
pub fn insert<F: Net>(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.len() < F::TRANSPORT {
        return;
    }
    if is_v4::<F>() { options(rng, bytes) } else { extensions(rng, bytes) }
}

fn options(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let words = 1 + rng.below(10);
    let mut options = vec![1; words * 4];
    let some: &[&[u8]] = &[
        &[],                         // No-operation to the end.
        &[0],                        // End of the list.
        &[7, 7, 4, 0, 0, 0, 0],      // Record route.
        &[131, 7, 4, 10, 96, 0, 10], // Loose source route.
        &[137, 7, 8, 10, 244, 1, 3], // Strict source route.
        &[68, 12, 5, 0],             // Timestamp.
        &[148, 4, 0, 0],             // Router alert.
        &[130, 11, 0],               // Security.
        &[7, 0],                     // A length that can't be.
        &[255, 255],
    ];
    let option = few(rng, some);
    for (byte, new) in options.iter_mut().zip(option) {
        *byte = *new;
    }
    if rng.one_in(8) {
        options = rng.bytes(words * 4);
    }
    let header = bytes[IP] & 0xf;
    let at = (IP + 20).min(bytes.len());
    bytes.splice(at..at, options);
    let len = u16::from_be_bytes([bytes[IP + 2], bytes[IP + 3]]).wrapping_add(words as u16 * 4);
    if !rng.one_in(6) {
        bytes[IP] = bytes[IP] & 0xf0 | (header as usize + words).min(15) as u8;
    }
    if !rng.one_in(6) {
        bytes[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    }
}

fn extensions(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let count = few(rng, &[1, 1, 1, 2, 2, 3, 4, 7, 8, 9, 12]);
    for _ in 0..count {
        let number = few(rng, &EXTENSIONS);
        let header = extension(rng, number, bytes[IP + 6]);
        let len = u16::from_be_bytes([bytes[IP + 4], bytes[IP + 5]]).wrapping_add(header.len() as u16);
        bytes.splice(IP + 40..IP + 40, header);
        bytes[IP + 6] = number;
        if !rng.one_in(8) {
            bytes[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
        }
    }
}

fn extension(rng: &mut Rng, number: u8, next: u8) -> Vec<u8> {
    let units = few(rng, &[0, 0, 0, 1, 2, 4]);
    let mut header = match number {
        44 => {
            let offset = few(rng, &[0u16, 0, 0, 1, 2, 0x1fff]);
            let [high, low] = (offset << 3 | rng.next() as u16 & 7).to_be_bytes();
            vec![next, 0, high, low, 0, 0, 0, rng.byte() & 3]
        }
        // Its length counts in units of 4, less 2.
        51 => {
            let mut header = rng.bytes(12 + units * 8);
            (header[0], header[1]) = (next, (1 + units * 2) as u8);
            header
        }
        43 => {
            let mut header = vec![0; (units + 1) * 8];
            (header[0], header[1], header[2], header[3]) =
                (next, units as u8, rng.byte() & 7, rng.byte() & 1);
            header
        }
        // One padding option.
        _ => {
            let mut header = vec![0; (units + 1) * 8];
            (header[0], header[1], header[2], header[3]) = (next, units as u8, 1, (units * 8 + 4) as u8);
            header
        }
    };
    if rng.one_in(12) {
        header[1] = few(rng, &[0, 1, 2, 3, 8, 127, 255]);
    }
    if rng.one_in(12) {
        let any = rng.byte();
        header[0] = few(rng, &[0, 43, 44, 50, 51, 59, 60, any]);
    }
    header
}
