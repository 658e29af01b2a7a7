//! Snapshots, backups and mirrors of virtual machines.

use super::{Plain, plain};

const DOMAIN: &str = "DOMAIN";
const DOMAIN_HELP: &str = "Name or UUID";
const SNAPSHOT: &str = "SNAPSHOT_NAME";

pub(super) fn commands() -> Vec<Plain> {
    let mut all = snapshots();
    all.extend(mirrors());
    all.extend(backups());
    all
}

fn snapshots() -> Vec<Plain> {
    vec![
        plain("vm snapshot create", "Take a snapshot")
            .name(DOMAIN, DOMAIN_HELP)
            .maybe(SNAPSHOT, "snapshot_name", "Its name; the time if none is given")
            .waits()
            .post("/vm/{DOMAIN}/snapshot"),
        plain("vm snapshot remove", "Delete a snapshot")
            .name(DOMAIN, DOMAIN_HELP)
            .argument(SNAPSHOT, "snapshot_name", "The snapshot")
            .waits()
            .asks("Delete snapshot {SNAPSHOT_NAME} of VM {DOMAIN}?")
            .delete("/vm/{DOMAIN}/snapshot"),
        plain(
            "vm snapshot rollback",
            "Return a stopped virtual machine to a snapshot",
        )
        .name(DOMAIN, DOMAIN_HELP)
        .argument(SNAPSHOT, "snapshot_name", "The snapshot")
        .waits()
        .asks("Return VM {DOMAIN} to snapshot {SNAPSHOT_NAME}? What was written since is LOST.")
        .post("/vm/{DOMAIN}/snapshot/rollback"),
        plain(
            "vm snapshot export",
            "Write a snapshot to a directory of the primary node",
        )
        .name(DOMAIN, DOMAIN_HELP)
        .argument(SNAPSHOT, "snapshot_name", "The snapshot")
        .argument("EXPORT_PATH", "export_path", "The directory")
        .option(
            ('i', "incremental"),
            "incremental_parent",
            "Only what has changed since this snapshot",
        )
        .waits()
        .post("/vm/{DOMAIN}/snapshot/export"),
        plain(
            "vm snapshot import",
            "Make a virtual machine from an exported snapshot",
        )
        .name(DOMAIN, "Its name")
        .argument(SNAPSHOT, "snapshot_name", "The snapshot")
        .argument("IMPORT_PATH", "import_path", "The directory")
        .either(
            (
                ('r', "retain-snapshot"),
                "true",
                "Keep the snapshot (this is so unless --remove-snapshot is given)",
            ),
            (('R', "remove-snapshot"), "false", "Do not keep the snapshot"),
            "retain_snapshot",
            Some("true"),
        )
        .waits()
        .post("/vm/{DOMAIN}/snapshot/import"),
        plain("vm snapshot send", "Send a snapshot to another cluster")
            .name(DOMAIN, DOMAIN_HELP)
            .argument(SNAPSHOT, "snapshot_name", "The snapshot")
            .destination("DESTINATION")
            .option(
                ('i', "incremental"),
                "incremental_parent",
                "Only what has changed since this snapshot",
            )
            .waits()
            .post("/vm/{DOMAIN}/snapshot/send"),
    ]
}

fn mirrors() -> Vec<Plain> {
    vec![
        plain(
            "vm mirror create",
            "Make or refresh the mirror of a virtual machine on another cluster",
        )
        .name(DOMAIN, DOMAIN_HELP)
        .destination("DESTINATION")
        .waits()
        .post("/vm/{DOMAIN}/mirror/create"),
        plain(
            "vm mirror promote",
            "Shut a virtual machine down here and start its mirror there",
        )
        .name(DOMAIN, DOMAIN_HELP)
        .destination("DESTINATION")
        .either(
            (('\0', "remove"), "true", "Remove it here"),
            (
                ('\0', "no-remove"),
                "false",
                "Keep it here as a mirror (this is so unless --remove is given)",
            ),
            "remove_on_source",
            Some("false"),
        )
        .waits()
        .asks("Shut VM {DOMAIN} down here and start its mirror on {DESTINATION}?")
        .post("/vm/{DOMAIN}/mirror/promote"),
        plain("vm automirror", "Make the mirrors that are due now")
            .parts(
                ('\0', "email-report"),
                "email_recipients",
                "Send a report to these addresses, separated by commas",
            )
            .flag(
                ('\0', "email-errors-only"),
                "email_errors_only",
                "Send it only if something went wrong",
            )
            .waits()
            .cron()
            .post("/vm/automirror"),
    ]
}

fn backups() -> Vec<Plain> {
    vec![
        plain(
            "vm backup create",
            "Write a backup to a directory of the primary node",
        )
        .name(DOMAIN, DOMAIN_HELP)
        .argument("BACKUP_PATH", "backup_path", "The directory")
        .option(
            ('i', "incremental"),
            "incremental_parent",
            "Only what has changed since this backup",
        )
        .flag(
            ('r', "retain-snapshot"),
            "retain_snapshot",
            "Keep the snapshot, for incremental backups",
        )
        .post("/vm/{DOMAIN}/backup"),
        plain("vm backup restore", "Make a virtual machine from a backup")
            .name(DOMAIN, "Its name")
            .argument(
                "BACKUP_DATESTRING",
                "backup_datestring",
                "The backup's date, as its directory is named",
            )
            .argument("BACKUP_PATH", "backup_path", "The directory")
            .either(
                (
                    ('r', "retain-snapshot"),
                    "true",
                    "Keep the snapshot (this is so unless --remove-snapshot is given)",
                ),
                (('R', "remove-snapshot"), "false", "Do not keep the snapshot"),
                "retain_snapshot",
                Some("true"),
            )
            .post("/vm/{DOMAIN}/restore"),
        plain("vm backup remove", "Delete a backup")
            .name(DOMAIN, DOMAIN_HELP)
            .argument(
                "BACKUP_DATESTRING",
                "backup_datestring",
                "The backup's date, as its directory is named",
            )
            .argument("BACKUP_PATH", "backup_path", "The directory")
            .delete("/vm/{DOMAIN}/backup"),
        plain("vm autobackup", "Make the backups that are due now")
            .parts(
                ('\0', "email-report"),
                "email_recipients",
                "Send a report to these addresses, separated by commas",
            )
            .flag(('\0', "force-full"), "force_full", "Whole backups of all")
            .waits()
            .cron()
            .post("/vm/autobackup"),
    ]
}
