//! The API as a user sees it: on the floating address of the upstream network.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_lab::{Network, forward::API_PORT};
use serde_json::Value;

use crate::clock::Moment;
use crate::switch;

/// Between two requests of a poller.
const POLL: Duration = Duration::from_millis(50);
/// A dead address is to cost little, so that the moment it lives again is seen.
const CONNECT: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_millis(1000);
/// For single requests.
const PATIENT: Duration = Duration::from_secs(5);

/// An answer of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: String,
}

impl Reply {
    /// The body of a reply with status 200.
    pub(crate) fn json(&self) -> Result<Value> {
        if self.status != 200 {
            bail!("the API says {}: {}", self.status, self.body.trim());
        }
        serde_json::from_str(&self.body).with_context(|| format!("the API says no JSON: {}", self.body))
    }
}

/// Asks the API on that address once; the calling thread has to be in the switch.
fn request(address: Ipv4Addr, path: &str, token: &str, connect: Duration, answer: Duration) -> Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address.into(), API_PORT), connect)?;
    stream.set_read_timeout(Some(answer))?;
    stream.set_write_timeout(Some(answer))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nX-Api-Key: {token}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("half an answer")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .context("no HTTP answer")?;
    Ok(Reply {
        status,
        body: body.to_owned(),
    })
}

/// Asks the API on the floating address once.
pub(crate) fn get(path: &str, token: &str) -> Result<Reply> {
    get_from(Network::Upstream.floating_v4(), path, token)
}

/// Asks the API on some address once.
pub(crate) fn get_from(address: Ipv4Addr, path: &str, token: &str) -> Result<Reply> {
    let (path, token) = (path.to_owned(), token.to_owned());
    thread::spawn(move || {
        switch::enter()?;
        request(address, &path, &token, PATIENT, PATIENT)
    })
    .join()
    .unwrap_or_else(|_| bail!("the thread that asks the API ended early"))
}

/// One try of a poller.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    /// When it was sent.
    pub(crate) sent: Moment,
    /// When its answer was there, or when it was given up.
    pub(crate) ended: Moment,
    /// HTTP status; none without an answer.
    pub(crate) status: Option<u16>,
    /// Body of the answer.
    pub(crate) body: String,
}

impl Try {
    fn is_good(&self) -> bool {
        matches!(self.status, Some(200..=299))
    }
}

/// Asks the API on the floating address again and again, until it is dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    tries: Arc<Mutex<Vec<Try>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Poller {
    /// Begins.
    pub(crate) fn start(path: &str) -> Poller {
        let tries = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (path, shared, stopped) = (path.to_owned(), Arc::clone(&tries), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            switch::enter()?;
            while !stopped.load(Ordering::Relaxed) {
                let sent = Moment::now();
                let reply = request(Network::Upstream.floating_v4(), &path, "", CONNECT, ANSWER).ok();
                let ended = Moment::now();
                let (status, body) =
                    reply.map_or((None, String::new()), |reply| (Some(reply.status), reply.body));
                let attempt = Try {
                    sent,
                    ended,
                    status,
                    body,
                };
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(attempt);
                thread::sleep(POLL.saturating_sub(ended.since(sent)));
            }
            Ok(())
        });
        Poller {
            tries,
            stop,
            thread: Some(thread),
        }
    }

    /// All tries so far.
    pub(crate) fn tries(&self) -> Vec<Try> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many good answers came so far.
    pub(crate) fn answers(&self) -> usize {
        self.tries().iter().filter(|attempt| attempt.is_good()).count()
    }

    /// When the first good answer came to a question sent at that moment or later.
    pub(crate) fn first_good(&self, since: Moment) -> Option<Moment> {
        self.tries()
            .iter()
            .find(|attempt| attempt.sent >= since && attempt.is_good())
            .map(|attempt| attempt.ended)
    }

    /// When the first good answer came that names this node, to a question sent at that moment or later.
    pub(crate) fn first_naming(&self, node: &str, since: Moment) -> Option<Moment> {
        self.tries()
            .iter()
            .find(|attempt| attempt.sent >= since && attempt.is_good() && attempt.body.contains(node))
            .map(|attempt| attempt.ended)
    }

    /// The longest time between two good answers since that moment, the last one before it included.
    pub(crate) fn longest_gap(&self, since: Moment) -> Duration {
        let tries = self.tries();
        let good: Vec<Moment> = tries
            .iter()
            .filter(|attempt| attempt.is_good())
            .map(|attempt| attempt.ended)
            .collect();
        let first = good.iter().rposition(|at| *at < since).unwrap_or(0);
        let good = good.get(first..).unwrap_or_default();
        good.windows(2)
            .filter_map(|pair| match pair {
                [one, other] => Some(other.since(*one)),
                _ => None,
            })
            .max()
            .unwrap_or_default()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ended early if the switch is gone, which every other observation then says too.
            thread.join().ok();
        }
    }
}
