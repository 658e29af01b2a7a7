//! How the lab tells what it is doing.

use std::time::{Duration, Instant};

/// Is told each step when it begins.
pub trait Progress {
    /// A step begins; `what` is one line without a full stop.
    fn step(&mut self, what: &str);
}

/// Writes each step as a line to standard error, with the seconds since the start.
#[derive(Debug)]
pub struct Lines {
    started: Instant,
}

impl Lines {
    /// Counts from now.
    #[must_use]
    pub fn new() -> Lines {
        Lines {
            started: Instant::now(),
        }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Default for Lines {
    fn default() -> Self {
        Lines::new()
    }
}

impl Progress for Lines {
    fn step(&mut self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.started.elapsed().as_secs_f32());
    }
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&mut self, _what: &str) {}
}
