//! What the agent says of itself every second, for `lb status`.

use std::io;

use super::{publish::Publisher, wanted_neighbours::NextHops};
use crate::{
    log,
    maps::{
        Pins,
        heartbeat::{Beat, Heartbeat, now},
    },
    sources::follow::Follower,
};

/// See the module.
pub struct Pulse {
    heartbeat: Heartbeat,
    beat: Beat,
}

impl Pulse {
    /// The agent is starting.
    pub fn start(pins: &Pins) -> io::Result<Pulse> {
        let mut heartbeat = Heartbeat::create(&pins.heartbeat())?;
        let beat = Beat { started: now(), pid: std::process::id(), ..Beat::default() };
        heartbeat.write(beat);
        Ok(Pulse { heartbeat, beat })
    }

    /// Whether the world outside can be read; whether that is news.
    pub fn sees(&mut self, sees: bool) -> bool {
        let saw = self.beat.blind == 0;
        if saw != sees {
            self.beat.blind = if sees { 0 } else { now() };
        }
        saw != sees
    }

    /// The loop has come round.
    pub fn beat(&mut self, config: &Follower, publisher: &Publisher, next_hops: &NextHops) {
        let now = now();
        self.beat = Beat {
            at: now,
            behind: config.behind().map_or(0, |behind| now.saturating_sub(behind.as_nanos() as u64)),
            log_lost: log::lost(),
            view_error: publisher.view_file.error(),
            kept_error: publisher.state_file.error(),
            next_hops_error: next_hops.error(),
            ..self.beat
        };
        self.heartbeat.write(self.beat);
    }
}
