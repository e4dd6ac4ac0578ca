//! What becomes of flows: their backends go, their rows are lost, their ports are used again, strangers flood.

mod again;
pub mod flood;

use std::{
    collections::BTreeMap,
    io::{BufReader, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::PacketBuilder;
use lb_common::{
    abi::{FlowKey, FlowRow},
    family::Family,
};
use lb_tests::wait::until;
use lb_user::maps::{Maps, Pins, Side};
use rustix::{net::sockopt::set_socket_recv_buffer_size_force, process::Signal};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::{
    Pod,
    request::{self, any},
    serve_pod,
};

use crate::{
    Test,
    bed::{Bed, CONFIG, NAME, connect_from, only, service, vip},
    restart::{next_page, page_within},
};

pub const ALL: &[Test] = &[
    ("a connection to a pod that is deleted is reset", pod_deleted),
    ("a connection to a pod that is deleted while no agent runs is reset", deleted_meanwhile),
    ("a connection to a removed backend goes on, or not, as its service says", removed),
    ("the first datagram after a change reaches who serves", first_datagram),
    ("rows lost by hand are made again under way", rows_lost),
    ("a connection outlives the loss of a row that is in use", row_in_use_lost),
    ("one client port to a service and to the pod behind it", one_port),
    ("conntrack: UDP goes on when the server's pod cycles", pod_cycles),
    ("conntrack: endpoints that become ready are heard by who asked before", unready),
    ("conntrack: a segment out of the window resets nobody", out_of_window),
    ("a client port is used again while backends change", || again::run(3_000, Duration::ZERO)),
    ("a flood of SYNs evicts itself", flood::small),
];

/// Of minutes: `cargo xtask test --long`.
pub const LONG: &[Test] = &[
    ("100,000 times a client port is used again", || again::run(100_000, Duration::from_secs(60))),
    ("2.6 million SYNs against 10,000 connections", flood::full),
];

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Said once everything of a config is published.
pub const TAKEN: &str = "config taken over";
const BLUE: Pod = Pod::ALL[1];

/// The config with a service's only backend elsewhere; `fields` of it besides.
fn on(host: u8, fields: &str) -> String {
    let blue = r#"backends: [{address: 10.244.1.3}, {address: "fd00:244:1::3"}]"#;
    let other = format!(
        "backends: [{{address: 10.244.1.{host}{fields}}}, {{address: \"fd00:244:1::{host}\"{fields}}}]"
    );
    CONFIG.replace(blue, &other)
}

fn resets(config: &str) -> String {
    config.replace("  - name: blue\n", "  - name: blue\n    onRemoval: reset\n")
}

/// An idle connection of red to blue's page in each family, used once.
fn connections(bed: &Bed) -> Result<Vec<BufReader<TcpStream>>> {
    let connect = || -> Result<Vec<_>> {
        let to = [false, true].map(|ipv6| vip(ipv6, service::BLUE, 80));
        to.iter().map(|to| Ok(BufReader::new(TcpStream::connect(to)?))).collect()
    };
    let mut streams = bed.lab().within("red", connect)??;
    for stream in &mut streams {
        ensure!(next_page(stream)?.starts_with("blue "), "not blue");
    }
    Ok(streams)
}

/// The next write is answered by a reset, within a second.
fn is_reset(stream: &mut BufReader<TcpStream>) -> Result<()> {
    is_reset_within(stream, Duration::from_secs(1))
}

fn is_reset_within(stream: &mut BufReader<TcpStream>, patience: Duration) -> Result<()> {
    let to = stream.get_ref().peer_addr()?;
    stream.get_ref().set_read_timeout(Some(patience))?;
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    match stream.get_mut().read(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => Err(anyhow!("{to}: {other:?} where a reset should be")),
    }
}

/// Who has not been found yet can't leave.
fn blue_is_found(bed: &Bed) -> Result<()> {
    bed.wait_for("blue's port is known", || {
        let backends = bed.json(&["get", "backends"])?;
        let mut blue = backends.as_array().into_iter().flatten().filter(|row| row["service"] == "blue");
        Ok(blue.all(|row| row["reachedBy"] == "peer" || row["reachedBy"] == "bridge"))
    })
}

/// It leaves while no agent runs: the next one finds a way to a port that is none any more.
fn deleted_meanwhile() -> Result<()> {
    let mut bed = Bed::new(&[])?;
    let mut streams = connections(&bed)?;
    blue_is_found(&bed)?;
    bed.agent.signal(Signal::KILL)?;
    bed.lab().on("node", "link del veth-blue")?;
    bed.replace(&on(4, ""))?;
    bed.agent.start_again()?;
    // It is asked for first; until then the client sends again what is lost.
    streams.iter_mut().try_for_each(|stream| is_reset_within(stream, PATIENCE))?;
    bed.answered("red", service::BLUE, &["green"], 3)
}

fn pod_deleted() -> Result<()> {
    for options in [&[][..], &["--forward", "bridge"], &["--forward", "stack"]] {
        let bed = Bed::new(options)?;
        let mut streams = connections(&bed)?;
        blue_is_found(&bed)?;
        bed.lab().on("node", "link del veth-blue")?;
        bed.configure(&on(4, ""), TAKEN)?;
        for stream in &mut streams {
            is_reset(stream).with_context(|| format!("{options:?}"))?;
        }
        let status = bed.json(&["status"])?;
        ensure!(status["outcomes"]["backend-gone"].as_u64() >= Some(2), "{}", status["outcomes"]);
        bed.answered("red", service::BLUE, &["green"], 3)?;
    }
    Ok(())
}

fn removed() -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut streams = connections(&bed)?;
    bed.configure(&on(4, ""), TAKEN)?;
    bed.answered("red", service::BLUE, &["green"], 3)?;
    for stream in &mut streams {
        ensure!(next_page(stream)?.starts_with("blue "), "the connection moved");
    }
    // It holds for who was removed before, too; and back.
    bed.configure(&resets(&on(4, "")), TAKEN)?;
    is_reset(&mut streams[0])?;
    bed.configure(&on(4, ""), TAKEN)?;
    ensure!(next_page(&mut streams[1])?.starts_with("blue "), "the connection moved");
    // Not ready is as good as removed; who still serves keeps what it has.
    bed.configure(&resets(CONFIG), TAKEN)?;
    let mut streams = connections(&bed)?;
    bed.configure(&resets(&on(3, ", ready: false, serving: true")), TAKEN)?;
    ensure!(next_page(&mut streams[0])?.starts_with("blue "), "the connection moved");
    bed.configure(&resets(&on(3, ", ready: false")), TAKEN)?;
    streams.iter_mut().try_for_each(is_reset)
}

/// Who answered which datagram.
type Answered = BTreeMap<u32, String>;

/// A sender of numbered datagrams from one port, and who answered which.
struct Sender {
    next: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Answered>>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Sender {
    fn start(bed: &Bed, to: SocketAddr, pause: Duration) -> Result<Sender> {
        let socket = bed.lab().within("red", move || -> Result<UdpSocket> {
            let socket = UdpSocket::bind(any(to, 5_300))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            // Room for what comes while this process waits for a processor.
            set_socket_recv_buffer_size_force(&socket, 1 << 20)?;
            Ok(socket)
        })??;
        let (next, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (sent, ended, receiver) = (next.clone(), stop.clone(), socket.try_clone()?);
        thread::spawn(move || {
            while !ended.load(Relaxed) {
                let number = sent.load(Relaxed);
                // Who is told that nobody is there sends on.
                let _ = socket.send(number.to_string().as_bytes());
                sent.store(number + 1, Relaxed);
                // Never sooner than that: what is sent in one burst, after a wait for a processor, may be too much
                // for a queue.
                thread::sleep(pause);
            }
        });
        let (ended, sent) = (stop.clone(), next.clone());
        let answers = Arc::new(Mutex::new(Answered::new()));
        let heard = answers.clone();
        let thread = thread::spawn(move || {
            let (mut buffer, mut quiet) = ([0; 64], 0);
            // When it has ended, the last answers are waited for: they are late where the host is busy.
            while quiet < 10 && !(ended.load(Relaxed) && lock(&heard).len() == sent.load(Relaxed) as usize) {
                match receiver.recv(&mut buffer) {
                    Ok(len) => {
                        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                        let (name, number) = text.split_once(' ').context("an answer without a name")?;
                        lock(&heard).insert(number.parse()?, name.to_owned());
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(_) => quiet += u32::from(ended.load(Relaxed)),
                }
            }
            Ok(())
        });
        Ok(Sender { next, stop, answers, thread })
    }

    /// The number of the next datagram.
    fn now(&self) -> u32 {
        self.next.load(Relaxed)
    }

    /// Waits until so many more have been sent.
    fn send(&self, more: u32) -> Result<()> {
        let until = self.now() + more;
        self.wait_for(&format!("datagram {until} is sent"), || self.now() >= until)
    }

    /// Waits until so many in a row, and the last ones, are answered by `name`.
    fn answered_by(&self, name: &str, count: usize) -> Result<()> {
        self.wait_for(&format!("{count} datagrams in a row are answered by {name}"), || {
            let answers = lock(&self.answers);
            let last: Vec<(&u32, &String)> = answers.iter().rev().take(count).collect();
            let in_a_row = last.windows(2).all(|pair| *pair[0].0 == pair[1].0 + 1);
            last.len() == count && in_a_row && last.iter().all(|(_, by)| *by == name)
        })
    }

    fn wait_for(&self, what: &str, so: impl Fn() -> bool) -> Result<()> {
        until(|| Ok(so().then_some(()))).with_context(|| format!("{what}: {:?}", lock(&self.answers)))
    }

    /// How many were sent, and who answered which.
    fn end(self) -> Result<(u32, Answered)> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the receiver ended badly"))??;
        Ok((self.next.load(Relaxed), std::mem::take(&mut *lock(&self.answers))))
    }
}

fn lock(answers: &Mutex<Answered>) -> MutexGuard<'_, Answered> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Green takes over with one datagram: all before it blue's, all from it on green's, none lost.
fn first_datagram() -> Result<()> {
    const UNREADY: &str = ", ready: false}, {address: 10.244.1.4}, {address: \"fd00:244:1::4\"";
    let unready = on(3, ", ready: false").replacen(", ready: false}]", &format!("{UNREADY}}}]"), 1);
    for (what, config) in [("removed", on(4, "")), ("not ready", unready)] {
        for ipv6 in [false, true] {
            let bed = Bed::new(&[])?;
            let sender = Sender::start(&bed, vip(ipv6, service::BLUE, 90), Duration::from_millis(1))?;
            sender.answered_by("blue", 100)?;
            bed.configure(&config, TAKEN)?;
            let published = sender.now();
            sender.answered_by("green", 100)?;
            let (sent, answers) = sender.end()?;
            let first = answers.iter().find(|(_, name)| *name == "green").map(|(number, _)| *number);
            let first = first.with_context(|| format!("{what}: green was never asked, of {sent}"))?;
            ensure!(first > 0 && first <= published, "{what}: published at {published}, moved at {first}");
            let right = |number: &u32| {
                answers.get(number).map(String::as_str)
                    == Some(if *number < first { "blue" } else { "green" })
            };
            let wrong: Vec<(u32, Option<&String>)> = (0..sent)
                .filter(|number| !right(number))
                .map(|number| (number, answers.get(&number)))
                .take(10)
                .collect();
            ensure!(wrong.is_empty(), "{what}, IPv6 {ipv6}: moved at {first} of {sent}, but {wrong:?}");
        }
    }
    Ok(())
}

/// Which of a flow's rows.
#[derive(Clone, Copy, Debug)]
enum Row {
    Request,
    Reply,
}

/// Deletes the rows of one direction; how many there were.
fn lose<F: Family>(side: &mut Side<F>, which: Row) -> Result<usize> {
    let rows: Vec<(FlowKey<F>, FlowRow<F>)> = side.flows.iter().flatten().collect();
    let mut lost = 0;
    for (key, row) in rows {
        if row.is_reply() == matches!(which, Row::Reply) {
            lost += usize::from(side.flows.remove(&key).is_ok());
        }
    }
    Ok(lost)
}

/// A download, pages and datagrams while rows go.
fn rows_lost() -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut maps = Maps::open(&Pins::new(NAME).maps())?;
    for which in [Row::Request, Row::Reply] {
        let mut streams = connections(&bed)?;
        let sockets = bed.lab().within("red", || -> Result<Vec<UdpSocket>> {
            let to = [false, true].map(|ipv6| vip(ipv6, service::BLUE, 90));
            to.into_iter().map(request::connected).collect()
        })??;
        for round in 0..4 {
            for _ in 0..50 {
                for (stream, socket) in streams.iter_mut().zip(&sockets) {
                    let context = || format!("{which:?} rows lost, round {round}");
                    ensure!(next_page(stream).with_context(context)?.starts_with("blue "), "not blue");
                    ensure!(request::ask(socket).with_context(context)? == "blue", "not blue");
                }
            }
            // Who has just used its row looks after the other one in the next tick, a second at most. Until then
            // a reply without a row can't be told from one to a direct call, and a datagram is lost.
            let pause = match which {
                Row::Request => 5,
                Row::Reply => 1_400,
            };
            thread::sleep(Duration::from_millis(pause));
            let lost = lose(&mut maps.v4, which)? + lose(&mut maps.v6, which)?;
            ensure!(lost >= 4, "{lost} rows of flows to lose, {which:?}");
        }
    }
    Ok(())
}

/// The answer then comes from the pod's own address, and what the client's kernel says to that must not reach the
/// pod. Both say again what was lost.
fn row_in_use_lost() -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut maps = Maps::open(&Pins::new(NAME).maps())?;
    let mut streams = connections(&bed)?;
    for round in 0..4 {
        for stream in &mut streams {
            ensure!(next_page(stream)?.starts_with("blue "), "not blue");
            let lost = lose(&mut maps.v4, Row::Reply)? + lose(&mut maps.v6, Row::Reply)?;
            ensure!(lost >= 1, "{lost} rows of replies to lose");
            let page =
                page_within(stream, Duration::from_secs(20)).with_context(|| format!("round {round}"))?;
            ensure!(page.starts_with("blue "), "not blue: {page}");
        }
    }
    Ok(())
}

/// Both conversations go on at once, whichever came first.
fn one_port() -> Result<()> {
    let bed = Bed::new(&[])?;
    bed.lab().within("red", || -> Result<()> {
        let mut port = 20_000;
        for ipv6 in [false, true] {
            let pod = if ipv6 { BLUE.ipv6() } else { BLUE.ipv4() };
            for service_first in [true, false] {
                let order = |service: SocketAddr, pod: SocketAddr| {
                    if service_first { [service, pod] } else { [pod, service] }
                };
                port += 1;
                let pages = order(vip(ipv6, service::BLUE, 80), (pod, 8080).into());
                let echoes = order(vip(ipv6, service::BLUE, 90), (pod, 9090).into());
                let context = || format!("port {port} to {pages:?}, {echoes:?}");
                let stream =
                    |to| Ok(BufReader::new(TcpStream::from(connect_from(Type::STREAM, any(to, port), to)?)));
                let socket = |to| Ok(UdpSocket::from(connect_from(Type::DGRAM, any(to, port), to)?));
                let mut streams = pages.into_iter().map(stream).collect::<Result<Vec<_>>>()?;
                let sockets = echoes.into_iter().map(socket).collect::<Result<Vec<_>>>()?;
                for _ in 0..5 {
                    for stream in &mut streams {
                        ensure!(next_page(stream).with_context(context)?.starts_with("blue "), "not blue");
                    }
                    for socket in &sockets {
                        ensure!(request::ask(socket).with_context(context)? == "blue", "not blue");
                    }
                }
            }
        }
        Ok(())
    })?
}

/// Kubernetes' "should be able to preserve UDP traffic when server pod cycles for a ClusterIP service".
fn pod_cycles() -> Result<()> {
    let bed = Bed::new(&[])?;
    let sender = Sender::start(&bed, vip(false, service::BLUE, 90), Duration::from_millis(20))?;
    sender.answered_by("blue", 5)?;
    bed.lab().remove_pod(BLUE)?;
    bed.configure(&on(4, ""), TAKEN)?;
    let to_green = sender.now();
    sender.send(25)?;
    // A new pod with the old one's address.
    bed.lab().add_pod(BLUE)?;
    serve_pod(bed.lab(), BLUE)?;
    bed.configure(CONFIG, TAKEN)?;
    // Its port has to be found first.
    sender.answered_by("blue", 20)?;
    let (_, answers) = sender.end()?;
    let at = |number: u32| answers.get(&number).map(String::as_str);
    let green = (to_green..to_green + 20).filter(|number| at(*number) == Some("green")).count();
    ensure!(green == 20, "{green} of 20 datagrams reached green: {answers:?}");
    Ok(())
}

/// Kubernetes' "should be able to preserve UDP traffic when initial unready endpoints get ready".
fn unready() -> Result<()> {
    let bed = Bed::with(&on(3, ", ready: false"), &[], |_| Ok(()))?;
    for ipv6 in [false, true] {
        let sender = Sender::start(&bed, vip(ipv6, service::BLUE, 90), Duration::from_millis(20))?;
        sender.send(15)?;
        bed.configure(CONFIG, TAKEN)?;
        let ready = sender.now();
        sender.send(25)?;
        bed.configure(&on(3, ", ready: false"), TAKEN)?;
        let (_, answers) = sender.end()?;
        let heard = (ready..ready + 20).filter(|number| answers.contains_key(number)).count();
        ensure!(heard == 20, "{heard} of 20 datagrams were answered after {ready}: {answers:?}");
        ensure!(!answers.contains_key(&0), "who is not ready was asked");
    }
    Ok(())
}

/// Kubernetes' "should drop INVALID conntrack entries": what the server's pod says out of the window must not
/// reach the client under the pod's own address, whose kernel would reset the connection there.
fn out_of_window() -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut streams = connections(&bed)?;
    let stream = &mut streams[0];
    let (IpAddr::V4(client), IpAddr::V4(server)) = (Pod::ALL[0].ipv4(), BLUE.ipv4()) else {
        unreachable!("addresses of IPv4");
    };
    let port = stream.get_ref().local_addr()?.port();
    let segment = PacketBuilder::ipv4(server.octets(), client.octets(), 64)
        .tcp(8080, port, 0xdead_beef, 64)
        .ack(0x0bad_cafe);
    let mut bytes = Vec::new();
    segment.write(&mut bytes, b"out of the window")?;
    bed.lab().within("blue", move || -> Result<()> {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        for _ in 0..10 {
            raw.send_to(&bytes, &SocketAddr::from((client, 0)).into())?;
        }
        Ok(())
    })??;
    thread::sleep(Duration::from_millis(200));
    for _ in 0..3 {
        ensure!(next_page(stream)?.starts_with("blue "), "not blue");
    }
    only(&bed.pages("red", vip(false, service::BLUE, 80), 1)?, &["blue"])
}
