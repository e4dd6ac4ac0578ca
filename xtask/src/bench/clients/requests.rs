//! Requests and responses of one byte on one connection.

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
pub const PORT: u16 = 7778;
/// What the server answers.
const ANSWER: u8 = b'r';
/// Requests before the first that counts.
const WARM_UP: u32 = 100;
/// Patience with one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the server in the pod blue.
pub fn serve(lab: &Lab) -> Result<()> {
    let listener = lab
        .within("blue", || TcpListener::bind(("0.0.0.0", PORT)))?
        .with_context(|| format!("listening on TCP port {PORT} in blue"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stay_on_one_cpu()?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&[ANSWER])?;
    }
    Ok(())
}

/// Asks from the pod red for some time.
pub fn run(lab: &Lab, to: SocketAddrV4, time: Duration) -> Result<Times> {
    lab.within("red", move || ask(to, time))?
}

fn ask(to: SocketAddrV4, time: Duration) -> Result<Times> {
    stay_on_one_cpu().context("keeping the client of requests on one CPU")?;
    let mut stream = TcpStream::connect_timeout(&to.into(), TIMEOUT)
        .with_context(|| format!("connecting red to {to}, for requests"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut request = || -> Result<()> {
        stream.write_all(b"a")?;
        let mut byte = [0];
        stream.read_exact(&mut byte).with_context(|| format!("waiting for an answer of {to}"))?;
        if byte != [ANSWER] {
            bail!("an answer of somebody else from {to}");
        }
        Ok(())
    };
    for _ in 0..WARM_UP {
        request()?;
    }
    let mut times = Vec::with_capacity(1 << 17);
    let start = Instant::now();
    let mut begin = start;
    while begin - start < time {
        request()?;
        let end = Instant::now();
        times.push(end - begin);
        begin = end;
    }
    Times::of(times, begin - start)
}
