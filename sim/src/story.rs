//! What happened: a hash of every event, always, and the last of them in words, on demand.
//!
//! Words cost more than all the rest of a run, so a swarm only hashes, and a seed that failed is
//! run again with the words switched on. They are kept per thread and not in the world, because
//! an assertion of the product ends the process, and the hook that runs then has to tell them.

use std::cell::RefCell;
use std::collections::VecDeque;

use groups::time::Time;

/// The most lines that are kept: the end of a story is what matters.
const LINES: usize = 400;

thread_local! {
    static TOLD: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// The lines told on this thread since the last story began.
#[must_use]
pub fn told() -> Vec<String> {
    TOLD.with(|told| told.try_borrow().map(|t| t.iter().cloned().collect()).unwrap_or_default())
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
    }

    /// Mixes bytes into the hash.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.hash = groups::paxos::chain(self.hash, bytes);
    }

    /// Tells a line, if anybody listens.
    pub fn tell(&mut self, now: Time, line: impl FnOnce() -> String) {
        if self.aloud {
            let line = format!("{now} {}", line());
            TOLD.with(|told| {
                let mut told = told.borrow_mut();
                if told.len() == LINES {
                    told.pop_front();
                }
                told.push_back(line);
            });
        }
    }
}
