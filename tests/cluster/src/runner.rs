//! Runs the cases one after the other on one lab, and tells what came of them.

use std::io::Write as _;

use anyhow::Result;
use pvc_lab::Power;

use crate::agent;
use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::observer::timeline;

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its name; it begins with the letter of the requirement.
    pub(crate) name: &'static str,
    /// What it does. It may leave the cluster in any state.
    pub(crate) run: fn(&mut Cluster) -> Result<()>,
}

/// Lines of each agent's log that a failure shows.
const LOG_LINES: u32 = 40;

/// Runs the cases whose name contains `filter`; answers whether all passed.
///
/// # Errors
/// If there is no lab, or if standard output is closed.
pub(crate) fn run(cases: &[Case], filter: &str) -> Result<bool> {
    let mut out = std::io::stdout();
    let chosen: Vec<&Case> = cases.iter().filter(|case| case.name.contains(filter)).collect();
    let mut cluster = Cluster::attach()?;
    cluster.restore()?;
    cluster.wait_healthy()?;
    let (mut passed, mut failed) = (0, 0);
    for (index, case) in chosen.iter().enumerate() {
        writeln!(out, "case {} ...", case.name)?;
        let begun = Moment::now();
        let result = (case.run)(&mut cluster)
            .and_then(|()| cluster.addresses.must_never_overlap())
            .and_then(|()| cluster.observer.must_be_clean(Some(begun)));
        match &result {
            Ok(()) => passed += 1,
            Err(error) => {
                failed += 1;
                writeln!(out, "{error:#}\n{}", evidence(&cluster, begun))?;
            }
        }
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        writeln!(
            out,
            "case {} ... {word} ({:.1} s)",
            case.name,
            begun.elapsed().as_secs_f64()
        )?;
        if let Err(error) = cluster.restore().and_then(|()| cluster.wait_healthy()) {
            let left = chosen.len() - index - 1;
            writeln!(
                out,
                "after {} the cluster does not become healthy again; {left} cases are not run: {error:#}\n{}",
                case.name,
                evidence(&cluster, begun)
            )?;
            failed += left.max(usize::from(result.is_ok()));
            break;
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    writeln!(
        out,
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored"
    )?;
    Ok(failed == 0 && passed > 0)
}

/// What helps to understand a failure.
fn evidence(cluster: &Cluster, begun: Moment) -> String {
    let mut text = format!(
        "{}\n{}since the case began:\n{}",
        cluster.describe(),
        cluster.addresses.tell(begun),
        timeline::tell(&cluster.observer, begun)
    );
    for node in cluster.lab.nodes() {
        if node.power() == Power::Off || node.is_frozen() {
            text.push_str(&format!("--- {} is off or frozen\n", node.id()));
            continue;
        }
        let log = agent::log(node, LOG_LINES).unwrap_or_else(|error| format!("{error:#}"));
        text.push_str(&format!("--- the agent of {}:\n{log}", node.id()));
    }
    text
}
