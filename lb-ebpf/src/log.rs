//! Drops and refusals, told through aya-log to people who run the agent with `RUST_LOG=info,lb_ebpf=debug`. Otherwise
//! the verifier takes it all out: the level is a read-only global.

use aya_log_ebpf::debug;
use bytemuck::cast;
use lb_common::{
    abi::Counter,
    family::{Family, V4},
    path::Packet,
};

/// Offset of the IPv4 addresses in a frame.
const IPV4: usize = 26;
/// Offset of the IPv6 addresses in a frame.
const IPV6: usize = 22;

/// Says which packet was dropped or rejected and why. A function of its own: the paths of the families leave it
/// too little stack.
#[inline(never)]
pub fn refused<F: Family, P: Packet>(packet: &P, why: u32) {
    macro_rules! say {
        ($from:ident, $to:ident) => {
            say! { $from, $to:
                NoBackend: "{:i} -> {:i} rejected: no-backend",
                NoPort: "{:i} -> {:i} rejected: no-port",
                TtlExceeded: "{:i} -> {:i} rejected: ttl-exceeded",
                TooBig: "{:i} -> {:i} rejected: too-big",
                NoLocalBackend: "{:i} -> {:i} dropped: no-local-backend",
                SourceRange: "{:i} -> {:i} dropped: source-not-allowed",
                Unowned: "{:i} -> {:i} dropped: unowned-address",
                BackendGone: "{:i} -> {:i} rejected: backend-gone",
                Unsettled: "{:i} -> {:i} dropped: service-changing",
                Unreachable: "{:i} -> {:i} dropped: backend-unreachable",
                FragmentLost: "{:i} -> {:i} dropped: fragment-without-first",
                TableFull: "{:i} -> {:i} dropped: flow-table-full",
                Clash: "{:i} -> {:i} dropped: tuple-clash",
                RewriteFailed: "{:i} -> {:i} dropped: rewrite-failed",
            }
        };
        ($from:ident, $to:ident: $($counter:ident: $words:literal,)*) => {
            $(if why == Counter::$counter as u32 {
                debug!(packet, $words, $from, $to);
            })*
        };
    }
    // The words are part of the program: what it could look up by number would be a table of pointers.
    if F::ETHERTYPE == V4::ETHERTYPE {
        if let Some([from, to]) = packet.load::<[[u16; 2]; 2]>(IPV4) {
            let (from, to) = (u32::from_be(cast(from)), u32::from_be(cast(to)));
            say!(from, to);
        }
    } else if let Some([from, to]) = packet.load::<[[u8; 16]; 2]>(IPV6) {
        say!(from, to);
    }
}
