//! OSDs and pools, as far as the store holds figures of them.

use pvc_api::storage::{Osd, Pool};
use pvc_core::size::parse_bytes;
use serde_json::Value;

use super::super::exposition::{Exposition, Number};
use super::precise;

/// Ceph counts OSD space in KiB.
const BYTES_PER_KIB: u64 = 1024;

pub(super) fn write(text: &mut Exposition, osds: &[Osd], pools: &[Pool]) {
    write_osds(text, osds);
    write_pools(text, pools);
}

fn write_osds(text: &mut Exposition, osds: &[Osd]) {
    let mut told = |name, help: &str, label: &str, of: &dyn Fn(&Osd) -> String| {
        let mut samples = text.gauge(name, help);
        for osd in osds {
            samples.put(&[("osd", &osd.id), (label, &of(osd))], 1_u32);
        }
    };
    told("pvc_ceph_osd_device", "Device of an OSD", "device", &|osd| {
        osd.device.clone()
    });
    told(
        "pvc_ceph_osd_db_device",
        "Database device of an OSD",
        "db_device",
        &|osd| osd.db_device.clone(),
    );
    told(
        "pvc_ceph_osd_device_class",
        "Device class of an OSD",
        "device_class",
        &|osd| {
            osd.stats
                .get("class")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        },
    );
    let mut each = |name, help: &str, field: &str, of: fn(&Value) -> Option<f64>| {
        let mut samples = text.gauge(name, help);
        for osd in osds {
            samples.put_known(&[("osd", &osd.id)], osd.stats.get(field).and_then(of));
        }
    };
    each(
        "pvc_ceph_osd_util",
        "Use of an OSD in percent",
        "utilization",
        plain,
    );
    each(
        "pvc_ceph_osd_var",
        "Use of an OSD against that of the others",
        "var",
        plain,
    );
    each("pvc_ceph_osd_pgs", "Placement groups of an OSD", "pgs", plain);
    each("pvc_ceph_osd_size", "Size of an OSD in KiB", "kb", plain);
    each(
        "pvc_ceph_osd_used",
        "Used on an OSD, in bytes",
        "kb_used",
        from_kib,
    );
    each(
        "pvc_ceph_osd_used_data",
        "Used on an OSD for data, in bytes",
        "kb_used_data",
        from_kib,
    );
    each(
        "pvc_ceph_osd_used_omap",
        "Used on an OSD for omap, in bytes",
        "kb_used_omap",
        from_kib,
    );
    each(
        "pvc_ceph_osd_used_meta",
        "Used on an OSD for metadata, in bytes",
        "kb_used_meta",
        from_kib,
    );
    each(
        "pvc_ceph_osd_avail",
        "Free on an OSD, in bytes",
        "kb_avail",
        from_kib,
    );
    each("pvc_ceph_osd_weight", "Weight of an OSD", "weight", plain);
    each(
        "pvc_ceph_osd_reweight",
        "Weight that an OSD is given for the time being",
        "reweight",
        plain,
    );
    each(
        "pvc_ceph_osd_wr_ops",
        "Writes of an OSD a second",
        "wr_ops",
        plain,
    );
    each(
        "pvc_ceph_osd_wr_data",
        "Written by an OSD, in bytes a second",
        "wr_data",
        from_text,
    );
    each("pvc_ceph_osd_rd_ops", "Reads of an OSD a second", "rd_ops", plain);
    each(
        "pvc_ceph_osd_rd_data",
        "Read from an OSD, in bytes a second",
        "rd_data",
        from_text,
    );
}

/// The figures of pools: family, help, field.
const POOL_FIGURES: [(&str, &str, &str); 14] = [
    (
        "pvc_ceph_pool_stored_bytes",
        "Stored in a pool, in bytes",
        "stored_bytes",
    ),
    (
        "pvc_ceph_pool_free_bytes",
        "Free in a pool, in bytes",
        "free_bytes",
    ),
    (
        "pvc_ceph_pool_used_bytes",
        "Used by a pool, in bytes",
        "used_bytes",
    ),
    ("pvc_ceph_pool_num_objects", "Objects of a pool", "num_objects"),
    (
        "pvc_ceph_pool_num_objects_clones",
        "Clones of a pool's objects",
        "num_object_clones",
    ),
    (
        "pvc_ceph_pool_num_objects_copies",
        "Copies of a pool's objects",
        "num_object_copies",
    ),
    (
        "pvc_ceph_pool_num_objects_missing_on_primary",
        "Objects of a pool that their primary OSD misses",
        "num_objects_missing_on_primary",
    ),
    (
        "pvc_ceph_pool_num_objects_unfound",
        "Objects of a pool that no OSD has",
        "num_objects_unfound",
    ),
    (
        "pvc_ceph_pool_num_objects_degraded",
        "Objects of a pool with too few copies",
        "num_objects_degraded",
    ),
    ("pvc_ceph_pool_read_ops", "Reads of a pool", "read_ops"),
    (
        "pvc_ceph_pool_read_bytes",
        "Read from a pool, in bytes",
        "read_bytes",
    ),
    ("pvc_ceph_pool_write_ops", "Writes of a pool", "write_ops"),
    (
        "pvc_ceph_pool_write_bytes",
        "Written to a pool, in bytes",
        "write_bytes",
    ),
    ("pvc_ceph_pool_pgs", "Placement groups of a pool", "pgs"),
];

fn write_pools(text: &mut Exposition, pools: &[Pool]) {
    let mut samples = text.gauge("pvc_ceph_pool_tier", "Tier of a pool");
    for pool in pools {
        samples.put(&[("pool", &pool.name), ("tier", &pool.tier)], 1_u32);
    }
    let mut samples = text.gauge("pvc_ceph_pool_volumes", "Volumes of a pool");
    for pool in pools {
        samples.put(&[("pool", &pool.name)], pool.volume_count);
    }
    for (name, help, field) in POOL_FIGURES {
        let mut samples = text.gauge(name, help);
        for pool in pools {
            let found = match field {
                "pgs" => pool.pgs.parse().ok(),
                field => pool.stats.get(field).and_then(plain),
            };
            samples.put_known(&[("pool", &pool.name)], found);
        }
    }
    let mut samples = text.gauge("pvc_ceph_pool_used_percent", "Use of a pool in percent");
    for pool in pools {
        let fraction = pool.stats.get("used_percent").and_then(plain);
        samples.put_known(
            &[("pool", &pool.name)],
            fraction.map(|fraction| Number::Rounded(fraction * 100.0)),
        );
    }
}

/// A figure, also if it is written as text.
fn plain(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn from_kib(value: &Value) -> Option<f64> {
    plain(value).map(|kib| kib * precise(BYTES_PER_KIB))
}

fn from_text(value: &Value) -> Option<f64> {
    parse_bytes(value.as_str()?).map(precise)
}
