//! The agent's start: what can be wrong comes before the first change, what an agent before us has left is taken over.

use anyhow::{Context as _, Result, anyhow, bail};
use tracing::{info, warn};

use super::{
    Options, SocketLb,
    bridge_ports::BridgePorts,
    devices,
    health_checks::HealthChecks,
    ports::Ports,
    programs::Programs,
    publish::Publisher,
    pulse::Pulse,
    resolver::Resolver,
    sockets::Sockets,
    state::{State, give_back_memory},
    state_file::StateFile,
    wanted_neighbours::{NextHops, WantedNeighbours},
    xdp_probe,
};
use crate::{
    attach::{Attacher, others, xdp::XdpReservation},
    maps::{self, Lock, Maps, Pins, Sizes},
    netlink::Watcher,
    plan,
    sources::file::Loaded,
    system::{has_tcx, missing_capabilities},
};

impl State {
    /// Takes the instance and serves the config.
    ///
    /// # Errors
    /// Why it can't be served, and what to do.
    pub async fn start(options: Options, loaded: Loaded) -> Result<State> {
        let missing = missing_capabilities();
        if !missing.is_empty() {
            bail!(
                "not allowed to load programs: {} missing; run as root, or with these capabilities",
                missing.join(", ")
            );
        }
        let watcher = Watcher::start().context("listening to netlink")?;
        let found = devices::find_all(watcher.world(), &options)?;
        let pins = Pins::new(&options.instance);
        pins.check()?;
        let devices = [&found.bridges, &found.ports, &found.uplinks].into_iter().flatten();
        for link in devices.filter_map(|device| watcher.world().links.get(device)) {
            others::check(&pins, link)?;
        }
        let taken = match options.xdp {
            // One that runs has them, and is spoken of below.
            Some(mode) if !pins.is_locked().context("looking for another agent")? => {
                xdp_probe::take(watcher.world(), &found.uplinks, mode, &pins.links())?
            }
            _ => XdpReservation::default(),
        };
        let lock = take(&pins)?;
        maps::rename_old(&pins.maps())?;
        let mut kept = StateFile::read(&pins.kept())?;
        let seed = loaded.model.hash_seed.unwrap_or(kept.hash_seed);
        kept.hash_seed = seed;
        let pulse = Pulse::start(&pins).context("making the heartbeat")?;

        let sizes = Sizes { services: options.max_services, flows: options.max_flows };
        let mut programs = Programs::new(&pins, sizes, seed, options.uplinks.len() > 1);
        programs.prepare()?;
        let maps = Maps::open(&pins.maps())?;
        let mirror = plan::adopt(&maps);
        // Whoever wrote before us may have been stopped between unpublishing and waiting.
        lb_sys::wait_for_readers().context("waiting for readers of the maps (membarrier)")?;
        info!(services = mirror.services().count(), "instance {} opened", options.instance);
        let cookie = lb_sys::netns_cookie().context("asking for the network namespace's cookie")?;
        programs.serve_sockets(cookie, options.socket_lb == SocketLb::All);

        let attacher = Attacher::new(pins.links(), !options.clsact && has_tcx());
        let mut publisher = Publisher::new(maps, mirror, kept, &pins, seed, options.announce);
        publisher.write_kept();
        let programs = (programs, BridgePorts::open(&pins)?);
        let mut ports = Ports::new(options.clone(), attacher, programs, publisher.node(), taken);
        ports.look(watcher.world());
        for line in ports.bypassed(watcher.world()) {
            warn!("{line}");
            publisher.view.bypassed.push(line);
        }
        ports.describe(&mut publisher.view);
        publisher.view.map = maps::number(&pins.maps());
        let mut state = State {
            _lock: lock,
            socket_lb: options.socket_lb,
            watcher,
            publisher,
            ports,
            sockets: Sockets::open(&pins)?,
            next_hops: NextHops::open(&pins)?,
            resolver: Resolver::default(),
            health_checks: HealthChecks::default(),
            pulse,
            wanted: WantedNeighbours::default(),
            sockets_due: true,
            pins,
        };
        state.learn(&loaded.model).await?;
        state.serve(loaded);
        state.refresh()?;
        state.write();
        give_back_memory();
        let devices: Vec<&str> = [&options.bridges, &options.ports, &options.uplinks]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        info!("ready: {} services on {}", state.publisher.model.services.len(), devices.join(", "));
        Ok(state)
    }
}

/// Makes the instance's directories and takes it for this process.
fn take(pins: &Pins) -> Result<Lock> {
    let root = pins.root().display();
    let mounted = pins.create().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => anyhow!(
            "{root} can't be made: run as root (or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and a writable bpf file \
             system)"
        ),
        _ => anyhow!(
            "{root} can't be made: {error}; is a bpf file system mounted there? `mount -t bpf bpf /sys/fs/bpf`"
        ),
    })?;
    // Somebody may have been faster.
    pins.check()?;
    if mounted {
        info!(
            "mounted a bpf file system at /sys/fs/bpf: programs and maps stay there when this process ends"
        );
    }
    pins.lock().context("locking the instance")?.ok_or_else(|| {
        anyhow!(
            "an agent already runs instance {}: stop it first, or name another instance with --instance",
            pins.instance
        )
    })
}
