//! One plot as SVG: lines over a linear or logarithmic axis, events as upright lines, and the numbers of a point under
//! the pointer.

use std::fmt::Write as _;

use super::text::escape;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 42.0;
/// Half the width of a character of a label, about.
const HALF_CHARACTER: f64 = 4.2;
/// Width of an event's label.
const LABEL: f64 = 26.0;
/// Colours there are; the style sheet has as many.
const COLOURS: usize = 8;

/// A plot.
#[derive(Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Line>,
    /// What happened at some x.
    pub events: Vec<(f64, String)>,
    /// Whether each point is drawn, not only the line between them.
    pub dots: bool,
}

/// An axis.
#[derive(Debug)]
pub struct Axis {
    /// What it counts.
    pub name: &'static str,
    /// Each step of the same size multiplies by the same.
    pub log: bool,
    /// How a number on it is written.
    pub told: fn(f64) -> String,
    /// From where to where, if that is not for the points to say.
    pub span: Option<(f64, f64)>,
}

/// One line.
#[derive(Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Lines that belong together have one colour.
    pub colour: usize,
    /// To tell two of one colour apart.
    pub dashed: bool,
    /// In the order of x; where there is no y the line is broken.
    pub points: Vec<(f64, Option<f64>)>,
}

impl Plot {
    /// The plot, its legend and its events in words.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let x = Scale::of(&self.x, points().map(|point| point.0), LEFT, WIDTH - RIGHT, true);
        let y = Scale::of(&self.y, points().filter_map(|point| point.1), HEIGHT - BOTTOM, TOP, false);
        let mut svg = format!("<figure><h2>{}</h2>\n", escape(&self.title));
        let _ = writeln!(svg, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        self.grid(&mut svg, &x, &y);
        self.mark_events(&mut svg, &x);
        for line in &self.lines {
            self.line(&mut svg, line, &x, &y);
        }
        svg.push_str("</svg>\n");
        self.legend(&mut svg);
        svg.push_str("</figure>\n");
        svg
    }

    fn grid(&self, svg: &mut String, x: &Scale, y: &Scale) {
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&(self.y.told)(tick))
            );
        }
        for tick in x.ticks() {
            let label = (self.x.told)(tick);
            // The last one may not reach over the edge.
            let at = x.place(tick).min(WIDTH - HALF_CHARACTER * label.chars().count() as f64);
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM + 17.0,
                escape(&label)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 6.0,
            escape(self.x.name)
        );
    }

    /// An upright line for each, and its number above; one label for those that would cover each other.
    fn mark_events(&self, svg: &mut String, x: &Scale) {
        let mut labels: Vec<(f64, usize, usize)> = Vec::new();
        for (number, (at, what)) in (1..).zip(&self.events) {
            let at = x.place(*at);
            let _ = writeln!(
                svg,
                "<line class=\"event\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\">\
                 <title>{}</title></line>",
                HEIGHT - BOTTOM,
                escape(what)
            );
            match labels.last_mut() {
                Some((place, _, last)) if at - *place < LABEL => *last = number,
                _ => labels.push((at, number, number)),
            }
        }
        for (at, first, last) in labels {
            let label = if first == last { first.to_string() } else { format!("{first}–{last}") };
            let _ = writeln!(
                svg,
                "<text class=\"mark\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                TOP - 4.0
            );
        }
    }

    fn line(&self, svg: &mut String, line: &Line, x: &Scale, y: &Scale) {
        let colour = line.colour % COLOURS;
        let mut path = String::new();
        let mut broken = true;
        let mut dots = String::new();
        for &(across, up) in &line.points {
            let Some(up) = up.filter(|up| !y.log || *up > 0.0) else {
                broken = true;
                continue;
            };
            let (at, height) = (x.place(across), y.place(up));
            let _ = write!(path, "{}{at:.1} {height:.1}", if broken { 'M' } else { 'L' });
            broken = false;
            if self.dots {
                let _ = write!(
                    dots,
                    "<circle class=\"dot c{colour}\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"3\"/>"
                );
            }
            let _ = writeln!(
                dots,
                "<circle class=\"touch\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"7\"><title>{}: {} at {} {}</title></circle>",
                escape(&line.name),
                escape(&(self.y.told)(up)),
                escape(&(self.x.told)(across)),
                escape(self.x.name)
            );
        }
        let dashed = if line.dashed { " dashed" } else { "" };
        let _ = writeln!(svg, "<path class=\"line c{colour}{dashed}\" d=\"{path}\"/>\n{dots}");
    }

    fn legend(&self, svg: &mut String) {
        svg.push_str("<figcaption>");
        for line in &self.lines {
            let dashed = if line.dashed { " dashed" } else { "" };
            let _ = write!(
                svg,
                "<span><svg viewBox=\"0 0 26 8\"><path class=\"line c{}{dashed}\" d=\"M1 4L25 4\"/></svg> {}</span>",
                line.colour % COLOURS,
                escape(&line.name)
            );
        }
        if !self.events.is_empty() {
            svg.push_str("<ol>");
            for (at, what) in &self.events {
                let _ = write!(svg, "<li>{}: {}</li>", escape(&(self.x.told)(*at)), escape(what));
            }
            svg.push_str("</ol>");
        }
        svg.push_str("</figcaption>\n");
    }
}

/// Where the numbers of an axis lie.
#[derive(Debug)]
struct Scale {
    log: bool,
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
    /// Numbers that are marked, if they are few, instead of round ones.
    only: Vec<f64>,
}

/// Different numbers up to which each of them is marked on a logarithmic axis.
const FEW: usize = 7;

impl Scale {
    /// The scale that shows these values from the place `begin` to `end`. One that is `tight` has no room beyond them
    /// and does not begin at zero where they do not.
    fn of(axis: &Axis, values: impl Iterator<Item = f64>, begin: f64, end: f64, tight: bool) -> Scale {
        let values = values.chain(axis.span.into_iter().flat_map(|(from, to)| [from, to]));
        let mut values: Vec<f64> =
            values.filter(|value| value.is_finite() && (!axis.log || *value > 0.0)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            return Scale { log: false, from: 0.0, to: 1.0, begin, end, only: Vec::new() };
        };
        let (mut from, mut to) = match (axis.log, tight) {
            (_, true) => (least, most),
            (true, false) => (least / 1.3, most * 1.3),
            (false, false) => (0.0, most * 1.08),
        };
        if from >= to {
            (from, to) = if axis.log { (from / 2.0, to * 2.0) } else { (from, from + 1.0) };
        }
        let only = if axis.log && tight && values.len() <= FEW { values } else { Vec::new() };
        Scale { log: axis.log, from, to, begin, end, only }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.begin + share.clamp(0.0, 1.0) * (self.end - self.begin)
    }

    /// Round numbers, four to eight of them where that is possible.
    fn ticks(&self) -> Vec<f64> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        if self.log {
            let decades = self.from.log10().floor() as i32..=self.to.log10().ceil() as i32;
            let within = |tick: &f64| (self.from..=self.to).contains(tick);
            let of = |digits: &[f64]| -> Vec<f64> {
                let all = decades
                    .clone()
                    .flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
                all.filter(within).collect()
            };
            let [fine, middle, coarse] = [of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])];
            return [fine, middle].into_iter().find(|ticks| ticks.len() <= 8).unwrap_or(coarse);
        }
        let rough = (self.to - self.from) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.from / step).ceil() as i64;
        (first..).map(|number| number as f64 * step).take_while(|tick| *tick <= self.to).take(20).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(log: bool) -> Axis {
        Axis { name: "<things>", log, told: |value| format!("{value}"), span: None }
    }

    fn ticks(log: bool, tight: bool, values: &[f64]) -> Vec<f64> {
        Scale::of(&axis(log), values.iter().copied(), 0.0, 100.0, tight).ticks()
    }

    #[test]
    fn numbers_lie_where_they_belong() {
        let linear = Scale::of(&axis(false), [10.0, 20.0].into_iter(), 0.0, 100.0, true);
        assert_eq!((linear.place(10.0), linear.place(15.0), linear.place(99.0)), (0.0, 50.0, 100.0));
        let log = Scale::of(&axis(true), [1.0, 100.0].into_iter(), 100.0, 0.0, true);
        assert!((log.place(10.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(false, true, &[0.0, 10.0]), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(true, true, &[1.0, 64.0, 256.0]), [1.0, 64.0, 256.0]);
        assert_eq!(ticks(true, false, &[90.0, 900.0]), [100.0, 200.0, 500.0, 1_000.0]);
        assert_eq!(ticks(true, false, &[1.0, 1e9]).len(), 10);
        assert!(!ticks(false, false, &[]).is_empty());
        assert!(!ticks(true, true, &[5.0]).is_empty());
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known_and_names_are_escaped() {
        let line = Line {
            name: "a<b".to_owned(),
            colour: 9,
            dashed: true,
            points: vec![(1.0, Some(5.0)), (2.0, None), (3.0, Some(7.0)), (4.0, Some(0.0))],
        };
        let events =
            vec![(2.0, "killed <1>".to_owned()), (2.01, "elected".to_owned()), (4.0, "back".to_owned())];
        let plot = Plot {
            title: "t&t".to_owned(),
            x: axis(false),
            y: axis(true),
            lines: vec![line],
            events,
            dots: true,
        };
        let svg = plot.svg();
        let path = svg.split(" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path");
        assert_eq!(
            (path.matches('M').count(), path.matches('L').count()),
            (2, 0),
            "zero has no logarithm: {path}"
        );
        assert_eq!(svg.matches("class=\"touch\"").count(), 2);
        assert!(
            svg.contains("c1 dashed")
                && svg.contains("t&amp;t")
                && svg.contains("a&lt;b: 5 at 1 &lt;things&gt;")
        );
        assert!(
            svg.contains("<title>killed &lt;1&gt;</title>") && !svg.contains("<1>") && !svg.contains("NaN")
        );
    }
}
