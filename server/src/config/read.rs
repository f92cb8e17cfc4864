//! From text to a configuration, collecting every mistake on the way.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use groups::ids::NodeId;
use toml::de::{DeTable, DeValue};

use super::address::Address;
use super::keys::{Key, SECTIONS, Written, keys};
use super::problem::{ConfigErrors, Lines, Place, Problem};
use super::{Config, Node, check};
use crate::protocol::nearest;

/// Far more than any cluster needs; what is larger is some other file.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) fn file(path: &Path) -> Result<String, String> {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes =
        read().map_err(|error| format!("cannot be read: {error}; name the file with --config PATH"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("has more than {MAX_FILE} bytes; is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8; is it the right file?")
    })
}

pub(super) fn config(text: &str, file: &str, overrides: &[String]) -> Result<Config, ConfigErrors> {
    let mut reading = Reading {
        file,
        lines: Lines::new(text),
        config: Config::default(),
        places: HashMap::new(),
        nodes: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let readable = reading.readable(text);
    if let Ok(root) = DeTable::parse(&readable) {
        reading.root(root.get_ref());
    }
    reading.overrides(overrides);
    // Where lines are missing, contradictions may be nobody's.
    if readable == text {
        check::all(&mut reading);
    }
    reading.finish()
}

/// A configuration in the making.
pub(super) struct Reading<'a> {
    file: &'a str,
    lines: Lines<'a>,
    pub(super) config: Config,
    /// Where each key was set that was; a value that was not understood stands as `Err`.
    places: HashMap<(&'static str, &'static str), Result<Place, ()>>,
    pub(super) nodes: Vec<NodeDraft>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// One entry of `[[nodes]]` as far as it was understood.
pub(super) struct NodeDraft {
    pub(super) place: Place,
    pub(super) id: Option<(NodeId, Place)>,
    /// In the order of [`ADDRESSES`].
    pub(super) addresses: [Option<(Address, Place)>; 3],
}

/// The addresses of a node.
pub(super) const ADDRESSES: [&str; 3] = ["peer_addr", "client_addr", "admin_addr"];
const NODE_KEYS: [&str; 4] = ["id", "peer_addr", "client_addr", "admin_addr"];

impl Reading<'_> {
    pub(super) fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file.to_owned(), place, message: message.into() });
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Into<String>) {
        self.warnings.push(Problem { file: self.file.to_owned(), place, message: message.into() });
    }

    /// The place to blame if these keys contradict each other: the first that was written at
    /// all. `None` if one of them was not understood, since its value is not the author's.
    pub(super) fn blame(&self, keys: &[(&'static str, &'static str)]) -> Option<Place> {
        let mut first = None;
        for key in keys {
            match self.places.get(key) {
                Some(Err(())) => return None,
                Some(Ok(place)) if first.is_none() => first = Some(place.clone()),
                _ => {}
            }
        }
        Some(first.unwrap_or(Place::File))
    }

    /// The text with every line blanked that is no TOML, each of them reported. A broken section
    /// header takes its section along, whose keys would be taken for another section's. Offsets
    /// stay what they were.
    fn readable(&mut self, text: &str) -> String {
        const MOST_ERRORS: usize = 50;
        let mut readable = text.to_owned();
        for _ in 0..MOST_ERRORS {
            let Err(error) = DeTable::parse(&readable) else { break };
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            self.problem(
                self.lines.place(at),
                format!("{}; see https://toml.io for the syntax", error.message()),
            );
            let line = self.lines.around(at);
            let end = match text[line.clone()].trim_start().starts_with('[') {
                true => text[line.end..].find("\n[").map_or(text.len(), |next| line.end + next),
                false => line.end,
            };
            if readable[line.start..end].trim().is_empty() {
                break;
            }
            let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
            let blanked: String = readable[line.start..end].chars().map(blank).collect();
            readable.replace_range(line.start..end, &blanked);
        }
        readable
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        if self.problems.is_empty() {
            self.config.nodes = self.nodes.into_iter().filter_map(NodeDraft::node).collect();
            self.config.nodes.sort_unstable_by_key(|node| node.id);
            self.config.warnings = self.warnings;
            return Ok(self.config);
        }
        self.problems.sort_by(|a, b| a.place.cmp(&b.place));
        Err(ConfigErrors { problems: self.problems })
    }

    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            let place = self.lines.place(name.span().start);
            let section = SECTIONS.into_iter().find(|section| *section == name.get_ref());
            match (section, value.get_ref()) {
                (Some(section), DeValue::Table(table)) => self.section(section, table),
                (Some(section), other) => {
                    let message = format!(
                        "`{section}` must be a section: write [{section}], not {}",
                        written(other).shown()
                    );
                    self.problem(place, message);
                }
                (None, value) if name.get_ref() == "nodes" => self.node_list(place, value),
                (None, value) => self.unknown_section(place, name.get_ref(), value),
            }
        }
    }

    fn unknown_section(&mut self, place: Place, name: &str, value: &DeValue<'_>) {
        let sections = SECTIONS.into_iter().chain(["nodes"]);
        let home = keys().iter().find(|key| key.name == name);
        let message = match (value, home, nearest(name, sections)) {
            (DeValue::Table(_) | DeValue::Array(_), _, Some("nodes")) => {
                format!("unknown section [{name}]; did you mean [[nodes]]?")
            }
            (DeValue::Table(_) | DeValue::Array(_), _, Some(known)) => {
                format!("unknown section [{name}]; did you mean [{known}]?")
            }
            (_, Some(key), _) => format!("`{name}` belongs into section [{}]; move it there", key.section),
            _ => format!(
                "unknown section or key `{name}`; known sections are [[nodes]], [{}]",
                SECTIONS.join("], [")
            ),
        };
        self.problem(place, message);
    }

    fn section(&mut self, section: &'static str, table: &DeTable<'_>) {
        for (name, value) in table {
            match keys().iter().find(|key| key.section == section && key.name == name.get_ref()) {
                Some(key) => {
                    let place = self.lines.place(value.span().start);
                    self.assign(key, place, &written(value.get_ref()));
                }
                None => {
                    let place = self.lines.place(name.span().start);
                    self.problem(place, unknown_key(section, name.get_ref()));
                }
            }
        }
    }

    fn assign(&mut self, key: &Key, place: Place, value: &Written<'_>) {
        let set = match key.assign(&mut self.config, value) {
            Ok(()) => Ok(place),
            Err(message) => {
                self.problem(place, message);
                Err(())
            }
        };
        self.places.insert((key.section, key.name), set);
    }

    fn overrides(&mut self, overrides: &[String]) {
        for text in overrides {
            let place = Place::Override(text.clone());
            let Some((path, value)) = text.split_once('=') else {
                self.problem(place, "has no `=`; write --set section.key=value");
                continue;
            };
            let (path, value) = (path.trim(), value.trim());
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            match keys().iter().find(|key| key.path() == path) {
                Some(key) => self.assign(key, place, &Written::Bare(quoted.unwrap_or(value))),
                None if path.split('.').next() == Some("nodes") => {
                    self.problem(place, "nodes cannot be set on the command line; list them in the file");
                }
                None => {
                    let known: Vec<String> = keys().iter().map(Key::path).collect();
                    let message = match nearest(path, known.iter().map(String::as_str)) {
                        Some(known) => format!("unknown key; did you mean `{known}`?"),
                        None => "unknown key; write --set section.key=value".to_owned(),
                    };
                    self.problem(place, message);
                }
            }
        }
    }

    fn node_list(&mut self, place: Place, value: &DeValue<'_>) {
        let DeValue::Array(entries) = value else {
            self.problem(
                place,
                "`nodes` must be a list: write [[nodes]], with two brackets, before each node",
            );
            return;
        };
        for entry in entries.iter() {
            let place = self.lines.place(entry.span().start);
            match entry.get_ref() {
                DeValue::Table(table) => self.node(place, table),
                other => {
                    let message =
                        format!("a node must be a table: write [[nodes]], not {}", written(other).shown());
                    self.problem(place, message);
                }
            }
        }
    }

    fn node(&mut self, place: Place, table: &DeTable<'_>) {
        let mut draft = NodeDraft { place, id: None, addresses: [None, None, None] };
        let mut given = Vec::new();
        for (name, value) in table {
            let place = self.lines.place(value.span().start);
            let known = NODE_KEYS.into_iter().find(|known| *known == name.get_ref());
            given.extend(known);
            match (known, written(value.get_ref())) {
                (Some("id"), Written::Integer(Some(id))) if (1..=i64::from(u32::MAX)).contains(&id) => {
                    draft.id = Some((NodeId(id as u32), place));
                }
                (Some("id"), other) => {
                    self.problem(
                        place,
                        format!("`id` must be a whole number of at least 1, not {}", other.shown()),
                    );
                }
                (Some(key), Written::Text(text)) => match Address::parse(text) {
                    Ok(address) => {
                        let slot = ADDRESSES.iter().position(|known| *known == key).unwrap_or(0);
                        draft.addresses[slot] = Some((address, place));
                    }
                    Err(why) => self.problem(place, format!("`{key}` {} {why}", Written::Text(text).shown())),
                },
                (Some(key), other) => {
                    let message =
                        format!("`{key}` must be a text like \"127.0.0.1:7001\", not {}", other.shown());
                    self.problem(place, message);
                }
                (None, _) => {
                    let place = self.lines.place(name.span().start);
                    let message = unknown(name.get_ref(), "[[nodes]]", &NODE_KEYS);
                    self.problem(place, message);
                }
            }
        }
        let missing: Vec<&str> = NODE_KEYS.into_iter().filter(|key| !given.contains(key)).collect();
        if !missing.is_empty() {
            let place = draft.place.clone();
            self.problem(
                place,
                format!("this node lacks `{}`; every node needs all of them", missing.join("`, `")),
            );
        }
        self.nodes.push(draft);
    }
}

impl NodeDraft {
    fn node(self) -> Option<Node> {
        let [peer, client, admin] = self.addresses;
        Some(Node { id: self.id?.0, peer_addr: peer?.0, client_addr: client?.0, admin_addr: admin?.0 })
    }
}

fn unknown_key(section: &str, name: &str) -> String {
    let here: Vec<&str> = keys().iter().filter(|key| key.section == section).map(|key| key.name).collect();
    if let Some(key) = keys().iter().find(|key| key.name == name) {
        return format!("`{name}` belongs into section [{}], not [{section}]; move it there", key.section);
    }
    unknown(name, &format!("[{section}]"), &here)
}

fn unknown(name: &str, section: &str, known: &[&str]) -> String {
    let shown: String = name.chars().take(60).collect();
    match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("unknown key `{shown}` in {section}; did you mean `{nearest}`?"),
        None => format!("unknown key `{shown}` in {section}; known keys are {}", known.join(", ")),
    }
}

fn written<'a>(value: &'a DeValue<'_>) -> Written<'a> {
    match value {
        DeValue::String(text) => Written::Text(text),
        DeValue::Integer(integer) => {
            Written::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
        }
        DeValue::Boolean(flag) => Written::Flag(*flag),
        other => Written::Other(other.type_str()),
    }
}
