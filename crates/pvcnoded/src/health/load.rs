//! More work than CPUs.

use std::path::Path;

use serde_json::json;

use super::Finding;
use crate::stats;

/// What a load above the number of CPUs takes.
const DELTA: u32 = 50;

pub(super) fn check(proc: &Path) -> Finding {
    match stats::load(proc) {
        Ok(load) => judge(load, stats::static_data().cpus),
        Err(error) => Finding::not_checked(format!("the load can't be read ({error})")),
    }
}

fn judge(load: f64, cpus: u32) -> Finding {
    let delta = if load > f64::from(cpus) { DELTA } else { 0 };
    Finding::new(
        delta,
        format!("load {load:.2} on {cpus} CPUs"),
        json!({"load": load, "cpus": cpus}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_above_the_number_of_cpus_counts() {
        assert_eq!(judge(8.0, 8).delta, 0);
        let finding = judge(8.01, 8);
        assert_eq!(
            (finding.delta, finding.message.as_str()),
            (50, "load 8.01 on 8 CPUs")
        );
    }
}
