//! What goes wrong in the command, and the exit code that scripts see.

use std::fmt;

/// Exit codes; documented in `docs/operations/cli.md`. A code once given out keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The request was refused or failed, or the answer to a question is no.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The cluster can not be reached, or its store has no quorum: trying again later makes sense.
    Unreachable = 4,
    /// What was begun has not come to its end in time; it may still.
    Timeout = 5,
}

/// An error that ends the command.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn failure(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Failure, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Usage, message)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// What every command ends in.
pub(crate) type Result<T> = std::result::Result<T, CliError>;
