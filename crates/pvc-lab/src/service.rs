//! Programs of the lab itself that run on the machine beside the nodes: the forwarder and the BMCs.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroup;
use crate::process::{Run, run};
use crate::state::Folder;

/// The lab's own program, `xtask`: forwarder and BMCs call it.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    path: PathBuf,
}

impl Tool {
    /// Copies the program into the lab's folder, so that a running lab does not change with the next build.
    pub(crate) fn install(folder: &Folder, program: Option<&Path>) -> Result<Tool> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => find()?,
        };
        let tools = folder.tools();
        fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
        let Tool { path } = Tool::installed(folder);
        fs::copy(&program, &path).with_context(|| format!("cannot copy {}", program.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("cannot make the copy executable")?;
        Ok(Tool { path })
    }

    /// The copy that [`Tool::install`] made.
    pub(crate) fn installed(folder: &Folder) -> Tool {
        Tool {
            path: folder.tools().join("xtask"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The program itself if it is xtask, else the xtask of the same build: a test's own program is in `deps` below it.
fn find() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell the own program's path")?;
    let near = own.ancestors().skip(1).take(2).map(|folder| folder.join("xtask"));
    let found = std::iter::once(own.clone())
        .chain(near)
        .find(|path| path.file_name().is_some_and(|name| name == "xtask") && path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "there is no xtask near {}: `cargo build -p xtask` makes it",
            own.display()
        ),
    }
}

/// Starts a program in a folder of the lab's cgroup, so that it ends with the lab. It outlives the caller; its output
/// goes to `NAME.log` in the lab's folder.
pub(crate) fn start(
    folder: &Folder,
    name: &str,
    argv: &[&str],
    environment: impl FnOnce(Run) -> Run,
) -> Result<()> {
    let cgroup = Cgroup::of_lab()?.child(name);
    cgroup.create()?;
    let log = folder.cluster().join(format!("{name}.log"));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    let mut all = vec!["setsid".to_owned(), "--fork".to_owned()];
    all.extend(cgroup.argv(argv));
    environment(run(&all))
        .env("PVC_LAB_DIR", folder.root())
        .detached(log)
}

/// Whether a program that [`start`] started still runs.
pub(crate) fn is_running(name: &str) -> Result<bool> {
    Ok(Cgroup::of_lab()?.child(name).is_populated())
}
