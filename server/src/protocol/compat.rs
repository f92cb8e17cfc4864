//! Every command of Redis 7 and 8, and what becomes of it here.
//!
//! `HELP COMPAT`, the words with which an absent command is refused, and `docs/redis-compatibility.md`
//! are all made of this table. A test holds it against the table of commands: what is there is *same*,
//! *different* or *own* here, and nothing else is.

use std::fmt::Write as _;

/// How a command of Redis behaves here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every request that Redis takes gets the reply that Redis gives. More options may be taken.
    Same,
    /// There is such a command; the note says what is different.
    Different,
    /// There is no such command; the note says why.
    Absent,
    /// A command that Redis does not have.
    Own,
}

impl Verdict {
    /// The word in the table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Same => "same",
            Verdict::Different => "different",
            Verdict::Absent => "absent",
            Verdict::Own => "own",
        }
    }
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In lower case; a subcommand's follows its command's behind `|`, as in `COMMAND LIST`.
    pub name: &'static str,
    /// How it behaves.
    pub verdict: Verdict,
    /// What is different, or why it is absent; may be empty for what is the same.
    pub note: &'static str,
}

/// One of Redis' own groups of commands.
#[derive(Debug)]
pub struct Chapter {
    /// As Redis names it.
    pub name: &'static str,
    /// Commands with a note of their own, and those that are here.
    pub rows: &'static [Row],
    /// Why the other ones are absent.
    pub why: &'static str,
    /// Their names.
    pub absent: &'static [&'static str],
}

impl Chapter {
    /// All commands of the chapter, those that are here first.
    pub fn all(&self) -> impl Iterator<Item = Row> + '_ {
        let absent = self.absent.iter().map(|name| absent(name, self.why));
        self.rows.iter().copied().chain(absent)
    }
}

const fn same(name: &'static str) -> Row {
    Row { name, verdict: Verdict::Same, note: "" }
}

const fn noted(name: &'static str, note: &'static str) -> Row {
    Row { name, verdict: Verdict::Same, note }
}

const fn differs(name: &'static str, note: &'static str) -> Row {
    Row { name, verdict: Verdict::Different, note }
}

const fn absent(name: &'static str, note: &'static str) -> Row {
    Row { name, verdict: Verdict::Absent, note }
}

const fn own(name: &'static str, note: &'static str) -> Row {
    Row { name, verdict: Verdict::Own, note }
}

const SPLIT: &str = "keys of several groups are not one instant, nor one write";
const CLOCK: &str = "reckoned by the clock of the node that is asked; lives go by the group's own";
const STRINGS: &str = "every value is a string";
const NO_CHANNELS: &str = "there are no channels; SUBSCRIBEKV tells changes of keys";
const NO_SCRIPTS: &str = "there are no scripts; MULTIOP and MULTI are atomic within a group";
const NO_USERS: &str = "there is one user, default";
const PLACED: &str = "groups and leaderships are placed by pelago admin";
const REPLICATED: &str = "every group replicates itself by consensus";
const NO_TRACKING: &str = "replies are not cached for clients; SUBSCRIBEKV tells changes of keys";
const HERE_HELP: &str = "the text is that of HELP";
const NOT_YET: &str = "not supported yet";

/// All of them.
pub static CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "string",
        rows: &[
            same("append"),
            same("decr"),
            same("decrby"),
            noted("get", "also REV and STALE"),
            same("getdel"),
            differs("getex", "an invalid time is refused whether or not there is such a key"),
            same("getrange"),
            same("getset"),
            same("incr"),
            same("incrby"),
            differs("mget", SPLIT),
            differs("mset", SPLIT),
            same("psetex"),
            noted("set", "also IFREV, IFEQ value, IFEPOCH, REV, FENCE and REQ"),
            same("setex"),
            same("setnx"),
            same("strlen"),
            same("substr"),
            absent("delex", "CAS and MULTIOP compare before they change"),
            absent("digest", "GET key REV names a version of a value by its revision"),
            absent("incrbyfloat", "numbers are integers"),
            absent("msetex", "MULTI, SET EX and EXEC do it within a group"),
            absent("msetnx", "MULTIOP IF key ABSENT does it within a group"),
        ],
        why: NOT_YET,
        absent: &["lcs", "setrange"],
    },
    Chapter {
        name: "generic",
        rows: &[
            differs("del", SPLIT),
            differs("exists", SPLIT),
            same("expire"),
            differs("expireat", CLOCK),
            differs("expiretime", CLOCK),
            differs("keys", "refused beyond 10000 keys"),
            same("persist"),
            same("pexpire"),
            differs("pexpireat", CLOCK),
            differs("pexpiretime", CLOCK),
            same("pttl"),
            differs("scan", "a cursor is good at every node; an unknown one is refused"),
            differs("touch", "counts keys; nothing is evicted, so there is nothing to touch"),
            same("ttl"),
            noted("type", "string or none"),
            differs("unlink", SPLIT),
            absent("wait", "+OK says already that a majority has it on its disks"),
            absent("waitaof", "+OK says already that a majority has it on its disks"),
            absent("move", "there is one database"),
            absent("migrate", PLACED),
            absent("object", STRINGS),
            absent("object|encoding", STRINGS),
            absent("object|freq", "nothing is evicted"),
            absent("object|help", STRINGS),
            absent("object|idletime", "nothing is evicted"),
            absent("object|refcount", STRINGS),
            absent("sort", STRINGS),
            absent("sort_ro", STRINGS),
            absent("dump", "pelago backup and pelago dump copy data"),
            absent("restore", "pelago restore and pelago load bring it back"),
        ],
        why: NOT_YET,
        absent: &["copy", "randomkey", "rename", "renamenx"],
    },
    Chapter {
        name: "transactions",
        rows: &[
            same("discard"),
            differs("exec", "the keys are of one group, else CROSSSLOT and nothing was applied"),
            differs("multi", "what cannot be understood is refused when it is queued, and EXEC aborts"),
            same("unwatch"),
            differs("watch", "up to 65536 keys"),
        ],
        why: "",
        absent: &[],
    },
    Chapter {
        name: "connection",
        rows: &[
            differs("auth", NO_USERS),
            differs("client", "the subcommands below"),
            same("client|getname"),
            differs("client|help", HERE_HELP),
            same("client|id"),
            differs("client|info", "the fields that there are"),
            differs("client|kill", "by address, ID, ADDR, LADDR and SKIPME"),
            differs("client|list", "the fields that there are; no filters"),
            noted("client|no-evict", "no connection is ever evicted"),
            noted("client|no-touch", "nothing is evicted"),
            differs("client|reply", "ON only"),
            same("client|setinfo"),
            same("client|setname"),
            same("echo"),
            differs("hello", "the server is pelago, its version is Pelago's"),
            same("ping"),
            same("quit"),
            same("reset"),
            differs("select", "there is one database, 0"),
            absent("client|caching", NO_TRACKING),
            absent("client|getredir", NO_TRACKING),
            absent("client|tracking", NO_TRACKING),
            absent("client|trackinginfo", NO_TRACKING),
            absent("client|pause", "a node is stopped by SIGTERM, which hands over what it leads"),
            absent("client|unpause", "there is no CLIENT PAUSE"),
            absent("client|unblock", "no command blocks"),
        ],
        why: "",
        absent: &[],
    },
    Chapter {
        name: "server",
        rows: &[
            differs("command", "the commands of this server"),
            same("command|count"),
            same("command|docs"),
            same("command|getkeys"),
            differs("command|help", HERE_HELP),
            same("command|info"),
            differs("command|list", "FILTERBY PATTERN only"),
            differs("config", "the subcommands below"),
            differs("config|get", "the settings of config.toml, and those of Redis that are true here"),
            differs("config|help", HERE_HELP),
            differs("config|set", "refused: settings live in config.toml"),
            differs("dbsize", "all groups, one after the other"),
            differs("info", "the sections and fields that are true here"),
            same("time"),
            absent("command|getkeysandflags", "COMMAND GETKEYS and COMMAND INFO say it"),
            absent("config|resetstat", "counters begin with the process"),
            absent("config|rewrite", "settings live in config.toml"),
            absent("bgrewriteaof", "the log is shortened by itself"),
            absent("bgsave", "ADMIN CHECKPOINT brings the checkpoints up to date"),
            absent("save", "ADMIN CHECKPOINT brings the checkpoints up to date"),
            absent("lastsave", "STATUS shows how old the checkpoints are"),
            absent("flushall", "deleting everything at once is not supported"),
            absent("flushdb", "deleting everything at once is not supported"),
            absent("swapdb", "there is one database"),
            absent("shutdown", "a node is stopped by SIGTERM, which hands over what it leads"),
            absent("role", "every node leads some groups; see STATUS and WHERE"),
            absent("failover", "pelago admin leader move does it, group by group"),
            absent("psync", REPLICATED),
            absent("replconf", REPLICATED),
            absent("replicaof", REPLICATED),
            absent("slaveof", REPLICATED),
            absent("sync", REPLICATED),
            absent("restore-asking", PLACED),
            absent("monitor", "TRACE shows the way of one request; SUBSCRIBEKV tells changes of keys"),
            absent("lolwut", "STATUS is all there is to look at"),
        ],
        why: "not there; STATUS and /metrics show what a node does",
        absent: &[
            "acl",
            "acl|cat",
            "acl|deluser",
            "acl|dryrun",
            "acl|genpass",
            "acl|getuser",
            "acl|help",
            "acl|list",
            "acl|load",
            "acl|log",
            "acl|save",
            "acl|setuser",
            "acl|users",
            "acl|whoami",
            "debug",
            "hotkeys",
            "latency",
            "latency|doctor",
            "latency|graph",
            "latency|help",
            "latency|histogram",
            "latency|history",
            "latency|latest",
            "latency|reset",
            "memory",
            "memory|doctor",
            "memory|help",
            "memory|malloc-stats",
            "memory|purge",
            "memory|stats",
            "memory|usage",
            "module",
            "module|help",
            "module|list",
            "module|load",
            "module|loadex",
            "module|unload",
            "slowlog",
            "slowlog|get",
            "slowlog|help",
            "slowlog|len",
            "slowlog|reset",
        ],
    },
    Chapter {
        name: "cluster",
        rows: &[
            differs("asking", "taken and without effect: no slot is ever between two nodes"),
            differs("cluster", "the subcommands below"),
            differs(
                "cluster|countkeysinslot",
                "any slot at any node; a count of many keys is not one instant",
            ),
            differs("cluster|getkeysinslot", "any slot at any node, up to 10000 keys, in their order"),
            differs("cluster|help", HERE_HELP),
            differs("cluster|info", "the fields that there are"),
            same("cluster|keyslot"),
            same("cluster|myid"),
            differs("cluster|nodes", "every node is a master of the slots whose groups it leads"),
            differs("cluster|shards", "a shard is a node with the slots that it leads now"),
            differs(
                "cluster|slots",
                "the leader of each range and nobody else: every node leads and follows",
            ),
            differs("readonly", "taken and without effect: every node answers every key"),
            differs("readwrite", "taken and without effect: every node answers every key"),
            absent("cluster|myshardid", "a node's slots change with what it leads; CLUSTER MYID names it"),
            absent("cluster|replicas", "WHERE key names the members of a group"),
            absent("cluster|slaves", "WHERE key names the members of a group"),
            absent("cluster|links", "STATUS shows which peers are heard"),
            absent("cluster|count-failure-reports", "STATUS shows which peers are heard"),
        ],
        why: PLACED,
        absent: &[
            "cluster|addslots",
            "cluster|addslotsrange",
            "cluster|bumpepoch",
            "cluster|delslots",
            "cluster|delslotsrange",
            "cluster|failover",
            "cluster|flushslots",
            "cluster|forget",
            "cluster|meet",
            "cluster|migration",
            "cluster|replicate",
            "cluster|reset",
            "cluster|saveconfig",
            "cluster|set-config-epoch",
            "cluster|setslot",
            "cluster|slot-stats",
        ],
    },
    Chapter {
        name: "pubsub",
        rows: &[],
        why: NO_CHANNELS,
        absent: &[
            "psubscribe",
            "publish",
            "pubsub",
            "pubsub|channels",
            "pubsub|help",
            "pubsub|numpat",
            "pubsub|numsub",
            "pubsub|shardchannels",
            "pubsub|shardnumsub",
            "punsubscribe",
            "spublish",
            "ssubscribe",
            "subscribe",
            "sunsubscribe",
            "unsubscribe",
        ],
    },
    Chapter {
        name: "scripting",
        rows: &[],
        why: NO_SCRIPTS,
        absent: &[
            "eval",
            "eval_ro",
            "evalsha",
            "evalsha_ro",
            "fcall",
            "fcall_ro",
            "function",
            "function|delete",
            "function|dump",
            "function|flush",
            "function|help",
            "function|kill",
            "function|list",
            "function|load",
            "function|restore",
            "function|stats",
            "script",
            "script|debug",
            "script|exists",
            "script|flush",
            "script|help",
            "script|kill",
            "script|load",
        ],
    },
    Chapter {
        name: "bitmap",
        rows: &[],
        why: "values are read and written as a whole",
        absent: &["bitcount", "bitfield", "bitfield_ro", "bitop", "bitpos", "getbit", "setbit"],
    },
    Chapter {
        name: "hash",
        rows: &[],
        why: STRINGS,
        absent: &[
            "hdel",
            "hexists",
            "hexpire",
            "hexpireat",
            "hexpiretime",
            "hget",
            "hgetall",
            "hgetdel",
            "hgetex",
            "hincrby",
            "hincrbyfloat",
            "hkeys",
            "hlen",
            "hmget",
            "hmset",
            "hpersist",
            "hpexpire",
            "hpexpireat",
            "hpexpiretime",
            "hpttl",
            "hrandfield",
            "hscan",
            "hset",
            "hsetex",
            "hsetnx",
            "hstrlen",
            "httl",
            "hvals",
        ],
    },
    Chapter {
        name: "list",
        rows: &[],
        why: STRINGS,
        absent: &[
            "blmove",
            "blmpop",
            "blpop",
            "brpop",
            "brpoplpush",
            "lindex",
            "linsert",
            "llen",
            "lmove",
            "lmpop",
            "lpop",
            "lpos",
            "lpush",
            "lpushx",
            "lrange",
            "lrem",
            "lset",
            "ltrim",
            "rpop",
            "rpoplpush",
            "rpush",
            "rpushx",
        ],
    },
    Chapter {
        name: "set",
        rows: &[],
        why: STRINGS,
        absent: &[
            "sadd",
            "scard",
            "sdiff",
            "sdiffstore",
            "sinter",
            "sintercard",
            "sinterstore",
            "sismember",
            "smembers",
            "smismember",
            "smove",
            "spop",
            "srandmember",
            "srem",
            "sscan",
            "sunion",
            "sunionstore",
        ],
    },
    Chapter {
        name: "sorted-set",
        rows: &[],
        why: STRINGS,
        absent: &[
            "bzmpop",
            "bzpopmax",
            "bzpopmin",
            "zadd",
            "zcard",
            "zcount",
            "zdiff",
            "zdiffstore",
            "zincrby",
            "zinter",
            "zintercard",
            "zinterstore",
            "zlexcount",
            "zmpop",
            "zmscore",
            "zpopmax",
            "zpopmin",
            "zrandmember",
            "zrange",
            "zrangebylex",
            "zrangebyscore",
            "zrangestore",
            "zrank",
            "zrem",
            "zremrangebylex",
            "zremrangebyrank",
            "zremrangebyscore",
            "zrevrange",
            "zrevrangebylex",
            "zrevrangebyscore",
            "zrevrank",
            "zscan",
            "zscore",
            "zunion",
            "zunionstore",
        ],
    },
    Chapter {
        name: "stream",
        rows: &[],
        why: STRINGS,
        absent: &[
            "xack",
            "xackdel",
            "xadd",
            "xautoclaim",
            "xclaim",
            "xdel",
            "xdelex",
            "xgroup",
            "xgroup|create",
            "xgroup|createconsumer",
            "xgroup|delconsumer",
            "xgroup|destroy",
            "xgroup|help",
            "xgroup|setid",
            "xinfo",
            "xinfo|consumers",
            "xinfo|groups",
            "xinfo|help",
            "xinfo|stream",
            "xlen",
            "xpending",
            "xrange",
            "xread",
            "xreadgroup",
            "xrevrange",
            "xsetid",
            "xtrim",
        ],
    },
    Chapter {
        name: "geo",
        rows: &[],
        why: STRINGS,
        absent: &[
            "geoadd",
            "geodist",
            "geohash",
            "geopos",
            "georadius",
            "georadius_ro",
            "georadiusbymember",
            "georadiusbymember_ro",
            "geosearch",
            "geosearchstore",
        ],
    },
    Chapter {
        name: "hyperloglog",
        rows: &[],
        why: STRINGS,
        absent: &["pfadd", "pfcount", "pfdebug", "pfmerge", "pfselftest"],
    },
    Chapter {
        name: "vector_set",
        rows: &[],
        why: STRINGS,
        absent: &[
            "vadd",
            "vcard",
            "vdim",
            "vemb",
            "vgetattr",
            "vinfo",
            "vismember",
            "vlinks",
            "vrandmember",
            "vrange",
            "vrem",
            "vsetattr",
            "vsim",
        ],
    },
    Chapter {
        name: "json",
        rows: &[],
        why: STRINGS,
        absent: &[
            "json.arrappend",
            "json.arrindex",
            "json.arrinsert",
            "json.arrlen",
            "json.arrpop",
            "json.arrtrim",
            "json.clear",
            "json.debug",
            "json.del",
            "json.forget",
            "json.get",
            "json.merge",
            "json.mget",
            "json.mset",
            "json.numincrby",
            "json.nummultby",
            "json.numpowby",
            "json.objkeys",
            "json.objlen",
            "json.resp",
            "json.set",
            "json.strappend",
            "json.strlen",
            "json.toggle",
            "json.type",
        ],
    },
    Chapter {
        name: "search",
        rows: &[],
        why: "there are no indexes; RANGE and PREFIX read keys in their order",
        absent: &[
            "ft._list",
            "ft.aggregate",
            "ft.aliasadd",
            "ft.aliasdel",
            "ft.aliasupdate",
            "ft.alter",
            "ft.config",
            "ft.create",
            "ft.cursor",
            "ft.dictadd",
            "ft.dictdel",
            "ft.dictdump",
            "ft.dropindex",
            "ft.explain",
            "ft.explaincli",
            "ft.hybrid",
            "ft.info",
            "ft.profile",
            "ft.search",
            "ft.spellcheck",
            "ft.sugadd",
            "ft.sugdel",
            "ft.sugget",
            "ft.suglen",
            "ft.syndump",
            "ft.synupdate",
            "ft.tagvals",
        ],
    },
    Chapter {
        name: "timeseries",
        rows: &[],
        why: STRINGS,
        absent: &[
            "ts.add",
            "ts.alter",
            "ts.create",
            "ts.createrule",
            "ts.decrby",
            "ts.del",
            "ts.deleterule",
            "ts.get",
            "ts.incrby",
            "ts.info",
            "ts.madd",
            "ts.mget",
            "ts.mrange",
            "ts.mrevrange",
            "ts.queryindex",
            "ts.range",
            "ts.revrange",
        ],
    },
    Chapter {
        name: "probabilistic",
        rows: &[],
        why: STRINGS,
        absent: &[
            "bf.add",
            "bf.card",
            "bf.exists",
            "bf.info",
            "bf.insert",
            "bf.loadchunk",
            "bf.madd",
            "bf.mexists",
            "bf.reserve",
            "bf.scandump",
            "cf.add",
            "cf.addnx",
            "cf.count",
            "cf.del",
            "cf.exists",
            "cf.info",
            "cf.insert",
            "cf.insertnx",
            "cf.loadchunk",
            "cf.mexists",
            "cf.reserve",
            "cf.scandump",
            "cms.incrby",
            "cms.info",
            "cms.initbydim",
            "cms.initbyprob",
            "cms.merge",
            "cms.query",
            "tdigest.add",
            "tdigest.byrank",
            "tdigest.byrevrank",
            "tdigest.cdf",
            "tdigest.create",
            "tdigest.info",
            "tdigest.max",
            "tdigest.merge",
            "tdigest.min",
            "tdigest.quantile",
            "tdigest.rank",
            "tdigest.reset",
            "tdigest.revrank",
            "tdigest.trimmed_mean",
            "topk.add",
            "topk.count",
            "topk.incrby",
            "topk.info",
            "topk.list",
            "topk.query",
            "topk.reserve",
        ],
    },
    Chapter {
        name: "pelago",
        rows: &[
            own("put", "SET by its other name"),
            own("cas", "compare and swap"),
            own("epoch", "how many leaders a key's group has had"),
            own("multiop", "guards and two lists of operations as one request"),
            own("range", "keys and values in their order, a page at a time"),
            own("prefix", "the same of keys that begin alike"),
            own("subscribekv", "tells changes of keys, from any point on that is remembered"),
            own("unsubscribekv", "ends that"),
            own("client|redirect", "MOVED instead of forwarding, for clients that know where keys are"),
            own("help", "this, and what every command does"),
            own("trace", "the steps and times of one request on all nodes"),
            own("where", "slot, group, leader and members of a key"),
            own("status", "the state of the cluster as a node sees it"),
            own("admin", "what an operator asks a node for"),
            own("admin|checkpoint", "brings mirror checkpoints up to date"),
            own("admin|image", "a page of a group's checkpoint, for backups"),
            own("admin|leader", "moves a leadership"),
            own("admin|member", "changes which nodes there are"),
            own("admin|reload", "reads config.toml again"),
            own("admin|verify", "verifies states, mirrors and log"),
        ],
        why: "",
        absent: &[],
    },
];

/// Why a command of Redis is not here.
pub(super) fn absence(name: &[u8]) -> Option<&'static str> {
    let name = std::str::from_utf8(name).ok()?;
    CHAPTERS
        .iter()
        .flat_map(Chapter::all)
        .find(|row| row.verdict == Verdict::Absent && row.name.eq_ignore_ascii_case(name))
        .map(|row| row.note)
}

/// `HELP COMPAT`: a line for each command that is here, and for each reason why others are not.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Commands of Redis 7 and 8: the same, different, or absent\n");
    // Writing to a string cannot fail.
    for chapter in CHAPTERS {
        let _ = writeln!(text, "\n{}", chapter.name);
        for row in chapter.rows {
            let line = format!("  {:<24} {:<10} {}", shown(row.name), row.verdict.word(), row.note);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if !chapter.absent.is_empty() {
            let _ = writeln!(text, "  absent: {}", chapter.why);
            wrap(&mut text, chapter.absent);
        }
    }
    text
}

/// Names in lines that a terminal takes.
fn wrap(text: &mut String, names: &[&str]) {
    let mut width = 0;
    for name in names {
        if width == 0 || width + name.len() + 1 > WIDTH {
            *text += if width == 0 { "   " } else { "\n   " };
            width = 3;
        }
        *text += " ";
        *text += &shown(name);
        width += name.len() + 1;
    }
    *text += "\n";
}

const WIDTH: usize = 96;

/// A name as people type it.
fn shown(name: &str) -> String {
    name.to_uppercase().replace('|', " ")
}

/// `docs/redis-compatibility.md`.
#[must_use]
pub fn document() -> String {
    let all = || CHAPTERS.iter().flat_map(Chapter::all);
    let count = |verdict| all().filter(|row| row.verdict == verdict).count();
    let mut text = format!(
        "{HEAD}\n{} commands and subcommands of Redis: {} the same, {} different, {} absent. {} are Pelago's own.\n",
        all().filter(|row| row.verdict != Verdict::Own).count(),
        count(Verdict::Same),
        count(Verdict::Different),
        count(Verdict::Absent),
        count(Verdict::Own),
    );
    for chapter in CHAPTERS {
        let _ = write!(text, "\n## {}\n\n| command | here | note |\n| --- | --- | --- |\n", chapter.name);
        for row in chapter.all() {
            let note = row.note.replace('|', "\\|");
            let line = format!("| `{}` | {} | {note} |", shown(row.name), row.verdict.word());
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

const HEAD: &str = "\
# What of Redis is here

Made from `server/src/protocol/compat.rs`, which `HELP COMPAT` prints and a test holds against the table of
commands; do not edit it by hand (`PELAGO_WRITE_DOCS=1 cargo test -p server --test compatibility` writes it).
Names are those of Redis 7 and 8, with the modules that Redis 8 ships.

*Same*: every request that Redis takes gets the reply that Redis gives; more options may be taken.
*Different*: there is such a command, and the note says what is different. *Absent*: it is refused with the note.

What holds for all of them:

- Errors begin with the words of Redis and may go on: what was wrong, whether anything was applied, how the command is
  written. `server/tests/cluster_differential.rs` compares replies with those of a real `redis-server`.
- `+OK` and every other answer to a write say that it is on the disks of a majority. Errors that Redis does not have
  (`TRYAGAIN`, `CLUSTERDOWN group=…`, `INDOUBT`, `TOOBIG`, `BUSY`, `FENCED`, `COMPACTED`, `CORRUPT`) say whether the
  command was applied.
- Every node answers every key. No node answers `MOVED` unless the connection has asked for it by
  `CLIENT REDIRECT ON`; cluster clients work with and without it. Commands on many keys of several slots are taken.
- `SCAN`, `KEYS` and `DBSIZE` at any node tell of the whole key space. A cluster client that asks every node and adds up
  counts it several times: let it ask one (`target_nodes` in redis-py).
- `CLUSTER` describes who leads which slots now; that changes without anybody's doing when a node fails.
- Writes take two more options behind everything else: `FENCE token` and `REQ client:seq`.
- Keys have up to `limits.max_key` bytes, values up to `limits.max_value`.
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::table::COMMANDS;
    use super::*;

    #[test]
    fn what_is_here_is_in_the_table_of_commands_and_nothing_else_is() {
        let here: BTreeSet<String> = CHAPTERS
            .iter()
            .flat_map(Chapter::all)
            .filter(|row| row.verdict != Verdict::Absent)
            .map(|row| row.name.to_owned())
            .collect();
        let commands: BTreeSet<String> = COMMANDS
            .iter()
            .flat_map(|spec| {
                let subcommands = spec.subcommands.iter().map(|sub| format!("{}|{}", spec.name, sub.name));
                std::iter::once(spec.name.to_owned()).chain(subcommands)
            })
            .collect();
        assert_eq!(
            here.difference(&commands).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "promised, not there"
        );
        assert_eq!(
            commands.difference(&here).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "there, not told of"
        );
    }

    #[test]
    fn every_row_says_what_it_must_and_stands_once() {
        let mut seen = BTreeSet::new();
        for row in CHAPTERS.iter().flat_map(Chapter::all) {
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            assert_eq!(row.name, row.name.to_lowercase());
            assert!(row.verdict == Verdict::Same || !row.note.is_empty(), "{} needs a note", row.name);
        }
        assert_eq!(absence(b"LPUSH"), Some(STRINGS));
        assert_eq!((absence(b"get"), absence(b"put"), absence(b"nonsense")), (None, None, None));
        assert!(help().lines().all(|line| line.chars().count() <= 120), "{}", help());
    }
}
