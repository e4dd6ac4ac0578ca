//! Ports: which device has which program, kept so while devices come and go.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result, bail};
use lb_common::{
    abi::{NextHopKind, ZONE_ROUTED, bridge_zone},
    path::Hook,
};
use tracing::{info, warn};

use super::{
    Options,
    bridge_ports::BridgePorts,
    devices::{self, Devices},
    node::{self, NodeAddresses},
    options::Forward,
    program_config::ProgramConfig,
    programs::{Programs, Variant},
    routes::{self, role_name},
    xdp_probe,
};
use crate::{
    attach::{
        self, Attacher,
        xdp::{self, Mode, Refused, XdpReservation},
    },
    netlink::{Role, Wants, World, bypassed, unseen},
    observe::{
        backends::next_hop,
        view::{PortView, View},
    },
};

/// See the module.
pub struct Ports {
    devices: Devices,
    /// What the node is known by where the config does not say it.
    node: NodeAddresses,
    options: Options,
    attacher: Attacher,
    programs: Programs,
    bridge_ports: BridgePorts,
    facts: ProgramConfig,
    attached: HashMap<u32, Wanted>,
    /// Uplinks that wait for their program of XDP.
    taken: XdpReservation,
}

/// What a device should have.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    name: String,
    /// The bridge that it is or is a port of, as interface index; 0 for uplinks.
    bridge: u32,
    variant: Variant,
    hooks: &'static [Hook],
    role: &'static str,
    xdp: Option<Mode>,
}

impl Ports {
    /// Nothing attached yet.
    pub fn new(
        options: Options,
        attacher: Attacher,
        (programs, bridge_ports): (Programs, BridgePorts),
        node: NodeAddresses,
        taken: XdpReservation,
    ) -> Ports {
        Ports {
            devices: Devices::default(),
            node,
            options,
            attacher,
            programs,
            bridge_ports,
            facts: ProgramConfig::default(),
            attached: HashMap::new(),
            taken,
        }
    }

    /// Looks for the devices that the options name, and for what the node is known by; whether the devices differ from
    /// before.
    pub fn look(&mut self, world: &World) -> bool {
        let devices = devices::find(world, &self.options);
        // An uplink that comes back brings its addresses back.
        if devices.missing.is_empty() {
            self.node = node::addresses(world, &devices.bridges, &devices.uplinks, self.node);
        }
        let differ = devices != self.devices;
        for missing in devices.missing.iter().filter(|missing| !self.devices.missing.contains(missing)) {
            warn!("{missing}");
        }
        self.devices = devices;
        differ
    }

    /// That every device is there which the options name.
    ///
    /// # Errors
    /// The first that is missing.
    pub fn all_there(&self) -> Result<()> {
        self.devices.missing.first().map_or(Ok(()), |missing| bail!("{missing}"))
    }

    /// What the node is known by where the config does not say it.
    pub fn node(&self) -> NodeAddresses {
        self.node
    }

    /// The world through our options.
    pub fn view<'a>(&'a self, world: &'a World) -> routes::View<'a> {
        let Devices { bridges, ports, uplinks, .. } = &self.devices;
        routes::View { world, bridges, ports, uplinks, forward: self.options.forward, node: self.node }
    }

    /// What is wanted of the world for backends and frontends with these addresses.
    pub fn wants(&self, (backends, frontends): (BTreeSet<IpAddr>, BTreeSet<IpAddr>)) -> Wants {
        let Devices { bridges, ports, uplinks, .. } = self.devices.clone();
        Wants { bridges, ports, uplinks, backends, frontends }
    }

    /// The programs.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// What our options wait for or cost on this host, a sentence each.
    pub fn warnings(&self, world: &World) -> Vec<String> {
        let of_xdp = self.options.xdp.map(|mode| xdp_probe::warnings(world, &self.devices.uplinks, mode));
        self.devices.waiting.iter().cloned().chain(of_xdp.into_iter().flatten()).collect()
    }

    /// What service traffic passes by on this host, a sentence each.
    pub fn bypassed(&self, world: &World) -> Vec<String> {
        let bridges = &self.devices.bridges;
        let view = self.view(world);
        let mut all = bridges.iter().flat_map(|bridge| world.ports(*bridge));
        let bridged = all.find(|port| view.port_kind(port) == NextHopKind::Bridge);
        match self.options.forward {
            Forward::Stack if self.devices.uplinks.is_empty() => Vec::new(),
            Forward::Stack => unseen("service traffic from outside"),
            _ => bypassed(world, bridges, bridged),
        }
    }

    /// Writes what does not change into the view.
    pub fn describe(&self, view: &mut View) {
        view.pid = std::process::id();
        view.version = env!("CARGO_PKG_VERSION").to_owned();
        view.started = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        view.config = self.options.config.display().to_string();
        view.forward = format!("{:?}", self.options.forward).to_lowercase();
        view.attach = if self.attacher.uses_tcx() { "tcx" } else { "clsact" }.to_owned();
    }

    /// What every program knows, for what is attached from now on: everything with the next
    /// [`Self::update`], where it has changed; whether it has.
    pub fn set(&mut self, facts: ProgramConfig) -> bool {
        if facts == self.facts {
            return false;
        }
        if !self.attached.is_empty() {
            let changes = facts.changes(&self.facts).join(", ");
            info!("programs are loaded anew, as this has changed: {changes}");
            self.attached.clear();
        }
        self.programs.set(&facts);
        self.facts = facts;
        true
    }

    /// Attaches and detaches until every device has what it should have.
    pub fn update(&mut self, world: &World, view: &mut View) -> Result<()> {
        let wanted = self.wanted(world);
        let gone: Vec<u32> =
            self.attached.keys().filter(|ifindex| !wanted.contains_key(ifindex)).copied().collect();
        for ifindex in gone {
            let old = self.attached.remove(&ifindex);
            if let Some(old) = old {
                info!("port {} ({}): left", old.name, old.role);
            }
        }
        let mut changed: Vec<(&u32, &Wanted)> =
            wanted.iter().filter(|(ifindex, device)| self.attached.get(ifindex) != Some(*device)).collect();
        // Requests from outside come last: what they are answered with must find its program.
        changed.sort_by_key(|(ifindex, device)| (device.variant.outside, **ifindex));
        // Loading takes long and attaching does not: all is loaded before the first request is translated.
        for (_, device) in &changed {
            for hook in device.hooks {
                self.programs.program(device.variant, *hook)?;
            }
            if device.xdp.is_some() {
                self.programs.xdp_program(device.variant)?;
            }
        }
        let zones = self.zones(&wanted);
        // A port whose row can't be written passes everything.
        let noted = self.bridge_ports.add(&zones);
        for (ifindex, device) in changed {
            for hook in device.hooks {
                let mut program = self.programs.program(device.variant, *hook)?;
                self.attacher
                    .attach(&mut program, *ifindex, *hook)
                    .with_context(|| format!("attaching {} to {}", hook.program(), device.name))?;
            }
            if let Some(mode) = device.xdp {
                let program = self.programs.xdp_program(device.variant)?;
                let attached = self.taken.attach(program.as_fd(), *ifindex, mode, self.attacher.links());
                attached.map_err(|error| {
                    match (error.downcast_ref::<Refused>(), world.links.get(ifindex)) {
                        (Some(Refused(refused)), Some(link)) => xdp_probe::refusal(link, mode, refused),
                        _ => error.context(format!(
                            "attaching {} to {}",
                            Hook::UplinkXdp.program(),
                            device.name
                        )),
                    }
                })?;
            }
            let xdp = device.xdp.map_or_else(String::new, |mode| format!(", {} XDP", mode.name()));
            info!("port {} ({}): {}{xdp}", device.name, device.role, next_hop(device.variant.return_path));
            self.attached.insert(*ifindex, device.clone());
        }
        self.remove_strangers(&wanted)?;
        self.bridge_ports.retain(&zones)?;
        self.programs.tidy()?;
        view.ports = self.views(world);
        noted
    }

    /// What is attached where we want nothing: on ports that left, or by an agent before us.
    fn remove_strangers(&mut self, wanted: &HashMap<u32, Wanted>) -> Result<()> {
        for attached in self.attacher.list()? {
            if !wanted.get(&attached.ifindex).is_some_and(|device| device.hooks.contains(&attached.hook)) {
                self.attacher.detach(&attached)?;
            }
        }
        for (ifindex, mode) in xdp::list(self.attacher.links())? {
            if wanted.get(&ifindex).is_none_or(|device| device.xdp != Some(mode)) {
                xdp::detach(self.attacher.links(), ifindex, mode)?;
            }
        }
        Ok(())
    }

    /// Where there are several bridges, the zone that each port is in.
    fn zones(&self, wanted: &HashMap<u32, Wanted>) -> HashMap<u32, u32> {
        let ports = wanted.iter().filter(|(ifindex, device)| {
            self.devices.bridges.len() > 1 && device.bridge != 0 && device.bridge != **ifindex
        });
        ports.map(|(ifindex, device)| (*ifindex, bridge_zone(device.bridge).into())).collect()
    }

    fn wanted(&self, world: &World) -> HashMap<u32, Wanted> {
        let mut wanted = HashMap::new();
        let view = self.view(world);
        for bridge in &self.devices.bridges {
            let Some(link) = world.links.get(bridge) else { continue };
            // The programs of several serve each of them, as loading them takes long.
            let zone = if self.devices.bridges.len() > 1 { 0 } else { bridge_zone(*bridge) };
            let variant = |return_path, outside| Variant { zone, return_path, outside };
            let device = Wanted {
                name: link.name.clone(),
                bridge: *bridge,
                variant: variant(NextHopKind::Bridge, false),
                hooks: &[Hook::BridgeIngress, Hook::BridgeEgress],
                role: "bridge",
                xdp: None,
            };
            wanted.insert(*bridge, device);
            for port in world.ports(*bridge) {
                let stack = self.options.forward == Forward::Stack;
                let device = Wanted {
                    name: port.name.clone(),
                    bridge: *bridge,
                    variant: variant(view.port_kind(port), world.role(port) == Role::Uplink),
                    hooks: if stack { &[Hook::PortIngress, Hook::PortEgress] } else { &[Hook::PortIngress] },
                    role: role_name(world.role(port)),
                    xdp: None,
                };
                wanted.insert(port.ifindex, device);
            }
        }
        for port in &self.devices.ports {
            let Some(link) = world.links.get(port) else { continue };
            let return_path = match view.port_kind(link) {
                // No bridge is there to carry them.
                NextHopKind::Bridge => NextHopKind::Uplink,
                kind => kind,
            };
            let device = Wanted {
                name: link.name.clone(),
                bridge: 0,
                variant: Variant { zone: ZONE_ROUTED, return_path, outside: false },
                hooks: &[Hook::PortIngress, Hook::PortEgress],
                role: role_name(world.role(link)),
                xdp: None,
            };
            wanted.insert(*port, device);
        }
        for uplink in &self.devices.uplinks {
            let Some(link) = world.links.get(uplink) else { continue };
            let device = Wanted {
                name: link.name.clone(),
                bridge: 0,
                variant: Variant::UPLINK,
                hooks: &[Hook::UplinkIngress, Hook::UplinkEgress],
                role: "uplink",
                xdp: self.options.xdp,
            };
            wanted.insert(*uplink, device);
        }
        wanted
    }

    fn views(&self, world: &World) -> Vec<PortView> {
        let mut views: Vec<PortView> = self
            .attached
            .iter()
            .map(|(ifindex, device)| PortView {
                name: device.name.clone(),
                ifindex: *ifindex,
                bridge: world
                    .links
                    .get(&device.bridge)
                    .map_or_else(String::new, |bridge| bridge.name.clone()),
                role: device.role.to_owned(),
                forward: next_hop(device.variant.return_path).to_owned(),
                hooks: device.hooks.iter().map(|hook| attach::label(*hook)).collect(),
                xdp: device.xdp.map(|mode| mode.name().to_owned()),
            })
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }
}
