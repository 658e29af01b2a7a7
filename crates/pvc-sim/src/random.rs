//! Schedules drawn from a seed.

use std::time::Duration;

use pvc_common::keys::values::Maintenance;
use pvc_common::store::memory::Fate;
use pvc_core::states::VmState;
use pvcnoded::host::fake::power::BmcMood;

use crate::hooks::Ordered;
use crate::rng::Rng;
use crate::schedule::{Action, ClusterPlan, Link, Schedule, Step};

/// Steps of a schedule; convergence comes on top.
pub const STEPS: usize = 200;
/// Faults of a schedule, at least.
const FAULTS: u64 = 3;

/// The cluster of this seed: three nodes mostly, sometimes more; as asked for where something is.
pub fn cluster(seed: u64, nodes: Option<usize>, guests: Option<usize>) -> ClusterPlan {
    let usual = match seed % 8 {
        7 => 5,
        3 => 4,
        _ => 3,
    };
    ClusterPlan {
        nodes: nodes.unwrap_or(usual),
        guests: guests.unwrap_or(3),
        seed,
    }
}

/// The schedule of this seed.
pub fn schedule(plan: &ClusterPlan) -> Schedule {
    let mut rng = Rng::new(plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
    let mut actions: Vec<Vec<Action>> = vec![Vec::new(); STEPS];
    let faults = FAULTS + rng.below(7);
    for _ in 0..faults {
        let at = rng.index(STEPS - 10);
        let lasts = 1 + duration_in_steps(&mut rng);
        let (begin, end) = fault(plan, &mut rng);
        if let Action::PowerLoss(host)
        | Action::FreezeHost(host)
        | Action::Freeze(host)
        | Action::Cut(host, Link::Store) = begin
            && rng.chance(35)
        {
            // Its BMC has died with it.
            actions[at].push(Action::Bmc(host, BmcMood::Dead));
            let back = (at + lasts + rng.index(40)).min(STEPS - 1);
            actions[back].push(Action::Bmc(host, BmcMood::Works));
        }
        actions[at].push(begin);
        if let Some(end) = end {
            let at = (at + lasts).min(STEPS - 1);
            actions[at].push(end);
        }
    }
    if plan.nodes >= 5 && rng.chance(50) {
        // A switch dies, with most of the nodes behind it.
        let at = rng.index(STEPS / 2);
        let until = at + 30 + rng.index(60);
        for host in plan.nodes - 3..plan.nodes {
            actions[at].push(Action::Cut(host, Link::Store));
            actions[until].push(Action::Heal(host, Link::Store));
        }
    }
    for _ in 0..rng.below(4) {
        // A migration, and perhaps something that meets it.
        let (guest, host) = (rng.index(plan.guests.max(1)), rng.index(plan.nodes));
        let at = rng.index(STEPS - 25);
        actions[at].push(Action::Migrate(guest, host));
        let home = guest % plan.nodes;
        if rng.chance(25) {
            // libvirt's last answer gets lost in the switch-over, if it is met: the guest runs on, and ends by itself.
            let met = at + 5 + rng.index(12);
            actions[met].push(Action::Cut(home, Link::Store));
            if rng.chance(50) {
                actions[met].push(Action::Kill(home));
            }
            let ends = met + rng.index(3);
            actions[ends].push(Action::KillGuest(home, guest));
            actions[ends + 1 + rng.index(3)].push(Action::Heal(home, Link::Store));
        } else if rng.chance(60) {
            let (begin, end) = fault(plan, &mut rng);
            let met = at + 1 + rng.index(12);
            actions[met].push(begin);
            if let Some(end) = end {
                let end_at = (met + 1 + duration_in_steps(&mut rng)).min(STEPS - 1);
                actions[end_at].push(end);
            }
        }
    }
    for _ in 0..rng.below(6) {
        let at = rng.index(STEPS);
        actions[at].push(request(plan, &mut rng));
    }
    let mut steps = vec![Step {
        after: Duration::from_secs(3),
        action: Action::Nothing,
        salt: 1,
    }];
    for actions in actions {
        let mut after = Duration::from_millis(rng.between(20, 520));
        let mut actions = actions.into_iter();
        let first = actions.next().unwrap_or(Action::Nothing);
        for action in std::iter::once(first).chain(actions) {
            steps.push(Step {
                after,
                action,
                salt: steps.len() as u64 + 1,
            });
            after = Duration::ZERO;
        }
    }
    Schedule {
        plan: plan.clone(),
        steps,
    }
}

/// Most faults are short against a lease or long against it.
fn duration_in_steps(rng: &mut Rng) -> usize {
    let steps = match rng.below(10) {
        0..3 => rng.between(0, 6),
        3..8 => rng.between(15, 60),
        _ => rng.between(60, 150),
    };
    usize::try_from(steps).unwrap_or(0)
}

fn request(plan: &ClusterPlan, rng: &mut Rng) -> Action {
    let (host, guest) = (rng.index(plan.nodes), rng.index(plan.guests.max(1)));
    match rng.below(12) {
        10..12 => Action::Attach(guest),
        0..4 => Action::Ask(
            guest,
            *rng.pick(&[
                VmState::Start,
                VmState::Start,
                VmState::Stop,
                VmState::Shutdown,
                VmState::Restart,
                VmState::Disable,
            ]),
        ),
        4..6 => Action::Place(guest, host),
        6 => Action::Maintenance(if rng.chance(50) {
            Maintenance::On
        } else {
            Maintenance::Off
        }),
        7 => Action::Primary(Some(rng.index(plan.nodes.min(3)))),
        8 if rng.chance(50) => Action::Ready(host),
        8 => Action::Flush(host),
        _ => Action::Primary(None),
    }
}

/// Calls at which an agent may be met.
const CALLS: &[&str] = &[
    "write:/config/primary_node",
    "write:/leases/primary",
    "write:/leases/nodes",
    "write:/domains",
    "write:/domains",
    "read",
    "create",
    "resume",
    "destroy",
    "volume-use",
    "blocklist",
    "remove-lock",
    "lock",
    "write:/fences",
    "write:/fences",
    "write:/fences",
    "send",
    "suspend",
    "attach",
    "write:/domains",
    "power-off",
    "power-state",
    "power-on",
    "every-osd-knows",
    "osd-down",
];

/// A fault and what ends it, if anything must.
fn fault(plan: &ClusterPlan, rng: &mut Rng) -> (Action, Option<Action>) {
    let (host, guest) = (rng.index(plan.nodes), rng.index(plan.guests));
    let fate = *rng.pick(&[Fate::Lost, Fate::Applied, Fate::AppliedOnReconnect]);
    let link = *rng.pick(&[
        Link::Store,
        Link::Store,
        Link::Lease,
        Link::Storage,
        Link::Bmc,
        Link::Upstream,
    ]);
    match rng.below(47) {
        0..3 => (Action::Kill(host), None),
        3..6 => (Action::Freeze(host), Some(Action::Thaw(host))),
        6..9 => (Action::FreezeHost(host), Some(Action::ThawHost(host))),
        9 => {
            let counted = Duration::from_secs(rng.below(30));
            (Action::Suspend(host), Some(Action::Wake(host, counted)))
        }
        10..13 => (Action::PowerLoss(host), Some(Action::PowerOn(host))),
        13..18 => (Action::Cut(host, link), Some(Action::Heal(host, link))),
        18 => (Action::Expire(host), None),
        19..21 => (Action::Hide(host, fate), None),
        21..23 => (Action::HideLease(host, fate), None),
        23 => (Action::Lag(host), Some(Action::CatchUp(host))),
        24 => (
            Action::Slow(host, Duration::from_millis(rng.between(20, 900))),
            Some(Action::Slow(host, Duration::ZERO)),
        ),
        25 => (Action::LoseQuorum, Some(Action::RestoreQuorum)),
        26 => (Action::LibvirtAway(host), Some(Action::LibvirtBack(host))),
        27 => (Action::LoseAnswer(host), None),
        28 => (Action::KillGuest(host, guest), None),
        29..31 => (
            Action::Stall(host, Duration::from_millis(rng.between(100, 9000))),
            None,
        ),
        31 if rng.chance(50) => (Action::SayDead(host), None),
        31 => (Action::RemoveAddress(host), None),
        32 => (Action::Opener(guest), None),
        40..43 => {
            let mood = *rng.pick(&[BmcMood::Dead, BmcMood::Dead, BmcMood::Refuses, BmcMood::Babbles]);
            (Action::Bmc(host, mood), Some(Action::Bmc(host, BmcMood::Works)))
        }
        43 => {
            let slow = Duration::from_millis(rng.between(100, 6000));
            (
                Action::BmcSlow(host, slow),
                Some(Action::BmcSlow(host, Duration::ZERO)),
            )
        }
        46 => (Action::LoseLogs(host), Some(Action::FindLogs(host))),
        44..46 => {
            let lag = Duration::from_millis(rng.between(100, 9000));
            (
                Action::OsdLag(host, lag),
                Some(Action::OsdLag(host, Duration::ZERO)),
            )
        }
        _ => {
            let what = match rng.below(10) {
                0..5 => Ordered::Pause(Duration::from_millis(rng.between(500, 20_000))),
                5..7 => Ordered::Kill,
                7 if rng.chance(50) => Ordered::Expire,
                7 => Ordered::KillAfter,
                8 => Ordered::PowerLoss,
                _ => Ordered::Fail,
            };
            let at = Action::At {
                host,
                call: (*rng.pick(CALLS)).to_owned(),
                count: u32::try_from(rng.between(1, 5)).unwrap_or(1),
                what,
            };
            let end = (what == Ordered::PowerLoss).then_some(Action::PowerOn(host));
            (at, end)
        }
    }
}
