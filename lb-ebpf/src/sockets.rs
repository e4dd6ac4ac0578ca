//! The programs of sockets, attached to the root of the cgroups: one per call that names another end.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use lb_common::path::{self, Access, Caller};

use crate::{
    sock_addr::{self, Context, Ipv4, Ipv6, Mapped},
    tables::Maps,
};

/// The call goes on.
const PASS: i32 = 1;
/// The call fails.
const FAIL: i32 = 0;

const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// Where an application connects to.
#[cgroup_sock_addr(connect4)]
pub fn cgroup_connect4(ctx: SockAddrContext) -> i32 {
    let ctx = ctx.sock_addr;
    let Some(caller) = sock_addr::caller(ctx) else { return PASS };
    answer(connect_ipv4(ctx, caller))
}

/// Where it connects to by IPv6, or by IPv4 from a socket that can do both.
#[cgroup_sock_addr(connect6)]
pub fn cgroup_connect6(ctx: SockAddrContext) -> i32 {
    let ctx = ctx.sock_addr;
    let Some(caller) = sock_addr::caller(ctx) else { return PASS };
    answer(if sock_addr::is_mapped(ctx) { connect_mapped(ctx, caller) } else { connect_ipv6(ctx, caller) })
}

/// Where a datagram goes. Also from a socket that can do both families.
#[cgroup_sock_addr(sendmsg4)]
pub fn cgroup_sendmsg4(ctx: SockAddrContext) -> i32 {
    let ctx = ctx.sock_addr;
    let Some(caller) = sock_addr::caller(ctx) else { return PASS };
    answer(path::send(&mut Ipv4(ctx, caller), &Maps))
}

/// Where a datagram goes, by IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn cgroup_sendmsg6(ctx: SockAddrContext) -> i32 {
    let ctx = ctx.sock_addr;
    let Some(caller) = sock_addr::caller(ctx) else { return PASS };
    answer(path::send(&mut Ipv6(ctx, caller), &Maps))
}

/// Who a datagram is from.
#[cgroup_sock_addr(recvmsg4)]
pub fn cgroup_recvmsg4(ctx: SockAddrContext) -> i32 {
    show_ipv4(ctx.sock_addr);
    PASS
}

/// Who a datagram is from, for sockets of IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn cgroup_recvmsg6(ctx: SockAddrContext) -> i32 {
    show_ipv6(ctx.sock_addr);
    PASS
}

/// Whom a socket is connected to.
#[cgroup_sock_addr(getpeername4)]
pub fn cgroup_getpeername4(ctx: SockAddrContext) -> i32 {
    show_ipv4(ctx.sock_addr);
    PASS
}

/// Whom a socket of IPv6 is connected to.
#[cgroup_sock_addr(getpeername6)]
pub fn cgroup_getpeername6(ctx: SockAddrContext) -> i32 {
    show_ipv6(ctx.sock_addr);
    PASS
}

// The families' paths are functions of their own: together they exceed a program's stack.

#[inline(never)]
fn connect_ipv4(ctx: Context, caller: Caller) -> Access {
    path::connect(&mut Ipv4(ctx, caller), &Maps)
}

#[inline(never)]
fn connect_mapped(ctx: Context, caller: Caller) -> Access {
    path::connect(&mut Mapped(ctx, caller), &Maps)
}

#[inline(never)]
fn connect_ipv6(ctx: Context, caller: Caller) -> Access {
    path::connect(&mut Ipv6(ctx, caller), &Maps)
}

#[inline(always)]
fn show_ipv4(ctx: Context) {
    if let Some(caller) = sock_addr::caller(ctx) {
        path::shown(&mut Ipv4(ctx, caller), &Maps);
    }
}

#[inline(always)]
fn show_ipv6(ctx: Context) {
    let Some(caller) = sock_addr::caller(ctx) else { return };
    if sock_addr::is_mapped(ctx) {
        path::shown(&mut Mapped(ctx, caller), &Maps);
    } else {
        path::shown(&mut Ipv6(ctx, caller), &Maps);
    }
}

/// What the kernel is told, and what it tells the application.
#[inline(always)]
fn answer(access: Access) -> i32 {
    let error = match access {
        Access::Granted => return PASS,
        Access::Refused => ECONNREFUSED,
        Access::Unreachable => EHOSTUNREACH,
    };
    sock_addr::fail(error);
    FAIL
}
