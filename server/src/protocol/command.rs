//! Typed commands. What comes out of here is well formed: the right number of words, integers
//! read, options consistent, keys and values within their limits.

use bytes::Bytes;
use groups::ids::{GroupId, Slot};

use super::args::Args;
use super::data::{Condition, DataCommand, ManyKeys, Operation, PutAnswer};
use super::error::ErrorReply;
use super::expiry::{EX, EXAT, PX, PXAT};
use super::parse_roster::RosterAction;
use super::refusal::{key_too_big, unknown, unknown_subcommand, value_too_big, wrong_arity};
use super::reply::Version;
use super::req::is_option_of_writes;
use super::resp::{Excess, Oversized};
use super::table::{self, CommandSpec, Verb};
use super::transaction::TransactionCommand;
use super::watching::WatchCommand;
use super::words::{Words, lower};

/// The sizes that data may have.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimits {
    /// `limits.max_key`, bytes.
    pub max_key: usize,
    /// `limits.max_value`, bytes.
    pub max_value: usize,
}

/// A well formed command, sorted by who answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Groups answer it.
    Data(DataCommand),
    /// The connection answers it by itself: [`Session::local`](super::Session::local).
    Local(LocalCommand),
    /// The connection watches keys, or does so no more.
    Watch(WatchCommand),
    /// This node answers it from what it knows of itself and the cluster.
    Node(NodeCommand),
    /// It is about the connection's own transaction: [`Queue`](super::Queue).
    Transaction(TransactionCommand),
}

/// A command that a connection answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalCommand {
    /// `PING`, perhaps with a message.
    Ping(Option<Bytes>),
    /// `ECHO`.
    Echo(Bytes),
    /// `HELLO`.
    Hello(Hello),
    /// `AUTH`.
    Auth(Credentials),
    /// `CLIENT ID`.
    ClientId,
    /// `CLIENT GETNAME`.
    ClientGetName,
    /// `CLIENT SETNAME`; the name is checked, and empty for none.
    ClientSetName(String),
    /// `CLIENT SETINFO LIB-NAME`.
    ClientLibraryName(String),
    /// `CLIENT SETINFO LIB-VER`.
    ClientLibraryVersion(String),
    /// `CLIENT INFO`.
    ClientInfo,
    /// Commands that a Redis client sends and that change nothing here: `SELECT 0`,
    /// `READONLY`, `CLIENT NO-EVICT` and the like.
    Nothing,
    /// `COMMAND` and its subcommands.
    Table(TableQuery),
    /// `CONFIG GET` with its patterns.
    ConfigGet(Vec<Bytes>),
    /// `HELP`.
    Help(HelpTopic),
    /// `CLIENT REDIRECT`.
    Redirect(bool),
    /// `TIME`.
    Time,
    /// `RESET`.
    Reset,
    /// `QUIT`.
    Quit,
    /// `CLUSTER KEYSLOT`, computed already.
    KeySlot(Slot),
}

/// What `HELLO` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The protocol to speak from here on, its own reply included.
    pub version: Option<Version>,
    /// Credentials, checked before anything else happens.
    pub auth: Option<Credentials>,
    /// A name for the connection.
    pub name: Option<String>,
}

/// A user and a password. Its debug form shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `default` where only a password was given.
    pub user: Bytes,
    /// The password as it was sent.
    pub password: Bytes,
    /// Whether the user was named.
    pub named: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// What help is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelpTopic {
    /// All commands.
    All,
    /// One, with its subcommands.
    Command(&'static CommandSpec),
    /// Those of a chapter.
    Chapter(&'static str),
    /// What of Redis is here.
    Compat,
}

/// Which connections of a node are to be closed: those to which all of it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillFilter {
    /// By number.
    pub id: Option<u64>,
    /// By the client's address.
    pub peer: Option<String>,
    /// By the node's address.
    pub local: Option<String>,
    /// The connection that asks stays.
    pub skip_me: bool,
    /// Written with an address only: it is an error if there is no such connection, and the answer is no
    /// number.
    pub plain: bool,
}

/// What is asked of the table of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableQuery {
    /// `COMMAND`, or `COMMAND INFO` without names.
    All,
    /// `COMMAND COUNT`.
    Count,
    /// `COMMAND INFO name…`; `None` for names that are not known.
    Info(Vec<Option<&'static CommandSpec>>),
    /// `COMMAND DOCS`, of all commands if none is named; unknown names are left out.
    Docs(Vec<&'static CommandSpec>),
    /// `COMMAND LIST`, perhaps only names that match.
    List(Option<Bytes>),
    /// `COMMAND GETKEYS`, computed already.
    Keys(Vec<Bytes>),
}

/// A command that a node answers from what it knows of itself and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// `INFO`; sections in lower case, none for the default ones.
    Info(Vec<String>),
    /// `STATUS`, for people or as JSON.
    Status {
        /// Whether JSON was asked for.
        json: bool,
    },
    /// `ADMIN CHECKPOINT` and `ADMIN VERIFY`.
    Admin {
        /// Whether everything is to be verified, or mirrors brought up to date only.
        verify: bool,
        /// One group, or all.
        group: Option<GroupId>,
    },
    /// `ADMIN IMAGE`.
    Image {
        /// Whose checkpoint.
        group: GroupId,
        /// The body of a `FETCH` frame, as in `checkpoint::mirror`.
        fetch: Bytes,
    },
    /// `ADMIN RELOAD`: read config.toml again.
    Reload,
    /// `ADMIN MEMBER …` and `ADMIN LEADER …`.
    Roster {
        /// What is to be done.
        action: RosterAction,
        /// Whether only to say what would come of it.
        dry_run: bool,
    },
    /// `WHERE key`.
    Where(Bytes),
    /// `CLIENT LIST`.
    ClientList,
    /// `CLIENT KILL`.
    ClientKill(KillFilter),
    /// `CLUSTER INFO`.
    ClusterInfo,
    /// `CLUSTER MYID`.
    ClusterMyId,
    /// `CLUSTER NODES`.
    ClusterNodes,
    /// `CLUSTER SLOTS`.
    ClusterSlots,
    /// `CLUSTER SHARDS`.
    ClusterShards,
    /// `CLUSTER COUNTKEYSINSLOT`.
    ClusterCountKeysInSlot(Slot),
    /// `TRACE`: a command on keys whose way is to be told.
    Trace {
        /// Its words.
        words: Args,
        /// What they say.
        command: Box<DataCommand>,
    },
    /// `CLUSTER GETKEYSINSLOT`, and how many at most.
    ClusterGetKeysInSlot(Slot, u32),
}

impl NodeCommand {
    /// Whether it reads data, and so sees what its connection has written before.
    #[must_use]
    pub fn reads_data(&self) -> bool {
        matches!(
            self,
            NodeCommand::ClusterCountKeysInSlot(_)
                | NodeCommand::ClusterGetKeysInSlot(..)
                | NodeCommand::Trace { .. }
        )
    }
}

impl Command {
    /// Understands a request.
    ///
    /// # Errors
    /// With the reply to send instead; nothing was applied then.
    pub fn parse(args: &Args, limits: &SizeLimits) -> Result<Command, ErrorReply> {
        let name = args.get(0).unwrap_or_default();
        let spec = table::find(name).ok_or_else(|| unknown(name, args))?;
        if !spec.admits(args.len()) && !admits_with_options(args, spec) {
            return Err(wrong_arity(None, spec));
        }
        let end = args.len();
        let Some(word) = args.get(1).filter(|_| !spec.subcommands.is_empty()) else {
            return Words { args, next: 1, end, req: None, fence: None, parent: None, spec, limits }
                .command();
        };
        let subcommand = spec.subcommand(word).ok_or_else(|| unknown_subcommand(spec, word))?;
        if !subcommand.admits(args.len()) {
            return Err(wrong_arity(Some(spec), subcommand));
        }
        Words { args, next: 2, end, req: None, fence: None, parent: Some(spec), spec: subcommand, limits }
            .command()
    }

    /// The reply to a request that was read past because it is too large.
    #[must_use]
    pub fn oversized(oversized: &Oversized, limits: &SizeLimits) -> ErrorReply {
        match oversized.excess {
            Excess::Request { length, max } => ErrorReply::too_big(
                "the request",
                length,
                max,
                "the smaller of limits.max_inflight_bytes and half of storage.segment_size",
            ),
            Excess::Word { index, length } => {
                let key = table::find(&oversized.name).is_some_and(|spec| spec.keys.contains(index));
                match key {
                    true => key_too_big(length, limits),
                    false => value_too_big(length, limits),
                }
            }
        }
    }

    /// Whether a client may send it before it has authenticated.
    #[must_use]
    pub fn needs_no_auth(&self) -> bool {
        use LocalCommand::{Auth, Hello, Quit, Reset};
        matches!(self, Command::Local(Auth(_) | Hello(_) | Quit | Reset))
    }
}

/// Whether a write has the right number of words but for `FENCE token` and `REQ client:seq` behind them.
fn admits_with_options(args: &Args, spec: &CommandSpec) -> bool {
    let mut length = args.len();
    while length > 2 && args.get(length - 2).is_some_and(is_option_of_writes) {
        length -= 2;
        if spec.admits(length) {
            return spec.has(table::flag::WRITE);
        }
    }
    false
}

impl Words<'_> {
    /// `TRACE` and the command behind it.
    fn trace(self) -> Result<Command, ErrorReply> {
        let words = Args::from_words((self.next..self.end).filter_map(|at| self.args.get(at)));
        // Before it is understood, so that nothing from outside decides about the stack.
        let traced = words.get(0).and_then(table::find).filter(|spec| spec.verb != Verb::Trace);
        match traced.map(|_| Command::parse(&words, self.limits)) {
            Some(Ok(Command::Data(command))) => {
                Ok(Command::Node(NodeCommand::Trace { words, command: Box::new(command) }))
            }
            Some(Err(error)) => Err(error),
            None if words.get(0).is_some_and(|name| table::find(name).is_none()) => {
                Err(unknown(words.get(0).unwrap_or_default(), &words))
            }
            Some(Ok(_)) | None => Err(self.syntax_error("TRACE follows commands on keys")),
        }
    }

    fn command(mut self) -> Result<Command, ErrorReply> {
        let command = match self.spec.verb {
            Verb::Get => return self.get(),
            Verb::Set => return self.put(),
            Verb::GetSet => return self.plain_put(Condition::Always, PutAnswer::Previous),
            Verb::SetNx => return self.plain_put(Condition::Absent, PutAnswer::Flag),
            Verb::GetDel => return self.one(|_| Ok(Operation::GetDelete)),
            Verb::GetEx => return self.get_ex(),
            Verb::SetEx => return self.set_for(EX),
            Verb::PSetEx => return self.set_for(PX),
            Verb::Expire => return self.expire(EX),
            Verb::PExpire => return self.expire(PX),
            Verb::ExpireAt => return self.expire(EXAT),
            Verb::PExpireAt => return self.expire(PXAT),
            Verb::Persist => return self.persist(),
            Verb::Ttl => return self.rest_of_life(EX),
            Verb::PTtl => return self.rest_of_life(PX),
            Verb::ExpireTime => return self.rest_of_life(EXAT),
            Verb::PExpireTime => return self.rest_of_life(PXAT),
            Verb::Strlen => return self.one(|_| Ok(Operation::Length)),
            Verb::Type => return self.one(|_| Ok(Operation::Kind)),
            Verb::GetRange => {
                return self
                    .one(|words| Ok(Operation::Part { start: words.integer()?, end: words.integer()? }));
            }
            Verb::Epoch => return self.one(|_| Ok(Operation::Epoch)),
            Verb::Incr => return self.one(|_| Ok(Operation::Add(1))),
            Verb::Decr => return self.one(|_| Ok(Operation::Add(-1))),
            Verb::IncrBy => return self.one(|words| words.integer().map(Operation::Add)),
            Verb::DecrBy => return self.one(Words::negated),
            Verb::Append => return self.one(|words| words.value().map(Operation::Append)),
            Verb::Cas => {
                return self
                    .one(|words| Ok(Operation::CompareAndSwap { old: words.value()?, new: words.value()? }));
            }
            Verb::Del => return self.many(Operation::Delete, ManyKeys::Delete),
            Verb::Exists => return self.many(Operation::Exists, ManyKeys::Exists),
            Verb::MGet => Command::Data(DataCommand::Many(ManyKeys::Get(self.keys()?))),
            Verb::MSet => return self.pairs(),
            Verb::DbSize => Command::Data(DataCommand::Size),
            Verb::MultiOp => return self.multi_operation(),
            Verb::Multi => Command::Transaction(TransactionCommand::Multi),
            Verb::Exec => Command::Transaction(TransactionCommand::Exec),
            Verb::Discard => Command::Transaction(TransactionCommand::Discard),
            Verb::Watch => Command::Transaction(TransactionCommand::Watch(self.keys()?)),
            Verb::Unwatch => Command::Transaction(TransactionCommand::Unwatch),
            Verb::Range => return self.range(),
            Verb::Prefix => return self.prefix(),
            Verb::Scan => return self.scan(),
            Verb::Keys => return self.all_keys(),
            Verb::SubscribeKv => return self.watch(),
            Verb::UnsubscribeKv => return self.unwatch(),
            Verb::Info => Command::Node(NodeCommand::Info(self.rest().map(|word| lower(&word)).collect())),
            Verb::Status => Command::Node(NodeCommand::Status { json: self.json()? }),
            Verb::AdminCheckpoint => {
                Command::Node(NodeCommand::Admin { verify: false, group: self.group()? })
            }
            Verb::AdminImage => {
                let group = self.group_number()?;
                Command::Node(NodeCommand::Image { group, fetch: self.required()? })
            }
            Verb::AdminMember => {
                let (action, dry_run) = self.member()?;
                Command::Node(NodeCommand::Roster { action, dry_run })
            }
            Verb::AdminLeader => {
                let (action, dry_run) = self.leader()?;
                Command::Node(NodeCommand::Roster { action, dry_run })
            }
            Verb::AdminReload => {
                self.end()?;
                Command::Node(NodeCommand::Reload)
            }
            Verb::AdminVerify => Command::Node(NodeCommand::Admin { verify: true, group: self.group()? }),
            Verb::Where => Command::Node(NodeCommand::Where(self.key()?)),
            Verb::ClientList => Command::Node(NodeCommand::ClientList),
            Verb::Trace => return self.trace(),
            Verb::ClientKill => Command::Node(NodeCommand::ClientKill(self.kill_filter()?)),
            Verb::ClusterInfo => Command::Node(NodeCommand::ClusterInfo),
            Verb::ClusterMyId => Command::Node(NodeCommand::ClusterMyId),
            Verb::ClusterNodes => Command::Node(NodeCommand::ClusterNodes),
            Verb::ClusterSlots => Command::Node(NodeCommand::ClusterSlots),
            Verb::ClusterShards => Command::Node(NodeCommand::ClusterShards),
            Verb::ClusterCountKeys => Command::Node(NodeCommand::ClusterCountKeysInSlot(self.slot()?)),
            Verb::ClusterGetKeys => {
                Command::Node(NodeCommand::ClusterGetKeysInSlot(self.slot()?, self.key_count()?))
            }
            _ => Command::Local(self.local()?),
        };
        Ok(command)
    }
}
