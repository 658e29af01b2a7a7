//! The recent events.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use super::diff::Event;

/// Events that are kept: some minutes of a busy cluster.
const KEPT: usize = 4096;

/// Which event of which run of a daemon: after a restart, or on another node, counting begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventId {
    run: u32,
    number: u64,
}

impl EventId {
    /// One that no run has: nothing after it is known.
    pub(crate) fn unknown() -> EventId {
        EventId {
            run: 0,
            number: u64::MAX,
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<EventId, ()> {
        let (run, number) = text.split_once('-').ok_or(())?;
        Ok(EventId {
            run: u32::from_str_radix(run, 16).map_err(drop)?,
            number: number.parse().map_err(drop)?,
        })
    }
}

/// An event with its number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) id: EventId,
    pub(crate) event: Event,
}

/// The recent events of this run.
#[derive(Debug)]
pub(super) struct Ring {
    run: u32,
    last: u64,
    events: VecDeque<Arc<Numbered>>,
}

impl Ring {
    pub(super) fn new(run: Uuid) -> Ring {
        let (run, ..) = run.as_fields();
        Ring {
            run,
            last: 0,
            events: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, event: Event) -> Arc<Numbered> {
        self.last += 1;
        let numbered = Arc::new(Numbered {
            id: self.last(),
            event,
        });
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Arc::clone(&numbered));
        numbered
    }

    /// The last event.
    pub(super) fn last(&self) -> EventId {
        EventId {
            run: self.run,
            number: self.last,
        }
    }

    /// Those after that one; `None` if they are not all here.
    pub(super) fn after(&self, id: EventId) -> Option<Vec<Arc<Numbered>>> {
        let oldest_missing = self.last - u64::try_from(self.events.len()).unwrap_or(self.last);
        if id.run != self.run || id.number < oldest_missing || id.number > self.last {
            return None;
        }
        let newer = self.events.iter().filter(|event| event.id.number > id.number);
        Some(newer.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::diff::{Action, Kind};
    use super::*;

    fn event(name: usize) -> Event {
        Event {
            kind: Kind::Node,
            action: Action::Changed,
            what: json!({"name": name}),
        }
    }

    #[test]
    fn a_client_goes_on_where_it_was_as_long_as_all_is_kept() {
        let mut ring = Ring::new(Uuid::from_u128(7 << 96));
        assert_eq!(ring.after(ring.last()), Some(Vec::new()));
        let first = ring.last();
        for number in 0..KEPT {
            ring.push(event(number));
        }
        assert_eq!(ring.after(first).map(|events| events.len()), Some(KEPT));
        ring.push(event(KEPT));
        assert_eq!(ring.after(first), None, "one is gone");
        let id: EventId = "00000007-4095".parse().unwrap();
        assert_eq!(id.to_string(), "00000007-4095");
        let missed = ring.after(id).unwrap();
        assert_eq!((missed.len(), missed[0].id.number), (2, 4096));
        // Of another run, and of the future.
        assert_eq!(ring.after("00000008-4095".parse().unwrap()), None);
        assert_eq!(ring.after("00000007-9999".parse().unwrap()), None);
        for text in ["", "7", "x-1", "7-", "7-x", "123456789-1"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
