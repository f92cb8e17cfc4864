//! Error replies. Their first word is a contract with clients: it says whether the command was
//! applied. The rest of the line says what happened, why, and what to do next.

use std::borrow::Cow;
use std::fmt;

use groups::ids::{GroupId, NodeId, Slot};

/// The first word of an error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Malformed, unknown, wrong arity, not an integer and the like.
    Err,
    /// Leadership is moving. Safe to send again.
    TryAgain,
    /// No quorum; nothing was proposed.
    ClusterDown,
    /// Proposed, but the outcome was not known within the limit. The only class that may have
    /// been applied.
    InDoubt,
    /// A key, value or request over the limit. The connection goes on.
    TooBig,
    /// The node is over its in-flight limit.
    Busy,
    /// Writes are refused for lack of disk or memory; reads and deletes go on.
    ReadOnly,
    /// A watch asked for changes that are gone.
    Compacted,
    /// A later holder of the lock has written the key.
    Fenced,
    /// Keys of different groups in one transaction.
    CrossSlot,
    /// Another node leads the key's group, and the client has asked to be told instead of forwarded.
    Moved,
    /// This replica's group is quarantined.
    Corrupt,
    /// The connection must authenticate first.
    NoAuth,
    /// The user may not do this.
    NoPerm,
    /// `HELLO` asked for a protocol version that is not spoken here.
    NoProto,
    /// Wrong user name or password.
    WrongPass,
    /// `EXEC` of a transaction into which something could not be queued.
    ExecAbort,
}

impl ErrorClass {
    /// The word as it goes over the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ErrorClass::Err => "ERR",
            ErrorClass::TryAgain => "TRYAGAIN",
            ErrorClass::ClusterDown => "CLUSTERDOWN",
            ErrorClass::InDoubt => "INDOUBT",
            ErrorClass::TooBig => "TOOBIG",
            ErrorClass::Busy => "BUSY",
            ErrorClass::ReadOnly => "READONLY",
            ErrorClass::Compacted => "COMPACTED",
            ErrorClass::Fenced => "FENCED",
            ErrorClass::CrossSlot => "CROSSSLOT",
            ErrorClass::Moved => "MOVED",
            ErrorClass::Corrupt => "CORRUPT",
            ErrorClass::NoAuth => "NOAUTH",
            ErrorClass::NoPerm => "NOPERM",
            ErrorClass::NoProto => "NOPROTO",
            ErrorClass::WrongPass => "WRONGPASS",
            ErrorClass::ExecAbort => "EXECABORT",
        }
    }

    /// The class that a reply's first word names, for clients.
    #[must_use]
    pub fn from_word(word: &str) -> Option<ErrorClass> {
        const ALL: [ErrorClass; 17] = [
            ErrorClass::Err,
            ErrorClass::TryAgain,
            ErrorClass::ClusterDown,
            ErrorClass::InDoubt,
            ErrorClass::TooBig,
            ErrorClass::Busy,
            ErrorClass::ReadOnly,
            ErrorClass::Compacted,
            ErrorClass::Fenced,
            ErrorClass::CrossSlot,
            ErrorClass::Moved,
            ErrorClass::Corrupt,
            ErrorClass::NoAuth,
            ErrorClass::NoPerm,
            ErrorClass::NoProto,
            ErrorClass::WrongPass,
            ErrorClass::ExecAbort,
        ];
        ALL.into_iter().find(|class| class.word() == word)
    }

    /// Whether the command may have been applied although it was answered with this error.
    #[must_use]
    pub fn maybe_applied(self) -> bool {
        self == ErrorClass::InDoubt
    }
}

/// What takes the room that a refused write would have needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The disk is under `limits.min_free_disk`.
    Disk,
    /// The live data is over `limits.max_state_bytes`.
    Memory,
}

/// One error reply: a class and one line of text without the class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    class: ErrorClass,
    text: Cow<'static, str>,
}

impl ErrorReply {
    /// An error with any class and text. Line breaks and other control characters become
    /// blanks: the reply is one line whatever a client put into it.
    pub fn new(class: ErrorClass, text: impl Into<Cow<'static, str>>) -> ErrorReply {
        let text = text.into();
        let text = match text.contains(char::is_control) {
            true => Cow::Owned(text.replace(char::is_control, " ")),
            false => text,
        };
        ErrorReply { class, text }
    }

    /// An error whose text is known when this program is built: nothing is made of it anew each time.
    #[must_use]
    pub const fn fixed(class: ErrorClass, text: &'static str) -> ErrorReply {
        ErrorReply { class, text: Cow::Borrowed(text) }
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The text behind the class.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `-ERR text`: not applied, and sending the same again would fail the same way.
    pub fn err(text: impl Into<Cow<'static, str>>) -> ErrorReply {
        ErrorReply::new(ErrorClass::Err, text)
    }

    /// `-TRYAGAIN`: leadership of `group` is moving; `why` says how that was noticed.
    #[must_use]
    pub fn try_again(group: GroupId, why: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::TryAgain,
            format!("group={group} {why}; nothing was applied; send the command again"),
        )
    }

    /// `-CLUSTERDOWN`: no quorum of `group` answers.
    #[must_use]
    pub fn cluster_down(group: GroupId, why: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::ClusterDown,
            format!("group={group} {why}; nothing was applied; see STATUS for the members that are missing"),
        )
    }

    /// `-TRYAGAIN`: this node is about to end, and the connection with it.
    #[must_use]
    pub fn ending(node: NodeId) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::TryAgain,
            format!("node {node} is ending; nothing was applied; send the command again, to another node"),
        )
    }

    /// `-INDOUBT`: this node has ended before the outcome was known.
    #[must_use]
    pub fn abandoned(node: NodeId) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::InDoubt,
            format!(
                "node {node} ends before the outcome is known; it is unknown whether the command was applied; read the \
                 key back from another node before sending it again"
            ),
        )
    }

    /// `-CLUSTERDOWN`: this node is none of the cluster's any more.
    #[must_use]
    pub fn taken_off(node: NodeId) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::ClusterDown,
            format!(
                "node {node} was taken off the cluster and serves nothing; nothing was applied; ask another node, see \
                 CLUSTER NODES"
            ),
        )
    }

    /// `-INDOUBT`: proposed, and the outcome not known in time.
    #[must_use]
    pub fn in_doubt(group: GroupId, why: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::InDoubt,
            format!(
                "group={group} {why}; it is unknown whether the command was applied; \
                 read the key back before sending it again"
            ),
        )
    }

    /// `-TOOBIG`: `what` has `length` bytes and `limit`, named `key` in the configuration,
    /// allows `max`.
    #[must_use]
    pub fn too_big(what: &str, length: u64, max: u64, key: &str) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::TooBig,
            format!(
                "max={max} {what} has {length} bytes; nothing was applied; the limit is {key} in config.toml"
            ),
        )
    }

    /// `-BUSY`: the node is over a limit of work in flight.
    #[must_use]
    pub fn busy(why: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(ErrorClass::Busy, format!("{why}; nothing was applied; send the command again later"))
    }

    /// `-READONLY`: writes are refused until there is room again.
    #[must_use]
    pub fn read_only(shortage: Shortage) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::ReadOnly,
            match shortage {
                Shortage::Disk => {
                    "nospace free disk is under limits.min_free_disk; nothing was applied; \
                     reads and deletes go on; free disk space and writes resume by themselves"
                }
                Shortage::Memory => {
                    "memory live data is over limits.max_state_bytes; nothing was applied; \
                     reads and deletes go on; delete keys or raise the limit and writes resume by themselves"
                }
            },
        )
    }

    /// `-COMPACTED`: changes of `group` that a watch asked for are gone; behind revision `min` they are
    /// all there.
    #[must_use]
    pub fn compacted(min: u64, group: GroupId, why: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::Compacted,
            format!("min={min} group={group} older changes are gone: {why}"),
        )
    }

    /// `-FENCED`: a key was written with `token`, which is larger than the one that came.
    #[must_use]
    pub fn fenced(token: u64) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::Fenced,
            format!(
                "token={token} a newer holder of the lock has written with it; nothing was applied; the lock is lost: \
                 take it again, and use the token that it then has"
            ),
        )
    }

    /// `-CROSSSLOT`: a transaction over keys of more than one group; two of them with theirs.
    #[must_use]
    pub fn cross_slot(one: (&[u8], GroupId), other: (&[u8], GroupId)) -> ErrorReply {
        let shown = |(key, group): (&[u8], GroupId)| format!("'{}' is in group {group}", quoted(key));
        ErrorReply::new(
            ErrorClass::CrossSlot,
            format!(
                "Keys in request don't hash to the same group: {} and {}; nothing was applied; \
                 give them one {{tag}}, as in {{user7}}:name and {{user7}}:mail, and see WHERE key",
                shown(one),
                shown(other)
            ),
        )
    }

    /// `-MOVED`: the node that leads the key's group; nothing was applied here. Cluster clients read slot and
    /// address, so nothing follows them.
    #[must_use]
    pub fn moved(slot: Slot, address: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(ErrorClass::Moved, format!("{slot} {address}"))
    }

    /// `-CORRUPT`: this replica does not trust its own data of `group`.
    #[must_use]
    pub fn corrupt(group: GroupId, why: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::Corrupt,
            format!(
                "group={group} {why}; nothing was applied; this replica is quarantined until it is rebuilt; \
                 another node may answer; see STATUS"
            ),
        )
    }

    /// `-NOAUTH`: the connection has not authenticated.
    #[must_use]
    pub fn no_auth() -> ErrorReply {
        ErrorReply::new(ErrorClass::NoAuth, "Authentication required.")
    }

    /// `-NOPERM`: the user may not run this command.
    #[must_use]
    pub fn no_perm(what: impl fmt::Display) -> ErrorReply {
        ErrorReply::new(
            ErrorClass::NoPerm,
            format!("this user has no permissions to {what}; nothing was applied"),
        )
    }

    /// `-NOPROTO`: neither RESP2 nor RESP3.
    #[must_use]
    pub fn no_proto() -> ErrorReply {
        ErrorReply::new(ErrorClass::NoProto, "unsupported protocol version")
    }

    /// `-WRONGPASS`: wrong user name or password.
    #[must_use]
    pub fn wrong_pass() -> ErrorReply {
        ErrorReply::new(ErrorClass::WrongPass, "invalid username-password pair or user is disabled.")
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.class.word(), self.text)
    }
}

impl std::error::Error for ErrorReply {}

/// Client bytes as they may stand in an error: readable, quoted by the caller, at most 128
/// characters.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 128;
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_is_in_it() {
        let error = ErrorReply::err("a\r\nb\0c\u{85}d");
        assert_eq!(error.to_string(), "ERR a  b c d");
        assert_eq!(quoted(b"x\r\n+OK"), "x  +OK");
        assert_eq!(quoted(&[0xff; 4096]).chars().count(), 128);
    }

    #[test]
    fn a_watch_that_comes_too_late_hears_from_where_it_may_begin() {
        let line = ErrorReply::compacted(17, GroupId(5), "begin anew").to_string();
        assert_eq!(line, "COMPACTED min=17 group=5 older changes are gone: begin anew");
        assert_eq!(ErrorClass::from_word("COMPACTED"), Some(ErrorClass::Compacted));
    }

    #[test]
    fn every_class_names_itself_and_what_was_applied() {
        let group = GroupId(5);
        for (error, start) in [
            (ErrorReply::try_again(group, "leader moving"), "TRYAGAIN group=5 "),
            (ErrorReply::cluster_down(group, "1 of 3 members answer"), "CLUSTERDOWN group=5 "),
            (ErrorReply::in_doubt(group, "no outcome within 5s"), "INDOUBT group=5 "),
            (ErrorReply::too_big("the value", 9, 8, "limits.max_value"), "TOOBIG max=8 "),
            (ErrorReply::busy("64MiB are in flight"), "BUSY "),
            (ErrorReply::read_only(Shortage::Disk), "READONLY nospace "),
            (ErrorReply::read_only(Shortage::Memory), "READONLY memory "),
            (ErrorReply::fenced(34), "FENCED token=34 "),
            (ErrorReply::cross_slot((b"a", group), (b"b", GroupId(6))), "CROSSSLOT "),
            (ErrorReply::corrupt(group, "checksum mismatch"), "CORRUPT group=5 "),
            (ErrorReply::no_perm("run this"), "NOPERM "),
        ] {
            let line = error.to_string();
            assert!(line.starts_with(start), "{line}");
            assert_eq!(line.contains("nothing was applied"), !error.class().maybe_applied(), "{line}");
            let word = line.split(' ').next().expect("a first word");
            assert_eq!(ErrorClass::from_word(word), Some(error.class()));
        }
    }
}
