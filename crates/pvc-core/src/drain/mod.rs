//! Emptying a node (`flush`) and filling it again (`unflush`), guest by guest.
//!
//! The node itself does it, level by level from what it reads: its own domain state says what is ordered, the guests'
//! records say how far it is. So a restart of its agent goes on where the order was, and a newer order takes the place
//! of an older one at once.
//!
//! ```text
//!            flush                                     unflush
//!   ready ─────────▶ flush ─ no guest left ─▶ flushed ─────────▶ unflush ─ all tried ─▶ ready
//!                      ▲ │                                          │ ▲
//!                      │ └───────────────── unflush ────────────────┘ │ (and flush again, at any time)
//!                      └──────────────────── flush ────────────────────┘
//! ```
//!
//! | guest, seen from a node that is being emptied | what happens |
//! |---|---|
//! | runs here, another node takes it | `migrate`; where it came from is kept in `last_node` |
//! | runs here, no node takes it | shut down with autostart; after 60 s of waiting if the reason may pass |
//! | should run here, but has no process here | is given another node, its state stays |
//! | on its way elsewhere, being shut down, restarting | waited for; it has its own deadlines |
//! | could not be moved | runs on, and is tried again, once at once and then each minute, first with another node |
//! | stopped, disabled, failed, being built, a mirror | left alone; never waited for unless a process of it is still here |

mod forecast;
mod unflush;

pub use forecast::{Forecast, forecast_flush};
pub use unflush::{UNFLUSH_STALLS_AFTER, UnflushStep, UnflushView, next_unflush_step};

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::ids::{NodeName, VmId};
use crate::placement::runs;
use crate::states::VmState;
use crate::time::BootTime;

/// Guests that are moved at a time. Each live migration takes all of the network that it gets: more at once would make each
/// of them longer, and with it the time in which its memory changes again.
pub const MOVES_AT_ONCE: usize = 2;
/// A move that has not ended by then keeps no other guest waiting any more.
pub const MOVE_HOLDS_PLACE: Duration = Duration::from_secs(300);
/// However many moves have outlived [`MOVE_HOLDS_PLACE`], no more than this are under way.
pub const MOVES_AT_MOST: usize = 8;
/// Guests that are shut down at a time.
pub const SHUTDOWNS_AT_ONCE: usize = 8;
/// What could not be moved is tried again after this time.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How long a guest waits for a node when what stands against the nodes may pass, before it is shut down.
pub const PLACE_WITHIN: Duration = Duration::from_secs(60);
/// Waiting for longer than a guest's own deadline by this much is told as trouble.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(60);

/// A guest as a drain sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainGuest {
    /// The guest.
    pub vm: VmId,
    /// Its state.
    pub state: VmState,
    /// Where it should run.
    pub node: NodeName,
    /// Where it belongs, if it was moved for a time.
    pub last_node: Option<NodeName>,
    /// Where a process of it may be.
    pub owner: Option<NodeName>,
    /// Whether a migration of it is on record.
    pub moving: bool,
    /// Whether it starts when its node is made ready.
    pub autostart: bool,
}

/// What is remembered of a guest while an order lasts. All of it may be lost at any time: then it is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainMemory {
    /// The move that was ordered, and when.
    pub ordered: Option<(NodeName, BootTime)>,
    /// Moves that were ordered and came to nothing.
    pub failures: u32,
    /// No new try before.
    pub retry_at: Option<BootTime>,
    /// Nodes that it could not be moved to since all were last tried.
    pub failed_targets: BTreeSet<NodeName>,
    /// Since when no node has taken it.
    pub without_place_since: Option<BootTime>,
    /// In what it was last seen to be waited for, and since when.
    pub waiting: Option<(Waiting, BootTime)>,
}

/// What a guest is waited for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It is on its way to another node.
    Moves,
    /// It is on its way here, ordered before.
    Arrives,
    /// It is being shut down.
    ShutsDown,
    /// It is being restarted.
    Restarts,
    /// It should not run, and its process is being ended.
    Ends,
    /// Others are moved first.
    Queues,
    /// A move came to nothing; it is tried again later.
    TriesAgain,
    /// No node takes it at the moment.
    LacksPlace,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting::Moves => "moving",
            Waiting::Arrives => "arriving",
            Waiting::ShutsDown => "shutting down",
            Waiting::Restarts => "restarting",
            Waiting::Ends => "being stopped",
            Waiting::Queues => "waiting for its turn",
            Waiting::TriesAgain => "could not be moved",
            Waiting::LacksPlace => "no node takes it at the moment",
        })
    }
}

/// What a flush does next about one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlushStep {
    /// It is no business of this node, or rests: it never keeps the node from being `flushed`.
    Nothing,
    /// Wait; look again in the next round.
    Wait(Waiting),
    /// Give it a node and let it move there. These have failed it before: others first.
    Move {
        /// Nodes to be tried last.
        after: BTreeSet<NodeName>,
    },
    /// It has no process here: give it another node, and nothing else.
    PlaceElsewhere,
}

/// What a flush sees of one guest.
#[derive(Debug)]
pub struct FlushView<'a> {
    /// Now.
    pub now: BootTime,
    /// This node.
    pub me: &'a NodeName,
    /// The guest.
    pub guest: &'a DrainGuest,
    /// What is remembered of it.
    pub memory: &'a DrainMemory,
    /// Moves that hold a place, this guest's own not counted.
    pub moves_under_way: usize,
    /// All moves under way, this guest's own not counted.
    pub moves_in_all: usize,
}

/// What a flush does next about one guest. Same view, same step.
pub fn next_flush_step(view: &FlushView<'_>) -> FlushStep {
    if !is_left(view.me, view.guest) {
        return FlushStep::Nothing;
    }
    let guest = view.guest;
    let process_here = guest.owner.as_ref() == Some(view.me);
    let belongs_here = guest.node == *view.me;
    match guest.state {
        VmState::Start if process_here && belongs_here && !guest.moving => next_move(view),
        VmState::Start if process_here => FlushStep::Wait(Waiting::Moves),
        // It would start here, at once or when another node has given it up.
        VmState::Start => FlushStep::PlaceElsewhere,
        // One to where it runs already is ended by the guests' own rounds.
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate if process_here => {
            FlushStep::Wait(Waiting::Moves)
        }
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => FlushStep::Wait(Waiting::Arrives),
        VmState::Shutdown => FlushStep::Wait(Waiting::ShutsDown),
        VmState::Restart => FlushStep::Wait(Waiting::Restarts),
        // A process of it is still here.
        VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Mirror
        | VmState::Delete
        | VmState::Provision
        | VmState::Import
        | VmState::Restore => FlushStep::Wait(Waiting::Ends),
    }
}

fn next_move(view: &FlushView<'_>) -> FlushStep {
    if view.memory.retry_at.is_some_and(|at| view.now < at) {
        return FlushStep::Wait(Waiting::TriesAgain);
    }
    if view.moves_under_way >= MOVES_AT_ONCE || view.moves_in_all >= MOVES_AT_MOST {
        return FlushStep::Wait(Waiting::Queues);
    }
    FlushStep::Move {
        after: view.memory.failed_targets.clone(),
    }
}

impl DrainMemory {
    /// Takes in what is seen of the guest in this round, before anything is decided: a move that was ordered and has
    /// been called off has failed.
    pub fn observe(&mut self, now: BootTime, me: &NodeName, guest: &DrainGuest) {
        let back = guest.node == *me && guest.state == VmState::Start && !guest.moving;
        if let Some((target, _)) = &self.ordered
            && back
        {
            self.failed_targets.insert(target.clone());
            self.failures += 1;
            // The first failure is often the target's: once more at once, elsewhere if that can be.
            self.retry_at = (self.failures > 1).then_some(now + RETRY_AFTER);
            self.ordered = None;
        }
    }

    /// Takes note of what the guest is waited for in.
    pub fn waits(&mut self, now: BootTime, waiting: Option<Waiting>) {
        let same = self.waiting.map(|(waiting, _)| waiting) == waiting;
        if !same {
            self.waiting = waiting.map(|waiting| (waiting, now));
        }
    }

    /// Whether its move keeps others waiting.
    pub fn holds_place(&self, now: BootTime) -> bool {
        self.waiting
            .is_none_or(|(_, since)| now.since(since) < MOVE_HOLDS_PLACE)
    }

    /// Why the guest is trouble, in words; nothing while it goes its ordinary way. `shutdown_timeout` is how long a guest
    /// may take to shut down.
    pub fn trouble(&self, now: BootTime, shutdown_timeout: Duration) -> Option<String> {
        if self.failures > 1 {
            return Some(format!("could not be moved ({} tries)", self.failures));
        }
        let (waiting, since) = self.waiting?;
        let seconds = now.since(since).as_secs();
        let may_take = match waiting {
            Waiting::Moves | Waiting::Arrives => MOVE_HOLDS_PLACE,
            Waiting::ShutsDown | Waiting::Restarts | Waiting::Ends => shutdown_timeout + OVERDUE_AFTER,
            Waiting::Queues => return None,
            Waiting::TriesAgain | Waiting::LacksPlace => Duration::ZERO,
        };
        (now.since(since) >= may_take).then(|| format!("{waiting} for {seconds} s"))
    }
}

/// Whether a guest counts as one that a flush has still to see off.
pub fn is_left(me: &NodeName, guest: &DrainGuest) -> bool {
    guest.owner.as_ref() == Some(me) || (guest.node == *me && runs(guest.state))
}

#[cfg(test)]
mod tests;
