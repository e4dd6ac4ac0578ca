//! Tells the neighbours at uplinks which addresses this node takes over (`--announce`), and finds who else has them.
//!
//! A thread of its own sends and listens. Announcements are repeated, as frames get lost; nobody hears more than a
//! hundred frames a second. Each address is asked for once when it comes, and again while somebody else has it: who
//! announces it, too, answers.

mod frames;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use lb_sys::packet::Frames;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fd::{AsFd as _, OwnedFd},
};
use tracing::{debug, warn};

/// Between two frames.
const PACE: Duration = Duration::from_millis(10);
/// Announcements by ARP, and the time between them (RFC 5227 section 1.1).
const ARP: (u32, Duration) = (2, Duration::from_secs(2));
/// Unsolicited advertisements, and the time between them (RFC 4861 section 10).
const ADVERTISEMENTS: (u32, Duration) = (3, Duration::from_secs(1));
/// Between questions for an address that somebody else has, too.
const AGAIN: Duration = Duration::from_secs(10);
/// Who has not answered for so long, to two questions, has the address no more.
const SILENT: Duration = Duration::from_secs(25);
/// So many others are remembered for one address.
const OTHERS: usize = 4;
/// Frames that are read before others get their turn, and the pause after them: a flood costs little.
const FLOOD: usize = 64;

/// Where an address is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The uplink.
    pub device: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// An address of its own in the same subnet.
    pub own: IpAddr,
}

impl At {
    /// Whether neighbours see no difference.
    pub fn is_same(&self, other: &At) -> bool {
        (self.device, self.mac) == (other.device, other.mac)
    }
}

/// Addresses that are announced.
pub type Announced = BTreeMap<IpAddr, At>;
/// Somebody else who says to have an announced address: uplink, address, and the MAC.
pub type Other = (u32, IpAddr, [u8; 6]);

/// See the module.
#[derive(Default)]
pub struct Announcer {
    /// From the first address on.
    thread: Option<Arc<Shared>>,
}

struct Shared {
    wake: OwnedFd,
    orders: Mutex<Orders>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Orders {
    announced: Option<Announced>,
    tell: BTreeSet<IpAddr>,
    end: bool,
}

/// What the thread has found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// Who else has addresses that are announced.
    pub others: BTreeSet<Other>,
    /// Why nothing can be sent or heard at an uplink (interface index).
    pub failed: BTreeMap<u32, String>,
}

impl Announcer {
    /// These addresses are announced from now on; the neighbours are told about some of them.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn follow(
        &mut self,
        announced: &Announced,
        tell: impl IntoIterator<Item = IpAddr>,
    ) -> io::Result<()> {
        let shared = match &self.thread {
            Some(shared) => shared,
            None if announced.is_empty() => return Ok(()),
            None => self.thread.insert(start()?),
        };
        let mut orders = lock(&shared.orders);
        orders.announced = Some(announced.clone());
        orders.tell.extend(tell);
        drop(orders);
        shared.wake();
        Ok(())
    }

    /// What the thread has found out by now.
    pub fn heard(&self) -> Heard {
        self.thread.as_ref().map_or_else(Heard::default, |shared| lock(&shared.heard).clone())
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if let Some(shared) = &self.thread {
            lock(&shared.orders).end = true;
            shared.wake();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // It is full only where the thread is woken anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> io::Result<Arc<Shared>> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let shared = Arc::new(Shared { wake, orders: Mutex::default(), heard: Mutex::default() });
    let mut worker = Worker::new(Arc::clone(&shared));
    thread::Builder::new().name("announcer".to_owned()).spawn(move || worker.run())?;
    Ok(shared)
}

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
struct Job {
    address: IpAddr,
    at: At,
    /// So many announcements more; none: it is a question.
    announcements: u32,
}

struct Worker {
    shared: Arc<Shared>,
    announced: Announced,
    /// By the time from which they may be sent, in order.
    jobs: BTreeMap<(Instant, u64), Job>,
    /// Jobs there have been.
    count: u64,
    /// No frame before.
    next: Instant,
    /// By device and EtherType.
    sockets: BTreeMap<(u32, u16), Frames>,
    /// Who else has addresses, and when that was last heard.
    others: BTreeMap<Other, Instant>,
    failed: BTreeMap<u32, String>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Worker {
        Worker {
            shared,
            announced: Announced::new(),
            jobs: BTreeMap::new(),
            count: 0,
            next: Instant::now(),
            sockets: BTreeMap::new(),
            others: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        while self.obey() {
            self.listen();
            self.send(Instant::now());
            self.hear();
            *lock(&self.shared.heard) =
                Heard { others: self.others.keys().copied().collect(), failed: self.failed.clone() };
            self.wait();
        }
    }

    /// Takes orders; whether to go on.
    fn obey(&mut self) -> bool {
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        let Orders { announced, tell, end } = std::mem::take(&mut *lock(&self.shared.orders));
        if let Some(announced) = announced {
            self.follow(announced, &tell, Instant::now());
        }
        !end
    }

    fn follow(&mut self, announced: Announced, tell: &BTreeSet<IpAddr>, now: Instant) {
        let before = std::mem::replace(&mut self.announced, announced);
        let is_at =
            |address: &IpAddr, at: &At| self.announced.get(address).is_some_and(|now| now.is_same(at));
        self.jobs.retain(|_, job| is_at(&job.address, &job.at));
        self.others.retain(|(device, address, _), _| {
            self.announced.get(address).is_some_and(|at| at.device == *device)
        });
        for (address, at) in self.announced.clone() {
            if tell.contains(&address) {
                let (announcements, _) = times(address);
                self.add(now, Job { address, at, announcements });
            }
            if !before.get(&address).is_some_and(|before| before.is_same(&at)) {
                self.add(now, Job { address, at, announcements: 0 });
            }
        }
    }

    fn add(&mut self, at: Instant, job: Job) {
        // Announcements go before questions.
        let at = if job.announcements == 0 { at + PACE } else { at };
        self.count += 1;
        self.jobs.insert((at, self.count), job);
    }

    /// Has a socket for each uplink and family that something is announced at.
    fn listen(&mut self) {
        let wanted: BTreeSet<(u32, u16)> =
            self.announced.iter().map(|(address, at)| (at.device, frames::ether_type(*address))).collect();
        self.sockets.retain(|key, _| wanted.contains(key));
        let mut failed = BTreeMap::new();
        for (device, ether_type) in wanted {
            if self.sockets.contains_key(&(device, ether_type)) {
                continue;
            }
            match Frames::at(device, ether_type, &mut frames::filter(ether_type)) {
                Ok(socket) => {
                    self.sockets.insert((device, ether_type), socket);
                }
                Err(error) => {
                    failed.insert(device, error.to_string());
                }
            }
        }
        self.failed = failed;
    }

    /// Sends what is due, as far as the pace allows.
    fn send(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        let Some(entry) = self.jobs.first_entry().filter(|entry| entry.key().0 <= now) else { return };
        let Job { address, at, announcements } = entry.remove();
        if announcements == 0 {
            let others = |known: &Other| known.1 == address;
            self.others.retain(|known, heard| !others(known) || now.duration_since(*heard) < SILENT);
            if self.others.keys().any(others) {
                self.add(now + AGAIN, Job { address, at, announcements });
            }
        } else if announcements > 1 {
            let (_, pause) = times(address);
            self.add(now + pause, Job { address, at, announcements: announcements - 1 });
        }
        self.next = now + PACE;
        let frame = if announcements > 0 {
            frames::announcement(address, &at)
        } else {
            frames::question(address, &at)
        };
        let key = (at.device, frames::ether_type(address));
        let (Ok(frame), Some(socket)) = (frame, self.sockets.get(&key)) else { return };
        if let Err(error) = socket.send(&frame) {
            // The device is down or gone, of which the agent hears, or its queue is full: the next frame may get through.
            debug!("announcing {address} at device {}: {error}", at.device);
        }
    }

    /// Hears who else has addresses.
    fn hear(&mut self) {
        let mut buffer = [0; 256];
        let mut news = Vec::new();
        let mut broken = Vec::new();
        for ((device, ether_type), socket) in &self.sockets {
            for _ in 0..FLOOD {
                match socket.receive(&mut buffer) {
                    Ok(Some(frame)) => news.extend(frames::said(frame).map(|(at, mac)| (*device, at, mac))),
                    Ok(None) => break,
                    // Said once of a device that has gone down; the socket goes on when it is up.
                    Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => break,
                    Err(error) => {
                        warn!("listening for neighbours at device {device}: {error}; trying again");
                        broken.push((*device, *ether_type));
                        break;
                    }
                }
            }
        }
        self.sockets.retain(|key, _| !broken.contains(key));
        for other in news {
            self.note(other, Instant::now());
        }
    }

    /// Notes that somebody says to have an address.
    fn note(&mut self, other: Other, now: Instant) {
        let (device, address, mac) = other;
        let Some(at) = self.announced.get(&address).copied() else { return };
        if at.device != device || at.mac == mac {
            return;
        }
        if let Some(heard) = self.others.get_mut(&other) {
            *heard = now;
            return;
        }
        let known = self.others.keys().filter(|known| known.1 == address).count();
        if known < OTHERS {
            self.others.insert(other, now);
        }
        if known == 0 {
            self.add(now + AGAIN, Job { address, at, announcements: 0 });
        }
    }

    /// Returns when there is something to send or to hear, or there are orders.
    fn wait(&self) {
        let now = Instant::now();
        let due = self.jobs.first_key_value().map(|((due, _), _)| (*due).max(self.next));
        // Sockets that could not be had are tried again.
        let again = (!self.failed.is_empty()).then(|| now + Duration::from_secs(1));
        let rest = due.into_iter().chain(again).min().map(|until| until.saturating_duration_since(now));
        let rest =
            rest.map(|rest| Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        fds.extend(
            self.sockets.values().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)),
        );
        let heard = poll(&mut fds, rest.as_ref()).is_ok_and(|ready| ready > 0);
        if heard && fds[0].revents().is_empty() {
            sleep(PACE);
        }
    }
}

/// How often and how far apart an address is announced.
fn times(address: IpAddr) -> (u32, Duration) {
    if address.is_ipv4() { ARP } else { ADVERTISEMENTS }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn worker() -> Worker {
        let wake = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        Worker::new(Arc::new(Shared { wake, orders: Mutex::default(), heard: Mutex::default() }))
    }

    fn announced(addresses: &[&str]) -> Announced {
        let at = At { device: 4, mac: OWN, own: [192, 168, 1, 11].into() };
        addresses.iter().map(|address| (address.parse().expect("an address"), at)).collect()
    }

    /// Sends until a time, and says what and when (in milliseconds): an address, and `!` or `?`.
    fn sent(worker: &mut Worker, start: Instant, millis: std::ops::Range<u64>) -> Vec<(u64, String)> {
        let mut sent = Vec::new();
        for passed in millis {
            let now = start + Duration::from_millis(passed);
            let first = worker.jobs.first_key_value().map(|(key, job)| (*key, *job));
            worker.send(now);
            if let Some((_, job)) = first.filter(|(key, _)| !worker.jobs.contains_key(key)) {
                let kind = if job.announcements > 0 { '!' } else { '?' };
                sent.push((passed, format!("{}{kind}", job.address)));
            }
        }
        sent
    }

    #[test]
    fn announced_as_the_standards_say() {
        let (mut worker, start) = (worker(), Instant::now());
        worker.next = start;
        let all = announced(&["192.168.1.200", "192.168.1.201", "fd00:1::200"]);
        let tell = ["192.168.1.200", "fd00:1::200"].map(|address| address.parse().expect("an address"));
        worker.follow(all.clone(), &tell.into(), start);
        let expected = [
            (0, "192.168.1.200!"),
            (10, "fd00:1::200!"),
            (20, "192.168.1.200?"),
            (30, "192.168.1.201?"),
            (40, "fd00:1::200?"),
            (1010, "fd00:1::200!"),
            (2000, "192.168.1.200!"),
            (2010, "fd00:1::200!"),
        ];
        let expected = expected.map(|(at, what)| (at, what.to_owned()));
        assert_eq!(sent(&mut worker, start, 0..20_000), expected);
        // Nothing new, nothing said.
        worker.follow(all, &BTreeSet::new(), start);
        assert!(worker.jobs.is_empty());
    }

    #[test]
    fn what_is_withdrawn_is_not_announced_again() {
        let (mut worker, start) = (worker(), Instant::now());
        let all = announced(&["192.168.1.200"]);
        worker.follow(all.clone(), &all.keys().copied().collect(), start);
        worker.follow(Announced::new(), &BTreeSet::new(), start);
        assert!(worker.jobs.is_empty());
    }

    #[test]
    fn others_are_known_as_long_as_they_answer() {
        let (mut worker, start) = (worker(), Instant::now());
        worker.next = start;
        worker.follow(announced(&["192.168.1.200"]), &BTreeSet::new(), start);
        sent(&mut worker, start, 0..1000);
        let address = IpAddr::from([192, 168, 1, 200]);
        let later = |seconds| start + Duration::from_secs(seconds);
        for nothing in [(4, [192, 168, 1, 201].into(), OTHER), (5, address, OTHER), (4, address, OWN)] {
            worker.note(nothing, later(1));
        }
        assert!(worker.others.is_empty());
        worker.note((4, address, OTHER), later(1));
        worker.note((4, address, OTHER), later(12));
        assert_eq!(worker.others.len(), 1);
        // Asked again every ten seconds, until it has missed two.
        let asked = sent(&mut worker, start, 1000..100_000);
        let asked: Vec<u64> = asked.into_iter().map(|(at, _)| at / 1000).collect();
        assert_eq!(asked, [11, 21, 31, 41]);
        assert!(worker.others.is_empty());
        // A flood of made-up MACs is not remembered.
        for last in 10..100 {
            worker.note((4, address, [2, 0, 0, 0, 0, last]), later(200));
        }
        assert_eq!((worker.others.len(), worker.jobs.len()), (OTHERS, 1));
    }
}
