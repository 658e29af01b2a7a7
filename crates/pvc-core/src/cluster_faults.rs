//! What is wrong with the cluster as a whole: nodes that are dead, guests that have failed, memory that would not do if a
//! node failed, and what Ceph complains of. The faults and their weights are those of PVC 1.0.3.
//!
//! The primary looks at all of it and judges here; a fault that is not among the answer any more is over, where its family
//! was seen whole.

use std::fmt;

use crate::ids::NodeName;
use crate::states::DaemonState;

/// What a node costs that is dead.
const DEAD_NODE: u32 = 50;
/// What it costs that the largest node could not be spared.
const OVERPROVISIONED: u32 = 50;
/// What a guest costs that has failed.
const VM_FAILED: u32 = 10;
/// What an OSD costs on which no data is placed.
const OSD_OUT: u32 = 50;
/// What a warning of Ceph costs, and an error.
const CEPH_WARN: u32 = 10;
const CEPH_ERR: u32 = 50;
/// What it costs that Ceph says nothing.
const CEPH_SILENT: u32 = 50;
/// How much of a text of Ceph's is shown.
const SUMMARY_CHARACTERS: usize = 300;

/// What is known of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSight {
    /// All nodes.
    pub nodes: Seen<NodeSight>,
    /// The guests that have failed.
    pub failed_guests: Seen<FailedGuest>,
    /// Ceph.
    pub ceph: CephSight,
}

/// Things that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// Those that could be.
    pub items: Vec<T>,
    /// Whether they are all there are. If not, nothing follows from one that is not among them.
    pub whole: bool,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSight {
    /// Its name.
    pub name: NodeName,
    /// How its agent is.
    pub daemon_state: DaemonState,
    /// Memory that it has, in MiB.
    pub memory_total_mib: u64,
    /// Memory of the guests that run there, in MiB.
    pub memory_allocated_mib: u64,
}

/// A guest in state `fail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGuest {
    /// Its name.
    pub name: String,
    /// Why; empty if nobody has said.
    pub reason: String,
}

/// What is known of Ceph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CephSight {
    /// This cluster has no storage of ours.
    None,
    /// It was not asked yet, or did not answer just now.
    Unknown,
    /// It has not answered several times.
    Silent {
        /// What came instead of an answer.
        reason: String,
    },
    /// It has answered.
    Known(CephHealth),
}

/// What Ceph says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CephHealth {
    /// What it complains of and nobody has muted.
    pub checks: Vec<CephCheck>,
    /// OSDs on which no data is placed.
    pub osds_out: Vec<u32>,
}

/// A complaint of Ceph's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CephCheck {
    /// Its name, such as `OSD_DOWN`.
    pub name: String,
    /// How bad it is.
    pub severity: CephSeverity,
    /// In words.
    pub summary: String,
}

/// How bad a complaint of Ceph's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CephSeverity {
    /// `HEALTH_WARN`.
    Warning,
    /// `HEALTH_ERR`.
    Error,
}

/// Faults that are looked for together. Their ids begin with the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultFamily {
    /// `DEAD_NODE_N`.
    DeadNode,
    /// `MEMORY_OVERPROVISIONED`.
    Memory,
    /// `VM_FAILED_V`.
    FailedGuest,
    /// `CEPH_WARN_C`, `CEPH_ERR_C`, `CEPH_OSD_OUT_O`.
    Ceph,
    /// `CEPH_SILENT`.
    CephSilent,
}

impl FaultFamily {
    /// Whether the fault of that id is one of them.
    pub fn has(self, id: &str) -> bool {
        let begins: &[&str] = match self {
            FaultFamily::DeadNode => &["DEAD_NODE_"],
            FaultFamily::Memory => return id == "MEMORY_OVERPROVISIONED",
            FaultFamily::FailedGuest => &["VM_FAILED_"],
            FaultFamily::Ceph => &["CEPH_WARN_", "CEPH_ERR_", "CEPH_OSD_OUT_"],
            FaultFamily::CephSilent => return id == "CEPH_SILENT",
        };
        begins.iter().any(|begin| id.starts_with(begin))
    }
}

/// A fault of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFault {
    /// The words of its id.
    pub words: Vec<String>,
    /// What it takes from the cluster's health, in percent.
    pub delta: u32,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assessment {
    /// What is wrong.
    pub faults: Vec<ClusterFault>,
    /// The families of which all was seen: a fault of theirs that is not above is over.
    pub settled: Vec<FaultFamily>,
}

impl Assessment {
    fn add(&mut self, words: &[&str], delta: u32, message: impl fmt::Display) {
        self.faults.push(ClusterFault {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            delta,
            message: message.to_string(),
        });
    }
}

/// Judges the cluster.
pub fn assess(sight: &ClusterSight) -> Assessment {
    let mut found = Assessment::default();
    assess_nodes(&sight.nodes.items, &mut found);
    if sight.nodes.whole {
        found.settled.extend([FaultFamily::DeadNode, FaultFamily::Memory]);
        // Of a sum a part says nothing.
        assess_memory(&sight.nodes.items, &mut found);
    }
    if sight.failed_guests.whole {
        found.settled.push(FaultFamily::FailedGuest);
    }
    for FailedGuest { name, reason } in &sight.failed_guests.items {
        let reason = match reason.trim() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let message =
            format!("VM {name} has failed{reason}. See 'pvc vm info {name}'; start or disable it then");
        found.add(&["VM_FAILED", name], VM_FAILED, message);
    }
    match &sight.ceph {
        CephSight::None => found.settled.extend([FaultFamily::Ceph, FaultFamily::CephSilent]),
        CephSight::Unknown => {}
        CephSight::Silent { reason } => {
            found.settled.push(FaultFamily::CephSilent);
            let message = format!(
                "Ceph does not say how it is ({reason}). See 'ceph -s'; guests that wait for their disks stand still"
            );
            found.add(&["CEPH_SILENT"], CEPH_SILENT, message);
        }
        CephSight::Known(health) => {
            found.settled.extend([FaultFamily::Ceph, FaultFamily::CephSilent]);
            assess_ceph(health, &mut found);
        }
    }
    found
}

fn assess_nodes(nodes: &[NodeSight], found: &mut Assessment) {
    for NodeSight {
        name, daemon_state, ..
    } in nodes
    {
        let message = match daemon_state {
            DaemonState::Dead => {
                format!("Node {name} is dead: nothing is heard of it. See 'pvc fence show {name}'")
            }
            DaemonState::Fenced => {
                format!("Node {name} was fenced and is not back: repair it, then switch it on")
            }
            DaemonState::Run | DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => continue,
        };
        found.add(&["DEAD_NODE", name.as_str()], DEAD_NODE, message);
    }
}

/// A dead node has no memory to give, and its guests run elsewhere or wait; one that was stopped in good order keeps both.
fn assess_memory(nodes: &[NodeSight], found: &mut Assessment) {
    let there: Vec<&NodeSight> = nodes
        .iter()
        .filter(|node| !matches!(node.daemon_state, DaemonState::Dead | DaemonState::Fenced))
        .collect();
    // Of one node none can be spared, whatever runs there.
    let Some(largest) = there.iter().max_by_key(|node| node.memory_total_mib) else {
        return;
    };
    if there.len() < 2 {
        return;
    }
    let sum = |part: fn(&NodeSight) -> u64| {
        there
            .iter()
            .fold(0_u64, |sum, node| sum.saturating_add(part(node)))
    };
    let allocated = sum(|node| node.memory_allocated_mib);
    let left = sum(|node| node.memory_total_mib).saturating_sub(largest.memory_total_mib);
    // Before nodes have told their figures there is nothing of nothing.
    if allocated > 0 && allocated >= left {
        let name = &largest.name;
        let message = format!(
            "Guests that run have {allocated} MiB of memory, and without its largest node ({name}) the cluster has {left} MiB: \
             if that node fails, not all of them can run elsewhere. Stop or shrink guests, or add memory"
        );
        found.add(&["MEMORY_OVERPROVISIONED"], OVERPROVISIONED, message);
    }
}

fn assess_ceph(health: &CephHealth, found: &mut Assessment) {
    for osd in &health.osds_out {
        let message = format!(
            "OSD {osd} is out: no data is placed on it, and what was there has moved. See 'ceph osd tree'; 'ceph osd in \
             {osd}' takes it back"
        );
        found.add(&["CEPH_OSD_OUT", &osd.to_string()], OSD_OUT, message);
    }
    for check in &health.checks {
        let (kind, delta, said) = match check.severity {
            CephSeverity::Warning => ("CEPH_WARN", CEPH_WARN, "warns"),
            CephSeverity::Error => ("CEPH_ERR", CEPH_ERR, "has an error"),
        };
        let summary: String = check.summary.chars().take(SUMMARY_CHARACTERS).collect();
        let message = format!("Ceph {said}: {summary}. See 'ceph health detail'");
        found.add(&[kind, &check.name], delta, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, daemon_state: DaemonState, total: u64, allocated: u64) -> NodeSight {
        NodeSight {
            name: NodeName::new(name).unwrap(),
            daemon_state,
            memory_total_mib: total,
            memory_allocated_mib: allocated,
        }
    }

    fn whole<T>(items: Vec<T>) -> Seen<T> {
        Seen { items, whole: true }
    }

    fn unseen<T>() -> Seen<T> {
        Seen {
            items: Vec::new(),
            whole: false,
        }
    }

    fn nodes(nodes: &[NodeSight]) -> ClusterSight {
        ClusterSight {
            nodes: whole(nodes.to_vec()),
            failed_guests: unseen(),
            ceph: CephSight::Unknown,
        }
    }

    fn ids(sight: &ClusterSight) -> Vec<(String, u32)> {
        let found = assess(sight);
        found
            .faults
            .iter()
            .map(|fault| (fault.words.join("_"), fault.delta))
            .collect()
    }

    #[test]
    fn a_node_is_dead_in_these_states_and_no_others() {
        for state in DaemonState::ALL.iter().copied() {
            let found = ids(&nodes(&[node("hv1", state, 0, 0)]));
            let dead = matches!(state, DaemonState::Dead | DaemonState::Fenced);
            let expected = if dead {
                vec![("DEAD_NODE_hv1".to_owned(), 50)]
            } else {
                Vec::new()
            };
            assert_eq!(found, expected, "{state}");
        }
    }

    /// Whether memory is short on nodes of these states, memories and allocations.
    fn short(of: &[(DaemonState, u64, u64)]) -> bool {
        let all: Vec<NodeSight> = of
            .iter()
            .zip(1..)
            .map(|((state, total, allocated), number)| {
                node(&format!("hv{number}"), *state, *total, *allocated)
            })
            .collect();
        ids(&nodes(&all)).contains(&("MEMORY_OVERPROVISIONED".to_owned(), 50))
    }

    // Found out when the largest node fails, this leaves guests down.
    #[test]
    fn memory_must_do_without_the_largest_node() {
        use DaemonState::{Dead, Fenced, Run, Stop};
        assert!(short(&[(Run, 64, 100), (Run, 96, 28), (Run, 64, 0)]));
        assert!(!short(&[(Run, 64, 100), (Run, 96, 27), (Run, 64, 0)]));
        // One of three has died: the two that are left have only one to spare. What it had run counts there no more.
        assert!(short(&[(Run, 64, 40), (Run, 64, 24), (Dead, 64, 30)]));
        assert!(!short(&[(Run, 64, 40), (Run, 64, 23), (Fenced, 64, 30)]));
        // A restart of an agent is no loss of memory.
        assert!(!short(&[(Run, 64, 40), (Run, 64, 40), (Stop, 64, 30)]));
        // One node, or figures that are not there yet.
        assert!(!short(&[(Run, 64, 60)]));
        assert!(!short(&[(Run, 0, 0), (Run, 0, 0)]));
        assert!(!short(&[]));
    }

    #[test]
    fn a_failed_guest_is_told_with_its_reason() {
        let guest = |name: &str, reason: &str| FailedGuest {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let found = assess(&ClusterSight {
            nodes: unseen(),
            failed_guests: whole(vec![guest("web", "no such volume"), guest("db", " ")]),
            ceph: CephSight::None,
        });
        let told: Vec<&str> = found.faults.iter().map(|fault| fault.message.as_str()).collect();
        assert!(
            told[0].starts_with("VM web has failed: no such volume. See 'pvc vm info web'"),
            "{told:?}"
        );
        assert!(told[1].starts_with("VM db has failed. "), "{told:?}");
        assert_eq!(found.faults[0].delta, 10);
    }

    #[test]
    fn complaints_of_ceph_weigh_by_their_severity() {
        let check = |name: &str, severity, summary: &str| CephCheck {
            name: name.to_owned(),
            severity,
            summary: summary.to_owned(),
        };
        let mut sight = ClusterSight {
            nodes: unseen(),
            failed_guests: unseen(),
            ceph: CephSight::Known(CephHealth {
                checks: vec![
                    check("OSD_DOWN", CephSeverity::Warning, "1 osds down"),
                    check("PG_DAMAGED", CephSeverity::Error, &"x".repeat(9000)),
                ],
                osds_out: vec![3],
            }),
        };
        let expected = [
            ("CEPH_OSD_OUT_3", 50),
            ("CEPH_WARN_OSD_DOWN", 10),
            ("CEPH_ERR_PG_DAMAGED", 50),
        ];
        assert_eq!(ids(&sight), expected.map(|(id, delta)| (id.to_owned(), delta)));
        let found = assess(&sight);
        assert!(found.faults[1].message.contains("1 osds down"));
        assert!(found.faults.iter().all(|fault| fault.message.len() < 500));
        sight.ceph = CephSight::Silent {
            reason: "no answer".to_owned(),
        };
        assert_eq!(ids(&sight), [("CEPH_SILENT".to_owned(), 50)]);
    }

    // A fault that is cleared since nobody could look is as good as none: the administrator goes home.
    #[test]
    fn what_could_not_be_seen_is_not_over() {
        let nothing = ClusterSight {
            nodes: unseen(),
            failed_guests: unseen(),
            ceph: CephSight::Unknown,
        };
        assert_eq!(assess(&nothing), Assessment::default());
        let silent = ClusterSight {
            ceph: CephSight::Silent {
                reason: String::new(),
            },
            ..nothing.clone()
        };
        assert_eq!(assess(&silent).settled, [FaultFamily::CephSilent]);
        // What was seen is told all the same: one that can't be read must not hide the others.
        let part = ClusterSight {
            nodes: Seen {
                items: vec![
                    node("hv1", DaemonState::Dead, 0, 0),
                    node("hv2", DaemonState::Run, 1, 9),
                ],
                whole: false,
            },
            ..nothing.clone()
        };
        assert_eq!(ids(&part), [("DEAD_NODE_hv1".to_owned(), 50)]);
        assert_eq!(assess(&part).settled, []);
        let seen = ClusterSight {
            nodes: whole(Vec::new()),
            failed_guests: whole(Vec::new()),
            ceph: CephSight::Known(CephHealth::default()),
        };
        let found = assess(&seen);
        assert_eq!((found.faults.len(), found.settled.len()), (0, 5));
    }

    #[test]
    fn each_id_is_of_one_family() {
        let families = [
            (FaultFamily::DeadNode, "DEAD_NODE_HV1"),
            (FaultFamily::Memory, "MEMORY_OVERPROVISIONED"),
            (FaultFamily::FailedGuest, "VM_FAILED_WEB"),
            (FaultFamily::Ceph, "CEPH_OSD_OUT_3"),
            (FaultFamily::Ceph, "CEPH_WARN_OSD_DOWN"),
            (FaultFamily::Ceph, "CEPH_ERR_PG_DAMAGED"),
            (FaultFamily::CephSilent, "CEPH_SILENT"),
        ];
        for (family, id) in families {
            for (other, _) in families {
                assert_eq!(other.has(id), other == family, "{id} {other:?}");
            }
            // Faults that others raise and clear.
            for foreign in [
                "FENCE_HV1",
                "NODE_PLUGIN_LOAD_HV1",
                "STORAGE_LOST_HV1",
                "NODE_ON_HOLD_HV1",
            ] {
                assert!(!family.has(foreign), "{foreign}");
            }
        }
    }
}
