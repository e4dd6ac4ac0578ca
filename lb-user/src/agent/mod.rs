//! The agent: sources -> model -> compile -> plan -> apply, kept going by what changes.

mod answers;
mod control;
mod drivers;
mod dsr;
mod ephemeral;
mod facts;
mod groups;
mod homes;
mod kept;
mod listening;
mod next_hops;
pub(crate) mod node;
pub mod options;
mod pods;
mod ports;
pub(crate) mod programs;
mod pulse;
mod resolver;
pub mod signals;
mod snat;
mod sockets;
mod table;
mod uninstall;
mod ways;

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, error, info, warn};

use crate::{
    attach::{Attacher, xdp::Taken},
    maps::{self, Maps, Pins, Sizes, lent},
    model::Model,
    netlink::{LinkKind, Watcher, World, bypassed, neighbour},
    observe::clock,
    plan,
    sources::{
        file::Loaded,
        follow::{Follower, Read},
    },
    system::{has_tcx, missing_capabilities},
};
use control::{Control, Served};
use ephemeral::Ephemeral;
use facts::Facts;
use kept::Kept;
use next_hops::{NextHops, Sought};
pub use options::{Options, SocketLb};
use ports::Ports;
use programs::Programs;
use pulse::Pulse;
use resolver::Resolver;
use signals::{Asked, Signals};
use sockets::Sockets;
pub use uninstall::{Uninstalled, uninstall};

/// Runs the agent until it is told to end. What it has set up stays and goes on without it.
pub async fn run(options: Options) -> Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = Follower::start(&options.config)?;
    // Everything that can be wrong with the input comes before the first change.
    let loaded = config.next().await.loaded?;
    let missing = missing_capabilities();
    if !missing.is_empty() {
        bail!(
            "not allowed to load programs: {} missing; run as root, or with these capabilities",
            missing.join(", ")
        );
    }
    let mut watcher = Watcher::start().context("listening to netlink")?;
    let bridges = bridges(watcher.world(), &options.bridges)?;
    let uplinks = uplinks(watcher.world(), &options.uplinks)?;

    let pins = Pins::new(&options.instance);
    pins.check()?;
    let taken = match options.xdp {
        // One that runs has them, and is spoken of below.
        Some(mode) if !pins.is_locked().context("looking for another agent")? => {
            drivers::take(watcher.world(), &uplinks, mode, &pins.links())?
        }
        _ => Taken::default(),
    };
    let mounted = pins.create().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => anyhow!(
            "{} can't be made: run as root (or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and a writable bpf file system)",
            pins.root().display()
        ),
        _ => anyhow!("{} can't be made: {error}; is a bpf file system mounted there? `mount -t bpf bpf /sys/fs/bpf`", pins.root().display()),
    })?;
    // Somebody may have been faster.
    pins.check()?;
    if mounted {
        info!(
            "mounted a bpf file system at /sys/fs/bpf: programs and maps stay there when this process ends"
        );
    }
    let Some(_lock) = pins.lock().context("locking the instance")? else {
        bail!(
            "an agent already runs instance {}: stop it first, or name another instance with --instance",
            options.instance
        );
    };
    let mut kept = Kept::read(&pins.kept())?;
    let seed = loaded.model.hash_seed.unwrap_or(kept.hash_seed);
    kept.hash_seed = seed;
    let mut pulse = Pulse::start(&pins).context("making the heartbeat")?;

    let sizes = Sizes { services: options.max_services, flows: options.max_flows };
    let mut programs = Programs::new(&pins, sizes, seed);
    programs.prepare()?;
    let maps = Maps::open(&pins.maps())?;
    let mirror = plan::adopt(&maps);
    // Whoever wrote before us may have been stopped between unpublishing and waiting.
    lb_sys::wait_for_readers().context("waiting for readers of the maps (membarrier)")?;
    info!(services = mirror.services().count(), "instance {} opened", options.instance);

    let attacher = Attacher::new(pins.links(), !options.clsact && has_tcx());
    let mut control = Control::new(maps, mirror, kept, &pins, seed, options.announce);
    control.write_kept();
    let mut ports = Ports::new(options.clone(), attacher, programs, bridges, uplinks, taken);
    for line in bypassed(watcher.world(), &ports.bridges) {
        warn!("{line}");
        control.view.bypassed.push(line);
    }
    ports.describe(&mut control.view);
    control.view.map = maps::number(&pins.maps());

    let mut resolver = Resolver::default();
    let mut next_hops = NextHops::open(&pins)?;

    look(&mut watcher, &control, &ports, &loaded.model).await?;
    load(&mut control, &ports, &mut watcher, loaded);
    let facts = Facts::of(&control.model, &ports.view(watcher.world()));
    // Found anew when the world or the config has changed, not every second.
    let mut sought = control.sought(&ports.view(watcher.world()));
    say_warnings(&mut control, &facts, &sought, &ports, watcher.world());
    ports.set(facts);
    let cookie = lb_sys::netns_cookie().context("asking for the network namespace's cookie")?;
    ports.programs().serve_sockets(cookie, options.socket_lb == SocketLb::All);
    let mut sockets = Sockets::open(&pins)?;
    control.view.socket_lb = sockets.attach(options.socket_lb, ports.programs())?;
    sockets.follow(&ports.view(watcher.world()));
    control.tell_sockets(&mut sockets);
    ports.update(watcher.world(), &mut control.view)?;
    next_hops.hold(&sought.next_hops);
    control.write_view();
    pulse.beat(&config, &control, &next_hops);
    give_back_memory();
    let devices: Vec<&str> = options.bridges.iter().chain(&options.uplinks).map(String::as_str).collect();
    info!("ready: {} services on {}", control.model.services.len(), devices.join(", "));

    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut minute = interval(Duration::from_secs(60));
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let read = tokio::select! {
            change = watcher.changed() => {
                let news = pulse.sees(change.is_ok());
                match change {
                    Ok(()) => {
                        if news {
                            info!("the network is followed again");
                        }
                        control.follow(&ports.view(watcher.world()));
                        sought = control.sought(&ports.view(watcher.world()));
                        update_ports(&mut ports, &mut sockets, options.socket_lb, &watcher, &mut control, &sought);
                        sockets.follow(&ports.view(watcher.world()));
                        next_hops.hold(&sought.next_hops);
                        resolve(&sought, &ports, &watcher, &mut resolver, &next_hops);
                    }
                    Err(error) if news => error!("following the network: {error:#}; trying again"),
                    Err(_) => {}
                }
                None
            }
            read = config.next() => Some(read),
            asked = signals.next() => match asked {
                Asked::Reload => {
                    config.reload();
                    None
                }
                Asked::End => break,
            },
            _ = second.tick() => {
                control.retry(&ports.view(watcher.world()));
                sockets.follow(&ports.view(watcher.world()));
                control.write_view();
                if next_hops.error() != 0 {
                    next_hops.hold(&sought.next_hops);
                }
                resolve(&sought, &ports, &watcher, &mut resolver, &next_hops);
                pulse.beat(&config, &control, &next_hops);
                None
            }
            _ = minute.tick() => {
                sweep_lent(&pins, &control);
                None
            }
        };
        if let Some(Read { loaded, took }) = read {
            match loaded {
                Ok(loaded) => {
                    look(&mut watcher, &control, &ports, &loaded.model).await?;
                    control.follow(&ports.view(watcher.world()));
                    let served = load(&mut control, &ports, &mut watcher, loaded);
                    sought = control.sought(&ports.view(watcher.world()));
                    update_ports(
                        &mut ports,
                        &mut sockets,
                        options.socket_lb,
                        &watcher,
                        &mut control,
                        &sought,
                    );
                    if let Some(Served { compared, published }) = served {
                        info!(
                            "config taken over: {} services; read in {took:.1?}, compared in {compared:.1?}, \
                             published in {published:.1?}",
                            control.model.services.len()
                        );
                    }
                    give_back_memory();
                    next_hops.hold(&sought.next_hops);
                    resolve(&sought, &ports, &watcher, &mut resolver, &next_hops);
                }
                Err(error) => {
                    for line in error.to_string().lines() {
                        error!("config not taken over: {line}");
                    }
                    control.problems = error.to_string().lines().map(str::to_owned).collect();
                    control.view_changed();
                }
            }
            control.write_view();
        }
        control.tell_sockets(&mut sockets);
    }
    control.write_view();
    info!("ended; services go on without an agent (`lb uninstall` removes them)");
    Ok(())
}

/// Forgets ports of the node's that are lent and that nobody uses any more.
fn sweep_lent(pins: &Pins, control: &Control) {
    let hz = clock::hz();
    let lifetimes = control.model.lifetimes.in_ticks(hz, clock::tick_shift(hz));
    match lent::sweep(&pins.maps(), clock::now_ticks(hz), &lifetimes) {
        Ok(0) => {}
        Ok(rows) => debug!("{rows} ports that were lent to flows which are over are free again"),
        Err(error) => error!("{error:#}"),
    }
}

/// Keeps every device's programs, and those of sockets, as they should be.
fn update_ports(
    ports: &mut Ports,
    sockets: &mut Sockets,
    socket_lb: SocketLb,
    watcher: &Watcher,
    control: &mut Control,
    sought: &Sought,
) {
    let before = (control.view.ports.clone(), control.view.socket_lb.clone());
    let facts = Facts::of(&control.model, &ports.view(watcher.world()));
    say_warnings(control, &facts, sought, ports, watcher.world());
    if ports.set(facts) {
        match sockets.attach(socket_lb, ports.programs()) {
            Ok(mode) => control.view.socket_lb = mode,
            Err(error) => error!("{error:#}"),
        }
    }
    if let Err(error) = ports.update(watcher.world(), &mut control.view) {
        error!("{error:#}");
    }
    if before != (control.view.ports.clone(), control.view.socket_lb.clone()) {
        control.view_changed();
    }
}

/// Says what stands in the way of backends outside, and what XDP costs, once, and keeps it for `lb status`.
fn say_warnings(control: &mut Control, facts: &Facts, sought: &Sought, ports: &Ports, world: &World) {
    let view = &ports.view(world);
    let mut said = snat::warnings(facts, view, Ephemeral::now().as_ref(), |family| control.remote(family));
    said.extend(dsr::warnings(&control.model, view));
    said.extend(sought.warnings(view));
    said.extend(ports.warnings(world));
    for line in said.iter().filter(|line| !control.view.warnings.contains(line)) {
        warn!("{line}");
    }
    let host = [facts.host.0.map(IpAddr::from), facts.host.1.map(IpAddr::from)];
    let host: Vec<IpAddr> = host.into_iter().flatten().collect();
    if (&said, &host) != (&control.view.warnings, &control.view.node_addresses) {
        (control.view.warnings, control.view.node_addresses) = (said, host);
        control.view_changed();
    }
}

/// Takes a loaded config over; how long that took, unless it is refused.
fn load(control: &mut Control, ports: &Ports, watcher: &mut Watcher, loaded: Loaded) -> Option<Served> {
    let mut problems = Vec::new();
    for problem in &loaded.problems {
        warn!("{problem}");
        problems.push(problem.to_string());
    }
    let served = control.serve(loaded.model, &ports.view(watcher.world()));
    let served = served.inspect_err(|error| {
        error!("config not taken over: {error:#}");
        problems.push(format!("{error:#}"));
    });
    control.problems = problems;
    // Addresses may just have been given.
    watcher.want(ports.wants(control.wants(&control.model)));
    served.ok()
}

/// How long a config waits for what the kernel knows of its addresses.
const PATIENCE: Duration = Duration::from_secs(2);

/// Learns of all that a model has to do with.
async fn look(watcher: &mut Watcher, control: &Control, ports: &Ports, model: &Model) -> Result<()> {
    watcher.want(ports.wants(control.wants(model)));
    // Where the kernel can't answer, `lb status` says so, and what is known is served.
    match timeout(PATIENCE, watcher.settled()).await {
        Ok(settled) => settled.context("following netlink"),
        Err(_) => Ok(()),
    }
}

/// Gives memory back that reading a large config or loading programs has left to the allocator.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; only free memory is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Asks for the neighbours that backends wait for, and for next hops that are to be kept fresh.
fn resolve(sought: &Sought, ports: &Ports, watcher: &Watcher, resolver: &mut Resolver, next_hops: &NextHops) {
    let mut wanted = sought.unresolved.clone();
    wanted.extend(sought.stale(&ports.view(watcher.world())));
    let mut failed = None;
    for (device, address) in resolver.due(&wanted, Instant::now()) {
        let at = (device, address);
        let asked = match sought.next_hops.contains_key(&at) {
            true => next_hops.refresh(at).context("asking the kernel to keep a neighbour fresh"),
            false => find(watcher.world(), at).context("asking the kernel for a neighbour"),
        };
        if let Err(error) = asked {
            failed = Some((address, error));
            // Most likely the neighbour table is full: more requests would only push others out.
            break;
        }
    }
    if let (true, Some((address, error))) = (resolver.is_news(failed.is_some()), failed) {
        let advice = "where the table is full, raise net.ipv4.neigh.default.gc_thresh3 (net.ipv6 likewise)";
        warn!("asking for the neighbour {address}: {error:#}; {advice}");
    }
}

/// Asks the kernel for a neighbour whose port is not known; the answer comes as a change. A MAC that is behind no
/// port is of somebody who left: it is forgotten first, as the kernel would go on using it for seconds.
fn find(world: &World, at: (u32, IpAddr)) -> std::io::Result<()> {
    if world.neighbours.get(&at).is_some_and(|neighbour| !neighbour.permanent) {
        // The kernel may have forgotten it by itself.
        let _ = neighbour::forget(at.0, at.1);
    }
    neighbour::seek(at.0, at.1)
}

/// The bridges by name, or why not.
fn bridges(world: &World, names: &[String]) -> Result<Vec<u32>> {
    names
        .iter()
        .map(|name| {
            let here = || {
                let bridges = world.links.values().filter(|link| matches!(link.kind, LinkKind::Bridge));
                let names: Vec<&str> = bridges.map(|link| link.name.as_str()).collect();
                if names.is_empty() { "there is none here".to_owned() } else { format!("here are: {}", names.join(", ")) }
            };
            let link = world
                .links
                .values()
                .find(|link| link.name == *name)
                .ok_or_else(|| anyhow!("no such bridge: {name} ({}); make it first, or name another with --bridge", here()))?;
            if !matches!(link.kind, LinkKind::Bridge) {
                bail!("{name} is not a bridge ({}); name the bridge with --bridge, and a device that leads outside with --uplink", here());
            }
            Ok(link.ifindex)
        })
        .collect::<Result<Vec<u32>>>()
        .and_then(|bridges| {
            let zones: HashSet<u16> = bridges.iter().map(|bridge| ways::zone(*bridge)).collect();
            if zones.len() < bridges.len() {
                bail!("a bridge is named twice with --bridge (or two of them share a zone)");
            }
            Ok(bridges)
        })
}

/// The uplinks by name, or why not.
fn uplinks(world: &World, names: &[String]) -> Result<Vec<u32>> {
    names
        .iter()
        .map(|name| {
            let link = world.links.values().find(|link| link.name == *name);
            link.map(|link| link.ifindex).ok_or_else(|| {
                anyhow!("no such device: {name}; --uplink takes a device of this host (`ip link`)")
            })
        })
        .collect()
}
