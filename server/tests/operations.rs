//! What `docs` tells operators is what the program does: the table of metrics, the dashboard, the alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use server::admin::metrics::{ALL, Metric, reference};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn is_histogram(metric: &Metric) -> bool {
    metric.kind.word() == "histogram"
}

/// Every word of a text that could be the name of a metric.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("pelago_") || word.starts_with("process_"))
}

#[test]
fn the_dashboard_and_the_alerts_name_only_what_there_is() {
    let known: BTreeMap<&str, &Metric> = ALL.iter().map(|metric| (metric.name, metric)).collect();
    let dashboard = document("ops/grafana-dashboard.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
    for (file, text, least) in
        [("dashboard", dashboard, 30), ("alerts", document("ops/prometheus-alerts.yml"), 10)]
    {
        let mut named = BTreeSet::new();
        for word in words(&text) {
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            let histogram = bare.and_then(|bare| known.get(bare)).filter(|metric| is_histogram(metric));
            let plain = known.get(word).filter(|metric| !is_histogram(metric));
            let metric = histogram.or(plain).unwrap_or_else(|| match known.get(word) {
                Some(_) => panic!("{file}: {word} has only _bucket, _sum and _count"),
                None => panic!("{file}: there is no metric {word}"),
            });
            named.insert(metric.name);
        }
        assert!(named.len() >= least, "{file} names only {named:?}");
    }
}

#[test]
fn labels_that_are_asked_for_exist() {
    let known: BTreeMap<&str, &Metric> = ALL.iter().map(|metric| (metric.name, metric)).collect();
    let mut seen = 0;
    for text in
        [document("ops/grafana-dashboard.json").replace("\\\"", "\""), document("ops/prometheus-alerts.yml")]
    {
        for (at, _) in text.match_indices('{') {
            let Some(name) = text[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()
            else {
                continue;
            };
            let bare = name.strip_suffix("_bucket").or(name.strip_suffix("_count")).unwrap_or(name);
            let Some(metric) = known.get(name).or(known.get(bare)) else { continue };
            let inside = text[at + 1..].split('}').next().unwrap_or_default();
            for label in inside.split(',').filter_map(|pair| pair.split(['=', '!']).next()).map(str::trim) {
                let given = ["job", "instance"].contains(&label) || metric.labels.contains(&label);
                assert!(given, "{name} has no label {label:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "only {seen} labels were found");
}

#[test]
fn the_table_in_the_documentation_is_that_of_the_program() {
    let table = reference();
    assert!(document("operations.md").contains(&table), "docs/operations.md needs this table:\n{table}");
}
