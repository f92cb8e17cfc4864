//! Every command there is, once. Arity checks, `COMMAND`, `HELP`, completion and the documents
//! all read this table.

use std::sync::LazyLock;

/// One command, or one subcommand.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// In lower case. A subcommand's name does not repeat its command.
    pub name: &'static str,
    pub(super) verb: Verb,
    /// Words of a request, all names included; negative means "at least", as in Redis.
    pub arity: i32,
    /// A sum of [`flag`]s.
    pub flags: u8,
    /// Which words are keys.
    pub keys: KeyPositions,
    /// The chapter of `HELP`.
    pub group: &'static str,
    /// The first version of Pelago that has it.
    pub since: &'static str,
    /// What stands behind the name.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// For commands whose second word selects what to do.
    pub subcommands: &'static [CommandSpec],
}

/// Which words of a request are keys, counted from the command's name, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPositions {
    /// The first key; 0 if there is none.
    pub first: i32,
    /// The last key; negative counts from the end.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
}

/// Properties of a command, named as `COMMAND` names them.
pub mod flag {
    /// May change data.
    pub const WRITE: u8 = 1;
    /// Only reads data.
    pub const READONLY: u8 = 1 << 1;
    /// May take memory or disk, so it is refused when there is none.
    pub const DENYOOM: u8 = 1 << 2;
    /// Takes constant time.
    pub const FAST: u8 = 1 << 3;
    /// Answered before authentication.
    pub const NO_AUTH: u8 = 1 << 4;

    /// All flags with their names.
    pub const NAMES: [(u8, &str); 5] = [
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
    ];
}

/// What a command does. Names that mean the same share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Set,
    GetSet,
    GetDel,
    SetNx,
    Del,
    Exists,
    MGet,
    MSet,
    Incr,
    Decr,
    IncrBy,
    DecrBy,
    Append,
    Strlen,
    GetRange,
    Type,
    Epoch,
    Cas,
    SetEx,
    PSetEx,
    GetEx,
    Expire,
    PExpire,
    ExpireAt,
    PExpireAt,
    Persist,
    Ttl,
    PTtl,
    ExpireTime,
    PExpireTime,
    DbSize,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    MultiOp,
    Range,
    Prefix,
    Scan,
    Keys,
    SubscribeKv,
    UnsubscribeKv,
    Ping,
    Echo,
    Hello,
    Auth,
    Client,
    ClientId,
    ClientGetName,
    ClientSetName,
    ClientSetInfo,
    ClientInfo,
    ClientList,
    ClientReply,
    ClientSwitch,
    ClientRedirect,
    ClientKill,
    Select,
    Command,
    CommandCount,
    CommandInfo,
    CommandDocs,
    CommandList,
    CommandGetKeys,
    Config,
    ConfigGet,
    ConfigSet,
    Info,
    Help,
    Quit,
    Reset,
    Time,
    ReadOnly,
    Where,
    Status,
    Admin,
    AdminCheckpoint,
    AdminVerify,
    AdminImage,
    AdminMember,
    AdminLeader,
    AdminReload,
    Cluster,
    ClusterKeySlot,
    ClusterInfo,
    ClusterMyId,
    ClusterNodes,
    ClusterSlots,
    ClusterShards,
    ClusterCountKeys,
    ClusterGetKeys,
    SubcommandHelp,
    Trace,
}

use flag::{DENYOOM, FAST, NO_AUTH, READONLY, WRITE};

const NONE: KeyPositions = KeyPositions { first: 0, last: 0, step: 0 };
const ONE: KeyPositions = KeyPositions { first: 1, last: 1, step: 1 };
const ALL: KeyPositions = KeyPositions { first: 1, last: -1, step: 1 };
const PAIRS: KeyPositions = KeyPositions { first: 1, last: -1, step: 2 };

/// Rows of `name Verb arity, flags, keys, syntax, summary`, in chapters, with the subcommands of
/// a command in braces behind it.
macro_rules! commands {
    ($($(#[$doc:meta])* $vis:vis static $table:ident = [$($group:ident {
        $($name:literal $verb:ident $arity:literal, $flags:expr, $keys:expr, $syntax:literal, $summary:literal
            $(, $subcommands:ident)?;)*
    })*];)*) => {
        $($(#[$doc])* $vis static $table: &[CommandSpec] = &[$($(CommandSpec {
            name: $name,
            verb: Verb::$verb,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            group: stringify!($group),
            since: "0.1.0",
            syntax: $syntax,
            summary: $summary,
            subcommands: commands!(@ $($subcommands)?),
        },)*)*];)*
    };
    (@) => { &[] };
    (@ $subcommands:ident) => { $subcommands };
}

commands! {
    /// All commands, in the order in which `HELP` shows them.
    pub static COMMANDS = [
        data {
            "get" Get -2, READONLY | FAST, ONE, "key [REV] [STALE milliseconds]",
                "The value of a key; REV adds its revision, STALE allows an older one.";
            "set" Set -3, WRITE | DENYOOM, ONE,
                "key value [NX | XX | IFREV revision | IFEQ value | IFEPOCH epoch] [GET | REV] \
                 [EX s | PX ms | EXAT unix-s | PXAT unix-ms | KEEPTTL] [FENCE token] [REQ client:seq]",
                "Sets a key, if the condition holds; GET answers the old value, REV the new revision.";
            "put" Set -3, WRITE | DENYOOM, ONE,
                "key value [NX | XX | IFREV revision | IFEQ value | IFEPOCH epoch] [GET | REV] \
                 [EX s | PX ms | EXAT unix-s | PXAT unix-ms | KEEPTTL] [FENCE token] [REQ client:seq]",
                "The same as SET.";
            "del" Del -2, WRITE, ALL, "key [key ...] [FENCE token] [REQ client:seq]",
                "Deletes keys; answers how many there were.";
            "unlink" Del -2, WRITE | FAST, ALL, "key [key ...] [FENCE token] [REQ client:seq]", "The same as DEL.";
            "exists" Exists -2, READONLY | FAST, ALL, "key [key ...]", "How many of the keys exist.";
            "touch" Exists -2, READONLY | FAST, ALL, "key [key ...]", "The same as EXISTS.";
            "type" Type 2, READONLY | FAST, ONE, "key", "The type of a value: string, or none.";
            "mget" MGet -2, READONLY | FAST, ALL, "key [key ...]",
                "The values of many keys; not one moment in time across groups.";
            "mset" MSet -3, WRITE | DENYOOM, PAIRS, "key value [key value ...] [FENCE token] [REQ client:seq]",
                "Sets many keys; not atomic across groups.";
            "incr" Incr 2, WRITE | DENYOOM | FAST, ONE, "key [FENCE token] [REQ client:seq]", "Adds one; answers the sum.";
            "decr" Decr 2, WRITE | DENYOOM | FAST, ONE, "key [FENCE token] [REQ client:seq]", "Subtracts one; answers the difference.";
            "incrby" IncrBy 3, WRITE | DENYOOM | FAST, ONE, "key increment [FENCE token] [REQ client:seq]",
                "Adds an integer; answers the sum.";
            "decrby" DecrBy 3, WRITE | DENYOOM | FAST, ONE, "key decrement [FENCE token] [REQ client:seq]",
                "Subtracts an integer; answers the difference.";
            "append" Append 3, WRITE | DENYOOM | FAST, ONE, "key value [FENCE token] [REQ client:seq]",
                "Appends to a value; answers its length.";
            "strlen" Strlen 2, READONLY | FAST, ONE, "key", "The length of a value.";
            "getrange" GetRange 4, READONLY, ONE, "key start end",
                "A part of a value, both ends included; negative places count from its end.";
            "substr" GetRange 4, READONLY, ONE, "key start end", "The same as GETRANGE.";
            "getset" GetSet 3, WRITE | DENYOOM | FAST, ONE, "key value [FENCE token] [REQ client:seq]",
                "Sets a key; answers the old value.";
            "getdel" GetDel 2, WRITE | FAST, ONE, "key [FENCE token] [REQ client:seq]", "Deletes a key; answers the old value.";
            "setnx" SetNx 3, WRITE | DENYOOM | FAST, ONE, "key value [FENCE token] [REQ client:seq]",
                "Sets a key if there is none; answers 1 or 0.";
            "cas" Cas 4, WRITE | DENYOOM | FAST, ONE, "key old new [FENCE token] [REQ client:seq]",
                "Compare and swap: sets a key to new if it is old; answers 1 or 0.";
            "setex" SetEx 4, WRITE | DENYOOM, ONE, "key seconds value [FENCE token] [REQ client:seq]",
                "Sets a key that is there for so many seconds.";
            "psetex" PSetEx 4, WRITE | DENYOOM, ONE, "key milliseconds value [FENCE token] [REQ client:seq]",
                "The same in milliseconds.";
            "getex" GetEx -2, WRITE | FAST, ONE,
                "key [EX s | PX ms | EXAT unix-s | PXAT unix-ms | PERSIST] [FENCE token] [REQ client:seq]",
                "The value of a key, whose time to live changes as the option says.";
            "expire" Expire -3, WRITE | FAST, ONE, "key seconds [NX | XX | GT | LT] [FENCE token] [REQ client:seq]",
                "Lets a key vanish in so many seconds; answers 1 or 0.";
            "pexpire" PExpire -3, WRITE | FAST, ONE, "key milliseconds [NX | XX | GT | LT] [FENCE token] [REQ client:seq]",
                "The same in milliseconds.";
            "expireat" ExpireAt -3, WRITE | FAST, ONE, "key unix-seconds [NX | XX | GT | LT] [FENCE token] [REQ client:seq]",
                "Lets a key vanish at a time of this node's clock; answers 1 or 0.";
            "pexpireat" PExpireAt -3, WRITE | FAST, ONE,
                "key unix-milliseconds [NX | XX | GT | LT] [FENCE token] [REQ client:seq]", "The same in milliseconds.";
            "persist" Persist 2, WRITE | FAST, ONE, "key [FENCE token] [REQ client:seq]",
                "Takes a key's time to live away; answers 1, or 0 if it had none.";
            "ttl" Ttl 2, READONLY | FAST, ONE, "key",
                "For how many seconds a key will be there; -1 for good, -2 for no key.";
            "pttl" PTtl 2, READONLY | FAST, ONE, "key", "The same in milliseconds.";
            "expiretime" ExpireTime 2, READONLY | FAST, ONE, "key",
                "When a key vanishes, in seconds of this node's clock; -1 never, -2 for no key.";
            "pexpiretime" PExpireTime 2, READONLY | FAST, ONE, "key", "The same in milliseconds.";
            "dbsize" DbSize 1, READONLY | FAST, NONE, "", "How many keys there are in all groups.";
        }
        transactions {
            "multi" Multi 1, FAST, NONE, "", "Queues what follows until EXEC executes it at once, in one group.";
            "exec" Exec 1, WRITE, NONE, "",
                "Executes what is queued, or nothing if a watched key has changed (a null array).";
            "discard" Discard 1, FAST, NONE, "", "Forgets what is queued, and what is watched.";
            "watch" Watch -2, FAST, ALL, "key [key ...]", "EXEC executes nothing if one of the keys changes before it.";
            "unwatch" Unwatch 1, FAST, NONE, "", "Forgets what is watched.";
            "multiop" MultiOp -4, WRITE | DENYOOM, NONE,
                "[IF key REV revision | VALUE value | ABSENT | PRESENT | EPOCH epoch | FENCE token]... \
                 [THEN operation]... [ELSE operation]... [REQ client:seq]",
                "All THEN if every IF holds, else all ELSE, at once; each is a command on one key.";
        }
        ordered {
            "range" Range -3, READONLY, NONE, "from to [LIMIT count] [AFTER token]",
                "A page of keys and values, and a token for the next; - and + are no limit.";
            "prefix" Prefix -2, READONLY, NONE, "prefix [LIMIT count] [AFTER token]",
                "A page of the keys that begin so, their values, and a token for the next page.";
            "scan" Scan -2, READONLY, NONE, "cursor [MATCH pattern] [COUNT count] [TYPE type]",
                "Some keys and the next cursor, from 0 to 0; meets all that are there all the time.";
            "keys" Keys 2, READONLY, NONE, "pattern", "All keys that match, up to 10000.";
        }
        watch {
            "subscribekv" SubscribeKv -2, READONLY, NONE, "prefix [FROM token | FROM revision]",
                "Tells every change of the keys that begin so, from now or from a token on.";
            "unsubscribekv" UnsubscribeKv -1, FAST, NONE, "[prefix]", "Ends a watch, or all of this connection.";
        }
        connection {
            "ping" Ping -1, FAST, NONE, "[message]", "Answers PONG, or the message.";
            "echo" Echo 2, FAST, NONE, "message", "Answers the message.";
            "hello" Hello -1, FAST | NO_AUTH, NONE, "[2 | 3 [AUTH user password] [SETNAME name]]",
                "Introduces the server, and selects the version of the protocol.";
            "auth" Auth -2, FAST | NO_AUTH, NONE, "[user] password", "Authenticates this connection.";
            "client" Client -2, 0, NONE, "subcommand ...", "About this connection.", CLIENT;
            "select" Select 2, FAST, NONE, "0", "There is one database, 0.";
            "quit" Quit -1, FAST | NO_AUTH, NONE, "", "Closes the connection.";
            "reset" Reset 1, FAST | NO_AUTH, NONE, "", "Brings the connection back to its first state.";
        }
        server {
            "command" Command -1, 0, NONE, "[subcommand ...]", "About the commands of this server.", COMMAND;
            "config" Config -2, 0, NONE, "subcommand ...", "About the configuration of this node.", CONFIG;
            "info" Info -1, 0, NONE, "[section ...]", "Facts and figures of this node, for Redis tools.";
            "help" Help -1, FAST, NONE, "[command | chapter | COMPAT]",
                "All commands, a chapter of them, one in detail, or what of Redis is here.";
            "time" Time 1, FAST, NONE, "", "The clock of this node: seconds and microseconds since 1970.";
        }
        cluster {
            "where" Where 2, 0, NONE, "key", "Slot, group, leader, members and epoch of a key.";
            "epoch" Epoch 2, READONLY | FAST, ONE, "key",
                "How many leaders the key's group has had; PUT IFEPOCH and MULTIOP IF ask for it.";
            "trace" Trace -3, 0, NONE, "command key ...",
                "Executes a command; answers its reply, and the steps of its way through the nodes.";
            "status" Status -1, 0, NONE, "[JSON]", "The state of the cluster as this node sees it.";
            "admin" Admin -2, 0, NONE, "subcommand ...", "Work that an operator asks this node for.", ADMIN;
            "cluster" Cluster -2, 0, NONE, "subcommand ...", "The cluster, as Redis Cluster clients ask for it.",
                CLUSTER;
            "asking" ReadOnly 1, FAST, NONE, "", "For cluster clients. No slot is ever between two nodes.";
            "readonly" ReadOnly 1, FAST, NONE, "", "For cluster clients. Every node answers every key anyway.";
            "readwrite" ReadOnly 1, FAST, NONE, "", "For cluster clients. Every node answers every key anyway.";
        }
    ];

    static CLIENT = [
        connection {
            "id" ClientId 2, FAST, NONE, "", "The number of this connection.";
            "getname" ClientGetName 2, FAST, NONE, "", "The name of this connection.";
            "setname" ClientSetName 3, FAST, NONE, "name", "Names this connection.";
            "setinfo" ClientSetInfo 4, FAST, NONE, "LIB-NAME name | LIB-VER version",
                "Tells which client library this is.";
            "info" ClientInfo 2, FAST, NONE, "", "This connection in one line.";
            "list" ClientList 2, 0, NONE, "", "All connections of this node, one line each.";
            "kill" ClientKill -3, 0, NONE, "address | [ID id] [ADDR address] [LADDR address] [SKIPME yes | no]",
                "Closes connections of this node; answers how many.";
            "redirect" ClientRedirect 3, FAST, NONE, "ON | OFF",
                "Whether keys of other nodes are answered with MOVED, or forwarded.";
            "reply" ClientReply 3, FAST, NONE, "ON", "Replies are always sent.";
            "no-evict" ClientSwitch 3, FAST, NONE, "ON | OFF", "No connection is ever evicted.";
            "no-touch" ClientSwitch 3, FAST, NONE, "ON | OFF", "Reads leave no trace on keys.";
            "help" SubcommandHelp 2, FAST, NONE, "", "What HELP CLIENT says.";
        }
    ];

    static COMMAND = [
        server {
            "count" CommandCount 2, FAST, NONE, "", "How many commands there are.";
            "info" CommandInfo -2, 0, NONE, "[name ...]", "Arity, flags and keys of commands.";
            "docs" CommandDocs -2, 0, NONE, "[name ...]", "What commands do.";
            "list" CommandList -2, 0, NONE, "[FILTERBY PATTERN pattern]", "The names of the commands.";
            "getkeys" CommandGetKeys -3, 0, NONE, "command [word ...]", "The keys of a request.";
            "help" SubcommandHelp 2, FAST, NONE, "", "What HELP COMMAND says.";
        }
    ];

    static CONFIG = [
        server {
            "get" ConfigGet -3, 0, NONE, "pattern [pattern ...]", "Settings whose names match.";
            "set" ConfigSet -4, 0, NONE, "name value", "Refused: settings live in config.toml.";
            "help" SubcommandHelp 2, FAST, NONE, "", "What HELP CONFIG says.";
        }
    ];

    static ADMIN = [
        cluster {
            "checkpoint" AdminCheckpoint -2, 0, NONE, "[GROUP group]",
                "Begins to bring the mirror checkpoints up to date; answers where they stood.";
            "image" AdminImage 4, 0, NONE, "group frame",
                "A piece of a group's checkpoint; what pelago admin backup asks for.";
            "leader" AdminLeader -4, 0, NONE, "group node [DRYRUN]",
                "Makes a node the best placed leader of a group.";
            "member" AdminMember -3, 0, NONE, "LIST | ADD | REMOVE | FORGET | REPLACE | DRAIN | SERVE ...",
                "Changes which nodes the cluster has, or says which.";
            "reload" AdminReload 2, 0, NONE, "",
                "Reads config.toml again and takes over what may change while the node runs; answers what.";
            "verify" AdminVerify -2, 0, NONE, "[GROUP group]",
                "Begins to verify states, mirrors and log; answers where they stood.";
        }
    ];

    static CLUSTER = [
        cluster {
            "keyslot" ClusterKeySlot 3, 0, NONE, "key", "The slot of a key.";
            "info" ClusterInfo 2, 0, NONE, "", "The cluster in a few lines.";
            "myid" ClusterMyId 2, 0, NONE, "", "The id of this node.";
            "nodes" ClusterNodes 2, 0, NONE, "", "The nodes and their slots, one line each.";
            "slots" ClusterSlots 2, 0, NONE, "", "Ranges of slots and who leads them.";
            "shards" ClusterShards 2, 0, NONE, "", "Groups of slots and their members.";
            "countkeysinslot" ClusterCountKeys 3, 0, NONE, "slot", "How many keys a slot holds.";
            "getkeysinslot" ClusterGetKeys 4, 0, NONE, "slot count", "So many of the keys of a slot.";
            "help" SubcommandHelp 2, FAST, NONE, "", "What HELP CLUSTER says.";
        }
    ];
}

impl CommandSpec {
    /// Whether a request of so many words, all names included, is complete and not too long.
    #[must_use]
    pub fn admits(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= arity } else { words == arity }
    }

    /// Whether `flag` is among the flags.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The subcommand of that name.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static CommandSpec> {
        self.subcommands.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

impl KeyPositions {
    /// Whether the word at `index` is a key in a request that is long enough.
    #[must_use]
    pub fn contains(self, index: usize) -> bool {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        self.first > 0
            && index >= self.first
            && (self.last < 0 || index <= self.last)
            && (index - self.first) % self.step.max(1) == 0
    }

    /// The places of the keys in a request of so many words.
    pub fn of(self, words: usize) -> impl Iterator<Item = usize> {
        let last = match usize::try_from(self.last) {
            Ok(last) => last,
            Err(_) => words.saturating_sub(self.last.unsigned_abs() as usize),
        };
        let first = usize::try_from(self.first).ok().filter(|first| *first > 0);
        let step = usize::try_from(self.step).unwrap_or(1).max(1);
        first.into_iter().flat_map(move |first| (first..=last).step_by(step))
    }
}

/// The command of that name, in any case.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    let key = packed(name)?;
    let at = BY_NAME.binary_search_by_key(&key, |(name, _)| *name).ok()?;
    // Leading zero bytes do not show in a number.
    Some(BY_NAME[at].1).filter(|spec| spec.name.len() == name.len())
}

static BY_NAME: LazyLock<Vec<(u128, &'static CommandSpec)>> = LazyLock::new(|| {
    let mut names: Vec<_> =
        COMMANDS.iter().filter_map(|spec| Some((packed(spec.name.as_bytes())?, spec))).collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    names
});

/// A name of up to 16 bytes as one number, in lower case: comparing it is one instruction.
fn packed(name: &[u8]) -> Option<u128> {
    if name.is_empty() || name.len() > 16 {
        return None;
    }
    Some(name.iter().fold(0, |packed, byte| packed << 8 | u128::from(byte.to_ascii_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static CommandSpec> {
        COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
    }

    #[test]
    fn the_table_is_consistent() {
        for spec in all() {
            assert_eq!(spec.name, spec.name.to_lowercase());
            assert!(spec.arity != 0 && spec.summary.ends_with('.'), "{}", spec.name);
            assert!(!(spec.has(WRITE) && spec.has(READONLY)), "{}", spec.name);
        }
        for spec in COMMANDS {
            assert!(std::ptr::eq(find(spec.name.as_bytes()).expect("in the index"), spec));
            assert!(std::ptr::eq(find(spec.name.to_uppercase().as_bytes()).expect("in the index"), spec));
        }
        for unknown in [&b""[..], b"ge", b"gett", b"\0get", b"averyveryverylongname"] {
            assert!(find(unknown).is_none());
        }
    }

    #[test]
    fn key_positions() {
        for (name, words, keys) in [
            ("get", 2, &[1][..]),
            ("set", 5, &[1]),
            ("del", 4, &[1, 2, 3]),
            ("mset", 5, &[1, 3]),
            ("ping", 2, &[]),
            ("del", 1, &[]),
        ] {
            let spec = find(name.as_bytes()).expect("known");
            assert_eq!(spec.keys.of(words).collect::<Vec<_>>(), keys, "{name}");
        }
    }
}
