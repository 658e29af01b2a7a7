//! Guests.
//!
//! * `record` - what decides over a guest, with versions; finding a guest by name or UUID.
//! * `entries` - guests as they are sent, kept until they change.
//! * `parsed` - what their XML says, kept until it changes.
//! * `list` - guests as the API shows them.
//! * `define`, `volumes` - defining and modifying: checks, shared volumes.
//! * `transition` - which state may be asked for in which state: a pure table.
//! * `state`, `undefine` - carrying that out.
//! * `locks` - removing the locks that a dead client has left.
//! * `tags`, `rename`, `console` - what belongs to one guest.
//! * `devices` - attaching devices to guests that run, and detaching them.
//! * `functions` - SR-IOV functions that it names.
//! * `needs` - what a definition names and the cluster has to have.
//! * `meta` - how a guest is placed, moved and recovered.
//! * `moves` - moving guests from node to node.
//! * `wait` - waiting for an agent to have done it.

pub(crate) mod console;
pub(crate) mod define;
pub(crate) mod devices;
pub(crate) mod entries;
pub(crate) mod functions;
pub(crate) mod list;
pub(crate) mod locks;
pub(crate) mod meta;
pub(crate) mod moves;
pub(crate) mod needs;
pub(crate) mod parsed;
pub(crate) mod record;
pub(crate) mod rename;
pub(crate) mod state;
pub(crate) mod tags;
pub(crate) mod transition;
pub(crate) mod undefine;
pub(crate) mod volumes;
pub(crate) mod wait;

#[cfg(test)]
mod interleavings;

use crate::access::Caller;

/// Who gives an order, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct By<'a> {
    /// Who.
    pub(crate) who: &'a Caller,
    /// In seconds since 1970.
    pub(crate) at: u64,
}

/// How often a transaction is tried again after somebody else was faster.
const RETRIES: usize = 8;
