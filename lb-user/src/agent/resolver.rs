//! When to ask for a neighbour again: soon at first, ever more rarely while it does not answer, and
//! never for many at once.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracing::warn;

use super::{
    routes::View,
    wanted_neighbours::{NextHops, WantedNeighbours},
};
use crate::netlink::{World, neighbour};

/// Between the first two requests for one neighbour; doubled with each one more.
const FIRST: Duration = Duration::from_secs(1);
/// Between requests for a neighbour that has not answered for long.
const LONGEST: Duration = Duration::from_secs(64);
/// Requests in any second: the kernel has room for a thousand unanswered ones.
const PER_SECOND: usize = 256;

/// Who has been asked for, and when again.
#[derive(Debug, Default)]
pub struct Resolver {
    waiting: HashMap<(u32, IpAddr), Wait>,
    second: Option<(Instant, usize)>,
    failing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    next: Instant,
    pause: Duration,
}

impl Resolver {
    /// Asks the kernel for the neighbours that backends wait for, and for next hops that are to be kept fresh.
    pub fn ask(&mut self, wanted: &WantedNeighbours, view: &View, next_hops: &NextHops) {
        let stale = wanted.stale(view);
        let questions = BTreeSet::from_iter(wanted.unresolved.iter().chain(&stale).copied());
        let mut failed = None;
        for at in self.due(&Vec::from_iter(questions), Instant::now()) {
            let find = || find(view.world, at).context("asking the kernel for a neighbour");
            let refresh = || next_hops.refresh(at).context("asking the kernel to keep a neighbour fresh");
            let found = if wanted.unresolved.contains(&at) { find() } else { Ok(()) };
            let kept = if stale.contains(&at) { refresh() } else { Ok(()) };
            if let Err(error) = found.and(kept) {
                failed = Some((at.1, error));
                // Most likely the neighbour table is full: more requests would only push others out.
                break;
            }
        }
        if let (true, Some((address, error))) = (self.is_news(failed.is_some()), failed) {
            let advice =
                "where the table is full, raise net.ipv4.neigh.default.gc_thresh3 (net.ipv6 likewise)";
            warn!("asking for the neighbour {address}: {error:#}; {advice}");
        }
    }

    /// Which of the `unresolved` neighbours (device and address) to ask for now: the new ones first,
    /// then those that have waited longest. Those that are not unresolved any more are forgotten.
    fn due(&mut self, unresolved: &[(u32, IpAddr)], now: Instant) -> Vec<(u32, IpAddr)> {
        let before = std::mem::take(&mut self.waiting);
        let mut due = Vec::new();
        for neighbour in unresolved {
            let wait = before.get(neighbour).copied();
            match wait {
                Some(wait) if wait.next > now => {
                    self.waiting.insert(*neighbour, wait);
                }
                _ => due.push((wait, *neighbour)),
            }
        }
        due.sort_by_key(|(wait, neighbour)| (wait.map(|wait| wait.next), *neighbour));
        let room = self.take(due.len(), now);
        for (wait, neighbour) in &due[room..] {
            // Its turn is in another second. Without a first request it is still a new one.
            self.waiting.extend(wait.map(|wait| (*neighbour, wait)));
        }
        due.truncate(room);
        for (wait, neighbour) in &due {
            let pause = wait.map_or(FIRST, |wait| (wait.pause * 2).min(LONGEST));
            self.waiting.insert(*neighbour, Wait { next: now + pause, pause });
        }
        due.into_iter().map(|(_, neighbour)| neighbour).collect()
    }

    /// Whether requests have begun to fail: a reason to say so, once.
    fn is_news(&mut self, failing: bool) -> bool {
        !std::mem::replace(&mut self.failing, failing) && failing
    }

    /// Takes up to `count` requests of what this second has left.
    fn take(&mut self, count: usize, now: Instant) -> usize {
        let (start, used) = match self.second {
            Some((start, used)) if now.duration_since(start) < Duration::from_secs(1) => (start, used),
            _ => (now, 0),
        };
        let taken = count.min(PER_SECOND - used);
        self.second = Some((start, used + taken));
        taken
    }
}

/// Asks the kernel for a neighbour whose port is not known; the answer comes as a change. A MAC that is behind no
/// port is of somebody who left: it is forgotten first, as the kernel would go on using it for seconds.
fn find(world: &World, at: (u32, IpAddr)) -> io::Result<()> {
    if world.neighbours.get(&at).is_some_and(|neighbour| !neighbour.permanent) {
        // The kernel may have forgotten it by itself.
        let _ = neighbour::forget(at.0, at.1);
    }
    neighbour::seek(at.0, at.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbours(range: std::ops::Range<u32>) -> Vec<(u32, IpAddr)> {
        range.map(|n| (7, std::net::Ipv4Addr::from(0x0a80_0000 + n).into())).collect()
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let (mut resolver, start, one) = (Resolver::default(), Instant::now(), neighbours(0..1));
        let asked: Vec<u64> = (0..260)
            .filter(|second| !resolver.due(&one, start + Duration::from_secs(*second)).is_empty())
            .collect();
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
    }

    #[test]
    fn requests_are_spread_over_seconds_and_none_is_left_out() {
        let (mut resolver, start, many) = (Resolver::default(), Instant::now(), neighbours(0..1000));
        let mut asked = std::collections::HashSet::new();
        for second in 0..4 {
            let now = start + Duration::from_secs(second);
            let due = resolver.due(&many, now);
            assert!(due.len() <= PER_SECOND);
            // In the same second there is nothing left.
            assert_eq!(resolver.due(&many, now + Duration::from_millis(900)).len(), PER_SECOND - due.len());
            asked.extend(due);
        }
        assert_eq!(asked.len(), 1000, "new ones go before those that were asked for already");
    }

    #[test]
    fn who_was_found_and_is_lost_again_is_new() {
        let (mut resolver, start, one) = (Resolver::default(), Instant::now(), neighbours(0..1));
        for second in [0, 1, 3] {
            assert_eq!(resolver.due(&one, start + Duration::from_secs(second)), one);
        }
        assert_eq!(resolver.due(&[], start + Duration::from_secs(4)), []);
        assert_eq!(resolver.due(&one, start + Duration::from_secs(5)), one);
        assert_eq!(resolver.due(&one, start + Duration::from_secs(6)), one);
    }
}
