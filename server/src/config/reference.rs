//! The reference of the configuration, made from the table of its keys.

use std::fmt::Write;

use super::Config;
use super::keys::{SECTIONS, keys};

/// All keys with their defaults, what they accept and what they mean, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut defaults = Config::default();
    let mut text = String::from(NODES);
    for section in SECTIONS {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n## [{section}]\n\n| key | default | accepts | meaning |\n| --- | --- | --- | --- |\n"
        );
        for key in keys().iter().filter(|key| key.section == section) {
            let default = match key.shown(&mut defaults) {
                Some(value) if key.is_bare() => format!("`{value}`"),
                Some(value) => format!("`\"{value}\"`"),
                None => "none".to_owned(),
            };
            let _ = writeln!(text, "| `{}` | {default} | {} | {} |", key.name, key.accepts(), key.meaning);
        }
    }
    text
}

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
