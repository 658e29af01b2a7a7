//! Carries the role's steps out.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, FutureExt as _, select, select_all};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::lock::exclusive_lock;
use pvc_common::store::{ReadError, Store, StoreError, Txn, Watch as _, ZnodeVersion};
use pvc_core::ids::{Incarnation, NodeName};
use pvc_core::protection::{Protection, stands};
use pvc_core::records::{PrimaryRecord, RoleLease};
use pvc_core::role::{
    Because, DropReason, Eligibility, Observation, Peer, Phase, RoleMachine, RoleTiming, Stage, Step, Tenure,
    VacateReason,
};
use pvc_core::states::CoordinatorState;
use pvc_core::time::BootTime;
use tracing::{debug, error, info, warn};

use super::tenure_file::{TenureFile, TenureNote};
use crate::agent::{AgentPhase, AgentState, Pulse};
use crate::host::{AddressOutcome, HostNetwork, RoleAddress};
use crate::measures::{Duty, OwnLease};

/// How long contenders wait for each other.
const CONTENTION_LOCK: Duration = Duration::from_millis(400);
/// Between two tries to reach a store that does not answer.
const STORE_RETRY: Duration = Duration::from_millis(200);
/// How long a new primary waits for what it started; then it is primary all the same, and says what is missing: a lost
/// secondary service degrades a primary, it does not block it.
const SERVICES_PATIENCE: Duration = Duration::from_secs(3);
/// When the neighbours are told where an address is now, counted from its addition. The repetitions are for switches
/// and hosts that lost the first, or heard a stale answer after it.
const ANNOUNCE_AT: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// The place of the role lease's watch in [`RoleKeeper::watches`].
const ROLE_LEASE_WATCH: usize = 1;

/// What the role starts beside its addresses.
pub trait RoleServices: Send + 'static {
    /// Whether everything that a primary offers answers on the role's addresses; if not, what does not, in words.
    fn answer(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a [`RoleKeeper`] is made of.
#[derive(Debug)]
pub struct RoleParts<S, C, N, R> {
    /// The store, over a client that is used for leases alone.
    pub store: S,
    /// Time.
    pub clock: C,
    /// The host's addresses.
    pub network: N,
    /// What the role starts.
    pub services: R,
    /// This node.
    pub me: NodeName,
    /// This life of its agent.
    pub incarnation: Incarnation,
    /// The coordinators, in the order of the configuration.
    pub coordinators: Vec<NodeName>,
    /// The addresses that follow the role.
    pub addresses: Vec<RoleAddress>,
    /// The upstream floating address with its prefix length, published for clients.
    pub upstream_ip: String,
    /// How this agent is.
    pub agent: AgentState,
    /// Where the tenure is noted.
    pub tenure_file: TenureFile,
    /// Beaten at every look at the clock.
    pub pulse: Pulse,
}

/// Keeps this node's part in the primary role.
#[derive(Debug)]
pub struct RoleKeeper<S: Store, C, N, R> {
    parts: RoleParts<S, C, N, R>,
    machine: RoleMachine,
    timing: RoleTiming,
    watches: Vec<S::Watch>,
    /// What was read counts until something may have changed.
    fresh: bool,
    observed_at: BootTime,
    /// The addresses that this tenure has set.
    up: Vec<RoleAddress>,
    announcements: Vec<(BootTime, RoleAddress)>,
    store_failing: bool,
    last_step_logged: Option<Because>,
}

impl<S: Store, C: Clock, N: HostNetwork, R: RoleServices> RoleKeeper<S, C, N, R> {
    /// The keeper of a node that has just started. The caller has removed the role's addresses from the host.
    pub fn new(parts: RoleParts<S, C, N, R>, timing: RoleTiming) -> Self {
        let place = parts
            .coordinators
            .iter()
            .position(|node| *node == parts.me)
            .unwrap_or(0);
        let place = u32::try_from(place).unwrap_or(0);
        let machine = RoleMachine::new(parts.me.clone(), parts.incarnation.clone(), place, timing);
        let mut watches = vec![
            parts.store.watch_tree(keys::config().primary_node().path()),
            parts.store.watch_tree(keys::lease_primary().path()),
        ];
        for node in &parts.coordinators {
            watches.push(
                parts
                    .store
                    .watch_tree(keys::node(node).coordinator_state().path()),
            );
        }
        Self {
            parts,
            machine,
            timing,
            watches,
            fresh: false,
            observed_at: BootTime::ZERO,
            up: Vec::new(),
            announcements: Vec::new(),
            store_failing: false,
            last_step_logged: None,
        }
    }

    /// Whether nothing of the role is left here: no address, no record that names us.
    pub fn is_out(&self) -> bool {
        *self.machine.phase() == Phase::Standby
            && self
                .machine
                .record()
                .is_some_and(|record| !record.value.names(&self.parts.me))
    }

    /// One step: look, decide, act; or wait until there may be something to do.
    pub async fn round(&mut self) {
        let now = self.parts.clock.now();
        self.parts.pulse.beat(now);
        let measures = self.parts.agent.measures().clone();
        measures.began(Duty::Role, now);
        self.machine.set_upstream(self.parts.agent.upstream().get());
        let looks_by_timer = self.standing_by() || self.machine.watches_peers();
        if !self.fresh || (looks_by_timer && now.since(self.observed_at) >= self.timing.poll) {
            self.observe().await;
        }
        let eligibility = self.eligibility();
        let step = self.machine.next(self.parts.clock.now(), eligibility);
        self.log_waiting(&step);
        if self.store_failing && step_needs_store(&step) && !matches!(step, Step::Renew { .. }) {
            // Nothing is written on what was read before the store fell silent.
            measures.ended(Duty::Role, self.parts.clock.now());
            self.pause(self.parts.clock.now() + STORE_RETRY).await;
            return;
        }
        match step {
            Step::Wait { until, .. } => {
                // To wait is no work.
                measures.ended(Duty::Role, self.parts.clock.now());
                self.pause(until).await;
            }
            Step::Drop { reason } => self.drop_addresses(reason).await,
            Step::Acknowledge => self.acknowledge().await,
            Step::Claim {
                record,
                lease,
                silent_holder,
            } => self.claim(record, lease, silent_holder).await,
            Step::Vacate { record, named, why } => self.vacate(record, &named, why).await,
            Step::Start {
                record,
                lease,
                silent_holder,
            } => self.start(record, lease, silent_holder).await,
            Step::BringUp { right_ends } => self.bring_up(right_ends).await,
            Step::Renew {
                record,
                lease,
                counter,
            } => self.renew(record, lease, counter).await,
            Step::Release { lease } => self.release(lease).await,
            Step::StandBy => self.stand_by().await,
        }
        measures.ended(Duty::Role, self.parts.clock.now());
    }

    fn standing_by(&self) -> bool {
        *self.machine.phase() == Phase::Standby
    }

    fn eligibility(&self) -> Eligibility {
        let now = self.parts.clock.now();
        let on_hold = self.parts.agent.hold().reason();
        match self.parts.agent.phase() {
            // Every right of the store's other past has ended after that time. Then the role is as safe as ever: it
            // goes by its lease alone.
            AgentPhase::Running
                if on_hold.is_some_and(|(since, _)| now < since + self.timing.lease.claim_after()) =>
            {
                Eligibility::OnHold
            }
            AgentPhase::Starting => Eligibility::Starting,
            AgentPhase::ShuttingDown => Eligibility::ShuttingDown,
            AgentPhase::Running if !self.parts.agent.node_right().holds(now) => Eligibility::NodeLeaseEnded,
            AgentPhase::Running => Eligibility::Eligible,
        }
    }

    /// Runs a call to the store while the clock is looked at every tick.
    async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            let clock = self.parts.clock.clone();
            let tick = pin!(clock.sleep(self.timing.tick));
            match select(work.as_mut(), tick).await {
                Either::Left((output, _)) => return output,
                Either::Right(((), _)) => {
                    let now = self.parts.clock.now();
                    self.parts.pulse.beat(now);
                    if let Some(reason) = self.machine.urgent(now) {
                        self.drop_addresses(reason).await;
                    }
                }
            }
        }
    }

    async fn commit(&mut self, txn: Txn) -> Result<Vec<Option<ZnodeVersion>>, StoreError> {
        let store = self.parts.store.clone();
        let outcome = self.drive(async move { store.commit(txn).await }).await;
        // Whatever came of it, what was read before is old now.
        self.fresh = false;
        match outcome {
            Ok(applied) => Ok(applied
                .into_iter()
                .map(pvc_common::store::Applied::version)
                .collect()),
            Err(error) => {
                if matches!(
                    error,
                    StoreError::Unknown { .. } | StoreError::Unavailable { .. } | StoreError::SessionExpired
                ) {
                    self.store_failing = true;
                }
                if matches!(
                    error,
                    StoreError::NoNode { .. }
                        | StoreError::NodeExists { .. }
                        | StoreError::NotEmpty { .. }
                        | StoreError::Refused { .. }
                ) {
                    // Looking again will not change it soon, and must not be all that this thread and the store do.
                    let clock = self.parts.clock.clone();
                    self.drive(async move { clock.sleep(STORE_RETRY).await }).await;
                }
                Err(error)
            }
        }
    }

    async fn observe(&mut self) {
        let store = self.parts.store.clone();
        let coordinators = self.parts.coordinators.clone();
        match self
            .drive(async move { read_observation(&store, &coordinators).await })
            .await
        {
            Ok(observation) => {
                let now = self.parts.clock.now();
                self.machine.observed(observation, now);
                self.observed_at = now;
                self.fresh = true;
                if self.store_failing {
                    self.store_failing = false;
                    info!("the primary record can be read again");
                }
            }
            Err(error) => {
                if !self.store_failing {
                    warn!(%error, "failed to read the primary record");
                }
                self.store_failing = true;
            }
        }
    }

    /// Waits until `until` or until something may have changed, and announces what is due.
    async fn pause(&mut self, until: BootTime) {
        let now = self.parts.clock.now();
        self.announce_due(now);
        let wake = self
            .announcements
            .iter()
            .map(|(due, _)| *due)
            .fold(until, BootTime::min);
        let clock = self.parts.clock.clone();
        let agent = self.parts.agent.clone();
        // The holder's own renewals move the lease each second: it need not read what it has just written. Should
        // somebody else write it, the next renewal fails.
        let skipped = if self.standing_by() {
            None
        } else {
            Some(ROLE_LEASE_WATCH)
        };
        let changed = {
            let watches = self.watches.iter_mut().enumerate();
            let watched = watches
                .filter(|(index, _)| Some(*index) != skipped)
                .map(|(_, watch)| watch.changed().boxed());
            let watched = select_all(watched);
            let phase = pin!(agent.phase_changed());
            let hint = pin!(select(watched, phase));
            matches!(select(hint, pin!(clock.sleep_until(wake))).await, Either::Left(_))
        };
        if changed {
            self.fresh = false;
        }
    }

    fn announce_due(&mut self, now: BootTime) {
        let (due, later): (Vec<_>, Vec<_>) = self.announcements.drain(..).partition(|(at, _)| *at <= now);
        self.announcements = later;
        for (_, address) in due {
            if let Err(error) = self.parts.network.announce(&address) {
                warn!(%error, address = %address.ip, "failed to announce a floating address");
            }
        }
    }

    async fn acknowledge(&mut self) {
        if self.say(CoordinatorState::Takeover).await {
            info!("named as primary; waiting for the last holder to give the role up");
            self.machine.acknowledged();
        }
    }

    async fn stand_by(&mut self) {
        if self.say(CoordinatorState::Secondary).await {
            info!("standing by as secondary");
            self.machine.stood_by();
        }
    }

    /// Publishes our own part. It belongs to us alone and depends on nothing read.
    async fn say(&mut self, state: CoordinatorState) -> bool {
        let key = keys::node(&self.parts.me).coordinator_state();
        match self.commit(Txn::new().overwrite(&key, &state)).await {
            Ok(_) => true,
            Err(error) => {
                warn!(%error, %state, "failed to publish the coordinator state");
                false
            }
        }
    }

    async fn claim(&mut self, record: ZnodeVersion, lease: ZnodeVersion, silent_holder: bool) {
        let record_key = keys::config().primary_node();
        let own = PrimaryRecord::Node(self.parts.me.clone());
        let mut claim = Txn::new();
        if stands(Protection::ClaimLeaseCheck) {
            claim = claim.check(&keys::lease_primary(), lease);
        }
        claim = match stands(Protection::ContentionVersionCheck) {
            true => claim.set(&record_key, &own, record),
            false => claim.overwrite(&record_key, &own),
        };
        if silent_holder {
            warn!("the holder of the primary role is silent: claiming it");
            self.report_claim(claim).await;
            return;
        }
        let lock = exclusive_lock(
            &self.parts.store,
            &self.parts.clock,
            &record_key,
            self.parts.me.as_str(),
        );
        match self
            .drive(async move { lock.acquire(CONTENTION_LOCK).await })
            .await
        {
            Ok(guard) => {
                self.report_claim(claim.guard(&guard)).await;
                self.drive(guard.release()).await;
            }
            Err(error) => {
                debug!(%error, "another node contends for the primary role: stepping back");
                self.fresh = false;
            }
        }
    }

    async fn report_claim(&mut self, claim: Txn) {
        match self.commit(claim).await {
            Ok(_) => info!("elected as primary"),
            Err(error) => debug!(%error, "not elected as primary"),
        }
    }

    async fn vacate(&mut self, record: ZnodeVersion, named: &NodeName, why: VacateReason) {
        let txn = Txn::new().set(&keys::config().primary_node(), &PrimaryRecord::None, record);
        match self.commit(txn).await {
            Ok(_) => match why {
                VacateReason::ShuttingDown => info!("gave up the primary record"),
                VacateReason::UpstreamDown => {
                    warn!(
                        "the upstream network is not reached from here but from another coordinator: gave up the primary record"
                    );
                }
                VacateReason::NotServed => {
                    warn!(node = %named, "the named node did not become primary: the record is set to none");
                }
            },
            Err(error) => debug!(%error, "the primary record was not set to none"),
        }
    }

    async fn start(&mut self, record: ZnodeVersion, lease: ZnodeVersion, silent_holder: Option<NodeName>) {
        let sent = self.parts.clock.now();
        let mut txn = Txn::new()
            .check(&keys::config().primary_node(), record)
            .set(&keys::lease_primary(), &Some(self.machine.lease_value(0)), lease)
            .overwrite(
                &keys::node(&self.parts.me).coordinator_state(),
                &CoordinatorState::Takeover,
            );
        if let Some(holder) = &silent_holder {
            txn = txn.overwrite(
                &keys::node(holder).coordinator_state(),
                &CoordinatorState::Secondary,
            );
        }
        // Before the write: a note of a tenure that did not come about does no harm, its versions don't fit.
        let note = TenureNote {
            record_version: record.0,
            incarnation: self.parts.incarnation.clone(),
        };
        if let Err(error) = self.parts.tenure_file.write(&note) {
            warn!(%error, "failed to note the tenure; a kill of this agent will cost a few seconds more");
        }
        match self.commit(txn).await {
            Ok(versions) => {
                let Some(Some(lease)) = versions.get(1) else {
                    error!("the store answered a transaction with too few results");
                    return;
                };
                self.up.clear();
                self.machine.started(record, *lease, sent);
                info!("took the primary role");
            }
            Err(error) => warn!(%error, "failed to take the primary role"),
        }
    }

    async fn bring_up(&mut self, right_ends: BootTime) {
        let now = self.parts.clock.now();
        let mut missing = Vec::new();
        for address in self.parts.addresses.clone() {
            if self.up.contains(&address) {
                continue;
            }
            match self.parts.network.add(&address, right_ends) {
                Ok(AddressOutcome::Set { valid_lft_seconds }) => {
                    debug!(address = %address.ip, valid_lft_seconds, "floating address added");
                    self.up.push(address.clone());
                    self.announcements
                        .extend(ANNOUNCE_AT.iter().map(|after| (now + *after, address.clone())));
                }
                Ok(AddressOutcome::TooLate | AddressOutcome::Missing) => {
                    self.drop_addresses(DropReason::RightEnded).await;
                    return;
                }
                Err(error) => {
                    warn!(%error, address = %address.ip, "failed to add a floating address");
                    missing.push(format!("{}: {error}", address.ip));
                }
            }
        }
        self.announce_due(self.parts.clock.now());
        let answer = match missing.is_empty() {
            true => self.services_answer().await,
            false => Err(missing.join("; ")),
        };
        let Phase::Holding(Tenure {
            record,
            stage: Stage::BringUp { since, .. },
            ..
        }) = *self.machine.phase()
        else {
            return;
        };
        let now = self.parts.clock.now();
        match answer {
            Err(missing) if now.since(since) < SERVICES_PATIENCE => {
                debug!(%missing, "not everything that was started answers yet");
                self.machine.look_again(now);
                return;
            }
            Err(missing) if self.up.is_empty() => {
                error!(%missing, "no floating address could be set: not primary");
                self.machine.look_again(now);
                return;
            }
            Err(missing) => warn!(%missing, "primary, but degraded"),
            Ok(()) => {}
        }
        let me = keys::node(&self.parts.me);
        let txn = Txn::new()
            .check(&keys::config().primary_node(), record)
            .overwrite(&me.coordinator_state(), &CoordinatorState::Primary)
            .overwrite(&keys::config().upstream_ip(), &self.parts.upstream_ip);
        match self.commit(txn).await {
            Ok(_) => {
                self.machine.brought_up();
                info!("primary");
            }
            Err(error) => {
                warn!(%error, "failed to publish that this node is primary");
                self.machine.look_again(self.parts.clock.now());
            }
        }
    }

    async fn services_answer(&mut self) -> Result<(), String> {
        let clock = self.parts.clock.clone();
        let limit = self.timing.tick;
        // Not through `drive`: it is shorter than a tick.
        clock
            .timeout(limit, self.parts.services.answer())
            .await
            .unwrap_or_else(|| Err("the services did not answer in time".to_owned()))
    }

    async fn renew(&mut self, record: ZnodeVersion, lease: ZnodeVersion, counter: u64) {
        let sent = self.parts.clock.now();
        let record_key = keys::config().primary_node();
        let checked = match stands(Protection::RoleRenewalRecordCheck) {
            true => Txn::new().check(&record_key, record),
            // Something else in its place, since the answer is read by index.
            false => Txn::new().check(&keys::lease_primary(), lease),
        };
        let txn = checked.set(
            &keys::lease_primary(),
            &Some(self.machine.lease_value(counter)),
            lease,
        );
        let was_fresh = self.fresh;
        match self.commit(txn).await {
            Ok(versions) => {
                let Some(Some(lease)) = versions.get(1) else {
                    error!("the store answered a transaction with too few results");
                    return;
                };
                // A renewal that went through confirms what was read.
                self.fresh = was_fresh;
                self.store_failing = false;
                if let Phase::Holding(tenure) = self.machine.phase() {
                    let now = self.parts.clock.now();
                    let left = tenure.right.ends().since(now);
                    self.parts.agent.measures().renewed(OwnLease::Role, now, left);
                }
                let right_ends = self.machine.renewed(*lease, counter, sent);
                if let Some(right_ends) = right_ends {
                    self.refresh(right_ends).await;
                }
            }
            Err(StoreError::BadVersion { index: 0, .. } | StoreError::NoNode { index: 0, .. }) => {
                self.drop_addresses(DropReason::RecordLost).await;
            }
            Err(error) => {
                debug!(%error, "role lease not renewed");
                self.machine.renewal_failed(self.parts.clock.now());
            }
        }
    }

    async fn refresh(&mut self, right_ends: BootTime) {
        for address in self.up.clone() {
            match self.parts.network.refresh(&address, right_ends) {
                Ok(AddressOutcome::Set { .. }) => {}
                Ok(AddressOutcome::Missing | AddressOutcome::TooLate) => {
                    warn!(address = %address.ip, "a floating address was gone when it was to be refreshed");
                    self.drop_addresses(DropReason::AddressLost).await;
                    return;
                }
                // It goes on living until its present lifetime ends; the next refresh tries again.
                Err(error) => warn!(%error, address = %address.ip, "failed to refresh a floating address"),
            }
        }
    }

    /// Takes every address of the role off, before anything else. Returns only when none is left: an address that the
    /// kernel will not remove is waited for until its lifetime has ended.
    async fn drop_addresses(&mut self, reason: DropReason) {
        self.announcements.clear();
        let give_up_at = self.parts.clock.now() + self.timing.lease.claim_after();
        loop {
            let mut left = false;
            for address in &self.parts.addresses {
                if let Err(error) = self.parts.network.remove(address) {
                    error!(%error, address = %address.ip, "failed to remove a floating address");
                    left = true;
                }
            }
            let now = self.parts.clock.now();
            if !left || now >= give_up_at {
                break;
            }
            self.parts.clock.sleep(STORE_RETRY).await;
        }
        self.up.clear();
        warn!(%reason, "the addresses of the primary role are off");
        self.machine.dropped(reason, self.parts.clock.now());
    }

    async fn release(&mut self, lease: ZnodeVersion) {
        let txn = Txn::new()
            .set(&keys::lease_primary(), &Some(RoleLease::Released), lease)
            .overwrite(
                &keys::node(&self.parts.me).coordinator_state(),
                &CoordinatorState::Relinquish,
            );
        match self.commit(txn).await {
            Ok(versions) => {
                if let Some(Some(lease)) = versions.first() {
                    self.machine.released(*lease, self.parts.clock.now());
                }
                self.parts.tenure_file.clear();
                info!("released the primary role");
            }
            Err(error) => debug!(%error, "the role lease was not released"),
        }
    }

    fn log_waiting(&mut self, step: &Step) {
        let because = match step {
            Step::Wait { because, .. } => Some(*because),
            Step::Acknowledge
            | Step::Claim { .. }
            | Step::Vacate { .. }
            | Step::Start { .. }
            | Step::BringUp { .. }
            | Step::Renew { .. }
            | Step::Drop { .. }
            | Step::Release { .. }
            | Step::StandBy => None,
        };
        if because.is_some() && because != self.last_step_logged {
            debug!(?because, "role waits");
            self.last_step_logged = because;
        }
    }
}

fn step_needs_store(step: &Step) -> bool {
    match step {
        Step::Wait { .. } | Step::Drop { .. } | Step::BringUp { .. } => false,
        Step::Acknowledge
        | Step::Claim { .. }
        | Step::Vacate { .. }
        | Step::Start { .. }
        | Step::Renew { .. }
        | Step::Release { .. }
        | Step::StandBy => true,
    }
}

async fn read_observation<S: Store>(store: &S, coordinators: &[NodeName]) -> Result<Observation, ReadError> {
    let record_key = keys::config().primary_node();
    let lease_key = keys::lease_primary();
    let state_keys: Vec<_> = coordinators
        .iter()
        .map(|node| keys::node(node).coordinator_state())
        .collect();
    let mut paths = vec![record_key.path().to_owned(), lease_key.path().to_owned()];
    paths.extend(state_keys.iter().map(|key| key.path().to_owned()));
    for node in coordinators {
        let own = keys::node(node);
        paths.push(own.daemon_state().path().to_owned());
        paths.push(own.upstream().path().to_owned());
        paths.push(keys::lease_node(node).path().to_owned());
    }
    let znodes = store.read_many(&paths).await?;
    let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
    let record = record_key.decode_required(at(0))?;
    let lease = lease_key.decode_required(at(1))?;
    let mut states = BTreeMap::new();
    for (index, (node, key)) in coordinators.iter().zip(&state_keys).enumerate() {
        // A coordinator that has not registered yet, or says something we don't know, says nothing to us.
        if let Ok(Some(state)) = key.decode(at(index + 2)) {
            states.insert(node.clone(), state.value);
        }
    }
    let facts_at = 2 + coordinators.len();
    let peers = coordinators
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let own = keys::node(node);
            let at = |fact: usize| at(facts_at + index * 3 + fact);
            let upstream = own
                .upstream()
                .decode(at(1))
                .ok()
                .flatten()
                .and_then(|found| found.value);
            let peer = Peer {
                daemon_state: own
                    .daemon_state()
                    .decode(at(0))
                    .ok()
                    .flatten()
                    .map(|found| found.value),
                lease: at(2).map(|znode| znode.version),
                upstream_up: upstream.map(|reading| reading.up),
            };
            (node.clone(), peer)
        })
        .collect();
    Ok(Observation {
        peers,
        record: record.value,
        record_version: record.version,
        lease: lease.value,
        lease_version: lease.version,
        coordinators: states,
    })
}

#[cfg(test)]
mod tests;
