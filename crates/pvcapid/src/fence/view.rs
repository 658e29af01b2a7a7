//! A fence in words: what happens, which proof is missing, what comes next.
//!
//! Somebody reads this at night with a server down. Each text answers one question, and every state has its own.

use pvc_api::fence::{Bmc, Fence, FenceConfirmation, FenceEvent, FenceTrack, NodeFence};
use pvc_common::store::ReadError;
use pvc_core::fence::{
    ConfirmationKind, FencePhase, FenceRecord, PowerTrack, Proof, ProofKind, RestartTrack, StorageTrack,
};
use pvc_core::ids::NodeName;
use pvc_core::records::{BmcIdentity, BmcReport};
use pvc_core::states::DaemonState;

/// Guests that a fence is about, by name, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Guests {
    /// Still owned or received by the dead boot.
    pub(crate) owned: Vec<String>,
    /// Without a node.
    pub(crate) parked: Vec<String>,
    /// Not covered by the proof.
    pub(crate) left: Vec<String>,
}

/// The word by which clients confirm it.
pub(crate) const fn word(kind: ConfirmationKind) -> &'static str {
    match kind {
        ConfirmationKind::Proceed => "proceed",
        ConfirmationKind::MachineIsOff => "machine-is-off",
    }
}

/// What an administrator's word would change now.
pub(crate) fn confirmable(record: &FenceRecord) -> Vec<ConfirmationKind> {
    if !record.is_open() {
        return Vec::new();
    }
    let said = record.confirmation.as_ref().map(|confirmation| confirmation.kind);
    let mut kinds = Vec::new();
    let untouched = match record.phase {
        FencePhase::Suspected => true,
        FencePhase::Proving
        | FencePhase::Proven { .. }
        | FencePhase::Recovering { .. }
        | FencePhase::Done { .. }
        | FencePhase::Abandoned { .. } => false,
    };
    if untouched && said.is_none() {
        kinds.push(ConfirmationKind::Proceed);
    }
    let lacking = match Proof::recorded(record).map(|proof| proof.kind()) {
        None => true,
        Some(ProofKind::Storage) => !record.left.is_empty() || not_covered(record) > 0,
        Some(ProofKind::Power | ProofKind::NewBoot | ProofKind::Administrator) => false,
    };
    if lacking && said != Some(ConfirmationKind::MachineIsOff) {
        kinds.push(ConfirmationKind::MachineIsOff);
    }
    kinds
}

fn not_covered(record: &FenceRecord) -> usize {
    match &record.storage {
        StorageTrack::Barred { not_covered, .. } => not_covered.len(),
        StorageTrack::Untried
        | StorageTrack::Unavailable { .. }
        | StorageTrack::Barring
        | StorageTrack::Entered { .. }
        | StorageTrack::Failed { .. } => 0,
    }
}

/// A node's fence as it is shown.
pub(crate) fn describe(
    node: &NodeName,
    daemon_state: DaemonState,
    record: Option<&FenceRecord>,
    report: Option<&BmcReport>,
    guests: &Guests,
) -> NodeFence {
    let Some(record) = record else {
        return NodeFence {
            bmc: report.map(bmc),
            ..without_record(node, daemon_state)
        };
    };
    NodeFence {
        node: node.to_string(),
        daemon_state,
        state: record.phase.word().to_owned(),
        open: record.is_open(),
        proof: Proof::recorded(record).map(|proof| proof.kind().to_string()),
        now: now(record, guests),
        next: next(record, guests),
        next_try_at: record.next_try_at.filter(|_| record.is_open()),
        missing: missing(record, guests),
        can_confirm: confirmable(record)
            .into_iter()
            .map(|kind| word(kind).to_owned())
            .collect(),
        bmc: report.map(bmc),
        fence: Some(details(record, guests)),
    }
}

fn without_record(node: &NodeName, daemon_state: DaemonState) -> NodeFence {
    NodeFence {
        node: node.to_string(),
        daemon_state,
        state: "none".to_owned(),
        open: false,
        proof: None,
        now: "No fence".to_owned(),
        next: String::new(),
        next_try_at: None,
        missing: Vec::new(),
        can_confirm: Vec::new(),
        bmc: None,
        fence: None,
    }
}

/// A fence that stands in the store and can not be read. It must not look like none, nor hide the others.
pub(crate) fn unreadable(node: &NodeName, daemon_state: DaemonState, error: &ReadError) -> NodeFence {
    NodeFence {
        state: "unreadable".to_owned(),
        open: true,
        now: format!("Its record can not be read: {error}"),
        ..without_record(node, daemon_state)
    }
}

fn details(record: &FenceRecord, guests: &Guests) -> Fence {
    Fence {
        victim_machine_id: record.victim.machine_id.to_string(),
        victim_boot_id: record.victim.boot_id.to_string(),
        victim_counter: record.victim.counter,
        attempt: record.attempt,
        fencer: record.fencer.to_string(),
        abandoned_because: match &record.phase {
            FencePhase::Abandoned { reason } => reason.clone(),
            FencePhase::Suspected
            | FencePhase::Proving
            | FencePhase::Proven { .. }
            | FencePhase::Recovering { .. }
            | FencePhase::Done { .. } => String::new(),
        },
        power: power(&record.power),
        storage: storage(&record.storage),
        restart: restart(&record.restart),
        confirmation: record
            .confirmation
            .as_ref()
            .map(|confirmation| FenceConfirmation {
                kind: word(confirmation.kind).to_owned(),
                by: confirmation.by.clone(),
                at: confirmation.at,
            }),
        guests_owned: guests.owned.clone(),
        guests_parked: guests.parked.clone(),
        guests_left: guests.left.clone(),
        returned: record.returned.is_some(),
        waits_for: record.waits_for.clone(),
        events: record
            .events
            .iter()
            .map(|event| FenceEvent {
                at: event.at,
                node: event.node.to_string(),
                text: event.text.clone(),
            })
            .collect(),
    }
}

fn now(record: &FenceRecord, guests: &Guests) -> String {
    match &record.phase {
        FencePhase::Suspected => {
            "It is silent: it has not renewed its lease. Nothing has been done to it".to_owned()
        }
        FencePhase::Proving => match (&record.power, &record.storage) {
            (PowerTrack::Ordered, StorageTrack::Barring) => {
                "It is being switched off, and its Ceph clients are being barred".to_owned()
            }
            (PowerTrack::Ordered, _) => "It is being switched off by its BMC".to_owned(),
            (_, StorageTrack::Barring) => "Its Ceph clients are being barred".to_owned(),
            (_, _) => "A proof that it is dead is being sought".to_owned(),
        },
        FencePhase::Proven { by } => format!("It is dead ({}); its guests come next", known_by(*by)),
        FencePhase::Recovering { by } => format!(
            "It is dead ({}); its guests are being given to other nodes, {} to go",
            known_by(*by),
            guests.owned.len()
        ),
        FencePhase::Done { by } if record.returned.is_some() => {
            format!("It was dead ({}) and has come back", known_by(*by))
        }
        FencePhase::Done { by } => {
            format!(
                "It is dead ({}); none of its guests belongs to it any more",
                known_by(*by)
            )
        }
        FencePhase::Abandoned { reason } => format!("Given up: {reason}"),
    }
}

fn known_by(kind: ProofKind) -> &'static str {
    match kind {
        ProofKind::Power => "its BMC says that it is off",
        ProofKind::Storage => "every Ceph client of its guests is barred",
        ProofKind::NewBoot => "the machine has booted anew",
        ProofKind::Administrator => "an administrator says that it is off",
    }
}

fn next(record: &FenceRecord, guests: &Guests) -> String {
    if record.is_open() && !record.waits_for.is_empty() {
        return format!("It waits: {}", record.waits_for);
    }
    if matches!(record.phase, FencePhase::Suspected | FencePhase::Proving)
        && Proof::recorded(record).is_some()
    {
        return "Its guests are started elsewhere".to_owned();
    }
    match &record.phase {
        FencePhase::Suspected => {
            "Unless it renews its lease first, it is switched off and its Ceph clients are barred".to_owned()
        }
        FencePhase::Proving => match (&record.power, &record.storage) {
            (PowerTrack::Ordered, _) | (_, StorageTrack::Barring) => {
                "As soon as one proof is there its guests are started elsewhere".to_owned()
            }
            (_, _) => "It is tried again".to_owned(),
        },
        FencePhase::Proven { .. } | FencePhase::Recovering { .. } => {
            "Each guest is started on the node that suits it best, the most important ones first".to_owned()
        }
        FencePhase::Done { .. } => {
            let mut parts = Vec::new();
            match record.restart {
                RestartTrack::Ordered => parts.push("It is switched on again".to_owned()),
                RestartTrack::NotDue | RestartTrack::Done | RestartTrack::Failed { .. } => {}
            }
            if !guests.parked.is_empty() {
                parts.push(format!(
                    "A node is looked for each minute for {}",
                    guests.parked.join(", ")
                ));
            }
            if record.returned.is_none() {
                parts
                    .push("When it boots it comes back empty and takes guests after 'node ready'".to_owned());
            }
            parts.join(". ")
        }
        FencePhase::Abandoned { .. } => String::new(),
    }
}

fn missing(record: &FenceRecord, guests: &Guests) -> Vec<String> {
    if !record.is_open() {
        return Vec::new();
    }
    match Proof::recorded(record).map(|proof| proof.kind()) {
        Some(ProofKind::Power | ProofKind::NewBoot | ProofKind::Administrator) => Vec::new(),
        Some(ProofKind::Storage) if guests.left.is_empty() => Vec::new(),
        Some(ProofKind::Storage) => {
            let mut lines = vec![format!(
                "The barring of Ceph clients does not cover {}: they have disks elsewhere, or clients that are not on record",
                guests.left.join(", ")
            )];
            lines.push(power_missing(&record.power));
            lines.push(ADMINISTRATOR_MISSING.to_owned());
            lines
        }
        None => vec![
            power_missing(&record.power),
            storage_missing(&record.storage),
            ADMINISTRATOR_MISSING.to_owned(),
        ],
    }
}

const ADMINISTRATOR_MISSING: &str = "Administrator: nobody has confirmed that the machine is off";

fn power_missing(track: &PowerTrack) -> String {
    match track {
        PowerTrack::Untried => "Power: not ordered yet".to_owned(),
        PowerTrack::Unavailable { reason } => format!("Power: can not be had: {reason}"),
        PowerTrack::Ordered => "Power: ordered; the BMC has not said \"off\" yet".to_owned(),
        PowerTrack::Off => "Power: the BMC says \"off\"".to_owned(),
        PowerTrack::Failed { reason } => format!("Power: failed: {reason}"),
    }
}

fn storage_missing(track: &StorageTrack) -> String {
    match track {
        StorageTrack::Untried => "Storage: not tried yet".to_owned(),
        StorageTrack::Unavailable { reason } => format!("Storage: can not be had: {reason}"),
        StorageTrack::Barring => "Storage: not every OSD knows yet that its clients are barred".to_owned(),
        StorageTrack::Entered { .. } | StorageTrack::Barred { .. } => {
            "Storage: its clients are barred".to_owned()
        }
        StorageTrack::Failed { reason } => format!("Storage: failed: {reason}"),
    }
}

fn power(track: &PowerTrack) -> FenceTrack {
    let (state, detail) = match track {
        PowerTrack::Untried => ("untried", String::new()),
        PowerTrack::Unavailable { reason } => ("unavailable", reason.clone()),
        PowerTrack::Ordered => ("ordered", "the BMC has not said \"off\" yet".to_owned()),
        PowerTrack::Off => ("off", "the BMC said \"off\" after the order".to_owned()),
        PowerTrack::Failed { reason } => ("failed", reason.clone()),
    };
    track_of(state, detail)
}

fn storage(track: &StorageTrack) -> FenceTrack {
    let (state, detail) = match track {
        StorageTrack::Untried => ("untried", String::new()),
        StorageTrack::Unavailable { reason } => ("unavailable", reason.clone()),
        StorageTrack::Barring => ("barring", "not every OSD knows yet".to_owned()),
        StorageTrack::Barred {
            epoch,
            clients,
            not_covered,
        } => (
            "barred",
            match not_covered.len() {
                0 => format!("{clients} clients, in OSD map {epoch}"),
                guests => format!("{clients} clients, in OSD map {epoch}; {guests} guests are not covered"),
            },
        ),
        StorageTrack::Entered { epoch, clients } => (
            "entered",
            format!("{clients} clients barred (map {epoch}); the OSDs were not asked, since it is off"),
        ),
        StorageTrack::Failed { reason } => ("failed", reason.clone()),
    };
    track_of(state, detail)
}

fn restart(track: &RestartTrack) -> FenceTrack {
    let (state, detail) = match track {
        RestartTrack::NotDue => ("not-due", String::new()),
        RestartTrack::Ordered => ("ordered", "the BMC has not answered yet".to_owned()),
        RestartTrack::Done => ("done", "the BMC took the order".to_owned()),
        RestartTrack::Failed { reason } => ("failed", reason.clone()),
    };
    track_of(state, detail)
}

fn track_of(state: &str, detail: String) -> FenceTrack {
    FenceTrack {
        state: state.to_owned(),
        detail,
    }
}

/// What is known of a BMC, as it is shown.
pub(crate) fn bmc(report: &BmcReport) -> Bmc {
    let (identity, doubt) = match &report.identity {
        BmcIdentity::Verified { .. } => ("verified", String::new()),
        BmcIdentity::Mismatch { inside, outside } => (
            "mismatch",
            format!(
                "the BMC at this node's address is another machine's (GUID {outside}, this machine has {inside})"
            ),
        ),
        BmcIdentity::Unverified { reason } => ("unverified", reason.clone()),
    };
    let reasons: Vec<String> = [report.reason.clone(), doubt]
        .into_iter()
        .filter(|reason| !reason.is_empty())
        .collect();
    Bmc {
        works: report.works,
        identity: identity.to_owned(),
        reason: reasons.join("; "),
        tried_at: report.tried_at,
    }
}

#[cfg(test)]
mod tests {
    use pvc_core::fence::Confirmation;
    use pvc_core::ids::Incarnation;

    use super::*;

    fn record(change: impl FnOnce(&mut FenceRecord)) -> FenceRecord {
        let victim = Incarnation {
            machine_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            boot_id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
            counter: 1,
        };
        let mut record = FenceRecord::suspected(victim, NodeName::new("hv1").unwrap());
        change(&mut record);
        record
    }

    fn confirm(record: &mut FenceRecord, kind: ConfirmationKind) {
        record.confirmation = Some(Confirmation {
            kind,
            by: "me".to_owned(),
            at: 1,
        });
    }

    fn check(change: impl FnOnce(&mut FenceRecord), expected: &[ConfirmationKind]) {
        assert_eq!(confirmable(&record(change)), expected);
    }

    #[test]
    fn only_what_would_change_something_can_be_confirmed() {
        use ConfirmationKind::{MachineIsOff, Proceed};
        let barred = |not_covered| StorageTrack::Barred {
            epoch: 7,
            clients: 2,
            not_covered,
        };
        let vm = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01".parse().unwrap();
        check(|_| {}, &[Proceed, MachineIsOff]);
        check(|record| confirm(record, Proceed), &[MachineIsOff]);
        check(|record| confirm(record, MachineIsOff), &[]);
        check(
            |record| {
                record.phase = FencePhase::Proving;
                record.power = PowerTrack::Failed {
                    reason: "no answer".to_owned(),
                };
            },
            &[MachineIsOff],
        );
        check(
            |record| {
                record.phase = FencePhase::Proving;
                record.power = PowerTrack::Off;
            },
            &[],
        );
        check(
            |record| {
                record.phase = FencePhase::Recovering {
                    by: ProofKind::Storage,
                };
                record.storage = barred(Vec::new());
            },
            &[],
        );
        // Guests on a local disk wait for a person: without this nobody could ever free them when the BMC is dead.
        check(
            |record| {
                record.phase = FencePhase::Recovering {
                    by: ProofKind::Storage,
                };
                record.storage = barred(vec![vm]);
                record.left = vec![vm];
            },
            &[MachineIsOff],
        );
        check(
            |record| {
                record.phase = FencePhase::Done { by: ProofKind::Power };
            },
            &[],
        );
        check(
            |record| {
                record.phase = FencePhase::Abandoned {
                    reason: "it renewed".to_owned(),
                };
            },
            &[],
        );
    }

    #[test]
    fn an_open_fence_without_a_proof_says_which_are_missing() {
        let record = record(|record| {
            record.phase = FencePhase::Proving;
            record.power = PowerTrack::Failed {
                reason: "the BMC did not answer".to_owned(),
            };
            record.storage = StorageTrack::Barring;
            record.waits_for = "an OSD that does not answer".to_owned();
        });
        let shown = describe(
            &NodeName::new("hv2").unwrap(),
            DaemonState::Dead,
            Some(&record),
            None,
            &Guests::default(),
        );
        assert_eq!(shown.missing.len(), 3, "{shown:?}");
        assert!(shown.missing[0].contains("did not answer"), "{shown:?}");
        assert_eq!(shown.next, "It waits: an OSD that does not answer");
        assert_eq!(shown.proof, None);
        assert_eq!(shown.can_confirm, ["machine-is-off"]);
    }

    #[test]
    fn every_phase_has_its_words() {
        for by in [
            ProofKind::Power,
            ProofKind::Storage,
            ProofKind::NewBoot,
            ProofKind::Administrator,
        ] {
            for phase in [
                FencePhase::Suspected,
                FencePhase::Proving,
                FencePhase::Proven { by },
                FencePhase::Recovering { by },
                FencePhase::Done { by },
            ] {
                let record = record(|record| record.phase = phase.clone());
                let guests = Guests::default();
                assert!(!now(&record, &guests).is_empty(), "{phase:?}");
                assert!(!next(&record, &guests).is_empty(), "{phase:?}");
            }
        }
    }
}
