//! A client that pipelines a write and a read of one key reads at least its own write
//! (`Request::ordered`; Ongaro, "Consensus", section 6.3, asks as much of a session).
//!
//! Linearizability does not say so, because the two overlap. Here the write asks for its
//! revision and goes to a key that nobody removes: the read must see that revision or a higher.

use std::collections::BTreeMap;

use super::Verdict;

/// A request: its connection and its number there.
type Name = (u64, u64);

/// What an answer said about the key's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing: refused, or in doubt.
    Nothing,
    Revision(u64),
    Absent,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ReadOrder {
    /// Writes and the reads that were sent behind them.
    pairs: Vec<(Name, Name)>,
    answers: BTreeMap<Name, Known>,
}

impl ReadOrder {
    /// `read` was sent behind `write`.
    pub fn behind(&mut self, connection: u64, write: u64, read: u64) {
        self.pairs.push(((connection, write), (connection, read)));
    }

    /// Whether anything is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A request was answered: `None` without saying anything, `Some(None)` that the key is
    /// absent, else its revision.
    ///
    /// # Errors
    /// When the rule is broken.
    pub fn answered(&mut self, connection: u64, number: u64, told: Option<Option<u64>>) -> Verdict {
        let name = (connection, number);
        if !self.pairs.iter().any(|(write, read)| *write == name || *read == name) {
            return Ok(());
        }
        let known = match told {
            None => Known::Nothing,
            Some(None) => Known::Absent,
            Some(Some(revision)) => Known::Revision(revision),
        };
        self.answers.insert(name, known);
        let answers = &self.answers;
        let mut wrong = None;
        self.pairs.retain(|(write, read)| {
            let (Some(wrote), Some(saw)) = (answers.get(write), answers.get(read)) else { return true };
            let fine = match (wrote, saw) {
                (Known::Revision(wrote), Known::Revision(saw)) => saw >= wrote,
                (Known::Revision(_), Known::Absent) => false,
                _ => true,
            };
            if !fine {
                wrong = Some(format!(
                    "read {} of connection {} was sent behind write {}, which made {wrote:?}, and saw {saw:?}",
                    read.1, read.0, write.1
                ));
            }
            false
        });
        let pairs = &self.pairs;
        self.answers.retain(|name, _| pairs.iter().any(|(write, read)| write == name || read == name));
        wrong.map_or(Ok(()), Err)
    }
}
