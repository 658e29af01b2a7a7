//! Figures, each with its target beside it: a JSON object a line, and a table.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::fill::Size;

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    /// Sorted.
    values: Vec<f64>,
    load: String,
    target: Option<Target>,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    AtMost(f64),
    P99AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    /// A figure that was taken once.
    pub(crate) fn one(name: &str, unit: &'static str, value: f64) -> Figure {
        Figure::many(name, unit, &[value])
    }

    /// A figure that was taken several times.
    pub(crate) fn many(name: &str, unit: &'static str, values: &[f64]) -> Figure {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Figure {
            name: format!("api.{name}"),
            unit,
            values,
            load: String::new(),
            target: None,
        }
    }

    /// On a cluster of that size.
    pub(crate) fn of(self, size: Size) -> Figure {
        self.under(&size.to_string())
    }

    /// Under that load.
    pub(crate) fn under(mut self, load: &str) -> Figure {
        if !self.load.is_empty() {
            self.load.push_str(", ");
        }
        self.load.push_str(load);
        self
    }

    pub(crate) fn at_most(mut self, target: Option<f64>) -> Figure {
        self.target = target.map(Target::AtMost);
        self
    }

    pub(crate) fn p99_at_most(mut self, target: Option<f64>) -> Figure {
        self.target = target.map(Target::P99AtMost);
        self
    }

    pub(crate) fn at_least(mut self, target: Option<f64>) -> Figure {
        self.target = target.map(Target::AtLeast);
        self
    }

    /// The value that so many hundredths of all are not above.
    fn hundredth(&self, hundredths: usize) -> Result<f64> {
        let place = (self.values.len() * hundredths).div_ceil(100).max(1) - 1;
        match self.values.get(place) {
            Some(value) => Ok(*value),
            None => bail!("{} has no values", self.name),
        }
    }

    fn line(&self) -> Result<Value> {
        let (target, on) = match self.target {
            None => (None, None),
            Some(Target::AtMost(target)) => (Some(target), Some("max")),
            Some(Target::P99AtMost(target)) => (Some(target), Some("p99")),
            Some(Target::AtLeast(target)) => (Some(target), Some("min")),
        };
        Ok(json!({
            "figure": self.name,
            "unit": self.unit,
            "n": self.values.len(),
            "min": rounded(self.hundredth(0)?),
            "median": rounded(self.hundredth(50)?),
            "p99": rounded(self.hundredth(99)?),
            "max": rounded(self.hundredth(100)?),
            "target": target,
            "target_on": on,
            "load": self.load,
        }))
    }

    fn row(&self) -> Result<String> {
        let verdict = match self.target {
            None => String::new(),
            Some(Target::AtMost(target)) => verdict(self.hundredth(100)? <= target, "<=", target),
            Some(Target::P99AtMost(target)) => verdict(self.hundredth(99)? <= target, "p99 <=", target),
            Some(Target::AtLeast(target)) => verdict(self.hundredth(0)? >= target, ">=", target),
        };
        Ok(format!(
            "{:<28} {:>7} {:>10.3} {:>10.3} {:>10.3} {:<4} {:<18} {}",
            self.name,
            self.values.len(),
            self.hundredth(50)?,
            self.hundredth(99)?,
            self.hundredth(100)?,
            self.unit,
            verdict,
            self.load
        ))
    }
}

fn verdict(met: bool, relation: &str, target: f64) -> String {
    format!("{}{relation} {target}", if met { "" } else { "NOT " })
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Where figures go as they come.
#[derive(Debug)]
pub(crate) struct Report {
    file: Option<File>,
}

impl Report {
    pub(crate) fn new(path: Option<&Path>) -> Result<Report> {
        let file = path
            .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())))
            .transpose()?;
        println!(
            "{:<28} {:>7} {:>10} {:>10} {:>10} unit target             load",
            "figure", "n", "median", "p99", "max"
        );
        Ok(Report { file })
    }

    pub(crate) fn add(&mut self, figure: Figure) -> Result<()> {
        println!("{}", figure.row()?);
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", figure.line()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_spread_and_the_target() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let figure = Figure::many("list.latency", "ms", &values).p99_at_most(Some(100.0));
        let line = figure.line().unwrap();
        assert_eq!(
            line,
            json!({"figure": "api.list.latency", "unit": "ms", "n": 200, "min": 1.0, "median": 100.0, "p99": 198.0,
                "max": 200.0, "target": 100.0, "target_on": "p99", "load": ""})
        );
        assert!(figure.row().unwrap().contains("NOT p99 <= 100"));
        let rate = Figure::one("list.rate", "1/s", 250.0).at_least(Some(200.0));
        assert!(rate.row().unwrap().contains(" >= 200") && !rate.row().unwrap().contains("NOT"));
        assert!(Figure::many("x", "ms", &[]).line().is_err());
    }
}
