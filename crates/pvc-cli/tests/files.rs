//! Files that the program writes: who can read them, and that nothing of somebody's work is lost.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Cluster, TOKEN, guest_xml, vm_id};
use program::{Said, done, program};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn define(cluster: &Cluster, directory: &Path) {
    let file = directory.join("guest.xml");
    fs::write(&file, guest_xml("web1", vm_id(1), "")).unwrap();
    done(cluster, &["vm", "define", file.to_str().unwrap(), "-t", "hv1"]);
}

/// Changes web1 in an editor that is this shell script; answers with what was said and what is left in the directory
/// for temporary files.
fn edit(cluster: &Cluster, directory: &Path, script: &str) -> (Said, Vec<PathBuf>) {
    let editor = directory.join("editor");
    fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
    let temporary = directory.join("tmp");
    let _ = fs::create_dir(&temporary);
    let said: Said = program(directory)
        .env("PVC_URL", cluster.url())
        .env("PVC_API_KEY", TOKEN)
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", &temporary)
        .env("EDITOR", &editor)
        .args(["-q", "vm", "modify", "web1", "-e", "-y"])
        .output()
        .unwrap()
        .into();
    let left = fs::read_dir(&temporary).unwrap();
    (said, left.map(|entry| entry.unwrap().path()).collect())
}

/// An hour's work in an editor, refused for a missing bracket.
#[test]
fn a_text_that_is_refused_is_kept() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    define(&cluster, directory);
    let seen = directory.join("seen");
    let (said, left) = edit(
        &cluster,
        directory,
        &format!(
            "stat -c %a \"$1\" > {0}; sed -i 's/<vcpu>2/<vcpu>3/' \"$1\"",
            seen.display()
        ),
    );
    assert_eq!((said.code, left), (0, Vec::new()), "{said:?}");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "600\n");
    let (said, left) = edit(&cluster, directory, "exit 0");
    assert_eq!((said.code, left), (0, Vec::new()), "{said:?}");

    let (said, left) = edit(&cluster, directory, "echo 'much work' > \"$1\"");
    assert_eq!((said.code, left.len()), (1, 1), "{said:?}");
    let kept = left[0].join("web1.xml");
    assert!(
        said.err.contains(&format!("Your text is in {}", kept.display())),
        "{said:?}"
    );
    assert_eq!(fs::read_to_string(&kept).unwrap(), "much work\n");
    assert_eq!(mode(&left[0]), 0o700);
    fs::remove_dir_all(&left[0]).unwrap();

    // So does what an editor left behind that has died.
    let (said, left) = edit(&cluster, directory, "echo 'much work' > \"$1\"; kill -9 $$");
    assert_eq!((said.code, left.len()), (1, 1), "{said:?}");
    assert!(said.err.contains("Your text is in"), "{said:?}");
}

/// The password of a guest's console, in a file that everybody on the machine reads.
#[test]
fn what_holds_secrets_is_for_its_owner_alone() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    define(&cluster, directory.path());
    let file = directory.path().join("web1.xml");
    let name = file.to_str().unwrap();
    done(&cluster, &["vm", "dump", "web1", "-f", name]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    done(&cluster, &["vm", "dump", "web1", "--secrets", "-f", name]);
    assert_eq!(mode(&file), 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("web1"));

    let file = directory.path().join("backup.json");
    let name = file.to_str().unwrap();
    // What a backup that was cut short may have left.
    fs::write(directory.path().join("backup.json.new"), "").unwrap();
    done(&cluster, &["cluster", "backup", "-f", name]);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(
        fs::read_to_string(directory.path().join("backup.json.new")).unwrap(),
        ""
    );
}

/// A newer client has written the file, and this one is used once more.
#[test]
fn connections_that_are_not_understood_are_left_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".config/pvc/pvc.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(
        &file,
        r#"{"lab": {"description": "", "host": "h", "port": 1, "scheme": "http", "colour": "red"}, "new": {"socket": "/run/x"}}"#,
    )
    .unwrap();
    let run = |args: &[&str]| -> Said { program(home.path()).args(args).output().unwrap().into() };
    let list = run(&["connection", "list"]);
    assert_eq!(list.code, 0, "{list:?}");
    assert!(list.out.contains("lab") && list.out.contains("new"), "{list:?}");
    let used = run(&["-c", "new", "node", "list"]);
    assert_eq!(used.code, 1, "{used:?}");
    assert!(used.err.contains("\"new\""), "{used:?}");
    // A script of 1.0.3 that removes is not asked.
    assert_eq!(run(&["connection", "add", "more", "-a", "h"]).code, 0);
    assert_eq!(run(&["connection", "add", "more", "-a", "i"]).code, 0);
    assert_eq!(run(&["connection", "remove", "more"]).code, 0);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("red") && text.contains("/run/x") && !text.contains("more"),
        "{text}"
    );
}

#[test]
fn silent_is_silent() {
    let cluster = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| -> Said {
        program(home.path())
            .env("PVC_URL", cluster.url())
            .env("PVC_API_KEY", TOKEN)
            .arg("-s")
            .args(args)
            .output()
            .unwrap()
            .into()
    };
    let made = run(&["token", "create", "x", "-r", "viewer"]);
    assert!(made.out.starts_with("pvc_x_"), "{made:?}");
    assert_eq!(made.err, "");
    let added = run(&["connection", "add", "lab", "-a", "h", "-k", "key"]);
    assert_eq!((added.code, added.out.as_str(), added.err.as_str()), (0, "", ""));
}
