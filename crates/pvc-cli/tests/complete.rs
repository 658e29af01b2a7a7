//! Completion, as a shell drives it.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests run bash, which runs the program; both end by themselves"
)]

mod answers;
#[path = "../../pvcapid/tests/common/mod.rs"]
mod common;
mod program;

use std::path::Path;
use std::process::{Command, Stdio};

use answers::{Answer, Server};
use common::{Cluster, TOKEN, guest_xml, vm_id};
use program::{done, program};

/// What bash offers after these words, the last of which is begun.
fn offered(url: &str, begin: &str, words: &[&str]) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".config/pvc")).unwrap();
    std::fs::write(
        home.path().join(".config/pvc/pvc.json"),
        r#"{"lab": {"description": "", "host": "127.0.0.1", "port": 1, "scheme": "http"}}"#,
    )
    .unwrap();
    let typed = words.join(" ");
    let count = words.len();
    let last = words.last().unwrap();
    let script = format!(
        "eval \"$({begin})\"; COMP_WORDS=(pvc {typed}); [ -n '{last}' ] || COMP_WORDS+=(''); COMP_CWORD={count}; COMP_TYPE=9; \
         _clap_complete_pvc pvc '{last}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let pvc = Path::new(env!("CARGO_BIN_EXE_pvc")).parent().unwrap();
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", pvc.display()))
        .env("HOME", home.path())
        .env("PVC_URL", url)
        .env("PVC_API_KEY", TOKEN)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{words:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn bash_offers_commands_and_the_names_of_what_there_is() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    for (name, index) in [("web1", 1), ("web2", 2), ("db1", 3)] {
        let file = directory.path().join("guest.xml");
        std::fs::write(&file, guest_xml(name, vm_id(index), "")).unwrap();
        let file = file.to_str().unwrap();
        done(&cluster, &["vm", "define", file, "-t", "hv1", "-g", "front"]);
    }
    for begin in ["pvc completion bash", "_PVC_COMPLETE=bash_source pvc"] {
        let offers = |words: &[&str]| offered(cluster.url(), begin, words);
        assert_eq!(offers(&["vm", "info", "we"]), ["web1", "web2"]);
        assert_eq!(offers(&["vm", "move", "web1", "-t", "hv"]), ["hv1", "hv2", "hv3"]);
        assert_eq!(offers(&["node", "flush", "hv2"]), ["hv2"]);
        assert_eq!(offers(&["vm", "tag", "remove", "web1", "f"]), ["front"]);
        assert_eq!(offers(&["-c", "l"]), ["lab"]);
        assert_eq!(offers(&["connection", "remove", "l"]), ["lab"]);
        assert_eq!(offers(&["vm", "mig"]), ["migrate"]);
        // Of a command that is data here rather than code.
        assert_eq!(offers(&["vm", "snapshot", "create", "db"]), ["db1"]);
        assert!(offers(&["vm", "info", ""]).contains(&"db1".to_owned()));
    }
}

/// The key was pressed, and somebody waits.
#[test]
fn a_cluster_that_does_not_answer_is_passed_over_in_silence() {
    let hung = Server::start(|_| Answer::Silence);
    for url in [hung.url.as_str(), "http://127.0.0.1:1"] {
        assert_eq!(
            offered(url, "pvc completion bash", &["vm", "info", "we"]),
            Vec::<String>::new()
        );
    }
}

#[test]
fn the_script_is_short_and_other_shells_have_one() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = program(home.path()).args(["completion", shell]).output().unwrap();
        assert!(script.status.success(), "{shell}");
        assert!((100..10_000).contains(&script.stdout.len()), "{shell}");
    }
    // The script of an old client's shell asks in a way that is not ours: it gets nothing, and no error.
    let old = program(home.path())
        .env("_PVC_COMPLETE", "bash_complete")
        .output()
        .unwrap();
    assert!(old.status.success() && old.stdout.is_empty() && old.stderr.is_empty());
}
