use pvc_core::states::DomainState;

use super::testing::{TestStore, name, vm};
use super::*;

/// hv1 is dead, hv2 and hv3 are alive; guests 1 and 2 are parked.
async fn parked() -> TestStore {
    let cluster = TestStore::with_nodes(&["hv1", "hv2", "hv3"]).await;
    for number in [1, 2] {
        let id = cluster.guest(number, "hv1", VmState::Stop).await;
        cluster.set(&keys::domain(id).autostart(), &true).await;
        cluster.limited(id, &["hv1", "hv2"]).await;
    }
    cluster
        .set(&keys::node(&name("hv2")).domain_state(), &DomainState::Flushed)
        .await;
    cluster
}

async fn try_all(cluster: &TestStore) -> Vec<(VmId, Unparked)> {
    try_unpark(
        &cluster.store,
        &BTreeSet::from([name("hv1")]),
        &[vm(1), vm(2), vm(3)],
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a_parked_guest_starts_as_soon_as_a_node_takes_it_and_says_meanwhile_why_not() {
    let cluster = parked().await;
    let outcomes = try_all(&cluster).await;
    assert!(matches!(outcomes[0].1, Unparked::StillNoPlace(_)), "{outcomes:?}");
    assert!(
        matches!(outcomes[2].1, Unparked::NotParked),
        "there is no such guest: {outcomes:?}"
    );
    let reason = cluster.get(&keys::domain(vm(1)).failed_reason()).await;
    assert!(
        reason.contains("waits for a node") && reason.contains("hv2: it is flushed"),
        "{reason}"
    );

    cluster
        .set(&keys::node(&name("hv2")).domain_state(), &DomainState::Ready)
        .await;
    let second = vm(2);
    cluster.sized(second, 950).await;
    let outcomes = try_all(&cluster).await;
    assert!(
        matches!(&outcomes[0].1, Unparked::Starts { node } if *node == name("hv2")),
        "{outcomes:?}"
    );
    // One reading serves all: the first guest's memory is not given away again.
    assert!(matches!(outcomes[1].1, Unparked::StillNoPlace(_)), "{outcomes:?}");
    let domain = keys::domain(vm(1));
    assert_eq!(cluster.get(&domain.state()).await, VmState::Start);
    assert_eq!(cluster.get(&domain.node()).await, name("hv2"));
    assert_eq!(
        cluster.get(&domain.last_node()).await,
        Some(name("hv1")),
        "it can be unmigrated"
    );
    assert!(!cluster.get(&domain.autostart()).await);
    assert_eq!(cluster.get(&domain.failed_reason()).await, "");
    // Asked again, nothing is done to it.
    assert!(matches!(try_all(&cluster).await[0].1, Unparked::NotParked));
}

#[tokio::test]
async fn what_somebody_has_done_to_a_parked_guest_stands() {
    // In a datacentre: a guest that an administrator has stopped on purpose comes up again by night.
    let cluster = parked().await;
    cluster
        .set(&keys::node(&name("hv2")).domain_state(), &DomainState::Ready)
        .await;
    cluster.set(&keys::domain(vm(1)).autostart(), &false).await;
    cluster.set(&keys::domain(vm(2)).state(), &VmState::Disable).await;
    for (vm, outcome) in try_all(&cluster).await {
        assert!(matches!(outcome, Unparked::NotParked), "{vm}: {outcome:?}");
    }
    // A guest that has an owner may run: it is nobody's to start elsewhere.
    cluster.set(&keys::domain(vm(1)).autostart(), &true).await;
    cluster
        .set(&keys::domain(vm(1)).owner(), &Some(testing::owner("hv1")))
        .await;
    assert!(matches!(try_all(&cluster).await[0].1, Unparked::NotParked));
    assert_eq!(cluster.get(&keys::domain(vm(1)).state()).await, VmState::Stop);
}

#[tokio::test]
async fn a_parked_guest_whose_home_has_come_back_goes_there_without_a_mark() {
    let cluster = parked().await;
    let outcomes = try_unpark(&cluster.store, &BTreeSet::new(), &[vm(1)])
        .await
        .unwrap();
    assert!(
        matches!(&outcomes[0].1, Unparked::Starts { node } if *node == name("hv1")),
        "{outcomes:?}"
    );
    assert_eq!(cluster.get(&keys::domain(vm(1)).last_node()).await, None);
}
