//! Whether ZooKeeper itself is set up for the times that we promise.
//!
//! Its followers give a silent leader up after `tickTime` times `syncLimit`. Until then no lease can be renewed, so a
//! longer time makes a healthy primary drop its addresses each time a leader is lost.

use super::finding::Problem;

/// Where Debian's package has it.
pub(super) const PATH: &str = "/etc/zookeeper/conf/zoo.cfg";
/// tickTime 500, syncLimit 4.
const LONGEST_MS: u64 = 2000;
/// ZooKeeper's own default for tickTime. syncLimit has none: a file without it is for a single server.
const DEFAULT_TICK_TIME_MS: u64 = 3000;

/// What is wrong with the times in the text of a zoo.cfg.
pub(super) fn check(text: &str) -> Option<Problem> {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .filter(|(name, _)| name.trim() == key)
            .find_map(|(_, value)| value.trim().parse::<u64>().ok())
    };
    let tick_time_ms = value("tickTime").unwrap_or(DEFAULT_TICK_TIME_MS);
    let sync_limit = value("syncLimit")?;
    let limit_ms = tick_time_ms.saturating_mul(sync_limit);
    (limit_ms > LONGEST_MS).then_some(Problem::SlowZooKeeper {
        tick_time_ms,
        sync_limit,
        limit_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_times_are_too_slow_and_ours_are_not() {
        let debian = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/var/lib/zookeeper\n";
        let expected = Problem::SlowZooKeeper {
            tick_time_ms: 2000,
            sync_limit: 5,
            limit_ms: 10_000,
        };
        assert_eq!(check(debian), Some(expected));
        assert_eq!(check("tickTime = 500\nsyncLimit=4\n"), None);
        assert!(check("tickTime=500\nsyncLimit=5\n").is_some());
        assert!(
            check("#tickTime=500\nsyncLimit=4\n").is_some(),
            "a comment sets nothing"
        );
        assert_eq!(check("tickTime=2000\n"), None, "a single server has no followers");
        assert_eq!(check(""), None);
    }
}
