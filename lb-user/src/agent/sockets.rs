//! Clients on the host: the programs of sockets, and sockets whose backend no longer serves.

use std::{io, os::fd::AsRawFd as _, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::net::{AddressFamily, SocketType};
use tracing::{info, warn};

use super::{options::SocketLb, programs::Programs};
use crate::{
    attach::cgroup,
    maps::{Maps, Pins, Sockets as Table},
    netlink::Diag,
};

/// See the module.
pub struct Sockets {
    table: Table,
    links: PathBuf,
    attached: bool,
    /// What could not be done is said once.
    failing: bool,
}

impl Sockets {
    /// Opens what is remembered of sockets.
    pub fn open(pins: &Pins) -> Result<Sockets> {
        let table = Table::open(&pins.maps())?;
        Ok(Sockets { table, links: pins.links(), attached: false, failing: false })
    }

    /// Attaches what the mode asks for and detaches the rest; the mode in the words of `lb status`. A host
    /// that can't do it is served without.
    pub fn attach(&mut self, mode: SocketLb, programs: &mut Programs) -> Result<String> {
        if mode == SocketLb::Off {
            cgroup::detach_all(&self.links)?;
            return Ok("off".to_owned());
        }
        match self.try_attach(programs) {
            Ok(()) => {
                self.attached = true;
                Ok("host".to_owned())
            }
            Err(error) => {
                cgroup::detach_all(&self.links)?;
                warn!(
                    "clients on the host itself are not served: {error:#}; `--socket-lb off` takes this line away"
                );
                Ok(format!("off: {error:#}"))
            }
        }
    }

    fn try_attach(&self, programs: &mut Programs) -> Result<()> {
        let root = cgroup::root().context("looking for the cgroups' mount")?.ok_or_else(|| {
            anyhow!("no cgroup v2 file system is mounted (`mount -t cgroup2 none /sys/fs/cgroup/unified`)")
        })?;
        for name in cgroup::PROGRAMS {
            let program = programs.socket_program(name)?;
            cgroup::attach(program, name, &root, &self.links)
                .with_context(|| format!("attaching {name} to {}", root.display()))?;
        }
        info!("sockets of the host: translated, attached to {}", root.display());
        Ok(())
    }

    /// Ends the connected UDP sockets whose backend no longer serves: nothing else would tell their
    /// applications, which send to it for ever. Those that are not connected move by themselves, TCP
    /// connections stay as long as the backend answers.
    pub fn move_on(&mut self, maps: &Maps) {
        if !self.attached {
            return;
        }
        match self.end_stranded(maps) {
            Ok(0) => self.failing = false,
            Ok(count) => {
                self.failing = false;
                info!("{count} connected UDP sockets of the host ended: their backend no longer serves");
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!("connected UDP sockets whose backend no longer serves stay with it: {error:#}");
                }
            }
        }
    }

    fn end_stranded(&self, maps: &Maps) -> Result<usize> {
        let stranded = self.table.stranded(maps).context("reading the table of sockets")?;
        if stranded.is_empty() {
            return Ok(0);
        }
        let diag = Diag::new().context("asking for sockets (sock_diag)")?;
        let mut count = 0;
        for socket in diag.connected().context("listing UDP sockets (sock_diag)")? {
            if !stranded.contains(&socket.connection()) {
                continue;
            }
            count += usize::from(diag.destroy(&socket).map_err(explain)?);
        }
        Ok(count)
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => anyhow!("the kernel can't end sockets (CONFIG_INET_DIAG_DESTROY is off)"),
        _ => anyhow!(error).context("ending a socket (sock_diag)"),
    }
}

/// The cookie of the network namespace of this thread.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let (mut cookie, mut len) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes no more than the length says, which is the variable's.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if got == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
