//! A packet case: rows, packets in a sequence, and what each of them gets.

use lb_common::{
    abi::{Counter, FlowKey, NextHopKind, Settings},
    path::{Egress, Hook, Verdict},
};

use crate::{
    family::Net,
    packet::{Complaint, Wire},
    state::{At, BLUE, BRIDGE, OTHER_UPLINK, Port, RED, ROUTER, State, UPLINK, on, on_uplink},
    world::{BACKEND, CLIENT, VIP},
};

/// Packets over the same tables, and what each gets.
#[derive(Clone, Debug)]
pub struct Case<F: Net> {
    /// The test's name: what holds.
    pub name: String,
    pub(crate) state: State<F>,
    /// Of the programs of bridges, of those of uplinks, and of those that were met last.
    bridge: Settings,
    uplink: Settings,
    settings: Settings,
    pub(crate) steps: Vec<Step<F>>,
}

/// What happens next in a case.
#[derive(Clone, Debug)]
pub(crate) enum Step<F: Net> {
    /// A packet is seen.
    Packet(Box<Sent>),
    /// Nothing is, for so many ticks.
    Wait(u32),
    /// A row is evicted.
    Lose(FlowKey<F>),
    /// The agent changes a row.
    Change(fn(&mut State<F>)),
    /// There is such a row with these bits (the low eight) and this backend, or there is none.
    Row(FlowKey<F>, Option<(u32, u32)>),
}

/// A packet at a hook, and what it gets.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub at: At,
    pub packet: Wire,
    pub verdict: Verdict,
    pub becomes: Wire,
    pub counters: Vec<Counter>,
    /// Packets of this length that the service's traffic grows by.
    pub accounted: u64,
}

impl Sent {
    /// A packet as it goes on: what comes from outside or is sent there makes a hop, and the kernel writes the link
    /// header
    /// of what it finds the next hop for.
    fn carried(&self, way: Egress, packet: Wire, to: &str) -> Wire {
        let stack = self.at.settings.return_path == NextHopKind::Stack as u32;
        match way {
            Egress::Continue if stack && self.at.hook == Hook::PortIngress => packet,
            Egress::Neighbour(UPLINK | OTHER_UPLINK) => packet.routed(),
            Egress::Neighbour(_) => packet,
            Egress::Peer(_) if self.at.hook.from_outside() => packet.routed().link_to(to),
            _ => packet.link_to(to),
        }
    }
}

/// A case on these rows. Its packets meet the programs of [`BRIDGE`] in peer mode and those of uplinks until
/// [`Case::on`].
pub fn case<F: Net>(name: impl Into<String>, state: State<F>) -> Case<F> {
    let (bridge, uplink) = (on(BRIDGE, NextHopKind::Peer), on_uplink());
    Case { name: name.into(), state, bridge, uplink, settings: bridge, steps: Vec::new() }
}

impl<F: Net> Case<F> {
    /// Under another name: for a case that goes on from another.
    pub fn named(self, name: impl Into<String>) -> Self {
        Case { name: name.into(), ..self }
    }

    /// Later packets meet programs with these settings: at uplinks where clients are behind those, else at bridges.
    pub fn on(self, settings: Settings) -> Self {
        if settings.return_path == NextHopKind::Uplink as u32 {
            Case { uplink: settings, settings, ..self }
        } else {
            Case { bridge: settings, settings, ..self }
        }
    }

    /// A packet at a hook of a device; left alone unless one of the next methods says otherwise.
    pub fn send(mut self, hook: Hook, ifindex: u32, packet: Wire) -> Self {
        self.settings = if hook.is_uplink() { self.uplink } else { self.bridge };
        self.steps.push(Step::Packet(Box::new(Sent {
            at: At { settings: self.settings, hook, ifindex, tagged: false, segment: 0 },
            becomes: packet.clone(),
            packet,
            verdict: Verdict::Pass,
            counters: Vec::new(),
            accounted: 0,
        })));
        self
    }

    /// A packet that a pod sends.
    pub fn pod(self, port: Port, packet: Wire) -> Self {
        self.send(Hook::PortIngress, port.ifindex, packet)
    }

    /// The client in the pod red sends the first packet of a flow; it goes on to the backend in the pod blue.
    pub fn begins(self, packet: Wire) -> Self {
        self.pod(RED, packet).opens(Egress::Peer(BLUE.ifindex), BACKEND)
    }

    /// It sends a packet of a flow that there is.
    pub fn asks(self, packet: Wire) -> Self {
        self.pod(RED, packet).request(Egress::Peer(BLUE.ifindex), BACKEND)
    }

    /// The backend sends to the client, who hears the frontend.
    pub fn answers(self, packet: Wire) -> Self {
        self.pod(BLUE, packet).reply(Egress::Peer(RED.ifindex), VIP, CLIENT)
    }

    /// A packet that comes from outside.
    pub fn outside(self, packet: Wire) -> Self {
        self.send(Hook::UplinkIngress, UPLINK, packet)
    }

    /// The last packet has a VLAN tag.
    pub fn tagged(mut self) -> Self {
        self.last().at.tagged = true;
        self
    }

    /// The last packet is one that a device is to segment into parts of so many bytes of what it carries.
    pub fn segmented(mut self, segment: u32) -> Self {
        self.last().at.segment = segment;
        self
    }

    /// It goes on to a backend (`address:port`), addressed to its MAC.
    pub fn request(mut self, way: Egress, backend: &str) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(way);
        sent.becomes = sent.carried(way, sent.packet.clone().destination(backend), backend);
        sent.counters = vec![Counter::Request];
        sent.accounted = 1;
        self
    }

    /// As [`Case::request`], the first packet of a flow.
    pub fn opens(self, way: Egress, backend: &str) -> Self {
        self.request(way, backend).also(Counter::NewFlow)
    }

    /// The last packet shows that its client hears the backend: its flow moves to the assured ones.
    pub fn assures(self) -> Self {
        self.also(Counter::Assured)
    }

    /// The last packet meets XDP, before tc. What tc leaves to the kernel's next hop is sent by XDP itself: replies to
    /// the client, as it is in the LAN, all else to the router behind the uplink.
    pub fn xdp(mut self) -> Self {
        let sent = self.last();
        sent.at.hook = Hook::UplinkXdp;
        if let Verdict::Forward(Egress::Neighbour(ifindex)) = sent.verdict {
            sent.verdict = Verdict::Forward(Egress::Device(ifindex));
            let becomes = sent.becomes.clone().link_from(BRIDGE.at);
            let is_reply = sent.counters.contains(&Counter::Reply);
            sent.becomes = if is_reply { becomes.link_to_destination() } else { becomes.link_to(ROUTER) };
        }
        self
    }

    /// It goes on inside another packet, as this one.
    pub fn encapsulated(mut self, way: Egress, becomes: Wire) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(way);
        sent.becomes = becomes;
        sent.counters = vec![Counter::Encapsulated];
        sent.accounted = 1;
        self
    }

    /// It goes back to a client (`address:port`) from a frontend (`address:port`), addressed to the
    /// client's MAC.
    pub fn reply(mut self, way: Egress, frontend: &str, client: &str) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(way);
        sent.becomes = sent.carried(way, sent.packet.clone().source(frontend).destination(client), client);
        sent.counters = vec![Counter::Reply];
        self
    }

    /// The last packet comes out as from here (`address:port`).
    pub fn shown(self, source: &str) -> Self {
        self.but(|packet| packet.source(source))
    }

    /// The last packet comes out differently from what the method before says.
    pub fn but(mut self, change: impl FnOnce(Wire) -> Wire) -> Self {
        let sent = self.last();
        sent.becomes = change(sent.becomes.clone());
        self
    }

    /// Another counter moves with the last packet.
    pub fn also(mut self, counter: Counter) -> Self {
        self.last().counters.push(counter);
        self
    }

    /// The last packet is left alone for this reason.
    pub fn passes(mut self, why: Counter) -> Self {
        self.last().counters = vec![why];
        self
    }

    /// The last packet is dropped for this reason.
    pub fn drops(mut self, why: Counter) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Drop(why.stop().expect("the counter of a stop"));
        sent.counters = vec![why];
        self
    }

    /// The last packet is answered by a refusal, for this reason.
    pub fn rejects(mut self, why: Counter) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(Egress::Device(sent.at.ifindex));
        sent.becomes = sent.packet.clone().refused();
        sent.counters = vec![why];
        self
    }

    /// The last packet is answered by this error from `at`, for this reason.
    pub fn returns(mut self, why: Counter, complaint: Complaint, at: &str) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(Egress::Device(sent.at.ifindex));
        sent.becomes = sent.packet.clone().returned(complaint, at);
        sent.counters = vec![why];
        self
    }

    /// The last packet is an error about a packet of a flow, of which `to` (`address:port`) hears this.
    pub fn error(mut self, way: Egress, heard: Wire, to: &str) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(way);
        sent.becomes = sent.carried(way, heard.link_as(&sent.packet), to);
        sent.counters = vec![Counter::Error];
        self
    }

    /// The last packet is an echo request, which is answered.
    pub fn echoes(mut self) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(Egress::Device(sent.at.ifindex));
        sent.becomes = sent.packet.clone().echoed();
        sent.counters = vec![Counter::Echoed];
        self
    }

    /// The last packet is a question about a neighbour, answered so.
    pub fn answered(mut self, answer: Wire) -> Self {
        let sent = self.last();
        sent.verdict = Verdict::Forward(Egress::Device(sent.at.ifindex));
        sent.becomes = answer;
        sent.counters = vec![Counter::Answered];
        self
    }

    /// The last packet is its service's traffic, although it is not translated.
    pub fn accounted(mut self) -> Self {
        self.last().accounted = 1;
        self
    }

    /// The last packet is nobody's traffic.
    pub fn not_accounted(mut self) -> Self {
        self.last().accounted = 0;
        self
    }

    /// Time passes.
    pub fn wait(self, ticks: u32) -> Self {
        self.then(Step::Wait(ticks))
    }

    /// The row that this packet would find is evicted.
    pub fn loses(self, packet: Wire) -> Self {
        let key = packet.key(self.zone());
        self.then(Step::Lose(key))
    }

    /// The agent changes rows.
    pub fn change(self, change: fn(&mut State<F>)) -> Self {
        self.then(Step::Change(change))
    }

    /// The row that this packet would find has these bits (`flow_bits`, without the way and the zone)
    /// and names this backend.
    pub fn row(self, packet: Wire, bits: u32, backend: u32) -> Self {
        let key = packet.key(self.zone());
        self.then(Step::Row(key, Some((bits, backend))))
    }

    /// This packet would find no row.
    pub fn no_row(self, packet: Wire) -> Self {
        let key = packet.key(self.zone());
        self.then(Step::Row(key, None))
    }

    fn zone(&self) -> u16 {
        self.settings.zone as u16
    }

    fn then(mut self, step: Step<F>) -> Self {
        self.steps.push(step);
        self
    }

    fn last(&mut self) -> &mut Sent {
        match self.steps.last_mut() {
            Some(Step::Packet(sent)) => sent,
            _ => panic!("{}: an expectation without a packet before it", self.name),
        }
    }
}
