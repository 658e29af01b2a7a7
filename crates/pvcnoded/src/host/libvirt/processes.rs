//! Guests' processes, as `/proc` shows them.
//!
//! Any process counts that was started with `-uuid` and a guest's UUID, whatever its name: to overlook an emulator
//! under another name would be to believe a guest gone that still writes.

use std::io;
use std::path::Path;

use pvc_core::ids::VmId;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::host::{Changed, EndBy, GuestProcess};

/// Every guest process below `proc`.
pub(super) fn guest_processes(proc: &Path) -> io::Result<Vec<GuestProcess>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the look at the directory and the look at the process.
        let Some(command_line) = unless_gone(std::fs::read(entry.path().join("cmdline")))? else {
            continue;
        };
        let Some(vm) = guest(&command_line) else {
            continue;
        };
        let Some(stat) = unless_gone(std::fs::read(entry.path().join("stat")))? else {
            continue;
        };
        let start_ticks = start_ticks(&stat).ok_or_else(|| {
            let message = format!("/proc/{pid}/stat can't be read");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        found.push(GuestProcess { vm, pid, start_ticks });
    }
    Ok(found)
}

/// Ends `process`, and no other: the process is held by a descriptor before it is looked at, so that its number can't
/// pass to another one in between.
pub(super) fn end(proc: &Path, process: &GuestProcess, by: EndBy) -> io::Result<Changed> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
    let held = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(rustix::io::Errno::SRCH) => return Ok(Changed::AlreadySo),
        Err(error) => return Err(error.into()),
    };
    if !guest_processes(proc)?.contains(process) {
        return Ok(Changed::AlreadySo);
    }
    let signal = match by {
        EndBy::Term => Signal::TERM,
        EndBy::Kill => Signal::KILL,
    };
    match pidfd_send_signal(&held, signal) {
        Ok(()) => Ok(Changed::Done),
        Err(rustix::io::Errno::SRCH) => Ok(Changed::AlreadySo),
        Err(error) => Err(error.into()),
    }
}

fn unless_gone(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The guest in a command line: `-uuid UUID`, `-uuid=UUID` or with two hyphens.
fn guest(command_line: &[u8]) -> Option<VmId> {
    let mut words = command_line
        .split(|byte| *byte == 0)
        .map(|word| std::str::from_utf8(word).unwrap_or_default());
    words.next()?;
    while let Some(word) = words.next() {
        let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        match option {
            Some("uuid") => return words.next()?.parse().ok(),
            Some(option) => {
                if let Some(uuid) = option.strip_prefix("uuid=") {
                    return uuid.parse().ok();
                }
            }
            None => {}
        }
    }
    None
}

/// Field 22 of `/proc/PID/stat`. The second field is a name in parentheses, and may hold anything.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stat);
    let (_, after_name) = text.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    const STAT: &str = "(qemu (x) 86) S 1 77 77 0 -1 4194560 5 0 0 0 10 20 0 0 20 0 4 0 123456 900 80 18446744073709551615 1 1";

    fn proc(processes: &[(u32, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (pid, command_line) in processes {
            let path = dir.path().join(pid.to_string());
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("cmdline"), command_line.replace(' ', "\0")).unwrap();
            std::fs::write(path.join("stat"), format!("{pid} {STAT}")).unwrap();
        }
        std::fs::create_dir(dir.path().join("sys")).unwrap();
        dir
    }

    #[test]
    fn guests_are_found_by_their_uuid_however_it_is_written() {
        let dir = proc(&[
            (1, "/sbin/init"),
            (2, ""),
            (
                70,
                &format!("/usr/bin/qemu-system-x86_64 -name guest=web -uuid {UUID} -S"),
            ),
            (71, &format!("/opt/emulator --uuid={UUID}")),
            (72, "/usr/bin/qemu-system-x86_64 -uuid"),
            (73, "/usr/bin/qemu-system-x86_64 -uuid nonsense"),
            (74, &format!("-uuid {UUID}")),
        ]);
        let mut found = guest_processes(dir.path()).unwrap();
        found.sort_by_key(|process| process.pid);
        let expected = [70, 71].map(|pid| GuestProcess {
            vm: UUID.parse().unwrap(),
            pid,
            start_ticks: 123_456,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_process_that_ends_meanwhile_is_no_error_but_an_unreadable_one_is() {
        let dir = proc(&[(70, &format!("qemu -uuid {UUID}"))]);
        std::fs::remove_file(dir.path().join("70/stat")).unwrap();
        assert_eq!(guest_processes(dir.path()).unwrap(), []);
        std::fs::write(dir.path().join("70/stat"), "70 (qemu").unwrap();
        assert!(guest_processes(dir.path()).is_err());
    }

    // A guest that libvirt has forgotten is ended by its number, which may have passed to anything.
    #[test]
    fn only_the_very_process_is_ended() {
        // A shell that carries a guest's words in its command line, as an emulator does.
        #[expect(clippy::disallowed_methods, reason = "a process of the test's own")]
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read line; exit 0", "emulator", "-uuid", UUID])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let proc = Path::new("/proc");
        let found = loop {
            let mut found = guest_processes(proc).unwrap();
            found.retain(|process| process.pid == child.id());
            if let Some(found) = found.pop() {
                break found;
            }
        };
        let former = GuestProcess {
            start_ticks: found.start_ticks - 1,
            ..found.clone()
        };
        assert_eq!(end(proc, &former, EndBy::Kill).unwrap(), Changed::AlreadySo);
        assert!(child.try_wait().unwrap().is_none());
        assert_eq!(end(proc, &found, EndBy::Kill).unwrap(), Changed::Done);
        child.wait().unwrap();
        assert_eq!(end(proc, &found, EndBy::Kill).unwrap(), Changed::AlreadySo);
    }

    #[test]
    fn this_machine_can_be_read() {
        guest_processes(Path::new("/proc")).unwrap();
    }
}
