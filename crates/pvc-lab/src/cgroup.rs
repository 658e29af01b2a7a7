//! A folder of the cgroup v2 tree: what is in it can be ended or frozen as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::wait_for;

/// Processes in a folder that is being ended or frozen are handled by the kernel within milliseconds; a process in
/// an uninterruptible wait may take longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// One folder of the cgroup v2 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The lab's folder at the root of the v2 tree, wherever that is mounted: at /sys/fs/cgroup on an ordinary
    /// server, below it on a machine that still has version 1 too. It need not exist.
    pub(crate) fn of_lab() -> Result<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        match version_2_mount(&mounts) {
            Some(path) if path.join("cgroup.procs").exists() => Ok(Cgroup {
                path: path.join("pvc-lab"),
            }),
            Some(_) | None => bail!(
                "no cgroup v2 tree is mounted, and the lab needs one to end and freeze nodes; \
                 boot with systemd.unified_cgroup_hierarchy=1 or mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
            ),
        }
    }

    pub(crate) fn child(&self, name: &str) -> Cgroup {
        Cgroup {
            path: self.path.join(name),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).with_context(|| format!("cannot make {}", self.path.display()))?;
        for needed in ["cgroup.kill", "cgroup.freeze"] {
            if !self.path.join(needed).exists() {
                bail!("this kernel has no {needed} (Linux 5.14 or later is needed)");
            }
        }
        Ok(())
    }

    /// The words that run a program in it.
    pub(crate) fn argv<S: AsRef<str>>(&self, argv: &[S]) -> Vec<String> {
        let procs = self.path.join("cgroup.procs").display().to_string();
        // What the caller has open is none of its business: `flock FILE cargo xtask lab up` would lock for ever.
        let script = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; echo $$ >\"$0\" && exec \"$@\"";
        let mut all = ["sh", "-c", script, &procs].map(str::to_owned).to_vec();
        all.extend(argv.iter().map(|word| word.as_ref().to_owned()));
        all
    }

    /// Whether any process is in it or below it.
    pub(crate) fn is_populated(&self) -> bool {
        self.event("populated")
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.event("frozen")
    }

    /// A folder that is not there has no events.
    fn event(&self, name: &str) -> bool {
        let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        events
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|value| value.trim() == "1"))
    }

    /// Every process in it and below it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for folder in self.folders() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        found
    }

    /// Ends every process in it, frozen ones too, and waits until they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let file = self.path.join("cgroup.kill");
        if !file.exists() {
            return Ok(());
        }
        fs::write(&file, "1").with_context(|| format!("cannot write {}", file.display()))?;
        wait_for(
            &format!("the processes of {} to end", self.path.display()),
            DEADLINE,
            || Ok((!self.is_populated()).then_some(())),
        )
    }

    /// Stops every process in it where it stands.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.set_frozen("1", true)
    }

    /// Lets every process in it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.set_frozen("0", false)
    }

    fn set_frozen(&self, value: &str, want: bool) -> Result<()> {
        let file = self.path.join("cgroup.freeze");
        fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
        wait_for(&format!("{} to become {want}", file.display()), DEADLINE, || {
            Ok((self.is_frozen() == want).then_some(()))
        })
    }

    /// Ends what is in it and removes it with all folders below it. One that is not there is removed already.
    pub(crate) fn remove(&self) -> Result<()> {
        self.kill()?;
        for folder in self.folders().into_iter().rev() {
            wait_for(&format!("the removal of {}", folder.display()), DEADLINE, || {
                // The kernel lets go of a dead process's folder a moment after it says that it is empty.
                Ok((fs::remove_dir(&folder).is_ok() || !folder.exists()).then_some(()))
            })?;
        }
        Ok(())
    }

    /// The folder and all below it, parents first.
    fn folders(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut queue = vec![self.path.clone()];
        while let Some(folder) = queue.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    queue.push(entry.path());
                }
            }
            found.push(folder);
        }
        found
    }
}

/// Where the v2 tree is mounted, from the text of /proc/self/mounts.
fn version_2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_v2_tree_on_pure_and_hybrid_machines() {
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";
        assert_eq!(version_2_mount(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            version_2_mount(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(
            version_2_mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"),
            None
        );
    }
}
