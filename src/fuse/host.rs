//! Where systems differ: numbers, and what their kernels can be asked for.

use std::path::Path;
use std::time::Duration;

use fuser::MountOption;
use skrin_base::Errno;

/// How long the kernel may keep names and attributes. Linux is told when they change; of macFUSE and FUSE-T nobody has shown us that they listen.
#[cfg(target_os = "linux")]
pub(crate) const LONG: Duration = Duration::from_secs(3600);
#[cfg(not(target_os = "linux"))]
pub(crate) const LONG: Duration = Duration::from_secs(1);

/// Whether Mac conventions hold on a mount unless it is told otherwise.
pub(crate) const IS_MAC: bool = cfg!(target_os = "macos");

/// This system's number for an error. Ours are those of Linux, and from 35 on every system has its own.
pub(crate) fn errno(e: Errno) -> i32 {
    match e {
        Errno::EAGAIN => libc::EAGAIN,
        Errno::ENAMETOOLONG => libc::ENAMETOOLONG,
        Errno::ENOSYS => libc::ENOSYS,
        Errno::ENOTEMPTY => libc::ENOTEMPTY,
        Errno::ELOOP => libc::ELOOP,
        Errno::ENODATA => NO_ATTRIBUTE,
        Errno::EOVERFLOW => libc::EOVERFLOW,
        Errno::EOPNOTSUPP => NOT_SUPPORTED,
        Errno::ETIMEDOUT => libc::ETIMEDOUT,
        Errno::ESTALE => libc::ESTALE,
        Errno::EDQUOT => libc::EDQUOT,
        // The first thirty-four are the same everywhere.
        Errno(number) => number,
    }
}

#[cfg(target_os = "linux")]
const NO_ATTRIBUTE: i32 = libc::ENODATA;
#[cfg(not(target_os = "linux"))]
const NO_ATTRIBUTE: i32 = libc::ENOATTR;
#[cfg(target_os = "linux")]
const NOT_SUPPORTED: i32 = libc::EOPNOTSUPP;
/// What macOS takes as a reason to keep an attribute elsewhere.
#[cfg(not(target_os = "linux"))]
const NOT_SUPPORTED: i32 = libc::ENOTSUP;

/// Type of the file system as the mount table shows it.
#[cfg(target_os = "linux")]
const SUBTYPE: &str = "skrin";

/// What only this system's mounts take.
#[cfg(target_os = "linux")]
pub(crate) fn mount_options(_dir: &Path) -> Vec<MountOption> {
    vec![MountOption::Subtype(SUBTYPE.to_owned())]
}

/// What macFUSE and FUSE-T take: a name for the Finder, a place among the local volumes, large requests, and no dialogue
/// that offers to eject a vault whose storage is slow.
#[cfg(not(target_os = "linux"))]
pub(crate) fn mount_options(dir: &Path) -> Vec<MountOption> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let volume = format!("volname={}", name.replace(',', "_"));
    [&volume, "local", "iosize=1048576", "daemon_timeout=600"]
        .map(|option| MountOption::CUSTOM(option.to_owned()))
        .into()
}

/// The attribute that holds a Mac's resource fork. It is read and written in pieces, and fuser does not tell which piece is
/// read: refused, so that the kernel keeps it in a file `._NAME` and nobody gets wrong bytes.
const RESOURCE_FORK: &[u8] = b"com.apple.ResourceFork";
/// Where Linux has attributes of users, and so does the vault.
const USER: &[u8] = b"user.";

/// What the vault calls an extended attribute; `None` for one that is not taken. Macs know no name spaces.
pub(crate) fn kept_attribute(mac: bool, name: &[u8]) -> Option<Vec<u8>> {
    match mac {
        false => Some(name.to_vec()),
        true if name == RESOURCE_FORK => None,
        true => Some([USER, name].concat()),
    }
}

/// The names of a list as this system has them.
pub(crate) fn shown_attributes(mac: bool, list: Vec<u8>) -> Vec<u8> {
    if !mac {
        return list;
    }
    let names = list.split_inclusive(|byte| *byte == 0);
    let users = names.filter_map(|name| name.strip_prefix(USER));
    users.flatten().copied().collect()
}

/// What the kernel reads ahead; without this it asks for 128 KiB at a time. Only root may; without it sequential reads
/// are a little slower.
#[cfg(target_os = "linux")]
pub(crate) fn raise_read_ahead(dir: &Path) {
    use std::os::unix::fs::MetadataExt;
    const READ_AHEAD_KIB: u32 = 1024;
    let Ok(meta) = std::fs::metadata(dir) else {
        return;
    };
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, "the read-ahead of the kernel stays as it is");
    }
}

/// `iosize` says it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn raise_read_ahead(_dir: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_those_of_this_system() {
        for (ours, theirs) in [
            (Errno::EIO, libc::EIO),
            (Errno::EDQUOT, libc::EDQUOT),
            (Errno::ERANGE, libc::ERANGE),
            (Errno::EMLINK, libc::EMLINK),
            (Errno::ENOTEMPTY, libc::ENOTEMPTY),
            (Errno::ENODATA, NO_ATTRIBUTE),
        ] {
            assert_eq!(errno(ours), theirs);
        }
    }

    #[test]
    fn attributes_of_macs_are_attributes_of_users_in_the_vault() {
        let kept = kept_attribute(true, b"com.apple.FinderInfo").unwrap();
        assert_eq!(kept, b"user.com.apple.FinderInfo");
        assert_eq!(kept_attribute(true, b"com.apple.ResourceFork"), None);
        assert_eq!(kept_attribute(false, b"user.x").unwrap(), b"user.x");
        let list = b"user.com.apple.FinderInfo\0system.posix_acl_access\0user.x\0";
        assert_eq!(
            shown_attributes(true, list.to_vec()),
            b"com.apple.FinderInfo\0x\0"
        );
        assert_eq!(shown_attributes(false, list.to_vec()), list);
    }
}
