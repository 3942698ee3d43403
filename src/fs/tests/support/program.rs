//! Random programs: operations whose operands are taken modulo what exists, so that every program is valid, run on the
//! file system and on the model side by side.

use super::model::{Done, Id, Kind, Model, Path, ROOT};
use super::sut::{self, CALLER, let_go};
use skrin_base::Entropy;
use skrin_base::clock::testutil::SeededEntropy;
use skrin_fs::{Allocate, Fs, HandleId, NodeSpec, OpenMode, RenameMode, SetAttr, XattrMode};

/// Few names, so that they meet.
const NAMES: [&[u8]; 7] = [
    b"a",
    b"b",
    b"c",
    b"dd",
    b"e.txt",
    b"\xff\x80",
    b"A rather long name with spaces.docx",
];

/// A handle on both sides.
pub(crate) struct Open {
    pub(crate) handle: HandleId,
    pub(crate) id: Id,
}

/// A program under way.
pub(crate) struct Program {
    pub(crate) random: SeededEntropy,
    pub(crate) model: Model,
    pub(crate) open: Vec<Open>,
    /// Largest offset of writes.
    pub(crate) scale: u64,
    /// States between the operations of the last step, where it took several.
    pub(crate) between: Vec<Model>,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Self {
        let random = SeededEntropy::new(seed ^ 0x5eed);
        let scale = [3_000, 100_000, 500_000][(seed % 3) as usize];
        Self {
            random,
            model: Model::new(),
            open: Vec::new(),
            scale,
            between: Vec::new(),
        }
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        self.random.u64() % n.max(1)
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    fn a_name(&self) -> &'static [u8] {
        self.pick(&NAMES)
    }

    fn a_dir(&self) -> (Path, Id) {
        let all = self.model.paths();
        let dirs: Vec<_> = all
            .into_iter()
            .filter(|(_, id)| self.model.is_dir(*id))
            .collect();
        self.pick(&dirs)
    }

    /// A directory and a name in it that mostly exists.
    fn a_place(&self) -> (Path, Id, Vec<u8>) {
        let all: Vec<_> = self
            .model
            .paths()
            .into_iter()
            .filter(|(p, _)| !p.is_empty())
            .collect();
        if all.is_empty() || self.below(4) == 0 {
            let (path, id) = self.a_dir();
            return (path, id, self.a_name().to_vec());
        }
        let (mut path, _) = self.pick(&all);
        let name = path.pop().unwrap();
        let dir = self.resolve(&path);
        (path, dir, name)
    }

    fn resolve(&self, path: &[Vec<u8>]) -> Id {
        path.iter()
            .fold(ROOT, |dir, name| self.model.lookup(dir, name).unwrap())
    }

    fn any(&self) -> (Path, Id) {
        self.pick(&self.model.paths())
    }

    fn data(&self) -> Vec<u8> {
        let len = self.below(self.scale / 3) + 1;
        let salt = self.random.u64();
        (0..len)
            .map(|n| (n.wrapping_mul(salt | 1) >> 7) as u8)
            .collect()
    }

    /// One step on both sides; what it did, for the report.
    pub(crate) fn step(&mut self, fs: &Fs) -> String {
        self.between.clear();
        let what = self.below(100);
        let (name, ours, theirs): (String, Done, Done) = match what {
            0..=17 => self.create(fs, what),
            18..=24 => self.link(fs),
            25..=33 => self.remove(fs),
            34..=47 => self.rename(fs),
            48..=54 => self.set_attr(fs),
            55..=59 => self.set_xattr(fs),
            60..=66 => self.truncate_path(fs),
            67..=74 => self.open_one(fs),
            75..=95 if !self.open.is_empty() => self.use_handle(fs),
            _ => self.whole_write(fs),
        };
        assert_eq!(ours, theirs, "{name}");
        name
    }

    fn create(&mut self, fs: &Fs, what: u64) -> (String, Done, Done) {
        let ((path, id), name) = (self.a_dir(), self.a_name());
        let dir = sut::dir(fs, &path).unwrap();
        let mode = [0o644, 0o755, 0o600, 0o4711][self.below(4) as usize];
        let text = format!("create {what} {:?}", name.escape_ascii().to_string());
        let (ours, kind) = match what {
            0..=7 => {
                let spec = NodeSpec {
                    kind: skrin_fs::Kind::File,
                    mode,
                    rdev: 0,
                };
                (fs.mknod(dir, name, spec, &CALLER), Kind::File)
            }
            8..=13 => (
                fs.mkdir(dir, name, mode, &CALLER),
                Kind::Dir(Default::default()),
            ),
            14 | 15 => (
                fs.symlink(dir, name, b"some/where", &CALLER),
                Kind::Symlink(b"some/where".to_vec()),
            ),
            _ => {
                let spec = NodeSpec {
                    kind: skrin_fs::Kind::Fifo,
                    mode,
                    rdev: 7,
                };
                (fs.mknod(dir, name, spec, &CALLER), Kind::Fifo)
            }
        };
        let theirs = self.model.make(id, name, kind, mode).map(drop);
        (text, let_go(fs, ours), theirs)
    }

    fn link(&mut self, fs: &Fs) -> (String, Done, Done) {
        let ((from, id), (to, dir), name) = (self.any(), self.a_dir(), self.a_name());
        let node = sut::find(fs, &from).unwrap().node;
        self.tell_before(id);
        let ours = let_go(fs, fs.link(node, sut::dir(fs, &to).unwrap(), name));
        ("link".to_owned(), ours, self.model.link(id, dir, name))
    }

    fn remove(&mut self, fs: &Fs) -> (String, Done, Done) {
        let (path, id, name) = self.a_place();
        let dir = sut::dir(fs, &path).unwrap();
        if self.below(2) == 0 {
            let ours = fs.unlink(dir, &name).map_err(|e| e.errno());
            ("unlink".to_owned(), ours, self.model.unlink(id, &name))
        } else {
            let ours = fs.rmdir(dir, &name).map_err(|e| e.errno());
            ("rmdir".to_owned(), ours, self.model.rmdir(id, &name))
        }
    }

    fn tell_before(&mut self, id: Id) {
        self.model.tell(id);
        self.between.push(self.model.clone());
    }

    fn rename(&mut self, fs: &Fs) -> (String, Done, Done) {
        let (from, from_id, name) = self.a_place();
        let (to, to_id, to_name) = self.a_place();
        let modes = [
            RenameMode::Replace,
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
        ];
        let mode = self.pick(&modes);
        // What gets another name is told first, so that a crash cannot leave that empty.
        // Where there is nothing to rename, nobody looks at the other name.
        if let Ok(id) = self.model.lookup(from_id, &name) {
            self.tell_before(id);
            if mode == RenameMode::Exchange
                && let Ok(id) = self.model.lookup(to_id, &to_name)
            {
                self.tell_before(id);
            }
        }
        let (a, b) = (sut::dir(fs, &from).unwrap(), sut::dir(fs, &to).unwrap());
        let ours = fs
            .rename(a, &name, b, &to_name, mode)
            .map_err(|e| e.errno());
        let theirs = self.model.rename((from_id, &name), (to_id, &to_name), mode);
        (format!("rename {mode:?}"), ours, theirs)
    }

    fn set_attr(&mut self, fs: &Fs) -> (String, Done, Done) {
        let (path, id) = self.any();
        let node = sut::find(fs, &path).unwrap().node;
        let (mode, uid, gid) = (
            self.below(0o10000) as u16,
            self.below(3) as u32,
            self.below(3) as u32,
        );
        let set = SetAttr {
            mode: Some(mode),
            uid: Some(uid),
            gid: Some(gid),
            ..SetAttr::default()
        };
        let ours = fs.setattr(node, &set).map(drop).map_err(|e| e.errno());
        let there = self.model.node(id);
        (there.mode, there.uid, there.gid) = (mode, uid, gid);
        ("setattr".to_owned(), ours, Ok(()))
    }

    fn set_xattr(&mut self, fs: &Fs) -> (String, Done, Done) {
        let (path, id) = self.any();
        let node = sut::find(fs, &path).unwrap().node;
        let name = [&b"user.one"[..], b"user.two"][self.below(2) as usize];
        let xattrs = &mut self.model.node(id).xattrs;
        if xattrs.contains_key(name) {
            xattrs.remove(name);
            let ours = fs.removexattr(node, name).map_err(|e| e.errno());
            return ("removexattr".to_owned(), ours, Ok(()));
        }
        xattrs.insert(name.to_vec(), b"value".to_vec());
        let ours = fs
            .setxattr(node, name, b"value", XattrMode::Create)
            .map_err(|e| e.errno());
        ("setxattr".to_owned(), ours, Ok(()))
    }

    fn a_file(&self) -> Option<(Path, Id)> {
        let all = self.model.paths();
        let files: Vec<_> = all
            .into_iter()
            .filter(|(_, id)| self.model.is_file(*id))
            .collect();
        (!files.is_empty()).then(|| self.pick(&files))
    }

    fn truncate_path(&mut self, fs: &Fs) -> (String, Done, Done) {
        let Some((path, id)) = self.a_file() else {
            return ("nothing".to_owned(), Ok(()), Ok(()));
        };
        let size = self.below(self.scale);
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let node = sut::find(fs, &path).unwrap().node;
        let ours = fs.setattr(node, &set).map(drop).map_err(|e| e.errno());
        self.model.node(id).data.resize(size as usize, 0);
        if self.model.node(id).handles == 0 {
            self.model.tell(id);
        }
        (format!("truncate to {size}"), ours, Ok(()))
    }

    fn open_one(&mut self, fs: &Fs) -> (String, Done, Done) {
        let Some((path, id)) = self.a_file().filter(|_| self.open.len() < 4) else {
            return ("nothing".to_owned(), Ok(()), Ok(()));
        };
        let node = sut::find(fs, &path).unwrap().node;
        let how = OpenMode {
            write: true,
            truncate: false,
        };
        let opened = fs.open_node(node, how).map_err(|e| e.errno());
        let ours = opened.map(|handle| {
            self.model.open(id);
            self.open.push(Open { handle, id });
        });
        ("open".to_owned(), ours, Ok(()))
    }

    fn whole_write(&mut self, fs: &Fs) -> (String, Done, Done) {
        let ((path, dir), name, data) = (self.a_dir(), self.a_name(), self.data());
        let node = sut::dir(fs, &path).unwrap();
        let how = OpenMode {
            write: true,
            truncate: true,
        };
        let made = fs.create(node, name, 0o640, false, how, &CALLER);
        let ours = made.map_err(|e| e.errno()).map(|(attr, handle)| {
            fs.write(handle, 0, &data).unwrap();
            fs.release(handle).unwrap();
            fs.forget(attr.node, 1);
        });
        let theirs = match self.model.lookup(dir, name) {
            Ok(id) if self.model.is_dir(id) => Err(skrin_base::Errno::EISDIR),
            Ok(id) if !self.model.is_file(id) => Err(skrin_base::Errno::EINVAL),
            Ok(id) => Ok(id),
            Err(_) => self.model.make(dir, name, Kind::File, 0o640),
        };
        self.between.push(self.model.clone());
        let theirs = theirs.map(|id| {
            self.model.node(id).data = data;
            if self.model.node(id).handles == 0 {
                self.model.tell(id);
            }
        });
        ("whole write".to_owned(), ours, theirs)
    }

    fn use_handle(&mut self, fs: &Fs) -> (String, Done, Done) {
        let at = self.below(self.open.len() as u64) as usize;
        let Open { handle, id } = self.open[at];
        let (offset, data) = (self.below(self.scale), self.data());
        let kind = self.below(12);
        let ours = match kind {
            0..=4 => fs.write(handle, offset, &data),
            5 => fs.allocate(handle, offset, data.len() as u64, Allocate::PunchHole),
            6 => fs.allocate(handle, offset, data.len() as u64, Allocate::Zero),
            7 => fs.flush(handle),
            8 => return self.copy(fs, at, offset, data.len()),
            _ => {
                self.open.swap_remove(at);
                fs.release(handle)
            }
        };
        let (from, end) = (offset as usize, offset as usize + data.len());
        match kind {
            0..=4 => self.model.write(id, from, &data),
            5 | 6 => {
                let file = &mut self.model.node(id).data;
                if kind == 6 {
                    file.resize(file.len().max(end), 0);
                }
                let end = end.min(file.len());
                file[from.min(end)..end].fill(0);
            }
            7 => self.model.tell(id),
            _ => self.model.close(id),
        }
        (
            format!("handle {kind} at {offset} of {}", data.len()),
            ours.map_err(|e| e.errno()),
            Ok(()),
        )
    }

    fn copy(&mut self, fs: &Fs, at: usize, offset: u64, len: usize) -> (String, Done, Done) {
        let target = &self.open[self.below(self.open.len() as u64) as usize];
        let (to, to_id) = (target.handle, target.id);
        let Open { handle, id } = self.open[at];
        // Often on whole blocks, which are shared.
        let offset = if self.below(2) == 0 {
            offset / 65536 * 65536
        } else {
            offset
        };
        let to_offset = self.below(3) * 65536;
        let source = self.model.nodes[&id].data.clone();
        let end = (offset as usize + len).min(source.len());
        let overlap =
            to_id == id && offset < to_offset + len as u64 && to_offset < offset + len as u64;
        if offset as usize >= end || overlap {
            return ("nothing".to_owned(), Ok(()), Ok(()));
        }
        let mut done = 0;
        while offset as usize + done < end {
            let from = (handle, offset + done as u64);
            let left = (end - offset as usize - done) as u64;
            let n = fs
                .copy_range(from, (to, to_offset + done as u64), left)
                .unwrap();
            assert!(n > 0);
            done += n as usize;
        }
        self.model
            .write(to_id, to_offset as usize, &source[offset as usize..end]);
        fs.flush(to).unwrap();
        self.model.tell(to_id);
        (format!("copy from {offset} to {to_offset}"), Ok(()), Ok(()))
    }

    /// Compares everything.
    pub(crate) fn compare(&mut self, fs: &Fs) -> Result<(), String> {
        let (ours, theirs) = (sut::tree(fs).0, self.model.tree());
        if ours == theirs {
            Ok(())
        } else {
            Err(sut::difference(&ours, &theirs))
        }
    }

    /// Closes every handle.
    pub(crate) fn close_all(&mut self, fs: &Fs) {
        for Open { handle, id } in self.open.drain(..) {
            fs.release(handle).unwrap();
            self.model.close(id);
        }
    }
}
