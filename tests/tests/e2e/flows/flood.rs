//! A flood of SYNs from invented addresses, while connections are there and others are made.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};
use xtask::lab::Lab;

use crate::{
    bed::{Bed, CONFIG},
    neighbours,
};

const SERVICE: &str = r#"
  - name: flooded
    address: 10.96.0.40
    ports: [{port: 80, targetPort: 7070}]
    backends: [{address: 10.244.1.3}]
"#;
const FLOODED: ([u8; 4], u16) = ([10, 96, 0, 40], 80);
/// Says, in the environment, that this process is the server.
const SERVER: &str = "LB_E2E_FLOODED";
/// Patience with one byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Ten times a small table of unassured flows (16,384 rows, two a flow), against connections that fill half of
/// the table of assured ones.
pub fn small() -> Result<()> {
    run(&["--max-flows", "8192"], 1_500, 82_000)
}

/// Ten times the rows of the default table.
pub fn full() -> Result<()> {
    run(&[], 10_000, 2_621_440)
}

/// `syns` from a pod, then as many from outside.
fn run(options: &[&str], connections: usize, syns: u32) -> Result<()> {
    more_files(connections)?;
    let bed = Bed::with(&(CONFIG.to_owned() + SERVICE), options, |lab| {
        for (path, value) in [
            ("net/ipv4/tcp_syncookies", "2"),
            ("net/core/somaxconn", "65535"),
            ("net/ipv4/tcp_max_syn_backlog", "65535"),
        ] {
            lab.sysctl("blue", path, value)?;
        }
        lab.sysctl("red", "net/ipv4/ip_local_port_range", "1024 65535")?;
        Ok(())
    })?;
    let _server = Server::start(bed.lab())?;
    let mut streams = bed.lab().within("red", move || -> Result<Vec<TcpStream>> {
        (0..connections)
            .map(|number| {
                let mut stream = connect().with_context(|| format!("connection {number}"))?;
                ask(&mut stream).with_context(|| format!("connection {number}"))?;
                Ok(stream)
            })
            .collect()
    })??;
    let mut flows = 0;
    for (from, gateway) in [("green", "v-net-0"), ("client", "eth0")] {
        let stop = Arc::new(AtomicBool::new(false));
        let (lab, ended) = (bed.lab().clone(), stop.clone());
        let clients = thread::spawn(move || lab.within("red", move || real_clients(&ended)));
        let start = Instant::now();
        let gateway = mac(bed.lab(), "node", gateway)?;
        bed.lab().within(from, move || flood(gateway, syns))??;
        let took = start.elapsed();
        stop.store(true, Relaxed);
        let (made, failed) = clients.join().map_err(|_| anyhow!("the clients ended badly"))??;
        let mut lost = Vec::new();
        for (number, stream) in streams.iter_mut().enumerate() {
            if let Err(error) = ask(stream) {
                lost.push(format!("{number}: {error:#}"));
            }
        }
        println!(
            "{syns} SYNs from {from} in {took:.1?}: {} of {connections} connections survive, {made} of {} new ones \
             made",
            connections - lost.len(),
            made + failed
        );
        let outcomes = bed.json(&["status"])?["outcomes"].take();
        // Else nothing was shown: the flood was no flood, or nobody has answered it.
        let flooded = outcomes["new-flow"].as_u64().unwrap_or(0) - flows;
        ensure!(flooded >= u64::from(syns), "{flooded} new flows of {syns} SYNs; {outcomes}");
        flows += flooded;
        println!(
            "  so far {}",
            ["new-flow", "flow-assured", "reply", "flow-table-full", "tuple-clash"]
                .map(|name| format!("{name} {}", outcomes[name]))
                .join(", ")
        );
        ensure!(lost.is_empty(), "{} connections lost, the first {:?}; {outcomes}", lost.len(), lost.first());
        ensure!(made >= 10 && failed * 99 <= made, "{failed} of {} new connections failed", made + failed);
    }
    Ok(())
}

/// As many open files as this process may have; enough for the connections of one end.
fn more_files(connections: usize) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the struct that it is given.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: reads the struct that it is given.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    ensure!(asked == 0 && raised == 0, "the limit of open files: {}", std::io::Error::last_os_error());
    let wanted = connections as u64 + 500;
    ensure!(limit.rlim_max >= wanted, "{} open files at most (ulimit -Hn); {wanted} needed", limit.rlim_max);
    Ok(())
}

/// The server, ended with the test.
struct Server(Child);

impl Server {
    /// In a process of its own, so that no process has the files of both ends.
    fn start(lab: &Lab) -> Result<Server> {
        let program = std::env::current_exe()?;
        let mut command = lab.command("blue", &program.to_string_lossy())?;
        let child = command.env(SERVER, "1").stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
        let mut server = Server(child);
        let mut ready = [0; 1];
        let said = server.0.stdout.as_mut().context("no output of the server")?;
        said.read_exact(&mut ready).context("the server did not start")?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is this process, as its environment says, the server of a flood? Then it never returns.
pub fn serve_if_asked() {
    if std::env::var_os(SERVER).is_some() {
        let ended = more_files(0).and_then(|()| serve());
        eprintln!("the server of the flood: {ended:?}");
        std::process::exit(1);
    }
}

/// Echoes bytes on any number of connections, on one thread.
fn serve() -> Result<()> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([0; 4], 7070)).into())?;
    listener.listen(65_535)?;
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    // SAFETY: makes a descriptor, which lives as long as the process.
    let poll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    ensure!(poll >= 0, "epoll: {}", std::io::Error::last_os_error());
    let watch = |descriptor: i32, tag: u64| {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: tag };
        // SAFETY: reads the event that it is given.
        unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, descriptor, &mut event) }
    };
    watch(listener.as_raw_fd(), u64::MAX);
    println!("ready");
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    loop {
        // SAFETY: writes at most as many events as there is room for.
        let ready = unsafe { libc::epoll_wait(poll, events.as_mut_ptr(), events.len() as i32, -1) };
        for event in &events[..ready.max(0) as usize] {
            let tag = event.u64;
            if tag == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    let _ = stream.set_nonblocking(true);
                    watch(stream.as_raw_fd(), streams.len() as u64);
                    streams.push(Some(stream));
                }
                continue;
            }
            let Some(place) = streams.get_mut(tag as usize) else { continue };
            let Some(stream) = place else { continue };
            let mut byte = [0; 16];
            match stream.read(&mut byte) {
                Ok(len) if len > 0 && stream.write_all(&byte[..len]).is_ok() => {}
                _ => *place = None,
            }
        }
    }
}

fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(FLOODED), TIMEOUT).context("connecting")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"x").context("asking")?;
    stream.read_exact(&mut [0]).context("waiting for a byte")
}

/// Connections, one after the other: how many were made and how many failed.
fn real_clients(stop: &AtomicBool) -> (u32, u32) {
    let (mut made, mut failed) = (0, 0);
    while !stop.load(Relaxed) {
        let once = || -> Result<()> {
            let mut stream = connect()?;
            ask(&mut stream)?;
            // No port of ours is to wait.
            Ok(SockRef::from(&stream).set_linger(Some(Duration::ZERO))?)
        };
        match once() {
            Ok(()) => made += 1,
            Err(_) => failed += 1,
        }
        thread::sleep(Duration::from_millis(2));
    }
    (made, failed)
}

/// The MAC of a host's device.
fn mac(lab: &Lab, host: &str, device: &str) -> Result<[u8; 6]> {
    let text = neighbours::mac(lab, host, device)?;
    let octets = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<Vec<u8>, _>>()?;
    octets.try_into().map_err(|_| anyhow!("no MAC: {text}"))
}

/// Sends SYNs to the service from sources out of 198.18.0.0/15 (RFC 2544), which nobody has: the answers end
/// at this host, which does not forward.
fn flood(gateway: [u8; 6], count: u32) -> Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    // SAFETY: reads the name that it is given.
    let ifindex = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll is an address and fits into the storage of any; all of it that matters is set.
    let to = unsafe {
        let to = storage.view_as::<libc::sockaddr_ll>();
        (to.sll_family, to.sll_ifindex) = (libc::AF_PACKET as u16, ifindex as i32);
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
    };
    let mut bytes = Vec::with_capacity(64);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut sent = 0;
    while sent < count {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let client = Ipv4Addr::from(0xc612_0000 | random as u32 & 0x1_ffff);
        let port = 1_024 + (random >> 32) as u16 % 64_000;
        bytes.clear();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x66], gateway)
            .ipv4(client.octets(), FLOODED.0, 64)
            .tcp(port, FLOODED.1, (random >> 17) as u32, 64_240)
            .syn()
            .write(&mut bytes, &[])?;
        match socket.send_to(&bytes, &to) {
            Ok(_) => sent += 1,
            // The device's queue is full.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => thread::yield_now(),
            Err(error) => return Err(error).context("sending a SYN"),
        }
    }
    Ok(())
}
