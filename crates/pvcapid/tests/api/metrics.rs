//! What is told to Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use pvc_common::keys;
use pvc_common::keys::values::{Json, OrNone};
use pvc_common::store::{Store as _, Txn};
use pvc_core::ids::VmName;
use pvc_core::records::{AgentFigures, LeaseFigures, RoundFigures};
use pvc_core::states::DaemonState;
use serde_json::{Value, json};

use crate::client::{agent, define, eventually, get};
use crate::common::{Cluster, guest_xml, node, rbd_disk, vm_id};
use crate::memory::add_guests;
use crate::storage;

/// The text at that path, asked for without a token.
fn scrape(cluster: &Cluster, path: &str) -> (u16, String) {
    let mut response = agent()
        .get(format!("{}/api/v1{path}", cluster.url()))
        .call()
        .unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), text)
}

/// What was told.
struct Scraped {
    samples: Vec<Sample>,
    families: BTreeSet<String>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn parse(text: &str) -> Scraped {
    let mut scraped = Scraped {
        samples: Vec::new(),
        families: BTreeSet::new(),
    };
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert_eq!(kind, "gauge", "{line}");
            assert!(scraped.families.insert(name.to_owned()), "twice: {line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match name.split_once('{') {
                None => (name, ""),
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            };
            // No value in these tests has a comma or a quote in it but where it is looked for.
            let labels = labels
                .split("\",")
                .filter(|label| !label.is_empty())
                .map(|label| {
                    let (label, value) = label.split_once("=\"").unwrap();
                    (label.to_owned(), value.trim_end_matches('"').to_owned())
                })
                .collect();
            scraped.samples.push(Sample {
                name: name.to_owned(),
                labels,
                value: value.parse().unwrap(),
            });
        }
    }
    scraped
}

impl Scraped {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples
            .iter()
            .find(|sample| {
                sample.name == name
                    && labels
                        .iter()
                        .all(|(label, value)| sample.labels.get(*label).is_some_and(|has| has == value))
            })
            .map(|sample| sample.value)
    }
}

/// One guest with everything that is measured.
fn fill(cluster: &Cluster) {
    let devices = rbd_disk("vms/web_root", "")
        + "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/></interface>";
    let xml = guest_xml("web", vm_id(1), &devices);
    let reply = define(cluster, &xml, &[("user_tags", "prod"), ("node", "hv1")]);
    assert_eq!(reply.status, 200, "{reply:?}");
    let measured = json!({
        "mem_stats": {"actual": 1, "swap_in": 1, "swap_out": 1, "major_fault": 1, "minor_fault": 1, "unused": 1,
            "available": 1, "usable": 1, "rss": 7, "disk_caches": 1, "hugetlb_pgalloc": 1, "hugetlb_pgfail": 1},
        "cpu_stats": {"cpu_time": 2_500_000, "user_time": 1, "system_time": 1},
        "net_stats": [{"mac": "52:54:00:00:00:01", "bridge": "vmbr100", "rd_bytes": 5}],
    });
    cluster.set(&keys::domain(vm_id(1)).stats(), &Some(Json(measured)));
    storage::fill(cluster);
}

#[test]
fn every_metric_of_the_reference_is_told_under_its_name_with_its_labels() {
    let cluster = Cluster::start();
    fill(&cluster);
    let reference: Value = serde_json::from_str(include_str!("../fixtures/metrics-1.0.3.json")).unwrap();
    let mut count = 0;
    for endpoint in ["/metrics/health", "/metrics/resource"] {
        let (status, text) = scrape(&cluster, endpoint);
        assert_eq!(status, 200, "{text}");
        let scraped = parse(&text);
        for metric in reference.as_array().unwrap() {
            if metric["endpoint"] != json!(endpoint) {
                continue;
            }
            count += 1;
            let family = metric["name"].as_str().unwrap();
            assert!(scraped.families.contains(family), "{family}");
            let name = metric
                .get("sample_name")
                .unwrap_or(&metric["name"])
                .as_str()
                .unwrap();
            let labels: BTreeSet<&str> = metric["labels"]
                .as_array()
                .unwrap()
                .iter()
                .map(|label| label.as_str().unwrap())
                .collect();
            let found = scraped
                .samples
                .iter()
                .find(|sample| sample.name == name)
                .unwrap_or_else(|| panic!("no sample of {name}"));
            let has: BTreeSet<&str> = found.labels.keys().map(String::as_str).collect();
            assert_eq!(has, labels, "{name}");
        }
    }
    assert_eq!(count, 127);
}

#[test]
fn metrics_tell_what_is_so() {
    let cluster = Cluster::start();
    fill(&cluster);
    cluster.set(&keys::node(&node("hv2")).monitoring_health(), &OrNone(None));
    let health = parse(&scrape(&cluster, "/metrics/health").1);
    assert_eq!(health.value("pvc_nodes", &[]), Some(3.0));
    assert_eq!(
        health.value("pvc_node_daemon_states", &[("state", "run")]),
        Some(3.0)
    );
    assert_eq!(
        health.value("pvc_node_daemon_states", &[("state", "fenced")]),
        Some(0.0)
    );
    assert_eq!(health.value("pvc_vm_states", &[("state", "stop")]), Some(1.0));
    assert_eq!(
        health.value("pvc_ceph_osd_up_states", &[("state", "down")]),
        Some(1.0)
    );
    assert_eq!(
        health.value("pvc_cluster_faults", &[("status", "new")]),
        Some(0.0)
    );
    assert_eq!(health.value("pvc_node_health", &[("node", "hv1")]), Some(100.0));
    assert_eq!(
        health.value("pvc_node_health", &[("node", "hv2")]),
        None,
        "what is not a number is left out"
    );

    let resource = parse(&scrape(&cluster, "/metrics/resource").1);
    assert_eq!(
        resource.value("pvc_vm_state", &[("vm", "web"), ("state", "stop")]),
        Some(7.0)
    );
    assert_eq!(
        resource.value("pvc_vm_memory_stats_rss", &[("vm", "web")]),
        Some(7.0)
    );
    assert_eq!(
        resource.value("pvc_vm_vcpus_cpu_time", &[("vm", "web")]),
        Some(2.5)
    );
    assert_eq!(
        resource.value("pvc_vm_network_rd_bits", &[("vm", "web"), ("vni", "100")]),
        Some(40.0)
    );
    assert_eq!(
        resource.value("pvc_ceph_osd_wr_data", &[("osd", "0")]),
        Some(1_572_864.0)
    );
    assert_eq!(
        resource.value("pvc_ceph_osd_used", &[("osd", "0")]),
        Some(256_000.0)
    );
    assert_eq!(
        resource.value("pvc_ceph_pool_used_percent", &[("pool", "vms")]),
        Some(25.0)
    );
    assert_eq!(resource.value("pvc_cluster_disk_utilization", &[]), Some(25.0));
    // 8 + 7 + 9 GB in use of 2 x 16 GB: the largest node is held back for a failure.
    assert_eq!(
        resource.value("pvc_cluster_memory_real_utilization", &[]),
        Some(75.0)
    );
    assert_eq!(resource.value("pvc_cluster_cpu_utilization", &[]), Some(9.38));
}

#[test]
fn a_failing_source_leaves_the_rest_in_place() {
    let cluster = Cluster::start();
    let (status, text) = scrape(&cluster, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "pvc_nodes 3",
        "pvc_cluster_cpu_utilization",
        "pvc_metrics_source_up{source=\"ceph\"} 0",
        "pvc_metrics_source_up{source=\"zookeeper\"} 0",
    ] {
        assert!(text.contains(line), "{line}");
    }
    let (status, text) = scrape(&cluster, "/metrics/ceph");
    assert_eq!(status, 404);
    assert!(text.contains("9283"), "{text}");
    assert_eq!(scrape(&cluster, "/metrics/zookeeper").0, 404);
}

#[test]
fn requests_are_measured_by_route() {
    let cluster = Cluster::start();
    let name: VmName = "none".parse().unwrap();
    assert_eq!(get(&cluster, &format!("/vm/{name}")).status, 404);
    assert_eq!(get(&cluster, "/no/such/route").status, 404);
    let (_, text) = scrape(&cluster, "/metrics/daemon");
    for line in [
        "pvc_api_request_duration_seconds_count{method=\"GET\",route=\"/api/v1/vm/{vm}\"} 1",
        "pvc_api_answers_total{status=\"404\"} 2",
        "pvc_api_requests_under_way 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("no/such/route"), "clients can not make up series");
}

// The margin of a lease is the warning before a fence; figures of a node that is gone would hide that it is.
#[test]
fn what_agents_measure_is_told_while_they_are_at_work() {
    let cluster = Cluster::start();
    let lease = |left_us, least_us| Some(LeaseFigures { left_us, least_us });
    let round = RoundFigures {
        count: 3,
        total_us: 4_500_000,
        longest_us: Some(2_250_000),
    };
    let figures = AgentFigures {
        node_lease: lease(4_200_000, 1_500_000),
        role_lease: lease(4_100_000, 0),
        rounds: BTreeMap::from([("vm".to_owned(), round)]),
    };
    for name in ["hv1", "hv2"] {
        let key = keys::node(&node(name)).agent_stats();
        let txn = Txn::new().create(&key, &Some(figures.clone()));
        futures::executor::block_on(cluster.store.commit(txn)).unwrap();
    }
    cluster.set(&keys::node(&node("hv2")).daemon_state(), &DaemonState::Dead);
    // The agent of hv3 is of PVC 1.0.3: it has no such key.
    let text = scrape(&cluster, "/metrics").1;
    for line in [
        "# TYPE pvc_node_round_duration_seconds summary",
        "pvc_node_lease_margin_seconds{node=\"hv1\"} 4.2",
        "pvc_node_lease_margin_least_seconds{node=\"hv1\"} 1.5",
        "pvc_node_role_lease_margin_seconds{node=\"hv1\"} 4.1",
        "pvc_node_role_lease_margin_least_seconds{node=\"hv1\"} 0",
        "pvc_node_round_duration_seconds_sum{node=\"hv1\",round=\"vm\"} 4.5",
        "pvc_node_round_duration_seconds_count{node=\"hv1\",round=\"vm\"} 3",
        "pvc_node_round_longest_seconds{node=\"hv1\",round=\"vm\"} 2.25",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
    for node in ["hv2", "hv3"] {
        let told = |line: &&str| line.starts_with("pvc_node_lease") && line.contains(node);
        assert_eq!(text.lines().find(told), None);
    }
    let helped: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .filter(|(_, help)| help.contains("in seconds"))
        .map(|(name, _)| name)
        .collect();
    for family in ["pvc_node_lease_margin_seconds", "pvc_node_round_longest_seconds"] {
        assert!(helped.contains(family), "the unit of {family} is not told");
    }
}

#[test]
fn what_was_just_written_is_told_a_moment_later() {
    let cluster = Cluster::start();
    fill(&cluster);
    let stopped = || {
        let health = parse(&scrape(&cluster, "/metrics/health").1);
        health.value("pvc_vm_states", &[("state", "stop")])
    };
    let before = stopped().unwrap();
    for more in 1..=5_u8 {
        let xml = guest_xml(&format!("more{more}"), vm_id(100 + more), "");
        assert_eq!(define(&cluster, &xml, &[]).status, 200);
        // Within a second: however many ask, what is told is made no more often.
        eventually(|| stopped() == Some(before + f64::from(more)));
    }
}

// Nobody needs a token for metrics. If they were made on the threads that answer requests, a few who scrape a large cluster would
// silence the API, and a load balancer would take the daemon for dead.
#[test]
fn other_requests_are_answered_while_the_metrics_of_a_large_cluster_are_made() {
    let cluster = Cluster::start();
    let disks: String = ["a", "b", "c", "d"]
        .map(|volume| rbd_disk(&format!("vms/{volume}"), ""))
        .concat();
    add_guests(&cluster, 3_000, &disks);
    let url = cluster.url().to_owned();
    let scrapers: Vec<_> = (0..6)
        .map(|_| {
            let url = format!("{url}/api/v1/metrics/resource");
            std::thread::spawn(move || {
                let agent = agent();
                let mut response = agent.get(url).call().unwrap();
                assert_eq!(response.status(), 200);
                let body = response.body_mut().with_config().limit(1 << 30);
                body.read_to_vec().unwrap().len()
            })
        })
        .collect();
    let mut answered = 0;
    while scrapers.iter().all(|scraper| !scraper.is_finished()) {
        // Each on a connection of its own, so that both of the server's threads are asked.
        let mut response = agent().get(format!("{url}/healthz")).call().unwrap();
        assert_eq!(response.status(), 200);
        response.body_mut().read_to_vec().unwrap();
        answered += 1;
    }
    for scraper in scrapers {
        let length = scraper.join().unwrap();
        assert!(
            length > 1_000_000,
            "{length} bytes are not those of so many guests"
        );
    }
    // On a thread that is at work none would be, but those from before it began.
    assert!(answered > 50, "only {answered} requests were answered meanwhile");
}
