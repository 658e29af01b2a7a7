//! Named points at which a test can hold a daemon, in debug builds only.
//!
//! A race between a decision and its effect is a few microseconds wide; a test that wants to see what happens in it
//! makes it as wide as it likes. With `PVC_PAUSE_DIR` naming a directory, [`point`] looks for a file of its own name
//! there; while the file exists it blocks the calling thread, and says so with a file `NAME.reached` beside it.
//! `docs/development/pause-points.md` shows the use. In release builds the function is empty.

/// Holds the calling thread while a test asks for it; otherwise returns at once.
///
/// It blocks like a stopped thread would, on purpose: timers and other tasks of this thread stand still too. The hold
/// ends by itself after 10 minutes.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(debug_assertions)]
pub use debug::point;

#[cfg(debug_assertions)]
mod debug {
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::time::Duration;

    use crate::clock::{Clock, HostClock};

    /// The variable that names the directory.
    const VARIABLE: &str = "PVC_PAUSE_DIR";
    const POLL: Duration = Duration::from_millis(20);
    /// A hold that outlives its test must end some time.
    const LIMIT: Duration = Duration::from_secs(600);

    /// Holds the calling thread while a test asks for it; otherwise returns at once.
    ///
    /// It blocks like a stopped thread would, on purpose: timers and other tasks of this thread stand still too. The
    /// hold ends by itself after 10 minutes.
    pub fn point(name: &'static str) {
        static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
        if let Some(directory) = DIRECTORY.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)) {
            hold(directory, name, LIMIT);
        }
    }

    fn hold(directory: &Path, name: &str, limit: Duration) {
        let request = directory.join(name);
        if !request.exists() {
            return;
        }
        let reached = directory.join(format!("{name}.reached"));
        if let Err(error) = std::fs::write(&reached, "") {
            tracing::warn!(point = name, %error, "failed to tell that a pause point was reached");
        }
        tracing::warn!(point = name, "held at a pause point");
        let deadline = HostClock.now() + limit;
        while request.exists() && HostClock.now() < deadline {
            #[expect(
                clippy::disallowed_methods,
                reason = "the point of a pause is to block the thread; tests only"
            )]
            std::thread::sleep(POLL);
        }
        tracing::warn!(point = name, "released from a pause point");
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_holds_while_its_file_exists_and_only_then() {
            let dir = tempfile::tempdir().unwrap();
            // Without a file of its name it returns at once and leaves no trace.
            std::fs::write(dir.path().join("other"), "").unwrap();
            hold(dir.path(), "vm-create", LIMIT);
            assert!(!dir.path().join("vm-create.reached").exists());

            let request = dir.path().join("vm-create");
            std::fs::write(&request, "").unwrap();
            let path = dir.path().to_owned();
            let held = std::thread::spawn(move || hold(&path, "vm-create", LIMIT));
            let reached = dir.path().join("vm-create.reached");
            while !reached.exists() {
                assert!(!held.is_finished(), "it returned without being released");
                std::thread::yield_now();
            }
            assert!(!held.is_finished());
            std::fs::remove_file(&request).unwrap();
            held.join().unwrap();
        }

        #[test]
        fn a_forgotten_hold_ends_by_itself() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("vm-create"), "").unwrap();
            hold(dir.path(), "vm-create", Duration::from_millis(50));
            assert!(dir.path().join("vm-create.reached").exists());
        }
    }
}
