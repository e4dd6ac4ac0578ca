//! Questions to the kernel about links, addresses, routes and neighbours, each answered before the next is asked.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread::sleep,
    time::Duration,
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};

/// Questions that are sent together: their answers fit the socket's buffer.
const TOGETHER: usize = 16;
/// How long an answer may take. The kernel gives it before it returns from the question, so one is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a list is asked for that others change meanwhile, and the pause between.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of an answer: the kernel's lists come in parts of up to 32 KiB.
const ANSWER: usize = 1 << 16;

/// A socket for the network namespace of the thread that made it.
pub(super) struct Kernel {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    /// A new socket.
    pub fn new() -> io::Result<Kernel> {
        Ok(Kernel { socket: open()?, sequence: 0, buffer: vec![0; ANSWER] })
    }

    /// Asks one question for each key and hands on what the kernel knows: `None` where it knows nothing. An error
    /// says that it could not answer now.
    pub fn ask<K>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
        question: impl Fn(&K) -> RouteNetlinkMessage,
        mut answered: impl FnMut(K, Option<RouteNetlinkMessage>),
    ) -> io::Result<()> {
        let mut keys = keys.into_iter();
        loop {
            let some: VecDeque<K> = keys.by_ref().take(TOGETHER).collect();
            if some.is_empty() {
                return Ok(());
            }
            let asked = self.ask_some(some, &question, &mut answered);
            self.sound(asked)?;
        }
    }

    fn ask_some<K>(
        &mut self,
        mut keys: VecDeque<K>,
        question: &impl Fn(&K) -> RouteNetlinkMessage,
        answered: &mut impl FnMut(K, Option<RouteNetlinkMessage>),
    ) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let mut message = Vec::new();
        for key in &keys {
            self.write(&mut message, question(key), 0);
        }
        send(self.socket.as_fd(), &message, SendFlags::empty())?;
        let mut next = first;
        while let Some(key) = keys.pop_front() {
            // Each question has one answer, in their order.
            let mut answer = None;
            while answer.is_none() {
                self.receive(|header, payload| {
                    if header.sequence_number == next {
                        answer = Some(payload);
                    }
                    Ok(())
                })?;
            }
            answered(key, answer.map(known).transpose()?.flatten());
            next = next.wrapping_add(1);
        }
        Ok(())
    }

    /// Asks for a list. One that has changed while it was read is read again.
    pub fn list(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..TRIES {
            let listed = self.list_once(question.clone());
            match self.sound(listed) {
                Ok(Some(list)) => return Ok(list),
                Ok(None) => {}
                Err(error) if is_busy(&error) => {}
                Err(error) => return Err(error),
            }
            sleep(PAUSE);
        }
        Err(io::Error::other(format!("the kernel's list has changed during each of {TRIES} readings")))
    }

    /// `None`: it has changed meanwhile.
    fn list_once(&mut self, question: RouteNetlinkMessage) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut message = Vec::new();
        self.write(&mut message, question, NLM_F_DUMP);
        send(self.socket.as_fd(), &message, SendFlags::empty())?;
        let sequence = self.sequence;
        let (mut list, mut whole, mut done) = (Vec::new(), true, false);
        while !done {
            self.receive(|header, payload| {
                if header.sequence_number != sequence {
                    return Ok(());
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match payload {
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(one) => list.push(one),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(whole.then_some(list))
    }

    fn write(&mut self, message: &mut Vec<u8>, question: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (NLM_F_REQUEST | flags, self.sequence);
        let mut one = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        one.finalize();
        let start = message.len();
        message.resize((start + one.buffer_len()).next_multiple_of(4), 0);
        one.serialize(&mut message[start..]);
    }

    /// Receives once and hands on each message. What can't be parsed says nothing.
    fn receive(
        &mut self,
        mut each: impl FnMut(&NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (len, _) = recv(self.socket.as_fd(), &mut self.buffer[..], RecvFlags::empty())?;
        let mut rest = &self.buffer[..len];
        while let Some((one, more)) = first(rest) {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
                Ok(message) => each(&message.header, message.payload)?,
                Err(error) => {
                    tracing::debug!("a message of netlink is not understood: {error}");
                    let mut header = NetlinkHeader::default();
                    header.sequence_number =
                        one[8..].first_chunk().map_or(0, |four| u32::from_ne_bytes(*four));
                    each(&header, NetlinkPayload::Noop)?;
                }
            }
            rest = more;
        }
        Ok(())
    }

    /// After an error nobody knows what the socket still has to say.
    fn sound<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.socket = open()?;
        }
        result
    }
}

/// The first message of those received together, and what follows it.
pub(super) fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let one = bytes.get(..len).filter(|one| one.len() >= 16)?;
    Some((one, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// What an answer says; that the kernel can't answer now is an error.
fn known(answer: NetlinkPayload<RouteNetlinkMessage>) -> io::Result<Option<RouteNetlinkMessage>> {
    match answer {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        NetlinkPayload::Error(error) if is_busy(&error.to_io()) => Err(error.to_io()),
        _ => Ok(None),
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EINTR | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::netlink::questions;

    #[test]
    fn each_question_has_its_answer() {
        let mut kernel = Kernel::new().expect("a socket");
        let links = kernel.list(questions::links()).expect("links");
        let names: Vec<String> = links
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => Some(questions::link(&message).name),
                _ => None,
            })
            .collect();
        assert!(names.iter().any(|name| name == "lo"), "{names:?}");
        // More than are sent together. The kernel has no neighbours at device 1, the loopback device.
        let keys: Vec<(u32, IpAddr)> =
            (1..=100).map(|last| (1, Ipv4Addr::new(198, 51, 100, last).into())).collect();
        let mut asked = Vec::new();
        let done = kernel.ask(
            keys.clone(),
            |at| questions::neighbour(*at),
            |at, answer| {
                assert_eq!(answer, None);
                asked.push(at);
            },
        );
        done.expect("answers");
        assert_eq!(asked, keys);
    }

    #[test]
    fn messages_that_come_together() {
        let one = |len: u32| [&len.to_ne_bytes()[..], &[0; 12]].concat();
        let both = [one(16), one(16)].concat();
        let (first_one, rest) = first(&both).expect("a message");
        assert_eq!((first_one.len(), rest.len()), (16, 16));
        assert_eq!(first(&one(15)), None, "shorter than its header");
        assert_eq!(first(&one(20)), None, "cut off");
        assert_eq!(first(&[]), None);
    }
}
