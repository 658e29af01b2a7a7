//! Noticing that something changes in the cluster: by its stream of events, or by looking every few seconds where there
//! is none.
//!
//! What an event says is not used. It means "look again", so that a missed one costs time and nothing else.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::client::Client;
use crate::wait;

/// How often is looked without a stream.
const POLL: Duration = Duration::from_secs(2);
/// How often is looked beside a stream: it may have died without our noticing.
const SAFETY_NET: Duration = Duration::from_secs(15);
/// Changes come in groups; one look is enough for all of one.
const GROUP: Duration = Duration::from_millis(200);
/// The time before a lost stream is opened again.
const REOPEN: Duration = Duration::from_secs(2);
/// Signals that may wait. More say nothing new.
const QUEUE: usize = 4;

/// What the reader of the stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// The stream is open.
    Open,
    /// Something has changed.
    Changed,
    /// The stream has ended.
    Lost,
}

/// The changes of a cluster, from now on.
#[derive(Debug)]
pub(crate) struct Changes {
    signals: Receiver<Signal>,
    streaming: bool,
}

impl Changes {
    /// Begins to listen.
    pub(crate) fn of(client: Client) -> Changes {
        let (sender, signals) = sync_channel(QUEUE);
        std::thread::spawn(move || listen(&client, &sender));
        Changes {
            signals,
            streaming: false,
        }
    }

    /// Waits until it is worth looking again: at most [`SAFETY_NET`].
    pub(crate) fn wait(&mut self) {
        let limit = if self.streaming { SAFETY_NET } else { POLL };
        match self.signals.recv_timeout(limit) {
            // What happened before the stream was open is not in it.
            Ok(Signal::Open) => self.streaming = true,
            Ok(Signal::Lost) => self.streaming = false,
            Ok(Signal::Changed) => {
                wait::pause(GROUP);
                self.drain();
            }
            Err(RecvTimeoutError::Timeout) => {}
            // There is no stream here.
            Err(RecvTimeoutError::Disconnected) => {
                self.streaming = false;
                wait::pause(POLL);
            }
        }
    }

    fn drain(&mut self) {
        while let Ok(signal) = self.signals.try_recv() {
            match signal {
                Signal::Open => self.streaming = true,
                Signal::Lost => self.streaming = false,
                Signal::Changed => {}
            }
        }
    }
}

/// Reads the stream until nobody listens, or the cluster says that it has none.
fn listen(client: &Client, sender: &SyncSender<Signal>) {
    loop {
        match client.events(&[]) {
            Ok(None) => return,
            Ok(Some(stream)) => {
                if sender.send(Signal::Open).is_err() || read(stream, sender).is_err() {
                    return;
                }
            }
            // Out of reach for now: whoever lists notices that as well, and says it.
            Err(_) => {}
        }
        wait::pause(REOPEN);
    }
}

/// Nobody listens any more.
struct Gone;

fn read(stream: impl Read, sender: &SyncSender<Signal>) -> Result<(), Gone> {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        if is_event(&line) {
            match sender.try_send(Signal::Changed) {
                // Full: somebody will look anyway.
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return Err(Gone),
            }
        }
    }
    sender.send(Signal::Lost).map_err(|_| Gone)
}

/// Whether a line of the stream carries an event; comments and empty lines are signs of life.
fn is_event(line: &str) -> bool {
    line.starts_with("data:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_noticed_and_signs_of_life_are_not() {
        let (sender, signals) = sync_channel(QUEUE);
        let stream = ": alive\n\nid: 7\nevent: vm\ndata: {\"name\":\"web1\"}\n\n: alive\n\n";
        assert!(read(stream.as_bytes(), &sender).is_ok());
        assert_eq!(signals.try_recv(), Ok(Signal::Changed));
        assert_eq!(signals.try_recv(), Ok(Signal::Lost));
        assert!(signals.try_recv().is_err());
    }

    #[test]
    fn a_flood_of_events_does_not_hold_up_the_reader() {
        let (sender, signals) = sync_channel(QUEUE);
        let reader = std::thread::spawn(move || read("data: 1\n".repeat(10_000).as_bytes(), &sender));
        let mut changes = Changes {
            signals,
            streaming: true,
        };
        while changes.streaming {
            changes.wait();
        }
        assert!(reader.join().unwrap().is_ok());
    }
}
