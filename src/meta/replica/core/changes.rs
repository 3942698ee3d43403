//! Which rows are others than before, while commits are folded, in bounded memory.

use super::MergeDiff;
use crate::rows::{Rows, RowsError};
use crate::undo::{Frame, Recorder};

/// Rows whose earlier value is remembered at a time. Few in tests, so that random programs go that way.
const REMEMBERED: usize = if cfg!(test) { 12 } else { 8192 };

/// What was changed since the beginning. A row that is changed back later may be told nevertheless.
#[derive(Default)]
pub(super) struct Changes {
    before: Frame,
    diff: MergeDiff,
}

impl Changes {
    /// Does something to rows and notes which.
    pub(super) fn record<T>(
        &mut self,
        rows: &mut dyn Rows,
        act: impl FnOnce(&mut dyn Rows) -> Result<T, RowsError>,
    ) -> Result<T, RowsError> {
        if self.diff.everything {
            return act(rows);
        }
        let mut recorder = Recorder::resume(rows, std::mem::take(&mut self.before));
        let done = act(&mut recorder)?;
        self.before = recorder.finish();
        if self.before.len() >= REMEMBERED {
            self.tell(rows)?;
        }
        Ok(done)
    }

    fn tell(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        let before = std::mem::take(&mut self.before);
        self.diff.extend(MergeDiff::from_frame(&before, rows)?);
        Ok(())
    }

    /// All that was changed, by so many commits of others.
    pub(super) fn finish(
        mut self,
        rows: &dyn Rows,
        commits: usize,
    ) -> Result<MergeDiff, RowsError> {
        self.tell(rows)?;
        self.diff.commits = commits;
        Ok(self.diff)
    }
}
