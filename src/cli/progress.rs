//! Progress bars, on standard error and only where that is a terminal.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::control::Pending;

/// A bar that fills up while what is pending goes down.
pub(crate) struct Uploads {
    bar: ProgressBar,
    most: u64,
}

impl Uploads {
    /// Shows nothing until the first report.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::hidden();
        bar.set_style(style(
            "{spinner} uploading [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {msg}",
        ));
        Self { bar, most: 0 }
    }

    /// What is left now.
    pub(crate) fn report(&mut self, left: Pending) {
        if self.bar.is_hidden() {
            self.bar
                .set_draw_target(indicatif::ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
        self.most = self.most.max(left.bytes);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - left.bytes);
        self.bar
            .set_message(format!("{} changes left", left.operations));
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar that fills up while blocks come.
pub(crate) struct Blocks {
    bar: ProgressBar,
    most: u64,
}

impl Blocks {
    /// Shows nothing until the first report.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::hidden();
        bar.set_style(style("{spinner} fetching [{wide_bar}] {pos}/{len} blocks"));
        Self { bar, most: 0 }
    }

    /// How many are missing now.
    pub(crate) fn report(&mut self, missing: u64) {
        if self.bar.is_hidden() {
            self.bar
                .set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        self.most = self.most.max(missing);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - missing);
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Counts things whose number is not known before, such as objects checked or files written.
pub(crate) struct Counter {
    bar: ProgressBar,
}

impl Counter {
    /// A spinner that says what is being done.
    pub(crate) fn new(doing: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} {prefix} {msg} ({elapsed})"));
        bar.set_prefix(doing);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// How far it is.
    pub(crate) fn report(&self, count: u64, bytes: u64) {
        self.bar
            .set_message(format!("{count}, {}", HumanBytes(bytes)));
    }

    /// Says something while the spinner is away: it shares its line with nothing.
    pub(crate) fn beside<T>(&self, say: impl FnOnce() -> T) -> T {
        self.bar.suspend(say)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A template of ours that does not parse shows the default bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
