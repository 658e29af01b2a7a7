//! Which state may be asked for in which state.

use std::fmt;
use std::str::FromStr;

use pvc_core::states::VmState;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Restart,
    Shutdown,
    Stop,
    Disable,
}

impl Request {
    /// Everything that can be asked for.
    pub(crate) const ALL: [Request; 5] = [
        Request::Start,
        Request::Restart,
        Request::Shutdown,
        Request::Stop,
        Request::Disable,
    ];

    /// Whether the guest is to be at rest afterwards.
    pub(crate) fn is_for_rest(self) -> bool {
        match self {
            Request::Shutdown | Request::Stop | Request::Disable => true,
            Request::Start | Request::Restart => false,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::Start => "start",
            Request::Restart => "restart",
            Request::Shutdown => "shutdown",
            Request::Stop => "stop",
            Request::Disable => "disable",
        })
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(text: &str) -> Result<Request, String> {
        Request::ALL
            .into_iter()
            .find(|request| request.to_string() == text)
            .ok_or_else(|| format!("{text:?} must be one of start, restart, shutdown, stop, disable"))
    }
}

/// Whether the client overrides the safety check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Force {
    Yes,
    No,
}

/// What to do about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is so already, or on its way there.
    AlreadySo,
    /// Write that state; the guest's node does the rest.
    Write(VmState),
    /// Write `shutdown` unless that is so already, wait until the guest has stopped, and disable it then.
    ShutDownThenDisable,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("only a running VM can be restarted")]
    NotRunning,
    #[error("it does not run; to clear the failure, start it or stop it")]
    Failed,
    #[error("it is being shut down; wait until it has stopped, or start it to cancel the shutdown")]
    ShuttingDown,
    #[error("it is being migrated; wait until that has ended, or use force")]
    Migrating,
    #[error("its volumes are being written; wait until that has ended")]
    BeingFilled,
    #[error("its volumes are being written; wait until that has ended, or use force")]
    BeingFilledUnlessForced,
    #[error("it is a copy of another cluster's VM; use force to break the mirror")]
    Mirror,
    #[error("it is being removed")]
    BeingRemoved,
}

/// The next step towards what is asked for. The same arguments give the same step.
pub(crate) fn next_step(request: Request, state: VmState, force: Force) -> Result<Step, Denied> {
    let forced = |step, denied| match force {
        Force::Yes => Ok(step),
        Force::No => Err(denied),
    };
    match request {
        Request::Start => match state {
            VmState::Start => Ok(Step::AlreadySo),
            // Starting cancels a shutdown or restart that has not come to its end.
            VmState::Restart | VmState::Shutdown | VmState::Stop | VmState::Disable | VmState::Fail => {
                Ok(Step::Write(VmState::Start))
            }
            VmState::Mirror => forced(Step::Write(VmState::Start), Denied::Mirror),
            // Forced or not: to write `start` in mid-migration would make two nodes its home at once, and a guest
            // must not read volumes that are half filled.
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => Err(Denied::Migrating),
            VmState::Provision | VmState::Import | VmState::Restore => Err(Denied::BeingFilled),
            VmState::Delete => Err(Denied::BeingRemoved),
        },
        Request::Restart => match state {
            VmState::Restart => Ok(Step::AlreadySo),
            VmState::Start => Ok(Step::Write(VmState::Restart)),
            VmState::Shutdown => Err(Denied::ShuttingDown),
            VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror => Err(Denied::NotRunning),
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => Err(Denied::Migrating),
            VmState::Provision | VmState::Import | VmState::Restore => Err(Denied::BeingFilled),
            VmState::Delete => Err(Denied::BeingRemoved),
        },
        Request::Shutdown => match state {
            VmState::Shutdown | VmState::Stop | VmState::Disable => Ok(Step::AlreadySo),
            VmState::Start | VmState::Restart => Ok(Step::Write(VmState::Shutdown)),
            VmState::Fail => Err(Denied::Failed),
            VmState::Mirror => Ok(Step::AlreadySo),
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => Err(Denied::Migrating),
            VmState::Provision | VmState::Import | VmState::Restore => Err(Denied::BeingFilled),
            VmState::Delete => Err(Denied::BeingRemoved),
        },
        Request::Stop => match state {
            VmState::Stop => Ok(Step::AlreadySo),
            // To stop a disabled guest is how it becomes an ordinary one again.
            VmState::Start | VmState::Restart | VmState::Shutdown | VmState::Disable | VmState::Fail => {
                Ok(Step::Write(VmState::Stop))
            }
            VmState::Mirror => forced(Step::Write(VmState::Stop), Denied::Mirror),
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
                forced(Step::Write(VmState::Stop), Denied::Migrating)
            }
            VmState::Provision | VmState::Import | VmState::Restore => {
                forced(Step::Write(VmState::Stop), Denied::BeingFilledUnlessForced)
            }
            VmState::Delete => Err(Denied::BeingRemoved),
        },
        Request::Disable => match state {
            VmState::Disable => Ok(Step::AlreadySo),
            VmState::Stop | VmState::Fail => Ok(Step::Write(VmState::Disable)),
            VmState::Start | VmState::Restart | VmState::Shutdown => Ok(match force {
                Force::Yes => Step::Write(VmState::Disable),
                Force::No => Step::ShutDownThenDisable,
            }),
            VmState::Mirror => forced(Step::Write(VmState::Disable), Denied::Mirror),
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
                forced(Step::Write(VmState::Disable), Denied::Migrating)
            }
            VmState::Provision | VmState::Import | VmState::Restore => {
                forced(Step::Write(VmState::Disable), Denied::BeingFilledUnlessForced)
            }
            VmState::Delete => Err(Denied::BeingRemoved),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request in each state, in the order of `VmState::ALL`: a state's word for writing it, `=` for
    /// already so, `~` for shutting down first, `!` for refused.
    fn row(request: Request, force: Force) -> String {
        let cells: Vec<&str> = VmState::ALL
            .iter()
            .map(|state| match next_step(request, *state, force) {
                Ok(Step::AlreadySo) => "=",
                Ok(Step::Write(state)) => state.as_str(),
                Ok(Step::ShutDownThenDisable) => "~",
                Err(_) => "!",
            })
            .collect();
        cells.join(" ")
    }

    #[test]
    fn every_request_in_every_state() {
        // start restart shutdown stop disable fail migrate migrate-live unmigrate provision import restore mirror
        // delete
        for (request, force, expected) in [
            (
                Request::Start,
                Force::No,
                "= start start start start start ! ! ! ! ! ! ! !",
            ),
            (
                Request::Start,
                Force::Yes,
                "= start start start start start ! ! ! ! ! ! start !",
            ),
            (Request::Restart, Force::No, "restart = ! ! ! ! ! ! ! ! ! ! ! !"),
            (Request::Restart, Force::Yes, "restart = ! ! ! ! ! ! ! ! ! ! ! !"),
            (
                Request::Shutdown,
                Force::No,
                "shutdown shutdown = = = ! ! ! ! ! ! ! = !",
            ),
            (
                Request::Shutdown,
                Force::Yes,
                "shutdown shutdown = = = ! ! ! ! ! ! ! = !",
            ),
            (
                Request::Stop,
                Force::No,
                "stop stop stop = stop stop ! ! ! ! ! ! ! !",
            ),
            (
                Request::Stop,
                Force::Yes,
                "stop stop stop = stop stop stop stop stop stop stop stop stop !",
            ),
            (
                Request::Disable,
                Force::No,
                "~ ~ ~ disable = disable ! ! ! ! ! ! ! !",
            ),
            (
                Request::Disable,
                Force::Yes,
                "disable disable disable disable = disable disable disable disable disable disable disable disable !",
            ),
        ] {
            assert_eq!(row(request, force), expected, "{request} {force:?}");
        }
    }

    #[test]
    fn requests_are_read_by_their_words() {
        for request in Request::ALL {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
        assert!("begin".parse::<Request>().unwrap_err().contains("disable"));
    }
}
