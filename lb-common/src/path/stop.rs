//! Stop: where a packet's path ends before it is translated.

use super::{
    hook::Hook,
    step::{Next, Step},
    tables::Common,
};
use crate::abi::Counter;

/// What a step leaves whose packet may have stopped there; that is counted. XDP counts only what ends there: the rest
/// tc counts, which it is left to.
#[inline(always)]
pub fn conclude<T: Common>(left: Result<Next, Counter>, tables: &T, hook: Hook) -> Next {
    left.unwrap_or_else(|why| {
        let next = ending(why);
        // Whoever says that a packet can't travel on is a router, which the host's side is.
        let routers = matches!(why, Counter::TtlExceeded | Counter::TooBig);
        if hook == Hook::UplinkXdp && (next == Next::PASS || routers) {
            return Next::PASS;
        }
        tables.count(why);
        next
    })
}

/// Every outcome that is not a translation has one verdict.
#[inline(always)]
pub fn ending(why: Counter) -> Next {
    match why {
        Counter::NoBackend
        | Counter::NoPort
        | Counter::BackendGone
        | Counter::TtlExceeded
        | Counter::TooBig => Next::reject(why),
        Counter::NoLocalBackend
        | Counter::SourceRange
        | Counter::Unowned
        | Counter::Unsettled
        | Counter::Unreachable
        | Counter::TableFull
        | Counter::Clash
        | Counter::Forged
        | Counter::NoSnatPort
        | Counter::StrayReset
        | Counter::FragmentLost
        | Counter::RewriteFailed => Next::drop(why),
        Counter::NotOurs
        | Counter::Truncated
        | Counter::Malformed
        | Counter::Fragment
        | Counter::Options
        | Counter::Protocol
        | Counter::NoFrontend
        | Counter::WrongHook
        | Counter::LeftToStack
        | Counter::Request
        | Counter::Reply
        | Counter::Tunneled
        | Counter::Unwrapped
        | Counter::NewFlow
        | Counter::Proven
        | Counter::Moved
        | Counter::Direct
        | Counter::Rebuilt
        | Counter::Answered
        | Counter::Error
        | Counter::Echoed
        | Counter::SocketConnected
        | Counter::SocketSent
        | Counter::SocketMoved => Next::PASS,
    }
}

/// Whether a packet that stops so is answered with a refusal.
pub fn is_rejected(why: Counter) -> bool {
    ending(why) == Step::Reject
}
