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

// "-0%" was read as a fault in the display, and what is told for information stood above what is broken.
#[test]
fn what_takes_nothing_from_the_health_is_told_for_information() {
    let cluster = Cluster::start();
    let raise = |id: &str, delta| {
        let fault = Fault::new(&[id, "hv1"], delta, format!("{id} of hv1"));
        futures::executor::block_on(faults::raise(&cluster.store, &HostClock, &fault)).unwrap();
    };
    raise("plain", 0);
    let health = done(&cluster, &["cluster", "health"]);
    assert!(health.contains("info  plain of hv1"), "{health}");
    assert!(health.contains("Nothing lowers the health"), "{health}");
    raise("bmc", 10);
    for command in [["cluster", "status"], ["cluster", "health"]] {
        let text = done(&cluster, &command);
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what:?} in {text}"));
        assert!(place("-10%  bmc of hv1") < place("info  plain of hv1"), "{text}");
    }
    let list = done(&cluster, &["fault", "list"]);
    assert!(list.contains("info") && !list.contains("-0%"), "{list}");
    // Programs go on seeing a number.
    let json = done(&cluster, &["fault", "list", "PLAIN_HV1", "-f", "json"]);
    assert!(json.contains("\"health_delta\":0"), "{json}");
}
