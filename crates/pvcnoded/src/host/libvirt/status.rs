//! libvirt's states of a domain in our words.

use libc::c_int;
use virt_sys as sys;

use crate::host::{DomainStatus, PauseReason};

/// What libvirt says of a domain, before the one case that needs a second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// This.
    Is(DomainStatus),
    /// Paused "by the user": created paused and not resumed since, or paused by hand.
    PausedByUser,
}

/// Reads a state and its reason. A number that is not known here is a pause for another reason: of no state do we
/// know less than that it may have a process, and of no pause that we may end it.
pub(super) fn status(state: c_int, reason: c_int) -> Said {
    let unknown = DomainStatus::Paused(PauseReason::Other);
    let Ok(state) = u32::try_from(state) else {
        return Said::Is(unknown);
    };
    Said::Is(match state {
        // Blocked is running: waiting for something.
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => DomainStatus::Running,
        sys::VIR_DOMAIN_PAUSED => return pause(reason),
        sys::VIR_DOMAIN_SHUTDOWN => DomainStatus::ShuttingDown,
        sys::VIR_DOMAIN_SHUTOFF => DomainStatus::Off,
        sys::VIR_DOMAIN_CRASHED => DomainStatus::Crashed,
        // Asleep by its own wish; its process exists.
        sys::VIR_DOMAIN_PMSUSPENDED => unknown,
        sys::VIR_DOMAIN_NOSTATE => unknown,
        _ => unknown,
    })
}

fn pause(reason: c_int) -> Said {
    let Ok(reason) = u32::try_from(reason) else {
        return Said::Is(DomainStatus::Paused(PauseReason::Other));
    };
    Said::Is(DomainStatus::Paused(match reason {
        sys::VIR_DOMAIN_PAUSED_USER => return Said::PausedByUser,
        sys::VIR_DOMAIN_PAUSED_STARTING_UP => PauseReason::StartingUp,
        sys::VIR_DOMAIN_PAUSED_IOERROR => PauseReason::IoError,
        sys::VIR_DOMAIN_PAUSED_MIGRATION
        | sys::VIR_DOMAIN_PAUSED_POSTCOPY
        | sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => PauseReason::Migration,
        sys::VIR_DOMAIN_PAUSED_UNKNOWN
        | sys::VIR_DOMAIN_PAUSED_SAVE
        | sys::VIR_DOMAIN_PAUSED_DUMP
        | sys::VIR_DOMAIN_PAUSED_WATCHDOG
        | sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT
        | sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN
        | sys::VIR_DOMAIN_PAUSED_SNAPSHOT
        | sys::VIR_DOMAIN_PAUSED_CRASHED
        | sys::VIR_DOMAIN_PAUSED_API_ERROR => PauseReason::Other,
        _ => PauseReason::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_libvirt_9_has_a_word() {
        use DomainStatus::{Crashed, Off, Paused, Running, ShuttingDown};
        use PauseReason::Other;
        let expected = [
            Paused(Other),
            Running,
            Running,
            Paused(Other),
            ShuttingDown,
            Off,
            Crashed,
            Paused(Other),
        ];
        for (state, expected) in (0..).zip(expected) {
            assert_eq!(status(state, 0), Said::Is(expected), "{state}");
        }
    }

    // A domain that QEMU has stopped after an I/O error, or that a migration left behind, must never be taken for one
    // that is ours to resume: its guest may run elsewhere.
    #[test]
    fn only_a_start_under_way_is_ours_to_resume() {
        use PauseReason::{IoError, Migration, Other, StartingUp};
        let paused = 3;
        let reasons = [
            Other, Other, Migration, Other, Other, IoError, Other, Other, Other, Other, Other, StartingUp,
            Migration, Migration, Other, Other,
        ];
        for (reason, expected) in (0..).zip(reasons) {
            let expected = if reason == 1 {
                Said::PausedByUser
            } else {
                Said::Is(DomainStatus::Paused(expected))
            };
            assert_eq!(status(paused, reason), expected, "{reason}");
        }
        for (state, reason) in [(-1, 0), (99, 0), (3, -1), (3, 99)] {
            let expected = Said::Is(DomainStatus::Paused(Other));
            assert_eq!(status(state, reason), expected, "{state} {reason}");
        }
    }
}
