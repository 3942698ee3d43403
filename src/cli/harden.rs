//! What keeps keys out of core dumps and swap, and other users out of files.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit};

/// What could be done for the keys in memory; `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyMemory {
    /// The whole process is locked: nothing of it reaches the swap.
    Locked,
    /// There is no swap that it could reach.
    NoSwap,
    /// The limit of locked memory is too low; keys could be swapped out.
    Unlocked,
}

/// Turns core dumps and debugging by the same user off. Called first, before any secret is read.
pub(crate) fn no_dumps() {
    not_dumpable();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
}

/// Files and directories that this program makes are for its user alone, whoever makes them and however it was started.
pub(crate) fn private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

#[cfg(target_os = "linux")]
fn not_dumpable() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Elsewhere the limit of core files is all there is.
#[cfg(not(target_os = "linux"))]
fn not_dumpable() {}

/// Locks the process into memory, page by page as it is used, so that what `--memory` bounds is not raised. Done only
/// where the limit of locked memory is off: below a limit, every later allocation beyond it would fail.
#[cfg(target_os = "linux")]
pub(crate) fn lock_memory() -> KeyMemory {
    use rustix::mm::{MlockAllFlags, mlockall};
    let unlimited = rustix::process::getrlimit(Resource::Memlock)
        .current
        .is_none();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if (unlimited || rustix::process::geteuid().is_root()) && mlockall(flags).is_ok() {
        return KeyMemory::Locked;
    }
    if has_swap() {
        KeyMemory::Unlocked
    } else {
        KeyMemory::NoSwap
    }
}

/// macOS cannot lock a whole process. Its swap is encrypted with a key that no disk has, and is swap all the same.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_memory() -> KeyMemory {
    KeyMemory::Unlocked
}

/// /proc/swaps has a line of headings, then one for each area. Unreadable counts as swap.
#[cfg(target_os = "linux")]
fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn after_hardening_there_are_no_core_dumps() {
        use rustix::process::{DumpableBehavior, dumpable_behavior, getrlimit};
        no_dumps();
        let limit = getrlimit(Resource::Core);
        assert_eq!(limit.current, Some(0));
        let behavior = dumpable_behavior().unwrap();
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }
}
