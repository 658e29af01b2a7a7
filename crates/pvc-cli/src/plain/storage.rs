//! Changes of the storage.

use super::{Plain, plain};

/// What the API wants to hear before it destroys.
const REALLY: &str = "yes-i-really-mean-it";

pub(super) fn commands() -> Vec<Plain> {
    let mut all = osds();
    all.extend(pools());
    all.extend(volumes());
    all.extend(snapshots());
    all.extend(benchmarks());
    all
}

fn benchmarks() -> Vec<Plain> {
    vec![
        plain("storage benchmark run", "Measure a pool")
            .argument("POOL", "pool", "The pool")
            .option(('\0', "name"), "name", "The job's name")
            .waits()
            .asks("Measure pool {POOL}? It is under full load meanwhile.")
            .post("/storage/ceph/benchmark"),
        plain("storage benchmark info", "Show what a benchmark found")
            .argument("JOB", "job", "The job")
            .lists("/storage/ceph/benchmark", &["pretty", "json", "json-pretty"]),
        plain("storage benchmark list", "List benchmarks")
            .maybe("JOB", "job", "Only this one")
            .lists("/storage/ceph/benchmark", &["pretty", "json", "json-pretty"]),
    ]
}

fn create_db_vg(path: &'static str) -> Plain {
    plain(path, "Make a device a volume group for databases of OSDs")
        .argument("NODE", "node", "The node")
        .argument("DEVICE", "device", "The device")
        .waits()
        .asks("Make {DEVICE} of node {NODE} a volume group? What is on it is LOST.")
        .post("/storage/ceph/osddb")
}

fn osds() -> Vec<Plain> {
    vec![
        create_db_vg("storage create-db-vg"),
        create_db_vg("storage osd create-db-vg"),
        plain("storage osd add", "Make a device an OSD")
            .argument("NODE", "node", "The node")
            .argument("DEVICE", "device", "The device")
            .preset(('w', "weight"), "weight", "1.0", "Its weight")
            .option(
                ('r', "ext-db-ratio"),
                "ext_db_ratio",
                "Part of its size for a database elsewhere",
            )
            .option(
                ('s', "ext-db-size"),
                "ext_db_size",
                "Size of a database elsewhere",
            )
            .option(('c', "osd-count"), "osd_count", "Make so many of it")
            .waits()
            .asks("Make {DEVICE} of node {NODE} an OSD? What is on it is LOST.")
            .post("/storage/ceph/osd"),
        plain("storage osd replace", "Put an OSD on a new device")
            .name("OSDID", "Its number")
            .argument("NEW_DEVICE", "new_device", "The new device")
            .option(('o', "old-device"), "old_device", "The old device")
            .option(('w', "weight"), "weight", "Its weight")
            .option(
                ('r', "ext-db-ratio"),
                "ext_db_ratio",
                "Part of its size for a database elsewhere",
            )
            .option(
                ('s', "ext-db-size"),
                "ext_db_size",
                "Size of a database elsewhere",
            )
            .fixed(REALLY, "yes")
            .waits()
            .asks("Make OSD {OSDID} anew on {NEW_DEVICE}? What is on both devices is LOST.")
            .post("/storage/ceph/osd/{OSDID}"),
        plain(
            "storage osd refresh",
            "Take an OSD's device up again, after its node was installed anew",
        )
        .name("OSDID", "Its number")
        .argument("DEVICE", "device", "The device")
        .waits()
        .asks("Take {DEVICE} up as OSD {OSDID}?")
        .put("/storage/ceph/osd/{OSDID}"),
        plain("storage osd remove", "Remove an OSD")
            .name("OSDID", "Its number")
            .flag(('f', "force"), "force", "Even if a part of it can not be removed")
            .fixed(REALLY, "yes")
            .waits()
            .asks("Remove OSD {OSDID}? What is on it is LOST.")
            .delete("/storage/ceph/osd/{OSDID}"),
        plain("storage osd in", "Let an OSD take data")
            .name("OSDID", "Its number")
            .fixed("state", "in")
            .post("/storage/ceph/osd/{OSDID}/state"),
        plain("storage osd out", "Let an OSD take no data")
            .name("OSDID", "Its number")
            .fixed("state", "out")
            .post("/storage/ceph/osd/{OSDID}/state"),
        plain("storage osd set", "Set an option of all OSDs")
            .argument("OSD_PROPERTY", "option", "The option, as in noout")
            .fixed("action", "set")
            .post("/storage/ceph/option"),
        plain("storage osd unset", "Remove an option of all OSDs")
            .argument("OSD_PROPERTY", "option", "The option, as in noout")
            .fixed("action", "unset")
            .post("/storage/ceph/option"),
    ]
}

fn pools() -> Vec<Plain> {
    vec![
        plain("storage pool add", "Add a pool")
            .argument("NAME", "pool", "Its name")
            .argument("PGS", "pgs", "How many placement groups")
            .preset(('t', "tier"), "tier", "default", "The devices that it is on")
            .of("tier", &["default", "hdd", "ssd", "nvme"])
            .preset(
                ('\0', "replcfg"),
                "replcfg",
                "copies=3,mincopies=2",
                "How many copies there are, and how many there must be to write",
            )
            .post("/storage/ceph/pool"),
        plain("storage pool remove", "Remove a pool")
            .name("NAME", "Its name")
            .fixed(REALLY, "yes")
            .asks("Remove pool {NAME}? All volumes in it are LOST.")
            .delete("/storage/ceph/pool/{NAME}"),
        plain(
            "storage pool set-pgs",
            "Change how many placement groups a pool has",
        )
        .name("NAME", "Its name")
        .argument("PGS", "pgs", "How many")
        .asks("Give pool {NAME} {PGS} placement groups? Much of it is moved meanwhile.")
        .put("/storage/ceph/pool/{NAME}"),
    ]
}

fn volumes() -> Vec<Plain> {
    const ROUTE: &str = "/storage/ceph/volume/{POOL}/{NAME}";
    let force = "Even if the pool would be nearly full";
    vec![
        plain("storage volume add", "Add a volume")
            .argument("POOL", "pool", "The pool")
            .argument("NAME", "volume", "Its name")
            .argument("SIZE", "size", "Its size, as in 20G")
            .flag(('f', "force"), "force", force)
            .post("/storage/ceph/volume"),
        // The image itself follows once the API takes one.
        plain("storage volume upload", "Make a volume of an image")
            .name("POOL", "The pool")
            .name("NAME", "Its name")
            .name("IMAGE_FILE", "The image")
            .preset(('f', "format"), "image_format", "raw", "The image's format")
            .post("/storage/ceph/volume/{POOL}/{NAME}/upload"),
        plain("storage volume remove", "Remove a volume")
            .name("POOL", "The pool")
            .name("NAME", "Its name")
            .asks("Remove volume {POOL}/{NAME}? What is on it is LOST.")
            .delete(ROUTE),
        plain("storage volume resize", "Change the size of a volume")
            .name("POOL", "The pool")
            .name("NAME", "Its name")
            .argument("SIZE", "new_size", "Its new size, as in 20G")
            .flag(('f', "force"), "force", force)
            .asks("Change the size of volume {POOL}/{NAME} to {SIZE}?")
            .put(ROUTE),
        plain("storage volume rename", "Give a volume another name")
            .name("POOL", "The pool")
            .name("NAME", "Its name")
            .argument("NEW_NAME", "new_name", "Its new name")
            .asks("Rename volume {POOL}/{NAME} to {NEW_NAME}?")
            .put(ROUTE),
        plain("storage volume clone", "Make a copy of a volume")
            .name("POOL", "The pool")
            .name("NAME", "Its name")
            .argument("NEW_NAME", "new_volume", "The copy's name")
            .flag(('f', "force"), "force", force)
            .post("/storage/ceph/volume/{POOL}/{NAME}/clone"),
    ]
}

fn snapshots() -> Vec<Plain> {
    const ROUTE: &str = "/storage/ceph/snapshot/{POOL}/{VOLUME}/{NAME}";
    vec![
        plain("storage volume snapshot add", "Take a snapshot of a volume")
            .argument("POOL", "pool", "The pool")
            .argument("VOLUME", "volume", "The volume")
            .argument("NAME", "snapshot", "The snapshot's name")
            .post("/storage/ceph/snapshot"),
        plain("storage volume snapshot rename", "Give a snapshot another name")
            .name("POOL", "The pool")
            .name("VOLUME", "The volume")
            .name("NAME", "Its name")
            .argument("NEW_NAME", "new_name", "Its new name")
            .put(ROUTE),
        plain("storage volume snapshot remove", "Delete a snapshot of a volume")
            .name("POOL", "The pool")
            .name("VOLUME", "The volume")
            .name("NAME", "The snapshot")
            .asks("Delete snapshot {NAME} of volume {POOL}/{VOLUME}?")
            .delete(ROUTE),
        plain(
            "storage volume snapshot rollback",
            "Return a volume to a snapshot",
        )
        .name("POOL", "The pool")
        .name("VOLUME", "The volume")
        .name("NAME", "The snapshot")
        .asks("Return volume {POOL}/{VOLUME} to snapshot {NAME}? What was written since is LOST.")
        .post("/storage/ceph/snapshot/{POOL}/{VOLUME}/{NAME}/rollback"),
    ]
}
