//! The source's side of a live migration: observe, ask [`next_send_step`], do it, again until nothing is left to do.
//!
//! Nothing here need be remembered: an agent that is started anew finds the target on record and libvirt's job under
//! way, and goes on from there. What it forgets is how many tries there have been.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{Either, select};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::pause;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn, Watch as _, ZnodeVersion};
use pvc_core::ids::{Incarnation, NodeName, VmId, VmName};
use pvc_core::records::{CephClients, HandOver, Incoming, LogMark};
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use pvc_core::vm::{
    ANSWER_WITHIN, CallOff, DomainReading, Ending, JobReading, Move, Offer, Presence, Progress, SendStep,
    SendView, SourceSide, TRY_AGAIN_AFTER, TargetView, VmRecord, next_send_step, placement_before,
    source_side, wanted_move,
};
use tracing::{debug, info, warn};

use super::carry_out::{TaskError, TaskOutcome, end_process, has_process};
use super::rounds::{decode_record, record_paths};
use super::{VmParts, VmTask};
use crate::agent::AgentPhase;
use crate::host::{Hypervisor, HypervisorError, MigrationOrder, Storage};

/// Between two looks when nothing is heard.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks in `/proc` while the guest is being sent: libvirt takes some 200 ms to notice that the source's
/// process has ended, and the guest stands still for as long as nobody does.
const PROCESS_EVERY: Duration = Duration::from_millis(40);
/// A guest that stands still after a migration that has ended must do so for this long before it is ended: libvirt may
/// be about to let it run again, or be picking its job up after a restart of its own.
const SWITCHED_OVER_FOR: Duration = Duration::from_secs(2);
/// Between two orders to stop sending.
const CANCEL_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long the store may be away before this task ends; the rounds begin another. A call under way goes on.
const WITHOUT_STORE: u32 = 5;

type Call = Pin<Box<dyn Future<Output = Result<(), HypervisorError>> + Send>>;

/// What is remembered while the task lives.
struct Sending<'a, S, C, H, T> {
    parts: &'a VmParts<S, C, H, T>,
    vm: VmId,
    /// Under which versions the present offer was made.
    offer: Offer,
    call: Option<Call>,
    tries: u32,
    not_before: BootTime,
    progress: Option<Progress>,
    bytes_sent: u64,
    switched_over_since: Option<BootTime>,
    /// Since when its process is gone.
    gone_since: Option<BootTime>,
    /// What this task knows itself of how the process ended or will: libvirt has said that it was sent, or it was ended
    /// here while it stood still after a switch-over.
    parting: Ending,
    cancelled_at: Option<BootTime>,
    /// What libvirt said last.
    failure: Option<String>,
}

/// All as it was read.
struct Seen {
    record: VmRecord,
    target: Option<Target>,
    side: SourceSide,
    ending: Ending,
    now: BootTime,
    fit: bool,
    own_fence_version: ZnodeVersion,
}

struct Target {
    view: TargetView,
    fence_version: ZnodeVersion,
    address: Option<std::net::IpAddr>,
}

/// Sends the guest to where its record says, or ends what is left of a migration.
pub(super) async fn send<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    task: &VmTask,
) -> Result<TaskOutcome, TaskError> {
    let mut sending = Sending {
        parts,
        vm: task.vm,
        offer: Offer::Spent,
        call: None,
        tries: 0,
        not_before: parts.clock.now(),
        progress: None,
        bytes_sent: 0,
        switched_over_since: None,
        gone_since: None,
        parting: Ending::Unclear,
        cancelled_at: None,
        failure: None,
    };
    sending.run().await
}

impl<S: Store, C: Clock, H: Hypervisor, T: Storage> Sending<'_, S, C, H, T> {
    async fn run(&mut self) -> Result<TaskOutcome, TaskError> {
        let domain = keys::domain(self.vm);
        let mut changes = self.parts.store.watch_tree(domain.name().path());
        let mut unread = 0;
        loop {
            let seen = match self.observe().await {
                Ok(seen) => seen,
                Err(error) => {
                    unread += 1;
                    if unread >= WITHOUT_STORE && self.call.is_none() {
                        return Err(TaskError::Read(error));
                    }
                    self.wait(&mut changes).await;
                    continue;
                }
            };
            unread = 0;
            let step = next_send_step(&SendView {
                now: seen.now,
                me: &self.parts.me,
                record: &seen.record,
                side: seen.side,
                ending: seen.ending,
                answer_due: self
                    .call
                    .is_some()
                    .then_some(self.gone_since.unwrap_or(seen.now) + ANSWER_WITHIN),
                target: seen.target.as_ref().map(|target| &target.view),
                offer: self.offer,
                tries: self.tries,
                not_before: self.not_before,
                sending: self.progress,
                fit: seen.fit,
                stopping: self.parts.agent.phase() == AgentPhase::ShuttingDown,
            });
            match self.carry_out(&seen, step, &mut changes).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                // Somebody else moved: look again.
                Err(TaskError::Moved(error)) => {
                    debug!(vm = %self.vm, %error, "a migration's record moved meanwhile");
                    self.wait(&mut changes).await;
                }
                // A call under way is seen to its end: what comes of it is to be said.
                Err(error) if self.call.is_some() => {
                    warn!(vm = %self.vm, %error, "a migration's step failed; it is looked at again");
                    self.wait(&mut changes).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn carry_out(
        &mut self,
        seen: &Seen,
        step: SendStep,
        changes: &mut S::Watch,
    ) -> Result<Option<TaskOutcome>, TaskError> {
        let vm = self.vm;
        match step {
            SendStep::Done => return Ok(Some(TaskOutcome::Done)),
            SendStep::Wait => self.wait(changes).await,
            SendStep::Offer => self.offer(seen).await?,
            SendStep::Send => self.begin(seen).await?,
            SendStep::Cancel(reason) => {
                let due = self
                    .cancelled_at
                    .is_none_or(|at| seen.now >= at + CANCEL_AGAIN_AFTER);
                if due {
                    warn!(%vm, %reason, "cancelling a migration");
                    self.cancelled_at = Some(seen.now);
                    self.failure = Some(reason.to_string());
                    if let Err(error) = self.parts.hypervisor.cancel_sending(vm).await {
                        warn!(%vm, %error, "a migration could not be cancelled yet");
                    }
                }
                self.wait(changes).await;
            }
            SendStep::TakeBack => {
                clear_incoming(self.parts, vm, &seen.record).await?;
                self.tries += 1;
                self.not_before = seen.now + TRY_AGAIN_AFTER;
                let reason = self.failure.as_deref().unwrap_or("it was not taken up");
                warn!(%vm, tries = self.tries, reason, "a guest could not be sent; it runs on here");
            }
            SendStep::Withdraw => {
                clear_incoming(self.parts, vm, &seen.record).await?;
                info!(%vm, "a migration was taken back; the guest is as it was");
            }
            SendStep::Discard => {
                clear_incoming(self.parts, vm, &seen.record).await?;
                warn!(%vm, "a guest ended while it was being sent; its target gives up what it has of it");
            }
            SendStep::CallOff(why) => {
                let detail = self.failure.take();
                return call_off(self.parts, vm, &seen.record, why, detail)
                    .await
                    .map(Some);
            }
            SendStep::SayGone => {
                pause::point("vm-say-gone");
                say_gone(self.parts, vm, &seen.record).await?;
            }
            SendStep::EndProcess => {
                let unchanged = Txn::new()
                    .check(&keys::domain(vm).owner(), seen.record.owner_version)
                    .check(&keys::domain(vm).incoming(), seen.record.incoming_version);
                self.parts.store.commit(unchanged).await?;
                let stood_still = seen.side == SourceSide::SwitchedOver;
                if stood_still && look_at_side(self.parts, self.vm).await != SourceSide::SwitchedOver {
                    // libvirt has let it run again, or is at it: looked at anew.
                    return Ok(None);
                }
                warn!(%vm, "ending a guest's process that has been sent away");
                end_process(self.parts, vm).await?;
                if stood_still {
                    self.parting = Ending::Sent;
                }
            }
            SendStep::Resume => self
                .parts
                .hypervisor
                .resume(vm)
                .await
                .map_err(TaskError::Hypervisor)?,
        }
        Ok(None)
    }

    /// Puts the target on record, under everything that it was chosen by.
    async fn offer(&mut self, seen: &Seen) -> Result<(), TaskError> {
        let Some((target, life)) = seen
            .target
            .as_ref()
            .and_then(|target| Some((target, target.view.incarnation.clone()?)))
        else {
            return Ok(());
        };
        let domain = keys::domain(self.vm);
        let incoming = Incoming {
            target: target.view.node.clone(),
            incarnation: life,
            ceph_clients: CephClients::Unrecorded,
            hand_over: HandOver::Offered,
            source_log: log_mark(self.parts, self.vm).await,
        };
        let txn = Txn::new()
            .check(&domain.owner(), seen.record.owner_version)
            .check(&domain.node(), seen.record.node_version)
            .check(&domain.state(), seen.record.state_version)
            .check(&keys::fence(&target.view.node), target.fence_version)
            .check(&keys::fence(&self.parts.me), seen.own_fence_version)
            .set(&domain.incoming(), &Some(incoming), seen.record.incoming_version);
        self.parts.store.commit(txn).await?;
        self.offer = Offer::Fresh(seen.now);
        self.parting = Ending::Unclear;
        debug!(vm = %self.vm, target = %target.view.node, "offered a guest");
        pause::point("vm-offered");
        Ok(())
    }

    async fn begin(&mut self, seen: &Seen) -> Result<(), TaskError> {
        let Some(target) = &seen.target else {
            return Ok(());
        };
        let max_downtime = self
            .parts
            .store
            .require(&keys::domain(self.vm).migration_max_downtime_ms())
            .await
            .map_err(TaskError::Read)?
            .value;
        let order = MigrationOrder {
            target: target.view.node.clone(),
            address: target.address,
            max_downtime: Duration::from_millis(u64::from(max_downtime)),
        };
        info!(vm = %self.vm, target = %order.target, "sending a guest");
        let (hypervisor, vm) = (self.parts.hypervisor.clone(), self.vm);
        self.call = Some(Box::pin(async move { hypervisor.send(vm, &order).await }));
        self.offer = Offer::Spent;
        self.cancelled_at = None;
        self.failure = None;
        self.bytes_sent = 0;
        self.progress = Some(Progress {
            since: seen.now,
            moved_at: seen.now,
        });
        Ok(())
    }

    /// Until the call ends, something changes, or it is time for another look.
    async fn wait(&mut self, changes: &mut S::Watch) {
        let hint = pin!(changes.changed());
        let tick = pin!(until_next_look(self.parts, self.vm, self.call.is_some()));
        let either = select(hint, tick);
        let Some(call) = &mut self.call else {
            either.await;
            return;
        };
        if let Either::Left((outcome, _)) = select(call.as_mut(), either).await {
            self.call = None;
            match outcome {
                Ok(()) => self.parting = Ending::Sent,
                // Why it was cancelled says more than that it was.
                Err(error) => {
                    self.failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    async fn observe(&mut self) -> Result<Seen, ReadError> {
        let domain = keys::domain(self.vm);
        let own_fence = keys::fence(&self.parts.me);
        let mut paths = record_paths(&domain).to_vec();
        paths.push(own_fence.path().to_owned());
        let mut znodes = self.parts.store.read_many(&paths).await?;
        let own_fence = own_fence.decode_required(znodes.pop().flatten().as_ref())?;
        let record = decode_record(self.vm, &znodes)?;
        let target = match (&record.incoming, wanted_move(&record, &self.parts.me)) {
            (Some(incoming), _) => Some(incoming.target.clone()),
            (None, Move::Live(target)) => Some(target.clone()),
            (None, Move::Stay | Move::Cold(_)) => None,
        };
        let target = match target {
            Some(target) => read_target(&self.parts.store, &target).await?,
            None => None,
        };
        let (job, domain) = look_at_domain(self.parts, self.vm).await;
        let process = match has_process(self.parts, self.vm) {
            Err(_) => Presence::Unknown,
            Ok(true) => Presence::Present,
            Ok(false) => Presence::Absent,
        };
        let now = self.parts.clock.now();
        let side = self.side(process, domain, job, now);
        let ending = self.ending(&record, side, now).await;
        let barred = own_fence
            .value
            .as_ref()
            .is_some_and(|fence| fence.bars(&self.parts.incarnation));
        let fit = !barred
            && self.parts.agent.phase() == AgentPhase::Running
            && self.parts.agent.node_right().holds(now);
        Ok(Seen {
            record,
            target,
            side,
            ending,
            now,
            fit,
            own_fence_version: own_fence.version,
        })
    }

    /// How its process ended, if it is gone. Looked at after it was seen gone: what tells of it was written before.
    async fn ending(&mut self, record: &VmRecord, side: SourceSide, now: BootTime) -> Ending {
        if side != SourceSide::Gone {
            self.gone_since = None;
            return Ending::Unclear;
        }
        self.gone_since.get_or_insert(now);
        match (&record.incoming, self.parting) {
            (_, Ending::Sent) => Ending::Sent,
            (Some(incoming), Ending::Unclear) => ending(self.parts, self.vm, incoming).await,
            (None, Ending::Unclear) => Ending::Unclear,
        }
    }

    /// The guest here, with what this task knows better than libvirt's word of this moment.
    fn side(
        &mut self,
        process: Presence,
        domain: DomainReading,
        job: JobReading,
        now: BootTime,
    ) -> SourceSide {
        let job = match job {
            JobReading::Idle | JobReading::Unknown if self.call.is_some() => JobReading::Sending {
                bytes_sent: self.bytes_sent,
            },
            job @ (JobReading::Idle | JobReading::Unknown | JobReading::Sending { .. }) => job,
        };
        let side = source_side(process, domain, job);
        if let SourceSide::Sending { bytes_sent } = side {
            let progress = self.progress.get_or_insert(Progress {
                since: now,
                moved_at: now,
            });
            if bytes_sent != self.bytes_sent {
                progress.moved_at = now;
            }
            self.bytes_sent = bytes_sent;
        } else {
            self.progress = None;
        }
        if side == SourceSide::Running {
            // Whatever was known of its end: it has not come.
            self.parting = Ending::Unclear;
        }
        if side != SourceSide::SwitchedOver {
            self.switched_over_since = None;
            return side;
        }
        let since = *self.switched_over_since.get_or_insert(now);
        if now >= since + SWITCHED_OVER_FOR {
            side
        } else {
            SourceSide::Unknown
        }
    }
}

/// For a while; of a guest that is being sent, until its process has ended if that is sooner.
async fn until_next_look<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    is_sent: bool,
) {
    let deadline = parts.clock.now() + LOOK_EVERY;
    if !is_sent || !matches!(has_process(parts, vm), Ok(true)) {
        parts.clock.sleep_until(deadline).await;
        return;
    }
    while parts.clock.now() < deadline && matches!(has_process(parts, vm), Ok(true)) {
        parts.clock.sleep(PROCESS_EVERY).await;
    }
}

/// What the source must know of a target. `None` if there is no such node.
async fn read_target<S: Store>(store: &S, node: &NodeName) -> Result<Option<Target>, ReadError> {
    let keys_of = keys::node(node);
    let (daemon_state, domain_state) = (keys_of.daemon_state(), keys_of.domain_state());
    let (addresses, fence, lease) = (keys_of.addresses(), keys::fence(node), keys::lease_node(node));
    let paths = [
        daemon_state.path(),
        domain_state.path(),
        addresses.path(),
        fence.path(),
        lease.path(),
    ]
    .map(str::to_owned);
    let znodes = store.read_many(&paths).await?;
    let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
    let (Some(daemon_state), Some(domain_state), Some(fence)) = (
        daemon_state.decode(at(0))?,
        domain_state.decode(at(1))?,
        fence.decode(at(3))?,
    ) else {
        return Ok(None);
    };
    let incarnation: Option<Incarnation> = lease
        .decode(at(4))?
        .and_then(|lease| lease.value)
        .map(|lease| lease.incarnation);
    let barred = fence
        .value
        .as_ref()
        .is_some_and(|record| incarnation.as_ref().is_none_or(|life| record.bars(life)));
    Ok(Some(Target {
        view: TargetView {
            node: node.clone(),
            daemon_state: daemon_state.value,
            domain_state: domain_state.value,
            incarnation,
            barred,
        },
        fence_version: fence.version,
        address: addresses
            .decode(at(2))?
            .and_then(|addresses| addresses.value)
            .map(|addresses| addresses.cluster),
    }))
}

/// The job first: one that has ended can't begin again, so what is read of the domain afterwards is its outcome.
async fn look_at_domain<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> (JobReading, DomainReading) {
    let job = parts.hypervisor.sending(vm).await;
    let domain = match parts.hypervisor.domains().await {
        Err(_) => DomainReading::Unknown,
        Ok(domains) => domains
            .get(&vm)
            .map_or(DomainReading::Absent, |status| DomainReading::Is(*status)),
    };
    (job, domain)
}

/// How a guest whose process is here is at this moment, by libvirt's word.
async fn look_at_side<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> SourceSide {
    let (job, domain) = look_at_domain(parts, vm).await;
    source_side(Presence::Present, domain, job)
}

/// How far the guest's log has come. Without it the migration goes on: libvirt's own answer is evidence, too.
async fn log_mark<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> Option<LogMark> {
    let name = name(parts, vm).await?;
    match parts.hypervisor.log_mark(vm, &name) {
        Ok(mark) => Some(mark),
        Err(error) => {
            warn!(%vm, %error, "libvirt's log of a guest that is sent can't be looked at");
            None
        }
    }
}

/// The guest's name, by which libvirt calls its log; `None` if it can't be read now.
async fn name<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
) -> Option<VmName> {
    let name = parts.store.require(&keys::domain(vm).name()).await;
    name.ok().map(|name| name.value)
}

/// How the guest's process here ended, which is gone, by its log. A target that says already that it is gone needs no
/// evidence any more.
pub(super) async fn ending<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    incoming: &Incoming,
) -> Ending {
    let (Some(since), HandOver::Offered | HandOver::Accepted) = (incoming.source_log, incoming.hand_over)
    else {
        return Ending::Unclear;
    };
    match name(parts, vm).await {
        Some(name) => parts.hypervisor.ending(vm, &name, since),
        None => Ending::Unclear,
    }
}

/// Says that the guest's process here is gone and will never run again.
pub(super) async fn say_gone<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    record: &VmRecord,
) -> Result<TaskOutcome, TaskError> {
    let Some(incoming) = &record.incoming else {
        return Ok(TaskOutcome::Done);
    };
    // SAFETY(fencing): from this write on the target may let the guest run. Looked at once more right before it.
    if has_process(parts, vm)? {
        return Err(TaskError::StillHere);
    }
    let domain = keys::domain(vm);
    let gone = Incoming {
        hand_over: HandOver::SourceGone,
        ..incoming.clone()
    };
    let txn = Txn::new().check(&domain.owner(), record.owner_version).set(
        &domain.incoming(),
        &Some(gone),
        record.incoming_version,
    );
    parts.store.commit(txn).await?;
    info!(%vm, target = %incoming.target, "a guest has left this node");
    Ok(TaskOutcome::Done)
}

/// Takes the target off the record.
async fn clear_incoming<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    record: &VmRecord,
) -> Result<(), TaskError> {
    let domain = keys::domain(vm);
    let txn = Txn::new().check(&domain.owner(), record.owner_version).set(
        &domain.incoming(),
        &None,
        record.incoming_version,
    );
    parts.store.commit(txn).await?;
    Ok(())
}

/// Puts the record back as it was before the request, with the reason. The guest is left as it is.
pub(super) async fn call_off<S: Store, C: Clock, H: Hypervisor, T: Storage>(
    parts: &VmParts<S, C, H, T>,
    vm: VmId,
    record: &VmRecord,
    why: CallOff,
    detail: Option<String>,
) -> Result<TaskOutcome, TaskError> {
    let domain = keys::domain(vm);
    let (node, last_node) = placement_before(record, &parts.me);
    let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
    let reason = format!("not migrated to {}: {why}{detail}", record.node);
    let txn = Txn::new()
        .check(&domain.owner(), record.owner_version)
        .set(&domain.state(), &VmState::Start, record.state_version)
        .set(&domain.node(), &node, record.node_version)
        .set(&domain.last_node(), &last_node, record.last_node_version)
        .set(&domain.incoming(), &None, record.incoming_version)
        .overwrite(&domain.failed_reason(), &reason);
    parts.store.commit(txn).await?;
    warn!(%vm, %reason, "a migration was called off");
    Ok(TaskOutcome::Done)
}
