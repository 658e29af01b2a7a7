//! The simulator's command line; `cargo xtask sim` builds and runs it.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool: what it finds is what it prints, and it measures how long it takes"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use pvc_sim::coverage::{COLUMNS, Coverage};
use pvc_sim::random;
use pvc_sim::run::{Ending, Logging, run, shrink};
use pvc_sim::scenario::{self, Expected, Verdict};
use pvc_sim::schedule::Schedule;

/// How many runs shrinking a schedule may take.
const SHRINKING: usize = 1500;

#[derive(Debug, Parser)]
#[command(name = "pvc-sim", about = "A simulated cluster that hunts for double runs")]
struct Arguments {
    /// Random schedules of these seeds: FROM..TO (TO not included), or one seed
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<(u64, u64)>,
    /// Nodes of each cluster; 3 to 5 without it
    #[arg(long)]
    nodes: Option<usize>,
    /// Guests of each cluster; 3 without it
    #[arg(long)]
    guests: Option<usize>,
    /// Play the schedule in this file and print its log
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
    /// Play the scenarios in tests/scenarios whose names contain TEXT; all without it
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "")]
    scenarios: Option<String>,
    /// Where the scenarios are
    #[arg(long, default_value = "tests/scenarios", value_name = "FOLDER")]
    folder: PathBuf,
    /// Write the expected logs of the scenarios anew
    #[arg(long)]
    bless: bool,
    /// Print the log of each failing schedule
    #[arg(long)]
    log: bool,
    /// Take one safeguard out at a time (all, or those whose names contain TEXT): each must be missed
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "")]
    mutations: Option<String>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// End at so many failures
    #[arg(long, default_value_t = 3)]
    failures: usize,
    /// Don't shrink what fails
    #[arg(long)]
    no_shrink: bool,
}

fn parse_seeds(text: &str) -> Result<(u64, u64), String> {
    let parse = |part: &str| part.parse::<u64>().map_err(|error| format!("{part:?}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok((parse(from)?, parse(to)?)),
        None => parse(text).map(|seed| (seed, seed + 1)),
    }
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What agents keep under /run, in memory if the machine has a place for that.
fn runtime(worker: usize) -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let base = if shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    };
    base.join(format!("pvc-sim-{}-{worker}", std::process::id()))
}

struct Runtime(PathBuf);

impl Drop for Runtime {
    fn drop(&mut self) {
        // Left behind, it does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn work(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(file) = &arguments.play {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let mut schedule = Schedule::default();
        schedule.read(&text)?;
        let directory = Runtime(runtime(0));
        let outcome = run(&schedule, &directory.0, Logging::On, Ending::Converge);
        outcome.log.iter().for_each(|line| println!("{line}"));
        return Ok(match outcome.breach {
            Some(_) => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        });
    }
    if let Some(filter) = &arguments.scenarios {
        return scenarios(arguments, filter);
    }
    if let Some(filter) = &arguments.mutations {
        return mutations(arguments, filter);
    }
    let Some((from, to)) = arguments.seeds else {
        bail!("nothing to do: see --help");
    };
    Ok(random_schedules(arguments, from, to))
}

#[cfg(not(feature = "mutations"))]
fn mutations(_: &Arguments, _: &str) -> anyhow::Result<ExitCode> {
    bail!("this program was built without the feature `mutations`: use `cargo xtask sim --mutations`")
}

#[cfg(feature = "mutations")]
fn mutations(arguments: &Arguments, filter: &str) -> anyhow::Result<ExitCode> {
    use pvc_core::protection::Protection;
    use pvc_sim::mutations::Hunt;

    let directories: Vec<Runtime> = (0..arguments.jobs)
        .map(|worker| Runtime(runtime(worker)))
        .collect();
    let runtimes: Vec<PathBuf> = directories.iter().map(|directory| directory.0.clone()).collect();
    let scenarios = scenario::all(&arguments.folder, None)?;
    let (from, to) = arguments.seeds.unwrap_or((0, 20_000));
    let hunt = Hunt {
        scenarios: &scenarios,
        seeds: from..to,
        cluster: (arguments.nodes, arguments.guests),
        runtimes: &runtimes,
    };
    let (mut passed, mut failed) = (0, 0);
    println!(
        "{:<36} {:<36} {:>9}  what broke",
        "without", "missed by", "schedules"
    );
    for protection in Protection::ALL.iter().filter(|one| one.name().contains(filter)) {
        match hunt.without(*protection)? {
            Some(caught) => {
                passed += 1;
                println!(
                    "{:<36} {:<36} {:>9}  {}",
                    protection.name(),
                    caught.by,
                    caught.after,
                    caught.breach
                );
            }
            None => {
                failed += 1;
                println!("{:<36} NOT MISSED by anything", protection.name());
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn scenarios(arguments: &Arguments, filter: &str) -> anyhow::Result<ExitCode> {
    let directory = Runtime(runtime(0));
    let expected = match arguments.bless {
        true => Expected::Bless,
        false => Expected::Compare,
    };
    let (mut passed, mut failed) = (0, 0);
    for scenario in scenario::all(&arguments.folder, Some(filter))? {
        match scenario.play(&directory.0, expected)? {
            Verdict::Passed => {
                passed += 1;
                println!("scenario {} ... ok", scenario.name);
            }
            Verdict::Broken { breach, log } => {
                failed += 1;
                println!("scenario {} ... FAILED: {breach}", scenario.name);
                log.iter().for_each(|line| println!("    {line}"));
            }
            Verdict::Differs { difference } => {
                failed += 1;
                println!(
                    "scenario {} ... FAILED: its log is not what is expected (- expected, + found; --bless takes it over)",
                    scenario.name
                );
                difference.iter().for_each(|line| println!("    {line}"));
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

#[derive(Default)]
struct Results {
    coverage: Coverage,
    polls: u64,
    runs: u64,
    failures: Vec<(u64, String)>,
}

fn random_schedules(arguments: &Arguments, from: u64, to: u64) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let results = Mutex::new(Results::default());
    std::thread::scope(|scope| {
        for worker in 0..arguments.jobs {
            let (next, results) = (&next, &results);
            scope.spawn(move || {
                let directory = Runtime(runtime(worker));
                let mut own = Results::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to || own.failures.len() >= arguments.failures {
                        break;
                    }
                    let plan = random::cluster(seed, arguments.nodes, arguments.guests);
                    let outcome = run(
                        &random::schedule(&plan),
                        &directory.0,
                        Logging::Off,
                        Ending::Converge,
                    );
                    own.coverage.add(&outcome.coverage);
                    own.polls += outcome.polls;
                    own.runs += 1;
                    if let Some(breach) = outcome.breach {
                        own.failures.push((seed, breach));
                    }
                }
                let mut all = results.lock().unwrap_or_else(PoisonError::into_inner);
                all.coverage.add(&own.coverage);
                all.polls += own.polls;
                all.runs += own.runs;
                all.failures.extend(own.failures);
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.failures.sort();
    let took = begun.elapsed();
    println!(
        "{} schedules in {:.1} s ({:.2} ms and {} polls each)",
        results.runs,
        took.as_secs_f64(),
        took.as_secs_f64() * 1000.0 * arguments.jobs as f64 / results.runs.max(1) as f64,
        results.polls / results.runs.max(1)
    );
    let missing = table(&results.coverage, results.runs);
    for (seed, breach) in results.failures.iter().take(arguments.failures) {
        println!("\nseed {seed}: {breach}");
        let plan = random::cluster(*seed, arguments.nodes, arguments.guests);
        let directory = Runtime(runtime(0));
        let mut schedule = random::schedule(&plan);
        if !arguments.no_shrink {
            schedule = shrink(&schedule, &directory.0, Ending::Converge, SHRINKING);
            println!("shrunk to (play it with --play FILE):\n{schedule}");
        }
        if arguments.log {
            let outcome = run(&schedule, &directory.0, Logging::On, Ending::Converge);
            outcome.log.iter().for_each(|line| println!("{line}"));
        }
    }
    // In the words of cargo's test harness, so that whoever counts tests can count schedules.
    let failed = results.failures.len() as u64;
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        if failed == 0 { "ok" } else { "FAILED" },
        results.runs - failed
    );
    // A table of a few schedules says nothing.
    let complete = missing.is_empty() || results.runs < 1000;
    if !complete {
        println!("never reached: {}", missing.join(", "));
    }
    if results.failures.is_empty() && complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints the table; answers with the columns that were never reached.
fn table(coverage: &Coverage, runs: u64) -> Vec<&'static str> {
    println!("{:<28} {:>10} {:>12}", "reached", "in all", "per 1,000");
    let per = |count: u64| count as f64 * 1000.0 / runs.max(1) as f64;
    for column in COLUMNS {
        println!(
            "{column:<28} {:>10} {:>12.1}",
            coverage.of(column),
            per(coverage.of(column))
        );
    }
    for (what, count) in coverage.iter().filter(|(what, _)| !COLUMNS.contains(what)) {
        println!("({what:<26}) {count:>9} {:>12.1}", per(count));
    }
    COLUMNS
        .iter()
        .copied()
        .filter(|column| coverage.of(column) == 0)
        .collect()
}
