//! How this agent is, shared by its loops.

use tokio::sync::watch;

use crate::node_lease::NodeRight;

/// Where the agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPhase {
    /// Registered, not taking part.
    Starting,
    /// Taking part.
    Running,
    /// Asked to stop.
    ShuttingDown,
}

/// How this agent is. Clones share it.
#[derive(Debug, Clone)]
pub struct AgentState {
    phase: watch::Sender<AgentPhase>,
    node_right: NodeRight,
}

impl AgentState {
    /// An agent that is starting and has no right yet.
    pub fn new() -> AgentState {
        AgentState {
            phase: watch::Sender::new(AgentPhase::Starting),
            node_right: NodeRight::default(),
        }
    }

    /// Where it is.
    pub fn phase(&self) -> AgentPhase {
        *self.phase.borrow()
    }

    /// Moves on.
    pub fn enter(&self, phase: AgentPhase) {
        self.phase.send_replace(phase);
    }

    /// Returns when it moves on from where it is now. Cancel-safe.
    pub async fn phase_changed(&self) {
        // The sender lives as long as `self`, so this can't fail.
        let _ = self.phase.subscribe().changed().await;
    }

    /// Its node lease.
    pub fn node_right(&self) -> &NodeRight {
        &self.node_right
    }
}

impl Default for AgentState {
    fn default() -> AgentState {
        AgentState::new()
    }
}
