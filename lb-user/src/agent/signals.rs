//! Signals, heard by a thread of its own: whatever the agent does in that moment, it is gone a second after SIGTERM.

use std::{sync::mpsc, thread::Builder, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::sleep,
};

use crate::log;

/// How long the agent may take to end by itself.
const GRACE: Duration = Duration::from_millis(600);
/// How long it then waits for its log.
pub const FLUSH: Duration = Duration::from_millis(200);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To end.
    End,
    /// To read the config again.
    Reload,
}

/// What has been asked for by signals.
pub struct Signals {
    end: watch::Receiver<bool>,
    reload: watch::Receiver<()>,
}

struct Heard {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on to SIGTERM and SIGINT (end) and SIGHUP (read the config again).
    ///
    /// # Errors
    /// The system gives no thread or no descriptors.
    pub fn listen() -> Result<Signals> {
        let (end_sender, end) = watch::channel(false);
        let (reload_sender, reload) = watch::channel(());
        let (ready, is_ready) = mpsc::channel();
        let thread = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let heard = runtime.and_then(|runtime| {
                let _entered = runtime.enter();
                let heard = Heard {
                    hangup: signal(SignalKind::hangup())?,
                    terminate: signal(SignalKind::terminate())?,
                    interrupt: signal(SignalKind::interrupt())?,
                };
                drop(_entered);
                Ok((runtime, heard))
            });
            match heard {
                Ok((runtime, heard)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(heard.follow(&end_sender, &reload_sender));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        Builder::new()
            .name("signals".to_owned())
            .spawn(thread)
            .context("starting the thread that hears signals")?;
        is_ready
            .recv()
            .map_err(|_| anyhow!("the thread that hears signals has ended"))?
            .context("listening to signals")?;
        Ok(Signals { end, reload })
    }

    /// What is asked for next. May be dropped and called again; an end that has been asked for stays so.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.end.wait_for(|end| *end) => Asked::End,
            Ok(()) = self.reload.changed() => Asked::Reload,
        }
    }
}

impl Heard {
    /// Passes signals on. Where the agent does not end in time, ends the process: what is set up serves without it.
    async fn follow(mut self, end: &watch::Sender<bool>, reload: &watch::Sender<()>) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => drop(reload.send(())),
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
            }
        }
        let _ = end.send(true);
        sleep(GRACE).await;
        tracing::warn!(
            "ended while it was busy; services go on without an agent (`lb uninstall` removes them)"
        );
        log::flush(FLUSH);
        // SAFETY: no preconditions. Handlers of exit(3) could wait for what the process waits for.
        unsafe { libc::_exit(0) };
    }
}
