//! Telling the kernel what to forget.

use fuser::{INodeNo, Notifier};
use skrin_base::Name;
use skrin_fs::{NodeId, Notify};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Passes on what changed behind the kernel's back.
pub(crate) struct KernelNotify(pub(crate) Notifier);

fn log(result: io::Result<()>, what: &'static str) {
    // The kernel answers ENOENT (which fuser hides) for what it does not know, ENOTDIR for what was removed and made anew as another kind.
    if let Err(error) = result
        && error.raw_os_error() != Some(libc::ENOTDIR)
    {
        tracing::debug!(%error, what, "the kernel did not take an invalidation");
    }
}

impl Notify for KernelNotify {
    fn entry(&self, dir: NodeId, name: &Name) {
        let name = OsStr::from_bytes(name.as_bytes());
        log(self.0.inval_entry(INodeNo(dir.0), name), "entry");
    }

    fn attributes(&self, node: NodeId) {
        // A negative offset leaves the contents cached.
        log(self.0.inval_inode(INodeNo(node.0), -1, 0), "attributes");
    }

    fn listing(&self, dir: NodeId) {
        log(self.0.inval_inode(INodeNo(dir.0), 0, 0), "listing");
    }

    fn write_back(&self, node: NodeId) {
        // Before the kernel drops pages it writes them; there is no message that asks for that alone.
        log(self.0.inval_inode(INodeNo(node.0), 0, 0), "contents");
    }
}
