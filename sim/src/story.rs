//! What happened: a hash of every event, always, and the last of them in words, on demand.
//!
//! Words cost more than all the rest of a run, so a swarm only hashes, and a seed that failed is
//! run again with the words switched on. They are kept per thread and not in the world, because
//! an assertion of the product ends the process, and the hook that runs then has to tell them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use groups::time::Time;

/// The most lines that are kept.
const KEPT: usize = 100_000;

/// The most lines that are shown: the end of a story is what matters, unless somebody asks for the whole.
const SHOWN: usize = 6000;

thread_local! {
    static HASH: Cell<u64> = const { Cell::new(0) };
    static TOLD: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// The lines told on this thread since the last story began.
#[must_use]
pub fn told() -> Vec<String> {
    TOLD.with(|told| told.try_borrow().map(|t| t.iter().cloned().collect()).unwrap_or_default())
}

/// The hash of what has happened on this thread since the last story began.
#[must_use]
pub fn hash() -> u64 {
    HASH.get()
}

/// The part of a story that a person wants to read beside the sentence `what`: its end, or, where one
/// key's history makes no sense, the faults and what the clients saw of that key. With `whole`, all that was kept.
#[must_use]
pub fn excerpt(story: &[String], what: &str, whole: bool) -> Vec<String> {
    if whole {
        return story.to_vec();
    }
    let key = what.split_once("\nkey \"").and_then(|(_, rest)| rest.split_once('"')).map(|(key, _)| key);
    let shown: Vec<&String> = match key {
        Some(key) => story.iter().filter(|line| concerns(line, key)).collect(),
        None => story.iter().collect(),
    };
    let shown = &shown[shown.len().saturating_sub(SHOWN)..];
    let mut lines: Vec<String> = shown.iter().map(ToString::to_string).collect();
    if lines.len() < story.len() {
        lines.insert(0, format!("({} lines of the story left out)", story.len() - lines.len()));
    }
    lines
}

/// Whether a line tells of the key, of a fault, or of the life of a node.
fn concerns(line: &str, key: &str) -> bool {
    let told = line.split_once(' ').map_or(line, |(_, told)| told);
    if told.starts_with("client ") {
        return told.contains(&format!(" of {key} -> "));
    }
    let of_disk = told.contains(" synced ");
    told.starts_with("fault ") || told.starts_with("the faults ") || (told.starts_with("node ") && !of_disk)
}

/// The story of one run.
#[derive(Debug)]
pub struct Story {
    hash: u64,
    aloud: bool,
}

impl Story {
    /// A new story; with `aloud`, in words.
    #[must_use]
    pub fn new(aloud: bool) -> Story {
        TOLD.with(|told| told.borrow_mut().clear());
        HASH.set(0);
        Story { hash: 0, aloud }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether words are wanted.
    #[must_use]
    pub fn is_aloud(&self) -> bool {
        self.aloud
    }

    /// Mixes a fact into the hash.
    pub fn mix(&mut self, fact: u64) {
        self.hash = (self.hash ^ fact).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        HASH.set(self.hash);
    }

    /// Mixes bytes into the hash.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.hash = groups::paxos::chain(self.hash, bytes);
        HASH.set(self.hash);
    }

    /// Tells a line, if anybody listens.
    pub fn tell(&mut self, now: Time, line: impl FnOnce() -> String) {
        if self.aloud {
            let line = format!("{now} {}", line());
            TOLD.with(|told| {
                let mut told = told.borrow_mut();
                if told.len() == KEPT {
                    told.pop_front();
                }
                told.push_back(line);
            });
        }
    }
}
