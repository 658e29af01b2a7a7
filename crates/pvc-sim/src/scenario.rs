//! Scenarios: schedules written by hand, with the log that is expected of them.
//!
//! A scenario is a folder with `README.md` (what is tried and which rule it keeps), `cluster`, `commands` and
//! `log.expect`. See `docs/development/simulator.md`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::run::{Ending, Logging, run};
use crate::schedule::Schedule;

/// A scenario's folder.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The folder's name.
    pub name: String,
    folder: PathBuf,
    schedule: Schedule,
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Something that must hold did not.
    Broken {
        /// What.
        breach: String,
        /// What happened.
        log: Vec<String>,
    },
    /// All held, and what happened is not what is expected.
    Differs {
        /// Lines that are missing and lines that are new, with what is around them.
        difference: Vec<String>,
    },
}

/// Whether the expected log is compared or written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is compared.
    Compare,
    /// It is written anew.
    Bless,
    /// It does not matter: only what must hold.
    Ignore,
}

/// All scenarios in `folder` whose names contain `filter`, by name.
///
/// # Errors
/// When a scenario can't be read.
pub fn all(folder: &Path, filter: Option<&str>) -> anyhow::Result<Vec<Scenario>> {
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    for entry in entries {
        let folder = entry.context("failed to list the scenarios")?.path();
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !folder.is_dir() || filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        found.push(Scenario::read(name, folder)?);
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

impl Scenario {
    fn read(name: String, folder: PathBuf) -> anyhow::Result<Scenario> {
        let mut schedule = Schedule::default();
        for file in ["cluster", "commands"] {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            schedule
                .read(&text)
                .with_context(|| format!("{} can't be understood", path.display()))?;
        }
        if !folder.join("README.md").is_file() {
            bail!("{} has no README.md", folder.display());
        }
        if schedule.steps.is_empty() {
            bail!("{} has no commands", folder.display());
        }
        Ok(Scenario {
            name,
            folder,
            schedule,
        })
    }

    /// Plays the scenario.
    ///
    /// # Errors
    /// When the expected log can't be read or written.
    pub fn play(&self, runtime: &Path, expected: Expected) -> anyhow::Result<Verdict> {
        let outcome = run(&self.schedule, runtime, Logging::Calm, Ending::AsItIs);
        if let Some(breach) = outcome.breach {
            return Ok(Verdict::Broken {
                breach,
                log: outcome.log,
            });
        }
        let file = self.folder.join("log.expect");
        match expected {
            Expected::Ignore => return Ok(Verdict::Passed),
            Expected::Bless => {
                let text = outcome.log.join("\n") + "\n";
                std::fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
                return Ok(Verdict::Passed);
            }
            Expected::Compare => {}
        }
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let wanted: Vec<&str> = text.lines().collect();
        let got: Vec<&str> = outcome.log.iter().map(String::as_str).collect();
        if wanted == got {
            return Ok(Verdict::Passed);
        }
        Ok(Verdict::Differs {
            difference: difference(&wanted, &got),
        })
    }
}

/// The lines of two texts, those of only one marked; long stretches of equal lines are left out.
fn difference(wanted: &[&str], got: &[&str]) -> Vec<String> {
    // Longest common lines, from the end on.
    let mut common = vec![vec![0_u32; got.len() + 1]; wanted.len() + 1];
    for (i, one) in wanted.iter().enumerate().rev() {
        for (j, two) in got.iter().enumerate().rev() {
            common[i][j] = if one == two {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines: Vec<(char, &str)> = Vec::new();
    while i < wanted.len() || j < got.len() {
        if i < wanted.len() && j < got.len() && wanted[i] == got[j] {
            lines.push((' ', got[j]));
            (i, j) = (i + 1, j + 1);
        } else if j < got.len() && (i == wanted.len() || common[i][j + 1] > common[i + 1][j]) {
            lines.push(('+', got[j]));
            j += 1;
        } else {
            lines.push(('-', wanted[i]));
            i += 1;
        }
    }
    let near = |at: usize| {
        let from = at.saturating_sub(2);
        lines
            .iter()
            .skip(from)
            .take(at - from + 3)
            .any(|(mark, _)| *mark != ' ')
    };
    let mut shown = Vec::new();
    let mut left_out = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if near(at) {
            shown.push(format!("{mark} {line}"));
            left_out = false;
        } else if !left_out {
            shown.push("  ...".to_owned());
            left_out = true;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Action;

    #[test]
    fn a_difference_shows_what_is_missing_and_what_is_new() {
        let wanted = ["a", "b", "c", "d", "e", "f", "g"];
        let got = ["a", "b", "c", "d", "x", "f", "g", "h"];
        assert_eq!(
            difference(&wanted, &got),
            ["  ...", "  c", "  d", "- e", "+ x", "  f", "  g", "+ h"]
        );
    }

    #[test]
    fn every_scenario_is_complete_and_listed() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let list = std::fs::read_to_string(root.join("docs/development/scenarios.md")).unwrap();
        let folder = root.join("tests/scenarios");
        let scenarios = all(&folder, None).unwrap();
        assert!(!scenarios.is_empty());
        for scenario in &scenarios {
            let name = &scenario.name;
            assert!(list.contains(&format!("`{name}`")), "{name} is not listed");
            for file in ["README.md", "cluster", "commands", "log.expect"] {
                let text = std::fs::read_to_string(folder.join(name).join(file)).unwrap_or_default();
                assert!(!text.trim().is_empty(), "{name} has no {file}");
            }
            let steps = &scenario.schedule.steps;
            assert!(
                steps.iter().any(|step| matches!(step.action, Action::Expect(..))),
                "{name} expects nothing"
            );
        }
        // What the list names as a scenario exists: names in its second column that are no test's.
        for line in list.lines().filter(|line| line.starts_with("| ")) {
            let words = line.split('`').skip(1).step_by(2);
            for name in words.filter(|word| word.contains('-') && !word.contains([':', '/', ' ', '.'])) {
                assert!(
                    scenarios.iter().any(|scenario| scenario.name == name),
                    "{name} is listed and does not exist"
                );
            }
        }
    }
}
