//! What keeps keys out of core dumps and swap, and other users out of files.

use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

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
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
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

/// Locks the process into memory, page by page as it is used, so that what `--memory` bounds is not raised. Done only
/// where the limit of locked memory is off: below a limit, every later allocation beyond it would fail.
pub(crate) fn lock_memory() -> KeyMemory {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
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

/// /proc/swaps has a line of headings, then one for each area. Unreadable counts as swap.
fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_hardening_there_are_no_core_dumps() {
        no_dumps();
        let limit = getrlimit(Resource::Core);
        assert_eq!(limit.current, Some(0));
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }
}
