//! Figures, each with its target beside it.

mod failover;
mod takeover;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub(crate) use failover::{Counts as FailoverCounts, run as failover};
pub(crate) use takeover::{Counts, run as takeover};

/// A figure over some runs.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// Its name, `bench.what`.
    pub(crate) name: &'static str,
    /// The unit of its values.
    pub(crate) unit: &'static str,
    /// One for each run.
    pub(crate) values: Vec<f64>,
    /// What the greatest of them should not be above.
    pub(crate) target: f64,
    /// What was measured under which load.
    pub(crate) load: String,
}

/// Least, middle and greatest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Figure {
    fn spread(&self) -> Result<Spread> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            bail!("{} has no values", self.name)
        };
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Ok(Spread { min, median, max })
    }

    fn line(&self) -> Result<Value> {
        let spread = self.spread()?;
        Ok(json!({
            "figure": self.name,
            "unit": self.unit,
            "n": self.values.len(),
            "min": rounded(spread.min),
            "median": rounded(spread.median),
            "max": rounded(spread.max),
            "target": self.target,
            "target_on": "max",
            "load": self.load,
        }))
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Writes the figures, a JSON object a line, and shows them as a table.
pub(crate) fn report(figures: &[Figure], file: Option<&Path>) -> Result<()> {
    if let Some(path) = file {
        let mut out = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        for figure in figures {
            writeln!(out, "{}", figure.line()?)?;
        }
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:<32} {:>4} {:>9} {:>9} {:>9}  target",
        "figure", "n", "min", "median", "max"
    )?;
    for figure in figures {
        let spread = figure.spread()?;
        writeln!(
            out,
            "{:<32} {:>4} {:>9.3} {:>9.3} {:>9.3}  {} {} {}",
            figure.name,
            figure.values.len(),
            spread.min,
            spread.median,
            spread.max,
            if spread.max <= figure.target {
                "<="
            } else {
                "NOT <="
            },
            figure.target,
            figure.unit,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64]) -> Figure {
        Figure {
            name: "takeover.address_gap",
            unit: "s",
            values: values.to_vec(),
            target: 0.3,
            load: "idle".to_owned(),
        }
    }

    #[test]
    fn a_line_has_the_spread_and_the_target() {
        let line = figure(&[0.3, 0.1, 0.2, 0.2004]).line().unwrap();
        let expected = json!({
            "figure": "takeover.address_gap", "unit": "s", "n": 4, "min": 0.1, "median": 0.2, "max": 0.3,
            "target": 0.3, "target_on": "max", "load": "idle",
        });
        assert_eq!(line, expected);
        assert_eq!(figure(&[3.0, 1.0, 2.0]).spread().unwrap().median, 2.0);
        assert!(figure(&[]).line().is_err());
    }
}
