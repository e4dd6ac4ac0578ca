//! Other network namespaces: by the ids that ours has for them.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    panic,
    path::PathBuf,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use lb_sys::netlink::Raw;

/// `RTM_GETNSID` of linux/rtnetlink.h.
const GETNSID: u16 = 90;
/// `NETNSA_NSID` of linux/net_namespace.h.
const NSID: u16 = 1;
/// `NETNSA_FD`.
const FD: u16 = 3;
/// Bytes of `struct rtgenmsg`, padded.
const GENERIC: usize = 4;

/// The namespaces that ours has these ids for, as far as a process is in them or /run/netns names them.
pub fn find(ids: &HashSet<i32>) -> io::Result<HashMap<i32, File>> {
    let mut found = HashMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let route = Raw::new(None)?;
    let mut seen = HashSet::new();
    for path in paths()? {
        // Processes end meanwhile, and some we may not look into.
        let Ok(inode) = fs::metadata(&path).map(|about| about.ino()) else { continue };
        if !seen.insert(inode) {
            continue;
        }
        let Ok(namespace) = File::open(&path) else { continue };
        if let Some(id) = id(&route, &namespace)?.filter(|id| ids.contains(id)) {
            found.insert(id, namespace);
        }
        if found.len() == ids.len() {
            break;
        }
    }
    Ok(found)
}

/// Where namespaces may be opened.
fn paths() -> io::Result<Vec<PathBuf>> {
    let named = match fs::read_dir("/run/netns") {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut paths: Vec<PathBuf> = named.iter().map(fs::DirEntry::path).collect();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            paths.push(entry.path().join("ns/net"));
        }
    }
    Ok(paths)
}

/// The id that our namespace has for another one; `None` where it has none, or the file is no namespace.
fn id(route: &Raw, namespace: &File) -> io::Result<Option<i32>> {
    let mut body = vec![0; GENERIC];
    // rtattr: length, type, value.
    body.extend(8_u16.to_ne_bytes());
    body.extend(FD.to_ne_bytes());
    body.extend(namespace.as_raw_fd().to_ne_bytes());
    route.request(GETNSID, 0, &body)?;
    let mut id = None;
    match route.answers(|answer| id = id_in(answer)) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        answer => answer.map(|_| id),
    }
}

/// The id that an answer names.
fn id_in(answer: &[u8]) -> Option<i32> {
    let mut rest = answer.get(GENERIC..)?;
    while let Some([len, more, low, high]) = rest.first_chunk::<4>() {
        let len = u16::from_ne_bytes([*len, *more]) as usize;
        if u16::from_ne_bytes([*low, *high]) == NSID {
            // -1: none.
            return Some(i32::from_ne_bytes(*rest.get(4..)?.first_chunk()?)).filter(|id| *id >= 0);
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
    None
}

/// Does `work` in each of the namespaces, on a thread of its own: this one stays where it is.
pub fn within<'a, T: Send>(
    namespaces: impl IntoIterator<Item = &'a File> + Send,
    work: impl Fn() -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    let all = || {
        let one = |namespace: &File| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        namespaces.into_iter().map(one).collect()
    };
    thread::scope(|scope| scope.spawn(all).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: i32) -> Vec<u8> {
        [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    #[test]
    fn ids_in_answers() {
        let answer = |attributes: &[Vec<u8>]| [vec![0; GENERIC], attributes.concat()].concat();
        assert_eq!(id_in(&answer(&[attribute(NSID, 7)])), Some(7));
        assert_eq!(id_in(&answer(&[attribute(5, 1), attribute(NSID, 0)])), Some(0));
        assert_eq!(id_in(&answer(&[attribute(NSID, -1)])), None);
        assert_eq!(id_in(&answer(&[])), None);
        assert_eq!(id_in(&answer(&[attribute(NSID, 7)])[..10]), None, "cut off");
    }
}
