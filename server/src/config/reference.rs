//! The reference of the configuration, made from the table of its keys.

use std::fmt::Write;

use super::Config;
use super::keys::{SECTIONS, keys};

/// All keys with their defaults, what they accept and what they mean, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut defaults = Config::default();
    let mut text = format!("{HEAD}\n{NODES}");
    for section in SECTIONS {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n## [{section}]\n\n| key | default | accepts | live | meaning |\n| --- | --- | --- | --- | --- |\n"
        );
        for key in keys().iter().filter(|key| key.section == section) {
            let default = match key.shown(&mut defaults) {
                Some(value) if key.is_bare() => format!("`{value}`"),
                Some(value) => format!("`\"{value}\"`"),
                None => "none".to_owned(),
            };
            let live = if key.live { "yes" } else { "" };
            let accepts = key.accepts();
            let _ = writeln!(text, "| `{}` | {default} | {accepts} | {live} | {} |", key.name, key.meaning);
        }
    }
    text
}

const HEAD: &str = "\
# config.toml, key by key

Printed by `pelago config reference`; a test compares. One file describes the cluster, and each node takes its own entry
by `--node ID`. `pelago config check FILE` reports every mistake at once, with line and column. Any key can be set on the
command line, too: `--set section.key=value`. A node takes over what is *live* while it runs, after `pelago admin reload` or
SIGHUP; everything else counts from its next start on.
";

const NODES: &str = "\
## [[nodes]]

One entry per node; every key is required.

| key | accepts | meaning |
| --- | --- | --- |
| `id` | a whole number of at least 1 | The node's id, as in `pelago serve --node`. |
| `peer_addr` | `host:port` | Paxos, learner and checkpoint traffic of all groups; where other nodes connect to. |
| `client_addr` | `host:port` | RESP and lines. |
| `admin_addr` | `host:port` | HTTP: `/livez`, `/readyz`, `/metrics`, `/status`, and a page for people at `/`. With `password` in [security] all but the first two ask for it. |
";
