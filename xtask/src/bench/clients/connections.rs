//! Connections one after the other: connect, a byte each way, close.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Times, stay_on_one_cpu};
use crate::lab::Lab;

/// Where the server listens, and the port of its service.
pub const PORT: u16 = 7777;
/// What the server answers, so that an answer of somebody else is noticed.
pub(super) const ANSWER: u8 = b'b';

/// Starts the server in a host, on a thread that ends with this process.
pub fn serve(lab: &Lab, host: &str) -> Result<()> {
    let listener = lab.within(host, || TcpListener::bind(("0.0.0.0", PORT)))?;
    let listener = listener.with_context(|| format!("listening in {host}"))?;
    thread::spawn(move || -> Result<()> {
        stay_on_one_cpu()?;
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() {
                let _ = stream.write_all(&[ANSWER]);
            }
        }
        Ok(())
    });
    Ok(())
}

/// Connects from a host for some time.
pub fn run(lab: &Lab, host: &str, to: SocketAddrV4, time: Duration) -> Result<Times> {
    lab.within(host, move || connect(to, time))?
}

fn connect(to: SocketAddrV4, time: Duration) -> Result<Times> {
    stay_on_one_cpu()?;
    let mut times = Vec::with_capacity(1 << 17);
    let start = Instant::now();
    while start.elapsed() < time {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.write_all(b"a")?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if byte != [ANSWER] {
            bail!("an answer of somebody else from {to}");
        }
        drop(stream);
        times.push(begin.elapsed());
    }
    Times::of(times, start.elapsed())
}
