//! Explain: what would happen to a client's first packet, and why.
//!
//! Nothing is decided here. [`served`] has the rows that an agent would have, by compile, plan and apply;
//! the decision core ([`path::run`]) decides on a made-up packet; [`words`] tells what it did from the model,
//! the core's counter and the packet's bytes. No root, no kernel, no host is needed.

mod call;
mod packet;
mod served;
#[cfg(test)]
mod tests;
mod words;

use std::net::{IpAddr, SocketAddr};

use bumpalo::Bump;
use lb_common::{
    abi::{Counter, Ending},
    family::{Family, V4, V6},
    path::{self, Access, Hook, Tables as _},
};
use lb_sim::{Learned, Tables};
use serde::{Serialize, Serializer};

use self::{call::Call, packet::Headers, served::Served};
use crate::{
    apply::StepError,
    compile::Frontend,
    model::{Model, addresses::AddressError},
    plan::Full,
};

/// The port of a client that is not told.
pub const CLIENT_PORT: u16 = 40_000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub from: IpAddr,
    /// Its port; `None`: [`CLIENT_PORT`].
    pub from_port: Option<u16>,
    /// What it calls.
    pub to: Frontend,
    /// Where its packet is seen first; `None`: where one with that source would be.
    pub at: Option<At>,
}

/// Where a client's packet is seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// A port of the bridge: the client is a pod, container or VM of this node
    Port,
    /// An uplink: the client is outside
    Uplink,
    /// A socket: the client is a process of this host
    Host,
}

/// What a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes to a backend.
    Forward,
    /// It is answered with a refusal.
    Reject,
    /// It is thrown away.
    Drop,
    /// It is not ours: it goes on untouched.
    Pass,
}

/// The answer. Fields of a service are empty where none was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What the packet gets.
    pub verdict: Verdict,
    /// Source of the packet that was tried.
    pub from: SocketAddr,
    /// Its destination, `address:port/protocol`.
    pub to: String,
    /// Where it is seen first.
    pub at: At,
    /// The service port, `namespace/name:port`.
    pub frontend: Option<String>,
    /// What kind of frontend was called.
    pub kind: Option<&'static str>,
    /// Every backend that this client could get, `address:port`.
    pub backends: Vec<String>,
    /// The one that this packet gets.
    pub backend: Option<String>,
    /// What its source becomes, `address:port`, if it does not stay.
    pub snat: Option<String>,
    /// The backend's node, if the packet goes there inside another (`forwarding: dsr`).
    pub node: Option<IpAddr>,
    /// The outcome that `lb status` counts, if it is not forwarded.
    pub reason: Option<&'static str>,
    /// Backends that this client could not get.
    pub others: Vec<Other>,
    /// How it came to that.
    pub steps: Vec<Step>,
}

/// A backend that a client could not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// `address:port`.
    pub backend: String,
    /// Why not.
    pub why: String,
}

/// One step of the way, in words. In JSON it is one string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is about, in a word or two.
    pub topic: &'static str,
    /// What happens there.
    pub text: String,
    /// What it lists.
    pub items: Vec<String>,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items = self.items.join("; ");
        let text = match items.is_empty() {
            true => format!("{}: {}", self.topic, self.text),
            false => format!("{}: {} ({items})", self.topic, self.text),
        };
        serializer.serialize_str(&text)
    }
}

/// A question that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No packet has both addresses.
    #[error("{from} and {to} are not of one address family: ask with two IPv4 or two IPv6 addresses")]
    Families {
        /// The client.
        from: IpAddr,
        /// What it calls.
        to: IpAddr,
    },
    /// A service would not be served.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The config is larger than the largest maps.
    #[error("the config does not fit: {0}")]
    Full(#[from] Full),
    /// A row could not be written; in memory that does not occur.
    #[error(transparent)]
    Write(#[from] StepError),
}

/// The question with nothing left open.
struct Asked {
    from: SocketAddr,
    from_told: bool,
    to: Frontend,
    at: At,
    at_told: bool,
}

/// What the core made of the packet.
struct Decision {
    verdict: Verdict,
    /// The outcome it counted.
    counter: Counter,
    /// The packet afterwards; as its backend is to see it where it is inside another.
    after: Headers,
    /// From which node to which it is inside another packet.
    tunnel: Option<(IpAddr, IpAddr)>,
    /// The refusal that it was answered with.
    answer: Option<Headers>,
}

/// Says what a client's first packet would get from an agent with this config.
///
/// # Errors
/// The addresses are of two families, or no agent could serve the config.
pub fn explain(model: Model, question: &Question) -> Result<Explanation, ExplainError> {
    let (from, to) = (question.from, question.to.address);
    let served = Served::new(model)?;
    let asked = Asked {
        from: SocketAddr::new(from, question.from_port.unwrap_or(CLIENT_PORT)),
        from_told: question.from_port.is_some(),
        to: question.to,
        at: question.at.unwrap_or_else(|| served.first_seen(from)),
        at_told: question.at.is_some(),
    };
    let decision = match to {
        IpAddr::V4(_) => decide::<V4>(&served, &asked),
        IpAddr::V6(_) => decide::<V6>(&served, &asked),
    };
    let decision = decision.ok_or(ExplainError::Families { from, to })?;
    Ok(words::explanation(&served, &asked, &decision))
}

/// The decision core on what is asked about; `None`: there is no such packet.
fn decide<F: Family>(served: &Served, asked: &Asked) -> Option<Decision> {
    F::from_ip(asked.from.ip())?;
    let (arena, settings) = (Bump::new(), served.settings(asked.at, asked.from.ip()));
    let maps = (&served.maps.shared, F::of(&served.maps), u32::MAX);
    let tables = Tables::new(&arena, maps, &Learned::default(), settings);
    match asked.at {
        At::Host => connect(&tables, asked),
        At::Port => packet(served, &tables, asked, Hook::PortIngress, served::CLIENT),
        At::Uplink => packet(served, &tables, asked, Hook::UplinkIngress, served::UPLINK),
    }
}

/// A packet at a hook of a device.
fn packet<F: Family>(
    served: &Served,
    tables: &Tables<'_, F>,
    asked: &Asked,
    hook: Hook,
    ifindex: u32,
) -> Option<Decision> {
    let to = SocketAddr::new(asked.to.address, asked.to.port);
    let mut packet = packet::first(asked.from, to, asked.to.protocol, ifindex)?;
    let verdict = path::decide(&mut packet, tables, hook);
    let counter = *tables.counted().last()?;
    let mut after = packet::headers(&packet)?;
    let mut tunnel = None;
    if counter == Counter::Encapsulated {
        tunnel = Some((after.source.ip(), after.destination.ip()));
        let destination = F::of(&served.maps).socket(tables.state()?.backend.get().low)?;
        after = Headers {
            source: asked.from,
            destination,
            hops: packet::HOPS - 1,
            protocol: asked.to.protocol.number(),
        };
    }
    let rejected = counter.stop().is_some_and(|why| why.ending() == Ending::Reject);
    let (verdict, answer) = match verdict {
        path::Verdict::Forward(_) if rejected => (Verdict::Reject, packet::headers(&packet)),
        path::Verdict::Drop(_) if rejected => (Verdict::Reject, None),
        path::Verdict::Forward(_) => (Verdict::Forward, None),
        path::Verdict::Drop(_) => (Verdict::Drop, None),
        path::Verdict::Pass => (Verdict::Pass, None),
    };
    Some(Decision { verdict, counter, after, tunnel, answer })
}

/// A socket of the host that connects; the packet it then sends is what comes after.
fn connect<F: Family>(tables: &Tables<'_, F>, asked: &Asked) -> Option<Decision> {
    let mut call = Call::<F>::new(asked.to)?;
    let access = path::connect(&mut call, tables);
    // What is no service's is not counted.
    let counter = tables.counted().last().copied().unwrap_or(Counter::NotOurs);
    let verdict = match access {
        Access::Refused => Verdict::Reject,
        Access::Unreachable => Verdict::Drop,
        Access::Granted if counter == Counter::SocketConnected => Verdict::Forward,
        Access::Granted => Verdict::Pass,
    };
    let after = Headers {
        source: asked.from,
        destination: call.destination(),
        hops: packet::HOPS,
        protocol: asked.to.protocol.number(),
    };
    Some(Decision { verdict, counter, after, tunnel: None, answer: None })
}
