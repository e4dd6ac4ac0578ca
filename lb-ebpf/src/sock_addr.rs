//! The address in a socket's call. All unsafe access to it is in this file.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
};
use lb_common::{
    family::{Addr4, Addr6, V4, V6},
    path::{Caller, Peer, Socket},
    wire::Protocol,
};

use crate::maps::{COOKIES, SETTINGS};

/// What the kernel hands to the programs.
pub type Context = *mut bpf_sock_addr;

/// Third word of the IPv6 addresses that stand for IPv4 ones, `::ffff:0:0/96`.
const MAPPED: u32 = 0xffff_u32.to_be();

/// One load of a field of the context: the verifier knows them by their offsets and sizes alone.
macro_rules! load {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: a field of the live context.
        unsafe { (&raw const (*$ctx).$($field)+).read_volatile() }
    };
}

macro_rules! store {
    ($value:expr => $ctx:expr, $($field:tt)+) => {
        // SAFETY: a field of the live context that programs may write.
        unsafe { (&raw mut (*$ctx).$($field)+).write_volatile($value) }
    };
}

/// Whose socket it is, if its network namespace is served. Programs are attached for the whole host, whose
/// containers and other networks have sockets of their own.
#[inline(always)]
pub fn caller(ctx: Context) -> Option<Caller> {
    // SAFETY: the live context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let cookie = [cookie as u32, (cookie >> 32) as u32];
    let settings = SETTINGS.get();
    if cookie == settings.netns_cookie {
        return Some(Caller::Host);
    }
    // SAFETY: only whether there is a row is looked at.
    (settings.pod_sockets != 0 && unsafe { COOKIES.get(&cookie) }.is_some()).then_some(Caller::Pod)
}

/// Whether the address is an IPv4 one in IPv6's clothes.
#[inline(always)]
pub fn is_mapped(ctx: Context) -> bool {
    load!(ctx, user_ip6[0]) == 0 && load!(ctx, user_ip6[1]) == 0 && load!(ctx, user_ip6[2]) == MAPPED
}

/// Sets what the call returns to the application where the program refuses it.
#[inline(always)]
pub fn fail(error: i32) {
    // SAFETY: no preconditions.
    unsafe { bpf_set_retval(-error) };
}

/// A call with an IPv4 address.
pub struct Ipv4(pub Context, pub Caller);
/// A call with an IPv6 address.
pub struct Ipv6(pub Context, pub Caller);
/// A call with an IPv4 address in IPv6's clothes.
pub struct Mapped(pub Context, pub Caller);

#[inline(always)]
fn cookie(ctx: Context) -> [u32; 2] {
    // SAFETY: the live context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.cast()) };
    [cookie as u32, (cookie >> 32) as u32]
}

#[inline(always)]
fn protocol(ctx: Context) -> Option<Protocol> {
    Protocol::from_number(u8::try_from(load!(ctx, protocol)).ok()?)
}

#[inline(always)]
fn port(ctx: Context) -> u16 {
    load!(ctx, user_port) as u16
}

impl Socket<V4> for Ipv4 {
    #[inline(always)]
    fn cookie(&self) -> [u32; 2] {
        cookie(self.0)
    }

    #[inline(always)]
    fn caller(&self) -> Caller {
        self.1
    }

    #[inline(always)]
    fn protocol(&self) -> Option<Protocol> {
        protocol(self.0)
    }

    #[inline(always)]
    fn peer(&self) -> Peer<V4> {
        Peer { addr: Addr4(load!(self.0, user_ip4)), port: port(self.0) }
    }

    #[inline(always)]
    fn set_peer(&mut self, peer: Peer<V4>) {
        store!(peer.addr.0 => self.0, user_ip4);
        store!(peer.port as u32 => self.0, user_port);
    }
}

impl Socket<V4> for Mapped {
    #[inline(always)]
    fn cookie(&self) -> [u32; 2] {
        cookie(self.0)
    }

    #[inline(always)]
    fn caller(&self) -> Caller {
        self.1
    }

    #[inline(always)]
    fn protocol(&self) -> Option<Protocol> {
        protocol(self.0)
    }

    #[inline(always)]
    fn peer(&self) -> Peer<V4> {
        Peer { addr: Addr4(load!(self.0, user_ip6[3])), port: port(self.0) }
    }

    #[inline(always)]
    fn set_peer(&mut self, peer: Peer<V4>) {
        store!(peer.addr.0 => self.0, user_ip6[3]);
        store!(peer.port as u32 => self.0, user_port);
    }
}

impl Socket<V6> for Ipv6 {
    #[inline(always)]
    fn cookie(&self) -> [u32; 2] {
        cookie(self.0)
    }

    #[inline(always)]
    fn caller(&self) -> Caller {
        self.1
    }

    #[inline(always)]
    fn protocol(&self) -> Option<Protocol> {
        protocol(self.0)
    }

    #[inline(always)]
    fn peer(&self) -> Peer<V6> {
        let addr = Addr6([
            load!(self.0, user_ip6[0]),
            load!(self.0, user_ip6[1]),
            load!(self.0, user_ip6[2]),
            load!(self.0, user_ip6[3]),
        ]);
        Peer { addr, port: port(self.0) }
    }

    #[inline(always)]
    fn set_peer(&mut self, peer: Peer<V6>) {
        let Addr6([a, b, c, d]) = peer.addr;
        store!(a => self.0, user_ip6[0]);
        store!(b => self.0, user_ip6[1]);
        store!(c => self.0, user_ip6[2]);
        store!(d => self.0, user_ip6[3]);
        store!(peer.port as u32 => self.0, user_port);
    }
}
