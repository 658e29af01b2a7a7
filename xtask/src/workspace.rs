//! Where the workspace and its programs are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The target folder: this program lies in it, in the folder of its profile.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell the own program's path")?;
    let target = own.parent().and_then(Path::parent);
    Ok(target
        .with_context(|| format!("{} has no target folder", own.display()))?
        .to_owned())
}

/// This program's file as it is now: a build of the workspace may have replaced the one that we were started from.
pub(crate) fn own() -> Result<PathBuf> {
    let started = std::env::current_exe().context("cannot tell the own program's path")?;
    Ok(started.with_file_name(env!("CARGO_BIN_NAME")))
}

/// A program that the debug build of the workspace made.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("debug").join(name))
}
