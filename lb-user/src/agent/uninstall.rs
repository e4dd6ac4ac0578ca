//! Leaving the host as it was.

use anyhow::{Context as _, Result, bail};

use crate::{attach::Attacher, maps::Pins, observe::view::View};

/// Detaches every program of the instance, then removes its maps; with `all`, also the addresses and
/// the seed that are kept over boots. Says what it removed.
pub fn uninstall(pins: &Pins, all: bool) -> Result<Vec<String>> {
    if !pins.root().exists() {
        pins.remove(all).context("removing the instance's files")?;
        return Ok(Vec::new());
    }
    let Some(_lock) = pins.lock().context("locking the instance")? else {
        let pid = View::read(&pins.view()).ok().flatten().map_or(0, |view| view.pid);
        bail!("an agent (process {pid}) runs instance {}: end it first, then uninstall again", pins.instance);
    };
    let mut removed = Attacher::new(pins.links(), true).detach_all()?;
    pins.remove(all).context("removing the instance's pins and files")?;
    removed.push(format!("maps of instance {}", pins.instance));
    Ok(removed)
}
