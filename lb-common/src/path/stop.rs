//! Stop: where the path of a packet ends before it is translated.

use super::{hook::Hook, step::Next, tables::Common};
use crate::abi::{Ending, Stop};

/// What a step leaves whose packet may have stopped there; that is counted. XDP counts only what ends there: the rest
/// tc counts, which it is left to.
#[inline(always)]
pub fn conclude<T: Common>(left: Result<Next, Stop>, tables: &T, hook: Hook) -> Next {
    left.unwrap_or_else(|why| {
        // Whoever says that a packet can't travel on is a router, which the host's side is.
        let routers = matches!(why, Stop::TtlExceeded | Stop::TooBig);
        if hook == Hook::UplinkXdp && (routers || why.ending() == Ending::Pass) {
            return Next::PASS;
        }
        tables.count(why.into());
        match why.ending() {
            Ending::Pass => Next::PASS,
            Ending::Drop => Next::drop(why),
            Ending::Reject => Next::reject(why),
        }
    })
}
