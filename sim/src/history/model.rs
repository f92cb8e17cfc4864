//! The sequential model: what one key does when operations come one after another.

use std::collections::HashMap;

/// A value known by number. Equal values have equal numbers, so that states compare and hash as two words.
pub(super) type Value = u32;

/// The absent key.
pub(super) const NIL: Value = 0;

/// All values that occur in the history of one key or arise while it is searched.
pub(super) struct Values {
    bytes: Vec<Vec<u8>>,
    numbers: HashMap<Vec<u8>, Value>,
    /// Total length of `bytes`; the search stops before appends grow this without limit.
    pub(super) size: usize,
}

impl Values {
    pub(super) fn new() -> Self {
        Values { bytes: vec![Vec::new()], numbers: HashMap::new(), size: 0 }
    }

    pub(super) fn intern(&mut self, bytes: &[u8]) -> Value {
        if let Some(&value) = self.numbers.get(bytes) {
            return value;
        }
        let value = Value::try_from(self.bytes.len()).expect("fewer than 2^32 values on one key");
        self.size += bytes.len();
        self.bytes.push(bytes.to_vec());
        self.numbers.insert(bytes.to_vec(), value);
        value
    }

    /// How many there are, [`NIL`] included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// `None` for [`NIL`].
    pub(super) fn get(&self, value: Value) -> Option<&[u8]> {
        (value != NIL).then(|| self.bytes[value as usize].as_slice())
    }
}

/// [`super::Action`] with its values interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Get,
    Put(Value),
    Delete,
    SetNx(Value),
    Cas {
        old: Value,
        new: Value,
    },
    PutIfRev {
        revision: u64,
        value: Value,
    },
    Add(i64),
    Append(Value),
    GetSet(Value),
    GetDel,
    /// The key may vanish from `until` on.
    PutFor {
        value: Value,
        until: u64,
    },
    /// The same of a key that is there; 0: never.
    Renew {
        until: u64,
    },
}

/// What the answer demands of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Expect {
    /// No answer, but the operation took effect: a condition held, a deleted key existed.
    Effect,
    Done,
    Value(Value),
    Versioned(Value, u64),
    Flag(bool),
    Number(i64),
    Revision(u64),
}

/// What is known of a key's revision. Revisions rise with every write; a client that did not ask for one leaves the
/// number open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Revision {
    /// No operation on this key asks for revisions or reports one.
    Untracked,
    /// Somebody was told this number.
    Exactly(u64),
    /// Nobody was told. A present key's is larger than this, an absent key's next one will be.
    Above(u64),
}

/// One key at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) value: Value,
    pub(super) revision: Revision,
    /// The key may vanish by itself from here on; 0: never.
    pub(super) until: u64,
    /// A key has vanished, and not before this: whatever comes now does not either.
    pub(super) since: u64,
}

impl State {
    /// An absent key before the history begins.
    pub(super) fn absent(track_revisions: bool) -> State {
        let revision = if track_revisions { Revision::Above(0) } else { Revision::Untracked };
        State { value: NIL, revision, until: 0, since: 0 }
    }

    /// The state after `step`, which takes effect no later than `by`, if it can be answered as `expect` says. Where
    /// that does not fit a key that is there, the key may have vanished before. Where it fits, it need not have: what
    /// is there may vanish later, so nothing that follows is lost. (Only sums and texts of unknown outcome come out
    /// differently; the search tries both.)
    pub(super) fn after_by(self, step: Step, expect: Expect, by: u64, values: &mut Values) -> Option<State> {
        if by < self.since {
            return None;
        }
        self.after(step, expect, values).or_else(|| self.vanished(by)?.after(step, expect, values))
    }

    /// The state without the key, if it can have vanished no later than `by`.
    pub(super) fn vanished(self, by: u64) -> Option<State> {
        let may = self.value != NIL && self.until != 0 && self.until <= by;
        may.then(|| State { since: self.since.max(self.until), ..self.removed() })
    }

    /// The state after `step` if it can be answered as `expect` says, else `None`.
    pub(super) fn after(self, step: Step, expect: Expect, values: &mut Values) -> Option<State> {
        match step {
            Step::Get => self.read(expect),
            Step::Put(value) => self.write(value, expect),
            Step::Delete => self.delete(expect),
            Step::SetNx(value) => self.write_if(self.value == NIL, value, expect),
            Step::Cas { old, new } => self.write_if(self.value == old, new, expect),
            Step::PutIfRev { revision, value } => self.write_if_revision(revision, value, expect),
            Step::Add(delta) => {
                let sum = self.number(values)?.checked_add(delta)?;
                self.derive(sum, sum.to_string().as_bytes(), expect, values)
            }
            Step::Append(suffix) => {
                let mut bytes = values.get(self.value).unwrap_or_default().to_vec();
                bytes.extend_from_slice(values.get(suffix).unwrap_or_default());
                self.derive(i64::try_from(bytes.len()).ok()?, &bytes, expect, values)
            }
            Step::GetSet(value) => self.exchange(value, expect),
            Step::PutFor { value, until } => self.write(value, expect).map(|state| State { until, ..state }),
            Step::Renew { until } => match expect {
                Expect::Flag(false) => (self.value == NIL).then_some(self),
                Expect::Flag(true) | Expect::Effect => (self.value != NIL).then_some(State { until, ..self }),
                _ => None,
            },
            Step::GetDel if expect == Expect::Effect && self.value == NIL => None,
            Step::GetDel => self.exchange(NIL, expect),
        }
    }

    fn read(self, expect: Expect) -> Option<State> {
        match expect {
            Expect::Value(value) => (self.value == value).then_some(self),
            Expect::Versioned(NIL, _) => (self.value == NIL).then_some(self),
            Expect::Versioned(value, revision) => {
                let fits = self.value == value && self.revision.may_be(revision);
                fits.then_some(State { revision: Revision::Exactly(revision), ..self })
            }
            _ => None,
        }
    }

    fn delete(self, expect: Expect) -> Option<State> {
        let existed = self.value != NIL;
        let fits = match expect {
            Expect::Flag(flag) => flag == existed,
            Expect::Effect => existed,
            Expect::Done => true,
            _ => false,
        };
        fits.then(|| self.removed())
    }

    fn write_if(self, condition: bool, value: Value, expect: Expect) -> Option<State> {
        match expect {
            Expect::Flag(false) => (!condition).then_some(self),
            _ if condition => self.write(value, expect),
            _ => None,
        }
    }

    fn write_if_revision(self, wanted: u64, value: Value, expect: Expect) -> Option<State> {
        let may_hold = match self.value {
            NIL => wanted == 0,
            _ => self.revision.may_be(wanted),
        };
        let may_fail = match self.value {
            NIL => wanted != 0,
            // With an open revision this admits a little more than the truth: it is not remembered that the
            // revision was not `wanted`.
            _ => self.revision != Revision::Exactly(wanted),
        };
        match expect {
            Expect::Flag(false) => may_fail.then_some(self),
            _ if !may_hold => None,
            _ if self.value == NIL => self.write(value, expect),
            _ => State { revision: Revision::Exactly(wanted), ..self }.write(value, expect),
        }
    }

    fn exchange(self, value: Value, expect: Expect) -> Option<State> {
        match expect {
            Expect::Value(old) if old != self.value => None,
            Expect::Value(_) | Expect::Effect if value == NIL => Some(self.removed()),
            Expect::Value(_) | Expect::Effect => self.write(value, Expect::Done),
            _ => None,
        }
    }

    fn derive(self, answer: i64, bytes: &[u8], expect: Expect, values: &mut Values) -> Option<State> {
        match expect {
            Expect::Number(number) if number != answer => None,
            Expect::Number(_) | Expect::Effect => {
                let until = self.until;
                self.write(values.intern(bytes), Expect::Done).map(|state| State { until, ..state })
            }
            _ => None,
        }
    }

    fn write(self, value: Value, expect: Expect) -> Option<State> {
        let revision = match expect {
            Expect::Done | Expect::Effect | Expect::Flag(true) => self.risen(),
            Expect::Revision(revision) if revision > self.floor() => Revision::Exactly(revision),
            _ => return None,
        };
        Some(State { value, revision, until: 0, since: self.since })
    }

    fn removed(self) -> State {
        if self.value == NIL {
            return self;
        }
        State { value: NIL, revision: self.risen(), until: 0, since: self.since }
    }

    fn risen(self) -> Revision {
        match self.revision {
            Revision::Untracked => Revision::Untracked,
            Revision::Exactly(_) | Revision::Above(_) => Revision::Above(self.floor()),
        }
    }

    /// The least that the last revision of this key can have been.
    fn floor(self) -> u64 {
        match self.revision {
            Revision::Untracked => 0,
            Revision::Exactly(current) => current,
            Revision::Above(below) if self.value == NIL => below,
            Revision::Above(below) => below + 1,
        }
    }

    /// The stored number as Redis reads it: a decimal `i64` in its shortest form.
    fn number(self, values: &Values) -> Option<i64> {
        let Some(bytes) = values.get(self.value) else { return Some(0) };
        let text = std::str::from_utf8(bytes).ok()?;
        let number: i64 = text.parse().ok()?;
        (number.to_string() == text).then_some(number)
    }
}

impl Revision {
    fn may_be(self, revision: u64) -> bool {
        match self {
            Revision::Untracked => true,
            Revision::Exactly(current) => current == revision,
            Revision::Above(below) => revision > below,
        }
    }
}
