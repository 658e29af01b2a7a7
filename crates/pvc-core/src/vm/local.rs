//! What a node sees of a guest on itself.

/// Why libvirt shows a domain as paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// Created paused by us, and not resumed since.
    StartingUp,
    /// QEMU stopped it after an I/O error.
    IoError,
    /// A migration holds it, or has finished with it.
    Migration,
    /// Anything else.
    Other,
}

/// How a domain is, as libvirt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainStatus {
    /// Its vCPUs run.
    Running,
    /// Its process exists, its vCPUs don't run.
    Paused(PauseReason),
    /// It is shutting down.
    ShuttingDown,
    /// It has no process.
    Off,
    /// Its guest has crashed; the process may exist.
    Crashed,
}

/// What libvirt says of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainReading {
    /// libvirtd does not answer: nothing is known.
    Unknown,
    /// It has no such domain.
    Absent,
    /// It has one.
    Is(DomainStatus),
}

/// Whether a process of the guest exists on this host, as `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// `/proc` could not be read.
    Unknown,
    /// Certainly none.
    Absent,
    /// There is one.
    Present,
}

/// How the guest's process here came to its end, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was ended because the target of its migration had all of it: its vCPUs had not run since the switch-over.
    Sent,
    /// Nothing says so. It may have run on after a switch-over, have written, and have ended by itself.
    Unclear,
}
