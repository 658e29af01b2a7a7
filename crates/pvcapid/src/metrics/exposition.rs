//! The text format of Prometheus: families with a line of help and a line of type, then their samples.

use std::fmt::Write;

/// The type that is written here for whoever asks for it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// A count.
    Whole(u64),
    /// A figure that is written with two decimals, as PVC 1.0.3 does.
    Rounded(f64),
    /// Any other figure.
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Number {
        Number::Whole(number)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Number {
        Number::Whole(u64::from(number))
    }
}

impl From<u8> for Number {
    fn from(number: u8) -> Number {
        Number::Whole(u64::from(number))
    }
}

impl From<bool> for Number {
    fn from(so: bool) -> Number {
        Number::Whole(u64::from(so))
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Number {
        Number::Real(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Number {
        Number::Whole(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

/// A text that grows family by family.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// Begins a family of gauges. Samples carry the family's name unless `Samples::named` gives another.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, help, "gauge")
    }

    /// Begins a family of summaries: its samples are named `NAME_count` and `NAME_sum`, by `Samples::named`.
    pub(crate) fn summary(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, help, "summary")
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> Samples<'_> {
        // Writing into a text can not fail.
        let _ = writeln!(
            self.0,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            help.replace('\\', "\\\\").replace('\n', "\\n")
        );
        Samples {
            text: &mut self.0,
            name,
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// The samples of the family that was begun last.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// Samples are written under another name than the family, as PVC 1.0.3 does for some.
    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// A sample.
    pub(crate) fn put(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) -> &mut Self {
        self.text.push_str(self.name);
        if !labels.is_empty() {
            self.text.push('{');
            for (index, (label, text)) in labels.iter().enumerate() {
                if index > 0 {
                    self.text.push(',');
                }
                self.text.push_str(label);
                self.text.push_str("=\"");
                escape(text, self.text);
                self.text.push('"');
            }
            self.text.push('}');
        }
        let _ = match value.into() {
            Number::Whole(number) => writeln!(self.text, " {number}"),
            Number::Rounded(number) => writeln!(self.text, " {number:.2}"),
            Number::Real(number) => writeln!(self.text, " {number}"),
        };
        self
    }

    /// As [`Samples::put`], or nothing where nothing is known.
    pub(crate) fn put_known(&mut self, labels: &[(&str, &str)], value: Option<impl Into<Number>>) {
        if let Some(value) = value {
            self.put(labels, value);
        }
    }
}

fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Exposition::default();
        text.gauge("pvc_nodes", "How many\nnodes").put(&[], 3_u32);
        text.gauge("pvc_load", "Load")
            .named("pvc_load_average")
            .put(&[("node", "hv\"1\\\n"), ("kind", "")], Number::Rounded(1.005))
            .put_known(&[], None::<u64>);
        assert_eq!(
            text.finish(),
            "# HELP pvc_nodes How many\\nnodes\n# TYPE pvc_nodes gauge\npvc_nodes 3\n\
             # HELP pvc_load Load\n# TYPE pvc_load gauge\n\
             pvc_load_average{node=\"hv\\\"1\\\\\\n\",kind=\"\"} 1.00\n"
        );
    }
}
