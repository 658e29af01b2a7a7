//! The watch in virtual time, on the store in memory.

use std::sync::{Arc, Mutex};

use pvc_common::keys::values::Maintenance;
use pvc_common::secret::Secret;
use pvc_common::store::StoreExt as _;
use pvc_common::store::memory::{MemoryServer, MemoryStore};

use super::*;
use crate::host::fake::power::{BmcMood, FakeBmcNetwork};
use crate::host::fake::{FakeBmc, FakePower, VirtualClock};

const GUID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const OTHER: &str = "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const MINUTE: Duration = Duration::from_secs(60);
const SILENT: &str = "/faults/NODE_PLUGIN_IPMI_HV1";
const IDENTITY: &str = "/faults/BMC_IDENTITY_HV1";

#[derive(Debug, Clone)]
struct Machine(Arc<Mutex<Result<String, String>>>);

impl MachineGuid for Machine {
    async fn read(&self) -> Result<String, String> {
        self.0.lock().unwrap().clone()
    }
}

struct World {
    clock: VirtualClock,
    server: MemoryServer,
    store: MemoryStore,
    network: FakeBmcNetwork,
    bmc: FakeBmc,
    inside: Machine,
    watch: BmcWatch<MemoryStore, VirtualClock, FakePower, Machine>,
}

fn world(identity: IdentityPolicy) -> World {
    let clock = VirtualClock::default();
    let server = MemoryServer::new();
    let store = server.client();
    let node = NodeName::new("hv1").unwrap();
    let tree = Txn::new()
        .create_path("/config", "")
        .create(&keys::config().maintenance(), &Maintenance::Off)
        .create_path("/faults", "")
        .create_path("/nodes", "")
        .create_path("/nodes/hv1", "")
        .create(&keys::node(&node).bmc(), &None);
    clock.run(MINUTE, store.commit(tree)).unwrap().unwrap();
    let network = FakeBmcNetwork::default();
    let bmc = FakeBmc::new(clock.clone(), GUID);
    network.attach("bmc1", bmc.clone());
    let inside = Machine(Arc::new(Mutex::new(Ok(GUID.to_uppercase()))));
    let settings = BmcSettings {
        access: Some(BmcAccess {
            host: "bmc1".to_owned(),
            user: "admin".to_owned(),
            password: Secret::new("hunter2"),
        }),
        identity,
        failing: FailingBmc::IsTried,
    };
    let power = network.connection(clock.clone());
    let watch = BmcWatch::new(
        store.clone(),
        clock.clone(),
        power,
        inside.clone(),
        node,
        settings,
    );
    World {
        clock,
        server,
        store,
        network,
        bmc,
        inside,
        watch,
    }
}

impl World {
    /// One round; gives the pause after it.
    fn round(&mut self) -> Duration {
        self.clock.run(MINUTE, self.watch.round()).unwrap()
    }

    fn report(&self) -> Option<BmcReport> {
        let key = keys::node(&NodeName::new("hv1").unwrap()).bmc();
        let found = self.clock.run(MINUTE, self.store.require(&key)).unwrap();
        found.unwrap().value
    }

    /// The message of a fault, if it is there.
    fn fault(&self, path: &str) -> Option<String> {
        let path = format!("{path}/message");
        let znode = self.clock.run(MINUTE, self.store.read(&path)).unwrap();
        znode.unwrap().map(|znode| String::from_utf8(znode.data).unwrap())
    }
}

// Lesson 29: that fencing would fail has to be known before a server dies.
#[test]
fn a_bmc_that_fails_is_a_fault_until_it_works_again() {
    let mut world = world(IdentityPolicy::Strict);
    assert_eq!(world.round(), PERIOD);
    let report = world.report().unwrap();
    assert!(
        report.works && matches!(report.identity, BmcIdentity::Verified { .. }),
        "{report:?}"
    );
    assert_eq!((world.fault(SILENT), world.fault(IDENTITY)), (None, None));
    world.bmc.set_mood(BmcMood::Dead);
    assert_eq!(world.round(), PERIOD_OF_TROUBLE);
    let report = world.report().unwrap();
    assert!(!report.works && !report.reason.is_empty());
    assert!(
        matches!(report.identity, BmcIdentity::Verified { .. }),
        "it is still its own"
    );
    let message = world.fault(SILENT).unwrap();
    assert!(
        message.contains("bmc1") && message.contains("fencing.ipmi"),
        "{message}"
    );
    assert!(!message.contains("hunter2"));
    world.bmc.set_mood(BmcMood::Works);
    world.round();
    assert_eq!(world.fault(SILENT), None);
    assert!(world.report().unwrap().works);
    assert_eq!(world.bmc.orders(), [], "a test switches nothing");
}

// One lost packet must not page anybody.
#[test]
fn a_single_silence_is_no_fault() {
    let mut world = world(IdentityPolicy::Strict);
    world.bmc.set_mood(BmcMood::Dead);
    let bmc = world.bmc.clone();
    let clock = world.clock.clone();
    let heals = async {
        clock.sleep(Duration::from_millis(2500)).await;
        bmc.set_mood(BmcMood::Works);
    };
    let both = futures::future::join(world.watch.round(), heals);
    let (pause, ()) = world.clock.run(MINUTE, both).unwrap();
    assert_eq!(pause, PERIOD);
    assert!(world.report().unwrap().works);
    assert_eq!(world.fault(SILENT), None);
}

// Swapped cables: whoever orders this node off switches its neighbour off, and takes that for a proof.
#[test]
fn the_bmc_of_another_machine_is_reported_under_every_policy() {
    for policy in [IdentityPolicy::Strict, IdentityPolicy::Lenient] {
        let mut world = world(policy);
        let neighbour = FakeBmc::new(world.clock.clone(), OTHER);
        world.network.attach("bmc2", neighbour);
        world.network.swap("bmc1", "bmc2");
        world.round();
        let report = world.report().unwrap();
        assert!(
            matches!(report.identity, BmcIdentity::Mismatch { .. }),
            "{report:?}"
        );
        assert!(report.works, "it answers well, for another machine");
        assert!(world.fault(IDENTITY).unwrap().contains("is not that of node hv1"));
        world.network.swap("bmc1", "bmc2");
        world.round();
        assert_eq!(world.fault(IDENTITY), None);
    }
}

#[test]
fn a_bmc_that_says_off_while_we_run_is_not_ours() {
    let mut world = world(IdentityPolicy::Lenient);
    *world.inside.0.lock().unwrap() = Err("no firmware".to_owned());
    world.bmc.set_machine(PowerState::Off);
    world.round();
    let report = world.report().unwrap();
    assert!(!report.works);
    assert!(
        matches!(report.identity, BmcIdentity::Mismatch { .. }),
        "{report:?}"
    );
    assert!(world.fault(IDENTITY).is_some());
}

#[test]
fn an_unverified_bmc_is_a_fault_where_it_gives_no_proof() {
    for (policy, expected) in [(IdentityPolicy::Strict, true), (IdentityPolicy::Lenient, false)] {
        let mut world = world(policy);
        *world.inside.0.lock().unwrap() = Err("no firmware".to_owned());
        world.round();
        let report = world.report().unwrap();
        assert!(
            matches!(report.identity, BmcIdentity::Unverified { .. }),
            "{report:?}"
        );
        assert!(report.works);
        assert_eq!(world.fault(IDENTITY).is_some(), expected, "{policy:?}");
    }
}

#[test]
fn a_node_without_a_bmc_reports_none_and_takes_old_faults_away() {
    let mut world = world(IdentityPolicy::Strict);
    world.bmc.set_mood(BmcMood::Dead);
    world.round();
    assert!(world.fault(SILENT).is_some());
    world.watch.settings.access = None;
    world.round();
    assert_eq!((world.report(), world.fault(SILENT)), (None, None));
}

#[test]
fn what_could_not_be_told_is_told_soon() {
    let mut world = world(IdentityPolicy::Strict);
    world.server.lose_quorum();
    assert_eq!(world.round(), PERIOD_UNTOLD);
    world.server.restore_quorum();
    assert_eq!(world.round(), PERIOD);
    assert!(world.report().is_some());
}
