//! Packets that do not fit: datagrams which may be fragmented on a narrow LAN, segments larger than IPv4 can say.

use std::{
    io::{self, Read as _, Write as _},
    mem::size_of_val,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::Lab;

use crate::{
    Test,
    bed::{Bed, CONFIG, service, vip},
    seen::Capture,
};

pub const ALL: &[Test] =
    &[("large answers over a narrow LAN", narrow_lan), ("BIG TCP between pods", big_tcp)];

const TIMEOUT: Duration = Duration::from_secs(3);
/// The service of [`narrow_lan`], on the pod blue.
const SIZES: u16 = 0x13;
const PORT: u16 = 7000;
const TARGET: u16 = 7070;

/// Node and client take 1,400 bytes of each other; their checksums are finished on the wire.
fn narrow(lab: &Lab) -> Result<()> {
    for host in ["node", "client"] {
        lab.on(host, "link set eth0 mtu 1400")?;
        let output = lab.command(host, "ethtool")?.args(["-K", "eth0", "tx", "off"]).output()?;
        ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A server as those of DNS are: what it sends may be fragmented, and it minds no path MTU. It answers a number with so
/// many bytes.
fn answer_sizes() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, TARGET))?;
    let mode = libc::IP_PMTUDISC_OMIT;
    // SAFETY: reads an int that lives over the call.
    let done = unsafe {
        let length = size_of_val(&mode) as u32;
        let option = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        libc::setsockopt(socket.as_raw_fd(), option.0, option.1, (&raw const mode).cast(), length)
    };
    ensure!(done == 0, "IP_MTU_DISCOVER: {}", std::io::Error::last_os_error());
    thread::spawn(move || {
        let mut number = [0; 2];
        while let Ok((2, from)) = socket.recv_from(&mut number) {
            let _ = socket.send_to(&bytes(u16::from_be_bytes(number).into()), from);
        }
    });
    Ok(())
}

/// So many bytes, no two parts alike.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at ^ at >> 8) as u8).collect()
}

fn ask(socket: &UdpSocket, size: u16) -> Result<()> {
    socket.send(&size.to_be_bytes())?;
    let mut answer = vec![0; 1 << 16];
    let len = socket.recv(&mut answer).with_context(|| format!("waiting for {size} bytes"))?;
    ensure!(answer[..len] == bytes(size.into()), "{len} bytes have come back, not those {size}");
    Ok(())
}

/// What a server sends without minding the path MTU arrives as from a host that routes.
fn narrow_lan() -> Result<()> {
    let config = format!(
        r#"{CONFIG}
  - name: sizes
    addresses: [10.96.0.13]
    ports: [{{port: {PORT}, targetPort: {TARGET}, protocol: UDP}}]
    backends: [{{address: 10.244.1.3}}]
"#
    );
    for options in [&[][..], &["--forward", "bridge"], &["--forward", "stack"]] {
        let bed = Bed::with(&config, options, narrow)?;
        bed.lab().within("blue", answer_sizes)??;
        let to: SocketAddr = vip(false, SIZES, PORT);
        let heard = bed.lab().within("client", move || -> Result<()> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.connect(to)?;
            // Fits; one packet that does not; fragments of which the first does not.
            for size in [1300, 1372, 1373, 1390, 1472, 1473, 2000, 3000, 9000] {
                ask(&socket, size)?;
            }
            // Each once more: its client is known by now.
            [2000, 1390, 9000].into_iter().try_for_each(|size| ask(&socket, size))
        })?;
        heard.with_context(|| format!("{options:?}"))?;
        ensure!(outcome(&bed, "too-big")? == 0, "{options:?}: something was too big");
    }
    Ok(())
}

/// Segments larger than 64 KiB, whose length IPv4 can't say.
fn big_tcp() -> Result<()> {
    const BYTES: u64 = 128 << 20;
    for options in [&[][..], &["--forward", "bridge"], &["--forward", "stack"]] {
        let bed = Bed::with(CONFIG, options, |lab| {
            for (host, device) in [
                ("red", "eth0"),
                ("blue", "eth0"),
                ("node", "veth-red"),
                ("node", "veth-blue"),
                ("node", "v-net-0"),
            ] {
                let set = lab.within(host, move || take_large_segments(device))?;
                set.with_context(|| format!("{device} of {host}"))?;
            }
            Ok(())
        })?;
        let listener = bed.lab().within("blue", || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5201)))??;
        thread::spawn(move || listener.incoming().flatten().for_each(count));
        let large = Capture::start(bed.lab(), "blue", "tcp and ip[2:2] == 0")?;
        let to = vip(false, service::BLUE, 5201);
        let moved = bed.lab().within("red", move || give(to, BYTES))?;
        moved.with_context(|| format!("{to}, {options:?}"))?;
        ensure!(outcome(&bed, "malformed")? == 0, "{options:?}: large segments are taken for malformed");
        ensure!(large.end()?.lines().count() > 10, "{options:?}: no segment is large: nothing is shown");
    }
    Ok(())
}

/// Has a device take segments of IPv4 of up to 185,000 bytes, and join them to such: `ip link set DEVICE
/// gso_ipv4_max_size 185000 gro_ipv4_max_size 185000`, which iproute2 has since 6.3.
fn take_large_segments(device: &str) -> Result<()> {
    const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
    const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;
    const MOST: u32 = 185_000;
    let index = rustix::net::netdevice::name_to_index(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?, device)?;
    // nlmsghdr: length, kind, flags, number, sender; ifinfomsg: family and type, index, flags and which of them.
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut message = [48u32.to_ne_bytes(), pair(libc::RTM_NEWLINK, flags), [0; 4], [0; 4]].concat();
    message.extend([[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat());
    for kind in [IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE] {
        message.extend([pair(8, kind), MOST.to_ne_bytes()].concat());
    }
    let socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    socket.send(&message)?;
    let mut answer = [0; 1024];
    let len = (&socket).read(&mut answer)?;
    // nlmsgerr: behind the header, 0 or an error's number below it.
    let error = answer[..len].get(16..20).context("a short answer")?;
    let error = i32::from_ne_bytes([error[0], error[1], error[2], error[3]]);
    ensure!(error == 0, "{}", io::Error::from_raw_os_error(-error));
    Ok(())
}

fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}

/// Says how much it was sent.
fn count(mut stream: TcpStream) {
    if let Ok(bytes) = io::copy(&mut stream, &mut io::sink()) {
        let _ = stream.write_all(&bytes.to_be_bytes());
    }
}

/// Sends so many bytes, and hears that they have arrived.
fn give(to: SocketAddr, bytes: u64) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    io::copy(&mut io::repeat(0x5a).take(bytes), &mut io::BufWriter::with_capacity(1 << 20, &stream))?;
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived).context("hearing how much has arrived")?;
    let arrived = u64::from_be_bytes(arrived);
    ensure!(arrived == bytes, "{arrived} bytes of {bytes} have arrived");
    Ok(())
}

/// How many packets had an outcome.
fn outcome(bed: &Bed, name: &str) -> Result<u64> {
    Ok(bed.json(&["status"])?["outcomes"][name].as_u64().unwrap_or(0))
}
