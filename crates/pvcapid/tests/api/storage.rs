//! The storage cluster, as the store holds it.

use pvc_common::keys;
use pvc_common::keys::values::{Json, Nothing, OrNone};
use pvc_common::store::Txn;
use pvc_core::ids::{ImageName, PoolName};
use serde_json::{Value, json};

use crate::client::get;
use crate::common::{Cluster, commit};

/// What an OSD's entry holds, as PVC 1.0.3 writes it.
fn osd_stats(up: u8, utilization: f64) -> Value {
    json!({
        "uuid": "u", "up": up, "in": 1, "primary_affinity": 1.0, "utilization": utilization, "var": 1.0, "pgs": 33,
        "kb": 1000, "kb_used": 250, "kb_used_data": 200, "kb_used_omap": 10, "kb_used_meta": 40, "kb_avail": 750,
        "weight": 0.5, "reweight": 1.0, "class": "ssd", "node": "hv1", "used": "250K", "avail": "750K",
        "wr_ops": "3", "wr_data": "1.5M", "rd_ops": "0", "rd_data": "0", "state": "exists,up",
    })
}

/// Two OSDs, one pool with one volume and one snapshot.
pub(crate) fn fill(cluster: &Cluster) {
    let (pool, volume) = (PoolName::new("vms").unwrap(), ImageName::new("web_root").unwrap());
    let stats = |value: Value| Some(Json(value));
    let mut txn = Txn::new();
    for (id, up, utilization) in [(0, 1, 25.0), (1, 0, 35.0)] {
        let osd = keys::osd(id);
        txn = txn
            .create(&osd.root(), &Nothing)
            .create(&osd.node(), &"hv1".to_owned())
            .create(&osd.device(), &format!("/dev/sd{id}"))
            .create(&osd.db_device(), &String::new())
            .create(&osd.fsid(), &Nothing)
            .create(&osd.osd_fsid(), &format!("fsid-{id}"))
            .create(&osd.is_split(), &OrNone(Some(false)))
            .create(&osd.stats(), &stats(osd_stats(up, utilization)));
    }
    let of_pool = keys::pool(&pool);
    txn = txn
        .create(&of_pool.root(), &Nothing)
        .create(&of_pool.pgs(), &"64".to_owned())
        .create(&of_pool.tier(), &"ssd".to_owned())
        .create(
            &of_pool.stats(),
            &stats(json!({
                "id": 1, "stored_bytes": 10, "free_bytes": 90, "used_bytes": 30, "used_percent": 0.25, "num_objects": 4,
                "num_object_clones": 1, "num_object_copies": 12, "num_objects_missing_on_primary": 0,
                "num_objects_unfound": 0, "num_objects_degraded": 2, "read_ops": 5, "read_bytes": 6, "write_ops": 7,
                "write_bytes": 8,
            })),
        )
        .create_path("/ceph/volumes", "")
        .create_path("/ceph/volumes/vms", "")
        .create(&keys::volume(&pool, &volume).root(), &Nothing)
        .create(
            &keys::volume(&pool, &volume).stats(),
            &stats(json!({"name": "web_root", "size": 10_737_418_240_u64, "snapshot_count": 1})),
        )
        .create_path("/ceph/snapshots", "")
        .create_path("/ceph/snapshots/vms", "")
        .create_path("/ceph/snapshots/vms/web_root", "")
        .create(&keys::volume_snapshot(&pool, &volume, "s1").root(), &Nothing)
        .create(
            &keys::volume_snapshot(&pool, &volume, "s1").stats(),
            &stats(json!({"size": 10_737_418_240_u64})),
        )
        .overwrite(&keys::storage().status(), &"cluster: healthy".to_owned())
        .create(&keys::storage().utilization(), &"RAW 25%".to_owned());
    commit(&cluster.store, txn);
}

#[test]
fn the_storage_cluster_is_shown_as_far_as_the_store_holds_it() {
    let cluster = Cluster::start();
    for empty in ["osd", "pool", "volume", "snapshot"] {
        assert_eq!(
            get(&cluster, &format!("/storage/ceph/{empty}")).body,
            json!([]),
            "{empty}"
        );
    }
    fill(&cluster);
    assert_eq!(get(&cluster, "/storage").body, json!(null));
    assert_eq!(
        get(&cluster, "/storage/ceph/status").body,
        json!({"type": "status", "primary_node": "hv1", "ceph_data": "cluster: healthy"})
    );
    assert_eq!(
        get(&cluster, "/storage/ceph/utilization").body["ceph_data"],
        json!("RAW 25%")
    );
    let osds = get(&cluster, "/storage/ceph/osd").body;
    assert_eq!(osds[1]["fsid"], json!("fsid-1"));
    assert_eq!(osds[1]["stats"]["class"], json!("ssd"));
    assert_eq!(
        get(&cluster, "/storage/ceph/osd?limit=^1$").body,
        json!([osds[1]])
    );
    assert_eq!(get(&cluster, "/storage/ceph/osd/1").body, json!([osds[1]]));
    assert_eq!(
        get(&cluster, "/storage/ceph/osd/1/state").body,
        json!({"id": "1", "in": 1, "up": 0})
    );
    assert_eq!(get(&cluster, "/storage/ceph/osd/11/state").status, 404);

    let pools = get(&cluster, "/storage/ceph/pool").body;
    assert_eq!(
        (&pools[0]["volume_count"], &pools[0]["pgs"]),
        (&json!(1), &json!("64"))
    );
    assert_eq!(get(&cluster, "/storage/ceph/pool/vms").body, pools);
    assert_eq!(get(&cluster, "/storage/ceph/pool/vm").status, 404);

    let volumes = get(&cluster, "/storage/ceph/volume?pool=vms&limit=web").body;
    assert_eq!(volumes[0]["stats"]["size"], json!("10G"));
    assert_eq!(get(&cluster, "/storage/ceph/volume/vms/web_root").body, volumes);
    assert_eq!(get(&cluster, "/storage/ceph/volume/vms/web").status, 404);
    assert_eq!(get(&cluster, "/storage/ceph/volume?pool=other").status, 400);

    let snapshots = get(&cluster, "/storage/ceph/snapshot?pool=vms&volume=web_root").body;
    assert_eq!(
        snapshots,
        json!([{"pool": "vms", "volume": "web_root", "snapshot": "s1", "stats": {"size": 10_737_418_240_u64}}])
    );
    assert_eq!(
        get(&cluster, "/storage/ceph/snapshot/vms/web_root/s1").body,
        snapshots
    );
    for unknown in ["vms/web_root/s2", "vms/web_root/..", "vms/web_root/s1%2Fstats"] {
        let path = format!("/storage/ceph/snapshot/{unknown}");
        assert_eq!(get(&cluster, &path).status, 404, "{path}");
    }
}

#[test]
fn the_status_counts_what_storage_and_networks_have() {
    let cluster = Cluster::start();
    fill(&cluster);
    let status = get(&cluster, "/status").body;
    assert_eq!(status["osds"], json!({"total": 2, "up,in": 1, "down,in": 1}));
    assert_eq!(
        (&status["pools"], &status["volumes"], &status["snapshots"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(
        status["detail"]["osd"][1],
        json!({"id": "1", "up": "down", "in": "in"})
    );
    assert_eq!(
        status["resources"]["disk"],
        json!({"total": 2000, "used": 500, "free": 1500, "utilization": 30.0})
    );
}
