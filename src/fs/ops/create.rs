use super::xattr::set_mode;
use super::{check_free, dir_of, name_of};
use crate::acl::{self, Inherited};
use crate::core::Fs;
use crate::error::FsError;
use crate::hold::{is_passing, is_passing_dir};
use crate::leases::is_lock;
use crate::types::{Attr, Caller, HandleId, NodeId, NodeSpec, OpenMode};
use skrin_base::limits::SYMLINK_MAX;
use skrin_base::{Ino, Name};
use skrin_meta::op::NewNode;
use skrin_meta::replica::TreeGuard;
use skrin_meta::state::{self, Inode};
use skrin_meta::{Kind, OpKind};

const SET_GID: u16 = 0o2000;
const MODE_BITS: u16 = 0o7777;

impl Fs {
    /// Makes a regular file and opens it; counts as a look-up. With `exclusive` a taken name is refused, else the file that
    /// has it is opened.
    ///
    /// # Errors
    /// Those of `mknod` and `open_node`.
    pub fn create(
        &self,
        dir: NodeId,
        name: &[u8],
        mode: u16,
        exclusive: bool,
        how: OpenMode,
        caller: &Caller,
    ) -> Result<(Attr, HandleId), FsError> {
        let spec = NodeSpec {
            kind: Kind::File,
            mode,
            rdev: 0,
        };
        let made = self.make(dir, name, node_of(spec, caller), caller.umask, true);
        let (attr, how, is_new) = match made {
            Err(FsError::Exists) if !exclusive => (self.lookup(dir, name)?, how, false),
            // There is nothing to cut: an operation that says so would be one more for every file.
            made => {
                let truncate = false;
                (made?, OpenMode { truncate, ..how }, true)
            }
        };
        match self.open_node(attr.node, how) {
            Ok(handle) => {
                if is_new && let Err(error) = self.note_purpose(dir, name, &attr, caller) {
                    tracing::warn!(%error, "a new file is one like any other");
                }
                Ok((attr, handle))
            }
            Err(e) => {
                self.forget(attr.node, 1);
                Err(e)
            }
        }
    }

    /// What is to become of a new file, by its name.
    fn note_purpose(
        &self,
        dir: NodeId,
        name: &[u8],
        attr: &Attr,
        caller: &Caller,
    ) -> Result<(), FsError> {
        if attr.node.is_local() {
            return Ok(());
        }
        if is_lock(name) {
            return self.lease(attr.ino, caller.pid);
        }
        let passing = is_passing(name) || {
            let (_, parent) = dir_of(&self.replica.tree(), self.nodes.ino(dir))?;
            let place = parent.links.first();
            place.is_some_and(|place| is_passing_dir(place.name.as_bytes()))
        };
        if let Some(file) = self.files.get(attr.node) {
            let mut state = file.state.lock();
            state.author = Some(caller.pid);
            if passing {
                state.content.keep();
            }
        }
        Ok(())
    }

    /// Makes a regular file, pipe, socket or device; counts as a look-up.
    ///
    /// # Errors
    /// `Exists`, `NotFound` (the directory), `NotDirectory`, `NameTooLong`, `ReadOnly`.
    pub fn mknod(
        &self,
        dir: NodeId,
        name: &[u8],
        spec: NodeSpec,
        caller: &Caller,
    ) -> Result<Attr, FsError> {
        if matches!(spec.kind, Kind::Dir | Kind::Symlink) {
            return Err(FsError::Invalid(
                "mknod makes neither directories nor symbolic links",
            ));
        }
        self.make(dir, name, node_of(spec, caller), caller.umask, false)
    }

    /// Makes a directory; counts as a look-up.
    ///
    /// # Errors
    /// As `mknod`.
    pub fn mkdir(
        &self,
        dir: NodeId,
        name: &[u8],
        mode: u16,
        caller: &Caller,
    ) -> Result<Attr, FsError> {
        let node = NewNode {
            kind: Kind::Dir,
            mode: mode & MODE_BITS,
            uid: caller.uid,
            gid: caller.gid,
            rdev: 0,
            target: Vec::new(),
        };
        self.make(dir, name, node, caller.umask, false)
    }

    /// Makes a symbolic link; counts as a look-up.
    ///
    /// # Errors
    /// As `mknod`; `NotFound` for an empty target, `TargetTooLong`.
    pub fn symlink(
        &self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        caller: &Caller,
    ) -> Result<Attr, FsError> {
        match target.len() {
            0 => return Err(FsError::NotFound),
            n if n > SYMLINK_MAX => return Err(FsError::TargetTooLong),
            _ => {}
        }
        let node = NewNode {
            kind: Kind::Symlink,
            mode: 0o777,
            uid: caller.uid,
            gid: caller.gid,
            rdev: 0,
            target: target.to_vec(),
        };
        self.make(dir, name, node, 0, false)
    }

    /// `opened`: it gets its contents next.
    fn make(
        &self,
        dir: NodeId,
        name: &[u8],
        node: NewNode,
        umask: u16,
        opened: bool,
    ) -> Result<Attr, FsError> {
        let name = name_of(name)?;
        self.check_allowed()?;
        self.check_not_reserved(dir, &name)?;
        if let Some(place) = self.local_place(dir, &name)? {
            return self.make_local(place, node, umask);
        }
        self.publisher.check_taken()?;
        self.await_room()?;
        let (ino, inode) = self.awaiting_room(|| {
            let mut tree = self.replica.tree();
            let (dir, parent) = dir_of(&tree, self.nodes.ino(dir))?;
            check_free(&tree, dir, &name)?;
            let mut node = node.clone();
            inherit_group(&parent, &mut node);
            let default = acl::default_of(&tree, dir, &parent)?;
            let inherited = acl::inherit(default, node.kind, node.mode, umask);
            node.mode = inherited.first_mode;
            let ino = self.new_ino(&tree)?;
            let made = self.execute(&mut tree, self.creation(dir, name.clone(), ino, node))?;
            self.holds.name_taken(dir, &name, made.counter);
            if opened {
                self.holds
                    .file_made(ino, made.counter, self.clock.monotonic());
            }
            // It has the name now, and must not be made once more for want of room.
            Ok(self.finish(&mut tree, ino, inherited))
        })??;
        Ok(self.entry_attr((ino, &inode), inode.size, true))
    }

    /// Gives a new entry what it gets besides; the inode as it is then.
    fn finish(
        &self,
        tree: &mut TreeGuard<'_>,
        ino: Ino,
        inherited: Inherited,
    ) -> Result<(Ino, Inode), FsError> {
        for op in finishing(ino, inherited) {
            self.execute(tree, op)?;
        }
        Ok((ino, state::inode(tree, ino)?.ok_or(FsError::NotFound)?))
    }

    fn creation(&self, dir: Ino, name: Name, ino: Ino, node: NewNode) -> OpKind {
        OpKind::Create {
            place: self.new_place(dir, name),
            ino,
            node,
        }
    }
}

fn node_of(spec: NodeSpec, caller: &Caller) -> NewNode {
    let rdev = match spec.kind {
        Kind::CharDevice | Kind::BlockDevice => spec.rdev,
        _ => 0,
    };
    NewNode {
        kind: spec.kind,
        mode: spec.mode & MODE_BITS,
        uid: caller.uid,
        gid: caller.gid,
        rdev,
        target: Vec::new(),
    }
}

/// In a directory with the set-group-id bit new files get its group, and new directories the bit too.
pub(crate) fn inherit_group(parent: &Inode, node: &mut NewNode) {
    if parent.mode & SET_GID != 0 {
        node.gid = parent.gid;
        if node.kind == Kind::Dir {
            node.mode |= SET_GID;
        }
    }
}

/// What a new entry gets from its directory behind the operation that makes it, the mode last: before the list is there the bits of the
/// group would be the group's own.
fn finishing(ino: Ino, inherited: Inherited) -> impl Iterator<Item = OpKind> {
    let Inherited {
        first_mode,
        mode,
        xattrs,
    } = inherited;
    let lists = xattrs
        .into_iter()
        .map(move |(name, value)| OpKind::SetXattr {
            ino,
            name: name.to_vec(),
            value,
        });
    let widened = (mode != first_mode).then_some(mode);
    lists.chain(widened.map(move |mode| set_mode(ino, mode)))
}
