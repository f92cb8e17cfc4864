//! Recording a history: one log per client, owned by whoever drives the client, merged when all are done.

use std::fmt;

use super::operation::{Action, Operation, Outcome};

/// What one client saw. It belongs to the thread (or the simulated client) that drives it; no lock is involved, and
/// the logs are merged by [`History::from_logs`].
///
/// Operations that never got an answer stay in the log with an unknown outcome: forgetting to report a connection
/// that broke cannot turn a right history into a wrong one.
#[derive(Clone, Debug)]
pub struct ClientLog {
    client: u64,
    operations: Vec<Operation>,
}

/// An operation under way; handed to [`ClientLog::respond`] once.
#[derive(Debug)]
#[must_use = "an operation that is never answered counts as one of unknown outcome"]
pub struct Call(usize);

impl ClientLog {
    /// An empty log of the client with this number.
    pub fn new(client: u64) -> Self {
        ClientLog { client, operations: Vec::new() }
    }

    /// Notes that a request leaves now. To be called *before* the first byte is written.
    pub fn invoke(&mut self, key: &[u8], now: u64, action: Action) -> Call {
        self.operations.push(Operation {
            client: self.client,
            key: key.to_vec(),
            invoke: now,
            response: None,
            action,
            outcome: Outcome::Unknown,
        });
        Call(self.operations.len() - 1)
    }

    /// Notes the answer. To be called *after* its last byte was read. [`Outcome::Unknown`] leaves the operation open
    /// whenever it is reported, because it may still take effect later.
    pub fn respond(&mut self, call: Call, now: u64, outcome: Outcome) {
        let operation = &mut self.operations[call.0];
        operation.response = (outcome != Outcome::Unknown).then_some(now);
        operation.outcome = outcome;
    }

    /// How many operations were begun.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// Operations of all clients, each with an answer that fits its question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// A history without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Merges the logs of all clients.
    ///
    /// # Errors
    /// The first operation that makes no sense by itself; see [`History::push`].
    pub fn from_logs(logs: impl IntoIterator<Item = ClientLog>) -> Result<Self, Malformed> {
        let mut history = History::new();
        for operation in logs.into_iter().flat_map(|log| log.operations) {
            history.push(operation)?;
        }
        Ok(history)
    }

    /// Adds one operation; the order does not matter.
    ///
    /// # Errors
    /// [`Malformed`] for an answer that is not one to this question (a number to a put), that came before it, or that
    /// is unknown and yet has a time. This is a defect of the recorder, never of the system under test.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        let fits = operation.outcome.answers(&operation.action)
            && match operation.response {
                Some(response) => response >= operation.invoke && operation.outcome != Outcome::Unknown,
                None => operation.outcome == Outcome::Unknown,
            };
        if !fits {
            return Err(Malformed { operation: Box::new(operation) });
        }
        self.operations.push(operation);
        Ok(())
    }

    /// All operations in the order in which they were added.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

/// An operation that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The operation as it was recorded.
    pub operation: Box<Operation>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the recorded operation makes no sense: {}", self.operation)
    }
}

impl std::error::Error for Malformed {}
