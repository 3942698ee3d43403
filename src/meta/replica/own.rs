//! The sealed commits of this device, kept on its own disk from before the first byte is put until a
//! checkpoint holds them (rule D4): whatever happens, the same bytes go to the same name.

use crate::commit::SealedCommit;
use crate::heads::{LocalError, io_error, replace_file};
use crate::lane::{Head, commit_file, parse_commit_file};
use bytes::Bytes;
use skrin_base::LaneId;
use skrin_storage::disk::sync_dir;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The directory `journal/lanes`.
pub(super) struct OwnCommits {
    dir: PathBuf,
}

impl OwnCommits {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join("journal").join("lanes"),
        }
    }

    fn path(&self, head: &Head) -> PathBuf {
        let lane = self.dir.join(head.lane.to_string());
        lane.join(commit_file(head.seq, &head.hash))
    }

    /// Keeps a commit; it is on stable storage when this returns.
    pub(super) fn store(&self, sealed: &SealedCommit) -> Result<(), LocalError> {
        let path = self.path(&sealed.head);
        let lane = path.parent().unwrap_or(&self.dir);
        if !lane.exists() {
            std::fs::create_dir_all(lane).map_err(io_error(lane))?;
            for dir in lane.ancestors().skip(1).take(3) {
                sync_dir(dir).map_err(io_error(dir))?;
            }
        }
        let kept = replace_file(&path, &sealed.bytes);
        if kept.is_err() {
            // Its name may stand already: it is sealed anew, and the lane has one commit of a number.
            let _ = std::fs::remove_file(&path);
        }
        kept
    }

    /// All that are kept, in the order of lanes and numbers.
    pub(super) fn list(&self) -> Result<Vec<Head>, LocalError> {
        let mut heads = Vec::new();
        for (name, path) in entries(&self.dir)? {
            let Some(lane) = LaneId::from_hex(&name) else {
                continue;
            };
            let files = entries(&path)?.into_iter();
            let parsed = files.filter_map(|(name, _)| parse_commit_file(&name));
            heads.extend(parsed.map(|(seq, hash)| Head { lane, seq, hash }));
        }
        heads.sort();
        Ok(heads)
    }

    /// The bytes of one.
    pub(super) fn read(&self, head: &Head) -> Result<SealedCommit, LocalError> {
        let path = self.path(head);
        let bytes = std::fs::read(&path).map_err(io_error(&path))?;
        Ok(SealedCommit {
            head: *head,
            bytes: Bytes::from(bytes),
        })
    }

    /// Lets one go that a checkpoint holds.
    pub(super) fn forget(&self, head: &Head) -> Result<(), LocalError> {
        let path = self.path(head);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error(&path)(e)),
            _ => Ok(()),
        }
    }
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, LocalError> {
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error(dir)(e)),
    };
    let named = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ))
    };
    listing
        .map(named)
        .collect::<Result<_, _>>()
        .map_err(io_error(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use skrin_crypto::hash;

    #[test]
    fn kept_commits_are_listed_in_order_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnCommits::new(dir.path());
        assert_eq!(own.list().unwrap(), []);
        let sealed = |seq: u64| {
            let bytes = Bytes::from(vec![seq as u8; 100]);
            let head = Head {
                lane: LaneId([4; 16]),
                seq,
                hash: hash(&bytes),
            };
            SealedCommit { head, bytes }
        };
        for seq in [300, 2, 1] {
            own.store(&sealed(seq)).unwrap();
        }
        let listed = own.list().unwrap();
        assert_eq!(listed, [1, 2, 300].map(|seq| sealed(seq).head));
        assert_eq!(own.read(&listed[2]).unwrap(), sealed(300));
        own.forget(&listed[0]).unwrap();
        own.forget(&listed[0]).unwrap();
        assert_eq!(own.list().unwrap(), &listed[1..]);
    }
}
