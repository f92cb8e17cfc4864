//! `pelago status`: what all nodes say about themselves, and what that means together.
//!
//! One node is asked with `STATUS JSON`, then every other node that it lists. `--json` prints
//! one document ([`Overview`]):
//!
//! ```text
//! {
//!   "summary": {
//!     "cluster_name", "cluster", "version",
//!     "healthy":    everybody answers, every group is led, nothing differs, no alarm
//!     "nodes", "nodes_alive", "groups", "groups_led",
//!     "leads":      { "1": 6, … }       groups led, by node
//!     "tolerates":  how many more nodes may fail, whichever; null while a group has no leader
//!     "keys", "bytes",
//!     "agreement":  { "equal", "partial", "moving", "alone", "differs" }   groups, by comparison
//!     "alarms":     [ { "node": 1 or null, "text" } ]
//!   },
//!   "groups": [ { "group", "first_slot", "last_slot", "leader": 1 or null, "members": [1, 2, 3],
//!                 "applied", "lag", "keys", "bytes", "agreement", "problem": text or null } ],
//!   "nodes":  [ NodeStatus, as STATUS JSON answers it ],
//!   "unreachable": [ { "node", "client_addr", "alive", "why" } ]
//! }
//! ```
//!
//! Exit codes: 0 when at least one node answered (`healthy` says how things are), else 2.

pub(crate) mod figures;
pub(crate) mod screen;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::connect::Servers;
use super::logging::colour;
use super::{Failure, print};
use crate::client::Options;
use crate::client::overview::Overview;
use crate::client::survey::{SurveyError, survey};
use crate::demo::interrupt::Interrupt;
use screen::{Live, Looker, Screen, Source};

pub use table::{line, table};

/// How long one node may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// More groups than this are summed up unless something is wrong with them.
pub const LISTED_GROUPS: usize = 24;

/// Show the state of the cluster
#[derive(Debug, Args)]
#[command(after_help = "\
One node is asked, then every node that it knows. Many groups are summed up; --all lists them.
Exit codes: 0 a node answered (\"healthy\" in the JSON says how things are), 2 nobody answered.

Example: pelago status --watch")]
pub struct Status {
    #[command(flatten)]
    servers: Servers,

    /// Print one JSON document; with --watch one per line and second
    #[arg(long)]
    json: bool,

    /// Show it in place, every second, until q; a text per second where there is no terminal
    #[arg(long)]
    watch: bool,

    /// List every group, however many there are
    #[arg(long)]
    all: bool,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let addresses = self.servers.addresses();
        let options = Servers::options();
        if !self.watch {
            let overview = look(&addresses, &options).map_err(|error| Failure::error(error.to_string()))?;
            return print(self.page(&overview, false));
        }
        if !self.json && screen::is_there() {
            return self.screen(addresses, options);
        }
        loop {
            let text = match look(&addresses, &options) {
                Ok(overview) => self.page(&overview, true),
                Err(error) if self.json => format!("{}\n", serde_json::json!({ "error": error.to_string() })),
                Err(error) => format!("{error}\n"),
            };
            print(text)?;
            thread::sleep(EVERY);
        }
    }

    /// The same in place, until a key or a signal ends it.
    fn screen(&self, addresses: Vec<String>, options: Options) -> Result<(), Failure> {
        let interrupt = Interrupt::listen()?;
        let mut screen = Screen::new(colour(true));
        let begin = || -> io::Result<()> {
            let looker = Looker::start(Source::new(addresses.into()), options, EVERY)?;
            Live::open()?.run(&mut screen, &looker, &interrupt, |_, _| {}, |_| false)
        };
        begin().map_err(|error| Failure::error(format!("the terminal cannot be used: {error}")))
    }

    fn page(&self, overview: &Overview, watched: bool) -> String {
        if self.json {
            let document = match self.watch {
                true => serde_json::to_string(overview),
                false => serde_json::to_string_pretty(overview),
            };
            // Every key is a string or a number, which is all that can go wrong.
            return document.map_or_else(|error| format!("{error}\n"), |text| text + "\n");
        }
        // On a screen of 24 lines that is refreshed in place, the head must stay in sight.
        let listed = match (self.all, watched) {
            (true, _) => usize::MAX,
            (false, true) => LISTED_GROUPS.saturating_sub(8 + overview.summary.nodes),
            (false, false) => LISTED_GROUPS,
        };
        table(overview, listed, colour(io::stdout().is_terminal()))
    }
}

/// Asks all nodes.
///
/// # Errors
/// When nobody answers with a status.
pub fn look(addresses: &[String], options: &Options) -> Result<Overview, SurveyError> {
    survey(addresses, options, PATIENCE).map(Overview::of)
}
