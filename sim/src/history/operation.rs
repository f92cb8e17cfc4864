//! One client operation: what was asked, what came back, and when.

use std::fmt;

/// What a client asked of one key. The key stands in [`Operation::key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the value: [`Outcome::Value`], or [`Outcome::Versioned`] when the revision was asked for too.
    Get,
    /// Write unconditionally: [`Outcome::Done`] or [`Outcome::Revision`].
    Put(Vec<u8>),
    /// Remove the key: [`Outcome::Flag`] (did it exist?), or [`Outcome::Done`] where the client did not look.
    Delete,
    /// Write if the key is absent: [`Outcome::Flag`], or [`Outcome::Revision`] when it was written.
    SetNx(Vec<u8>),
    /// Write `new` if the value is `old`: [`Outcome::Flag`] or [`Outcome::Revision`]. An absent key equals no value.
    Cas {
        /// The value the key must have.
        old: Vec<u8>,
        /// The value it gets.
        new: Vec<u8>,
    },
    /// Write if the revision of the key is `revision` (0: if it is absent): [`Outcome::Flag`] or [`Outcome::Revision`].
    PutIfRev {
        /// The revision the key must have.
        revision: u64,
        /// The value it gets.
        value: Vec<u8>,
    },
    /// Add to the decimal number stored (absent counts as 0): [`Outcome::Number`] with the sum.
    Add(i64),
    /// Append to the value (absent counts as empty): [`Outcome::Number`] with the new length.
    Append(Vec<u8>),
    /// Write, and return what was there: [`Outcome::Value`].
    GetSet(Vec<u8>),
    /// Remove, and return what was there: [`Outcome::Value`].
    GetDel,
    /// Write a value that may vanish by itself: [`Outcome::Done`] or [`Outcome::Revision`].
    PutFor {
        /// The value.
        value: Vec<u8>,
        /// The key may vanish from so long after the invocation on, and never before.
        life: u64,
    },
    /// Let the key vanish from so long after the invocation on, or keep it for good:
    /// [`Outcome::Flag`] (did it exist?).
    Renew(Option<u64>),
}

/// What the client learnt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No answer, or one that leaves it open (`-INDOUBT`): took effect at any time after the invocation, or never.
    Unknown,
    /// Refused with a promise that nothing was applied. Says nothing and is not judged.
    NotApplied,
    /// Acknowledged.
    Done,
    /// The value read or replaced; `None` is an absent key.
    Value(Option<Vec<u8>>),
    /// The value read with its revision; `None` is an absent key.
    Versioned(Option<(Vec<u8>, u64)>),
    /// `true`: the condition held and the command was applied (or the deleted key existed).
    Flag(bool),
    /// A sum or a length.
    Number(i64),
    /// Applied; the key's new revision.
    Revision(u64),
}

impl Outcome {
    /// Whether `action` can be answered in this form at all.
    pub(super) fn answers(&self, action: &Action) -> bool {
        use Outcome as O;
        match action {
            _ if matches!(self, O::Unknown | O::NotApplied) => true,
            Action::Get => matches!(self, O::Value(_) | O::Versioned(_)),
            Action::Put(_) | Action::PutFor { .. } => matches!(self, O::Done | O::Revision(_)),
            Action::Delete => matches!(self, O::Flag(_) | O::Done),
            Action::SetNx(_) | Action::Cas { .. } | Action::PutIfRev { .. } => {
                matches!(self, O::Flag(_) | O::Revision(_))
            }
            Action::Add(_) | Action::Append(_) => matches!(self, O::Number(_)),
            Action::GetSet(_) | Action::GetDel => matches!(self, O::Value(_)),
            Action::Renew(_) => matches!(self, O::Flag(_)),
        }
    }
}

/// One operation of one client on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. Only for the reader of a story: two operations of a client may overlap (a pipeline).
    pub client: u64,
    /// The key concerned.
    pub key: Vec<u8>,
    /// When the request left, on the clock common to all clients.
    pub invoke: u64,
    /// When the answer came; `invoke <= response`. `None` exactly when the outcome is [`Outcome::Unknown`].
    pub response: Option<u64>,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.response {
            Some(response) => write!(f, "[{} .. {response}]", self.invoke)?,
            None => write!(f, "[{} .. ?]", self.invoke)?,
        }
        write!(f, " client {}: {} -> {}", self.client, self.action, self.outcome)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Get => write!(f, "get"),
            Action::Put(value) => write!(f, "put {}", Quoted(value)),
            Action::Delete => write!(f, "delete"),
            Action::SetNx(value) => write!(f, "put-if-absent {}", Quoted(value)),
            Action::Cas { old, new } => write!(f, "cas {} to {}", Quoted(old), Quoted(new)),
            Action::PutIfRev { revision, value } => {
                write!(f, "put {} if revision {revision}", Quoted(value))
            }
            Action::Add(delta) => write!(f, "add {delta}"),
            Action::Append(suffix) => write!(f, "append {}", Quoted(suffix)),
            Action::GetSet(value) => write!(f, "get-and-put {}", Quoted(value)),
            Action::GetDel => write!(f, "get-and-delete"),
            Action::PutFor { value, life } => write!(f, "put {} for {life}", Quoted(value)),
            Action::Renew(Some(life)) => write!(f, "vanish in {life}"),
            Action::Renew(None) => write!(f, "stay for good"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Unknown => write!(f, "outcome unknown"),
            Outcome::NotApplied => write!(f, "not applied"),
            Outcome::Done => write!(f, "ok"),
            Outcome::Value(None) | Outcome::Versioned(None) => write!(f, "nil"),
            Outcome::Value(Some(value)) => write!(f, "{}", Quoted(value)),
            Outcome::Versioned(Some((value, revision))) => {
                write!(f, "{} at revision {revision}", Quoted(value))
            }
            Outcome::Flag(flag) => write!(f, "{}", if *flag { "yes" } else { "no" }),
            Outcome::Number(number) => write!(f, "{number}"),
            Outcome::Revision(revision) => write!(f, "ok, revision {revision}"),
        }
    }
}

/// Bytes as a person reads them: quoted, escaped, and cut where they get long.
pub(super) struct Quoted<'a>(pub(super) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if self.0.len() > SHOWN {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}
