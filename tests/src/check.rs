//! Runs a case and compares what each packet gets with what it should get.

use std::collections::BTreeMap;

use anyhow::{Context, Error, Result, anyhow, ensure};
use lb_common::{
    abi::{Counter, Ending, Settings, Stop, Traffic},
    path::{Egress, Hook, Verdict},
    wire::ethernet,
};

use crate::{
    case::{Case, Sent, Step},
    family::Net,
    host::{self, Outcome},
    kernel::{Action, Kernel, Summed},
    state::{At, State, among_several, is_for_another},
};

/// The decision core on the host gives each packet what the case says.
///
/// # Errors
/// At the first packet that gets something else.
pub fn on_host<F: Net>(case: &Case<F>) -> Result<()> {
    play(case, |state, sent, bytes, verdict, outcome| {
        if sent.at.hook == Hook::UplinkIngress {
            is_finished_or_left(state, sent.at, bytes, verdict, outcome).context("at XDP before it")?;
        }
        if let Some(at) = among_several_bridges(sent.at) {
            let (found, left) = host::run(state, at, bytes);
            if (found, &left) != (verdict, outcome) {
                return Err(disagreement((verdict.into(), outcome), (found.into(), &left)))
                    .context("among several bridges");
            }
        }
        let expected = sent.becomes.bytes::<F>();
        ensure!(
            verdict == sent.verdict,
            "verdict {verdict:?} ({}), not {:?}",
            labels(&outcome.counters),
            sent.verdict
        );
        let in_pieces = host::run_in_pieces(state, sent.at, bytes);
        ensure!(
            (in_pieces.0, &in_pieces.1) == (verdict, outcome),
            "it matters how the packet lies in memory"
        );
        ensure!(outcome.packet == expected, "{}", differing("the case's", &expected, &outcome.packet));
        let mut counters = BTreeMap::new();
        for counter in &sent.counters {
            *counters.entry(*counter as u32).or_default() += 1;
        }
        ensure!(
            outcome.counters == counters,
            "counted {}, not {}",
            labels(&outcome.counters),
            labels(&counters)
        );
        // What it came in is not its service's.
        let around = if sent.counters.contains(&Counter::Decapsulated) { F::TRANSPORT - 14 } else { 0 };
        let len = (bytes.len() - around) as u64;
        let total = |pick: fn(&Traffic) -> u64| outcome.traffic.values().map(pick).sum::<u64>();
        ensure!(
            (total(|t| t.packets), total(|t| t.bytes)) == (sent.accounted, sent.accounted * len),
            "accounted {:?}, not {} packet of {} bytes",
            outcome.traffic,
            sent.accounted,
            len
        );
        ensure!(
            outcome.traffic.keys().all(|service| state.shared.services.contains_key(service)),
            "accounted to a service that the case does not have"
        );
        Ok(())
    })
}

/// The kernel programs give each packet what the decision core gives it on the host.
///
/// # Errors
/// At the first packet that gets something else.
pub fn in_kernel<F: Net>(case: &Case<F>, kernel: &mut Kernel) -> Result<()> {
    play(case, |state, sent, bytes, _, _| {
        if sent.at.hook == Hook::UplinkIngress {
            agrees(kernel, state, At { hook: Hook::UplinkXdp, ..sent.at }, bytes, false)
                .context("at XDP before it")?;
        }
        if let Some(at) = among_several_bridges(sent.at) {
            agrees(kernel, state, at, bytes, sent.packet.has_checksum()).context("among several bridges")?;
        }
        agrees(kernel, state, sent.at, bytes, sent.packet.has_checksum())
    })
}

/// The same place on a host with several bridges, where packets get the same; there is none at uplinks.
fn among_several_bridges(at: At) -> Option<At> {
    (!at.hook.is_uplink()).then(|| At { settings: among_several(at.settings), ..at })
}

/// XDP gives a packet from outside what tc would give it, its link header aside; or leaves it to tc, and then nothing
/// of it is anywhere.
fn is_finished_or_left<F: Net>(
    state: &State<F>,
    at: At,
    bytes: &[u8],
    on_tc: Verdict,
    left: &Outcome<F>,
) -> Result<()> {
    let (verdict, mut outcome) = host::run(state, At { hook: Hook::UplinkXdp, ..at }, bytes);
    let expected = match (verdict, on_tc) {
        (Verdict::Pass, _) => (Verdict::Pass, host::untouched(state, bytes)),
        (_, Verdict::Forward(_)) => (Verdict::Forward(Egress::Device(at.ifindex)), left.clone()),
        _ => (on_tc, left.clone()),
    };
    if verdict != Verdict::Pass {
        let link = 0..12.min(bytes.len());
        outcome.packet[link.clone()].copy_from_slice(&left.packet[link]);
    }
    if (verdict, &outcome) != (expected.0, &expected.1) {
        let (expected, found) = ((expected.0.into(), &expected.1), (verdict.into(), &outcome));
        return Err(disagreement(expected, found)).context("compared with tc");
    }
    Ok(())
}

/// Whatever a packet is, it is left as it was, translated or answered, and counted as one, and how it lies
/// in memory does not matter.
///
/// # Errors
/// When that does not hold.
pub fn is_sane<F: Net>(state: &State<F>, at: At, bytes: &[u8]) -> Result<()> {
    let (verdict, outcome) = host::run(state, at, bytes);
    let counted = |counter| outcome.counters.get(&(counter as u32)).copied().unwrap_or(0);
    let all = |counters: &[Counter]| counters.iter().map(|counter| counted(*counter)).sum::<u64>();
    let sent = all(&[
        Counter::Request,
        Counter::Reply,
        Counter::Encapsulated,
        Counter::Error,
        Counter::Echoed,
        Counter::Answered,
    ]);
    let refused = Stop::ALL.iter().filter(|stop| stop.ending() == Ending::Reject);
    let refused = refused.map(|stop| counted((*stop).into())).sum::<u64>();
    let forwarded = matches!(verdict, Verdict::Forward(_));
    let as_counted = match (sent, refused) {
        // A reset gets no answer, nor does an error.
        (0, 1) => matches!(verdict, Verdict::Forward(_) | Verdict::Drop(_)),
        (sent, 0) => sent == forwarded as u64,
        _ => false,
    };
    ensure!(as_counted, "{verdict:?}, but counted {}", labels(&outcome.counters));
    let decapsulated = counted(Counter::Decapsulated);
    ensure!(forwarded || decapsulated > 0 || outcome.packet == bytes, "{verdict:?} and changed");
    ensure!(
        refused + counted(Counter::Answered) + counted(Counter::Encapsulated) + decapsulated > 0
            || outcome.packet.len() == bytes.len(),
        "its length changed"
    );
    let is = |wanted: u16| bytes.get(12..14).is_some_and(|ethertype| ethertype == wanted.to_ne_bytes());
    let ip = match at.hook {
        // What is left to tc is counted there.
        Hook::UplinkXdp => verdict != Verdict::Pass,
        Hook::UplinkIngress if is_for_another(at.ifindex, bytes) => false,
        hook => is(F::ETHERTYPE) || is(ethernet::ARP) && hook.is_asked(),
    };
    let outcomes = outcome.counters.values().sum::<u64>();
    let beside =
        all(&[Counter::Decapsulated, Counter::NewFlow, Counter::Rebuilt, Counter::Assured, Counter::Moved]);
    ensure!(outcomes - beside == ip as u64, "not one outcome, but {}", labels(&outcome.counters));
    ensure!(
        host::run_in_pieces(state, at, bytes) == (verdict, outcome),
        "it matters how the packet lies in memory"
    );
    Ok(())
}

/// A packet gets the same in the kernel, whatever the device knows of it, as on the host. `summed`: its
/// checksum covers what may change.
///
/// # Errors
/// When it does not.
pub fn agrees<F: Net>(
    kernel: &mut Kernel,
    state: &State<F>,
    at: At,
    bytes: &[u8],
    summed: bool,
) -> Result<()> {
    // The kernel is given packets without metadata, and no larger than a page.
    if at.tagged || bytes.len() > 4096 - 512 {
        return Ok(());
    }
    if bytes.len() < F::TRANSPORT {
        return Ok(()); // Too short for an IP header: newer kernels refuse to run a program on it.
    }
    let (verdict, outcome) = host::run(state, at, bytes);
    let expected = Action::from(verdict);
    for has_csum_ipv6 in 0..=kernel.has_csum_ipv6 as u32 {
        for known in kernel.summed.iter().copied() {
            // A device's sum can't be kept right over a change that the packet's own does not cover, and
            // the kernel gives it up where the length changes.
            let summed = summed && at.hook != Hook::UplinkXdp;
            // That of what is put into another packet, or taken out, stays right.
            let kept = outcome.packet.len() == bytes.len() || carried(&outcome);
            if known == Summed::Complete && !(summed && kept) {
                continue;
            }
            let at = At { settings: Settings { has_csum_ipv6, ..at.settings }, ..at };
            let context = || format!("checksum {known:?}, has_csum_ipv6 {has_csum_ipv6}");
            let (action, seen) = kernel.run(state, at, bytes, known).with_context(context)?;
            if action != expected || seen != outcome {
                return Err(disagreement((expected, &outcome), (action, &seen))).with_context(context);
            }
        }
    }
    Ok(())
}

/// Whether a packet was put into another or taken out, and not answered.
fn carried<F: Net>(outcome: &Outcome<F>) -> bool {
    let counted = |row| outcome.counters.contains_key(&row);
    let mut rejects = Stop::ALL.iter().filter(|stop| stop.ending() == Ending::Reject);
    [Counter::Encapsulated, Counter::Decapsulated].iter().any(|counter| counted(*counter as u32))
        && !rejects.any(|stop| counted(*stop as u32))
}

pub(crate) fn disagreement<F: Net>(host: (Action, &Outcome<F>), kernel: (Action, &Outcome<F>)) -> Error {
    let (host_action, host) = host;
    let (kernel_action, kernel) = kernel;
    let mut text = "kernel and host disagree".to_owned();
    let mut say = |line: String| text.extend(["\n", &line]);
    if host_action != kernel_action {
        say(format!("verdict {kernel_action:?}, on the host {host_action:?}"));
    }
    if host.counters != kernel.counters {
        say(format!("counted {}, on the host {}", labels(&kernel.counters), labels(&host.counters)));
    }
    if host.packet != kernel.packet {
        say(differing("the host's", &host.packet, &kernel.packet));
    }
    if host.traffic != kernel.traffic {
        say(format!("accounted {:?}, on the host {:?}", kernel.traffic, host.traffic));
    }
    if host.learned != kernel.learned {
        let (host, kernel) = (format!("{:#?}", host.learned), format!("{:#?}", kernel.learned));
        say(format!("left {kernel}\non the host {host}"));
    }
    anyhow!(text)
}

/// Takes a case step by step; `seen` judges each packet.
fn play<F: Net>(
    case: &Case<F>,
    mut seen: impl FnMut(&State<F>, &Sent, &[u8], Verdict, &Outcome<F>) -> Result<()>,
) -> Result<()> {
    let mut state = case.state.clone();
    for (index, step) in case.steps.iter().enumerate() {
        let place = || match step {
            Step::Packet(sent) => {
                let At { hook, ifindex, .. } = sent.at;
                format!("step {}: {}, at {hook:?} of device {ifindex}", index + 1, sent.packet)
            }
            other => format!("step {}: {other:?}", index + 1),
        };
        match step {
            Step::Packet(sent) => {
                let bytes = sent.packet.bytes::<F>();
                let (verdict, outcome) = host::run(&state, sent.at, &bytes);
                let in_pieces = host::run_in_pieces(&state, sent.at, &bytes);
                ensure!(
                    in_pieces == (verdict, outcome.clone()),
                    "it matters how the packet lies: {}",
                    place()
                );
                seen(&state, sent, &bytes, verdict, &outcome).with_context(place)?;
                state.learned = outcome.learned;
            }
            Step::Wait(ticks) => state.age(*ticks),
            Step::Lose(key) => {
                let lost = state.lose(key);
                ensure!(lost, "no row to lose: {}", place());
            }
            Step::Change(change) => change(&mut state),
            Step::Row(key, expected) => {
                let unassured = state.learned.unassured.get(key).map(|row| &row.row);
                let allocated = state.learned.snat.get(key).map(|row| &row.row);
                let found = state
                    .learned
                    .flows
                    .get(key)
                    .or(unassured)
                    .or(allocated)
                    .map(|row| (row.bits & 0xff, row.backend.low));
                ensure!(found == *expected, "(bits, backend) {found:?}, not {expected:?}: {}", place());
            }
        }
    }
    Ok(())
}

fn labels(counters: &BTreeMap<u32, u64>) -> String {
    let label = |(index, count): (&u32, &u64)| {
        let counter = Counter::ALL.get(*index as usize).map_or("?", |counter| counter.label());
        format!("{counter} {count}")
    };
    counters.iter().map(label).collect::<Vec<_>>().join(", ")
}

pub(crate) fn differing(whose: &str, expected: &[u8], found: &[u8]) -> String {
    let first = expected.iter().zip(found).position(|(a, b)| a != b);
    let first = first.unwrap_or(expected.len().min(found.len()));
    format!("bytes differ from {first} on\n{whose:>10}: {}\n{:>10}: {}", hex(expected), "found", hex(found))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
