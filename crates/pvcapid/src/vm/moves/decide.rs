//! What a request to move a guest comes to, by what the guest does at the moment.

use std::fmt;
use std::str::FromStr;

use pvc_core::ids::NodeName;
use pvc_core::states::{MigrationMethod, VmState};

use crate::vm::transition::Force;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Away for a while: where it came from is kept.
    Migrate,
    /// Back home.
    Unmigrate,
    /// For good: the new node is its home.
    Move,
}

impl Action {
    const ALL: [Action; 3] = [Action::Migrate, Action::Unmigrate, Action::Move];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Migrate => "migrate",
            Action::Unmigrate => "unmigrate",
            Action::Move => "move",
        })
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Action, String> {
        Action::ALL
            .into_iter()
            .find(|action| action.to_string() == text)
            .ok_or_else(|| format!("{text:?} must be one of migrate, unmigrate, move"))
    }
}

/// Whether the guest may be shut down for it if it can not be moved while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// As the guest is set.
    AsSet,
    /// Live or not at all.
    LiveOnly,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct MoveRequest {
    pub(crate) action: Action,
    /// The node that was named.
    pub(crate) target: Option<NodeName>,
    pub(crate) force: Force,
    pub(crate) liveness: Liveness,
}

/// The guest as the decision sees it.
#[derive(Debug, Clone)]
pub(crate) struct Guest<'a> {
    pub(crate) state: VmState,
    /// Where it should run.
    pub(crate) node: &'a NodeName,
    /// Where it belongs, if it was moved away for a while.
    pub(crate) last_node: Option<&'a NodeName>,
    pub(crate) process: Process<'a>,
    /// Whether a migration of it is on record.
    pub(crate) incoming: bool,
    pub(crate) method: MigrationMethod,
}

/// Whether a process of it may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process<'a> {
    /// None.
    None,
    /// It is being started there.
    Starting(&'a NodeName),
    /// It was let run there.
    Runs(&'a NodeName),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing.
    AlreadySo(Already),
    /// Forget where it came from: where it is now is its home.
    SettleHere,
    /// Put it on another node.
    Go {
        /// Which node.
        to: To,
        /// Where it belongs from then on, if not there.
        home: Option<NodeName>,
        /// What its node is asked for; nothing for a guest without a process, of which only the place changes.
        state: Option<VmState>,
    },
}

/// What is so already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Already {
    /// It is on the node that was named, or at home.
    There,
    /// It is on its way.
    UnderWay,
}

/// Which node a guest goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// That one.
    Named(NodeName),
    /// The best of the others.
    Best,
}

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(
        "it is migrated from {home} already: unmigrate it first, or ask with force, which keeps {home} as its home"
    )]
    MigratedAlready { home: NodeName },
    #[error(
        "it is on its way to {to}: there is one migration of a VM at a time. Wait for its end, or stop the VM"
    )]
    UnderWay { to: NodeName },
    #[error("a migration of it is just ending; try again in some seconds")]
    Ending,
    #[error("it is on node {node} already")]
    OnThatNode { node: NodeName },
    #[error("it is {doing}; wait until that is over")]
    Busy { doing: &'static str },
    #[error("it is being started on node {node}; try again when it runs")]
    Starting { node: NodeName },
    #[error("a process of it may still exist on node {node}; it can be moved once that is seen gone")]
    ProcessLeft { node: NodeName },
    #[error("it is set to be moved by shutdown and start only ('vm meta --method'), and live was asked for")]
    NotLive,
    #[error("unmigrate takes it back to {home}, not to another node: use move")]
    TargetGiven { home: NodeName },
}

/// What a request comes to. Same arguments, same plan.
pub(crate) fn plan(request: &MoveRequest, guest: &Guest<'_>) -> Result<Plan, Denied> {
    match guest.state {
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => return under_way(request, guest),
        VmState::Shutdown => {
            return Err(Denied::Busy {
                doing: "shutting down",
            });
        }
        VmState::Restart => return Err(Denied::Busy { doing: "restarting" }),
        VmState::Provision => return Err(Denied::Busy { doing: "being built" }),
        VmState::Import => {
            return Err(Denied::Busy {
                doing: "being imported",
            });
        }
        VmState::Restore => {
            return Err(Denied::Busy {
                doing: "being restored",
            });
        }
        VmState::Delete => {
            return Err(Denied::Busy {
                doing: "being removed",
            });
        }
        VmState::Start | VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror => {}
    }
    if guest.incoming {
        return Err(Denied::Ending);
    }
    let Some((to, home)) = destination(request, guest)? else {
        return Ok(Plan::AlreadySo(Already::There));
    };
    let Some(to) = to else {
        return Ok(Plan::SettleHere);
    };
    let state = match (guest.process, guest.state) {
        (Process::None, _) => None,
        (Process::Starting(node), VmState::Start) => return Err(Denied::Starting { node: node.clone() }),
        (Process::Starting(node) | Process::Runs(node), state) if state != VmState::Start => {
            return Err(Denied::ProcessLeft { node: node.clone() });
        }
        // It should run elsewhere than it does, and nobody moves it: its agent or a recovery has to see to that first.
        (Process::Runs(node), _) if node != guest.node => {
            return Err(Denied::ProcessLeft { node: node.clone() });
        }
        (Process::Starting(_) | Process::Runs(_), _) => Some(live_state(request, guest, &home)?),
    };
    Ok(Plan::Go { to, home, state })
}

/// Where the guest goes (nothing: where it is becomes its home) and where it belongs then; nothing at all if it is so
/// already.
#[expect(clippy::type_complexity, reason = "used once, right above")]
fn destination(
    request: &MoveRequest,
    guest: &Guest<'_>,
) -> Result<Option<(Option<To>, Option<NodeName>)>, Denied> {
    let here = |target: &NodeName| target == guest.node;
    match (request.action, &request.target, guest.last_node) {
        (Action::Unmigrate, _, None) => Ok(None),
        (Action::Unmigrate, Some(target), Some(home)) if target != home => {
            Err(Denied::TargetGiven { home: home.clone() })
        }
        (Action::Unmigrate, _, Some(home)) => Ok(Some((Some(To::Named(home.clone())), None))),
        // Asked for twice, or by two people.
        (Action::Migrate, Some(target), Some(_)) if here(target) => Ok(None),
        (Action::Migrate, Some(target), None) if here(target) => {
            Err(Denied::OnThatNode { node: target.clone() })
        }
        (Action::Migrate, target, Some(home)) => match request.force {
            Force::No => Err(Denied::MigratedAlready { home: home.clone() }),
            Force::Yes if target.as_ref() == Some(home) => Ok(Some((Some(To::Named(home.clone())), None))),
            Force::Yes => Ok(Some((Some(named(target)), Some(home.clone())))),
        },
        (Action::Migrate, target, None) => Ok(Some((Some(named(target)), Some(guest.node.clone())))),
        (Action::Move, Some(target), None) if here(target) => Ok(None),
        (Action::Move, Some(target), Some(_)) if here(target) => Ok(Some((None, None))),
        (Action::Move, target, _) => Ok(Some((Some(named(target)), None))),
    }
}

fn named(target: &Option<NodeName>) -> To {
    target.clone().map_or(To::Best, To::Named)
}

/// The state that a running guest's node is asked for.
fn live_state(request: &MoveRequest, guest: &Guest<'_>, home: &Option<NodeName>) -> Result<VmState, Denied> {
    match (guest.method, request.liveness) {
        (MigrationMethod::Shutdown, Liveness::LiveOnly) => return Err(Denied::NotLive),
        (MigrationMethod::Shutdown | MigrationMethod::Live | MigrationMethod::None, _) => {}
    }
    // An unmigration that is called off has to know by its state that the target was the guest's home.
    if guest.last_node.is_some() && home.is_none() && request.action != Action::Move {
        return Ok(VmState::Unmigrate);
    }
    Ok(match request.liveness {
        Liveness::AsSet => VmState::Migrate,
        Liveness::LiveOnly => VmState::MigrateLive,
    })
}

/// Of a guest that is on its way already.
fn under_way(request: &MoveRequest, guest: &Guest<'_>) -> Result<Plan, Denied> {
    let same_place = request.target.as_ref().is_none_or(|target| target == guest.node);
    let same_end = match request.action {
        Action::Unmigrate => guest.last_node.is_none(),
        Action::Migrate => guest.last_node.is_some(),
        Action::Move => guest.last_node.is_none() && request.target.is_some(),
    };
    if same_place && same_end {
        Ok(Plan::AlreadySo(Already::UnderWay))
    } else {
        Err(Denied::UnderWay {
            to: guest.node.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn request(action: Action, target: Option<&str>) -> MoveRequest {
        MoveRequest {
            action,
            target: target.map(name),
            force: Force::No,
            liveness: Liveness::AsSet,
        }
    }

    /// A guest whose node is hv1, for a request.
    fn check(
        request: &MoveRequest,
        state: VmState,
        last_node: Option<&str>,
        process: Option<&str>,
    ) -> Result<Plan, Denied> {
        let (node, last_node, process) = (name("hv1"), last_node.map(name), process.map(name));
        plan(
            request,
            &Guest {
                state,
                node: &node,
                last_node: last_node.as_ref(),
                process: process.as_ref().map_or(Process::None, Process::Runs),
                incoming: false,
                method: MigrationMethod::None,
            },
        )
    }

    fn go(to: Option<&str>, home: Option<&str>, state: Option<VmState>) -> Result<Plan, Denied> {
        Ok(Plan::Go {
            to: to.map_or(To::Best, |to| To::Named(name(to))),
            home: home.map(name),
            state,
        })
    }

    #[test]
    fn a_running_guest_is_sent_and_its_home_kept_or_not() {
        let live = Some(VmState::Migrate);
        let start = VmState::Start;
        let here = Some("hv1");
        let migrate = |target| check(&request(Action::Migrate, target), start, None, here);
        assert_eq!(migrate(Some("hv2")), go(Some("hv2"), here, live));
        assert_eq!(migrate(None), go(None, here, live));
        let moved = |target, last| check(&request(Action::Move, target), start, last, here);
        assert_eq!(moved(Some("hv2"), None), go(Some("hv2"), None, live));
        assert_eq!(moved(None, Some("hv3")), go(None, None, live));
        assert_eq!(moved(Some("hv1"), Some("hv3")), Ok(Plan::SettleHere));
        let back = check(&request(Action::Unmigrate, None), start, Some("hv3"), here);
        assert_eq!(back, go(Some("hv3"), None, Some(VmState::Unmigrate)));
        let live_only = MoveRequest {
            liveness: Liveness::LiveOnly,
            ..request(Action::Migrate, Some("hv2"))
        };
        assert_eq!(
            check(&live_only, start, None, here),
            go(Some("hv2"), here, Some(VmState::MigrateLive))
        );
    }

    #[test]
    fn what_is_so_already_is_success() {
        let there = Ok(Plan::AlreadySo(Already::There));
        let start = VmState::Start;
        assert_eq!(
            check(&request(Action::Unmigrate, None), start, None, Some("hv1")),
            there
        );
        assert_eq!(
            check(
                &request(Action::Migrate, Some("hv1")),
                start,
                Some("hv2"),
                Some("hv1")
            ),
            there
        );
        assert_eq!(
            check(&request(Action::Move, Some("hv1")), start, None, Some("hv1")),
            there
        );
        let under_way = Ok(Plan::AlreadySo(Already::UnderWay));
        let moving = VmState::Migrate;
        assert_eq!(
            check(
                &request(Action::Migrate, Some("hv1")),
                moving,
                Some("hv2"),
                Some("hv2")
            ),
            under_way
        );
        assert_eq!(
            check(&request(Action::Migrate, None), moving, Some("hv2"), Some("hv2")),
            under_way
        );
        assert_eq!(
            check(
                &request(Action::Unmigrate, None),
                VmState::Unmigrate,
                None,
                Some("hv2")
            ),
            under_way
        );
    }

    #[test]
    fn a_guest_is_migrated_once_at_a_time_and_never_to_where_it_is() {
        // Lessons 44 and 45.
        let migrate = request(Action::Migrate, Some("hv3"));
        assert_eq!(
            check(&migrate, VmState::Migrate, Some("hv2"), Some("hv2")),
            Err(Denied::UnderWay { to: name("hv1") })
        );
        assert_eq!(
            check(
                &request(Action::Migrate, Some("hv1")),
                VmState::Start,
                None,
                Some("hv1")
            ),
            Err(Denied::OnThatNode { node: name("hv1") })
        );
        assert_eq!(
            check(&migrate, VmState::Start, Some("hv2"), Some("hv1")),
            Err(Denied::MigratedAlready { home: name("hv2") })
        );
        let forced = |target| MoveRequest {
            force: Force::Yes,
            ..request(Action::Migrate, Some(target))
        };
        assert_eq!(
            check(&forced("hv3"), VmState::Start, Some("hv2"), Some("hv1")),
            go(Some("hv3"), Some("hv2"), Some(VmState::Migrate))
        );
        assert_eq!(
            check(&forced("hv2"), VmState::Start, Some("hv2"), Some("hv1")),
            go(Some("hv2"), None, Some(VmState::Unmigrate)),
            "home again"
        );
        assert_eq!(
            check(
                &request(Action::Unmigrate, Some("hv3")),
                VmState::Start,
                Some("hv2"),
                Some("hv1")
            ),
            Err(Denied::TargetGiven { home: name("hv2") })
        );
    }

    #[test]
    fn every_state_of_the_guest_has_its_answer() {
        let migrate = request(Action::Migrate, Some("hv2"));
        for state in VmState::ALL {
            let still = check(&migrate, *state, None, None);
            let running = check(&migrate, *state, None, Some("hv1"));
            match state {
                VmState::Start => {
                    assert_eq!(still, go(Some("hv2"), Some("hv1"), None));
                    assert_eq!(running, go(Some("hv2"), Some("hv1"), Some(VmState::Migrate)));
                }
                VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror => {
                    assert_eq!(still, go(Some("hv2"), Some("hv1"), None), "{state}");
                    assert_eq!(running, Err(Denied::ProcessLeft { node: name("hv1") }), "{state}");
                }
                VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
                    assert!(matches!(running, Err(Denied::UnderWay { .. })), "{state}");
                }
                VmState::Shutdown
                | VmState::Restart
                | VmState::Provision
                | VmState::Import
                | VmState::Restore
                | VmState::Delete => {
                    assert!(matches!(still, Err(Denied::Busy { .. })), "{state}");
                    assert!(matches!(running, Err(Denied::Busy { .. })), "{state}");
                }
            }
        }
    }

    #[test]
    fn live_is_refused_for_a_guest_that_is_set_to_shutdown() {
        // Lesson 47: live or not at all.
        let node = name("hv1");
        let guest = Guest {
            state: VmState::Start,
            node: &node,
            last_node: None,
            process: Process::Runs(&node),
            incoming: false,
            method: MigrationMethod::Shutdown,
        };
        let mut wanted = request(Action::Move, Some("hv2"));
        assert!(plan(&wanted, &guest).is_ok());
        wanted.liveness = Liveness::LiveOnly;
        assert_eq!(plan(&wanted, &guest), Err(Denied::NotLive));
        let ending = Guest {
            incoming: true,
            ..guest.clone()
        };
        assert_eq!(plan(&wanted, &ending), Err(Denied::Ending));
        let starting = Guest {
            process: Process::Starting(&node),
            ..guest
        };
        assert!(matches!(plan(&wanted, &starting), Err(Denied::Starting { .. })));
    }
}
