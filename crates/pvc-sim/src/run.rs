//! Runs schedules, and shrinks those that break an invariant.

use std::path::Path;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::schedule::{Action, Schedule, Step};
use crate::world::World;

/// Within which a cluster must come right once everything has healed.
pub const CONVERGES_WITHIN: Duration = Duration::from_secs(120);
/// When an administrator looks after guests that can't come right by themselves.
const HELP_AFTER: Duration = Duration::from_secs(45);

/// What came of a schedule.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What did not hold.
    pub breach: Option<String>,
    /// What the schedule reached.
    pub coverage: Coverage,
    /// What happened, if it was to be told.
    pub log: Vec<String>,
    /// How often a loop was polled.
    pub polls: u64,
}

/// Whether a run keeps a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    /// It does.
    On,
    /// It does, and nothing is left to chance: calls take the same time always, and loops are polled in order.
    Calm,
    /// It does not: five times as fast.
    Off,
}

/// How a schedule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it is.
    AsItIs,
    /// Everything heals, and the cluster must come right.
    Converge,
}

/// Runs a schedule. `runtime` is a directory for what agents keep under /run.
pub fn run(schedule: &Schedule, runtime: &Path, logging: Logging, ending: Ending) -> Outcome {
    let mut world = World::new(&schedule.plan, runtime, logging);
    for step in &schedule.steps {
        world.step(step);
        if world.hooks.first_breach().is_some() {
            break;
        }
    }
    if ending == Ending::Converge && world.hooks.first_breach().is_none() {
        converge(&mut world);
    }
    let coverage = world.hooks.lock().coverage.clone();
    Outcome {
        breach: world.hooks.first_breach(),
        coverage,
        log: world.hooks.log(),
        polls: world.polls(),
    }
}

fn converge(world: &mut World) {
    let step = |after, action, salt| Step { after, action, salt };
    world.step(&step(Duration::ZERO, Action::HealAll, u64::MAX));
    let mut waited = Duration::ZERO;
    let part = Duration::from_millis(500);
    let mut helped = Duration::ZERO;
    while let Err(missing) = world.converged() {
        if world.hooks.first_breach().is_some() {
            return;
        }
        if waited >= CONVERGES_WITHIN {
            world
                .hooks
                .breach(format!("not converged within {CONVERGES_WITHIN:?}: {missing}"));
            return;
        }
        if waited >= HELP_AFTER && waited - helped >= Duration::from_secs(10) {
            helped = waited;
            world.look_after_failures();
        }
        world.step(&step(
            part,
            Action::Nothing,
            u64::MAX - 1 - waited.as_millis() as u64,
        ));
        waited += part;
    }
    // What was still under way goes on; the invariants hold for that too.
    world.step(&step(Duration::from_secs(3), Action::Nothing, 7));
}

/// The kind of a breach: two schedules that break the same rule in different places are alike.
fn kind(breach: &str) -> String {
    let words: Vec<&str> = breach
        .split_whitespace()
        .filter(|word| !word.chars().any(|c| c.is_ascii_digit()))
        .take(4)
        .collect();
    words.join(" ")
}

/// Leaves out of a failing schedule what is not needed for the same kind of breach. `tries` bounds the work.
pub fn shrink(schedule: &Schedule, runtime: &Path, ending: Ending, tries: usize) -> Schedule {
    let mut best = schedule.clone();
    let Some(wanted) = run(&best, runtime, Logging::Off, ending)
        .breach
        .map(|breach| kind(&breach))
    else {
        return best;
    };
    let mut left = tries;
    let mut still_fails = |candidate: &Schedule| {
        if left == 0 {
            return false;
        }
        left -= 1;
        run(candidate, runtime, Logging::Off, ending)
            .breach
            .is_some_and(|breach| kind(&breach) == wanted)
    };
    // First actions, the time of their steps staying; then time.
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let end = (at + size).min(best.steps.len());
            if best.steps[at..end]
                .iter()
                .any(|step| step.action != Action::Nothing)
            {
                let mut candidate = best.clone();
                for step in &mut candidate.steps[at..end] {
                    step.action = Action::Nothing;
                }
                if still_fails(&candidate) {
                    best = candidate;
                }
            }
            at = end;
        }
        size /= 2;
    }
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let end = (at + size).min(best.steps.len());
            let mut candidate = best.clone();
            candidate.steps.drain(at..end);
            if still_fails(&candidate) {
                best = candidate;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    for index in 0..best.steps.len() {
        let mut candidate = best.clone();
        let after = candidate.steps[index].after;
        candidate.steps[index].after = Duration::from_millis(after.as_millis() as u64 / 100 * 100);
        if candidate.steps[index].after != after && still_fails(&candidate) {
            best = candidate;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn runtime(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("pvc-sim-test-{}-{name}", std::process::id()))
    }

    /// A failing seed that fails once only helps nobody.
    #[test]
    fn the_same_schedule_gives_the_same_run() {
        let directory = runtime("same");
        for seed in 0..3 {
            let schedule = random::schedule(&random::cluster(seed, None, None));
            let [one, two] = [(); 2].map(|()| run(&schedule, &directory, Logging::On, Ending::Converge));
            assert_eq!(one.log, two.log);
            assert_eq!(one.breach, None);
            let mut read = Schedule::default();
            read.read(&schedule.to_string()).unwrap();
            assert_eq!(read, schedule);
        }
        drop(std::fs::remove_dir_all(directory));
    }

    #[test]
    fn each_schedule_has_its_steps_and_faults() {
        for seed in 0..50 {
            let schedule = random::schedule(&random::cluster(seed, None, None));
            let faults = schedule
                .steps
                .iter()
                .filter(|step| step.action.is_fault())
                .count();
            assert!(
                schedule.steps.len() >= 200 && faults >= 3,
                "seed {seed}: {faults} faults"
            );
        }
    }

    /// What does not hold is found, and what does not matter for it is left out.
    #[test]
    fn a_breach_is_shrunk_to_what_it_needs() {
        let directory = runtime("shrink");
        let mut schedule = Schedule::default();
        schedule
            .read("guests 1\n5s -\n1s expire hv3\n1s lag hv2\n1s kill-guest hv1 g1\n4s slow hv1 20ms\n0s expect stopped g1 within 1s\n")
            .unwrap();
        let small = shrink(&schedule, &directory, Ending::AsItIs, 200);
        let actions: Vec<String> = small.steps.iter().map(|step| step.action.to_string()).collect();
        // The time stays in which the guest starts: before that it is stopped, as expected.
        assert_eq!(actions, ["-", "expect stopped g1 within 1s"]);
        drop(std::fs::remove_dir_all(directory));
    }
}
