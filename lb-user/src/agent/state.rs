//! All that the agent holds, and keeping it in step with the config and the world.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{
    SocketLb,
    health_checks::HealthChecks,
    ports::Ports,
    program_config::ProgramConfig,
    publish::{Publisher, Served},
    pulse::Pulse,
    resolver::Resolver,
    sockets::Sockets,
    wanted_neighbours::{NextHops, WantedNeighbours},
    warnings,
};
use crate::{
    maps::{Lock, Pins, snat_ports},
    model::Model,
    netlink::Watcher,
    observe::clock,
    sources::{
        file::Loaded,
        follow::{Follower, Read},
    },
};

/// How long a config waits for what the kernel knows of its addresses.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
pub struct State {
    pub(super) pins: Pins,
    /// The instance is ours as long as this lives.
    pub(super) _lock: Lock,
    pub(super) socket_lb: SocketLb,
    pub(super) watcher: Watcher,
    pub(super) publisher: Publisher,
    pub(super) ports: Ports,
    pub(super) sockets: Sockets,
    pub(super) next_hops: NextHops,
    pub(super) resolver: Resolver,
    pub(super) health_checks: HealthChecks,
    pub(super) pulse: Pulse,
    /// Found anew with each [`Self::refresh`].
    pub(super) wanted: WantedNeighbours,
    /// The programs of sockets are to be attached.
    pub(super) sockets_due: bool,
}

impl State {
    /// Brings everything in step: what is published, the programs of devices and sockets, and the neighbours that
    /// the kernel is asked for. An error is the first one; all the rest is done.
    pub fn refresh(&mut self) -> Result<()> {
        if self.ports.look(self.watcher.world()) {
            self.watcher.want(self.ports.wants(self.publisher.wants(&self.publisher.model)));
        }
        self.publisher.keep_node(self.ports.node());
        let world = self.watcher.world();
        self.publisher.follow(&self.ports.view(world));
        self.wanted = self.publisher.wanted(&self.ports.view(world));
        let attached = self.attach();
        self.sockets.follow(&self.ports.view(self.watcher.world()));
        self.next_hops.hold(self.wanted.fresh());
        self.resolver.ask(&self.wanted, &self.ports.view(self.watcher.world()), &self.next_hops);
        self.publisher.tell_sockets(&mut self.sockets);
        self.answer_health_checks();
        attached.and(self.ports.all_there())
    }

    /// Answers at the ports that services have for it.
    fn answer_health_checks(&mut self) {
        let (wanted, addresses) = self.publisher.health_checks();
        self.health_checks.follow(&wanted, addresses);
        self.publisher.health_checks_are(self.health_checks.problems());
    }

    /// As [`Self::refresh`]; what goes wrong is a problem that `lb status` shows, and is tried again.
    fn refresh_or_note(&mut self) {
        let problem = self.refresh().err().map(|error| format!("{error:#}"));
        self.publisher.devices_are(problem);
    }

    /// Keeps every device's programs, and those of sockets, as they should be.
    fn attach(&mut self) -> Result<()> {
        let (world, publisher) = (self.watcher.world(), &mut self.publisher);
        let before = (publisher.view.ports.clone(), publisher.view.socket_lb.clone());
        let facts = ProgramConfig::of(&publisher.model, &self.ports.view(world));
        warnings::say(publisher, &facts, &self.wanted, &self.ports, world);
        self.sockets_due |= self.ports.set(facts);
        let mut sockets = Ok(());
        if std::mem::take(&mut self.sockets_due) {
            match self.sockets.attach(self.socket_lb, self.ports.programs()) {
                Ok(mode) => publisher.view.socket_lb = mode,
                Err(error) => {
                    self.sockets_due = true;
                    sockets = Err(error);
                }
            }
        }
        let ports = self.ports.update(world, &mut publisher.view);
        if before != (publisher.view.ports.clone(), publisher.view.socket_lb.clone()) {
            publisher.view_changed();
            // At once: `lb status` looks for the programs of these ports.
            publisher.write_view();
        }
        sockets.and(ports)
    }

    /// Returns when the world has changed, or can't be read. May be dropped and called again.
    pub async fn changed(&mut self) -> Result<()> {
        self.watcher.changed().await
    }

    /// Follows a change of the world.
    pub fn see(&mut self, changed: Result<()>) {
        let news = self.pulse.sees(changed.is_ok());
        match changed {
            Ok(()) => {
                if news {
                    info!("the network is followed again");
                }
                self.refresh_or_note();
            }
            Err(error) if news => error!("following the network: {error:#}; trying again"),
            Err(_) => {}
        }
    }

    /// Follows a config that has been read.
    ///
    /// # Errors
    /// What follows the world has ended.
    pub async fn configure(&mut self, Read { loaded, took }: Read) -> Result<()> {
        match loaded {
            Ok(loaded) => {
                self.learn(&loaded.model).await?;
                let served = self.serve(loaded);
                self.refresh_or_note();
                if let Some(Served { compared, published }) = served {
                    info!(
                        "config taken over: {} services; read in {took:.1?}, compared in {compared:.1?}, \
                         published in {published:.1?}",
                        self.publisher.model.services.len()
                    );
                }
                give_back_memory();
            }
            Err(error) => {
                let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
                for line in &lines {
                    error!("config not taken over: {line}");
                }
                self.publisher.problems = lines;
                self.publisher.view_changed();
            }
        }
        self.write();
        Ok(())
    }

    /// Learns of all that a model has to do with, before it is served.
    pub(super) async fn learn(&mut self, model: &Model) -> Result<()> {
        self.watcher.want(self.ports.wants(self.publisher.wants(model)));
        // Where the kernel can't answer, `lb status` says so, and what is known is served.
        match timeout(PATIENCE, self.watcher.settled()).await {
            Ok(settled) => settled.context("following the network"),
            Err(_) => Ok(()),
        }
    }

    /// Serves a config; how long that took, unless it is refused.
    pub(super) fn serve(&mut self, loaded: Loaded) -> Option<Served> {
        let mut problems = Vec::new();
        for problem in &loaded.problems {
            warn!("{problem}");
            problems.push(problem.to_string());
        }
        let served = self.publisher.serve(loaded.model, &self.ports.view(self.watcher.world()));
        let served = served.inspect_err(|error| {
            error!("config not taken over: {error:#}");
            problems.push(format!("{error:#}"));
        });
        self.publisher.problems = problems;
        // Addresses may just have been given.
        self.watcher.want(self.ports.wants(self.publisher.wants(&self.publisher.model)));
        served.ok()
    }

    /// Tries again what has failed, and asks again for who has not answered.
    pub fn retry(&mut self) {
        if self.publisher.device_problem.is_some() {
            self.refresh_or_note();
        }
        let view = self.ports.view(self.watcher.world());
        self.publisher.retry(&view);
        self.sockets.follow(&view);
        if self.next_hops.error() != 0 {
            self.next_hops.hold(self.wanted.fresh());
        }
        self.resolver.ask(&self.wanted, &view, &self.next_hops);
        self.publisher.tell_sockets(&mut self.sockets);
        if !self.publisher.health_check_problems.is_empty() {
            self.answer_health_checks();
        }
        self.write();
    }

    /// Says that the loop has come round.
    pub fn beat(&mut self, config: &Follower) {
        self.pulse.beat(config, &self.publisher, &self.next_hops);
    }

    /// Writes down what the command line reads, if it has changed.
    pub fn write(&mut self) {
        self.publisher.write_view();
    }

    /// Forgets ports of the node's that are allocated and that nobody uses any more.
    pub fn sweep(&self) {
        let hz = clock::hz();
        let lifetimes = self.publisher.model.lifetimes.in_ticks(hz, clock::tick_shift(hz));
        match snat_ports::sweep(&self.pins.maps(), clock::now_ticks(hz), &lifetimes) {
            Ok(0) => {}
            Ok(rows) => debug!("{rows} ports that were allocated to flows which are over are free again"),
            Err(error) => error!("{error:#}"),
        }
    }
}

/// Gives memory back that reading a large config or loading programs has left to the allocator.
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; only free memory is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}
