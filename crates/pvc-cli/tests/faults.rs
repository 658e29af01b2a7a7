//! `pvc fault` against a real API server over a store in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use common::Cluster;
use program::{done, pvc};
use pvc_common::clock::HostClock;
use pvc_common::faults::{self, Fault};

#[test]
fn faults_are_listed_acknowledged_and_deleted() {
    let cluster = Cluster::start();
    assert!(done(&cluster, &["fault", "list"]).contains("no faults"));
    for (words, delta) in [(["bmc", "hv1"], 10), (["upstream", "hv2"], 25)] {
        let fault = Fault::new(&words, delta, "the BMC at 10.1.0.11 does not answer");
        futures::executor::block_on(faults::raise(&cluster.store, &HostClock, &fault)).unwrap();
    }
    let list = done(&cluster, &["fault", "list"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("BMC_HV1"), "{list}");
    assert!(done(&cluster, &["cluster", "status"]).contains("2 (0 acknowledged)"));
    assert!(done(&cluster, &["cluster", "fault", "ack", "BMC_HV1", "UPSTREAM_HV2"]).contains("BMC_HV1"));
    assert!(done(&cluster, &["fault", "list", "BMC_HV1", "-f", "long"]).contains("-10%"));
    let some = pvc(&cluster, &["fault", "delete", "NONE", "BMC_HV1"]);
    assert_eq!(some.code, 3, "{some:?}");
    assert!(some.out.contains("BMC_HV1"), "the others are done: {some:?}");
    assert_eq!(pvc(&cluster, &["fault", "list", "BMC_HV1"]).code, 3);
    assert_eq!(pvc(&cluster, &["fault", "delete-all"]).code, 2);
    assert!(done(&cluster, &["fault", "delete-all", "-y"]).contains("1 fault"));
}
