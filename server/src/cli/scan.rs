//! `pelago scan`

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::connect::{Servers, key, put_bytes, shown};
use super::{Failure, print};
use crate::client::Client;
use crate::protocol::Reply;

/// Print keys and their values in the order of the keys
#[derive(Debug, Args)]
#[command(after_help = "\
Key and value are separated by a tab, pairs by a line end; --json prints one document per line.
Goes on at another node when one fails. Each page shows each group at one instant of its own.
Exit codes: 0 there are some, 1 there are none, 2 error (which says how to go on).

Example: pelago scan user: --keys")]
pub struct Scan {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    prefix: OsString,

    /// Only keys from this one on, instead of a prefix
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    from: Option<OsString>,

    /// Only keys before this one, instead of a prefix
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    to: Option<OsString>,

    /// Print so many at most
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,

    /// Print keys only
    #[arg(long)]
    keys: bool,

    /// Go on behind a page of an earlier scan of the same range
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,

    /// Print one JSON document per line instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    servers: Servers,
}

/// Keys asked for at a time.
const PAGE: u64 = 1_000;

impl Scan {
    pub(super) fn run(self) -> Result<(), Failure> {
        let addresses = self.servers.addresses();
        let mut client =
            Client::connect(&addresses, Servers::options()).map_err(|e| Failure::error(e.to_string()))?;
        let mut token = self.after.clone().unwrap_or_default();
        let mut progress = Progress::new();
        let mut printed = 0;
        loop {
            let left = self.limit.map_or(PAGE, |limit| (limit - printed).min(PAGE));
            if left == 0 {
                break;
            }
            let (next, pairs) = self.page(&mut client, &token, left)?;
            let mut out = Vec::new();
            for (key, value) in &pairs {
                self.write(key, value, &mut out);
            }
            progress.hide();
            print(&out)?;
            printed += pairs.len() as u64;
            progress.show(printed, pairs.last().map(|(key, _)| key));
            token = next;
            if token.is_empty() {
                break;
            }
        }
        progress.hide();
        match printed {
            0 if self.limit != Some(0) => {
                Err(Failure::no(if self.json { "" } else { "there are no such keys" }))
            }
            _ => Ok(()),
        }
    }

    fn words<'a>(&'a self, token: &'a str, limit: &'a str) -> Vec<&'a [u8]> {
        let mut words: Vec<&[u8]> = if self.from.is_some() || self.to.is_some() {
            vec![b"RANGE", self.from.as_ref().map_or(b"-", key), self.to.as_ref().map_or(b"+", key)]
        } else {
            vec![b"PREFIX", key(&self.prefix)]
        };
        words.extend([&b"LIMIT"[..], limit.as_bytes()]);
        if !token.is_empty() {
            words.extend([&b"AFTER"[..], token.as_bytes()]);
        }
        words
    }

    fn page(
        &self,
        client: &mut Client,
        token: &str,
        limit: u64,
    ) -> Result<(String, Vec<(Bytes, Bytes)>), Failure> {
        let go_on = |what: String| {
            let how = if token.is_empty() { String::new() } else { format!(" Go on with: --after {token}") };
            Failure::error(format!("{what}{how}"))
        };
        let limit = limit.to_string();
        let reply = client.call(&self.words(token, &limit)).map_err(|e| go_on(e.to_string()))?;
        let address = client.address();
        if let Reply::Error(error) = reply {
            return Err(go_on(error.to_string()));
        }
        understood(reply).ok_or_else(|| {
            go_on(format!("{address} answered with something that is no page. Is it a node of this version?"))
        })
    }

    fn write(&self, key: &Bytes, value: &Bytes, out: &mut Vec<u8>) {
        if self.json {
            let mut document = json!({});
            put_bytes(&mut document, "key", key);
            if !self.keys {
                put_bytes(&mut document, "value", value);
            }
            out.extend_from_slice(document.to_string().as_bytes());
        } else {
            out.extend_from_slice(key);
            if !self.keys {
                out.push(b'\t');
                out.extend_from_slice(value);
            }
        }
        out.push(b'\n');
    }
}

/// A page as its token and its pairs.
pub(super) fn understood(reply: Reply) -> Option<(String, Vec<(Bytes, Bytes)>)> {
    let Reply::Array(parts) = reply else { return None };
    let [Reply::Bulk(token), Reply::Array(items)] = <[Reply; 2]>::try_from(parts).ok()? else { return None };
    let token = String::from_utf8(token.to_vec()).ok()?;
    if !items.len().is_multiple_of(2) {
        return None;
    }
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        let (Reply::Bulk(key), Reply::Bulk(value)) = (key, value) else { return None };
        pairs.push((key, value));
    }
    Some((token, pairs))
}

/// How far it is, on stderr: a line that is written over on a terminal, else a line now and then.
struct Progress {
    begun: Instant,
    said: Instant,
    terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Progress {
        let now = Instant::now();
        Progress { begun: now, said: now, terminal: io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, printed: u64, last: Option<&Bytes>) {
        let interval = Duration::from_millis(if self.terminal { 200 } else { 5_000 });
        if self.said.elapsed() < interval {
            return;
        }
        self.said = Instant::now();
        let rate = printed as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let at = last.map(|key| format!(", at {}", shown(key))).unwrap_or_default();
        let line = format!("{printed} keys, {rate:.0}/s{at}");
        // Whoever has closed stderr wants to hear nothing.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(io::stderr(), "{line}"),
        };
        self.shown = self.terminal;
    }

    fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Act, Fake};

    fn scan(fake: &[&Fake]) -> Scan {
        let addr = fake.iter().map(|fake| fake.address.clone()).collect();
        Scan {
            prefix: "a".into(),
            from: None,
            to: None,
            limit: None,
            keys: false,
            after: None,
            json: false,
            servers: Servers { addr },
        }
    }

    #[test]
    fn goes_on_with_the_token_at_another_node() {
        let one = Fake::start(&[Act::Say("*2\r\n$2\r\nr1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"), Act::Close]);
        let other = Fake::start(&[Act::Say("*2\r\n$0\r\n\r\n*2\r\n$2\r\nab\r\n$1\r\n2\r\n")]);
        scan(&[&one, &other]).run().expect("both pages");
        assert_eq!(one.seen(), ["PREFIX a LIMIT 1000", "PREFIX a LIMIT 1000 AFTER r1"]);
        assert_eq!(other.seen(), ["PREFIX a LIMIT 1000 AFTER r1"]);
    }

    #[test]
    fn an_error_says_how_to_go_on() {
        let fake = Fake::start(&[
            Act::Say("*2\r\n$2\r\nr1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"),
            Act::Say("-ERR no\r\n"),
        ]);
        let failure = scan(&[&fake]).run().expect_err("an error");
        assert_eq!((failure.code, &failure.message[..]), (2, "ERR no Go on with: --after r1"));
    }

    #[test]
    fn nothing_found_is_a_no_and_a_limit_ends_it() {
        let fake = Fake::start(&[Act::Say("*2\r\n$0\r\n\r\n*0\r\n")]);
        assert_eq!(scan(&[&fake]).run().expect_err("none").code, 1);
        let fake = Fake::start(&[Act::Say("*2\r\n$2\r\nr1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n")]);
        Scan { limit: Some(1), from: Some("b".into()), ..scan(&[&fake]) }.run().expect("one");
        assert_eq!(fake.seen(), ["RANGE b + LIMIT 1"]);
    }

    #[test]
    fn what_is_no_page_is_said() {
        for reply in ["+OK\r\n", "*1\r\n$0\r\n\r\n", "*2\r\n$0\r\n\r\n*1\r\n$1\r\na\r\n"] {
            let fake = Fake::start(&[Act::Say(reply)]);
            let failure = scan(&[&fake]).run().expect_err("no page");
            assert!(failure.code == 2 && failure.message.contains("no page"), "{}", failure.message);
        }
    }
}
