//! Invariants of the state. `apply` keeps them whatever it is given; `verify` and the tests look.

use crate::op::Kind;
use crate::rows::{Rows, RowsError};
use crate::state::{self, Inode};
use skrin_base::limits::BLOCK_LEN;
use skrin_base::{Content, Ino, KeyId, Name, SegmentId};
use thiserror::Error;

/// Something in the state that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Finding {
    /// An entry names an inode that does not know of it, or that does not exist.
    #[error("entry {name:?} in directory {dir} names inode {ino}, which does not say so")]
    DanglingEntry {
        /// The directory.
        dir: Ino,
        /// The name.
        name: Name,
        /// The inode it names.
        ino: Ino,
    },
    /// An inode says that it is found where it is not.
    #[error("inode {ino} claims the name {name:?} in directory {dir}, which has no such entry")]
    DanglingLink {
        /// The inode.
        ino: Ino,
        /// The directory.
        dir: Ino,
        /// The name.
        name: Name,
    },
    /// An inode that cannot be reached.
    #[error("inode {0} is at no place")]
    Unreachable(Ino),
    /// An entry in something that is no directory.
    #[error("entry {name:?} is in inode {dir}, which is no directory")]
    NotADirectory {
        /// The supposed directory.
        dir: Ino,
        /// The name.
        name: Name,
    },
    /// The count of subdirectories is wrong.
    #[error("directory {ino} has {found} subdirectories, but says {said}")]
    Subdirs {
        /// The directory.
        ino: Ino,
        /// What it says.
        said: u32,
        /// What there are.
        found: u32,
    },
    /// A directory that lies within itself.
    #[error("directory {0} lies within itself")]
    Cycle(Ino),
    /// The extents of a file overlap, leave something out, or go beyond its end.
    #[error("the extents of inode {ino} do not cover block {block} exactly once")]
    Extents {
        /// The file.
        ino: Ino,
        /// The first block where it is so.
        block: u64,
    },
    /// An extent names a key that its inode does not have.
    #[error("inode {ino} has no key {key}")]
    Key {
        /// The file.
        ino: Ino,
        /// The key.
        key: KeyId,
    },
    /// An extent names a segment that no commit declared, or slots beyond its end.
    #[error("inode {ino} names slots of segment {segment} that nobody declared")]
    Segment {
        /// The file.
        ino: Ino,
        /// The segment.
        segment: SegmentId,
    },
    /// A conflict copy that is not there, or has no conflict name.
    #[error("inode {ino} is said to be a conflict copy of {name:?}, and has no such entry")]
    ConflictCopy {
        /// The inode.
        ino: Ino,
        /// The name that it was to have.
        name: Name,
    },
    /// Blocks of a segment are said to lie at slots of another one that nobody declared, or twice.
    #[error(
        "blocks of segment {segment} are said to lie in {host}, twice or at slots that nobody declared"
    )]
    Relocation {
        /// The segment for which they were sealed.
        segment: SegmentId,
        /// Where they are said to lie.
        host: SegmentId,
    },
    /// Contents that nobody holds any more.
    #[error("inode {ino} has lost {blocks} blocks from block {first} on")]
    Lost {
        /// The file.
        ino: Ino,
        /// First lost block.
        first: u64,
        /// How many.
        blocks: u32,
    },
}

/// Directories nested deeper than this count as a cycle.
const DEPTH_MAX: usize = 65_536;

/// Looks at every row. `declared`: whether every segment must have been declared, which is so for published states.
///
/// # Errors
/// Only when the rows cannot be read.
pub fn check(rows: &dyn Rows, declared: bool) -> Result<Vec<Finding>, RowsError> {
    let mut findings = Vec::new();
    state::for_each_entry(rows, |dir, name, entry| {
        let parent = state::inode(rows, dir)?;
        if parent.is_none_or(|p| p.kind != Kind::Dir) {
            findings.push(Finding::NotADirectory {
                dir,
                name: name.clone(),
            });
        }
        let inode = state::inode(rows, entry.ino)?;
        let known = inode.is_some_and(|i| {
            let same = |l: &state::Link| l.dir == dir && l.name == name && l.entry == entry.id;
            i.kind == entry.kind && i.links.iter().filter(|l| same(l)).count() == 1
        });
        if !known {
            findings.push(Finding::DanglingEntry {
                dir,
                name,
                ino: entry.ino,
            });
        }
        Ok(())
    })?;
    state::for_each_inode(rows, |ino, inode| {
        check_places(rows, ino, &inode, &mut findings)?;
        match inode.kind {
            Kind::Dir => check_dir(rows, ino, &inode, &mut findings),
            Kind::File => check_extents(rows, ino, &inode, declared, &mut findings),
            _ => Ok(()),
        }
    })?;
    state::for_each_conflict_copy(rows, |ino, entry, copy| {
        let inode = state::inode(rows, ino)?;
        let mut links = inode.iter().flat_map(|inode| &inode.links);
        let has_mark = |name: &Name| {
            let mut parts = name.as_bytes().windows(state::MARK.len());
            parts.any(|part| part == state::MARK)
        };
        if !links.any(|l| l.entry == entry && l.dir == copy.dir && has_mark(&l.name)) {
            let name = copy.name;
            findings.push(Finding::ConflictCopy { ino, name });
        }
        Ok(())
    })?;
    check_relocations(rows, declared, &mut findings)?;
    Ok(findings)
}

fn check_relocations(
    rows: &dyn Rows,
    declared: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), RowsError> {
    let mut next = (SegmentId::default(), 0);
    state::for_each_copied_run(rows, |segment, run| {
        let has = |id, first: u32, count: u32| {
            let end = u64::from(first) + u64::from(count);
            let info = state::segment(rows, id)?;
            Ok::<_, RowsError>(info.is_some_and(|info| u64::from(info.slots) >= end))
        };
        let known = !declared
            || has(segment, run.first_slot, run.count)?
                && has(run.host, run.host_slot, run.count)?
                && has(run.host, run.table_slot, 1)?;
        if !known || (segment, run.first_slot) < next || run.count == 0 {
            let host = run.host;
            findings.push(Finding::Relocation { segment, host });
        }
        next = (segment, run.end());
        Ok(())
    })
}

fn check_places(
    rows: &dyn Rows,
    ino: Ino,
    inode: &Inode,
    findings: &mut Vec<Finding>,
) -> Result<(), RowsError> {
    if inode.links.is_empty() != (ino == Ino::ROOT) {
        findings.push(Finding::Unreachable(ino));
    }
    for link in &inode.links {
        let entry = state::entry(rows, link.dir, &link.name)?;
        if entry.is_none_or(|e| e.ino != ino || e.id != link.entry) {
            findings.push(Finding::DanglingLink {
                ino,
                dir: link.dir,
                name: link.name.clone(),
            });
        }
    }
    Ok(())
}

fn check_dir(
    rows: &dyn Rows,
    ino: Ino,
    inode: &Inode,
    findings: &mut Vec<Finding>,
) -> Result<(), RowsError> {
    let (mut found, mut after) = (0, 0);
    loop {
        let batch = state::list(rows, ino, after, 512)?;
        let Some(last) = batch.last() else { break };
        after = last.cookie;
        found += batch.iter().filter(|l| l.entry.kind == Kind::Dir).count() as u32;
    }
    if found != inode.subdirs {
        findings.push(Finding::Subdirs {
            ino,
            said: inode.subdirs,
            found,
        });
    }
    let mut at = ino;
    for _ in 0..DEPTH_MAX {
        if at == Ino::ROOT {
            return Ok(());
        }
        match state::inode(rows, at)? {
            Some(inode) => at = inode.parent(),
            // Reported where the entry is looked at.
            None => return Ok(()),
        }
    }
    findings.push(Finding::Cycle(ino));
    Ok(())
}

fn check_extents(
    rows: &dyn Rows,
    ino: Ino,
    inode: &Inode,
    declared: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), RowsError> {
    let mut next = 0;
    for extent in state::extents(rows, ino, 0, u64::MAX)? {
        if extent.first_block != next {
            findings.push(Finding::Extents {
                ino,
                block: next.min(extent.first_block),
            });
        }
        next = extent.end();
        match extent.content {
            Content::Hole => {}
            Content::Lost => {
                let (first, blocks) = (extent.first_block, extent.count);
                findings.push(Finding::Lost { ino, first, blocks });
            }
            Content::Stored(s) => {
                if inode.key(s.key).is_none() {
                    findings.push(Finding::Key { ino, key: s.key });
                }
                let end = u64::from(s.first_slot) + u64::from(extent.count);
                let info = state::segment(rows, s.segment)?;
                if declared && info.is_none_or(|i| u64::from(i.slots) < end) {
                    findings.push(Finding::Segment {
                        ino,
                        segment: s.segment,
                    });
                }
            }
        }
    }
    let blocks = match &inode.inline {
        Some(_) => 0,
        None => inode.size.div_ceil(BLOCK_LEN as u64),
    };
    let inline_fits = inode
        .inline
        .as_ref()
        .is_none_or(|bytes| bytes.len() as u64 == inode.size);
    if next != blocks || !inline_fits {
        findings.push(Finding::Extents {
            ino,
            block: next.min(blocks),
        });
    }
    Ok(())
}
