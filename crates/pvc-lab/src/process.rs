//! Runs programs with a deadline: every program the lab starts goes through here.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Pause between two looks at a condition: short beside anything that is waited for, long beside its cost.
const POLL: Duration = Duration::from_millis(20);

/// How long after a program's end its output may still be on the way.
const GRACE: Duration = Duration::from_secs(1);

/// What a program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + the signal's number if a signal ended it, as shells say it.
    pub status: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// Whether the program ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// The standard output of a program that succeeded.
    ///
    /// # Errors
    /// The program's status and what it printed, if it failed.
    pub fn ok(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        let said = format!("{}\n{}", self.stderr.trim(), self.stdout.trim());
        bail!("status {}: {}", self.status, last_lines(said.trim(), 20))
    }
}

/// One program to run: arguments, input, deadline.
pub(crate) struct Run {
    command: Command,
    shown: String,
    input: Option<Vec<u8>>,
    deadline: Duration,
}

impl fmt::Debug for Run {
    // The input may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("shown", &self.shown)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A program and its arguments, to be run with a deadline of 30 s if no other is given.
pub(crate) fn run<S: AsRef<OsStr>>(argv: &[S]) -> Run {
    let mut words = argv.iter().map(AsRef::as_ref);
    let program = words.next().unwrap_or_else(|| OsStr::new("false"));
    let mut command = Command::new(program);
    command.args(words);
    // `su` keeps the search path of a user, who has no need of mount or ip.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    let shown = argv
        .iter()
        .map(|word| word.as_ref().to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    Run {
        command,
        shown,
        input: None,
        deadline: Duration::from_secs(30),
    }
}

impl Run {
    /// Ends the program, and all of its process group, if it takes longer.
    pub(crate) fn within(mut self, deadline: Duration) -> Run {
        self.deadline = deadline;
        self
    }

    /// Text for its standard input. Secrets go here and never among the arguments.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Run {
        self.input = Some(input.into());
        self
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Run {
        self.command.arg(argument);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(key, value);
        self
    }

    /// Runs to the end, whatever the exit status.
    pub(crate) fn output(mut self) -> Result<Output> {
        let started = Instant::now();
        self.command
            .stdin(if self.input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot run `{}`", short(&self.shown)))?;
        // A thread for each end of the three pipes: whichever fills up first, nobody waits for anybody.
        if let Some((mut pipe, input)) = child.stdin.take().zip(self.input.take()) {
            // A program that does not read all of its input is no error of ours.
            thread::spawn(move || pipe.write_all(&input).ok());
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let ended = wait(&mut child, started + self.deadline)?;
        if ended.is_none() {
            kill_group(&child);
            child.wait().context("cannot reap")?;
        }
        let grace = Instant::now() + GRACE;
        let output = Output {
            status: ended.map_or(124, shell_status),
            stdout: stdout.text(grace),
            stderr: stderr.text(grace),
        };
        if ended.is_none() {
            let said = format!("{}{}", output.stdout, output.stderr);
            bail!(
                "`{}` did not end within {} s{}{}",
                short(&self.shown),
                self.deadline.as_secs_f32(),
                if said.trim().is_empty() { "" } else { "; it said: " },
                last_lines(said.trim(), 10)
            );
        }
        Ok(output)
    }

    /// Runs to the end and wants status 0; gives its standard output.
    pub(crate) fn ok(self) -> Result<String> {
        let shown = self.shown.clone();
        self.output()?
            .ok()
            .with_context(|| format!("`{}` failed", short(&shown)))
    }

    /// Runs with the caller's own terminal and without a deadline; gives the exit status.
    pub(crate) fn interactive(mut self) -> Result<i32> {
        let status = self
            .command
            .status()
            .with_context(|| format!("cannot run `{}`", short(&self.shown)))?;
        Ok(shell_status(status))
    }

    /// Runs a program that leaves a daemon behind, whose output goes to `log`. The program itself has to end at once.
    pub(crate) fn detached(mut self, log: File) -> Result<()> {
        let copy = log.try_clone().context("cannot share a log")?;
        self.command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let status = self
            .command
            .status()
            .with_context(|| format!("cannot run `{}`", short(&self.shown)))?;
        if !status.success() {
            bail!("`{}` failed: {status}", short(&self.shown));
        }
        Ok(())
    }

    /// Starts it with pipes for its input and its output, the input begun with what was given.
    pub(crate) fn spawn_talking(mut self) -> Result<Background> {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0);
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot run `{}`", short(&self.shown)))?;
        if let Some((pipe, input)) = child.stdin.as_mut().zip(self.input.take()) {
            pipe.write_all(&input)
                .with_context(|| format!("cannot talk to `{}`", short(&self.shown)))?;
        }
        Ok(Background { child })
    }

    /// Starts it and gives the handle; its output goes where `output` says.
    pub(crate) fn spawn(mut self, output: Stdio) -> Result<Background> {
        self.command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .process_group(0);
        let child = self
            .command
            .spawn()
            .with_context(|| format!("cannot run `{}`", short(&self.shown)))?;
        Ok(Background { child })
    }
}

/// A program that runs beside the caller; dropping the handle ends it.
#[derive(Debug)]
pub struct Background {
    child: Child,
}

impl Background {
    /// Whether it still runs.
    ///
    /// # Errors
    /// If the kernel cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Its standard output, if it was started with a pipe. Can be taken once.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard input, if it has one. Can be taken once.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Ends it with SIGKILL and waits for its end.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        kill_group(&self.child);
        self.child.wait().ok();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `condition` gives something, looking every 20 ms.
///
/// # Errors
/// Names `what` when the deadline has passed; an error of the condition ends the wait at once.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {} s for {what}", deadline.as_secs_f32());
        }
        thread::sleep(POLL);
    }
}

/// The last lines of a text, for messages.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn short(shown: &str) -> String {
    if shown.chars().count() <= 160 {
        return shown.to_owned();
    }
    shown.chars().take(157).chain("...".chars()).collect()
}

/// What a thread reads from a pipe.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

impl Collector {
    /// All that was read until the end of the pipe, or until `grace`: a daemon that the program started may hold
    /// the pipe open for ever.
    fn text(self, grace: Instant) -> String {
        while !self.thread.is_finished() && Instant::now() < grace {
            thread::sleep(Duration::from_millis(1));
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Collector {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&bytes);
    let thread = thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 8192];
        // What was read before an error is still worth showing.
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            shared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(&chunk[..count]);
        }
    });
    Collector { bytes, thread }
}

fn wait(child: &mut Child, end: Instant) -> Result<Option<ExitStatus>> {
    // Most programs here end within milliseconds: look often at first.
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a program")? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(POLL);
    }
}

fn kill_group(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile.
        kill_process_group(pid, Signal::KILL).ok();
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_status_and_both_outputs() {
        let output = run(&["sh", "-c", "echo out; echo err >&2; exit 3"])
            .output()
            .unwrap();
        assert_eq!(
            output,
            Output {
                status: 3,
                stdout: "out\n".into(),
                stderr: "err\n".into()
            }
        );
        assert!(output.ok().unwrap_err().to_string().contains("status 3: err"));
    }

    #[test]
    fn input_reaches_the_program_even_when_it_is_large() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(run(&["wc", "-c"]).input(input).ok().unwrap().trim(), "1048576");
    }

    // A hung command in a frozen node must not hang the test that asked for it, nor leave a child behind
    // that keeps the pipe open.
    #[test]
    fn a_program_over_its_deadline_is_ended_with_its_children() {
        let started = Instant::now();
        let error = run(&["sh", "-c", "echo begun; sleep 60 & sleep 60"])
            .within(Duration::from_millis(200))
            .output()
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("did not end within 0.2 s; it said: begun"),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn waiting_names_what_it_waited_for() {
        let error = wait_for("the moon", Duration::from_millis(1), || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0.001 s for the moon");
    }
}
