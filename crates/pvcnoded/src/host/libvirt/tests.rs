//! Against the test driver in libvirt's client library: a hypervisor in memory, without a daemon.

use pvc_common::clock::{Clock, HostClock};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A domain that the test driver takes.
fn xml(vm: VmId) -> String {
    format!(
        "<domain type='test'><name>{vm}</name><uuid>{vm}</uuid><memory>8192</memory><vcpu>1</vcpu>\
         <os><type>hvm</type></os><devices/></domain>"
    )
}

fn transport() -> Transport {
    Transport::plain("pvc.local")
}

/// A host of one's own: every connection to `test:///default` sees the same, so the host comes from a file.
async fn host() -> (tempfile::TempDir, Libvirt) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.xml");
    std::fs::write(&path, "<node/>").unwrap();
    let libvirt = Libvirt::open(&format!("test://{}", path.display()), transport()).unwrap();
    connected(&libvirt).await;
    (dir, libvirt)
}

async fn connected(libvirt: &Libvirt) {
    let deadline = HostClock.now() + LIMIT;
    while let Err(error) = libvirt.domains().await {
        assert!(matches!(error, HypervisorError::Unavailable { .. }), "{error:?}");
        assert!(HostClock.now() < deadline, "connected within {LIMIT:?}: {error}");
        let _ = HostClock
            .timeout(Duration::from_millis(50), libvirt.changed())
            .await;
    }
}

fn vm(number: u8) -> VmId {
    format!("6ba7b810-9dad-11d1-80b4-00c04fd430{number:02x}")
        .parse()
        .unwrap()
}

/// Does something with the domain by hand, as an administrator would with `virsh`.
async fn by_hand(libvirt: &Libvirt, vm: VmId, work: fn(&Domain) -> Result<u32, Error>) {
    let outcome = libvirt
        .act(LIMIT, vm, move |connect| with_domain(connect, vm, work))
        .await;
    outcome.unwrap();
}

/// Makes a domain that is paused. (The test driver can't create one so; the state and its reason are the same.)
async fn create_paused(libvirt: &Libvirt, vm: VmId) {
    let xml = xml(vm);
    let outcome = libvirt
        .act(LIMIT, vm, move |connect| {
            Domain::create_xml(connect, &xml, 0).map(release)
        })
        .await;
    outcome.unwrap();
    by_hand(libvirt, vm, Domain::suspend).await;
}

#[tokio::test]
async fn a_guest_lives_through_its_states() {
    let (_dir, libvirt) = host().await;
    let vm = vm(1);
    assert!(libvirt.domains().await.unwrap().is_empty());
    create_paused(&libvirt, vm).await;
    let status = |domains: &BTreeMap<VmId, DomainStatus>| domains.get(&vm).copied();
    let found = status(&libvirt.domains().await.unwrap());
    assert_eq!(found, Some(DomainStatus::Paused(PauseReason::StartingUp)));
    libvirt.resume(vm).await.unwrap();
    assert_eq!(
        status(&libvirt.domains().await.unwrap()),
        Some(DomainStatus::Running)
    );
    assert!(libvirt.live_xml(vm).await.unwrap().contains(&vm.to_string()));
    libvirt.shutdown(vm).await.unwrap();
    create_paused(&libvirt, vm).await;
    assert_eq!(libvirt.destroy(vm).await.unwrap(), Changed::Done);
    assert_eq!(libvirt.destroy(vm).await.unwrap(), Changed::AlreadySo);
    assert!(libvirt.domains().await.unwrap().is_empty());
}

// An administrator who pauses a guest by hand must find it paused, not resumed by the agent as a start under way.
#[tokio::test]
async fn a_pause_by_hand_is_told_from_a_start_under_way() {
    let (_dir, libvirt) = host().await;
    let vm = vm(2);
    create_paused(&libvirt, vm).await;
    libvirt.resume(vm).await.unwrap();
    let by_hand = libvirt
        .act(LIMIT, vm, move |connect| {
            with_domain(connect, vm, Domain::suspend)
        })
        .await;
    assert!(by_hand.is_ok());
    let found = libvirt.domains().await.unwrap();
    assert_eq!(found.get(&vm), Some(&DomainStatus::Paused(PauseReason::Other)));
}

#[tokio::test]
async fn refusals_and_missing_domains_are_told_apart() {
    let (_dir, libvirt) = host().await;
    let vm = vm(3);
    for outcome in [libvirt.resume(vm).await, libvirt.shutdown(vm).await] {
        assert!(
            matches!(outcome, Err(HypervisorError::NoDomain { .. })),
            "{outcome:?}"
        );
    }
    let outcome = libvirt.create_paused(vm, "<domain/>").await;
    assert!(
        matches!(outcome, Err(HypervisorError::Refused { .. })),
        "{outcome:?}"
    );
    create_paused(&libvirt, vm).await;
    let outcome = libvirt.create_paused(vm, &xml(vm)).await;
    assert!(
        matches!(outcome, Err(HypervisorError::Refused { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn events_wake_the_agent_up() {
    let (_dir, libvirt) = host().await;
    let vm = vm(4);
    // What happened until now.
    while HostClock
        .timeout(Duration::from_millis(200), libvirt.changed())
        .await
        .is_some()
    {}
    create_paused(&libvirt, vm).await;
    assert!(HostClock.timeout(LIMIT, libvirt.changed()).await.is_some());
}

#[tokio::test]
async fn figures_come_for_every_active_guest() {
    let (_dir, libvirt) = host().await;
    let vm = vm(5);
    create_paused(&libvirt, vm).await;
    let found = libvirt.statistics().await.unwrap();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [vm]);
    assert_eq!(found[&vm]["state"], "paused");
}

// A node without libvirtd starts its agent all the same; what is asked of it is answered at once, and without panic.
#[tokio::test]
async fn without_libvirtd_every_call_says_so_at_once() {
    let libvirt = Libvirt::open("test:///no/such/file", transport()).unwrap();
    let start = HostClock.now();
    let outcome = libvirt.domains().await;
    assert!(
        matches!(outcome, Err(HypervisorError::Unavailable { .. })),
        "{outcome:?}"
    );
    assert!(libvirt.create_paused(vm(6), &xml(vm(6))).await.is_err());
    assert!(HostClock.now().since(start) < QUESTION_LIMIT);
}

// libvirtd restarted: the agent connects again by itself.
#[tokio::test]
async fn a_connection_comes_when_libvirt_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.xml");
    let libvirt = Libvirt::open(&format!("test://{}", path.display()), transport()).unwrap();
    assert!(libvirt.domains().await.is_err());
    std::fs::write(&path, "<node/>").unwrap();
    connected(&libvirt).await;
}
