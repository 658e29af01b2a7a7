//! Ctrl-C where it should not simply end the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::error::Exit;

/// What is said to who presses Ctrl-C, before the program ends.
static LAST_WORDS: OnceLock<&'static str> = OnceLock::new();
/// Whether an editor runs in the program's place.
static EDITING: AtomicBool = AtomicBool::new(false);
static LISTENS: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends the program with these words: what was asked for goes on without it, and who does not know that
/// asks for it again, or takes it for called off.
pub(crate) fn say_when_ended(words: &'static str) {
    let _ = LAST_WORDS.set(words);
    listen();
}

/// Does something during which Ctrl-C is not meant for this program, though the terminal sends it to it as well.
pub(crate) fn unheard<T>(work: impl FnOnce() -> T) -> T {
    listen();
    EDITING.store(true, Ordering::SeqCst);
    let done = work();
    EDITING.store(false, Ordering::SeqCst);
    done
}

/// Whether whoever started the program wants it to live through Ctrl-C, as a shell does that starts it in the background.
fn is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (SIGINT - 1)) != 0)
}

/// Where no signals can be had, Ctrl-C is what it always is.
fn listen() {
    if LISTENS.swap(true, Ordering::SeqCst) {
        return;
    }
    if is_ignored() {
        return;
    }
    let Ok(mut signals) = Signals::new([SIGINT]) else {
        return;
    };
    thread::spawn(move || {
        for _ in signals.forever() {
            if EDITING.load(Ordering::SeqCst) {
                continue;
            }
            if let Some(words) = LAST_WORDS.get() {
                anstream::eprintln!("\n{words}");
            }
            std::process::exit(Exit::Interrupted as i32);
        }
    });
}
