//! What can go wrong in a benchmark.

use std::io;
use std::path::Path;
use thiserror::Error;

/// Why a piece of work was not measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A system call of the harness itself.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command of a peer or of a server.
    #[error("{command}: {status}\n{output}")]
    Command {
        /// As it was started.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// Something that was waited for.
    #[error("{what}: not within {seconds} s\n{output}")]
    Late {
        /// What should have happened.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// What the process in question said last.
        output: String,
    },
    /// A peer that gives back other bytes or files than it was given.
    #[error("wrong result: {0}")]
    Wrong(String),
    /// SIGINT or SIGTERM; everything that was started is ended.
    #[error("interrupted")]
    Interrupted,
}

/// Adds to an I/O error what was tried.
pub(crate) trait Context<T> {
    /// `what` is a verb and an object: "read /x/y".
    fn context(self, what: impl FnOnce() -> String) -> Result<T, BenchError>;

    /// The same for one path.
    fn at(self, verb: &str, path: &Path) -> Result<T, BenchError>
    where
        Self: Sized,
    {
        self.context(|| format!("{verb} {}", path.display()))
    }
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io {
            what: what(),
            source: source.into(),
        })
    }
}
