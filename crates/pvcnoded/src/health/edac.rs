//! Memory errors, as the kernel counts them.

use std::io;
use std::path::Path;

use serde_json::json;

use super::Finding;

/// What errors that could not be corrected take.
const DELTA: u32 = 50;

pub(super) fn check(sys: &Path) -> Finding {
    match read(&sys.join("devices/system/edac/mc")) {
        Ok(counts) if counts.controllers == 0 => {
            Finding::not_checked("no memory controller of this host reports errors")
        }
        Ok(counts) => judge(counts),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::not_checked("no memory controller of this host reports errors")
        }
        Err(error) => Finding::not_checked(format!("the counts of memory errors can't be read ({error})")),
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    controllers: u32,
    uncorrected: u64,
    corrected: u64,
}

fn read(controllers: &Path) -> io::Result<Counts> {
    let mut counts = Counts::default();
    for entry in std::fs::read_dir(controllers)? {
        let path = entry?.path();
        let is_controller = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("mc")?.parse::<u32>().ok())
            .is_some();
        if !is_controller {
            continue;
        }
        let count = |name: &str| -> io::Result<u64> {
            std::fs::read_to_string(path.join(name))?
                .trim()
                .parse()
                .map_err(io::Error::other)
        };
        counts.controllers += 1;
        counts.uncorrected = counts.uncorrected.saturating_add(count("ue_count")?);
        counts.corrected = counts.corrected.saturating_add(count("ce_count")?);
    }
    Ok(counts)
}

fn judge(counts: Counts) -> Finding {
    Finding::new(
        if counts.uncorrected > 0 { DELTA } else { 0 },
        format!(
            "{} uncorrected and {} corrected memory errors since the start",
            counts.uncorrected, counts.corrected
        ),
        json!({"uncorrected": counts.uncorrected, "corrected": counts.corrected}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_were_not_corrected_count() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        assert!(check(sys).message.starts_with("not checked"));
        for (controller, uncorrected, corrected) in [("mc0", "0\n", "3\n"), ("mc1", "0\n", "4\n")] {
            let path = sys.join("devices/system/edac/mc").join(controller);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("ue_count"), uncorrected).unwrap();
            std::fs::write(path.join("ce_count"), corrected).unwrap();
        }
        std::fs::create_dir_all(sys.join("devices/system/edac/mc/power")).unwrap();
        let finding = check(sys);
        assert_eq!((finding.delta, &finding.data["corrected"]), (0, &json!(7)));
        std::fs::write(sys.join("devices/system/edac/mc/mc1/ue_count"), "1\n").unwrap();
        assert_eq!(check(sys).delta, 50);
    }
}
