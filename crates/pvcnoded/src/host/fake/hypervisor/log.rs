//! What libvirt writes about guests, as in its log files: how each process began and ended.

use std::collections::BTreeMap;
use std::io;

use pvc_core::ids::VmId;
use pvc_core::records::LogMark;

use crate::host::Ending;

/// Why libvirt says that a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host::fake) enum Shutoff {
    /// Its migration's target has answered that it has all of it.
    Migrated,
    /// It shut down.
    Shutdown,
    /// It was ended by request.
    Destroyed,
    /// It ended by itself.
    Crashed,
    /// It was the half of a migration that came to nothing.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    StartingUp,
    ShuttingDown(Shutoff),
}

/// The logs of a host's guests. There is one for each; it is never begun anew.
#[derive(Debug, Default)]
pub(super) struct Logs {
    lines: BTreeMap<VmId, Vec<Line>>,
    lost: bool,
}

impl Logs {
    pub(super) fn set_lost(&mut self, lost: bool) {
        self.lost = lost;
    }

    fn append(&mut self, vm: VmId, line: Line) {
        if !self.lost {
            self.lines.entry(vm).or_default().push(line);
        }
    }

    pub(super) fn starting_up(&mut self, vm: VmId) {
        self.append(vm, Line::StartingUp);
    }

    pub(super) fn shutting_down(&mut self, vm: VmId, shutoff: Shutoff) {
        self.append(vm, Line::ShuttingDown(shutoff));
    }

    pub(super) fn mark(&self, vm: VmId) -> io::Result<LogMark> {
        match self.lines.get(&vm) {
            Some(lines) if !self.lost => Ok(LogMark {
                file: 1,
                length: u64::try_from(lines.len()).unwrap_or(u64::MAX),
            }),
            Some(_) | None => Err(io::Error::other("the fake log can't be read")),
        }
    }

    pub(super) fn ending(&self, vm: VmId, since: LogMark) -> Ending {
        let length = usize::try_from(since.length).unwrap_or(usize::MAX);
        let since = self.lines.get(&vm).and_then(|lines| lines.get(length..));
        match since {
            Some([Line::ShuttingDown(Shutoff::Migrated)]) if !self.lost => Ending::Sent,
            Some(_) | None => Ending::Unclear,
        }
    }
}
