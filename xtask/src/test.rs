//! `cargo xtask test`: everything that has to hold before a change is merged.
//!
//! The steps run in the order of their cost; the first that fails ends the run. The last line of the output is
//! `N passed, N failed`, counted over the tests of all steps (a step without tests that fails counts as one).

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use pvc_lab::Lab;

use pvc_lab::packages;

use crate::{apt, openapi, sim, workspace};

/// Package of the cluster tests; they need a lab and are no part of the ordinary tests.
const CLUSTER_TESTS: &str = "pvc-cluster-tests";
/// How long the lab is mistreated at random; `cargo xtask soak` does it for longer.
const SOAK_MINUTES: u32 = 2;
/// The configuration file that we ship, and a node that it names.
const SHIPPED_CONFIG: (&str, &str) = ("deploy/config/pvc.conf", "pvchv1");

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Without the tests on the lab
    #[arg(long, conflicts_with = "cluster_only")]
    no_cluster: bool,
    /// Only the tests on the lab
    #[arg(long)]
    cluster_only: bool,
    /// Of the tests on the lab, only those whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Leave the lab up, for a look at it or for another run
    #[arg(long)]
    keep_lab: bool,
}

/// Tests that ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// What came of a step.
enum Outcome {
    Passed,
    /// It does not apply here, for this reason.
    Skipped(&'static str),
    Failed(anyhow::Error),
}

struct Report {
    step: &'static str,
    took: Duration,
    count: Count,
    outcome: Outcome,
}

/// Runs steps until one fails.
#[derive(Default)]
struct Run {
    reports: Vec<Report>,
}

impl Run {
    fn may_go_on(&self) -> bool {
        !self
            .reports
            .iter()
            .any(|report| matches!(report.outcome, Outcome::Failed(_)))
    }

    fn step(&mut self, step: &'static str, work: impl FnOnce(&mut Count) -> Result<Option<&'static str>>) {
        if self.may_go_on() {
            self.always(step, work);
        }
    }

    fn always(&mut self, step: &'static str, work: impl FnOnce(&mut Count) -> Result<Option<&'static str>>) {
        eprintln!("==> {step}");
        let begun = Instant::now();
        let mut count = Count::default();
        let outcome = match work(&mut count) {
            Ok(None) => Outcome::Passed,
            Ok(Some(reason)) => {
                eprintln!("    skipped: {reason}");
                Outcome::Skipped(reason)
            }
            Err(error) => {
                eprintln!("error: {step}: {error:#}");
                count.failed = count.failed.max(1);
                Outcome::Failed(error)
            }
        };
        self.reports.push(Report {
            step,
            took: begun.elapsed(),
            count,
            outcome,
        });
    }

    #[expect(clippy::print_stdout, reason = "the summary is what is asked for")]
    fn summary(&self) -> ExitCode {
        println!(
            "\n{:<22} {:>8}  {:>7} {:>7}",
            "step", "seconds", "passed", "failed"
        );
        let (mut total, mut took) = (Count::default(), Duration::ZERO);
        for report in &self.reports {
            let note = match &report.outcome {
                Outcome::Passed => String::new(),
                Outcome::Skipped(reason) => format!("  skipped: {reason}"),
                Outcome::Failed(error) => format!("  FAILED: {error:#}"),
            };
            println!(
                "{:<22} {:>8.1}  {:>7} {:>7}{note}",
                report.step,
                report.took.as_secs_f32(),
                report.count.passed,
                report.count.failed
            );
            total.add(report.count);
            took += report.took;
        }
        println!("{:<22} {:>8.1}", "all", took.as_secs_f32());
        println!("{} passed, {} failed", total.passed, total.failed);
        if self.may_go_on() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut run = Run::default();
    run.step("Debian packages", |_| apt::ensure().map(|()| None));
    if !arguments.cluster_only {
        desk(&mut run);
    }
    if !arguments.no_cluster {
        cluster(&mut run, arguments);
    }
    run.summary()
}

/// What needs no lab.
fn desk(run: &mut Run) {
    run.step("fmt", |_| cargo(&["fmt", "--all", "--check"]));
    run.step("clippy", |_| {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ])
    });
    run.step("build", |_| cargo(&["build", "--workspace", "--quiet"]));
    run.step("unit and contract", |count| {
        let mut command = cargo_command();
        command.args(["test", "--workspace", "--no-fail-fast", "--quiet"]);
        counted(command, count)
    });
    run.step("scenarios", |count| {
        counted(sim::command(&["--scenarios"]), count)
    });
    run.step("simulator", |count| {
        let outcome = succeed(sim::command(&["--seeds", sim::CI_SEEDS]));
        // One test, however many schedules.
        *count = Count {
            passed: u32::from(outcome.is_ok()),
            failed: u32::from(outcome.is_err()),
        };
        outcome
    });
    run.step("OpenAPI document", |_| openapi::check().map(|()| None));
    run.step("shipped configuration", |_| shipped_config());
    run.step("licences and sources", |_| {
        if !packages::in_path("cargo-deny") && !cargo_has("deny") {
            return Ok(Some("cargo-deny is not installed"));
        }
        cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])
    });
}

/// Runs all cluster tests on one lab: on the one that is up, with what was just built, or on one that is taken down
/// afterwards, whatever came of the tests.
fn cluster(run: &mut Run, arguments: &Arguments) {
    if !run.may_go_on() {
        return;
    }
    let is_ours = Lab::attach().is_err();
    if is_ours {
        run.step("lab up", |_| lab(&["up", "--no-guest"]));
    } else {
        run.step("lab deploy", |_| lab(&["deploy"]));
    }
    run.step("cluster", |count| {
        let mut command = cargo_command();
        command.args(["run", "--quiet", "--package", CLUSTER_TESTS, "--", "test"]);
        if let Some(filter) = &arguments.filter {
            command.args(["--filter", filter]);
        }
        counted(command, count)
    });
    if arguments.filter.is_none() {
        run.step("soak", |_| {
            let minutes = SOAK_MINUTES.to_string();
            cargo(&[
                "run",
                "--quiet",
                "--package",
                CLUSTER_TESTS,
                "--",
                "soak",
                "--minutes",
                &minutes,
                "--seed",
                "1",
            ])
        });
    }
    if is_ours && !arguments.keep_lab {
        run.always("lab down", |_| lab(&["down"]));
    }
}

fn cargo_command() -> Command {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root());
    command
}

fn cargo(arguments: &[&str]) -> Result<Option<&'static str>> {
    let mut command = cargo_command();
    command.args(arguments);
    succeed(command)
}

fn cargo_has(subcommand: &str) -> bool {
    cargo_command()
        .args([subcommand, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn lab(arguments: &[&str]) -> Result<Option<&'static str>> {
    let own = workspace::own()?;
    let mut command = Command::new(own);
    command.arg("lab").args(arguments);
    succeed(command)
}

fn succeed(mut command: Command) -> Result<Option<&'static str>> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("`{}` failed: {status}", words.join(" "));
    }
    Ok(None)
}

/// Runs a program, shows its output as it comes, and counts the tests that it reports.
#[expect(clippy::print_stdout, reason = "the output of the tests is what is asked for")]
fn counted(mut command: Command, count: &mut Count) -> Result<Option<&'static str>> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what the tests print")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            if let Some(result) = test_result(&line) {
                count.add(result);
            }
        }
    }
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() || count.failed > 0 {
        bail!("{} tests failed ({status})", count.failed);
    }
    if count.passed == 0 {
        bail!("no test ran");
    }
    Ok(None)
}

/// The figures in a line `test result: ok. 12 passed; 0 failed; ...`.
fn test_result(line: &str) -> Option<Count> {
    let figures = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    let figure = |word: &str| {
        figures
            .split(';')
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Count {
        passed: figure("passed")?,
        failed: figure("failed")?,
    })
}

/// What we ship has to please the daemons, on a host of a name that it has.
fn shipped_config() -> Result<Option<&'static str>> {
    let (file, node) = SHIPPED_CONFIG;
    let file = workspace::root().join(file);
    for daemon in ["pvcnoded", "pvcapid"] {
        let program = workspace::program(daemon)?;
        let mut command = Command::new("unshare");
        command.args([
            "--uts",
            "sh",
            "-c",
            "hostname \"$1\" && exec \"$2\" --check-config --config \"$3\"",
        ]);
        command.args(["sh", node]).arg(&program).arg(&file);
        let output = command.output().context("cannot run unshare")?;
        if !output.status.success() {
            bail!(
                "{daemon} does not take {}:\n{}{}",
                file.display(),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_cargo_prints_them() {
        let count = |passed, failed| Some(Count { passed, failed });
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.50s",
                count(12, 0),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                count(1, 2),
            ),
            ("test a ... ok", None),
            ("", None),
        ] {
            assert_eq!(test_result(line), expected, "{line}");
        }
    }

    // A run that stops half way must never look like a success.
    #[test]
    fn a_failed_step_ends_the_run_and_counts() {
        let mut run = Run::default();
        run.step("one", |_| bail!("broken"));
        run.step("two", |_| Ok(None));
        run.always("three", |_| Ok(None));
        let steps: Vec<_> = run.reports.iter().map(|report| report.step).collect();
        assert_eq!(steps, ["one", "three"]);
        assert_eq!(run.reports[0].count.failed, 1);
        assert!(!run.may_go_on());
    }
}
