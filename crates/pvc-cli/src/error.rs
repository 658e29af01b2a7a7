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
    /// The cluster can not be reached, or its store has no quorum: nothing was changed, trying again later makes sense.
    Unreachable = 4,
    /// It was asked for, and not seen to be done: it may have been, or may still be.
    Unseen = 5,
    /// Ctrl-C, as a shell counts it.
    Interrupted = 130,
}

/// What went wrong, where something else is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Anything that asking again would not mend.
    Other,
    /// Nothing was done: the request did not arrive, or the cluster could not take it for now.
    NotNow,
    /// The request was sent; the connection was lost before the reply was here.
    Lost,
    /// The request was sent; no reply came in time.
    Silent,
    /// The request itself is wrong (400): who wrote it can mend it.
    Invalid,
    /// Something else is done to the same thing at the moment (409).
    Busy,
}

impl Cause {
    /// Whether the same request may be answered when it is sent again at once. What hangs will hang again.
    pub(crate) fn is_passing(self) -> bool {
        match self {
            Cause::NotNow | Cause::Lost => true,
            Cause::Other | Cause::Silent | Cause::Invalid | Cause::Busy => false,
        }
    }
}

/// An error that ends the command.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) cause: Cause,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError {
            exit,
            message: message.into(),
            cause: Cause::Other,
        }
    }

    /// The same error, with what went wrong.
    pub(crate) fn because(mut self, cause: Cause) -> CliError {
        self.cause = cause;
        self
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
