//! The table of ports that the node has allocated to flows: clients outside whose backend is on another node
//! are shown to it as the node itself, so that its replies come back here.

use super::{FlowRow, flow_bits, pod};
use crate::family::Family;

/// A reply row whose client is not in its key. Keyed as replies are seen: backend -> node's address and port.
///
/// Its table never evicts: inserting a row where there is none is how a port is taken.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct SnatRow<F: Family> {
    /// As any reply row; its MAC and interface index lead back to the client.
    pub row: FlowRow<F>,
    /// The client.
    pub client: F::Addr,
    /// Its port, network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

impl<F: Family> FlowRow<F> {
    /// Whether it is the request row of a flow that has a port of the node's.
    #[inline(always)]
    pub fn is_snat(&self) -> bool {
        self.bits & (flow_bits::REPLY | flow_bits::RETURN_MASK << flow_bits::RETURN_SHIFT) == flow_bits::SNAT
    }

    /// The node's port of such a flow, network byte order. It stands where requests of bridges have the
    /// client's MAC: outside, the neighbour table knows that.
    #[inline(always)]
    pub fn snat_port(&self) -> u16 {
        self.mac[0]
    }
}

pod! { SnatRow: 40, 64; }
