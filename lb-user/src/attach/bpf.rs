//! What bpf(2) does with links that aya does not.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `BPF_MAP_CREATE` of linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
/// `BPF_PROG_LOAD`.
const PROG_LOAD: libc::c_int = 5;
/// `BPF_OBJ_PIN`.
const OBJ_PIN: libc::c_int = 6;
/// `BPF_OBJ_GET`.
const OBJ_GET: libc::c_int = 7;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// `BPF_LINK_CREATE`.
const LINK_CREATE: libc::c_int = 28;
/// `BPF_LINK_UPDATE`.
const LINK_UPDATE: libc::c_int = 29;
/// `BPF_LINK_DETACH`.
const LINK_DETACH: libc::c_int = 34;

/// `BPF_MAP_TYPE_ARRAY`.
const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
/// `BPF_PROG_TYPE_XDP`.
const PROG_TYPE_XDP: u32 = 6;
/// `BPF_XDP`, as a kind of attaching.
const XDP: u32 = 37;

/// The link or program that is pinned at a path. aya's links do not give their descriptors away.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // Path, and no descriptor and flags.
    owned(OBJ_GET, &[path.as_ptr() as u64, 0])
}

/// Pins a link or a map.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(OBJ_PIN, &[path.as_ptr() as u64, pair(object.as_raw_fd() as u32, 0)]).map(drop)
}

/// An array with one row of so many bytes, to be mapped into memory.
pub fn one_row(bytes: u32) -> io::Result<OwnedFd> {
    // Type, bytes of a key and of a row, rows, flags.
    owned(MAP_CREATE, &[pair(MAP_TYPE_ARRAY, 4), pair(bytes, 1), pair(MMAPABLE, 0)])
}

/// What a link is attached to now: the index of its device, or the number of its cgroup. 0 once that has gone or
/// somebody has detached it.
pub fn target(link: BorrowedFd<'_>) -> io::Result<u64> {
    /// `BPF_LINK_TYPE_CGROUP`.
    const CGROUP: u32 = 3;
    // bpf_link_info: type, number, program and padding, then what depends on the type: for links of tcx and XDP the
    // device, for those of cgroups its number.
    let mut info = [0u64; 8];
    let (bytes, address) = (size_of_val(&info) as u32, info.as_mut_ptr() as u64);
    bpf(OBJ_GET_INFO_BY_FD, &[pair(link.as_raw_fd() as u32, bytes), address])?;
    let [kind, _]: [u32; 2] = bytemuck::cast(info[0]);
    let [device, _]: [u32; 2] = bytemuck::cast(info[2]);
    Ok(if kind == CGROUP { info[2] } else { device.into() })
}

/// Replaces the program of a link of any kind.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // Link and new program, and no flags and old program.
    bpf(LINK_UPDATE, &[pair(link.as_raw_fd() as u32, program.as_raw_fd() as u32), 0]).map(drop)
}

/// Detaches a link at once, whoever holds it.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &[pair(link.as_raw_fd() as u32, 0)]).map(drop)
}

/// Attaches a program of XDP to a device, by a link; `flags` are those of linux/if_link.h. Unlike aya's this
/// never comes to a program that stays without a link.
pub fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    owned(LINK_CREATE, &[pair(program.as_raw_fd() as u32, ifindex), pair(XDP, flags)])
}

/// A program of XDP that passes every packet on.
pub fn pass_xdp() -> io::Result<OwnedFd> {
    /// `XDP_PASS` (2) into the register of the answer; the end.
    const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let name = u64::from_ne_bytes(*b"lb_pass\0");
    let code = INSTRUCTIONS.as_ptr() as u64;
    let count = pair(PROG_TYPE_XDP, INSTRUCTIONS.len() as u32);
    // Then the license, no log, version or flags, the name, no device, and how it is attached.
    owned(PROG_LOAD, &[count, code, c"GPL".as_ptr() as u64, 0, 0, 0, name, 0, pair(0, XDP)])
}

/// Two members of 32 bits that follow one another.
fn pair(first: u32, second: u32) -> u64 {
    bytemuck::cast([first, second])
}

/// bpf(2), where it answers with a descriptor.
fn owned(command: libc::c_int, attributes: &[u64]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2), with the members of its union for the command.
fn bpf(command: libc::c_int, attributes: &[u64]) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the attributes, whose size is given, and keeps no pointer.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}
