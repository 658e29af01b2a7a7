//! Takes one safeguard out at a time: a simulator that does not miss it proves nothing about it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pvc_core::protection::{Protection, remove};

use crate::random;
use crate::run::{Ending, Logging, run};
use crate::scenario::{Expected, Scenario, Verdict};

/// What missed a safeguard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// A scenario's name, or a seed.
    pub by: String,
    /// How many schedules it took.
    pub after: u64,
    /// What broke.
    pub breach: String,
}

/// What the hunt goes through.
#[derive(Debug)]
pub struct Hunt<'a> {
    /// First these.
    pub scenarios: &'a [Scenario],
    /// Then random schedules of these seeds.
    pub seeds: Range<u64>,
    /// Their clusters: nodes and guests, as usual where nothing is said.
    pub cluster: (Option<usize>, Option<usize>),
    /// A directory for each thread.
    pub runtimes: &'a [PathBuf],
}

impl Hunt<'_> {
    /// Looks for something that breaks without `protection`.
    ///
    /// # Errors
    /// When a scenario can't be played.
    pub fn without(&self, protection: Protection) -> anyhow::Result<Option<Caught>> {
        let own: &Path = self.runtimes.first().map_or(Path::new("/tmp"), PathBuf::as_path);
        remove(Some(protection));
        let by_scenario = self.by_scenario(own);
        remove(None);
        if let Some(caught) = by_scenario? {
            return Ok(Some(caught));
        }
        Ok(self.by_seed(protection))
    }

    fn by_scenario(&self, runtime: &Path) -> anyhow::Result<Option<Caught>> {
        for (after, scenario) in (1..).zip(self.scenarios) {
            match scenario.play(runtime, Expected::Ignore)? {
                Verdict::Broken { breach, .. } => {
                    return Ok(Some(Caught {
                        by: format!("scenario {}", scenario.name),
                        after,
                        breach,
                    }));
                }
                Verdict::Passed | Verdict::Differs { .. } => {}
            }
        }
        Ok(None)
    }

    fn by_seed(&self, protection: Protection) -> Option<Caught> {
        let next = AtomicU64::new(self.seeds.start);
        let over = AtomicBool::new(false);
        let caught = Mutex::new(None);
        std::thread::scope(|scope| {
            for runtime in self.runtimes {
                let (next, over, caught) = (&next, &over, &caught);
                scope.spawn(move || {
                    remove(Some(protection));
                    while !over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.seeds.end {
                            break;
                        }
                        let plan = random::cluster(seed, self.cluster.0, self.cluster.1);
                        let outcome = run(&random::schedule(&plan), runtime, Logging::Off, Ending::Converge);
                        if let Some(breach) = outcome.breach {
                            over.store(true, Ordering::Relaxed);
                            if let Ok(mut caught) = caught.lock() {
                                *caught = Some(Caught {
                                    by: format!("seed {seed}"),
                                    after: self.scenarios.len() as u64 + seed - self.seeds.start + 1,
                                    breach,
                                });
                            }
                        }
                    }
                });
            }
        });
        caught.into_inner().ok().flatten()
    }
}
