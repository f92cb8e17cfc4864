//! Numbered writes (`REQ client:seq`): a client that does not know what became of one sends it again,
//! through whatever node, until it knows; and now and then it sends one again that was answered.
//! However often it is sent, it is one operation of the history, and all its answers are the same.

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv;
use groups::kv::{Command, Req};
use groups::random::Random;

use crate::history::{Action, Call};

/// So many writes of unknown outcome are sent again; of more the client never hears.
const MOST_OPEN: usize = 4;

/// So many answered ones are kept for another time.
const MOST_ECHOES: usize = 4;

/// A numbered write under way.
#[derive(Debug)]
pub struct Numbered {
    /// Its place in the history; `None` for one that was answered before.
    pub call: Option<Call>,
    /// What it is.
    pub action: Action,
    /// Its key.
    pub key: u64,
    /// Its group.
    pub group: GroupId,
    /// The encoded command, its number included: every copy is the same.
    pub command: Bytes,
    /// A copy of it may have been applied.
    pub doubtful: bool,
    /// What it was answered before.
    pub answered: Option<kv::Outcome>,
}

/// What a client has to send again.
#[derive(Debug, Default)]
pub struct Resends {
    seq: u64,
    open: Vec<Numbered>,
    echoes: Vec<Numbered>,
}

impl Resends {
    /// Numbers a write of the client `index`.
    pub fn number(&mut self, index: u64, command: Command) -> Command {
        self.seq += 1;
        let client = Bytes::from(format!("sim-{index}"));
        let print = Req::print_of(std::iter::once(&command.to_bytes()[..]));
        Command::Once { req: Req { client, seq: self.seq, print }, command: Box::new(command) }
    }

    /// Keeps one whose outcome nobody knows. Hands back one that is given up for it.
    pub fn keep(&mut self, numbered: Numbered) -> Option<Numbered> {
        self.open.push(numbered);
        (self.open.len() > MOST_OPEN).then(|| self.open.remove(0))
    }

    /// Keeps one that was answered, now and then.
    pub fn echo(&mut self, numbered: Numbered, random: &mut Random) {
        if self.echoes.len() < MOST_ECHOES && random.below(3) == 0 {
            self.echoes.push(numbered);
        }
    }

    /// What is to be sent again now.
    pub fn due(&mut self, random: &mut Random) -> Vec<Numbered> {
        let mut due = std::mem::take(&mut self.open);
        if !self.echoes.is_empty() && random.below(3) == 0 {
            due.push(self.echoes.remove(0));
        }
        due
    }
}
