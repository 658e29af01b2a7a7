//! Filling a node again: what waits for it starts, what belongs to it comes home.

use std::time::Duration;

use super::{DrainGuest, DrainMemory, MOVES_AT_ONCE, Waiting};
use crate::ids::NodeName;
use crate::states::VmState;

/// The node is ready when for so long nothing has come on, whatever its guests do: those that are not home by then still
/// arrive, or stay where they are and can be unmigrated by hand. Each guest is tried once, so that all of it has an end.
pub const UNFLUSH_STALLS_AFTER: Duration = Duration::from_secs(600);

/// What an unflush sees of one guest.
#[derive(Debug)]
pub struct UnflushView<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The guest.
    pub guest: &'a DrainGuest,
    /// What is remembered of it.
    pub memory: &'a DrainMemory,
    /// Moves under way, this guest's own not counted.
    pub moves_under_way: usize,
}

/// What an unflush does next about one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnflushStep {
    /// Nothing: it is no business of this node, is home, or was tried already.
    Nothing,
    /// Wait; look again in the next round.
    Wait(Waiting),
    /// It waits for this node: start it, which also cancels a shutdown under way.
    Start,
    /// It runs already: it only has to forget that it waited.
    Forget,
    /// Let it move home.
    ComeHome,
    /// It does not run: it belongs here from now on.
    BelongHere,
    /// It was to leave, and nothing has been done about it yet: it stays.
    Stay,
}

/// What an unflush does next about one guest. Same view, same step. Each guest is tried once.
pub fn next_unflush_step(view: &UnflushView<'_>) -> UnflushStep {
    let guest = view.guest;
    let process_here = guest.owner.as_ref() == Some(view.me);
    let is_home = guest.last_node.as_ref() == Some(view.me);
    if guest.node == *view.me {
        return next_of_own(view);
    }
    if !is_home {
        return UnflushStep::Nothing;
    }
    match guest.state {
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
            if process_here && !guest.moving && guest.state == VmState::Migrate {
                UnflushStep::Stay
            } else {
                UnflushStep::Wait(Waiting::Moves)
            }
        }
        VmState::Restart => UnflushStep::Wait(Waiting::Restarts),
        VmState::Shutdown => UnflushStep::Wait(Waiting::ShutsDown),
        VmState::Start if view.memory.tried() => UnflushStep::Nothing,
        VmState::Start if guest.moving => UnflushStep::Wait(Waiting::Moves),
        VmState::Start if view.moves_under_way >= MOVES_AT_ONCE => UnflushStep::Wait(Waiting::Queues),
        VmState::Start => UnflushStep::ComeHome,
        VmState::Stop | VmState::Disable | VmState::Fail if guest.owner.is_none() => UnflushStep::BelongHere,
        VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => UnflushStep::Nothing,
    }
}

/// A guest whose `node` is this one.
fn next_of_own(view: &UnflushView<'_>) -> UnflushStep {
    let guest = view.guest;
    match guest.state {
        VmState::Stop | VmState::Shutdown if guest.autostart && !view.memory.tried() => UnflushStep::Start,
        VmState::Start | VmState::Restart if guest.autostart => UnflushStep::Forget,
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => UnflushStep::Wait(Waiting::Arrives),
        // A start is the guests' own rounds' work, which say in the record why one fails: it never holds this up. One that
        // failed or was disabled is not started by itself.
        VmState::Stop
        | VmState::Shutdown
        | VmState::Start
        | VmState::Restart
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => UnflushStep::Nothing,
    }
}

impl DrainMemory {
    /// Whether an unflush has tried the guest already.
    pub fn tried(&self) -> bool {
        self.ordered.is_some() || self.failures > 0
    }
}
