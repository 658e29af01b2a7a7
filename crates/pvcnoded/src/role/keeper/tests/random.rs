//! Random faults.

use pvc_core::upstream::UpstreamLook;

use super::*;

/// What may be done to a cluster at random.
#[derive(Debug, Clone)]
enum Fault {
    Run(u64),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    Restart(usize),
    PowerOff(usize),
    Disconnect(usize),
    Reconnect(usize),
    Expire(usize),
    Hide(usize, u8),
    Lag(usize),
    CatchUp(usize),
    Name(usize),
    NameNobody,
    LoseQuorum,
    RestoreQuorum,
    Stall(usize, u64),
    RemoveByHand(usize),
    LoseUpstream(usize),
    RestoreUpstream(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = 0..NODES.len();
    prop_oneof![
        6 => (1u64..3000).prop_map(Fault::Run),
        2 => (3000u64..9000).prop_map(Fault::Run),
        2 => node.clone().prop_map(Fault::Freeze),
        2 => node.clone().prop_map(Fault::Thaw),
        1 => node.clone().prop_map(Fault::Kill),
        2 => node.clone().prop_map(Fault::Restart),
        1 => node.clone().prop_map(Fault::PowerOff),
        2 => node.clone().prop_map(Fault::Disconnect),
        2 => node.clone().prop_map(Fault::Reconnect),
        1 => node.clone().prop_map(Fault::Expire),
        2 => (node.clone(), 0u8..3).prop_map(|(node, fate)| Fault::Hide(node, fate)),
        1 => node.clone().prop_map(Fault::Lag),
        1 => node.clone().prop_map(Fault::CatchUp),
        2 => node.clone().prop_map(Fault::Name),
        2 => Just(Fault::NameNobody),
        1 => Just(Fault::LoseQuorum),
        1 => Just(Fault::RestoreQuorum),
        1 => (node.clone(), 100u64..9000).prop_map(|(node, ms)| Fault::Stall(node, ms)),
        1 => node.clone().prop_map(Fault::RemoveByHand),
        2 => node.clone().prop_map(Fault::LoseUpstream),
        1 => node.prop_map(Fault::RestoreUpstream),
    ]
}

fn apply(cluster: &mut Cluster, quorum: &mut bool, fault: &Fault) {
    match fault {
        Fault::Run(ms) => cluster.run(Duration::from_millis(*ms)),
        Fault::Freeze(node) => cluster.freeze(*node),
        Fault::Thaw(node) => cluster.thaw(*node),
        Fault::Kill(node) => cluster.kill_agent(*node),
        Fault::Restart(node) => cluster.start_agent(*node),
        Fault::PowerOff(node) => cluster.power_off(*node),
        Fault::Disconnect(node) => cluster.hosts[*node].store.disconnect(),
        Fault::Reconnect(node) => cluster.hosts[*node].store.reconnect(),
        Fault::Expire(node) => cluster.hosts[*node].store.expire(),
        Fault::Hide(node, fate) => cluster.hosts[*node].store.hide_next_write(match fate {
            0 => Fate::Lost,
            1 => Fate::Applied,
            _ => Fate::AppliedOnReconnect,
        }),
        Fault::Lag(node) => cluster.hosts[*node].store.lag(),
        Fault::CatchUp(node) => cluster.hosts[*node].store.catch_up(),
        Fault::Name(node) if *quorum => cluster.name_primary(PrimaryRecord::Node(name(*node))),
        Fault::NameNobody if *quorum => cluster.name_primary(PrimaryRecord::None),
        Fault::Name(_) | Fault::NameNobody => {}
        Fault::LoseQuorum => {
            *quorum = false;
            cluster.server.lose_quorum();
        }
        Fault::RestoreQuorum => {
            *quorum = true;
            cluster.server.restore_quorum();
        }
        Fault::Stall(node, ms) => cluster.hosts[*node]
            .network
            .stall_next(Duration::from_millis(*ms)),
        Fault::LoseUpstream(node) => {
            cluster.hosts[*node].upstream.show(UpstreamLook::GatewaySilent);
        }
        Fault::RestoreUpstream(node) => cluster.hosts[*node].upstream.show(UpstreamLook::Reached),
        Fault::RemoveByHand(node) => {
            cluster.hosts[*node].network.remove(&addresses()[0]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No order of faults puts an address on two hosts, and when they have healed somebody is primary.
    #[test]
    fn no_order_of_faults_gives_two_primaries(faults in proptest::collection::vec(fault(), 10..60)) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let mut cluster = Cluster::new();
        for host in &cluster.hosts {
            host.network.set_lateness(Duration::from_millis(1100));
        }
        let mut quorum = true;
        for fault in &faults {
            apply(&mut cluster, &mut quorum, fault);
        }
        cluster.check_one_holder();
        cluster.server.restore_quorum();
        for node in 0..NODES.len() {
            cluster.thaw(node);
            cluster.hosts[node].store.catch_up();
            cluster.start_agent(node);
        }
        cluster.run(secs(8));
        cluster.run(secs(12));
        cluster.wait_for_primary(secs(1));
        cluster.check_one_holder();
    }
}
