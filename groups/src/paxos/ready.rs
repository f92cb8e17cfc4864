//! What a turn of the core asks its driver to do. The type itself says what may leave at once
//! and what only after the disk has it.

use super::message::{Entry, Envelope};
use crate::ids::{GroupId, InstanceId, NodeId};
use crate::log::{Disk, LogReader, ReadError, Record};

/// Chosen values that a peer, or a group that rebuilds its state, wants and that only the log
/// still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// The group.
    pub group: GroupId,
    /// The first instance wanted.
    pub from: InstanceId,
    /// The last that may be sent: the end of the chosen prefix.
    pub to: InstanceId,
    /// Who wants them.
    pub reader: NodeId,
    /// The session that they are for, 0 for the own group.
    pub session: u64,
    /// About so many bytes of values at most, but at least one value.
    pub max_bytes: usize,
    /// To be done only once the records of this turn, and all before, are synced: until then an
    /// older value of the same instance may be the newest that the log has.
    pub after_sync: bool,
}

/// What the log has for a [`LogRead`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFound {
    /// Values without a gap from the first one wanted on; none when there is nothing.
    Entries(Vec<Entry>),
    /// The log begins only with this instance: what lies before it is in the checkpoint.
    Begins(InstanceId),
}

impl LogRead {
    /// Does it.
    ///
    /// # Errors
    /// When the log cannot be read there.
    pub fn run<D: Disk>(&self, log: &mut LogReader<D>) -> Result<LogFound, ReadError> {
        match log.read(self.group, self.from, self.to, self.max_bytes) {
            Ok(found) => {
                let entry = |(instance, ballot, value)| Entry { instance, ballot, value };
                Ok(LogFound::Entries(found.into_iter().map(entry).collect()))
            }
            Err(ReadError::NotHere { first }) => Ok(LogFound::Begins(first)),
            Err(e) => Err(e),
        }
    }
}

/// The output of one turn over any number of groups. The driver
/// 1. sends `send_now`,
/// 2. hands `records` to the log,
/// 3. sends `send_after_sync` once those records, and all records of earlier turns, are synced;
///    envelopes to the node itself come back to it then as received messages,
/// 4. does `log_reads` in their order, beside all this and without haste (those that say
///    `after_sync` not before 3), and hands the results back.
#[derive(Debug, Default)]
pub struct Ready {
    /// Promises nothing that a crash could take back.
    pub send_now: Vec<Envelope>,
    /// To be written, in this order.
    pub records: Vec<Record>,
    /// True only once the records are on the disk.
    pub send_after_sync: Vec<Envelope>,
    /// Served from the log, off the hot path.
    pub log_reads: Vec<LogRead>,
    /// Nodes whose leaders a group has left. To be told to [`Peers::leave`](crate::peers::Peers::leave)
    /// before the next word of any group.
    pub left: Vec<NodeId>,
}

impl Ready {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.send_now.is_empty()
            && self.records.is_empty()
            && self.send_after_sync.is_empty()
            && self.log_reads.is_empty()
            && self.left.is_empty()
    }
}
