//! What the tests of this folder share: network namespaces of their own, and waiting for conditions.

use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};

/// Runs `test` on a thread with a network namespace of its own, which vanishes with the thread. Needs root.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        // SAFETY: unshare takes flags only and touches no memory; it concerns this thread alone.
        #[expect(unsafe_code, reason = "the only way to a network namespace of one's own")]
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "unshare: {}", std::io::Error::last_os_error());
        ip("link set lo up");
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words in the namespace of this thread and returns what it printed.
pub(crate) fn ip(words: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests look at the kernel with a tool that is not ours"
    )]
    let output = std::process::Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `condition` holds, at most 20 s, and says how long it took.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = HostClock.now();
    while !condition() {
        let waited = HostClock.now().since(start);
        assert!(waited < Duration::from_secs(20), "{what}: not within 20 s");
        pause(Duration::from_millis(10));
    }
    HostClock.now().since(start)
}

/// Lets a little time pass between two looks.
pub(crate) fn pause(duration: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the pause between two looks at a condition"
    )]
    std::thread::sleep(duration);
}
