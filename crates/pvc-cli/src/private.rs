//! Files that hold secrets: for their owner's eyes alone.

use std::fs;
use std::io::{Result, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes a file that its owner alone can read, whole or not at all: what was cut short must not take the place of an older, good
/// one, and what others had opened or could read before must not be what is written to.
pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        // A pipe or a terminal, which nothing can take the place of.
        return fs::OpenOptions::new()
            .write(true)
            .open(file)?
            .write_all(text.as_bytes());
    }
    // Where a link leads, rather than in the place of the link.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let mut new = NamedTempFile::new_in(directory)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(&file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A backup with the passwords of BMCs that is written over one that everybody could read.
    #[test]
    fn a_file_that_others_could_read_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("backup.json");
        let link = directory.path().join("link");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "secret").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "nothing is left over"
        );
        write(Path::new("/dev/null"), "secret").unwrap();
    }
}
