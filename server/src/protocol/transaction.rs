//! Transactions: several data commands of one group as one, and what a connection remembers
//! between `MULTI` and `EXEC`.
//!
//! `WATCH` notes the revision that each key has (0 for none), and `EXEC` makes the watched revisions
//! guards of the queued commands: if all of them hold, the commands are executed, else nothing is,
//! and the answer is a null array. `MULTIOP` says guards and commands in one request.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::kv::transaction::MAX_PARTS;

use super::command::{Command, LocalCommand};
use super::data::{Condition, DataCommand};
use super::error::{ErrorClass, ErrorReply};
use super::reply::Reply;

/// What must hold of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key.
    pub key: Bytes,
    /// What must hold of it.
    pub condition: Condition,
}

/// Data commands that are executed at one instant, all in one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold for `then`.
    pub guards: Vec<Guard>,
    /// Executed when every guard holds. Neither list has a transaction or a `WATCH` in it.
    pub then: Vec<DataCommand>,
    /// Executed when one does not.
    pub otherwise: Vec<DataCommand>,
    /// How it is answered.
    pub form: TransactionForm,
}

/// How a transaction is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionForm {
    /// As `EXEC`: an array with an answer per queued command, or a null array when a guard did not
    /// hold. Commands that the connection answers by itself stand among the others, each with its
    /// place in the queue, ascending.
    Exec(Vec<(usize, LocalCommand)>),
    /// As `MULTIOP`: 1 or 0, whether the guards held, and the answers of the list that was executed.
    Branches,
}

/// A command about the connection's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionCommand {
    /// `MULTI`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// `WATCH`.
    Watch(Vec<Bytes>),
    /// `UNWATCH`.
    Unwatch,
}

impl Transaction {
    /// Everything in it.
    pub fn commands(&self) -> impl Iterator<Item = &DataCommand> {
        self.then.iter().chain(&self.otherwise)
    }

    /// Whether it may change data.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.commands().any(DataCommand::is_write)
    }

    /// Whether it can only free space.
    #[must_use]
    pub fn frees(&self) -> bool {
        self.commands().all(|command| !command.is_write() || command.frees())
    }

    /// Whether no group is needed to answer it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.guards.is_empty() && self.then.is_empty() && self.otherwise.is_empty()
    }
}

/// What an entry of the queue costs beside the bytes of its request.
const ENTRY_COST: usize = 128;

/// A connection's transaction: what is watched, and what is queued since `MULTI`.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Keys and the revisions that they had when they were first watched.
    watched: BTreeMap<Bytes, u64>,
    /// What the watched keys cost.
    watched_bytes: usize,
    queued: Option<Queued>,
}

#[derive(Clone, Debug, Default)]
struct Queued {
    data: Vec<DataCommand>,
    locals: Vec<(usize, LocalCommand)>,
    /// What they cost: at least what they take as one command of a group.
    bytes: usize,
    /// A command could not be queued: `EXEC` will say so.
    broken: bool,
}

impl Queued {
    fn len(&self) -> usize {
        self.data.len() + self.locals.len()
    }

    /// Nothing of it will be executed, so nothing is kept.
    fn spoil(&mut self) {
        *self = Queued { broken: true, ..Queued::default() };
    }
}

impl Queue {
    /// Whether this command is queued now and not executed.
    #[must_use]
    pub fn takes(&self, command: &Command) -> bool {
        use TransactionCommand::{Discard, Exec, Multi, Watch};
        self.queued.is_some()
            && !matches!(
                command,
                Command::Transaction(Multi | Exec | Discard | Watch(_))
                    | Command::Local(LocalCommand::Quit | LocalCommand::Reset)
            )
    }

    /// `MULTI`.
    ///
    /// # Errors
    /// Within another one, which goes on.
    pub fn begin(&mut self) -> Result<Reply, ErrorReply> {
        if self.queued.is_some() {
            return Err(ErrorReply::err("MULTI calls can not be nested"));
        }
        self.queued = Some(Queued::default());
        Ok(Reply::ok())
    }

    /// Queues a command whose request took `bytes`; all that is watched and queued may take `max`.
    ///
    /// # Errors
    /// When there is no room, or the command cannot be part of a transaction. The transaction is then
    /// aborted at `EXEC`.
    pub fn push(&mut self, command: Command, bytes: usize, max: usize) -> Result<Reply, ErrorReply> {
        let parts = self.watched.len();
        let watched = self.watched_bytes;
        let Some(queued) = &mut self.queued else { return Err(ErrorReply::err("EXEC without MULTI")) };
        if queued.broken {
            return Ok(answer_queued());
        }
        queued.bytes += bytes + ENTRY_COST;
        let taken = if parts + queued.len() >= MAX_PARTS {
            Err(too_many_parts())
        } else if watched + queued.bytes > max {
            Err(too_many_bytes(watched + queued.bytes, max))
        } else {
            let place = queued.len();
            match command {
                Command::Data(data) => queueable(&data).map(|()| queued.data.push(data)),
                Command::Local(local) if is_queueable(&local) => {
                    queued.locals.push((place, local));
                    Ok(())
                }
                // `UNWATCH`: it forgets what `EXEC` forgets anyway.
                Command::Transaction(_) => {
                    queued.locals.push((place, LocalCommand::Nothing));
                    Ok(())
                }
                Command::Local(_) | Command::Node(_) | Command::Watch(_) => Err(not_allowed("this command")),
            }
        };
        match taken {
            Ok(()) => Ok(answer_queued()),
            Err(error) => {
                queued.spoil();
                Err(error)
            }
        }
    }

    /// A request could not be understood or was refused: a transaction that is under way is aborted
    /// at `EXEC`.
    pub fn fail(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.spoil();
        }
    }

    /// `EXEC`: what is to be executed. Nothing is queued and nothing watched from here on.
    ///
    /// # Errors
    /// Without `MULTI`, and when something could not be queued.
    pub fn finish(&mut self) -> Result<Transaction, ErrorReply> {
        let Some(Queued { data, locals, broken, .. }) = self.queued.take() else {
            return Err(ErrorReply::err("EXEC without MULTI"));
        };
        let watched = std::mem::take(self).watched;
        if broken {
            return Err(ErrorReply::new(
                ErrorClass::ExecAbort,
                "Transaction discarded because of previous errors.",
            ));
        }
        let guard = |(key, revision)| Guard { key, condition: Condition::Revision(revision) };
        Ok(Transaction {
            guards: watched.into_iter().map(guard).collect(),
            then: data,
            otherwise: Vec::new(),
            form: TransactionForm::Exec(locals),
        })
    }

    /// `DISCARD`.
    ///
    /// # Errors
    /// Without `MULTI`.
    pub fn discard(&mut self) -> Result<Reply, ErrorReply> {
        if self.queued.is_none() {
            return Err(ErrorReply::err("DISCARD without MULTI"));
        }
        self.clear();
        Ok(Reply::ok())
    }

    /// Whether so many more keys may be watched; all that is watched and queued may take `max`.
    ///
    /// # Errors
    /// Within `MULTI`, whose commands see no answer before `EXEC`; and when there is no room. Nothing
    /// more is watched then.
    pub fn may_watch(&self, keys: &[Bytes], max: usize) -> Result<(), ErrorReply> {
        if self.queued.is_some() {
            return Err(ErrorReply::err("WATCH inside MULTI is not allowed"));
        }
        if self.watched.len() + keys.len() > MAX_PARTS {
            return Err(too_many_parts());
        }
        let bytes = self.watched_bytes + keys.iter().map(|key| key.len() + ENTRY_COST).sum::<usize>();
        if bytes > max { Err(too_many_bytes(bytes, max)) } else { Ok(()) }
    }

    /// Notes the revisions that keys have. What is watched already keeps its first one.
    pub fn watch(&mut self, seen: impl IntoIterator<Item = (Bytes, u64)>) {
        for (key, revision) in seen {
            if !self.watched.contains_key(&key) {
                self.watched_bytes += key.len() + ENTRY_COST;
                // A copy: the key would keep the whole buffer alive that it was read into.
                self.watched.insert(Bytes::copy_from_slice(&key), revision);
            }
        }
    }

    /// `UNWATCH`.
    pub fn unwatch(&mut self) {
        self.watched.clear();
        self.watched_bytes = 0;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Queue::default();
    }
}

fn answer_queued() -> Reply {
    Reply::Simple("QUEUED".into())
}

fn too_many_parts() -> ErrorReply {
    ErrorReply::err(format!(
        "a transaction has at most {MAX_PARTS} watched keys, guards and commands; nothing was applied; \
         use several transactions"
    ))
}

fn too_many_bytes(bytes: usize, max: usize) -> ErrorReply {
    ErrorReply::too_big(
        "the transaction",
        bytes as u64,
        max as u64,
        "the smaller of limits.max_inflight_bytes and half of storage.segment_size",
    )
}

fn not_allowed(what: &str) -> ErrorReply {
    ErrorReply::err(format!(
        "{what} is not allowed inside a transaction; nothing was applied; send it before MULTI or behind EXEC"
    ))
}

fn queueable(data: &DataCommand) -> Result<(), ErrorReply> {
    match data {
        DataCommand::One(_) | DataCommand::Many(_) | DataCommand::Size | DataCommand::Fenced { .. } => Ok(()),
        DataCommand::Transaction(_) => Err(not_allowed("MULTIOP")),
        DataCommand::Revisions(_) => Err(not_allowed("WATCH")),
        DataCommand::Once { .. } => Err(not_allowed("REQ")),
        DataCommand::Ordered(_) => Err(not_allowed("a read of many keys")),
    }
}

/// Whether a local command only says something. One that changes the connection would have to be
/// undone when a watched key has changed.
fn is_queueable(local: &LocalCommand) -> bool {
    match local {
        LocalCommand::Ping(_)
        | LocalCommand::Echo(_)
        | LocalCommand::ClientId
        | LocalCommand::ClientGetName
        | LocalCommand::ClientInfo
        | LocalCommand::Nothing
        | LocalCommand::Table(_)
        | LocalCommand::ConfigGet(_)
        | LocalCommand::Help(_)
        | LocalCommand::Time
        | LocalCommand::KeySlot(_) => true,
        LocalCommand::Hello(_)
        | LocalCommand::Auth(_)
        | LocalCommand::ClientSetName(_)
        | LocalCommand::ClientLibraryName(_)
        | LocalCommand::ClientLibraryVersion(_)
        | LocalCommand::Redirect(_)
        | LocalCommand::Reset
        | LocalCommand::Quit => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Args, SizeLimits};

    const SIZES: SizeLimits = SizeLimits { max_key: 64, max_value: 64 };

    fn command(line: &str) -> Command {
        Command::parse(&Args::from_words(line.split(' ')), &SIZES).expect(line)
    }

    fn say(queue: &mut Queue, line: &str) -> String {
        let reply: Reply = match command(line) {
            command if queue.takes(&command) => queue.push(command, line.len(), 4096).into(),
            Command::Transaction(TransactionCommand::Multi) => queue.begin().into(),
            Command::Transaction(TransactionCommand::Discard) => queue.discard().into(),
            Command::Transaction(TransactionCommand::Watch(keys)) => match queue.may_watch(&keys, 4096) {
                Ok(()) => {
                    queue.watch((7..).zip(keys).map(|(revision, key)| (key, revision)));
                    Reply::ok()
                }
                Err(error) => error.into(),
            },
            Command::Transaction(TransactionCommand::Unwatch) => {
                queue.unwatch();
                Reply::ok()
            }
            Command::Transaction(TransactionCommand::Exec) => match queue.finish() {
                Ok(transaction) => return format!("{transaction:?}"),
                Err(error) => error.into(),
            },
            other => return format!("executed: {other:?}"),
        };
        String::from_utf8_lossy(&reply.to_bytes(crate::protocol::Version::Resp2)).trim_end().to_owned()
    }

    #[test]
    fn the_words_are_those_of_redis() {
        let mut queue = Queue::default();
        for (line, expected) in [
            ("EXEC", "-ERR EXEC without MULTI"),
            ("DISCARD", "-ERR DISCARD without MULTI"),
            ("UNWATCH", "+OK"),
            ("MULTI", "+OK"),
            ("MULTI", "-ERR MULTI calls can not be nested"),
            ("WATCH a", "-ERR WATCH inside MULTI is not allowed"),
            ("SET a 1", "+QUEUED"),
            ("UNWATCH", "+QUEUED"),
            ("PING", "+QUEUED"),
            ("DISCARD", "+OK"),
            ("EXEC", "-ERR EXEC without MULTI"),
        ] {
            assert_eq!(say(&mut queue, line), expected, "{line}");
        }
    }

    #[test]
    fn a_transaction_has_what_was_queued_in_its_order() {
        let mut queue = Queue::default();
        for line in ["WATCH a b", "WATCH c a", "MULTI", "PING", "SET a 1", "ECHO x", "INCR b"] {
            say(&mut queue, line);
        }
        let transaction = queue.finish().expect("a transaction");
        let guard = |key: &'static str, revision| Guard {
            key: Bytes::from_static(key.as_bytes()),
            condition: Condition::Revision(revision),
        };
        // What was watched twice keeps what was seen first.
        assert_eq!(transaction.guards, [guard("a", 7), guard("b", 8), guard("c", 7)]);
        assert_eq!(transaction.then.len(), 2);
        let locals = vec![(0, LocalCommand::Ping(None)), (2, LocalCommand::Echo("x".into()))];
        assert_eq!(transaction.form, TransactionForm::Exec(locals));
        assert!(transaction.is_write() && !transaction.frees() && !transaction.is_local());
        say(&mut queue, "MULTI");
        assert!(queue.finish().expect("another one").is_local(), "nothing is watched any more");
    }

    #[test]
    fn what_cannot_be_queued_aborts_the_transaction_and_the_next_one_is_new() {
        let large = format!("ECHO {}", "x".repeat(4096));
        for bad in ["HELLO 3", "AUTH x", "CLIENT SETNAME x", "STATUS", "MULTIOP THEN GET k", &large] {
            let mut queue = Queue::default();
            say(&mut queue, "WATCH a");
            say(&mut queue, "MULTI");
            say(&mut queue, "SET a 1");
            assert!(say(&mut queue, bad).starts_with('-'), "{bad}");
            assert_eq!(say(&mut queue, "SET a 2"), "+QUEUED", "{bad}");
            let aborted = "-EXECABORT Transaction discarded because of previous errors.";
            assert_eq!(say(&mut queue, "EXEC"), aborted, "{bad}");
            say(&mut queue, "MULTI");
            assert!(queue.finish().expect("another one").is_local(), "{bad}: nothing is watched any more");
        }
    }

    #[test]
    fn commands_keys_and_bytes_are_bounded() {
        let mut queue = Queue::default();
        say(&mut queue, "MULTI");
        let ping = || Command::Local(LocalCommand::Ping(None));
        let max = usize::MAX / 2;
        for _ in 0..MAX_PARTS {
            queue.push(ping(), 1, max).expect("room");
        }
        assert!(queue.push(ping(), 1, max).is_err_and(|e| e.text().contains("at most")));
        assert!(queue.finish().is_err_and(|e| e.class() == ErrorClass::ExecAbort));

        let key = |n: usize| Bytes::from(n.to_string());
        let keys: Vec<Bytes> = (0..10).map(key).collect();
        let cost = 10 * (1 + ENTRY_COST);
        assert!(queue.may_watch(&keys, cost - 1).is_err_and(|e| e.class() == ErrorClass::TooBig));
        queue.may_watch(&keys, cost).expect("room");
        queue.watch(keys.iter().map(|key| (key.clone(), 0)));
        assert!(queue.may_watch(&[key(11)], cost).is_err(), "what is watched counts");
        let many: Vec<Bytes> = (0..MAX_PARTS).map(key).collect();
        assert!(queue.may_watch(&many, max).is_err_and(|e| e.class() == ErrorClass::Err));
        // Watched keys and queued commands share the room.
        queue.begin().expect("no other one");
        assert!(queue.push(ping(), 1, cost).is_err_and(|e| e.class() == ErrorClass::TooBig));
        queue.clear();
        queue.may_watch(&keys, cost).expect("everything is forgotten");
    }
}
