//! libvirt's log of a guest, `/var/log/libvirt/qemu/NAME.log`: how its process here ended.
//!
//! libvirt appends two lines of its own to what QEMU prints there: one that ends in `: starting up ...` before it starts a
//! process, and `TIME: shutting down, reason=WORD` before it ends one, or once it has noticed that one has ended. The
//! line is in the file before the process is killed (`qemuProcessStop` of libvirt 9.0). The word `migrated` stands there
//! only if the target has answered the migration's last question with success (`qemuMigrationSrcConfirmPhase`): after any
//! other answer, or none, libvirt lets the guest run again here, and the word of its later end is another one.
//!
//! Whatever can't be read, or could be read in two ways, is no evidence.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use pvc_core::ids::VmName;
use pvc_core::records::LogMark;
use pvc_core::vm::Ending;

/// Where libvirt's logs of the guests are.
pub(super) const DIRECTORY: &str = "/var/log/libvirt/qemu";

/// What QEMU and libvirt write while a guest is sent is a few lines. If it is more something is odd.
const READ_AT_MOST: u64 = 64 * 1024;

fn path(directory: &Path, name: &VmName) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// How far the guest's log has come.
pub(super) fn mark(directory: &Path, name: &VmName) -> io::Result<LogMark> {
    let metadata = std::fs::metadata(path(directory, name))?;
    Ok(LogMark {
        file: metadata.ino(),
        length: metadata.len(),
    })
}

/// How the guest's process ended, by what stands in its log behind `since`.
pub(super) fn ending(directory: &Path, name: &VmName, since: LogMark) -> Ending {
    match read_since(&path(directory, name), since) {
        Ok(Some(text)) => ending_in(&text),
        Ok(None) => Ending::Unclear,
        Err(error) => {
            tracing::warn!(%name, %error, "libvirt's log of a guest can't be read");
            Ending::Unclear
        }
    }
}

/// What stands behind `since`; `None` if that is too much, or the log was begun anew meanwhile.
fn read_since(path: &Path, since: LogMark) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let added = metadata.len().checked_sub(since.length);
    if metadata.ino() != since.file || added.is_none_or(|added| added > READ_AT_MOST) {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(since.length))?;
    let mut text = Vec::new();
    file.take(READ_AT_MOST + 1).read_to_end(&mut text)?;
    let all = u64::try_from(text.len()).is_ok_and(|length| length <= READ_AT_MOST);
    Ok(all.then_some(text))
}

/// It was sent if the only event is its end by a migration.
fn ending_in(text: &[u8]) -> Ending {
    let text = String::from_utf8_lossy(text);
    let mut events = text
        .lines()
        .filter(|line| line.contains(": starting up") || line.contains(": shutting down"));
    match (events.next(), events.next()) {
        (Some(line), None) if is_end_by_migration(line) => Ending::Sent,
        (Some(_) | None, _) => Ending::Unclear,
    }
}

/// The line in its whole length, so that nothing that QEMU prints is taken for it.
fn is_end_by_migration(line: &str) -> bool {
    line.strip_suffix(": shutting down, reason=migrated")
        .is_some_and(is_time)
}

/// `2026-11-30 02:15:07.123+0000`.
fn is_time(text: &str) -> bool {
    const SHAPE: &str = "0000-00-00 00:00:00.000+0000";
    text.len() == SHAPE.len()
        && text.chars().zip(SHAPE.chars()).all(|(c, shape)| match shape {
            '0' => c.is_ascii_digit(),
            _ => c == shape,
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    // As libvirt 9.0.0 and QEMU 7.2 of Debian 12 write them.
    const START: &str = "2026-11-30 02:08:56.441+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4+deb12u2 (Debian), \
                         qemu version: 7.2.22Debian 1:7.2+dfsg-7+deb12u18+b3, hostname: hv2.pvc.local\n\
                         LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=web,debug-threads=on \\\n-S\n";
    const BEGUN: &str = "2026-11-30 02:08:58.366+0000: initiating migration\n";
    const SENT: &str = "2026-11-30 02:08:58.401+0000: shutting down, reason=migrated\n";
    const KILLED: &str = "2026-11-30T02:08:58.403541Z qemu-system-x86_64: terminating on signal 15 from pid 83 (/usr/sbin/libvirtd)\n";

    struct Log(tempfile::TempDir);

    impl Log {
        fn new() -> Log {
            let log = Log(tempfile::tempdir().unwrap());
            log.append(START);
            log
        }

        fn append(&self, text: &str) {
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(path(self.0.path(), &name()))
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn mark(&self) -> LogMark {
            mark(self.0.path(), &name()).unwrap()
        }

        fn ending(&self, since: LogMark) -> Ending {
            ending(self.0.path(), &name(), since)
        }
    }

    fn name() -> VmName {
        "web".parse().unwrap()
    }

    fn ending_of(text: &str) -> Ending {
        let log = Log::new();
        let since = log.mark();
        log.append(text);
        log.ending(since)
    }

    #[test]
    fn only_an_end_by_migration_says_that_a_guest_was_sent() {
        // Taken for sent, one that ran on here would be followed by a memory that is older than its volumes.
        assert_eq!(ending_of(SENT), Ending::Sent);
        assert_eq!(ending_of(&format!("{BEGUN}{SENT}{KILLED}")), Ending::Sent);
        for word in [
            "shutdown",
            "crashed",
            "destroyed",
            "failed",
            "daemon",
            "unknown",
            "saved",
        ] {
            assert_eq!(
                ending_of(&SENT.replace("migrated", word)),
                Ending::Unclear,
                "{word}"
            );
        }
        assert_eq!(ending_of(""), Ending::Unclear);
        assert_eq!(ending_of(&format!("{BEGUN}{KILLED}")), Ending::Unclear);
        // It came back, or ended before: which life this was can't be told.
        let twice = [
            format!("{SENT}{START}"),
            format!("{SENT}{SENT}"),
            format!("{}{SENT}", SENT.replace("migrated", "crashed")),
        ];
        for text in twice {
            assert_eq!(ending_of(&text), Ending::Unclear, "{text}");
        }
    }

    #[test]
    fn nothing_that_only_looks_like_it_is_taken_for_it() {
        for text in [
            "qemu: a device says 2026-11-30 02:08:58.401+0000: shutting down, reason=migrated\n",
            "2026-11-30 02:08:58.401+0000: shutting down, reason=migrated?\n",
            "2026-11-30 02:08:58.401+0000: shutting down, reason=migrate",
            "2026-11-30 02:08: shutting down, reason=migrated\n",
            ": shutting down, reason=migrated\n",
        ] {
            assert_eq!(ending_of(text), Ending::Unclear, "{text}");
        }
    }

    #[test]
    fn an_earlier_life_of_the_guest_is_no_evidence() {
        // It was sent away once, and came back with the disk full: nothing was written of its present life.
        let log = Log::new();
        log.append(SENT);
        assert_eq!(log.ending(log.mark()), Ending::Unclear);
    }

    #[test]
    fn a_log_that_can_not_be_read_is_no_evidence() {
        let log = Log::new();
        let since = log.mark();
        log.append(&"x".repeat(64 * 1024));
        log.append(SENT);
        assert_eq!(log.ending(since), Ending::Unclear, "too long");
        // Begun anew, as log rotation does.
        let log = Log::new();
        let since = log.mark();
        let file = path(log.0.path(), &name());
        std::fs::rename(&file, file.with_extension("log.0")).unwrap();
        log.append(&format!("{}{SENT}", " ".repeat(START.len())));
        assert_eq!(log.ending(since), Ending::Unclear, "another file");
        // Emptied.
        let log = Log::new();
        let since = log.mark();
        std::fs::write(path(log.0.path(), &name()), SENT).unwrap();
        assert_eq!(log.ending(since), Ending::Unclear, "shorter");
        std::fs::remove_file(path(log.0.path(), &name())).unwrap();
        assert_eq!(log.ending(since), Ending::Unclear, "gone");
        assert!(mark(log.0.path(), &name()).is_err());
    }
}
