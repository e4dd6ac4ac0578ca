//! What the lab's hosts serve: a page that names the host (TCP) and an echo that does (UDP).

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::{Lab, Pod};

/// Port of the pods' pages.
const PAGE: u16 = 8080;
/// Port of the pods' echo.
const ECHO: u16 = 9090;
/// Port of a node's own page, as an API server has it.
const NODE_PAGE: u16 = 6443;

/// Starts the servers of all hosts, on threads that end with this process.
pub fn serve(lab: &Lab) -> Result<()> {
    for pod in lab.nodes().pods() {
        serve_pod(lab, *pod)?;
    }
    for node in lab.nodes().names() {
        lab.within(node, || page(node, everywhere(NODE_PAGE)))?
            .with_context(|| format!("serving on {node}"))?;
    }
    Ok(())
}

/// Starts the servers of one pod.
pub fn serve_pod(lab: &Lab, pod: Pod) -> Result<()> {
    serve_at(lab, pod.name, everywhere(PAGE), everywhere(ECHO))
}

/// Starts a page and an echo of a host, there.
pub fn serve_at(lab: &Lab, host: &'static str, at: SocketAddr, echo_at: SocketAddr) -> Result<()> {
    let started = lab.within(host, move || page(host, at).and_then(|()| echo(host, echo_at)))?;
    started.with_context(|| format!("serving in {host}"))
}

fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Answers every request with the host's name and the address the request came from.
fn page(name: &'static str, at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, name));
        }
    });
    Ok(())
}

fn answer(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let mut requests = BufReader::new(&stream);
    loop {
        let mut close = false;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            close |= line.ends_with("http/1.0") || line == "connection: close";
            if line.is_empty() {
                break;
            }
        }
        let body = format!("{name} {peer}\n");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
        let end = if close { "Connection: close\r\n" } else { "" };
        (&stream).write_all(format!("{head}{end}\r\n{body}").as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

/// Sends every datagram back with the host's name in front.
fn echo(name: &'static str, at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    // Room for a second's worth on a host whose processors are busy.
    set_socket_recv_buffer_size_force(&socket, 1 << 20)?;
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((len, peer)) = socket.recv_from(&mut buffer) else { return };
            let mut reply = format!("{name} ").into_bytes();
            reply.extend_from_slice(&buffer[..len]);
            let _ = socket.send_to(&reply, peer);
        }
    });
    Ok(())
}
