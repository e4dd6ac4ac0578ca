//! Requests as the lab's clients make them, and who answered.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::Lab;

/// Patience with one request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Who answered how often, by name.
pub type Answers = BTreeMap<String, u32>;

/// A page fetched over a connection of its own: the name of who served it and the client's address
/// as it was seen there.
pub fn page(to: SocketAddr) -> Result<(String, String)> {
    let stream = TcpStream::connect_timeout(&to, TIMEOUT).with_context(|| format!("connecting to {to}"))?;
    if stream.peer_addr()? != to {
        bail!("the connection to {to} says it is with {}", stream.peer_addr()?);
    }
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    get(&stream).with_context(|| format!("a page of {to}"))
}

/// A page over a connection that ends with it.
pub fn get(mut stream: &TcpStream) -> Result<(String, String)> {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("waiting for an answer")?;
    let body = answer.split("\r\n\r\n").nth(1).context("an answer without a body")?;
    let (name, peer) = body.trim().split_once(' ').context("an answer without a name")?;
    Ok((name.to_owned(), peer.to_owned()))
}

/// Any address of the family of `like`, with that port.
pub fn any(like: SocketAddr, port: u16) -> SocketAddr {
    if like.is_ipv4() { ([0; 4], port).into() } else { ([0u16; 8], port).into() }
}

/// A socket of the family of `like` that is not connected.
pub fn unconnected(like: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(any(like, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

/// One that is.
pub fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let socket = unconnected(to)?;
    socket.connect(to)?;
    Ok(socket)
}

/// A datagram sent from a connected socket, which hears only who it is connected to.
pub fn echo(to: SocketAddr) -> Result<String> {
    ask(&connected(to)?).with_context(|| format!("an echo of {to}"))
}

/// One datagram there and back; the name of who answered.
pub fn ask(socket: &UdpSocket) -> Result<String> {
    socket.send(b"hello")?;
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer).context("waiting for an answer")?;
    let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
    let (name, echoed) = text.split_once(' ').context("an answer without a name")?;
    if echoed != "hello" {
        bail!("what came back is {echoed:?}");
    }
    Ok(name.to_owned())
}

/// `count` pages from a host of the lab.
pub fn pages(lab: &Lab, host: &str, to: SocketAddr, count: u32) -> Result<Answers> {
    lab.within(host, move || collect(count, || page(to).map(|(name, _)| name)))?
}

/// `count` datagrams from a host of the lab, each from a port of its own.
pub fn echoes(lab: &Lab, host: &str, to: SocketAddr, count: u32) -> Result<Answers> {
    lab.within(host, move || collect(count, || echo(to)))?
}

fn collect(count: u32, mut request: impl FnMut() -> Result<String>) -> Result<Answers> {
    let mut answers = Answers::new();
    for number in 1..=count {
        let name = request().with_context(|| format!("request {number} of {count}"))?;
        *answers.entry(name).or_default() += 1;
    }
    Ok(answers)
}
