//! Which plots the loads of a report call for: over connections, sizes and pipelines as far as those were swept, and over
//! time for each load.

use super::plot::{Axis, Line, Plot};
use crate::args::Size;
use crate::report::{Row, time};
use crate::series::Told;
use crate::sweep::Differs;

/// One load and whose answer to it is told.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The server, where there are several.
    pub server: Option<&'a str>,
    /// What came of the load.
    pub row: &'a Row,
    /// What has to be said about loads.
    pub differs: Differs,
}

impl Subject<'_> {
    /// What a person calls it.
    pub fn name(&self) -> String {
        let load = self.row.case.told(self.differs);
        self.server.map_or(load.clone(), |server| format!("{server}, {load}"))
    }
}

/// All plots.
pub fn draw(subjects: &[Subject<'_>]) -> String {
    let mut svg = String::new();
    for swept in [Swept::Connections, Swept::ValueSize, Swept::Pipeline] {
        for plot in swept.plots(subjects) {
            svg.push_str(&plot.svg());
        }
    }
    for subject in subjects {
        for plot in over_time(subject) {
            svg.push_str(&plot.svg());
        }
    }
    svg
}

/// What loads can differ in along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swept {
    Connections,
    ValueSize,
    Pipeline,
}

/// Loads that differ in nothing but what was swept, in its order.
type Group<'a> = Vec<(f64, &'a Row)>;

impl Swept {
    fn of(self, row: &Row) -> f64 {
        match self {
            Swept::Connections => f64::from(row.connections),
            Swept::ValueSize => row.value_size as f64,
            Swept::Pipeline => f64::from(row.pipeline),
        }
    }

    fn axis(self) -> Axis {
        let (name, told): (_, fn(f64) -> String) = match self {
            Swept::Connections => ("connections", whole),
            Swept::ValueSize => ("value size", |bytes| Size(bytes as usize).to_string()),
            Swept::Pipeline => ("pipeline", whole),
        };
        Axis { name, log: true, told, span: None }
    }

    /// What a line is called: all that is not swept here and differs.
    fn name(self, subject: &Subject<'_>) -> String {
        let Row { workload, connections, pipeline, value_size, .. } = subject.row;
        let mut parts: Vec<String> = subject.server.map(str::to_owned).into_iter().collect();
        parts.push(workload.clone());
        if self != Swept::Connections {
            parts.push(format!("{connections} connections"));
        }
        if self != Swept::Pipeline && subject.differs.pipeline {
            parts.push(format!("pipeline {pipeline}"));
        }
        if self != Swept::ValueSize && subject.differs.value_size {
            parts.push(Size(*value_size).to_string());
        }
        parts.join(", ")
    }

    fn groups<'a>(self, subjects: &[Subject<'a>]) -> Vec<(String, Group<'a>)> {
        let mut groups: Vec<(String, Group<'a>)> = Vec::new();
        for subject in subjects {
            let (name, point) = (self.name(subject), (self.of(subject.row), subject.row));
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, group)) => group.push(point),
                None => groups.push((name, vec![point])),
            }
        }
        for (_, group) in &mut groups {
            group.sort_by(|a, b| a.0.total_cmp(&b.0));
            group.dedup_by(|a, b| a.0 == b.0);
        }
        // A single point is no line; the table has it.
        groups.retain(|(_, group)| group.len() > 1);
        groups
    }

    fn plots(self, subjects: &[Subject<'_>]) -> Vec<Plot> {
        let groups = self.groups(subjects);
        if groups.is_empty() {
            return Vec::new();
        }
        let line = |colour: usize, name: String, dashed: bool, group: &Group<'_>, of: fn(&Row) -> f64| Line {
            name,
            colour,
            dashed,
            points: group.iter().map(|(x, row)| (*x, Some(of(row)))).collect(),
        };
        let (mut throughput, mut latency) = (Vec::new(), Vec::new());
        for (colour, (name, group)) in groups.iter().enumerate() {
            throughput.push(line(colour, name.clone(), false, group, |row| row.all.ops_per_sec));
            let (p50, p99) = (format!("{name}, p50"), format!("{name}, p99"));
            latency.push(line(colour, p50, false, group, |row| row.all.latency_us.p50));
            latency.push(line(colour, p99, true, group, |row| row.all.latency_us.p99));
        }
        let name = self.axis().name;
        let log = is_wide(&throughput);
        let y = Axis { name: "ops/s", log, told: short, span: None };
        let (title, x) = (format!("ops/s over {name}"), self.axis());
        let first = Plot { title, x, y, lines: throughput, events: Vec::new(), dots: true };
        let (title, x) = (format!("latency over {name}"), self.axis());
        let second = Plot { title, x, y: latency_axis(), lines: latency, events: Vec::new(), dots: true };
        vec![first, second]
    }
}

/// Points of a line over time at most; a plot has no more dots than that across.
const MOST_POINTS: usize = 600;

fn over_time(subject: &Subject<'_>) -> Vec<Plot> {
    let Told { step_seconds, successes, failures, latency_step_seconds, p50_us, p99_us } =
        &subject.row.series;
    let seconds = subject.row.seconds;
    let mut throughput = vec![Line {
        name: "successes/s".to_owned(),
        colour: 0,
        dashed: false,
        points: rate(successes, *step_seconds, seconds),
    }];
    if failures.iter().any(|count| *count > 0) {
        throughput.push(Line {
            name: "errors/s".to_owned(),
            colour: 1,
            dashed: false,
            points: rate(failures, *step_seconds, seconds),
        });
    }
    let latency = |name: &str, dashed: bool, values: &[Option<f64>]| Line {
        name: name.to_owned(),
        colour: 2,
        dashed,
        points: (0..).zip(values).map(|(step, us)| (f64::from(step) * latency_step_seconds, *us)).collect(),
    };
    let x = || Axis { name: "seconds", log: false, told: seconds_told, span: Some((0.0, seconds)) };
    let events: Vec<(f64, String)> =
        subject.row.events.iter().map(|event| (event.at_seconds, event.what.clone())).collect();
    let name = subject.name();
    vec![
        Plot {
            title: format!("{name}: per second"),
            x: x(),
            y: Axis { name: "ops/s", log: false, told: short, span: None },
            lines: throughput,
            events: events.clone(),
            dots: false,
        },
        Plot {
            title: format!("{name}: latency"),
            x: x(),
            y: latency_axis(),
            lines: vec![latency("p50", false, p50_us), latency("p99", true, p99_us)],
            events: events.clone(),
            dots: false,
        },
    ]
}

/// Counts per step as a rate, several steps together where there are many. What is left of a step at the end counts for
/// as long as it was; if that is less than half of one it says nothing.
fn rate(counts: &[u64], step: f64, seconds: f64) -> Vec<(f64, Option<f64>)> {
    let together = counts.len().div_ceil(MOST_POINTS).max(1);
    let width = step * together as f64;
    let mut points = Vec::new();
    for (number, chunk) in (0..).zip(counts.chunks(together)) {
        let begin = f64::from(number) * width;
        let covered = (seconds - begin).min(width);
        if covered >= width / 2.0 || points.is_empty() {
            points.push((begin, Some(chunk.iter().sum::<u64>() as f64 / covered.max(1e-3))));
        }
    }
    points
}

/// Whether the lines lie so far apart that only a logarithmic axis shows them all.
fn is_wide(lines: &[Line]) -> bool {
    let values = || lines.iter().flat_map(|line| line.points.iter().filter_map(|point| point.1));
    let least = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    values().fold(0.0, f64::max) > 20.0 * least
}

fn latency_axis() -> Axis {
    Axis { name: "latency", log: true, told: time, span: None }
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn seconds_told(seconds: f64) -> String {
    let text = format!("{seconds:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// With k and M.
fn short(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e3 => (n / 1e3, " k"),
        n => (n, ""),
    };
    let digits = if scaled >= 100.0 || scaled.fract() == 0.0 { 0 } else { 1 };
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_the_last_step_for_as_long_as_it_was() {
        let told = rate(&[10, 20, 6], 0.1, 0.26);
        let near = |at: usize, expected: f64| told[at].1.is_some_and(|rate| (rate - expected).abs() < 1e-6);
        assert!(near(0, 100.0) && near(1, 200.0) && near(2, 100.0), "{told:?}");
        assert_eq!(rate(&[10, 20, 6], 0.1, 0.22).len(), 2);
        assert_eq!(rate(&[3], 0.1, 0.01).len(), 1);
    }

    #[test]
    fn many_steps_are_drawn_together() {
        let told = rate(&[5; 6_000], 0.1, 600.0);
        assert_eq!(told.len(), 600);
        assert!(told.iter().all(|point| point.1.is_some_and(|rate| (rate - 50.0).abs() < 1e-6)));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(950.0), "950");
        assert_eq!(short(1_500.0), "1.5 k");
        assert_eq!(short(25_000.0), "25 k");
        assert_eq!(short(2_340_000.0), "2.3 M");
        assert_eq!(seconds_told(2.0), "2");
        assert_eq!(seconds_told(0.5), "0.5");
    }
}
