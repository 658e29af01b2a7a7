//! Live migrations between fake hosts, as libvirt 9 and QEMU 7.2 do them with `VIR_MIGRATE_PEER2PEER` and
//! `VIR_MIGRATE_PAUSED`.
//!
//! ```text
//!  prepare      the target makes a process that opens the volumes and waits
//!  pre-copy     the guest runs on at the source
//!  switch-over  its vCPUs stand still, the rest is carried over
//!  finish       the target has all of it and leaves it paused; its answer is on its way to the source
//!  (end)        the source's process is ended
//! ```
//!
//! The job is libvirtd's: it goes on whatever becomes of the agent that asked for it. When the answer of `finish` gets
//! lost the source's libvirtd lets the guest run again there, although the target has all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvc_core::ids::{NodeName, VmId};
use pvc_core::time::BootTime;
use tokio::sync::Notify;

use super::hypervisor::WeakHost;
use super::hypervisor::log::Shutoff;
use super::{FakeHypervisor, locked};
use crate::host::{DomainStatus, HypervisorError, JobReading, PauseReason};

/// How far a migration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MigrationPhase {
    /// The target makes its half.
    Prepare,
    /// Memory is carried over while the guest runs.
    PreCopy,
    /// The guest stands still.
    SwitchOver,
    /// The target has all of it.
    Finish,
}

/// How long each phase takes.
#[derive(Debug, Clone, Copy)]
pub struct MigrationTiming {
    /// 100 ms at first.
    pub prepare: Duration,
    /// 1 s at first.
    pub pre_copy: Duration,
    /// 50 ms at first.
    pub switch_over: Duration,
    /// 50 ms at first.
    pub finish: Duration,
}

impl Default for MigrationTiming {
    fn default() -> MigrationTiming {
        MigrationTiming {
            prepare: Duration::from_millis(100),
            pre_copy: Duration::from_millis(1000),
            switch_over: Duration::from_millis(50),
            finish: Duration::from_millis(50),
        }
    }
}

impl MigrationTiming {
    fn of(&self, phase: MigrationPhase) -> Duration {
        match phase {
            MigrationPhase::Prepare => self.prepare,
            MigrationPhase::PreCopy => self.pre_copy,
            MigrationPhase::SwitchOver => self.switch_over,
            MigrationPhase::Finish => self.finish,
        }
    }
}

/// What came of a job, for whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct JobOutcome {
    pub(super) outcome: Mutex<Option<Result<(), HypervisorError>>>,
    pub(super) ended: Notify,
}

#[derive(Debug, Clone)]
struct Job {
    vm: VmId,
    source: NodeName,
    target: NodeName,
    phase: MigrationPhase,
    ends_at: BootTime,
    bytes_sent: u64,
    seen_at: BootTime,
    cancelled: bool,
    outcome: Arc<JobOutcome>,
}

/// Why a job does not go on.
enum Broken {
    Cancelled,
    SourceProcessGone,
    HalfGone,
    SourceLibvirtGone,
    TargetLost,
}

/// The network over which guests move, with the jobs on it. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct FakeWire {
    hosts: Arc<Mutex<BTreeMap<NodeName, WeakHost>>>,
    jobs: Arc<Mutex<Vec<Job>>>,
    timing: Arc<Mutex<MigrationTiming>>,
    cut: Arc<Mutex<Vec<(NodeName, NodeName)>>>,
    /// How often each guest was let run on any host: a memory that was taken before the last of these is older than the
    /// volumes.
    runs: Arc<Mutex<BTreeMap<VmId, u64>>>,
}

impl FakeWire {
    /// How long the phases take from now on.
    pub fn set_timing(&self, timing: MigrationTiming) {
        *locked(&self.timing) = timing;
    }

    /// Nothing passes between the two hosts any more.
    pub fn cut(&self, one: &NodeName, other: &NodeName) {
        locked(&self.cut).push((one.clone(), other.clone()));
    }

    /// Ends every [`FakeWire::cut`].
    pub fn heal(&self) {
        locked(&self.cut).clear();
    }

    /// How far the guest's migration has come; `None` if it has none.
    pub fn phase(&self, vm: VmId) -> Option<MigrationPhase> {
        locked(&self.jobs)
            .iter()
            .find(|job| job.vm == vm)
            .map(|job| job.phase)
    }

    /// How often the guest was let run, on any host.
    pub(super) fn runs(&self, vm: VmId) -> u64 {
        locked(&self.runs).get(&vm).copied().unwrap_or_default()
    }

    /// The guest is let run.
    pub(super) fn count_run(&self, vm: VmId) {
        *locked(&self.runs).entry(vm).or_default() += 1;
    }

    pub(super) fn join(&self, node: &NodeName, host: WeakHost) {
        locked(&self.hosts).insert(node.clone(), host);
    }

    fn host(&self, node: &NodeName) -> Option<FakeHypervisor> {
        locked(&self.hosts).get(node).and_then(WeakHost::upgrade)
    }

    fn is_cut(&self, job: &Job) -> bool {
        locked(&self.cut).iter().any(|(one, other)| {
            (*one == job.source && *other == job.target) || (*one == job.target && *other == job.source)
        })
    }

    pub(super) fn begin(
        &self,
        vm: VmId,
        source: &NodeName,
        target: &NodeName,
        now: BootTime,
    ) -> Result<Arc<JobOutcome>, HypervisorError> {
        let refused = |message: String| Err(HypervisorError::Refused { message });
        if locked(&self.jobs).iter().any(|job| job.vm == vm) {
            return refused("another migration job is already running for the domain".to_owned());
        }
        let outcome = Arc::new(JobOutcome::default());
        let job = Job {
            vm,
            source: source.clone(),
            target: target.clone(),
            phase: MigrationPhase::Prepare,
            ends_at: now + locked(&self.timing).prepare,
            bytes_sent: 0,
            seen_at: now,
            cancelled: false,
            outcome: Arc::clone(&outcome),
        };
        let reachable = self.host(target).is_some_and(|host| host.is_available()) && !self.is_cut(&job);
        if !reachable {
            return refused(format!("unable to connect to server at {target}"));
        }
        locked(&self.jobs).push(job);
        Ok(outcome)
    }

    pub(super) fn reading(&self, vm: VmId, source: &NodeName) -> JobReading {
        locked(&self.jobs)
            .iter()
            .find(|job| job.vm == vm && job.source == *source)
            .map_or(JobReading::Idle, |job| JobReading::Sending {
                bytes_sent: job.bytes_sent,
            })
    }

    /// Whether a job of the guest has this host on either side.
    pub(super) fn is_busy(&self, vm: VmId, node: &NodeName) -> bool {
        locked(&self.jobs)
            .iter()
            .any(|job| job.vm == vm && (job.source == *node || job.target == *node))
    }

    pub(super) fn cancel(&self, vm: VmId, source: &NodeName) -> bool {
        let mut jobs = locked(&self.jobs);
        let job = jobs
            .iter_mut()
            .find(|job| job.vm == vm && job.source == *source && job.phase < MigrationPhase::Finish);
        job.is_some_and(|job| {
            job.cancelled = true;
            true
        })
    }

    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        locked(&self.jobs).iter().map(|job| job.ends_at).min()
    }

    /// Lets happen what should have happened by `now`, in its order.
    pub(super) fn settle(&self, now: BootTime) {
        let mut looked_at = Vec::new();
        loop {
            // Taken out while it is worked on: hosts are locked one at a time, and never under this lock.
            let job = {
                let mut jobs = locked(&self.jobs);
                jobs.sort_by_key(|job| job.ends_at);
                let next = jobs
                    .iter()
                    .position(|job| job.ends_at <= now || !looked_at.contains(&job.vm));
                match next {
                    Some(next) => jobs.remove(next),
                    None => return,
                }
            };
            looked_at.push(job.vm);
            if let Some(job) = self.advance(job, now) {
                locked(&self.jobs).push(job);
            }
        }
    }

    /// One step of a job; `None` if it has ended.
    fn advance(&self, mut job: Job, now: BootTime) -> Option<Job> {
        let (source, target) = (self.host(&job.source), self.host(&job.target));
        let (Some(source), Some(target)) = (source, target) else {
            return self.end(&job, Err("a host has gone"));
        };
        if let Some(broken) = self.broken(&job, &source, &target) {
            return self.break_off(&job, broken, now, &source, &target);
        }
        let stands_still = source.is_frozen() || target.is_frozen() || self.is_cut(&job);
        if stands_still {
            // Looked at again every now and then; nothing is carried over meanwhile.
            job.ends_at = job.ends_at.max(now + Duration::from_millis(100));
            job.seen_at = now;
            return Some(job);
        }
        let carried = now
            .min(job.ends_at)
            .since(job.seen_at.min(job.ends_at))
            .as_millis();
        job.bytes_sent += u64::try_from(carried).unwrap_or(u64::MAX);
        job.seen_at = now;
        if job.ends_at > now {
            return Some(job);
        }
        let at = job.ends_at;
        job.phase = match job.phase {
            MigrationPhase::Prepare => match source.live(job.vm) {
                Some(xml) if target.make_half(job.vm, &xml, at) => MigrationPhase::PreCopy,
                Some(_) | None => return self.end(&job, Err("the target could not make the domain")),
            },
            MigrationPhase::PreCopy => {
                source.set_status(job.vm, DomainStatus::Paused(PauseReason::Migration), at);
                MigrationPhase::SwitchOver
            }
            MigrationPhase::SwitchOver => {
                target.complete_half(job.vm, self.runs(job.vm), at);
                MigrationPhase::Finish
            }
            MigrationPhase::Finish => {
                source.end_in_order(job.vm, at, Shutoff::Migrated);
                return self.end(&job, Ok(()));
            }
        };
        job.ends_at = at + locked(&self.timing).of(job.phase);
        Some(job)
    }

    fn broken(&self, job: &Job, source: &FakeHypervisor, target: &FakeHypervisor) -> Option<Broken> {
        let half_expected = job.phase > MigrationPhase::Prepare;
        if !source.has(job.vm) {
            Some(Broken::SourceProcessGone)
        } else if !source.is_available() {
            Some(Broken::SourceLibvirtGone)
        } else if job.cancelled && job.phase < MigrationPhase::Finish {
            Some(Broken::Cancelled)
        } else if half_expected && !target.has(job.vm) {
            Some(Broken::HalfGone)
        } else if (!target.is_available() && job.phase < MigrationPhase::Finish)
            || (self.is_cut(job) && job.phase > MigrationPhase::PreCopy)
        {
            Some(Broken::TargetLost)
        } else {
            None
        }
    }

    fn break_off(
        &self,
        job: &Job,
        broken: Broken,
        now: BootTime,
        source: &FakeHypervisor,
        target: &FakeHypervisor,
    ) -> Option<Job> {
        // QEMU's half ends when its stream breaks off before all of it is there.
        let complete = job.phase == MigrationPhase::Finish;
        if !complete && job.phase > MigrationPhase::Prepare {
            target.end_in_order(job.vm, now, Shutoff::Failed);
        }
        let stands_still = job.phase >= MigrationPhase::SwitchOver;
        match broken {
            Broken::SourceProcessGone => self.end(job, Err("the domain is not running")),
            // It comes back without knowing what the target has got, and leaves the guest as it is.
            Broken::SourceLibvirtGone => self.end(job, Err("the connection was lost")),
            // The target had said that it has all of it: the source's process is ended.
            Broken::HalfGone if complete => {
                source.end_in_order(job.vm, now, Shutoff::Migrated);
                self.end(job, Ok(()))
            }
            Broken::HalfGone | Broken::TargetLost | Broken::Cancelled => {
                if stands_still {
                    self.count_run(job.vm);
                    source.set_status(job.vm, DomainStatus::Running, now);
                }
                self.end(job, Err("operation failed: migration out job: canceled"))
            }
        }
    }

    fn end(&self, job: &Job, outcome: Result<(), &str>) -> Option<Job> {
        let outcome = outcome.map_err(|message| HypervisorError::Refused {
            message: message.to_owned(),
        });
        *locked(&job.outcome.outcome) = Some(outcome);
        job.outcome.ended.notify_one();
        None
    }
}
