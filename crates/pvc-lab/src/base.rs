//! The base tree: one Debian 12 with everything that nodes need, built once and mounted under all of them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroup;
use crate::process::{Run, run};
use crate::progress::Progress;
use crate::state::{Folder, write_file};

const RELEASE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// How many base trees of other versions stay when one is built.
const OTHERS_KEPT: usize = 1;
/// What debootstrap itself installs beside the minimum.
const MINIMUM: &str = "systemd,systemd-sysv,dbus,iproute2,procps,ca-certificates";

const PACKAGES: &str = include_str!("../assets/packages.list");
/// The scripts that run inside the tree: name, text.
const SETUP: [(&str, &str); 5] = [
    ("base-setup.sh", include_str!("../assets/base-setup.sh")),
    ("guest/build.sh", include_str!("../assets/guest/build.sh")),
    ("guest/init", include_str!("../assets/guest/init")),
    ("guest/power-button", include_str!("../assets/guest/power-button")),
    ("guest/tiny.asm", include_str!("../assets/guest/tiny.asm")),
];

/// Where the base tree is, or will be: the name changes with everything it is made of.
pub(crate) fn path(folder: &Folder) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (RELEASE, MINIMUM, PACKAGES, SETUP).hash(&mut hasher);
    folder.root().join(format!("base-{:016x}", hasher.finish()))
}

/// Builds the base tree unless it is there.
pub(crate) fn ensure(folder: &Folder, progress: &mut dyn Progress) -> Result<PathBuf> {
    let tree = path(folder);
    if tree.exists() {
        progress.step(&format!("base tree {} is there", tree.display()));
        return Ok(tree);
    }
    remove_others(folder, progress)?;
    // Renamed when it is whole: a tree that was left half-built is never taken for a good one.
    let building = folder.root().join("building");
    remove_tree(&building)?;
    build(folder, &building, progress)
        .with_context(|| format!("cannot build the base tree {}", tree.display()))?;
    fs::rename(&building, &tree).context("cannot rename the finished base tree")?;
    Ok(tree)
}

/// Each tree takes more than a gigabyte. The last one built stays, for who goes to and fro between two versions.
fn remove_others(folder: &Folder, progress: &mut dyn Progress) -> Result<()> {
    let mut trees: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder.root())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("base-"))
        .map(|entry| {
            (
                entry
                    .metadata()
                    .and_then(|data| data.modified())
                    .unwrap_or(UNIX_EPOCH),
                entry.path(),
            )
        })
        .collect();
    trees.sort();
    let outdated = trees.len().saturating_sub(OTHERS_KEPT);
    for (_, tree) in &trees[..outdated] {
        progress.step(&format!("removing the outdated base tree {}", tree.display()));
        remove_tree(tree)?;
    }
    Ok(())
}

fn build(folder: &Folder, tree: &Path, progress: &mut dyn Progress) -> Result<()> {
    let mirror = std::env::var("PVC_LAB_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    let debootstrap_cache = folder.cache().join("debootstrap");
    let apt_cache = folder.cache().join("apt");
    for cache in [&debootstrap_cache, &apt_cache.join("partial")] {
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    }

    progress.step(&format!(
        "building the base tree: Debian {RELEASE} from {mirror} (a minute or two)"
    ));
    in_build(&[
        "debootstrap",
        "--variant=minbase",
        &format!("--include={MINIMUM}"),
        &format!("--cache-dir={}", debootstrap_cache.display()),
        RELEASE,
        &tree.display().to_string(),
        &mirror,
    ])?
    .within(Duration::from_secs(900))
    .ok()?;

    let sources = format!(
        "deb {mirror} {RELEASE} main\ndeb {mirror} {RELEASE}-updates main\ndeb {SECURITY_MIRROR} {RELEASE}-security main\n"
    );
    write_file(&tree.join("etc/apt/sources.list"), 0o644, sources)?;
    // The tree shares the machine's network while it is built; afterwards it has neither names nor a way out.
    fs::copy("/etc/resolv.conf", tree.join("etc/resolv.conf")).context("cannot copy /etc/resolv.conf")?;
    copy_proxy(tree)?;
    let setup = folder.root().join("building-setup");
    for (name, text) in SETUP {
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        write_file(&setup.join(name), mode, text)?;
    }

    let packages: Vec<&str> = packages().collect();
    progress.step(&format!(
        "building the base tree: {} packages and what they need (about two minutes)",
        packages.len()
    ));
    let (tree_argument, setup_argument, cache_argument) = (
        format!("--directory={}", tree.display()),
        format!("--bind-ro={}:/usr/lib/pvc-lab-setup", setup.display()),
        format!("--bind={}:/var/cache/apt/archives", apt_cache.display()),
    );
    let mut argv = vec![
        "systemd-nspawn",
        "--quiet",
        "--settings=no",
        "--register=no",
        "--keep-unit",
        "--pipe",
        "--resolv-conf=off",
        "--timezone=off",
        &tree_argument,
        &setup_argument,
        &cache_argument,
        "/usr/lib/pvc-lab-setup/base-setup.sh",
    ];
    argv.extend(packages);
    in_build(&argv)?
        .env("SYSTEMD_NSPAWN_LOCK", "0")
        .within(Duration::from_secs(1200))
        .ok()?;
    for left in ["etc/resolv.conf", PROXY_FILE] {
        fs::remove_file(tree.join(left)).ok();
    }
    remove_tree(&setup)?;
    if !tree.join("usr/share/pvc-lab/guest/vmlinuz").exists() {
        bail!("the tree was built and has no guest kernel");
    }
    Ok(())
}

/// A program in the lab's cgroup: if `up` is ended in its middle, the next `up` or `down` ends what is still at work.
fn in_build<S: AsRef<str>>(argv: &[S]) -> Result<Run> {
    let cgroup = Cgroup::of_lab()?.child("build");
    cgroup.create()?;
    Ok(run(&cgroup.argv(argv)))
}

const PROXY_FILE: &str = "etc/apt/apt.conf.d/01pvc-lab-proxy";

/// A machine that reaches Debian through a proxy has told its own apt so.
fn copy_proxy(tree: &Path) -> Result<()> {
    let dump = run(&["apt-config", "dump", "Acquire"]).ok()?;
    let proxies: Vec<&str> = dump
        .lines()
        .filter(|line| line.to_ascii_lowercase().contains("::proxy"))
        .collect();
    if proxies.is_empty() {
        return Ok(());
    }
    write_file(&tree.join(PROXY_FILE), 0o644, proxies.join("\n") + "\n")
}

fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Removes a tree that may have been left by a build that was ended in its middle.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // debootstrap mounts proc and sys inside; removing through such a mount would be removing the machine's own.
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for mount in mounts_below(&mounts, path) {
        run(&["umount", "--lazy", &mount]).ok()?;
    }
    let walk = || -> std::io::Result<()> {
        // Some folders of a base tree are not writable even for their owner, and root may be restricted too.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        fs::remove_dir_all(path)
    };
    walk().with_context(|| format!("cannot remove {}", path.display()))
}

/// Mount points at or below a folder, deepest first.
fn mounts_below(mounts: &str, path: &Path) -> Vec<String> {
    let mut found: Vec<String> = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|mount| Path::new(mount).starts_with(path))
        .map(str::to_owned)
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_list_is_a_list_of_names() {
        let all: Vec<&str> = packages().collect();
        assert!(all.contains(&"zookeeper") && all.contains(&"ceph-osd"));
        assert!(
            all.iter().all(|name| name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-+.".contains(c))),
            "{all:?}"
        );
    }

    // Removing a tree through a mounted /proc or /dev would be removing the machine's own.
    #[test]
    fn mounts_below_a_tree_are_found_deepest_first() {
        let mounts = "proc /proc proc rw 0 0\nproc /lab/building/proc proc rw 0 0\n\
                      sysfs /lab/building/proc/sub sysfs rw 0 0\nx /lab/building2 x rw 0 0\n";
        assert_eq!(
            mounts_below(mounts, Path::new("/lab/building")),
            ["/lab/building/proc/sub", "/lab/building/proc"]
        );
    }
}
