//! Small datagrams, counted where they arrive.

use std::{
    io::IoSlice,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};

use crate::lab::Lab;

/// Where the server listens, and the port of its service.
pub const PORT: u16 = 7779;
/// Bytes of a datagram; with the headers of UDP, IPv4 and Ethernet it is a frame of 64.
const PAYLOAD: usize = 22;
/// What ours begin with; the number of the run follows.
const MARKER: [u8; 8] = *b"lb-bench";
/// Datagrams sent or received with one system call.
const BLOCK: usize = 64;
/// Bytes that may wait to be received.
const BUFFER: usize = 32 << 20;

/// Who sends to whom.
#[derive(Clone, Copy)]
pub struct Ends {
    /// The host that sends.
    pub sender: &'static str,
    /// From this address.
    pub from: Ipv4Addr,
    /// The host that receives.
    pub receiver: &'static str,
    /// To it, the sender has this address.
    pub seen: Ipv4Addr,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// Datagrams sent per second.
    pub sent_per_second: f64,
    /// Datagrams received per second while they were sent.
    pub received_per_second: f64,
}

/// What the server has seen.
#[derive(Default)]
struct Counters {
    /// The run whose datagrams count.
    run: AtomicU32,
    /// Those of that run.
    received: AtomicU64,
    /// Others, or of another sender.
    others: AtomicU64,
}

/// The server.
pub struct Receiver {
    ends: Ends,
    counters: Arc<Counters>,
}

/// Starts the server.
pub fn serve(lab: &Lab, ends: Ends) -> Result<Receiver> {
    let host = ends.receiver;
    let socket = lab
        .within(host, || UdpSocket::bind(("0.0.0.0", PORT)))?
        .with_context(|| format!("listening on UDP port {PORT} in {host}"))?;
    let sized = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
    sized.with_context(|| format!("a large buffer in {host}"))?;
    let counters = Arc::new(Counters::default());
    let receiver = Receiver { ends, counters: counters.clone() };
    thread::spawn(move || receive(&socket, &counters, ends.seen));
    Ok(receiver)
}

/// Counts until the socket fails.
fn receive(socket: &UdpSocket, counters: &Counters, from: Ipv4Addr) {
    // One byte more than ours have, so that longer ones are noticed.
    let mut payloads = [[0u8; PAYLOAD + 1]; BLOCK];
    // SAFETY: plain numbers and null pointers.
    let mut addresses: [libc::sockaddr_in; BLOCK] = unsafe { std::mem::zeroed() };
    let mut parts = payloads
        .each_mut()
        .map(|payload| libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() });
    loop {
        // SAFETY: plain numbers and null pointers.
        let mut headers: [libc::mmsghdr; BLOCK] = unsafe { std::mem::zeroed() };
        for ((header, part), address) in headers.iter_mut().zip(&mut parts).zip(&mut addresses) {
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the headers point to buffers above, which outlive the call, with their sizes.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BLOCK as u32,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return;
        }
        let expected = payload(counters.run.load(Relaxed));
        let ours = headers.iter().zip(&parts).zip(&addresses).take(count as usize);
        let ours = ours.filter(|((header, part), address)| {
            let len = header.msg_len as usize;
            // SAFETY: the kernel has filled this buffer up to the length, and nobody writes to it now.
            let bytes = unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), len) };
            bytes == expected && address.sin_addr.s_addr == u32::from(from).to_be()
        });
        let ours = ours.count() as u64;
        counters.received.fetch_add(ours, Relaxed);
        counters.others.fetch_add(count as u64 - ours, Relaxed);
    }
}

/// What the datagrams of a run look like.
fn payload(run: u32) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    payload[..8].copy_from_slice(&MARKER);
    payload[8..12].copy_from_slice(&run.to_be_bytes());
    payload
}

impl Receiver {
    /// Sends for some time.
    pub fn run(&self, lab: &Lab, to: SocketAddrV4, time: Duration) -> Result<Datagrams> {
        let counters = self.counters.clone();
        let run = counters.run.fetch_add(1, Relaxed) + 1;
        counters.received.store(0, Relaxed);
        counters.others.store(0, Relaxed);
        let Ends { sender, from, receiver, .. } = self.ends;
        let (sent, while_sent, took) = lab.within(sender, move || {
            let start = Instant::now();
            let sent = send(from, to, run, time)?;
            Ok::<_, anyhow::Error>((sent, counters.received.load(Relaxed), start.elapsed().as_secs_f64()))
        })??;
        // Until nothing has come for a while.
        let mut received = while_sent;
        loop {
            sleep(Duration::from_millis(50));
            let now = self.counters.received.load(Relaxed);
            if now == received {
                break;
            }
            received = now;
        }
        let others = self.counters.others.load(Relaxed);
        if received == 0 || received > sent || others > 0 {
            bail!(
                "of {sent} datagrams to {to}, {receiver} has received {received}, and {others} that are not \
                 as {sender} sent them"
            );
        }
        Ok(Datagrams { sent_per_second: sent as f64 / took, received_per_second: while_sent as f64 / took })
    }
}

/// How many it has sent.
fn send(from: Ipv4Addr, to: SocketAddrV4, run: u32, time: Duration) -> Result<u64> {
    let socket = UdpSocket::bind((from, 0)).context("a socket for datagrams")?;
    socket.connect(to).with_context(|| format!("connecting a socket to {to}"))?;
    let payload = payload(run);
    let parts = [IoSlice::new(&payload)];
    let mut nothing: [SendAncillaryBuffer; BLOCK] = std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut headers: Vec<MMsgHdr> = nothing.iter_mut().map(|more| MMsgHdr::new(&parts, more)).collect();
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        sent += sendmmsg(&socket, &mut headers, SendFlags::empty())
            .with_context(|| format!("sending datagrams to {to}"))? as u64;
    }
    Ok(sent)
}
