//! Reading the world: a thread that waits for changes, asks the kernel about them and publishes what it knows. Nothing
//! interrupts it, and it waits for nobody.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use tokio::sync::watch;
use tracing::debug;

use super::{
    events::{Changed, Changes, Kind, Listener},
    kernel::Kernel,
    known::{Known, Wants},
    questions,
    world::World,
};

/// Between the first message of a change and reading: a new device comes with several.
const SETTLE: Duration = Duration::from_millis(10);
/// Between two readings for the same kind of change, on a host where something always changes.
const PAUSE: Duration = Duration::from_millis(100);
/// Readings take no more than one part in so many of a processor's time.
const SHARE: u32 = 10;
/// Without any message, in case one was never sent.
const RESYNC: Duration = Duration::from_secs(300);

/// What is known, and of which wants it is all.
pub(super) struct Published {
    pub world: Arc<World>,
    pub wants: u64,
    /// Why the kernel can't be asked now.
    pub problem: Option<String>,
}

/// What the reader is told.
pub(super) struct Orders {
    /// The newest wants, numbered, until they are read.
    wants: Mutex<Option<(u64, Wants)>>,
    wake: OwnedFd,
}

impl Orders {
    pub fn new() -> io::Result<Orders> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Orders { wants: Mutex::default(), wake })
    }

    /// Orders the wants with that number.
    pub fn give(&self, number: u64, wants: Wants) {
        *self.wants.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, wants));
        // Full only where it is awake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Option<(u64, Wants)> {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// See the module.
pub(super) struct Reader {
    kernel: Kernel,
    known: Known,
    /// Each with when it is next read.
    listeners: Vec<(Listener, Instant)>,
    orders: Arc<Orders>,
    /// The number of the wants that are known.
    wants: u64,
    buffer: Vec<u8>,
    problem: Option<String>,
}

impl Reader {
    /// Listens, then reads links and addresses, so that nothing between is missed.
    pub fn new(orders: Arc<Orders>) -> io::Result<(Reader, Published)> {
        let now = Instant::now();
        let listen = |kind| Ok((Listener::new(kind)?, now));
        let listeners = Kind::ALL.into_iter().map(listen).collect::<io::Result<_>>()?;
        let (kernel, known) = (Kernel::new()?, Known::default());
        let mut reader =
            Reader { kernel, known, listeners, orders, wants: 0, buffer: vec![0; 1 << 16], problem: None };
        reader.read_devices(&mut Changes::all())?;
        let published = reader.published();
        Ok((reader, published))
    }

    /// Goes on until nobody hears what is published.
    pub fn run(mut self, publish: &watch::Sender<Published>) {
        let mut open = Changes::default();
        let mut resync = Instant::now() + RESYNC;
        while !publish.is_closed() {
            self.wait(resync);
            if Instant::now() >= resync {
                open = Changes::all();
            }
            if let Some((number, wants)) = self.orders.take() {
                self.known.want(wants);
                self.wants = number;
            }
            let heard = self.hear(&mut open);
            if open.devices && open.routes.is_all() {
                resync = Instant::now() + RESYNC;
            }
            match self.read(&mut open, &heard, publish) {
                Ok(()) => {}
                Err(error) => {
                    if self.problem.is_none() {
                        self.problem = Some(error.to_string());
                        publish.send_modify(|known| known.problem.clone_from(&self.problem));
                    }
                    open = Changes::all();
                    sleep(PAUSE);
                }
            }
        }
    }

    /// Returns when something is to be read: a listener whose pause is over has heard something, or there are
    /// orders.
    fn wait(&self, resync: Instant) {
        if self.problem.is_some() {
            return;
        }
        let now = Instant::now();
        let mut fds = vec![PollFd::new(&self.orders.wake, PollFlags::IN)];
        let mut until = resync;
        for (listener, next) in &self.listeners {
            if *next <= now {
                fds.push(PollFd::from_borrowed_fd(listener.socket(), PollFlags::IN));
            } else {
                until = until.min(*next);
            }
        }
        let rest = until.saturating_duration_since(now);
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        match poll(&mut fds, Some(&rest)) {
            Ok(0) | Err(Errno::INTR) => {}
            // What is ordered does not wait.
            _ if !fds[0].revents().is_empty() => {}
            _ => sleep(SETTLE),
        }
    }

    /// Adds what has been heard; of which kinds.
    fn hear(&mut self, open: &mut Changes) -> Vec<Kind> {
        let now = Instant::now();
        let mut heard = Vec::new();
        for (listener, next) in &self.listeners {
            if *next <= now && listener.read(&mut self.buffer, open) {
                heard.push(listener.kind);
            }
        }
        heard
    }

    /// Asks for all that is open and publishes it. Devices come first: their programs wait for nothing else.
    fn read(
        &mut self,
        open: &mut Changes,
        heard: &[Kind],
        publish: &watch::Sender<Published>,
    ) -> io::Result<()> {
        let start = Instant::now();
        if open.devices {
            self.read_devices(open)?;
            self.publish(publish, false);
        }
        self.pause(heard.iter().filter(|kind| **kind == Kind::Devices), start);
        let start = Instant::now();
        self.read_routes(open)?;
        self.read_neighbours(open)?;
        self.read_forwarding(open)?;
        self.pause(heard.iter().filter(|kind| **kind != Kind::Devices), start);
        debug!("read what has changed in {:?}: {heard:?}", start.elapsed());
        *open = Changes::default();
        self.known.changed |= self.problem.take().is_some();
        self.publish(publish, true);
        Ok(())
    }

    fn pause<'k>(&mut self, heard: impl Iterator<Item = &'k Kind>, start: Instant) {
        let pause = (start.elapsed() * SHARE).max(PAUSE);
        let heard: Vec<&Kind> = heard.collect();
        for (listener, next) in &mut self.listeners {
            if heard.contains(&&listener.kind) {
                *next = Instant::now() + pause;
            }
        }
    }

    fn published(&self) -> Published {
        Published {
            world: Arc::new(self.known.world.clone()),
            wants: self.wants,
            problem: self.problem.clone(),
        }
    }

    /// Publishes what differs; `whole`: it is all that is wanted.
    fn publish(&mut self, publish: &watch::Sender<Published>, whole: bool) {
        let before = publish.borrow().wants;
        if self.known.changed || whole && before != self.wants {
            self.known.changed = false;
            let wants = if whole { self.wants } else { before };
            publish.send_replace(Published { wants, ..self.published() });
        }
    }

    fn read_devices(&mut self, open: &mut Changes) -> io::Result<()> {
        let links = self.kernel.list(questions::links())?;
        let links = links.into_iter().filter_map(|message| match message {
            Message::NewLink(message) => Some(questions::link(&message)),
            _ => None,
        });
        let addresses = self.kernel.list(questions::addresses())?;
        let addresses = addresses.into_iter().filter_map(|message| match message {
            Message::NewAddress(message) => questions::address(&message),
            _ => None,
        });
        let links = links.map(|link| (link.ifindex, link)).collect();
        if self.known.devices(links, addresses.collect()) {
            open.routes = Changed::All;
        }
        self.vlans()?;
        let unplugged = self.known.unplugged();
        self.ask_forwarding(unplugged)
    }

    /// Which VLANs the bridges themselves are in.
    fn vlans(&mut self) -> io::Result<()> {
        self.known.vlans.clear();
        if !self.known.has_vlans() {
            return Ok(());
        }
        for message in self.kernel.list(questions::vlans())? {
            if let Message::NewLink(message) = message {
                let vlan = questions::pvid(&message).map(|vlan| (message.header.index, vlan));
                self.known.vlans.extend(vlan);
            }
        }
        Ok(())
    }

    fn read_routes(&mut self, open: &Changes) -> io::Result<()> {
        let known = &mut self.known;
        let asked = known.routes(&open.routes);
        self.kernel.ask(
            asked,
            |address| questions::route(*address),
            |address, answer| {
                let hop = match answer {
                    Some(Message::NewRoute(message)) => questions::hop(&message),
                    _ => None,
                };
                known.set_route(address, hop);
            },
        )
    }

    fn read_neighbours(&mut self, open: &Changes) -> io::Result<()> {
        let known = &mut self.known;
        let mut asked = known.neighbours(&open.neighbours);
        if open.neighbours.is_all() {
            let bridges = known.bridges();
            let mut listed = HashSet::new();
            for bridge in &bridges {
                for message in self.kernel.list(questions::neighbours(*bridge))? {
                    let Message::NewNeighbour(message) = message else { continue };
                    let at =
                        questions::destination(&message).map(|address| (message.header.ifindex, address));
                    if let Some(at) = at.filter(|at| at.0 == *bridge) {
                        known.set_neighbour(at, Some(&message));
                        listed.insert(at);
                    }
                }
            }
            asked.retain(|at| {
                if bridges.contains(&at.0) && !listed.contains(at) {
                    known.set_neighbour(*at, None);
                }
                !bridges.contains(&at.0)
            });
        }
        self.kernel.ask(
            asked,
            |at| questions::neighbour(*at),
            |at, answer| match answer {
                Some(Message::NewNeighbour(message)) => known.set_neighbour(at, Some(&message)),
                _ => known.set_neighbour(at, None),
            },
        )
    }

    fn read_forwarding(&mut self, open: &Changes) -> io::Result<()> {
        let asked = self.known.macs(&open.forwarding);
        self.ask_forwarding(asked)
    }

    fn ask_forwarding(&mut self, asked: Vec<(u32, [u8; 6])>) -> io::Result<()> {
        let known = &mut self.known;
        let vlans = known.vlans.clone();
        self.kernel.ask(
            asked,
            |at| questions::forwarding(*at, vlans.get(&at.0).copied().unwrap_or(0)),
            |at, answer| {
                let port = match answer {
                    Some(Message::NewNeighbour(message)) => questions::learned(&message),
                    _ => None,
                };
                known.set_mac(at, port);
            },
        )
    }
}
