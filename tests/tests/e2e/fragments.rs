//! Datagrams larger than a frame, and headers between the network and the transport header.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    mem::size_of_val,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use lb_tests::wait::until;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use xtask::lab::{Lab, Pod, request::any};

use crate::{
    Test,
    bed::{Bed, CONFIG, vip},
};

pub const ALL: &[Test] = &[
    ("fragments of 10,000 large datagrams", large),
    ("fragments in any order", shuffled),
    ("IPv4 options and IPv6 extension headers", options),
];

/// The service of these tests, in [`config`].
const PARTS: u16 = 0x13;
const PORT: u16 = 7000;
const TARGET: u16 = 7070;
const BACKENDS: [&str; 2] = ["blue", "green"];

/// `CONFIG` and a service on two pods that only listen.
fn config() -> String {
    format!(
        r#"{CONFIG}
  - name: parts
    addresses: [10.96.0.13, "fd00:96::13"]
    ports: [{{port: {PORT}, targetPort: {TARGET}, protocol: UDP}}]
    backends:
      - {{address: 10.244.1.3}}
      - {{address: 10.244.1.4}}
      - {{address: "fd00:244:1::3"}}
      - {{address: "fd00:244:1::4"}}
"#
    )
}

/// A datagram by its family, the client's port and its number.
type Name = (bool, u16, u32);

/// Who has which datagrams, whole.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<Name, Vec<&'static str>>>>);

impl Seen {
    /// Both backends listen.
    fn listen(lab: &Lab) -> Result<Seen> {
        let seen = Seen::default();
        for pod in BACKENDS {
            // What is never whole is kept for a while: it must not push out what will be.
            for (path, value) in [
                ("net/ipv4/ipfrag_high_thresh", "268435456"),
                ("net/ipv4/ipfrag_max_dist", "0"),
                ("net/ipv6/ip6frag_high_thresh", "268435456"),
            ] {
                lab.sysctl(pod, path, value)?;
            }
            let seen = seen.clone();
            lab.within(pod, move || seen.receive(pod))??;
        }
        Ok(seen)
    }

    fn receive(self, pod: &'static str) -> Result<()> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, TARGET))?;
        let size: libc::c_int = 64 << 20;
        // SAFETY: reads an int that lives over the call.
        let done = unsafe {
            let length = size_of_val(&size) as u32;
            let option = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
            libc::setsockopt(socket.as_raw_fd(), option.0, option.1, (&raw const size).cast(), length)
        };
        ensure!(done == 0, "no room for datagrams: {}", std::io::Error::last_os_error());
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let number = said(&buffer[..len]).unwrap_or(u32::MAX);
                let name = (from.ip().to_canonical().is_ipv6(), from.port(), number);
                self.0.lock().expect("no test panics here").entry(name).or_default().push(pod);
            }
        });
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.lock().expect("no test panics here").len()
    }

    /// Waits until there are so many.
    fn wait_for(&self, count: usize) -> Result<()> {
        let all = until(|| Ok((self.count() >= count).then_some(())));
        all.with_context(|| format!("{} of {count} datagrams have arrived", self.count()))
    }

    /// Exactly these have arrived, once each, and those of one flow at one backend, which comes back. Both have got some.
    fn only(&self, expected: &BTreeSet<Name>) -> Result<BTreeMap<(bool, u16), &'static str>> {
        let seen = self.0.lock().expect("no test panics here");
        let arrived: BTreeSet<Name> = seen.keys().copied().collect();
        let (lost, surplus) = (expected.difference(&arrived).count(), arrived.difference(expected).count());
        ensure!(lost + surplus == 0, "{lost} of {} lost, {surplus} that nobody sent whole", expected.len());
        let mut flows = BTreeMap::new();
        for (name @ (ipv6, port, _), pods) in &*seen {
            ensure!(pods.len() == 1, "{name:?} has arrived at {pods:?}");
            let backend = *flows.entry((*ipv6, *port)).or_insert(pods[0]);
            ensure!(backend == pods[0], "{name:?} has arrived at {pods:?}, others of its flow at {backend}");
        }
        let used: BTreeSet<&str> = flows.values().copied().collect();
        ensure!(used.len() == BACKENDS.len(), "only {used:?} got any");
        Ok(flows)
    }
}

/// What a datagram says: its number, all through.
fn says(number: u32, len: usize) -> Vec<u8> {
    let mut text = number.to_be_bytes().repeat(len.div_ceil(4));
    text.truncate(len);
    text
}

/// The number of a datagram that is in one piece.
fn said(payload: &[u8]) -> Option<u32> {
    let number = u32::from_be_bytes(payload.get(..4)?.try_into().ok()?);
    (payload == says(number, payload.len())).then_some(number)
}

/// The same numbers in every run (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn shuffle<T>(&mut self, of: &mut [T]) {
        for last in (1..of.len()).rev() {
            of.swap(last, self.below(last + 1));
        }
    }
}

/// Fragments that were dropped for the sake of the rule.
fn lost(bed: &Bed) -> Result<u64> {
    Ok(bed.json(&["status"])?["outcomes"]["fragment-without-first"].as_u64().unwrap_or(0))
}

/// How many fragments a pod's stack has got, by family.
fn got(lab: &Lab, pod: &str, ipv6: bool) -> Result<u64> {
    let text = lab.within(pod, move || {
        // Of the thread that asks, whose network it is.
        fs::read_to_string(if ipv6 { "/proc/thread-self/net/snmp6" } else { "/proc/thread-self/net/snmp" })
    })??;
    let field = if ipv6 {
        text.lines().find_map(|line| line.strip_prefix("Ip6ReasmReqds")).map(str::trim)
    } else {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let at = lines.next().and_then(|names| names.split(' ').position(|name| name == "ReasmReqds"));
        lines.next().and_then(|values| values.split(' ').nth(at?))
    };
    field.and_then(|field| field.parse().ok()).with_context(|| format!("no ReasmReqds in {text}"))
}

/// Fragmented by the client's own stack: all arrive.
fn large() -> Result<()> {
    const FLOWS: u16 = 50;
    const EACH: u32 = 100;
    const AT_ONCE: u32 = 5;
    let bed = Bed::with(&config(), &[], |_| Ok(()))?;
    let seen = Seen::listen(bed.lab())?;
    let watched = seen.clone();
    let expected = bed.lab().within("red", move || -> Result<BTreeSet<Name>> {
        let mut expected = BTreeSet::new();
        let mut numbers = Numbers(1);
        for ipv6 in [false, true] {
            for port in 20_000..20_000 + FLOWS {
                let to = vip(ipv6, PARTS, PORT);
                let socket = UdpSocket::bind(any(to, port))?;
                socket.connect(to)?;
                // The first one is small: the gateway's MAC is not known yet.
                for number in 0..=EACH {
                    let len = if number == 0 { 4 } else { 4_000 + numbers.below(56_000) };
                    socket.send(&says(number, len))?;
                    expected.insert((ipv6, port, number));
                    if number % AT_ONCE == 0 {
                        watched.wait_for(expected.len())?;
                    }
                }
            }
        }
        watched.wait_for(expected.len())?;
        Ok(expected)
    })??;
    ensure!(expected.len() > 10_000, "{} were sent", expected.len());
    seen.only(&expected)?;
    let lost = lost(&bed)?;
    ensure!(lost == 0, "{lost} fragments were dropped although all were in order");
    Ok(())
}

/// A fragment on its way.
struct Piece {
    name: Name,
    first: bool,
    packet: Vec<u8>,
}

/// Two datagrams at a time, their fragments in any order: one that overtakes its first is dropped, none goes to
/// another backend.
fn shuffled() -> Result<()> {
    const PAIRS: u32 = 500;
    let bed = Bed::with(&config(), &[], |_| Ok(()))?;
    let seen = Seen::listen(bed.lab())?;
    let mut numbers = Numbers(2);
    let (mut expected, mut dropped, mut passed) = (BTreeSet::new(), 0, BTreeMap::<(bool, u16), u64>::new());
    for ipv6 in [false, true] {
        let before: Vec<u64> = BACKENDS.iter().map(|pod| got(bed.lab(), pod, ipv6)).collect::<Result<_>>()?;
        let mut packets = Vec::new();
        for pair in 0..PAIRS {
            let mut pieces: Vec<Piece> = [2 * pair, 2 * pair + 1]
                .into_iter()
                .flat_map(|number| {
                    let name = (ipv6, 30_000 + (number % 20) as u16, number);
                    pieces(name, 4_000 + numbers.below(6_000))
                })
                .collect();
            numbers.shuffle(&mut pieces);
            let (mut begun, mut broken) = (BTreeSet::new(), BTreeSet::new());
            for piece in pieces {
                if piece.first {
                    begun.insert(piece.name);
                }
                if begun.contains(&piece.name) {
                    *passed.entry((ipv6, piece.name.1)).or_default() += 1;
                } else {
                    broken.insert(piece.name);
                    dropped += 1;
                }
                packets.push(piece.packet);
            }
            expected.extend(begun.difference(&broken));
        }
        bed.lab().within("red", move || send_raw(ipv6, &packets))??;
        seen.wait_for(expected.len())?;
        // What is never whole has arrived by then, too.
        let flows = seen.only(&expected)?;
        for (pod, before) in BACKENDS.iter().zip(before) {
            let theirs = passed.iter().filter(|(flow, _)| flow.0 == ipv6 && flows.get(flow) == Some(pod));
            let theirs: u64 = theirs.map(|(_, count)| count).sum();
            bed.wait_for("every fragment at the backend of its flow", || {
                Ok(got(bed.lab(), pod, ipv6)? - before == theirs)
            })?;
        }
    }
    ensure!(dropped > 1000 && expected.len() > 100, "{dropped} dropped, {} whole", expected.len());
    ensure!(lost(&bed)? == dropped, "{} fragments counted as dropped, not {dropped}", lost(&bed)?);
    Ok(())
}

/// A datagram of the pod red to the service, as what follows the network header.
fn datagram((ipv6, port, number): Name, len: usize) -> Vec<u8> {
    let (red, to) = (Pod::ALL[0], vip(ipv6, PARTS, PORT).ip());
    let mut bytes = Vec::new();
    let (builder, header) = match (red.ipv4(), red.ipv6(), to) {
        (IpAddr::V4(from), _, IpAddr::V4(to)) => (PacketBuilder::ipv4(from.octets(), to.octets(), 64), 20),
        (_, IpAddr::V6(from), IpAddr::V6(to)) => (PacketBuilder::ipv6(from.octets(), to.octets(), 64), 40),
        _ => unreachable!("a pod has an address of each family"),
    };
    builder.udp(port, PORT).write(&mut bytes, &says(number, len)).expect("a vector takes all");
    bytes.split_off(header)
}

/// The network header of a packet of the pod red to the service, as a raw socket takes it.
fn header(ipv6: bool, protocol: u8, payload: usize) -> Vec<u8> {
    let (red, to) = (Pod::ALL[0], vip(ipv6, PARTS, PORT).ip());
    match (red.ipv4(), red.ipv6(), to) {
        (IpAddr::V4(from), _, IpAddr::V4(to)) => {
            // The kernel fills in the length and the checksum.
            [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0], &from.octets()[..], &to.octets()].concat()
        }
        (_, IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = (payload as u16).to_be_bytes();
            [&[0x60, 0, 0, 0, high, low, protocol, 64], &from.octets()[..], &to.octets()].concat()
        }
        _ => unreachable!("a pod has an address of each family"),
    }
}

const UDP: u8 = 17;

/// The fragments of a datagram, whose number is its identification.
fn pieces(name @ (ipv6, _, number): Name, len: usize) -> Vec<Piece> {
    const MOST: usize = 1400;
    let whole = datagram(name, len);
    let count = whole.len().div_ceil(MOST);
    let piece = |(index, part): (usize, &[u8])| {
        let (offset, more) = (index * MOST, index + 1 < count);
        let packet = if ipv6 {
            let [high, low] = (offset as u16 | more as u16).to_be_bytes();
            let fragment = [&[UDP, 0, high, low], &number.to_be_bytes()[..]].concat();
            [&header(ipv6, 44, part.len() + 8)[..], &fragment, part].concat()
        } else {
            let mut packet = header(ipv6, UDP, part.len());
            // 0: the kernel would choose one.
            packet[4..6].copy_from_slice(&(number as u16 + 1).to_be_bytes());
            packet[6..8].copy_from_slice(&((offset / 8) as u16 | (more as u16) << 13).to_be_bytes());
            packet.extend_from_slice(part);
            packet
        };
        Piece { name, first: index == 0, packet }
    };
    whole.chunks(MOST).enumerate().map(piece).collect()
}

/// Sends packets of this thread's namespace, headers and all.
fn send_raw(ipv6: bool, packets: &[Vec<u8>]) -> Result<()> {
    let to = vip(ipv6, PARTS, 0);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let any: SocketAddr = (to.ip(), 0).into();
    for (index, packet) in packets.iter().enumerate() {
        socket.send_to(packet, &SockAddr::from(any)).context("sending a raw packet")?;
        if index % 64 == 0 {
            // Those before it have left the backlog.
            sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn options() -> Result<()> {
    const EACH: u32 = 20;
    let bed = Bed::with(&config(), &[], |_| Ok(()))?;
    let seen = Seen::listen(bed.lab())?;
    let mut expected = BTreeSet::new();
    for ipv6 in [false, true] {
        let mut packets = Vec::new();
        for number in 0..EACH {
            let name = (ipv6, 30_000 + number as u16, number);
            let datagram = datagram(name, 100);
            packets.push(if ipv6 {
                // Destination options, padding only.
                let options = [UDP, 0, 1, 4, 0, 0, 0, 0];
                [&header(ipv6, 60, datagram.len() + 8)[..], &options, &datagram].concat()
            } else {
                let mut header = header(ipv6, UDP, datagram.len());
                header[0] = 0x47;
                [&header[..], &[1; 8], &datagram].concat()
            });
            expected.insert(name);
        }
        bed.lab().within("red", move || send_raw(ipv6, &packets))??;
        seen.wait_for(expected.len())?;
    }
    seen.only(&expected)?;
    Ok(())
}
