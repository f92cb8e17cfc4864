//! Every key of the configuration, once: where it lives, what it accepts, what it means. The
//! reader of the file, `--set`, `CONFIG GET` and the reference all follow this table.

use std::path::PathBuf;
use std::time::Duration;

use super::units::{self, Share, Size};
use super::{Config, Durability, Engine, LogFormat};

/// One key of a section.
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// One sentence or two for the reference.
    pub meaning: &'static str,
    /// Whether a node takes another value while it runs.
    pub live: bool,
}

/// What a key accepts, and the field that it sets. Bounds are inclusive.
pub(super) enum Kind {
    Text(fn(&mut Config) -> &mut String),
    Path(fn(&mut Config) -> &mut PathBuf),
    Secret(fn(&mut Config) -> &mut Option<String>),
    Flag(fn(&mut Config) -> &mut bool),
    Count(fn(&mut Config) -> &mut u32, u32, u32),
    Entries(fn(&mut Config) -> &mut u64),
    Duration(fn(&mut Config) -> &mut Duration, Duration, Duration),
    Size(fn(&mut Config) -> &mut Size, Size, Size),
    Share(fn(&mut Config) -> &mut Share, Share),
    Durability,
    Engine,
    LogLevel,
    LogFormat,
}

const UNBOUNDED: Size = Size(i64::MAX as u64);
const ZERO: Size = Size(0);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// All sections with keys, in the order of the file. `[[nodes]]` has a shape of its own.
pub(super) const SECTIONS: [&str; 7] =
    ["cluster", "storage", "paxos", "checkpoint", "limits", "security", "log"];

/// The table.
pub(super) fn keys() -> &'static [Key] {
    static KEYS: std::sync::LazyLock<Vec<Key>> = std::sync::LazyLock::new(table);
    &KEYS
}

fn table() -> Vec<Key> {
    let key = |section, name, kind, meaning| Key { section, name, kind, meaning, live: false };
    let live = |key: Key| Key { live: true, ..key };
    vec![
        key(
            "cluster",
            "name",
            Kind::Text(|c| &mut c.cluster.name),
            "The cluster's name. A data directory that belongs to another cluster is refused.",
        ),
        key(
            "cluster",
            "groups",
            Kind::Count(|c| &mut c.cluster.groups, 1, 16_384),
            "Paxos groups. Written into the cluster at its birth; later changes of the file are refused.",
        ),
        key(
            "cluster",
            "replication",
            Kind::Count(|c| &mut c.cluster.replication, 1, 9),
            "Members of each group, spread over the nodes. An odd number: an even one tolerates no more failures.",
        ),
        key(
            "storage",
            "data_dir",
            Kind::Path(|c| &mut c.storage.data_dir),
            "Node N keeps everything under `node-N` in here. Relative to the working directory.",
        ),
        key(
            "storage",
            "durability",
            Kind::Durability,
            "`fsync`: acknowledged means durable on a majority. `none` is for experiments and loses data.",
        ),
        key(
            "storage",
            "segment_size",
            Kind::Size(|c| &mut c.storage.segment_size, Size::mib(1), Size::gib(1)),
            "One file of the log, preallocated and recycled. The largest record must fit twice.",
        ),
        key(
            "paxos",
            "heartbeat_interval",
            Kind::Duration(|c| &mut c.paxos.heartbeat_interval, MS(1), MS(60_000)),
            "Between two heartbeats from node to node. Less than half of the election timeout.",
        ),
        key(
            "paxos",
            "election_timeout",
            Kind::Duration(|c| &mut c.paxos.election_timeout, MS(10), MS(600_000)),
            "How long a leader may be silent; randomised between once and twice that.",
        ),
        key(
            "paxos",
            "lease",
            Kind::Duration(|c| &mut c.paxos.lease, MS(1), MS(600_000)),
            "How long a leader may answer reads by itself after a heartbeat. Shorter than the election timeout, and the \
             same on all nodes: change it with all of them stopped.",
        ),
        key(
            "paxos",
            "max_clock_drift",
            Kind::Share(|c| &mut c.paxos.max_clock_drift, Share::percent(50)),
            "How much faster or slower one node's clock may run than another's, as a share of the lease.",
        ),
        key(
            "paxos",
            "window",
            Kind::Count(|c| &mut c.paxos.window, 1, 65_536),
            "Instances in flight per group.",
        ),
        key(
            "paxos",
            "max_batch_bytes",
            Kind::Size(|c| &mut c.paxos.max_batch_bytes, Size::kib(1), Size::mib(8)),
            "Client commands packed into one instance. A larger command has an instance of its own.",
        ),
        key(
            "checkpoint",
            "engine",
            Kind::Engine,
            "What keeps the mirror: `fjall` or `sled`; docs/storage.md compares them.",
        ),
        key(
            "checkpoint",
            "interval_entries",
            Kind::Entries(|c| &mut c.checkpoint.interval_entries),
            "How far the mirror may trail, in log entries, before it is hurried.",
        ),
        key(
            "checkpoint",
            "log_keep_entries",
            Kind::Entries(|c| &mut c.checkpoint.log_keep_entries),
            "Chosen entries kept behind the mirror for slow learners.",
        ),
        live(key(
            "checkpoint",
            "log_keep_bytes",
            Kind::Size(|c| &mut c.checkpoint.log_keep_bytes, Size::mib(1), UNBOUNDED),
            "Log that a node keeps for slow learners; beyond it collecting garbage is urgent.",
        )),
        live(key(
            "checkpoint",
            "transfer_bytes_per_sec",
            Kind::Size(|c| &mut c.checkpoint.transfer_bytes_per_sec, ZERO, UNBOUNDED),
            "Rate at which a node sends checkpoints; 0 is as fast as it can.",
        )),
        live(key(
            "limits",
            "max_key",
            Kind::Size(|c| &mut c.limits.max_key, Size(1), Size::mib(1)),
            "The longest key; a longer one is answered with TOOBIG.",
        )),
        live(key(
            "limits",
            "max_value",
            Kind::Size(|c| &mut c.limits.max_value, Size(1), Size::mib(14)),
            "The longest value; a longer one is answered with TOOBIG.",
        )),
        live(key(
            "limits",
            "max_connections",
            Kind::Count(|c| &mut c.limits.max_connections, 1, 1_000_000),
            "Client connections of one node.",
        )),
        key(
            "limits",
            "max_inflight_bytes",
            Kind::Size(|c| &mut c.limits.max_inflight_bytes, Size::kib(64), UNBOUNDED),
            "Requests that a node works on at once; beyond it, it answers BUSY. Also the largest single request.",
        ),
        live(key(
            "limits",
            "min_free_disk",
            Kind::Size(|c| &mut c.limits.min_free_disk, ZERO, UNBOUNDED),
            "With less free disk than this a node takes reads and deletes only.",
        )),
        live(key(
            "limits",
            "max_state_bytes",
            Kind::Size(|c| &mut c.limits.max_state_bytes, ZERO, UNBOUNDED),
            "With more live data than this a node takes reads and deletes only; 0 is no limit.",
        )),
        key(
            "security",
            "insecure",
            Kind::Flag(|c| &mut c.security.insecure),
            "Allows addresses that other machines can reach although nothing is encrypted.",
        ),
        live(key(
            "security",
            "password",
            Kind::Secret(|c| &mut c.security.password),
            "What clients must send with AUTH before anything else.",
        )),
        live(key(
            "log",
            "level",
            Kind::LogLevel,
            "What is logged: `error`, `warn`, `info`, `debug` or `trace`, or by part: `info,server::runtime=debug`. \
             `--log-level` and `RUST_LOG` go before it.",
        )),
        key(
            "log",
            "format",
            Kind::LogFormat,
            "`text` for people, `json` for programs: one object per line. `--log-format` goes before it.",
        ),
    ]
}

/// A value as it was written.
pub(super) enum Written<'a> {
    /// A string of the file.
    Text(&'a str),
    /// An integer of the file, if it is not huge.
    Integer(Option<i64>),
    /// A boolean of the file.
    Flag(bool),
    /// Anything else of the file, by the name of its type.
    Other(&'static str),
    /// Behind `--set key=`, where quotes are the shell's business.
    Bare(&'a str),
}

impl Key {
    /// `section.name`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Sets the key's field.
    ///
    /// # Errors
    /// With what the key accepts and what it was given.
    pub(super) fn assign(&self, config: &mut Config, written: &Written<'_>) -> Result<(), String> {
        self.set(config, written)
            .ok_or_else(|| format!("`{}` must be {}, not {}", self.name, self.accepts(), written.shown()))
    }

    fn set(&self, config: &mut Config, written: &Written<'_>) -> Option<()> {
        match &self.kind {
            Kind::Text(field) => *field(config) = written.text().filter(|text| !text.is_empty())?.to_owned(),
            Kind::Path(field) => *field(config) = written.text().filter(|text| !text.is_empty())?.into(),
            Kind::Secret(field) => {
                *field(config) = Some(written.text().filter(|text| !text.is_empty())?.to_owned());
            }
            Kind::Flag(field) => *field(config) = written.flag()?,
            Kind::Count(field, min, max) => {
                let count = u32::try_from(written.integer()?).ok()?;
                *field(config) = Some(count).filter(|count| (*min..=*max).contains(count))?;
            }
            Kind::Entries(field) => *field(config) = u64::try_from(written.integer()?).ok()?,
            Kind::Duration(field, min, max) => {
                let duration = units::duration(written.text()?)?;
                *field(config) = Some(duration).filter(|duration| (*min..=*max).contains(duration))?;
            }
            Kind::Size(field, min, max) => {
                *field(config) = written.size().filter(|size| (*min..=*max).contains(size))?;
            }
            Kind::Share(field, max) => {
                *field(config) = units::share(written.text()?).filter(|share| share <= max)?;
            }
            Kind::Durability => config.storage.durability = Durability::from_name(written.text()?)?,
            Kind::Engine => config.checkpoint.engine = Engine::from_name(written.text()?)?,
            Kind::LogLevel => config.log.level = log_level(written.text()?)?,
            Kind::LogFormat => config.log.format = LogFormat::from_name(written.text()?)?,
        }
        Some(())
    }

    /// What the key accepts, in words.
    pub(super) fn accepts(&self) -> String {
        match &self.kind {
            Kind::Text(_) | Kind::Path(_) | Kind::Secret(_) => "a text that is not empty".to_owned(),
            Kind::Flag(_) => "true or false".to_owned(),
            Kind::Count(_, min, max) => format!("a whole number from {min} to {max}"),
            Kind::Entries(_) => "a whole number".to_owned(),
            Kind::Duration(_, min, max) => format!(
                "a duration from \"{}\" to \"{}\" (units us, ms, s, m, h)",
                units::show_duration(*min),
                units::show_duration(*max),
            ),
            Kind::Size(_, min, max) if *max == UNBOUNDED => {
                format!("a size of \"{min}\" or more (units B, KiB, MiB, GiB, TiB)")
            }
            Kind::Size(_, min, max) => {
                format!("a size from \"{min}\" to \"{max}\" (units B, KiB, MiB, GiB, TiB)")
            }
            Kind::Share(_, max) => format!("a percentage from \"0%\" to \"{max}\""),
            Kind::Durability => "\"fsync\" or \"none\"".to_owned(),
            Kind::Engine => "\"fjall\" or \"sled\"".to_owned(),
            Kind::LogLevel => "a log filter like \"info\"".to_owned(),
            Kind::LogFormat => "\"text\" or \"json\"".to_owned(),
        }
    }

    /// The value that `config` has, as text without quotes; `None` for what has none or must
    /// not be shown. Takes a mutable reference because the table's accessors do.
    pub(super) fn shown(&self, config: &mut Config) -> Option<String> {
        Some(match &self.kind {
            Kind::Text(field) => field(config).clone(),
            Kind::Path(field) => field(config).display().to_string(),
            Kind::Secret(_) => return None,
            Kind::Flag(field) => field(config).to_string(),
            Kind::Count(field, ..) => field(config).to_string(),
            Kind::Entries(field) => field(config).to_string(),
            Kind::Duration(field, ..) => units::show_duration(*field(config)),
            Kind::Size(field, ..) => field(config).to_string(),
            Kind::Share(field, _) => field(config).to_string(),
            Kind::Durability => config.storage.durability.name().to_owned(),
            Kind::Engine => config.checkpoint.engine.name().to_owned(),
            Kind::LogLevel => config.log.level.clone(),
            Kind::LogFormat => config.log.format.name().to_owned(),
        })
    }

    /// Whether two configurations have different values.
    pub(super) fn differs(&self, one: &mut Config, other: &mut Config) -> bool {
        match &self.kind {
            Kind::Secret(field) => *field(one) != *field(other),
            _ => self.shown(one) != self.shown(other),
        }
    }

    /// Whether the file has the value without quotes.
    pub(super) fn is_bare(&self) -> bool {
        matches!(self.kind, Kind::Flag(_) | Kind::Count(..) | Kind::Entries(_))
    }
}

impl Written<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Written::Text(text) | Written::Bare(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Written::Integer(integer) => *integer,
            Written::Bare(text) => text.replace('_', "").parse().ok(),
            _ => None,
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Written::Flag(flag) => Some(*flag),
            Written::Bare(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A plain integer is a number of bytes.
    fn size(&self) -> Option<Size> {
        self.text().and_then(units::size).or_else(|| u64::try_from(self.integer()?).ok().map(Size))
    }

    /// How to quote it in an error; long ones are cut.
    pub(super) fn shown(&self) -> String {
        let cut = |text: &str| text.chars().take(60).collect::<String>();
        match self {
            Written::Text(text) => format!("{:?}", cut(text)),
            Written::Bare(text) => format!("{:?}", cut(text)),
            Written::Integer(Some(integer)) => format!("the number {integer}"),
            Written::Integer(None) => "a number of that size".to_owned(),
            Written::Flag(flag) => flag.to_string(),
            Written::Other(kind) => format!("a value of type {kind}"),
        }
    }
}

/// A filter that the log understands.
fn log_level(text: &str) -> Option<String> {
    let understood = !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok();
    understood.then(|| text.to_owned())
}
