//! Sockets of the host whose destination was translated.

use super::{BackendRef, pod};
use crate::family::Family;

/// A socket and one end that it speaks to.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketKey<F: Family> {
    /// The socket's cookie, never another socket's; low half first.
    pub cookie: [u32; 2],
    /// The end's address.
    pub addr: F::Addr,
    /// Its port, network byte order.
    pub port: u16,
    /// A [`SocketEnd`].
    pub end: u16,
}

/// Which end of a translation a key names.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SocketEnd {
    /// The backend; the row tells the frontend, for what the application is shown.
    Backend = 0,
    /// The frontend; the row tells the backend, for the next datagram of a socket that is not connected.
    Frontend = 1,
}

/// The other end.
#[repr(C)]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SocketRow<F: Family> {
    /// The backend.
    pub backend: BackendRef,
    /// Address of the other end.
    pub addr: F::Addr,
    /// Its port, network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

pod! { SocketKey: 16, 28; SocketRow: 16, 28; }
