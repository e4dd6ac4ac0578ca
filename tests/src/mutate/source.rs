//! Where rows and packets to mutate come from: the cases, and scenarios at random.

use std::fmt;

use anyhow::{Context, Result, bail};
use lb_common::abi::{NextHopKind, Settings, set_flags};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::rng::Rng;
use crate::{
    case::{Case, Step},
    cases,
    family::Net,
    host, random,
    state::{At, BRIDGE, OTHER_BRIDGE, State, among_several, on, on_uplink},
};

/// Which rows a history begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A case's after its first steps.
    Case {
        /// Its name.
        name: String,
        /// So many steps.
        after: usize,
    },
    /// Those of the random scenario with this seed.
    Random(u64),
}

/// Rows, settings by name, and packets seen among them.
pub struct Source<F: Net> {
    /// The rows.
    pub state: State<F>,
    /// Settings that programs may have there.
    pub settings: Vec<(String, Settings)>,
    /// Packets, and where they are seen.
    pub packets: Vec<(At, Vec<u8>)>,
}

/// Every case, and the packets of all of them.
pub struct Sources<F: Net> {
    cases: Vec<Case<F>>,
    packets: Vec<(At, Vec<u8>)>,
}

impl<F: Net> Sources<F> {
    /// Of this build.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let cases = cases::all::<F>();
        let packets = cases.iter().flat_map(packets).collect();
        Sources { cases, packets }
    }

    /// The cases, at their beginning.
    pub fn cases(&self) -> Vec<Origin> {
        self.cases.iter().map(|case| Origin::Case { name: case.name.clone(), after: 0 }).collect()
    }

    /// An origin at random: two in three times a case.
    pub fn origin(&self, rng: &mut Rng) -> Origin {
        if rng.one_in(3) {
            return Origin::Random(rng.next() % 1_000_000);
        }
        let case = rng.pick(&self.cases);
        // What steps leave is flows, most of the time.
        Origin::Case { name: case.name.clone(), after: rng.below(case.steps.len().min(8) + 1) }
    }

    /// What begins there.
    ///
    /// # Errors
    /// No such case.
    pub fn source(&self, origin: &Origin) -> Result<Source<F>> {
        let mut source = match origin {
            Origin::Case { name, after } => {
                let case = self.cases.iter().find(|case| case.name == *name);
                let case = case.with_context(|| format!("no case `{name}`"))?;
                Source { state: state(case, *after), settings: settings(case), packets: packets(case) }
            }
            Origin::Random(seed) => {
                let scenario = scenario(*seed);
                let mut packets = vec![(scenario.at(), scenario.packet::<F>().0)];
                // Others' are of the same addresses.
                let mut rng = Rng::new(*seed, 0);
                packets.extend((0..12).map(|_| rng.pick(&self.packets).clone()));
                Source { state: scenario.state(), settings: everywhere(), packets }
            }
        };
        // The kernel's choice at random is not the host's.
        source.state.shared.sets.values_mut().for_each(|set| set.flags &= !set_flags::RANDOM);
        Ok(source)
    }
}

fn scenario(seed: u64) -> random::Scenario {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    random::scenario().new_tree(&mut runner).expect("scenarios are not filtered").current()
}

/// Settings that fit all rows.
fn everywhere() -> Vec<(String, Settings)> {
    [
        ("bridge-peer", on(BRIDGE, NextHopKind::Peer)),
        ("bridge-bridge", on(BRIDGE, NextHopKind::Bridge)),
        ("bridge-stack", on(BRIDGE, NextHopKind::Stack)),
        ("other-peer", on(OTHER_BRIDGE, NextHopKind::Peer)),
        ("several-peer", among_several(on(BRIDGE, NextHopKind::Peer))),
        ("uplink", on_uplink()),
    ]
    .map(|(name, settings)| (name.to_owned(), settings))
    .into()
}

fn settings<F: Net>(case: &Case<F>) -> Vec<(String, Settings)> {
    let mut settings = everywhere();
    for (step, sent) in case.steps.iter().enumerate() {
        if let Step::Packet(sent) = sent
            && !settings
                .iter()
                .any(|(_, known)| bytemuck::bytes_of(known) == bytemuck::bytes_of(&sent.at.settings))
        {
            settings.push((format!("step-{step}"), sent.at.settings));
        }
    }
    settings
}

fn packets<F: Net>(case: &Case<F>) -> Vec<(At, Vec<u8>)> {
    let sent = case.steps.iter().filter_map(|step| match step {
        Step::Packet(sent) => Some((sent.at, sent.packet.bytes::<F>())),
        _ => None,
    });
    sent.filter(|(_, bytes)| bytes.len() >= F::TRANSPORT).collect()
}

/// The rows after so many steps.
fn state<F: Net>(case: &Case<F>, after: usize) -> State<F> {
    let mut state = case.state.clone();
    for step in case.steps.iter().take(after) {
        match step {
            Step::Packet(sent) => {
                let (_, outcome) = host::run(&state, sent.at, &sent.packet.bytes::<F>());
                state.learned = outcome.learned;
            }
            Step::Wait(ticks) => state.age(*ticks),
            Step::Lose(key) => drop(state.lose(key)),
            Step::Change(change) => change(&mut state),
            Step::Row(..) => {}
        }
    }
    state
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Case { name, after } => write!(f, "case {after} {name}"),
            Origin::Random(seed) => write!(f, "random {seed}"),
        }
    }
}

impl Origin {
    /// As it is displayed.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        match kind {
            "random" => Ok(Origin::Random(rest.parse().context("a seed is a number")?)),
            "case" => {
                let (after, name) = rest.split_once(' ').context("`case STEPS NAME`")?;
                let after = after.parse().context("so many steps is a number")?;
                Ok(Origin::Case { name: name.to_owned(), after })
            }
            other => bail!("rows of `case STEPS NAME` or `random SEED`, not of `{other}`"),
        }
    }
}
