//! The state of one coordinator's part in the primary role, and the decision over it.

use std::collections::BTreeMap;

use super::peers::Peers;
use super::view::{
    Because, DropReason, Eligibility, Observation, OwnUpstream, RoleTiming, Step, VacateReason,
};
use crate::ids::{Incarnation, NodeName, ZnodeVersion};
use crate::lease::{LeaseRight, Sighting, sight};
use crate::protection::{Protection, stands};
use crate::records::{PrimaryRecord, RoleLease};
use crate::states::CoordinatorState;
use crate::time::BootTime;

/// How far a holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Adding addresses and looking whether what was started answers; shown as `takeover`.
    BringUp {
        /// When the role lease was taken.
        since: BootTime,
        /// When to look (again).
        look_at: BootTime,
    },
    /// All answers; shown as `primary`.
    Primary,
}

/// One holding of the role lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// The record's version that names us.
    pub record: ZnodeVersion,
    /// The role lease's version that we wrote last.
    pub lease: ZnodeVersion,
    /// Renewals of this tenure.
    pub counter: u64,
    /// Until when the addresses may be up.
    pub right: LeaseRight,
    /// When to renew.
    pub renew_at: BootTime,
    /// How far we are.
    pub stage: Stage,
}

/// What this node holds of the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// No address of the role is on this host. The role lease may still name us; then it is released next.
    Standby,
    /// The role lease, so far as is known here, and the addresses.
    Holding(Tenure),
}

/// One coordinator's part in the primary role.
#[derive(Debug, Clone)]
pub struct RoleMachine {
    me: NodeName,
    incarnation: Incarnation,
    place: u32,
    timing: RoleTiming,
    phase: Phase,
    record: Option<Sighting<PrimaryRecord>>,
    lease: Option<Sighting<Option<RoleLease>>>,
    coordinators: BTreeMap<NodeName, CoordinatorState>,
    /// The record's version for which `takeover` was said.
    acknowledged: Option<ZnodeVersion>,
    /// What we said of ourselves last; `None` at start, when an earlier life may have said anything.
    said: Option<CoordinatorState>,
    sit_out_until: BootTime,
    /// Since when the named node has been seen not to be primary.
    unserved_since: Option<BootTime>,
    /// When the loop last looked at the clock while holding the role.
    looked_at: BootTime,
    /// The other coordinators.
    peers: Peers,
    /// Whether this node reaches the upstream network.
    upstream: OwnUpstream,
    /// When the role was last seen to leave a node that did not reach the upstream network.
    upstream_move_at: Option<BootTime>,
    /// The store was seen to go back in time: nothing is claimed or started before.
    not_before: BootTime,
}

impl RoleMachine {
    /// The machine of a node that has just started: it holds nothing, and the caller has made sure that none of the
    /// role's addresses is on this host. `place` is its index among the coordinators, which spreads contenders.
    pub fn new(me: NodeName, incarnation: Incarnation, place: u32, timing: RoleTiming) -> RoleMachine {
        RoleMachine {
            me,
            incarnation,
            place,
            timing,
            phase: Phase::Standby,
            record: None,
            lease: None,
            coordinators: BTreeMap::new(),
            acknowledged: None,
            said: None,
            sit_out_until: BootTime::ZERO,
            unserved_since: None,
            looked_at: BootTime::ZERO,
            peers: Peers::default(),
            upstream: OwnUpstream::Unknown,
            upstream_move_at: None,
            not_before: BootTime::ZERO,
        }
    }

    /// Takes in whether this node reaches the upstream network.
    pub fn set_upstream(&mut self, upstream: OwnUpstream) {
        self.upstream = upstream;
    }

    /// Whether the other coordinators must be looked at although the record has not changed: whoever wants to leave
    /// the role to one of them must know that it is alive now.
    pub fn watches_peers(&self) -> bool {
        matches!(self.upstream, OwnUpstream::Down { .. })
    }

    /// What this node holds of the role.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The record as last seen.
    pub fn record(&self) -> Option<&Sighting<PrimaryRecord>> {
        self.record.as_ref()
    }

    /// Takes in a reading of the store that was complete at `now`.
    pub fn observed(&mut self, seen: Observation, now: BootTime) {
        if self
            .record
            .as_ref()
            .is_none_or(|record| record.version != seen.record_version)
        {
            self.unserved_since = None;
        }
        let was_named = self
            .record
            .as_ref()
            .is_some_and(|record| record.value.names(&self.me));
        if was_named && seen.record == PrimaryRecord::None && self.phase == Phase::Standby {
            // We were named and did not start in time, or somebody asked us to stand by: another's turn.
            self.sit_out_until = now + self.timing.sit_out;
        }
        if self.went_back(&seen) {
            self.not_before = now + self.timing.lease.claim_after();
        }
        if self.left_a_node_without_upstream(&seen) {
            self.upstream_move_at = Some(now);
        }
        self.peers.observed(&seen.peers, now, self.timing.peer_fresh);
        self.record = Some(sight(self.record.take(), seen.record, seen.record_version, now));
        self.lease = Some(sight(self.lease.take(), seen.lease, seen.lease_version, now));
        self.coordinators = seen.coordinators;
        self.unserved_since = match self.named_is_primary() {
            true => None,
            false => self.unserved_since.or(Some(now)),
        };
        self.adopt_what_is_ours();
    }

    /// Versions only grow. If they shrink the store was restored from a snapshot: what it says of the role lease, a
    /// release too, may be older than a right that still stands.
    fn went_back(&self, seen: &Observation) -> bool {
        let record = self.record.as_ref();
        let lease = self.lease.as_ref();
        record.is_some_and(|record| seen.record_version < record.version)
            || lease.is_some_and(|lease| seen.lease_version < lease.version)
    }

    /// Whether the record has just left a node that says that it does not reach the upstream network: whoever did it,
    /// that was this minute's move.
    fn left_a_node_without_upstream(&self, seen: &Observation) -> bool {
        match self.record.as_ref().map(|record| &record.value) {
            Some(PrimaryRecord::Node(former)) => {
                !seen.record.names(former)
                    && (seen.peers.get(former).and_then(|peer| peer.upstream_up) == Some(false)
                        || (*former == self.me && self.watches_peers()))
            }
            Some(PrimaryRecord::None) | None => false,
        }
    }

    /// Whether a coordinator is alive that reaches the upstream network, while this node does not.
    fn another_is_better(&self, now: BootTime) -> bool {
        match self.upstream {
            OwnUpstream::Unknown | OwnUpstream::Up => false,
            OwnUpstream::Down { .. } => {
                self.peers
                    .one_reaches_upstream(&self.me, now, self.timing.peer_fresh)
            }
        }
    }

    /// Whether this node, which holds the role, should leave it to one that reaches the upstream network.
    fn leaves_for_upstream(&self, now: BootTime) -> bool {
        let OwnUpstream::Down { since } = self.upstream else {
            return false;
        };
        let moved_lately = self
            .upstream_move_at
            .is_some_and(|at| now < at + self.timing.upstream_move_every);
        now >= since + self.timing.upstream_down_for && !moved_lately && self.another_is_better(now)
    }

    /// Whether the node that the record names holds the role lease and says `primary`.
    fn named_is_primary(&self) -> bool {
        let (Some(record), Some(lease)) = (&self.record, &self.lease) else {
            return false;
        };
        match (&record.value, &lease.value) {
            (PrimaryRecord::Node(named), Some(RoleLease::Held { holder, .. })) => {
                named == holder && self.coordinators.get(named) == Some(&CoordinatorState::Primary)
            }
            (PrimaryRecord::Node(_), Some(RoleLease::Released) | None) | (PrimaryRecord::None, _) => false,
        }
    }

    /// While we hold the role: a record that was rewritten but still names us, and a role lease that holds a renewal
    /// of ours whose answer was lost, go on under their new versions. The right is not prolonged by either.
    fn adopt_what_is_ours(&mut self) {
        let (Phase::Holding(tenure), Some(record), Some(lease)) =
            (&mut self.phase, &self.record, &self.lease)
        else {
            return;
        };
        if record.value.names(&self.me) {
            tenure.record = record.version;
        }
        if let Some(RoleLease::Held {
            holder, incarnation, ..
        }) = &lease.value
            && *holder == self.me
            && *incarnation == self.incarnation
        {
            tenure.lease = lease.version;
        }
    }

    /// Looks at the clock alone: whether the addresses must come off at once. Called at every turn of the loop, also
    /// while it waits for the store.
    pub fn urgent(&mut self, now: BootTime) -> Option<DropReason> {
        let gap = now.since(self.looked_at);
        self.looked_at = now;
        let Phase::Holding(tenure) = &self.phase else {
            return None;
        };
        if !tenure.right.holds(now) {
            return Some(DropReason::RightEnded);
        }
        (gap > self.timing.loop_gap).then_some(DropReason::LoopGap)
    }

    /// What to do next.
    pub fn next(&mut self, now: BootTime, eligibility: Eligibility) -> Step {
        if let Some(reason) = self.urgent(now) {
            return Step::Drop { reason };
        }
        match &self.phase {
            Phase::Holding(tenure) => self.next_holding(tenure, now, eligibility),
            Phase::Standby => self.next_standing_by(now, eligibility),
        }
    }

    fn next_holding(&self, tenure: &Tenure, now: BootTime, eligibility: Eligibility) -> Step {
        let tick = now + self.timing.tick;
        let wait = |until: BootTime| Step::Wait {
            until: until.min(tick),
            because: Because::Holding,
        };
        if let Some(lease) = &self.lease
            && lease.version != tenure.lease
        {
            return Step::Drop {
                reason: DropReason::LeaseTaken,
            };
        }
        if let Some(record) = &self.record
            && record.version != tenure.record
        {
            // Not ours any more. Nobody else can start before we release or our right has ended, so the addresses
            // may stay for as long as it takes the next holder to get ready.
            let give_up_at = record.first_seen + self.timing.transition_delay;
            return match &record.value {
                PrimaryRecord::Node(next)
                    if self.coordinators.get(next) == Some(&CoordinatorState::Takeover) =>
                {
                    Step::Drop {
                        reason: DropReason::HandOver,
                    }
                }
                PrimaryRecord::Node(_) if now < give_up_at => wait(give_up_at),
                PrimaryRecord::None if now < give_up_at + self.timing.orphan_grace => {
                    wait(give_up_at + self.timing.orphan_grace)
                }
                PrimaryRecord::Node(_) | PrimaryRecord::None => Step::Drop {
                    reason: DropReason::HandOver,
                },
            };
        }
        if eligibility == Eligibility::ShuttingDown {
            return Step::Vacate {
                record: tenure.record,
                named: self.me.clone(),
                why: VacateReason::ShuttingDown,
            };
        }
        if tenure.stage == Stage::Primary && self.leaves_for_upstream(now) {
            return Step::Vacate {
                record: tenure.record,
                named: self.me.clone(),
                why: VacateReason::UpstreamDown,
            };
        }
        if now >= tenure.renew_at {
            return Step::Renew {
                record: tenure.record,
                lease: tenure.lease,
                counter: tenure.counter + 1,
            };
        }
        match tenure.stage {
            Stage::BringUp { look_at, .. } if now >= look_at => Step::BringUp {
                right_ends: tenure.right.ends(),
            },
            Stage::BringUp { look_at, .. } => wait(look_at.min(tenure.renew_at)),
            Stage::Primary => wait(tenure.renew_at),
        }
    }

    fn next_standing_by(&self, now: BootTime, eligibility: Eligibility) -> Step {
        let poll = now + self.timing.poll;
        let wait = |until: BootTime, because| Step::Wait {
            until: until.min(poll),
            because,
        };
        let (Some(record), Some(lease)) = (&self.record, &self.lease) else {
            return wait(poll, Because::NotObserved);
        };
        if self.is_of_this_boot(lease.value.as_ref()) {
            // A write of ours that arrived late, or an earlier life of this agent: this host has no address of the
            // role, so it can be said.
            return Step::Release { lease: lease.version };
        }
        let named = record.value.names(&self.me);
        if !named && self.said != Some(CoordinatorState::Secondary) && eligibility != Eligibility::Hypervisor
        {
            return Step::StandBy;
        }
        if eligibility == Eligibility::ShuttingDown && named {
            return Step::Vacate {
                record: record.version,
                named: self.me.clone(),
                why: VacateReason::ShuttingDown,
            };
        }
        if eligibility != Eligibility::Eligible {
            return wait(poll, Because::NotEligible(eligibility));
        }
        if now < self.not_before {
            return wait(self.not_before, Because::StoreWentBack);
        }
        match &record.value {
            PrimaryRecord::Node(node) if *node == self.me => self.next_named(record, lease, now),
            PrimaryRecord::Node(node) => self.next_beside(node, record, lease, now),
            PrimaryRecord::None => self.next_contending(record, lease, now),
        }
    }

    /// The record names us.
    fn next_named(
        &self,
        record: &Sighting<PrimaryRecord>,
        lease: &Sighting<Option<RoleLease>>,
        now: BootTime,
    ) -> Step {
        let (claim_at, silent_holder) = match &lease.value {
            None | Some(RoleLease::Released) => (now, None),
            Some(RoleLease::Held { holder, .. }) => {
                let claim_at = lease.first_seen + self.timing.lease.claim_after();
                (claim_at, Some(holder.clone()))
            }
        };
        // A wait's end grants nothing; the simulator sees what would come of it.
        let granted =
            !stands(Protection::HandOverDeadlineGrantsNothing) && now >= record.first_seen + self.timing.poll;
        if now >= claim_at || granted {
            return Step::Start {
                record: record.version,
                lease: lease.version,
                // Only one that has such a word on record: the rest of the start must not fail over a node that is
                // no coordinator any more.
                silent_holder: silent_holder
                    .filter(|holder| *holder != self.me && self.coordinators.contains_key(holder)),
            };
        }
        if self.acknowledged != Some(record.version) {
            return Step::Acknowledge;
        }
        Step::Wait {
            until: claim_at.min(now + self.timing.poll),
            because: Because::LastHolderMayHold,
        }
    }

    /// The record names another node.
    fn next_beside(
        &self,
        named: &NodeName,
        record: &Sighting<PrimaryRecord>,
        lease: &Sighting<Option<RoleLease>>,
        now: BootTime,
    ) -> Step {
        let wait = |until: BootTime, because| Step::Wait {
            until: until.min(now + self.timing.poll),
            because,
        };
        let holds = matches!(&lease.value, Some(RoleLease::Held { holder, .. }) if holder == named);
        if holds {
            let mut claim_at = lease.first_seen + self.timing.lease.claim_after();
            if now >= claim_at && self.another_is_better(now) {
                claim_at = claim_at + self.timing.upstream_yield;
                if now < claim_at {
                    return wait(claim_at, Because::UpstreamDown);
                }
            }
            if now >= claim_at {
                return Step::Claim {
                    record: record.version,
                    lease: lease.version,
                    silent_holder: true,
                };
            }
            if self.named_is_primary() {
                return wait(claim_at, Because::AnotherHolds);
            }
        }
        let unserved_since = self.unserved_since.unwrap_or(record.first_seen);
        let give_up_at = unserved_since + self.timing.named_deadline;
        if now >= give_up_at {
            return Step::Vacate {
                record: record.version,
                named: named.clone(),
                why: VacateReason::NotServed,
            };
        }
        wait(give_up_at, Because::AnotherIsNamed)
    }

    /// Nobody is named.
    fn next_contending(
        &self,
        record: &Sighting<PrimaryRecord>,
        lease: &Sighting<Option<RoleLease>>,
        now: BootTime,
    ) -> Step {
        let wait = |until: BootTime, because| Step::Wait {
            until: until.min(now + self.timing.poll),
            because,
        };
        if now < self.sit_out_until {
            return wait(self.sit_out_until, Because::SittingOut);
        }
        // The last holder's release is the acknowledgement that ends the delay early.
        let delay = match &lease.value {
            None | Some(RoleLease::Released) => self.timing.stagger * self.place,
            Some(RoleLease::Held { .. }) => self.timing.transition_delay + self.timing.stagger * self.place,
        };
        let since = match &lease.value {
            None | Some(RoleLease::Released) => record.first_seen.max(lease.first_seen),
            Some(RoleLease::Held { .. }) => record.first_seen,
        };
        if now < since + delay {
            return wait(since + delay, Because::ContentionDelay);
        }
        let yields_until = since + self.timing.upstream_yield;
        if now < yields_until && self.another_is_better(now) {
            return wait(yields_until, Because::UpstreamDown);
        }
        Step::Claim {
            record: record.version,
            lease: lease.version,
            silent_holder: false,
        }
    }

    fn is_of_this_boot(&self, lease: Option<&RoleLease>) -> bool {
        match lease {
            Some(RoleLease::Held {
                holder, incarnation, ..
            }) => *holder == self.me && incarnation.same_boot(&self.incarnation),
            Some(RoleLease::Released) | None => false,
        }
    }

    /// `takeover` was said for the record's present version.
    pub fn acknowledged(&mut self) {
        self.acknowledged = self.record.as_ref().map(|record| record.version);
        self.said = Some(CoordinatorState::Takeover);
    }

    /// The role lease was taken by a write that was sent at `sent`.
    pub fn started(&mut self, record: ZnodeVersion, lease: ZnodeVersion, sent: BootTime) {
        self.phase = Phase::Holding(Tenure {
            record,
            lease,
            counter: 0,
            right: LeaseRight::acknowledged(sent, &self.timing.lease),
            renew_at: sent + self.timing.lease.period,
            stage: Stage::BringUp {
                since: sent,
                look_at: sent,
            },
        });
        self.lease = Some(Sighting {
            value: Some(self.lease_value(0)),
            version: lease,
            first_seen: sent,
        });
        self.said = Some(CoordinatorState::Takeover);
        self.looked_at = self.looked_at.max(sent);
    }

    /// The role lease was renewed by a write that was sent at `sent`. Answers until when the addresses may be up.
    pub fn renewed(&mut self, lease: ZnodeVersion, counter: u64, sent: BootTime) -> Option<BootTime> {
        // Also when the addresses have come off meanwhile: this is the version to release.
        self.lease = Some(Sighting {
            value: Some(self.lease_value(counter)),
            version: lease,
            first_seen: sent,
        });
        let Phase::Holding(tenure) = &mut self.phase else {
            return None;
        };
        tenure.lease = lease;
        tenure.counter = counter;
        tenure.right = LeaseRight::acknowledged(sent, &self.timing.lease);
        tenure.renew_at = sent + self.timing.lease.period;
        Some(tenure.right.ends())
    }

    /// What we write into the role lease.
    pub fn lease_value(&self, counter: u64) -> RoleLease {
        RoleLease::Held {
            holder: self.me.clone(),
            incarnation: self.incarnation.clone(),
            counter,
        }
    }

    /// The renewal was not acknowledged; it is tried again soon, on what is read meanwhile.
    pub fn renewal_failed(&mut self, now: BootTime) {
        if let Phase::Holding(tenure) = &mut self.phase {
            tenure.renew_at = now + self.timing.lease.period / 5;
        }
    }

    /// What was started does not answer yet: look again a little later.
    pub fn look_again(&mut self, now: BootTime) {
        if let Phase::Holding(Tenure {
            stage: Stage::BringUp { look_at, .. },
            ..
        }) = &mut self.phase
        {
            *look_at = now + self.timing.tick;
        }
    }

    /// What was started answers, and `primary` was said.
    pub fn brought_up(&mut self) {
        if let Phase::Holding(tenure) = &mut self.phase {
            tenure.stage = Stage::Primary;
            self.said = Some(CoordinatorState::Primary);
        }
    }

    /// The addresses are off this host.
    pub fn dropped(&mut self, reason: DropReason, now: BootTime) {
        match reason {
            DropReason::HandOver | DropReason::RecordLost => self.sit_out_until = now + self.timing.sit_out,
            DropReason::LeaseTaken
            | DropReason::RightEnded
            | DropReason::LoopGap
            | DropReason::AddressLost => {}
        }
        self.phase = Phase::Standby;
    }

    /// The role lease says `released`, and `relinquish` was said.
    pub fn released(&mut self, lease: ZnodeVersion, now: BootTime) {
        self.lease = Some(sight(self.lease.take(), Some(RoleLease::Released), lease, now));
        self.said = Some(CoordinatorState::Relinquish);
    }

    /// `secondary` was said.
    pub fn stood_by(&mut self) {
        self.said = Some(CoordinatorState::Secondary);
    }
}

#[cfg(test)]
mod tests;
