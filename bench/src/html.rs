//! The report as one file for a browser: no network, no script, plots as SVG. What it says is what the JSON says.
//!
//! * `charts` which plots the loads call for · `plot` one of them as SVG · `text` bytes that are safe in HTML

mod charts;
mod plot;
mod text;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::Failure;
use crate::args::Size;
use crate::comparison::Comparison;
use crate::environment::Environment;
use crate::report::{Line, Report, Row, Settings, time};
use crate::sweep::Differs;
use charts::Subject;
use text::{escape, utc};

/// Makes the directory, before any load is offered that could not be reported.
pub fn prepare(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| {
        Failure(format!("--report {}: cannot be made: {error}; nothing was sent", dir.display()))
    })
}

/// Writes both files.
pub fn write(dir: &Path, json: &str, html: &str) -> Result<(), Failure> {
    for (name, content) in [("report.json", json), ("report.html", html)] {
        let path = dir.join(name);
        fs::write(&path, content)
            .map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))?;
    }
    eprintln!("written: {}", dir.join("report.html").display());
    Ok(())
}

/// The page of `run`.
pub fn of_run(report: &Report) -> String {
    let subjects: Vec<Subject<'_>> =
        report.rows.iter().map(|row| Subject { server: None, row, differs: report.differs }).collect();
    let Report { program, begun_unix_s, environment, settings, .. } = report;
    page(&head("pelago-bench run", program, *begun_unix_s, environment, settings), &subjects, None)
}

/// The page of `compare`.
pub fn of_comparison(comparison: &Comparison) -> String {
    let mut subjects = Vec::new();
    for contest in &comparison.contests {
        for standing in &contest.standings {
            let server = Some(standing.server.as_str());
            subjects.push(Subject { server, row: &standing.median, differs: comparison.differs });
        }
    }
    let Comparison { program, begun_unix_s, environment, settings, rounds, .. } = comparison;
    let mut head = head("pelago-bench compare", program, *begun_unix_s, environment, settings);
    let _ = write!(head, "<p>The median of {rounds} turns of each server.</p>");
    page(&head, &subjects, Some(&ratios(comparison)))
}

fn page(head: &str, subjects: &[Subject<'_>], more: Option<&str>) -> String {
    let style = include_str!("html/style.css");
    let charts = charts::draw(subjects);
    let (table, remarks) = (table(subjects), remarks(subjects));
    let more = more.unwrap_or_default();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>pelago-bench</title>\n<style>\n{style}</style></head>\n<body>\n{head}\n\
         <main class=\"charts\">\n{charts}</main>\n{more}{table}{remarks}</body></html>\n"
    )
}

fn head(title: &str, program: &str, begun: f64, environment: &Environment, settings: &Settings) -> String {
    let mut head = format!("<h1>{}</h1>\n<dl>", escape(title));
    item(&mut head, "program", program);
    item(&mut head, "begun", &utc(begun));
    list(&mut head, environment);
    list(&mut head, settings);
    head.push_str("</dl>");
    head
}

/// Every field that has a value.
fn list(head: &mut String, fields: &impl Serialize) {
    let Ok(Value::Object(fields)) = serde_json::to_value(fields) else { return };
    for (name, value) in fields {
        let told = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Array(values) => {
                let plain = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
                values.iter().map(plain).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        item(head, &name.replace('_', " "), &told);
    }
}

fn item(head: &mut String, name: &str, told: &str) {
    let _ = write!(head, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(told));
}

/// Cells of one row of a table, or of its head.
fn cells(table: &mut String, tag: &str, cells: &[String]) {
    table.push_str("<tr>");
    for cell in cells {
        let _ = write!(table, "<{tag}>{}</{tag}>", escape(cell));
    }
    table.push_str("</tr>\n");
}

fn table(subjects: &[Subject<'_>]) -> String {
    let named = subjects.iter().any(|subject| subject.server.is_some());
    let differs = subjects.first().map_or(Differs { pipeline: false, value_size: false }, |one| one.differs);
    let mut names: Vec<&str> = Vec::new();
    names.extend(named.then_some("server"));
    names.extend(["workload", "connections"]);
    names.extend(differs.pipeline.then_some("pipeline"));
    names.extend(differs.value_size.then_some("value"));
    names.extend(["op", "ops/s", "p50", "p90", "p99", "p99.9", "max", "errors", "write gap"]);
    let mut table = "<div class=\"wide\"><table>\n".to_owned();
    cells(&mut table, "th", &names.iter().map(ToString::to_string).collect::<Vec<_>>());
    for Subject { server, row, .. } in subjects {
        for (op, line) in lines(row) {
            let mut told: Vec<String> = Vec::new();
            told.extend(named.then(|| server.unwrap_or_default().to_owned()));
            told.extend([row.workload.clone(), row.connections.to_string()]);
            told.extend(differs.pipeline.then(|| row.pipeline.to_string()));
            told.extend(differs.value_size.then(|| Size(row.value_size).to_string()));
            let latency = &line.latency_us;
            told.extend([op, format!("{:.0}", line.ops_per_sec)]);
            told.extend([latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(time));
            told.push(row.errors.values().sum::<u64>().to_string());
            told.push(row.write_gap_ms.map_or("-".to_owned(), |ms| time(ms * 1e3)));
            cells(&mut table, "td", &told);
        }
    }
    table.push_str("</table></div>\n");
    table
}

/// All operations of a load, and the kinds where there are several.
fn lines(row: &Row) -> Vec<(String, &Line)> {
    let kinds = [("get", &row.gets), ("put", &row.puts)];
    let mut lines = vec![("all".to_owned(), &row.all)];
    lines.extend(kinds.into_iter().filter_map(|(name, line)| Some((name.to_owned(), line.as_ref()?))));
    if let [(name, _)] = lines.as_mut_slice() {
        name.clone_from(&row.workload);
    }
    lines
}

fn ratios(comparison: &Comparison) -> String {
    let first = comparison.servers.first().map_or("", |server| server.name.as_str());
    let mut table =
        format!("<h2>{} divided by the others</h2>\n<div class=\"wide\"><table>\n", escape(first));
    let names = ["load", "server", "ops/s", "p50", "p99"].map(str::to_owned);
    cells(&mut table, "th", &names);
    for contest in &comparison.contests {
        for standing in &contest.standings {
            let Some(ratio) = standing.first_to_this else { continue };
            let told = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let load = contest.case.told(comparison.differs);
            let server = standing.server.clone();
            cells(
                &mut table,
                "td",
                &[load, server, told(ratio.ops_per_sec), told(ratio.p50), told(ratio.p99)],
            );
        }
    }
    table.push_str("</table></div>\n");
    table
}

fn remarks(subjects: &[Subject<'_>]) -> String {
    let mut list = "<ul>\n".to_owned();
    for subject in subjects {
        for remark in subject.row.remarked() {
            let _ = writeln!(list, "<li>{}: {}</li>", escape(&subject.name()), escape(&remark));
        }
    }
    list.push_str("</ul>\n");
    list
}
