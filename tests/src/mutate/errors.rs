//! ICMP and ICMPv6 errors about packets.

use super::{
    fields::{IP, is_v4, repair, turn},
    packets::few,
    rng::Rng,
};
use crate::family::Net;

/// Makes a packet an error about another, or about itself, which it then goes back for: from its
/// destination, or from a third.
pub fn about<F: Net>(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.len() < F::TRANSPORT || other.len() < F::TRANSPORT {
        return;
    }
    let mut quoted = if rng.one_in(2) { other[IP..].to_vec() } else { bytes[IP..].to_vec() };
    let header = F::TRANSPORT - IP;
    // As a router would, or one that has changed the packet.
    if rng.one_in(3) {
        let at = rng.below(quoted.len());
        quoted[at] = rng.byte();
    }
    let keep =
        few(rng, &[header, header + 1, header + 4, header + 7, header + 8, header + 8, header + 20, 548]);
    quoted.truncate(keep);
    let any = rng.byte();
    let (kind, code): (u8, u8) = if is_v4::<F>() {
        few(
            rng,
            &[
                (3, 0),
                (3, 1),
                (3, 2),
                (3, 3),
                (3, 4),
                (3, 4),
                (3, 13),
                (4, 0),
                (5, 1),
                (11, 0),
                (11, 1),
                (12, 0),
                (0, 0),
                (8, 0),
                (any, 0),
            ],
        )
    } else {
        few(
            rng,
            &[
                (1, 0),
                (1, 1),
                (1, 3),
                (1, 4),
                (2, 0),
                (2, 0),
                (3, 0),
                (3, 1),
                (4, 0),
                (4, 1),
                (128, 0),
                (129, 0),
                (135, 0),
                (any, 0),
            ],
        )
    };
    let mtu = few(rng, &[0u32, 68, 576, 1_280, 1_400, 1_500, 0xffff_ffff]);
    bytes.truncate(F::TRANSPORT);
    if is_v4::<F>() {
        (bytes[IP], bytes[IP + 9]) = (0x45, 1);
        bytes[IP + 6..IP + 8].fill(0);
    } else {
        bytes[IP + 6] = 58;
    }
    if !rng.one_in(4) {
        turn::<F>(bytes);
    }
    bytes.extend([kind, code, 0, 0]);
    bytes.extend(mtu.to_be_bytes());
    bytes.extend(quoted);
    repair::<F>(bytes);
}
