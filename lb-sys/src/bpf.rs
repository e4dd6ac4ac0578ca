//! What bpf(2) does and aya does not: links by their descriptors, programs of a few instructions, runs with flags,
//! hashes read in batches.

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

/// `BPF_PROG_TEST_RUN`.
const PROG_TEST_RUN: libc::c_int = 10;
/// `BPF_MAP_LOOKUP_BATCH`.
const MAP_LOOKUP_BATCH: libc::c_int = 24;

/// `BPF_MAP_TYPE_ARRAY`.
const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
/// `BPF_XDP`, as a kind of attaching.
const XDP: u32 = 37;
/// `BPF_TCX_INGRESS`.
const TCX_INGRESS: u32 = 46;

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
    let info = link_info(link)?;
    let [kind, _]: [u32; 2] = bytemuck::cast(info[0]);
    let [device, _]: [u32; 2] = bytemuck::cast(info[2]);
    Ok(if kind == CGROUP { info[2] } else { device.into() })
}

/// The number of a link's program.
pub fn program(link: BorrowedFd<'_>) -> io::Result<u32> {
    let [program, _]: [u32; 2] = bytemuck::cast(link_info(link)?[1]);
    Ok(program)
}

/// `struct bpf_link_info`: type, number, program and padding, then what depends on the type: for links of tcx and XDP
/// the device, for those of cgroups its number.
fn link_info(link: BorrowedFd<'_>) -> io::Result<[u64; 8]> {
    let mut info = [0u64; 8];
    let (bytes, address) = (size_of_val(&info) as u32, info.as_mut_ptr() as u64);
    bpf(OBJ_GET_INFO_BY_FD, &[pair(link.as_raw_fd() as u32, bytes), address])?;
    Ok(info)
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

/// Attaches a program to what a device receives, by a tcx link.
pub fn link_tcx(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    owned(LINK_CREATE, &[pair(program.as_raw_fd() as u32, ifindex), pair(TCX_INGRESS, 0)])
}

/// A kind of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Tc = 3,
    /// `BPF_PROG_TYPE_XDP`.
    Xdp = 6,
}

/// A program of XDP that passes every packet on.
pub fn pass_xdp() -> io::Result<OwnedFd> {
    constant(Kind::Xdp, 2)
}

/// A program that returns this for every packet.
pub fn constant(kind: Kind, value: i32) -> io::Result<OwnedFd> {
    const MOVE_TO_RESULT: u64 = 0xb7;
    const EXIT: u64 = 0x95;
    load(kind, &[MOVE_TO_RESULT | u64::from(value as u32) << 32, EXIT])
}

/// Loads a program.
pub fn load(kind: Kind, instructions: &[u64]) -> io::Result<OwnedFd> {
    let name = u64::from_ne_bytes(*b"lb_pass\0");
    let (count, code) = (pair(kind as u32, instructions.len() as u32), instructions.as_ptr() as u64);
    // How programs of XDP are attached is told when they are loaded, as links ask for it.
    let attached = if kind == Kind::Xdp { XDP } else { 0 };
    // Then the license, no log, version or flags, the name, no device, and how it is attached.
    owned(PROG_LOAD, &[count, code, c"GPL".as_ptr() as u64, 0, 0, 0, name, 0, pair(0, attached)])
}

/// A run of a program on a packet (`BPF_PROG_TEST_RUN`).
#[derive(Default)]
pub struct Run<'a> {
    /// The packet.
    pub packet: &'a [u8],
    /// What the program is to find in its context (`struct __sk_buff`, `struct xdp_md`), as far as that is told.
    pub context: &'a [u32],
    /// Where the packet is put afterwards; an empty one gets nothing, which is no error.
    pub out: &'a mut [u8],
    /// Flags of linux/bpf.h.
    pub flags: u32,
    /// How many runs; 0 is one.
    pub repeat: u32,
    /// How many live frames at once; 0: they are not live.
    pub batch: u32,
}

impl Run<'_> {
    /// Runs it: what it returned, and the bytes of the packet afterwards, which are in the buffer as far as it reaches.
    pub fn on(self, program: BorrowedFd<'_>) -> io::Result<(i32, usize)> {
        let out = if self.out.is_empty() { 0 } else { self.out.as_mut_ptr() as u64 };
        // Program and answer; sizes in and out; packets in and out; repeat and duration; sizes of contexts, and they;
        // flags and processor; batch.
        let mut attributes = [
            pair(program.as_raw_fd() as u32, 0),
            pair(self.packet.len() as u32, self.out.len() as u32),
            self.packet.as_ptr() as u64,
            out,
            pair(self.repeat, 0),
            pair(size_of_val(self.context) as u32, 0),
            if self.context.is_empty() { 0 } else { self.context.as_ptr() as u64 },
            0,
            pair(self.flags, 0),
            pair(self.batch, 0),
        ];
        command(PROG_TEST_RUN, &mut attributes)?;
        let ([_, value], [_, size]): ([u32; 2], [u32; 2]) =
            (bytemuck::cast(attributes[0]), bytemuck::cast(attributes[1]));
        Ok((value as i32, size as usize))
    }
}

/// Reads a hash or ranges on from `from` (`None`: the start), as many rows as there is room for: how many were read,
/// and whether they were the last. `next` says where to go on. Keys and rows have the sizes of the map's.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    from: Option<&[u8]>,
    next: &mut [u8],
    (keys, rows): (&mut [u8], &mut [u8]),
    room: u32,
) -> io::Result<(u32, bool)> {
    let from = from.map_or(0, |from| from.as_ptr() as u64);
    let (keys, rows) = (keys.as_mut_ptr() as u64, rows.as_mut_ptr() as u64);
    let mut attributes =
        [from, next.as_mut_ptr() as u64, keys, rows, pair(room, map.as_raw_fd() as u32), 0, 0];
    let last = match command(MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let [read, _]: [u32; 2] = bytemuck::cast(attributes[4]);
    Ok((read, last))
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
fn bpf(number: libc::c_int, attributes: &[u64]) -> io::Result<libc::c_int> {
    command(number, &mut attributes.to_vec())
}

/// bpf(2), where it answers in the members of its union.
fn command(number: libc::c_int, attributes: &mut [u64]) -> io::Result<libc::c_int> {
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads and writes the attributes, whose size is given, and what they point to in the sizes
    // that stand beside, as the callers above have it; it keeps no pointer.
    let done = unsafe { libc::syscall(libc::SYS_bpf, number, attributes.as_mut_ptr(), size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}
