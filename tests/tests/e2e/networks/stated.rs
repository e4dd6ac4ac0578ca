//! What cells give that are not answered, and what `lb run` refuses.

use super::{
    cell::{Backend, Cell, Client, Traffic},
    topology::Topology,
};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// The backend answers.
    Answer,
    /// None, and neither if the client calls the backend by its own address.
    AsWithout(&'static str),
    /// There is no such client or backend.
    Absent(&'static str),
}

/// Cells that give something else than an answer.
struct Except {
    at: &'static [Topology],
    clients: &'static [Client],
    backends: &'static [Backend],
    traffic: &'static [Traffic],
    gives: Gives,
}

const EXCEPT: [Except; 3] = [
    Except {
        at: &[Topology::UplinkAlone],
        clients: &[Client::Pod],
        backends: &Backend::ALL,
        traffic: &Traffic::ALL,
        gives: Gives::Absent("no pods"),
    },
    Except {
        at: &[Topology::UplinkAlone],
        clients: &Client::ALL,
        backends: &[Backend::Pod],
        traffic: &Traffic::ALL,
        gives: Gives::Absent("no pods"),
    },
    // The stack answers from the address of the device towards the pod. Ports with a fixed gateway have none.
    Except {
        at: &[Topology::Veths, Topology::Taps, Topology::Ptp, Topology::TwoBridges, Topology::TwoUplinks],
        clients: &[Client::Pod],
        backends: &[Backend::HostAny],
        traffic: &[Traffic::Udp, Traffic::LargeUdp],
        gives: Gives::AsWithout("another source"),
    },
];

/// What a cell is to give.
pub fn stated(topology: Topology, cell: Cell) -> Gives {
    let except = EXCEPT.iter().find(|except| {
        except.at.contains(&topology)
            && except.clients.contains(&cell.client)
            && except.backends.contains(&cell.backend)
            && except.traffic.contains(&cell.traffic)
    });
    except.map_or(Gives::Answer, |except| except.gives)
}

/// A set-up that `lb run` does not start with.
pub struct Refused {
    /// As people call it.
    pub name: &'static str,
    /// What is done at the node with ip(8).
    pub made_by: &'static str,
    pub devices: &'static [&'static str],
    /// What the error says.
    pub says: &'static str,
    /// Why, in short.
    pub why: &'static str,
}

pub const REFUSED: [Refused; 2] = [
    Refused {
        name: "bridge's NIC",
        made_by: "link set eth0 master v-net-0",
        devices: &["--bridge", "v-net-0", "--uplink", "eth0"],
        says: "leave --uplink eth0 out",
        why: "leave --uplink out",
    },
    Refused {
        name: "L3 uplink",
        made_by: "tuntap add tun0 mode tun",
        devices: &["--bridge", "v-net-0", "--uplink", "tun0"],
        says: "tun0 has no Ethernet header",
        why: "no MACs",
    },
];
