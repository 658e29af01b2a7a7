//! Logging: to the journal under systemd, else text or JSON to standard error.
//!
//! A line is handed to a thread that writes it; when that thread cannot keep up (a stalled journal, a full disk), lines
//! are dropped and counted. Nothing that logs ever waits: the heartbeat must not depend on a log.
//! [`init_keeping`] keeps the last lines in memory as well, for whoever shows them elsewhere.
//!
//! Under systemd lines go to standard error with a priority in front (`<6>...`, see sd-daemon(3)), and their fields are
//! in the text. (The journal's native protocol would store the fields apart, where a plain `journalctl` does not show
//! them; but messages here are constant and the fields say what happened.)

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The variable that overrides what is logged, in the syntax of tracing's `EnvFilter`: `debug`,
/// `info,pvcnoded::fencing=trace`.
pub const FILTER_VARIABLE: &str = "PVC_LOG";
/// Lines that may wait for the writer.
const QUEUE_LENGTH: usize = 4096;
/// How long the end of the process waits for the last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How log lines look and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For the journal: a priority, no time.
    Journal,
    /// For people: text with the time.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl Format {
    /// The journal's format if standard error is connected to the journal, else text.
    pub fn detect() -> Format {
        let stream = std::env::var("JOURNAL_STREAM").ok();
        let stderr = rustix::fs::fstat(io::stderr().as_fd())
            .ok()
            .map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
        // systemd's variable is inherited by programs started later with another standard error, so it must match.
        if stream.is_some() && stream == stderr {
            Format::Journal
        } else {
            Format::Text
        }
    }

    /// How the log says that it lost lines.
    fn notice(self, lost: u64) -> String {
        let message = "the log could not keep up and dropped lines";
        match self {
            Format::Journal => format!("{}{message} dropped={lost}\n", priority(Level::WARN)),
            Format::Text => format!("WARN {message} dropped={lost}\n"),
            Format::Json => format!("{{\"level\":\"WARN\",\"message\":\"{message}\",\"dropped\":{lost}}}\n"),
        }
    }
}

impl FromStr for Format {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Format, TelemetryError> {
        match text {
            "journal" => Ok(Format::Journal),
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(TelemetryError::UnknownFormat {
                text: text.to_owned(),
            }),
        }
    }
}

/// How much is logged when `PVC_LOG` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// What changes, and what a person must look at.
    Normal,
    /// Also why nothing happens: `logging.debug_logging`.
    Debug,
}

impl Verbosity {
    fn filter(self) -> &'static str {
        match self {
            // The client library tells each connection; ours are told by the store.
            Verbosity::Normal => "info,zookeeper_client=warn",
            // Only ours: the libraries' debugging would drown it.
            Verbosity::Debug => {
                "info,zookeeper_client=warn,pvc_common=debug,pvc_core=debug,pvcnoded=debug,pvcapid=debug"
            }
        }
    }
}

impl From<&crate::config::Logging> for Verbosity {
    fn from(logging: &crate::config::Logging) -> Verbosity {
        if logging.debug {
            Verbosity::Debug
        } else {
            Verbosity::Normal
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `PVC_LOG` cannot be read.
    #[error("{FILTER_VARIABLE} is not a valid filter")]
    BadFilter {
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is no such format.
    #[error("{text:?} is not a log format; it must be one of journal, text, json")]
    UnknownFormat {
        /// What was asked for.
        text: String,
    },
    /// The writing thread could not be started.
    #[error("failed to start the thread that writes the log")]
    Thread {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the log's end: when dropped, it waits for the last lines, for at most a second.
#[must_use = "the last lines of the log are lost without it"]
pub struct Telemetry {
    queue: Queue,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let (done, is_done) = channel();
        if self.queue.lines.try_send(Entry::Flush(done)).is_ok() {
            // After the limit the process ends all the same.
            let _ = is_done.recv_timeout(FLUSH_LIMIT);
        }
    }
}

/// Sets logging up for the whole process. Call it once, early in `main`, and keep the result until the end.
///
/// # Errors
/// `PVC_LOG` is wrong, or the process cannot start a thread.
pub fn init(format: Format, verbosity: Verbosity) -> Result<Telemetry, TelemetryError> {
    init_keeping(format, verbosity, &RecentLines::new(0))
}

/// As [`init`]; the last lines are kept in `recent` too.
///
/// # Errors
/// As [`init`].
pub fn init_keeping(
    format: Format,
    verbosity: Verbosity,
    recent: &RecentLines,
) -> Result<Telemetry, TelemetryError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => text,
        Ok(_) | Err(_) => verbosity.filter().to_owned(),
    };
    let filter = EnvFilter::try_new(filter).map_err(|source| TelemetryError::BadFilter { source })?;
    let queue = Queue::start(io::stderr(), format, QUEUE_LENGTH)
        .map_err(|source| TelemetryError::Thread { source })?;
    tracing_subscriber::registry()
        .with(filter)
        .with(layer(format, queue.clone()))
        .with(recent.layer())
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(Telemetry { queue })
}

fn layer<S>(format: Format, queue: Queue) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Lines { queue, format });
    match format {
        Format::Journal => layer.without_time().with_level(false).boxed(),
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// What the writing thread is asked to do.
enum Entry {
    Line(Vec<u8>),
    /// Answer when everything before is written.
    Flush(Sender<()>),
}

/// The bounded queue to the writing thread.
#[derive(Clone)]
struct Queue {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn start(sink: impl Write + Send + 'static, format: Format, length: usize) -> io::Result<Queue> {
        let (lines, entries) = sync_channel(length);
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = Queue {
            lines,
            dropped: Arc::clone(&dropped),
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(sink, format, &entries, &dropped))?;
        Ok(queue)
    }

    fn push(&self, line: Vec<u8>) {
        match self.lines.try_send(Entry::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn write_all(mut sink: impl Write, format: Format, entries: &Receiver<Entry>, dropped: &AtomicU64) {
    while let Ok(entry) = entries.recv() {
        // A log that cannot be written has nowhere to say so.
        match entry {
            Entry::Line(line) => {
                let _ = sink.write_all(&line);
            }
            Entry::Flush(done) => {
                let _ = sink.flush();
                let _ = done.send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = sink.write_all(format.notice(lost).as_bytes());
        }
    }
}

/// Makes a writer for each event.
struct Lines {
    queue: Queue,
    format: Format,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        self.line(Level::INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        self.line(*meta.level())
    }
}

impl Lines {
    fn line(&self, level: Level) -> Line<'_> {
        let prefix = match self.format {
            Format::Journal => Some(priority(level)),
            Format::Text | Format::Json => None,
        };
        Line {
            queue: &self.queue,
            prefix,
            text: Vec::new(),
        }
    }
}

/// systemd's priority of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// One event while it is formatted; queued when dropped.
struct Line<'a> {
    queue: &'a Queue,
    prefix: Option<&'static str>,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        let Some(prefix) = self.prefix else {
            self.queue.push(text);
            return;
        };
        // Each line is an entry of the journal with a priority of its own.
        let mut lines = Vec::with_capacity(text.len() + prefix.len());
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines.extend_from_slice(prefix.as_bytes());
            lines.extend_from_slice(line.trim_ascii_start());
            lines.push(b'\n');
        }
        self.queue.push(lines);
    }
}

/// Bytes that are kept of the last lines, whatever their number. Beyond this the text is no end of a log any more, and
/// whoever writes it to the store on each change would keep that busy.
pub const RECENT_BYTES: usize = 128 * 1024;
/// Bytes of one line. A line that holds a program's whole output must not push all others out.
const LINE_BYTES: usize = 2048;

/// The last lines of the log, from `info` upwards, in the format for people. Clones share them.
#[derive(Debug, Clone)]
pub struct RecentLines {
    most: usize,
    ring: Arc<Mutex<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    /// How many there have ever been.
    count: u64,
}

impl RecentLines {
    /// Keeps that many lines, and no more than [`RECENT_BYTES`] of them.
    pub fn new(lines: usize) -> RecentLines {
        RecentLines {
            most: lines,
            ring: Arc::default(),
        }
    }

    /// How many are kept at most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many there have ever been: another number tells that there are new ones.
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// That number, and the lines that are kept.
    pub fn lines(&self) -> (u64, Vec<Arc<str>>) {
        let ring = self.lock();
        (ring.count, ring.lines.iter().cloned().collect())
    }

    fn layer<S>(&self) -> Option<Box<dyn Layer<S> + Send + Sync>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        (self.most > 0).then(|| {
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(Keeper(self.clone()))
                .with_filter(LevelFilter::INFO)
                .boxed()
        })
    }

    /// Takes the text of one event in, as the log does. Whoever logs is held up for no longer than it takes to put some lines in their place.
    pub fn keep(&self, text: &str) {
        let lines: Vec<Arc<str>> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| Arc::from(tidy(line)))
            .collect();
        let mut dropped = Vec::new();
        let mut ring = self.lock();
        for line in lines {
            ring.count += 1;
            ring.bytes += line.len() + 1;
            ring.lines.push_back(line);
            while ring.lines.len() > self.most || ring.bytes > RECENT_BYTES {
                let Some(oldest) = ring.lines.pop_front() else {
                    break;
                };
                ring.bytes = ring.bytes.saturating_sub(oldest.len() + 1);
                dropped.push(oldest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line without what would move a terminal's cursor, and not longer than it may be.
fn tidy(line: &str) -> String {
    let mut tidy: String = line
        .chars()
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    if tidy.len() > LINE_BYTES {
        let mut end = LINE_BYTES;
        while !tidy.is_char_boundary(end) {
            end -= 1;
        }
        tidy.truncate(end);
        tidy.push_str(" ...");
    }
    tidy
}

/// Makes a writer for each event that is kept.
struct Keeper(RecentLines);

impl<'a> MakeWriter<'a> for Keeper {
    type Writer = KeptLine<'a>;

    fn make_writer(&'a self) -> KeptLine<'a> {
        KeptLine {
            recent: &self.0,
            text: Vec::new(),
        }
    }
}

/// One event while it is formatted; kept when dropped.
struct KeptLine<'a> {
    recent: &'a RecentLines,
    text: Vec<u8>,
}

impl Write for KeptLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for KeptLine<'_> {
    fn drop(&mut self) {
        self.recent.keep(&String::from_utf8_lossy(&self.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that keeps what is written and can be held shut.
    #[derive(Clone, Default)]
    struct Sink {
        written: Arc<Mutex<Vec<u8>>>,
        gate: Arc<Mutex<()>>,
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn flush(queue: &Queue) {
        let (done, is_done) = channel();
        queue.lines.send(Entry::Flush(done)).unwrap();
        is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    /// What two events look like in a format.
    fn logged(format: Format) -> String {
        let sink = Sink::default();
        let queue = Queue::start(sink.clone(), format, QUEUE_LENGTH).unwrap();
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new("info"))
            .with(layer(format, queue.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _round = tracing::info_span!("round", n = 7).entered();
            tracing::info!(vm = "web", "guest started");
            tracing::debug!("not shown");
            tracing::error!(error = %"first\nsecond", "guest failed");
        });
        flush(&queue);
        sink.text()
    }

    #[test]
    fn the_journal_gets_priorities_and_fields_in_the_text() {
        let text = logged(Format::Journal);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(
            lines[0],
            "<6>round{n=7}: pvc_common::telemetry::tests: guest started vm=\"web\""
        );
        assert!(
            lines[1].starts_with("<3>round{n=7}:") && lines[1].contains("guest failed"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("<3>") && lines[2].ends_with("second"),
            "{text}"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            (lines.len(), &lines[0]["vm"], &lines[0]["message"]),
            (2, &"web".into(), &"guest started".into())
        );
        assert_eq!(lines[1]["level"], "ERROR");
    }

    #[test]
    fn text_has_time_and_level() {
        let text = logged(Format::Text);
        assert!(
            text.starts_with("20") && text.contains("  INFO round{n=7}:"),
            "{text}"
        );
    }

    // A stalled journal must not stop the heartbeat of a node that logs: it would be fenced for it.
    #[test]
    fn a_stalled_log_drops_lines_and_holds_nobody_up() {
        let sink = Sink::default();
        let queue = Queue::start(sink.clone(), Format::Journal, 10).unwrap();
        let held = sink.gate.lock().unwrap();
        // This returns although nothing can be written; otherwise the test hangs here.
        for number in 0..100 {
            queue.push(format!("line {number}\n").into_bytes());
        }
        drop(held);
        flush(&queue);
        flush(&queue);
        let text = sink.text();
        assert!(text.starts_with("line 0\n"), "{text}");
        let written = text.lines().filter(|line| line.starts_with("line")).count();
        assert!(written <= 11, "{text}");
        let told: usize = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("<4>")?
                    .split_once("dropped=")?
                    .1
                    .parse::<usize>()
                    .ok()
            })
            .sum();
        assert_eq!(written + told, 100, "{text}");
    }

    /// The kept lines after `log` has logged, without their times.
    fn kept(lines: usize, log: impl FnOnce()) -> Vec<String> {
        let recent = RecentLines::new(lines);
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new("debug"))
            .with(recent.layer());
        tracing::subscriber::with_default(subscriber, log);
        let (count, lines) = recent.lines();
        assert_eq!(count, recent.count());
        lines
            .iter()
            .map(|line| match line.split_once(' ') {
                Some((time, rest)) if time.starts_with("20") && time.ends_with('Z') => rest.trim_start(),
                // What follows in a line of its own.
                Some(_) | None => &**line,
            })
            .map(str::to_owned)
            .collect()
    }

    // Who writes the kept lines to the store must not make lines by that, and debugging would never stop.
    #[test]
    fn the_last_lines_are_kept_without_what_is_for_debugging() {
        let lines = kept(2, || {
            tracing::info!("first");
            tracing::info!(vm = "web", "guest started");
            tracing::debug!("why nothing happens");
            tracing::error!("guest failed");
        });
        assert_eq!(
            lines,
            [
                "INFO pvc_common::telemetry::tests: guest started vm=\"web\"",
                "ERROR pvc_common::telemetry::tests: guest failed"
            ]
        );
        assert_eq!(kept(0, || tracing::info!("first")), [""; 0]);
    }

    // A password in the store's log could be read by whoever may look at the cluster.
    #[test]
    fn kept_lines_show_no_secret_and_are_whole_lines_of_text() {
        let lines = kept(10, || {
            let password = crate::secret::Secret::new("hunter2");
            tracing::info!(?password, reason = %"a\u{1b}[31m\0b\tc\nd", "BMC tested");
        });
        let text = lines.join("|");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("password=<secret>"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\t'), "{text:?}");
    }

    #[test]
    fn kept_lines_take_no_more_than_their_room() {
        let long = "x".repeat(10 * LINE_BYTES);
        let lines = kept(1_000_000, || {
            for _ in 0..200 {
                tracing::info!("{long}");
            }
        });
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES + 8), "{lines:?}");
        assert!(lines.len() > 10);
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!(bytes <= RECENT_BYTES, "{bytes}");
    }

    #[test]
    fn debugging_is_for_our_own_crates() {
        let filter = EnvFilter::try_new(Verbosity::Debug.filter()).unwrap();
        assert!(filter.to_string().contains("pvcnoded=debug"));
        assert_eq!(
            filter.max_level_hint(),
            Some(tracing::level_filters::LevelFilter::DEBUG)
        );
    }
}
