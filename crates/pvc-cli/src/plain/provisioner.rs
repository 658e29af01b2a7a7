//! The provisioner.

use super::{Plain, plain};

const LISTS: &[&str] = &["pretty", "raw", "json", "json-pretty"];
const SELECTORS: &[&str] = &["mem", "memprov", "vcpus", "vms", "load", "none"];
const METHODS: &[&str] = &["none", "live", "shutdown"];

pub(super) fn commands() -> Vec<Plain> {
    let mut all = system_templates();
    all.extend(network_templates());
    all.extend(storage_templates());
    all.extend(documents());
    all.extend(images());
    all.extend(profiles());
    all
}

/// Two options for one truth.
fn truth(
    command: Plain,
    yes: ((char, &'static str), &'static str),
    no: ((char, &'static str), &'static str),
    parameter: &'static str,
    otherwise: Option<&'static str>,
) -> Plain {
    command.either(
        (yes.0, "true", yes.1),
        (no.0, "false", no.1),
        parameter,
        otherwise,
    )
}

fn consoles(command: Plain, otherwise: Option<&'static str>) -> Plain {
    let command = truth(
        command,
        (('s', "serial"), "With a serial console"),
        (('S', "no-serial"), "Without"),
        "serial",
        otherwise,
    );
    truth(
        command,
        (('n', "vnc"), "With a screen over VNC"),
        (('N', "no-vnc"), "Without"),
        "vnc",
        otherwise,
    )
    .option(
        ('b', "vnc-bind"),
        "vnc_bind",
        "The address that the screen listens on",
    )
    .option(
        ('\0', "node-limit"),
        "node_limit",
        "The nodes that it may run on, separated by commas",
    )
}

fn system_templates() -> Vec<Plain> {
    let add = plain("provisioner template system add", "Add a template")
        .argument("NAME", "name", "Its name")
        .needed(('u', "vcpus"), "vcpus", "How many vCPUs")
        .needed(('m', "vram"), "vram", "How much memory, in MiB");
    let modify = plain("provisioner template system modify", "Change a template")
        .name("NAME", "Its name")
        .option(('u', "vcpus"), "vcpus", "How many vCPUs")
        .option(('m', "vram"), "vram", "How much memory, in MiB");
    vec![
        consoles(add, Some("false"))
            .preset(
                ('\0', "node-selector"),
                "node_selector",
                "none",
                "How a node is chosen",
            )
            .of("node-selector", SELECTORS)
            .flag(
                ('\0', "node-autostart"),
                "node_autostart",
                "Start it when its node becomes ready",
            )
            .option(
                ('\0', "migration-method"),
                "migration_method",
                "How it may be moved",
            )
            .of("migration-method", METHODS)
            .preset(
                ('\0', "max-downtime"),
                "migration_max_downtime",
                "300",
                "How long it may pause at the end of a live migration, in milliseconds",
            )
            .post("/provisioner/template/system"),
        consoles(modify, None)
            .option(('\0', "node-selector"), "node_selector", "How a node is chosen")
            .of("node-selector", SELECTORS)
            .flag(
                ('\0', "node-autostart"),
                "node_autostart",
                "Start it when its node becomes ready",
            )
            .option(
                ('\0', "migration-method"),
                "migration_method",
                "How it may be moved",
            )
            .of("migration-method", METHODS)
            .option(
                ('\0', "max-downtime"),
                "migration_max_downtime",
                "How long it may pause at the end of a live migration, in milliseconds",
            )
            .put("/provisioner/template/system/{NAME}"),
        plain("provisioner template system remove", "Remove a template")
            .name("NAME", "Its name")
            .asks("Remove system template {NAME}?")
            .delete("/provisioner/template/system/{NAME}"),
        list("provisioner template system list", "/provisioner/template/system"),
    ]
}

fn list(path: &'static str, route: &'static str) -> Plain {
    plain(path, "List them")
        .maybe(
            "LIMIT",
            "limit",
            "Only those whose name has this in it; % stands for anything",
        )
        .lists(route, LISTS)
}

fn network_templates() -> Vec<Plain> {
    vec![
        plain("provisioner template network add", "Add a template")
            .argument("NAME", "name", "Its name")
            .option(
                ('m', "mac-template"),
                "mac_template",
                "How MAC addresses are made",
            )
            .post("/provisioner/template/network"),
        plain("provisioner template network remove", "Remove a template")
            .name("NAME", "Its name")
            .asks("Remove network template {NAME}?")
            .delete("/provisioner/template/network/{NAME}"),
        list(
            "provisioner template network list",
            "/provisioner/template/network",
        ),
        plain(
            "provisioner template network vni add",
            "Add a network to a template",
        )
        .name("NAME", "The template")
        .name("VNI", "The network's number")
        .flag(
            ('d', "permit-duplicate"),
            "permit_duplicate",
            "Even if it is in there already",
        )
        .post("/provisioner/template/network/{NAME}/net/{VNI}"),
        plain(
            "provisioner template network vni remove",
            "Remove a network from a template",
        )
        .name("NAME", "The template")
        .name("VNI", "The network's number")
        .asks("Remove network {VNI} from template {NAME}?")
        .delete("/provisioner/template/network/{NAME}/net/{VNI}"),
    ]
}

fn storage_templates() -> Vec<Plain> {
    vec![
        plain("provisioner template storage add", "Add a template")
            .argument("NAME", "name", "Its name")
            .post("/provisioner/template/storage"),
        plain("provisioner template storage remove", "Remove a template")
            .name("NAME", "Its name")
            .asks("Remove storage template {NAME}?")
            .delete("/provisioner/template/storage/{NAME}"),
        list(
            "provisioner template storage list",
            "/provisioner/template/storage",
        ),
        plain(
            "provisioner template storage disk add",
            "Add a disk to a template",
        )
        .name("NAME", "The template")
        .name("DISK", "The disk's name, as in sda")
        .needed(('p', "pool"), "pool", "The pool")
        .option(
            ('i', "source-volume"),
            "source_volume",
            "A volume that it is a copy of",
        )
        .option(('s', "size"), "disk_size", "Its size, in GiB")
        .option(('f', "filesystem"), "filesystem", "The file system on it")
        .repeated(
            ('\0', "fsarg"),
            "filesystem_arg",
            "An option of the file system; may be given several times",
        )
        .option(('m', "mountpoint"), "mountpoint", "Where it is mounted")
        .post("/provisioner/template/storage/{NAME}/disk/{DISK}"),
        plain(
            "provisioner template storage disk remove",
            "Remove a disk from a template",
        )
        .name("NAME", "The template")
        .name("DISK", "The disk's name, as in sda")
        .asks("Remove disk {DISK} from template {NAME}?")
        .delete("/provisioner/template/storage/{NAME}/disk/{DISK}"),
    ]
}

fn documents() -> Vec<Plain> {
    let long = (('l', "long"), "Show each whole (JSON always does)");
    vec![
        plain("provisioner userdata add", "Add a document")
            .argument("NAME", "name", "Its name")
            .file("FILENAME", "data", "File with its text")
            .post("/provisioner/userdata"),
        plain("provisioner userdata modify", "Change a document")
            .name("NAME", "Its name")
            .file_or_editor("FILENAME", "data", "userdata", "File with its new text")
            .put("/provisioner/userdata/{NAME}"),
        plain("provisioner userdata remove", "Remove a document")
            .name("NAME", "Its name")
            .asks("Remove document {NAME}?")
            .delete("/provisioner/userdata/{NAME}"),
        plain("provisioner userdata show", "Print a document")
            .name("NAME", "Its name")
            .prints("/provisioner/userdata/{NAME}", "userdata"),
        list("provisioner userdata list", "/provisioner/userdata").switch(long.0, long.1),
        plain("provisioner script add", "Add a script")
            .argument("NAME", "name", "Its name")
            .file("FILENAME", "data", "File with its text")
            .post("/provisioner/script"),
        plain("provisioner script modify", "Change a script")
            .name("NAME", "Its name")
            .file_or_editor("FILENAME", "data", "script", "File with its new text")
            .put("/provisioner/script/{NAME}"),
        plain("provisioner script remove", "Remove a script")
            .name("NAME", "Its name")
            .asks("Remove script {NAME}?")
            .delete("/provisioner/script/{NAME}"),
        plain("provisioner script show", "Print a script")
            .name("NAME", "Its name")
            .prints("/provisioner/script/{NAME}", "script"),
        list("provisioner script list", "/provisioner/script").switch(long.0, long.1),
    ]
}

fn images() -> Vec<Plain> {
    vec![
        // The image itself follows once the API takes one.
        plain("provisioner ova upload", "Upload an image")
            .name("NAME", "Its name")
            .name("FILENAME", "The image")
            .needed(('p', "pool"), "pool", "The pool that its disks go to")
            .post("/provisioner/ova/{NAME}"),
        plain("provisioner ova remove", "Remove an image")
            .name("NAME", "Its name")
            .asks("Remove image {NAME}?")
            .delete("/provisioner/ova/{NAME}"),
        list("provisioner ova list", "/provisioner/ova"),
    ]
}

fn profiles() -> Vec<Plain> {
    let add = plain("provisioner profile add", "Add a profile")
        .argument("NAME", "name", "Its name")
        .preset(
            ('p', "profile-type"),
            "profile_type",
            "provisioner",
            "What it is made from",
        )
        .of("profile-type", &["provisioner", "ova"])
        .needed(('s', "system-template"), "system_template", "System template")
        .needed(('x', "script"), "script", "Script");
    let modify = plain("provisioner profile modify", "Change a profile")
        .name("NAME", "Its name")
        .option(('s', "system-template"), "system_template", "System template")
        .option(('x', "script"), "script", "Script");
    let rest = |command: Plain| {
        command
            .option(('n', "network-template"), "network_template", "Network template")
            .option(('t', "storage-template"), "storage_template", "Storage template")
            .option(('u', "userdata"), "userdata", "Document")
            .repeated(
                ('a', "script-arg"),
                "arg",
                "An argument of the script; may be given several times",
            )
    };
    vec![
        rest(add)
            .option(('o', "ova"), "ova", "Image")
            .post("/provisioner/profile"),
        rest(modify)
            .blank(
                ('d', "delete-script-args"),
                "arg",
                "Remove the script's arguments",
            )
            .put("/provisioner/profile/{NAME}"),
        plain("provisioner profile remove", "Remove a profile")
            .name("NAME", "Its name")
            .asks("Remove profile {NAME}?")
            .delete("/provisioner/profile/{NAME}"),
        list("provisioner profile list", "/provisioner/profile"),
        truth(
            truth(
                plain("provisioner create", "Make a virtual machine from a profile")
                    .argument("NAME", "name", "Its name")
                    .argument("PROFILE", "profile", "The profile")
                    .repeated(
                        ('a', "script-arg"),
                        "arg",
                        "An argument of the script; may be given several times",
                    ),
                (
                    ('d', "define"),
                    "Register it (this is so unless --no-define is given)",
                ),
                (('D', "no-define"), "Only make its disks"),
                "define_vm",
                Some("true"),
            ),
            (('s', "start"), "Start it (this is so unless --no-start is given)"),
            (('S', "no-start"), "Do not start it"),
            "start_vm",
            Some("true"),
        )
        .waits()
        .post("/provisioner/create"),
    ]
}
