//! Drops and refusals, told through aya-log to people who run the agent with `RUST_LOG=info,lb_ebpf=debug`. Otherwise
//! the verifier takes it all out: the level is a read-only global.

use aya_log_ebpf::debug;
use bytemuck::cast;
use lb_common::{
    abi::Stop,
    family::{Family, V4},
    path::Packet,
    stops,
};

/// Offset of the IPv4 addresses in a frame.
const IPV4: usize = 26;
/// Offset of the IPv6 addresses in a frame.
const IPV6: usize = 22;

/// Says which packet is about to be dropped or rejected and why (a [`Stop`]). A function of its own: the paths of the
/// families leave it too little stack.
#[inline(never)]
pub fn refused<F: Family, P: Packet>(packet: &P, why: u32) {
    // The words are part of the program: what it could look up by number would be a table of pointers.
    macro_rules! say {
        ($from:ident, $to:ident; $($(#[$doc:meta])+ $name:ident = $row:literal, $ending:ident, $label:literal;)*) => {
            $(say! { @ $ending $from, $to, $name, $label })*
        };
        (@ Pass $($passes:tt)*) => {};
        (@ Drop $from:ident, $to:ident, $name:ident, $label:literal) => {
            say! { @ concat!("dropped: ", $label), $from, $to, $name }
        };
        (@ Reject $from:ident, $to:ident, $name:ident, $label:literal) => {
            say! { @ concat!("rejected: ", $label), $from, $to, $name }
        };
        (@ $words:expr, $from:ident, $to:ident, $name:ident) => {
            if why == Stop::$name as u32 {
                debug!(packet, "{:i} -> {:i} {}", $from, $to, $words);
            }
        };
    }
    if F::ETHERTYPE == V4::ETHERTYPE {
        if let Some([from, to]) = packet.load::<[[u16; 2]; 2]>(IPV4) {
            let (from, to) = (u32::from_be(cast(from)), u32::from_be(cast(to)));
            stops!(say!(from, to;));
        }
    } else if let Some([from, to]) = packet.load::<[[u8; 16]; 2]>(IPV6) {
        stops!(say!(from, to;));
    }
}
