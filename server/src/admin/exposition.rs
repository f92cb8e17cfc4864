//! Prometheus' text format, version 0.0.4: the help and type of each metric, then its samples.

use std::fmt::Write as _;

use crate::status::HistogramLine;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, until the process starts anew.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How often something took how long, in buckets.
    Histogram,
}

impl Kind {
    /// As in the text format.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric: everything but its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The labels that each of its samples has.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// The text, as far as it is written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric. Its samples follow.
    pub fn family(&mut self, metric: &Metric) -> Family<'_> {
        let (name, kind) = (metric.name, metric.kind.word());
        // Neither backslash nor line break stands in a help text: a test looks.
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help);
        Family { name: metric.name, labels: metric.labels, text: &mut self.text }
    }

    /// A metric without labels and its one value.
    pub fn value(&mut self, metric: &Metric, value: impl Into<Value>) {
        self.family(metric).sample(&[], value);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A number of a sample.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A whole one.
    Count(u64),
    /// Any other.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Count(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Count(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Count(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Real(value)
    }
}

impl From<std::time::Duration> for Value {
    fn from(value: std::time::Duration) -> Value {
        Value::Real(value.as_secs_f64())
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'static str,
    labels: &'static [&'static str],
    text: &'a mut String,
}

impl Family<'_> {
    /// One sample, with a value for each of the metric's labels.
    pub fn sample(&mut self, labels: &[&str], value: impl Into<Value>) {
        self.line("", labels, None, value.into());
    }

    /// A whole histogram of times, in seconds.
    pub fn histogram(&mut self, labels: &[&str], times: &HistogramLine) {
        let mut below = 0;
        for (index, count) in times.counts.iter().enumerate() {
            below += count;
            let bound =
                times.bounds_us.get(index).map_or("+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
            self.line("_bucket", labels, Some(&bound), Value::Count(below));
        }
        self.line("_sum", labels, None, Value::Real(times.sum_us as f64 / 1e6));
        self.line("_count", labels, None, Value::Count(below));
    }

    fn line(&mut self, suffix: &str, values: &[&str], bound: Option<&str>, value: Value) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut open = '{';
        for (label, value) in
            self.labels.iter().copied().zip(values.iter().copied()).chain(bound.map(|b| ("le", b)))
        {
            let _ = write!(self.text, "{open}{label}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' | '"' => self.text.extend(['\\', letter]),
                    '\n' => self.text.push_str("\\n"),
                    _ => self.text.push(letter),
                }
            }
            self.text.push('"');
            open = ',';
        }
        if open == ',' {
            self.text.push('}');
        }
        let _ = match value {
            Value::Count(value) => writeln!(self.text, " {value}"),
            Value::Real(value) => writeln!(self.text, " {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_read_as_the_format_has_them() {
        const PLAIN: Metric = Metric { name: "a_bytes", kind: Kind::Gauge, labels: &[], help: "How much." };
        const TOOK: Metric =
            Metric { name: "b_seconds", kind: Kind::Histogram, labels: &["kind"], help: "How long." };
        let mut out = Exposition::default();
        out.value(&PLAIN, 0.25);
        let times =
            HistogramLine { bounds_us: vec![500, 1_000_000], counts: vec![1, 2, 3], sum_us: 9_500_000 };
        out.family(&TOOK).histogram(&["a \"b\"\\\n"], &times);
        assert_eq!(
            out.into_text(),
            r#"# HELP a_bytes How much.
# TYPE a_bytes gauge
a_bytes 0.25
# HELP b_seconds How long.
# TYPE b_seconds histogram
b_seconds_bucket{kind="a \"b\"\\\n",le="0.0005"} 1
b_seconds_bucket{kind="a \"b\"\\\n",le="1"} 3
b_seconds_bucket{kind="a \"b\"\\\n",le="+Inf"} 6
b_seconds_sum{kind="a \"b\"\\\n"} 9.5
b_seconds_count{kind="a \"b\"\\\n"} 6
"#
        );
    }
}
