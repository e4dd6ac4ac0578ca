//! Clients on the host, and pods with `--socket-lb all`: the programs of sockets, and sockets whose backend no longer
//! serves.

use std::{io, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use lb_sys::Diag;
use tracing::{info, warn};

use super::{options::SocketLb, pods::Pods, programs::Programs, routes::View};
use crate::{
    attach::cgroup,
    maps::{Maps, Pins, Sockets as Table},
    netlink::netns,
};

/// See the module.
pub struct Sockets {
    table: Table,
    links: PathBuf,
    attached: bool,
    pods: Pods,
    /// They are served, too.
    with_pods: bool,
    /// What could not be done is said once.
    failing: bool,
}

impl Sockets {
    /// Opens what is remembered of sockets.
    pub fn open(pins: &Pins) -> Result<Sockets> {
        let table = Table::open(&pins.maps())?;
        let pods = Pods::open(pins)?;
        Ok(Sockets { table, links: pins.links(), attached: false, pods, with_pods: false, failing: false })
    }

    /// Attaches what the mode asks for and detaches the rest; the mode in the words of `lb status`. A host
    /// that can't do it is served without.
    pub fn attach(&mut self, mode: SocketLb, programs: &mut Programs) -> Result<String> {
        let words = match mode {
            SocketLb::Host => "host",
            SocketLb::All => "all",
            SocketLb::Off => {
                cgroup::detach_all(&self.links)?;
                self.pods.clear()?;
                return Ok("off".to_owned());
            }
        };
        match self.try_attach(programs) {
            Ok(()) => {
                self.attached = true;
                self.with_pods = mode == SocketLb::All;
                if !self.with_pods {
                    self.pods.clear()?;
                }
                Ok(words.to_owned())
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

    /// Serves the pods that are on the bridges now, where that is asked for.
    pub fn follow(&mut self, view: &View) {
        if self.with_pods {
            self.pods.follow(view);
        }
    }

    fn try_attach(&self, programs: &mut Programs) -> Result<()> {
        let root = cgroup::root().context("looking for the cgroups' mount")?.ok_or_else(|| {
            anyhow!("no cgroup v2 file system is mounted (`mount -t cgroup2 none /sys/fs/cgroup/unified`)")
        })?;
        for name in cgroup::PROGRAMS {
            let mut program = programs.socket_program(name, cgroup::kind(name))?;
            cgroup::attach(&mut program, name, &root, &self.links)
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
        let mut count =
            self.end_stranded_of(&Diag::new().context("asking for sockets (sock_diag)")?, maps)?;
        if self.with_pods {
            let pods = self.pods.namespaces().context("looking for the pods' network namespaces")?;
            let diags = netns::within(pods.values(), Diag::new).context("asking for the pods' sockets")?;
            for diag in diags {
                count += self.end_stranded_of(&diag, maps)?;
            }
        }
        Ok(count)
    }

    fn end_stranded_of(&self, diag: &Diag, maps: &Maps) -> Result<usize> {
        let mut count = 0;
        for socket in diag.connected().context("listing UDP sockets (sock_diag)")? {
            let (cookie, peer) = socket.connection();
            let stranded = self.table.is_stranded(cookie, peer, maps);
            if stranded.context("reading the table of sockets")? {
                count += usize::from(diag.destroy(&socket).map_err(explain)?);
            }
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
