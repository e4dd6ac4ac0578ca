//! A client port is used again, soon after FIN or RST, while backends change.

use std::{
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::{Domain, SockRef, Socket, Type};
use xtask::lab::{Lab, request};

use super::{TAKEN, on};
use crate::bed::{Bed, CONFIG, service, vip};

/// Ports of each address that come round again.
const PORTS: std::ops::Range<u16> = 30_000..30_008;
/// Addresses that red has besides its own.
const MORE: [&str; 3] = ["10.244.1.102", "10.244.1.103", "10.244.1.104"];

/// Who may answer: the backends of the config, while it changes of both.
type May = Arc<Mutex<Vec<&'static str>>>;

/// Connects `count` times in both families; the same ports come round within `span` at most.
pub fn run(count: u32, span: Duration) -> Result<()> {
    let bed = Bed::new(&[])?;
    for address in MORE {
        bed.lab().on("red", &format!("addr add {address}/24 dev eth0"))?;
    }
    let may: May = Arc::new(Mutex::new(vec!["blue"]));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [false, true]
        .into_iter()
        .map(|ipv6| {
            let (lab, may, stop) = (bed.lab().clone(), may.clone(), stop.clone());
            thread::spawn(move || {
                let done = reconnect(&lab, ipv6, count / 2, span, &may);
                stop.store(true, Relaxed);
                done
            })
        })
        .collect();
    let mut changes = 0;
    for (name, config) in [("green", on(4, "")), ("blue", CONFIG.to_owned())].iter().cycle() {
        if stop.load(Relaxed) {
            break;
        }
        may.lock().map_err(|_| anyhow!("a client ended badly"))?.push(name);
        bed.configure(config, TAKEN)?;
        *may.lock().map_err(|_| anyhow!("a client ended badly"))? = vec![name];
        changes += 1;
        thread::sleep(Duration::from_millis(50));
    }
    for client in clients {
        client.join().map_err(|_| anyhow!("a client ended badly"))??;
    }
    println!("{count} connections, {changes} changes");
    ensure!(changes > 3, "only {changes} changes meanwhile");
    Ok(())
}

fn reconnect(lab: &Lab, ipv6: bool, count: u32, span: Duration, may: &May) -> Result<()> {
    let may = may.clone();
    lab.within("red", move || {
        let to = vip(ipv6, service::BLUE, 80);
        let own: Vec<IpAddr> = match ipv6 {
            false => ["10.244.1.2"].iter().chain(&MORE).map(|text| text.parse()).collect::<Result<_, _>>()?,
            true => vec!["fd00:244:1::2".parse()?],
        };
        let tuples: Vec<SocketAddr> =
            PORTS.flat_map(|port| own.iter().map(move |address| (*address, port).into())).collect();
        let start = Instant::now();
        for number in 0..count {
            let from = tuples[number as usize % tuples.len()];
            let before = may.lock().map_err(|_| anyhow!("the test ended"))?.clone();
            let context = || format!("connection {number} from {from} to {to} after {:?}", start.elapsed());
            // Each port ends in either way, in turn.
            let reset = (number as usize / tuples.len()).is_multiple_of(2);
            let name = once(from, to, reset).with_context(context)?;
            let after = may.lock().map_err(|_| anyhow!("the test ended"))?.clone();
            ensure!(
                before.iter().chain(&after).any(|allowed| *allowed == name),
                "{}: answered by {name} where {before:?} or {after:?} should have",
                context()
            );
            // Ports come round after pauses of every length, a few of them up to the span.
            if number % 10_000 == 9_999 {
                thread::sleep(span * (number / 10_000 % 5 + 1) / 5);
            } else if span.is_zero() {
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    })?
}

/// A page over a connection from that port; who answered. It ends with RST, or with FIN of the server first,
/// so that no port of the client waits.
fn once(from: SocketAddr, to: SocketAddr, reset: bool) -> Result<String> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into()).context("binding")?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect_timeout(&to.into(), Duration::from_secs(3)).context("connecting")?;
    let stream = TcpStream::from(socket);
    let (name, _) = request::get(&stream)?;
    if reset {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    } else {
        let _ = stream.shutdown(Shutdown::Write);
    }
    Ok(name)
}
