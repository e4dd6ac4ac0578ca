//! The frames that come in at the uplink, the rows that they meet, and what becomes of them.

use std::{net::SocketAddrV4, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    abi::{Counter, Settings, ZONE_UPLINK},
    family::V4,
    path::Hook,
    wire::Protocol,
};

use super::{NODE, REMOTE, programs::FRAME};
use crate::{
    family::{Net as _, socket},
    kernel::{Summed, load, maps::Maps, test_run::test_run},
    mutate::fields::sum,
    object::object,
    packet::{Wire, tcp},
    state::{ROUTER, State, UPLINK, mac_of, on_uplink, outside},
};

/// What clients call.
const VIP: &str = "198.51.100.10:80";
/// First of the node's ports that are allocated, and how many there are.
const PORTS: (u32, u32) = (10_000, 20_000);
/// Rows of each table of flows.
const ROWS: u32 = 16_384;
/// Tuples of new flows: many times more rows than there are have been written before one comes again.
const NEW: u32 = 65_536;

/// What the frames are.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Segments of so many TCP connections that go on, their clients shown to the backend as the node (SNAT).
    Established(u32),
    /// The first segments of connections that nobody knows, their clients shown as they are.
    New,
}

impl Kind {
    /// As it is called in tables.
    pub fn name(self) -> String {
        match self {
            Kind::Established(1) => "established, 1 flow".to_owned(),
            Kind::Established(flows) => format!("established, {flows} flows"),
            Kind::New => "new flows".to_owned(),
        }
    }

    fn flows(self) -> u32 {
        match self {
            Kind::Established(flows) => flows,
            Kind::New => NEW,
        }
    }

    /// The frames, in the order in which they come, over and over.
    pub fn frames(self) -> Result<Vec<Vec<u8>>> {
        (0..self.flows())
            .map(|number| {
                let segment = tcp(&client(number), VIP);
                let segment = if self == Kind::New { segment.syn() } else { segment };
                let mut bytes = segment.bytes::<V4>();
                ensure!(bytes.len() <= FRAME, "a frame of {} bytes", bytes.len());
                bytes.resize(FRAME, 0);
                Ok(bytes)
            })
            .collect()
    }

    /// The programs over rows that these frames meet.
    pub fn prepare(self) -> Result<Maps> {
        let mut settings = on_uplink();
        if self != Kind::New {
            settings = Settings { snat_first: PORTS.0, snat_ports: PORTS.1, ..settings };
            V4::set_host(&mut settings, *socket(NODE).ip());
        }
        let mut maps = Maps::new(load(&object()?, &settings, ROWS)?);
        let state = State::<V4>::default().service(1, &[(Protocol::Tcp, VIP)], &[1]);
        maps.fill(&state.backend(1, 1, REMOTE, ZONE_UPLINK, outside()))?;
        if let Kind::Established(flows) = self {
            open(&mut maps, flows)?;
        }
        maps.counters()?;
        Ok(maps)
    }

    /// The counters have moved by so many frames, and by nothing else.
    pub fn counted(self, maps: &mut Maps, frames: u64) -> Result<()> {
        let counters = maps.counters()?;
        let count = |counter| counters.get(&(counter as u32)).copied().unwrap_or(0);
        let new = count(Counter::NewFlow);
        // Few rows of a table of that kind outlive as many others as it has.
        let as_many_new =
            if self == Kind::New { new <= frames && new * 100 >= frames * 99 } else { new == 0 };
        ensure!(
            count(Counter::Request) == frames && as_many_new && counters.len() <= 2,
            "{}: {frames} frames, counted {counters:?}",
            self.name()
        );
        Ok(())
    }

    /// A frame is one of these, forwarded to the backend.
    pub fn forwarded(self, frame: &[u8]) -> Result<()> {
        ensure!(frame[..6] == bytemuck::cast::<_, [u8; 6]>(mac_of(ROUTER)), "to another next hop");
        let (ip, rest) = frame[14..].split_at(20);
        let len = u16::from_be_bytes([ip[2], ip[3]]) as usize - ip.len();
        let segment = &rest[..len];
        ensure!(sum(ip, 0) == 0xffff, "a wrong checksum of IPv4");
        let pseudo = u32::from(sum(&ip[12..20], 0)) + u32::from(ip[9]) + len as u32;
        ensure!(sum(segment, pseudo) == 0xffff, "a wrong checksum of TCP");
        let at = |address: &[u8], port: &[u8]| {
            SocketAddrV4::new(
                [address[0], address[1], address[2], address[3]].into(),
                u16::from_be_bytes([port[0], port[1]]),
            )
        };
        let (from, to) = (at(&ip[12..16], &segment[..2]), at(&ip[16..20], &segment[2..4]));
        let right = match self {
            Kind::Established(_) => {
                from.ip() == socket(NODE).ip()
                    && (PORTS.0..PORTS.0 + PORTS.1).contains(&u32::from(from.port()))
            }
            Kind::New => (0..NEW).any(|number| socket(&client(number)) == from),
        };
        ensure!(right && to == socket(REMOTE) && ip[8] == 63, "{from} to {to}, {} hops left", ip[8]);
        Ok(())
    }
}

/// A client's `address:port`. Each has its own; 16,384 share an address.
fn client(number: u32) -> String {
    format!("192.168.2.{}:{}", 1 + (number >> 14), 20_000 + (number & 0x3fff))
}

/// Lets so many flows begin, be answered and be assured, by the tc program.
fn open(maps: &mut Maps, flows: u32) -> Result<()> {
    for number in 0..flows {
        let client = client(number);
        run(maps, &tcp(&client, VIP).syn())?;
        let key = tcp(&client, VIP).key::<V4>(ZONE_UPLINK);
        let row = maps.unassured::<V4>()?.get(&key, 0).context("no row of a new flow")?.row;
        let shown = format!("{}:{}", socket(NODE).ip(), u16::from_be(row.snat_port()));
        run(maps, &tcp(REMOTE, &shown).syn_ack())?;
        run(maps, &tcp(&client, VIP))?;
    }
    let counters = maps.counters()?;
    let assured = counters.get(&(Counter::Assured as u32)).copied().unwrap_or(0);
    ensure!(assured == u64::from(flows), "{assured} of {flows} flows are assured: {counters:?}");
    Ok(())
}

fn run(maps: &mut Maps, packet: &Wire) -> Result<()> {
    let program = maps.program(Hook::UplinkIngress)?.as_fd();
    test_run(program, UPLINK, &packet.bytes::<V4>(), 0, Summed::None).map(drop)
}
