//! Mutations of single fields. None asks more of a packet than that it has the bytes.

use super::{chains::transport, packets::few, rng::Rng};
use crate::family::Net;

/// Offset of the network header.
pub const IP: usize = 14;

/// Whether the family is IPv4.
pub fn is_v4<F: Net>() -> bool {
    F::TRANSPORT == 34
}

/// Writes bytes where there are so many.
pub fn put(bytes: &mut [u8], offset: usize, new: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..offset + new.len()) {
        place.copy_from_slice(new);
    }
}

/// Changes a byte where there is one.
fn change(bytes: &mut [u8], offset: usize, to: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(offset) {
        *byte = to(*byte);
    }
}

/// More bytes at the end.
pub fn grow(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let len = few(rng, &[1, 2, 4, 8, 18, 40, 64, 1_400]);
    bytes.extend(rng.bytes(len));
}

/// Another version; in IPv4 another header length, with the version or alone.
pub fn version<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let new = rng.byte();
    let mask = if is_v4::<F>() { few(rng, &[0xf0, 0x0f, 0x0f, 0xff]) } else { 0xf0 };
    change(bytes, IP, |byte| byte & !mask | new & mask);
}

/// A length of the packet, or of its payload, that it does not have.
pub fn length<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let header = if is_v4::<F>() { 0 } else { 40 };
    let real = bytes.len().saturating_sub(IP + header) as u16;
    let near = (rng.below(70) as u16).wrapping_sub(35);
    let len = few(
        rng,
        &[0, 1, 7, 8, 19, 20, 21, 27, 28, 39, 40, u16::MAX, real, real.wrapping_add(near), real >> 1],
    );
    put(bytes, if is_v4::<F>() { IP + 2 } else { IP + 4 }, &len.to_be_bytes());
}

/// IPv4's identification, flags and offset; in IPv6 a header with them is inserted by [`super::chains`].
pub fn fragment<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    if !is_v4::<F>() {
        let offset = 4 + 2 * rng.below(8);
        return put(bytes, F::TRANSPORT + offset, &(rng.next() as u16).to_be_bytes());
    }
    let flags = few(rng, &[0x0000, 0x2000, 0x4000, 0x6000, 0x8000]);
    let offset = few(rng, &[0u16, 0, 1, 2, 3, 0x1fff]);
    put(bytes, IP + 6, &(flags | offset).to_be_bytes());
    if rng.one_in(4) {
        put(bytes, IP + 4, &[0, rng.byte() & 3]);
    }
}

/// Another protocol.
pub fn protocol<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let any = rng.byte();
    let known = [0, 1, 2, 4, 6, 6, 17, 17, 41, 43, 44, 47, 50, 51, 58, 58, 59, 60, 132, 135, 139, 140, 253];
    let new = if rng.one_in(8) { any } else { few(rng, &known) };
    put(bytes, if is_v4::<F>() { IP + 9 } else { IP + 6 }, &[new]);
}

/// Another TTL or hop limit.
pub fn hops<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    put(bytes, if is_v4::<F>() { IP + 8 } else { IP + 7 }, &[few(rng, &[0, 1, 2, 3, 64, 254, 255])]);
}

/// TCP's header length, flags, sequence numbers.
pub fn tcp<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let at = transport::<F>(bytes);
    match rng.below(4) {
        0 => put(bytes, at + 12, &[few(rng, &[0, 1, 4, 5, 6, 8, 15]) << 4 | rng.byte() & 0xf]),
        1 => put(bytes, at + 13, &[rng.byte()]),
        2 => put(
            bytes,
            at + 13,
            &[few(rng, &[0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x10, 0x11, 0x12, 0x14, 0x18, 0xff])],
        ),
        _ => {
            let offset = few(rng, &[4, 8, 14]);
            put(bytes, at + offset, &(rng.next() as u32).to_be_bytes());
        }
    }
}

/// A length of a UDP datagram that it does not have.
pub fn udp_length<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let at = transport::<F>(bytes);
    let real = bytes.len().saturating_sub(at) as u16;
    let len = few(rng, &[0, 1, 7, 8, 9, real, real.wrapping_sub(1), real.wrapping_add(1), u16::MAX]);
    put(bytes, at + 4, &len.to_be_bytes());
}

/// A checksum that is none, or wrong, in one of the places where one may be.
pub fn checksum<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let at = transport::<F>(bytes);
    let offset = few(rng, &[at + 16, at + 6, at + 6, at + 2, at + 8, IP + 10]);
    let any = rng.next() as u16;
    put(bytes, offset, &few(rng, &[0, 0, u16::MAX, 1, any]).to_be_bytes());
}

/// An address or a port of another packet, or a tuple of both.
pub fn endpoints<F: Net>(rng: &mut Rng, bytes: &mut [u8], other: &[u8]) {
    let size = size_of::<F::Addr>();
    let source = if is_v4::<F>() { IP + 12 } else { IP + 8 };
    let (at, from) = (transport::<F>(bytes), transport::<F>(other));
    let places =
        [(source, source, size), (source + size, source + size, size), (at, from, 2), (at + 2, from + 2, 2)];
    let which = few(rng, &[1usize, 2, 4, 8, 3, 12, 5, 10, 15]);
    for (bit, (to, from, len)) in places.into_iter().enumerate() {
        if which & 1 << bit != 0
            && let Some(new) = other.get(from..from + len)
        {
            put(bytes, to, new);
        }
    }
}

/// Back the way it came.
pub fn turn<F: Net>(bytes: &mut [u8]) {
    let size = size_of::<F::Addr>();
    let source = if is_v4::<F>() { IP + 12 } else { IP + 8 };
    let at = transport::<F>(bytes);
    for (place, size) in [(source, size), (at, 2), (0, 6)] {
        if let Some(both) = bytes.get_mut(place..place + 2 * size) {
            both.rotate_left(size);
        }
    }
}

/// Another port, so that there are many flows.
pub fn port<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let at = transport::<F>(bytes);
    let any = rng.next() as u16;
    let port = few(rng, &[0, 80, 81, 8080, 40_000, 40_001, 40_002, any]);
    put(bytes, at + few(rng, &[0, 0, 2]), &port.to_be_bytes());
}

/// The Ethernet header: other addresses, other types, VLAN tags.
pub fn link(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.len() < IP {
        return;
    }
    match rng.below(4) {
        0 => {
            let mac = rng.bytes(6);
            put(bytes, few(rng, &[0, 6]), few(rng, &[&[0xff; 6][..], &[0; 6], &[1, 0, 0x5e, 0, 0, 1], &mac]));
        }
        1 => {
            let any = rng.next() as u16;
            let ethertype = few(rng, &[0x0806u16, 0x8100, 0x88a8, 0x8847, 0x8864, 0x0000, 0x05dc, any]);
            put(bytes, 12, &ethertype.to_be_bytes());
        }
        tags => {
            for _ in 1..tags {
                let tag = few(rng, &[[0x81, 0x00], [0x88, 0xa8]]);
                let id = rng.bytes(2);
                bytes.splice(12..12, tag.into_iter().chain(id));
            }
        }
    }
}

/// Bytes or bits of the headers.
pub fn noise<F: Net>(rng: &mut Rng, bytes: &mut [u8]) {
    let end = bytes.len().min(F::TRANSPORT + 28);
    if end <= 12 {
        return;
    }
    for _ in 0..1 + rng.below(8) {
        let at = 12 + rng.below(end - 12);
        let (any, bit) = (rng.byte(), 1 << rng.below(8));
        bytes[at] = if rng.one_in(2) { any } else { bytes[at] ^ bit };
    }
}

/// From somewhere on another packet.
pub fn splice(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.below(bytes.len().min(other.len()) + 1);
    bytes.truncate(at);
    bytes.extend_from_slice(&other[at..]);
}

/// Makes lengths and checksums those of the packet, as far as its headers say where they are.
pub fn repair<F: Net>(bytes: &mut [u8]) {
    if bytes.len() < F::TRANSPORT {
        return;
    }
    let len = bytes.len() - IP;
    let start = transport::<F>(bytes).min(bytes.len());
    let protocol = if is_v4::<F>() {
        put(bytes, IP + 2, &(len as u16).to_be_bytes());
        put(bytes, IP + 10, &[0, 0]);
        let check = !sum(&bytes[IP..start.max(IP)], 0);
        put(bytes, IP + 10, &check.to_be_bytes());
        bytes[IP + 9]
    } else {
        put(bytes, IP + 4, &((len - 40) as u16).to_be_bytes());
        super::chains::last_protocol(bytes)
    };
    let segment = bytes.len() - start;
    let offset = match protocol {
        6 => 16,
        17 => {
            put(bytes, start + 4, &(segment as u16).to_be_bytes());
            6
        }
        1 | 58 => 2,
        _ => return,
    };
    put(bytes, start + offset, &[0, 0]);
    let mut pseudo = 0;
    if protocol != 1 {
        let addresses = if is_v4::<F>() { IP + 12..IP + 20 } else { IP + 8..IP + 40 };
        pseudo = sum(&bytes[addresses], 0) as u32 + protocol as u32 + segment as u32;
    }
    let check = !sum(&bytes[start..], pseudo);
    let check = if protocol == 17 && check == 0 { u16::MAX } else { check };
    put(bytes, start + offset, &check.to_be_bytes());
}

/// RFC 1071.
pub fn sum(bytes: &[u8], and: u32) -> u16 {
    let word = |word: &[u8]| (word[0] as u32) << 8 | word.get(1).copied().unwrap_or(0) as u32;
    let mut sum = bytes.chunks(2).map(word).sum::<u32>() + and;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
