//! The client protocol: RESP2, RESP3 and lines, and the commands in them.
//!
//! Everything here is pure: bytes go in, typed commands come out; replies go in, bytes come out.
//! The way of a request through these files:
//!
//! ```text
//! read buffer ─ RequestParser (resp, inline) ─ Args ─ Command::parse (table, command)
//!                                                        │
//!                    ┌───────────────────────────────────┼──────────────────────┐
//!            Command::Local                        Command::Node          Command::Data
//!            Session::local                        the node               groups, by slot_of(key)
//!            Command::Transaction                                              │
//!            Queue, until EXEC makes it ───────────┼────────────────────── DataCommand::Transaction
//!                    └───────────────────────────────────┼──────────────────────┘
//! write buffer ─ ReplyBuffer ─────────────────────── Reply::encode
//! ```

mod args;
mod command;
pub mod compat;
mod data;
mod decode;
mod error;
mod expiry;
mod fuzz;
pub mod glob;
mod inline;
mod introspect;
mod nearest;
mod number;
mod ordered;
mod parse_data;
mod parse_local;
mod parse_roster;
mod parse_transaction;
mod refusal;
mod reply;
mod req;
mod resp;
mod session;
pub mod table;
mod token;
mod transaction;
mod watching;
mod words;

pub use args::Args;
pub use command::{
    Command, Credentials, Hello, HelpTopic, KillFilter, LocalCommand, NodeCommand, SizeLimits, TableQuery,
};
pub use data::{Combine, Condition, DataCommand, KeyOperation, ManyKeys, Operation, Put, PutAnswer, Renew};
pub use decode::{DecodeError, ReplyDecoder, ReplyLimits};
pub(crate) use error::quoted;
pub use error::{ErrorClass, ErrorReply, Shortage};
pub use expiry::Until;
pub use fuzz::{reply as fuzz_reply, request as fuzz_request};
pub use groups::kv::slot::{SLOTS, crc16, pinned_slot, slot_of};
pub(crate) use inline::{hex as hex_digit, split as split_line};
pub use nearest::nearest;
pub use ordered::{Cursor, DEFAULT_LIMIT, MAX_LIMIT, Ordered, PageQuery, ScanQuery, behind_prefix};
pub use parse_roster::{NewNode, RosterAction};
pub use reply::{Reply, ReplyBuffer, Version};
pub use resp::{
    Excess, MAX_ANNOUNCED, MAX_LINE, Oversized, ProtocolError, Request, RequestLimits, RequestParser,
};
pub use session::{ServerInfo, Session};

pub use token::{PageToken, Position};
pub use transaction::{Guard, Queue, Transaction, TransactionCommand, TransactionForm};
pub use watching::{WatchCommand, WatchFrom};
