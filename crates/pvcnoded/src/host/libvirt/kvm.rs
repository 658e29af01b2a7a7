//! Whether guests can run on KVM here: found out by trying.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::xml::Acceleration;

/// `_IO(0xAE, 0x01)`.
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;

/// Looks whether this host's KVM makes virtual machines, and says so in the log.
pub(super) fn probe() -> Acceleration {
    let outcome = has_virtualisation(Path::new("/proc/cpuinfo")).and_then(|()| create_machine());
    match outcome {
        Ok(()) => Acceleration::Kvm,
        Err(reason) => {
            tracing::warn!(%reason, "KVM does not work on this host: guests are emulated, which is slow");
            Acceleration::Emulation
        }
    }
}

/// The device can exist where the processor has no virtualisation of its own (a KVM made of software, in a virtual
/// machine): it makes machines, but no ordinary kernel boots in them.
fn has_virtualisation(cpuinfo: &Path) -> Result<(), String> {
    if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        return Ok(());
    }
    let text = std::fs::read_to_string(cpuinfo).map_err(|error| format!("{}: {error}", cpuinfo.display()))?;
    let found = text.lines().filter(|line| line.starts_with("flags")).any(|line| {
        line.split_ascii_whitespace()
            .any(|flag| matches!(flag, "vmx" | "svm"))
    });
    if found {
        Ok(())
    } else {
        Err("the processor shows neither vmx nor svm".to_owned())
    }
}

fn create_machine() -> Result<(), String> {
    let failed = |error: io::Error| format!("/dev/kvm: {error}");
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(failed)?;
    // SAFETY: the descriptor is open, and the call takes a number and touches no memory of ours.
    #[expect(unsafe_code, reason = "an ioctl")]
    let machine = unsafe { libc::ioctl(device.as_raw_fd(), KVM_CREATE_VM, 0) };
    if machine < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: the call has just made this descriptor, and nobody else has it.
    #[expect(unsafe_code, reason = "closes what the ioctl has opened")]
    drop(unsafe { OwnedFd::from_raw_fd(machine) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_virtualisation_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpuinfo");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            has_virtualisation(&path).is_ok()
        };
        assert!(check("flags\t\t: fpu vme svm lm\n"));
        assert!(check("flags\t\t: fpu vmx\nflags\t\t: fpu vmx\n"));
        assert!(!check("vmx flags\t: ept\nflags\t\t: fpu svm_lock hypervisor\n"));
        assert!(!check(""));
    }
}
