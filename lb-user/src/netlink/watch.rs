//! Following the world.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use tokio::{sync::watch, time::sleep};

use super::{
    known::Wants,
    reader::{Orders, Published, Reader},
    world::World,
};

/// Between complaints about a reader that is gone.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the namespace of the thread that it was started in.
pub struct Watcher {
    published: watch::Receiver<Published>,
    orders: Arc<Orders>,
    /// As last looked at.
    world: Arc<World>,
    wants: Wants,
    ordered: u64,
}

impl Watcher {
    /// Knows links and addresses, and what is wanted of the rest.
    pub fn start() -> Result<Watcher> {
        let orders = Arc::new(Orders::new()?);
        let (reader, first) = Reader::new(Arc::clone(&orders)).context("asking the kernel by netlink")?;
        let world = Arc::clone(&first.world);
        let (publish, published) = watch::channel(first);
        let run = move || reader.run(&publish);
        thread::Builder::new().name("world".to_owned()).spawn(run).context("starting a thread")?;
        Ok(Watcher { published, orders, world, wants: Wants::default(), ordered: 0 })
    }

    /// The world as last looked at.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Waits until the world differs, and looks at it. May be dropped and called again.
    ///
    /// # Errors
    /// The kernel can't be asked now, which is tried again.
    pub async fn changed(&mut self) -> Result<()> {
        if self.published.changed().await.is_err() {
            // Not said more often.
            sleep(PAUSE).await;
            return Err(ended());
        }
        let known = self.published.borrow_and_update();
        self.world = Arc::clone(&known.world);
        known.problem.as_ref().map_or(Ok(()), |problem| Err(anyhow!("{problem}")))
    }

    /// Wants to know of these and no others.
    pub fn want(&mut self, wants: Wants) {
        if wants != self.wants {
            self.ordered += 1;
            self.wants = wants.clone();
            self.orders.give(self.ordered, wants);
        }
    }

    /// Waits until all is known that is wanted, and looks at the world. May be dropped.
    pub async fn settled(&mut self) -> Result<()> {
        let ordered = self.ordered;
        let published = self.published.wait_for(|known| known.wants >= ordered).await;
        self.world = Arc::clone(&published.map_err(|_| ended())?.world);
        Ok(())
    }
}

fn ended() -> anyhow::Error {
    anyhow!("what reads the host's links and routes has ended")
}
