//! Packages: broken ones, ones that could be upgraded, and settings that upgrades have left behind.

use std::io;
use std::path::Path;
use std::time::Duration;

use pvc_common::command::{CommandRunner, Invocation, Program};
use serde_json::json;

use super::{Finding, HealthFiles};

/// What each of the three takes.
const DELTA: u32 = 1;
/// How long the list of upgrades may take.
const LIMIT: Duration = Duration::from_secs(40);
/// Files that are looked at in `/etc`: many times what a node has.
const MOST_FILES: usize = 50_000;

pub(super) async fn check<R: CommandRunner>(commands: &R, files: &HealthFiles) -> Finding {
    let (status, etc) = (files.dpkg_status.clone(), files.etc.clone());
    // Some megabytes and some thousand directories: off the runtime's threads.
    let read = tokio::task::spawn_blocking(move || {
        let broken = broken(&std::fs::read_to_string(status)?);
        let release = std::fs::read_to_string(etc.join("debian_version")).unwrap_or_default();
        Ok::<_, io::Error>((broken, leftovers(&etc)?, release.trim().to_owned()))
    });
    let (broken, leftovers, release) = match read.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Finding::not_checked(format!("packages can't be read ({error})")),
        Err(error) => return Finding::not_checked(error),
    };
    let list = Invocation::new(Program::AptGet, LIMIT).args([
        "--simulate",
        "--quiet",
        "--option",
        "Debug::NoLocking=true",
        "dist-upgrade",
    ]);
    let upgradable = commands.run(&list).await.map(|output| upgrades(&output.text()));
    judge(&broken, upgradable.ok().as_deref(), &leftovers, &release)
}

fn judge(broken: &[String], upgradable: Option<&[String]>, leftovers: &[String], release: &str) -> Finding {
    let known = upgradable.unwrap_or_default();
    let mut told = Vec::new();
    for (list, what) in [
        (broken, "are not whole"),
        (known, "can be upgraded"),
        (leftovers, "of their old settings are left"),
    ] {
        if !list.is_empty() {
            told.push(format!("{} {what}", list.len()));
        }
    }
    let delta = u32::try_from(told.len()).unwrap_or(0) * DELTA;
    if upgradable.is_none() {
        told.push("upgrades could not be listed".to_owned());
    }
    let message = if told.is_empty() {
        "all packages are whole and up to date".to_owned()
    } else {
        format!("packages: {}", told.join(", "))
    };
    Finding::new(
        delta,
        message,
        json!({
            "debian_version": release,
            "obsolete_conffiles": leftovers,
            "inconsistent_packages": broken,
            "upgradable_packages": known,
        }),
    )
}

/// The packages that are neither installed whole nor removed.
fn broken(status: &str) -> Vec<String> {
    status
        .split("\n\n")
        .filter_map(|entry| {
            let field = |name: &str| {
                entry
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let whole = matches!(
                field("Status")?,
                "install ok installed" | "deinstall ok config-files" | "purge ok not-installed"
            ) || field("Status")?.starts_with("hold ok installed");
            (!whole).then(|| field("Package").unwrap_or("a package").to_owned())
        })
        .collect()
}

/// The packages of lines such as `Inst NAME [OLD] (NEW ...)`.
fn upgrades(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// Files of settings that upgrades have put beside those in use.
fn leftovers(etc: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut directories = vec![etc.to_owned()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            seen += 1;
            if seen > MOST_FILES {
                return Ok(found);
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if [".dpkg-", ".ucf-", ".update-"]
                .iter()
                .any(|mark| name.contains(mark))
            {
                found.push(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_are_not_whole_are_found() {
        let status = "Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: install ok half-configured\n\n\
                      Package: c\nStatus: deinstall ok config-files\n\nPackage: d\nStatus: hold ok installed\n";
        assert_eq!(broken(status), ["b"]);
    }

    #[test]
    fn upgrades_and_leftovers_count_once_each() {
        let text =
            "Reading package lists...\nInst curl [7.88.1-10] (7.88.1-11 Debian:12 [amd64])\nConf curl (x)\n";
        assert_eq!(upgrades(text), ["curl"]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("ssh")).unwrap();
        std::fs::write(dir.path().join("ssh/sshd_config.dpkg-dist"), "").unwrap();
        std::fs::write(dir.path().join("hosts"), "").unwrap();
        let left = leftovers(dir.path()).unwrap();
        assert_eq!(left.len(), 1);
        let names = ["a".to_owned(), "b".to_owned()];
        let finding = judge(&names, Some(&names), &left, "12.8");
        assert_eq!(finding.delta, 3);
        assert_eq!(judge(&[], Some(&[]), &[], "12.8").delta, 0);
        // What is not known is no flaw, and is said.
        let unknown = judge(&[], None, &[], "12.8");
        assert_eq!(unknown.delta, 0);
        assert!(unknown.message.contains("could not be listed"));
        assert_eq!(finding.data["upgradable_packages"], json!(["a", "b"]));
    }
}
