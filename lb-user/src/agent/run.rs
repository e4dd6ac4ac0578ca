//! The agent's loop. It only chooses what is next: sources and the world are read elsewhere, signals are heard by a
//! thread of their own, and [`State`] does what there is to do.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::info;

use super::{
    Options,
    signals::{Asked, Signals},
    state::State,
};
use crate::sources::follow::Follower;

/// Runs the agent until it is told to end. What it has set up stays and goes on without it.
pub async fn run(options: Options) -> Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = Follower::start(&options.config)?;
    // Everything that can be wrong with the input comes before the first change.
    let loaded = config.next().await.loaded?;
    let mut state = State::start(options, loaded).await?;
    state.beat(&config);
    let mut second = every(Duration::from_secs(1));
    let mut minute = every(Duration::from_secs(60));
    loop {
        tokio::select! {
            changed = state.changed() => state.see(changed),
            read = config.next() => state.configure(read).await?,
            asked = signals.next() => match asked {
                Asked::Reload => config.reload(),
                Asked::End => break,
            },
            _ = second.tick() => {
                state.retry();
                state.beat(&config);
            }
            _ = minute.tick() => state.sweep(),
        }
    }
    state.write();
    info!("ended; services go on without an agent (`lb uninstall` removes them)");
    Ok(())
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
