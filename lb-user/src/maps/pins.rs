//! Where an instance lives: its pins in the bpf file system, its lock and its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock, statfs},
    mount::{MountFlags, mount},
};

use super::owned::{self, Untrusted};

/// Where the bpf file system is mounted on every host that has one.
const BPF_FS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// How long an agent that starts waits for others who only look whether one runs.
const GLANCE: Duration = Duration::from_millis(300);

/// The paths of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    /// Its name.
    pub instance: String,
    root: PathBuf,
    run: PathBuf,
    state: PathBuf,
}

/// An instance that is held by this process until the value is dropped.
pub struct Lock(#[allow(dead_code)] fs::File);

impl Pins {
    /// The paths of `instance`.
    pub fn new(instance: &str) -> Pins {
        Pins {
            instance: instance.to_owned(),
            root: Path::new(BPF_FS).join("lb").join(instance),
            run: Path::new("/run/lb").join(instance),
            state: Path::new("/var/lib/lb").join(instance),
        }
    }

    /// Everything pinned, in the bpf file system.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Pinned maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Pinned programs, named by what they were made of.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Pinned links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Signs of life of the agent.
    pub fn heartbeat(&self) -> PathBuf {
        self.root.join("heartbeat")
    }

    /// What the agent last knew, for the command line; gone after a boot.
    pub fn view(&self) -> PathBuf {
        self.run.join("view.json")
    }

    /// Neighbours that the kernel was asked to keep fresh; gone after a boot, as they are.
    pub fn next_hops(&self) -> PathBuf {
        self.run.join("next-hops.json")
    }

    /// Given addresses and the hash seed; kept over boots.
    pub fn kept(&self) -> PathBuf {
        self.state.join("kept.json")
    }

    /// Makes the directories, for the owner alone. On a host where nothing has mounted a bpf file
    /// system yet, mounts it; whether it did.
    pub fn create(&self) -> io::Result<bool> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mounted = !is_bpf(BPF_FS)?;
        if mounted {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
            mount("bpf", BPF_FS, "bpf", flags, c"mode=700")?;
        }
        // The directory for what outlives a boot is made when there is something to write.
        for dir in [self.maps(), self.programs(), self.links(), self.run.clone()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(mounted)
    }

    /// That nobody but root and us can change what the instance is.
    ///
    /// # Errors
    /// What somebody else has or can write. What is missing is fine.
    pub fn check(&self) -> Result<(), Untrusted> {
        owned::check_shared(Path::new(BPF_FS))?;
        for dir in [&self.root, &self.run, &self.state] {
            // The directory of all instances, then this one's.
            dir.parent().map_or(Ok(()), owned::check_directory)?;
            owned::check_entries(dir)?;
        }
        owned::check_entries(&self.maps())?;
        owned::check_entries(&self.links())
    }

    /// Takes the instance for this process; `None` if another one has it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let file =
            fs::File::options().create(true).truncate(false).write(true).open(self.run.join("lock"))?;
        let end = Instant::now() + GLANCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock(file))),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                    sleep(Duration::from_millis(10))
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether some process has the instance.
    pub fn is_locked(&self) -> io::Result<bool> {
        let file = match fs::File::open(self.run.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        // Shared, so that two who look do not take one another for an agent.
        Ok(flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Removes what is pinned and what is known for now. Kept addresses and the seed go with `all`.
    pub fn remove(&self, all: bool) -> io::Result<()> {
        for dir in [Some(&self.root), Some(&self.run), all.then_some(&self.state)].into_iter().flatten() {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // The directory of all instances goes with the last of them.
            if let Some(parent) = dir.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(())
    }
}

fn is_bpf(path: &str) -> io::Result<bool> {
    Ok(statfs(path)?.f_type as i64 == BPF_FS_MAGIC)
}
