//! Pods whose sockets are translated (`--socket-lb all`): the network namespaces behind the ports of our
//! bridges, and their cookies, by which the programs know them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
};

use anyhow::{Context as _, Result, bail};
use tracing::warn;

use super::routes::View;
use crate::{
    maps::{Cookies, Pins},
    netlink::{Link, LinkKind, netns},
};

/// See the module.
pub struct Pods {
    cookies: Cookies,
    /// The namespaces' ids by their ports' interface indexes, as last looked for.
    ports: BTreeMap<u32, i32>,
    /// All of them were found.
    settled: bool,
    /// What could not be done is said once.
    said: String,
}

impl Pods {
    /// Opens the table. What another agent wrote stays until [`Self::follow`] or [`Self::clear`].
    pub fn open(pins: &Pins) -> Result<Pods> {
        let cookies = Cookies::open(&pins.maps())?;
        Ok(Pods { cookies, ports: BTreeMap::new(), settled: false, said: String::new() })
    }

    /// Nobody's sockets but the host's.
    pub fn clear(&mut self) -> Result<()> {
        self.cookies.set(&HashSet::new()).context("emptying COOKIES")
    }

    /// Looks for the namespaces where ports have come or gone, or some were not found before. Nothing is kept
    /// of them meanwhile: the kernel gives their ids and inodes again.
    pub fn follow(&mut self, view: &View) {
        let ports = ports(view);
        if self.settled && ports == self.ports {
            return;
        }
        self.ports = ports;
        let done = self.write(view);
        self.settled = done.is_ok();
        let problem = done.err().map_or_else(String::new, |error| format!("{error:#}"));
        if !problem.is_empty() && problem != self.said {
            warn!("{problem}; packets of these pods are translated instead");
        }
        self.said = problem;
    }

    /// Their namespaces, as far as they are found.
    pub fn namespaces(&self) -> io::Result<HashMap<i32, File>> {
        netns::find(&self.ports.values().copied().collect())
    }

    fn write(&mut self, view: &View) -> Result<()> {
        let found = self.namespaces().context("looking for the pods' network namespaces")?;
        let cookies = netns::within(found.values(), lb_sys::netns_cookie)
            .context("entering the pods' network namespaces (needs CAP_SYS_ADMIN)")?;
        self.cookies.set(&cookies.into_iter().collect()).context("writing COOKIES")?;
        let missing = self.ports.iter().filter(|(_, id)| !found.contains_key(id));
        let names: Vec<&str> = missing
            .filter_map(|(ifindex, _)| view.world.links.get(ifindex))
            .map(|link| link.name.as_str())
            .collect();
        if !names.is_empty() {
            bail!(
                "the network namespaces behind {} are not found in /proc and /run/netns: \
                 run lb as root in the host's PID namespace",
                names.join(", ")
            );
        }
        Ok(())
    }
}

/// The ports, of bridges or not, that lead to another namespace, and its id.
fn ports(view: &View) -> BTreeMap<u32, i32> {
    let ports = view.bridges.iter().flat_map(|bridge| view.world.ports(*bridge));
    ports
        .chain(view.ports.iter().filter_map(|port| view.world.links.get(port)))
        .filter_map(|port: &Link| match port.kind {
            LinkKind::Veth { other_netns: Some(id) } => Some((port.ifindex, id)),
            _ => None,
        })
        .collect()
}
