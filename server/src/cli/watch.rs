//! `pelago watch`

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::connect::{Servers, key, put_bytes};
use super::{Failure, print};
use crate::client::Client;
use crate::protocol::Reply;

/// Print every change of the keys that begin with a prefix, as it happens
#[derive(Debug, Args)]
#[command(after_help = "\
A line is `set KEY`, a tab and the value, or `del KEY`; --json adds group, revision and token.
Goes on at another node, behind what was printed, when one fails.
Exit codes: 0 --count reached, 2 error (which says how to go on).

Example: pelago watch job: --count 10")]
pub struct Watch {
    /// Keys that begin with this
    prefix: OsString,

    /// Begin behind this token, or behind this revision of the prefix's only group
    #[arg(long, value_name = "TOKEN")]
    from: Option<String>,

    /// End after so many changes
    #[arg(long)]
    count: Option<u64>,

    /// Print one JSON document per line instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    servers: Servers,
}

/// A watch hears something every ten seconds, if only how far it is. A node that is silent for longer
/// than that is given up.
const SILENCE: Duration = Duration::from_secs(25);

impl Watch {
    pub(super) fn run(self) -> Result<(), Failure> {
        let addresses = self.servers.addresses();
        let mut client =
            Client::connect(&addresses, Servers::options()).map_err(|e| Failure::error(e.to_string()))?;
        let mut token = self.from.clone();
        let mut left = self.count;
        while left != Some(0) {
            let mut words: Vec<&[u8]> = vec![b"SUBSCRIBEKV", key(&self.prefix)];
            if let Some(token) = &token {
                words.extend([&b"FROM"[..], token.as_bytes()]);
            }
            let reply = client.call(&words).map_err(|e| ended(&e.to_string(), token.as_deref()))?;
            token = Some(confirmed(reply, token.as_deref())?);
            while left != Some(0) {
                let reply = match client.listen(SILENCE) {
                    Ok(reply) => reply,
                    Err(error) => {
                        // Whoever has closed stderr wants to hear nothing.
                        let _ = writeln!(io::stderr(), "pelago: {error}; the watch goes on at another node");
                        break;
                    }
                };
                match Told::of(reply) {
                    Some(Told::Event(event)) => {
                        print(event.line(self.json))?;
                        token = Some(event.token);
                        left = left.map(|left| left - 1);
                    }
                    Some(Told::Position(position)) => token = Some(position),
                    Some(Told::End(why)) => return Err(ended(&why, token.as_deref())),
                    None => return Err(ended("the node said something that is no event", token.as_deref())),
                }
            }
        }
        Ok(())
    }
}

fn ended(why: &str, token: Option<&str>) -> Failure {
    let how = token.map(|token| format!(" Go on with: --from {token}")).unwrap_or_default();
    Failure::error(format!("{why}.{how}"))
}

/// The position from which a watch begins.
pub(crate) fn confirmed(reply: Reply, token: Option<&str>) -> Result<String, Failure> {
    match reply {
        Reply::Error(error) => Err(ended(&error.to_string(), token)),
        Reply::Array(items) => match items.last() {
            Some(Reply::Bulk(position)) if items.len() == 4 => {
                Ok(String::from_utf8_lossy(position).into_owned())
            }
            _ => Err(ended("the node did not confirm the watch", token)),
        },
        _ => Err(ended("the node did not confirm the watch", token)),
    }
}

/// One thing that a watch says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Event(Event),
    Position(String),
    End(String),
}

/// A change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    group: i64,
    revision: i64,
    pub(crate) key: Bytes,
    /// `None` where the key is gone.
    pub(crate) value: Option<Bytes>,
    pub(crate) token: String,
}

impl Told {
    pub(crate) fn of(reply: Reply) -> Option<Told> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let items = match reply {
            Reply::Error(error) => return Some(Told::End(error.to_string())),
            Reply::Array(items) | Reply::Push(items) => items,
            _ => return None,
        };
        match &items[..] {
            [Reply::Bulk(kind), _, Reply::Bulk(token)] if &kind[..] == b"subscribekv-progress" => {
                Some(Told::Position(text(token)))
            }
            [
                Reply::Bulk(kind),
                _,
                Reply::Integer(group),
                Reply::Integer(revision),
                _,
                Reply::Bulk(key),
                value,
                Reply::Bulk(token),
            ] if &kind[..] == b"subscribekv-event" => {
                let value = match value {
                    Reply::Bulk(value) => Some(value.clone()),
                    Reply::Nil => None,
                    _ => return None,
                };
                let (group, revision, key, token) = (*group, *revision, key.clone(), text(token));
                Some(Told::Event(Event { group, revision, key, value, token }))
            }
            _ => None,
        }
    }
}

impl Event {
    pub(crate) fn line(&self, json: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if json {
            let mut document = json!({ "group": self.group, "revision": self.revision, "token": self.token });
            put_bytes(&mut document, "key", &self.key);
            match &self.value {
                Some(value) => put_bytes(&mut document, "value", value),
                None => document["value"] = Value::Null,
            }
            out.extend_from_slice(document.to_string().as_bytes());
        } else {
            out.extend_from_slice(if self.value.is_some() { b"set " } else { b"del " });
            out.extend_from_slice(&self.key);
            if let Some(value) = &self.value {
                out.push(b'\t');
                out.extend_from_slice(value);
            }
        }
        out.push(b'\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Act, Fake};

    const CONFIRMED: &str = "*4\r\n$11\r\nsubscribekv\r\n$1\r\na\r\n:1\r\n$2\r\nw0\r\n";
    const EVENT: &str = "*8\r\n$17\r\nsubscribekv-event\r\n$1\r\na\r\n:3\r\n:7\r\n$3\r\nset\r\n$2\r\na1\r\n$1\r\nv\r\n$2\r\nw7\r\n";

    fn watch(fakes: &[&Fake], count: u64) -> Watch {
        let addr = fakes.iter().map(|fake| fake.address.clone()).collect();
        Watch { prefix: "a".into(), from: None, count: Some(count), json: false, servers: Servers { addr } }
    }

    #[test]
    fn goes_on_behind_the_last_event_at_another_node() {
        let both: &'static str = Box::leak(format!("{CONFIRMED}{EVENT}").into_boxed_str());
        let one = Fake::start(&[Act::SayAndClose(both)]);
        let other = Fake::start(&[Act::Say(both)]);
        watch(&[&one, &other], 2).run().expect("two events");
        assert_eq!(one.seen(), ["SUBSCRIBEKV a"]);
        assert_eq!(other.seen(), ["SUBSCRIBEKV a FROM w7"]);
    }

    #[test]
    fn an_end_says_how_to_go_on() {
        let both: &'static str =
            Box::leak(format!("{CONFIRMED}{EVENT}-COMPACTED min=9 x\r\n").into_boxed_str());
        let fake = Fake::start(&[Act::Say(both)]);
        let failure = watch(&[&fake], 2).run().expect_err("cut off");
        assert_eq!((failure.code, &failure.message[..]), (2, "COMPACTED min=9 x. Go on with: --from w7"));
        let fake = Fake::start(&[Act::Say("-COMPACTED min=9 x\r\n")]);
        assert_eq!(watch(&[&fake], 1).run().expect_err("gone").message, "COMPACTED min=9 x.");
    }

    #[test]
    fn lines_for_people_and_for_programs() {
        let set =
            Event { group: 3, revision: 7, key: "k".into(), value: Some("v".into()), token: "w".into() };
        let gone = Event { group: 3, revision: 8, key: "k".into(), value: None, token: "w".into() };
        assert_eq!(set.line(false), b"set k\tv\n");
        assert_eq!(gone.line(false), b"del k\n");
        let document: Value = serde_json::from_slice(&gone.line(true)).expect("JSON");
        assert_eq!(document, json!({ "group": 3, "revision": 8, "key": "k", "value": null, "token": "w" }));
    }
}
