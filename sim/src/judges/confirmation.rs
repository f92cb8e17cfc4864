//! Whoever confirms a leadership has promised nothing above it: a read barrier counts such
//! words (FAULTS, rule 12; Ongaro, "Consensus", section 6.4). What is on the sender's disk was in
//! its memory before, so a durable promise above the ballot makes the word a lie.

use groups::paxos::Message;

use super::{Judge, Ledger, Sent, Verdict};

/// See the module.
pub struct Confirmation;

impl Judge for Confirmation {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let Message::AdvanceReply(m) = sent.message else { return Ok(()) };
        let Some(disk) = ledger.group(sent.group).shadow(sent.from) else { return Ok(()) };
        if disk.promised > m.ballot {
            return Err(format!(
                "node {} confirms the leadership {} of group {} and has promised {}",
                sent.from, m.ballot, sent.group, disk.promised
            ));
        }
        Ok(())
    }
}
