//! The connection behind the prompt, and what is lost with it.

use std::time::Duration;

use super::say;
use super::show::{Style, reply_text};
use crate::cli::connect::Servers;
use crate::cli::watch::{Told, confirmed};
use crate::cli::{Failure, print};
use crate::client::{Client, ClientError};
use crate::demo::interrupt::Interrupt;
use crate::protocol::Reply;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// The reply was nil.
    Nil,
    Error,
    /// The user wants to leave.
    Leave,
}

/// Where commands go.
pub struct Session {
    client: Client,
    style: Style,
    /// Commands are queued: what is queued lives on this connection only.
    queuing: bool,
    /// Keys are watched, by this connection only: over another one `EXEC` would ask nobody.
    watching: bool,
    /// Made at the first watch: from then on Ctrl-C is heard.
    interrupt: Option<Interrupt>,
}

/// Between two looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(100);

/// A watch hears something every ten seconds.
const SILENCE: Duration = Duration::from_secs(25);

impl Session {
    pub fn connect(servers: &Servers, style: Style) -> Result<Session, Failure> {
        let client = Client::connect(&servers.addresses(), Servers::options())
            .map_err(|error| Failure::error(error.to_string()))?;
        Ok(Session { client, style, queuing: false, watching: false, interrupt: None })
    }

    /// Whether only this connection will do: what is queued or watched is nowhere else.
    fn is_bound(&self) -> bool {
        self.queuing || self.watching
    }

    pub fn prompt(&self) -> String {
        let queuing = if self.queuing { "(TX)" } else { "" };
        format!("{}{queuing}> ", self.client.address())
    }

    pub fn style(&mut self, style: Style) -> Result<Verdict, Failure> {
        self.style = style;
        Ok(Verdict::Fine)
    }

    /// Sends a command and prints its reply.
    pub fn run(&mut self, words: &[&[u8]]) -> Result<Verdict, Failure> {
        if self.is_bound() && !self.client.is_open() {
            self.lost();
            return Ok(Verdict::Error);
        }
        let name = words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
        self.client.set_once(self.is_bound());
        let before = self.client.address();
        let reply = match self.client.call(words) {
            Ok(reply) => reply,
            Err(_) if self.queuing && name != b"exec" => {
                self.lost();
                return Ok(Verdict::Error);
            }
            Err(error) => {
                let watched = std::mem::take(&mut self.watching) && !self.queuing;
                self.queuing = false;
                let class = if error.maybe_applied() { "INDOUBT" } else { "UNREACHABLE" };
                say(&format!("(error) {class} {error}"));
                if let ClientError::InDoubt { .. } = error {
                    say(&format!("the next command goes to {}", self.client.address()));
                }
                if watched {
                    say("nothing is watched any more. Begin again with WATCH");
                }
                return Ok(Verdict::Error);
            }
        };
        let now = self.client.address();
        if now != before {
            say(&format!("{before} does not answer: {now} did"));
        }
        match (name.as_slice(), &reply) {
            (b"multi", Reply::Simple(_)) => self.queuing = true,
            (b"watch", Reply::Simple(_)) => self.watching = true,
            (b"unwatch", _) if !self.queuing => self.watching = false,
            (b"exec" | b"discard" | b"reset", _) => (self.queuing, self.watching) = (false, false),
            _ => {}
        }
        self.print(words, &reply)
    }

    fn print(&self, words: &[&[u8]], reply: &Reply) -> Result<Verdict, Failure> {
        if let Reply::Error(error) = reply {
            // With a raw stdout the error is not to be taken for a value.
            match self.style {
                Style::Raw => say(&error.to_string()),
                Style::Pretty => print(format!("(error) {error}\n"))?,
            }
            return Ok(Verdict::Error);
        }
        print(reply_text(words, reply, self.style))?;
        Ok(match reply {
            Reply::Nil | Reply::NilArray => Verdict::Nil,
            _ => Verdict::Fine,
        })
    }

    fn lost(&mut self) {
        let (queuing, watching) = (self.queuing, self.watching);
        (self.queuing, self.watching) = (false, false);
        let what = if queuing { "queued" } else { "watched" };
        let begin = if watching { "WATCH" } else { "MULTI" };
        say(&format!(
            "(error) the connection was lost, and with it what was {what}. Nothing of the transaction was applied. \
             Begin again with {begin}"
        ));
    }

    /// Prints changes until Ctrl-C. Goes on at another node behind what was printed.
    pub fn subscribe(&mut self, words: &[&[u8]]) -> Result<Verdict, Failure> {
        if self.queuing {
            return self.run(words);
        }
        if std::mem::take(&mut self.watching) {
            say("what was watched for a transaction is not any more: this goes on at any node");
        }
        if self.interrupt.is_none() {
            self.interrupt = Some(Interrupt::listen()?);
        }
        let Some(interrupt) = &self.interrupt else { return Ok(Verdict::Error) };
        while interrupt.again(Duration::ZERO) {
            // What was pressed before was for something else.
        }
        let mut words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        self.client.set_once(false);
        say("changes are printed as they come; Ctrl-C ends it");
        let end = 'watch: loop {
            let sent: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let reply = match self.client.call(&sent) {
                Ok(reply) => reply,
                Err(error) => {
                    say(&format!("(error) {error}"));
                    break Verdict::Error;
                }
            };
            let mut token = match confirmed(reply, None) {
                Ok(token) => token,
                Err(failure) => {
                    say(&format!("(error) {}", failure.message));
                    break Verdict::Error;
                }
            };
            let mut silent = Duration::ZERO;
            loop {
                if interrupt.again(Duration::ZERO) {
                    break 'watch Verdict::Fine;
                }
                let told = match self.client.poll(LOOK) {
                    Ok(Some(reply)) => Told::of(reply),
                    Ok(None) if silent < SILENCE => {
                        silent += LOOK;
                        continue;
                    }
                    Ok(None) => {
                        self.client.go_elsewhere();
                        say("the node is silent; the watch goes on at another one");
                        break;
                    }
                    Err(error) => {
                        say(&format!("{error}; the watch goes on at another node"));
                        break;
                    }
                };
                silent = Duration::ZERO;
                match told {
                    Some(Told::Event(event)) => {
                        print(event.line(false))?;
                        token = event.token;
                    }
                    Some(Told::Position(position)) => token = position,
                    Some(Told::End(why)) => {
                        say(&format!("(error) {why}"));
                        break 'watch Verdict::Error;
                    }
                    None => {
                        say("(error) the node said something that is no event");
                        break 'watch Verdict::Error;
                    }
                }
            }
            words.truncate(2);
            words.extend([b"FROM".to_vec(), token.into_bytes()]);
        };
        // What is still on its way belongs to no command.
        self.client.hang_up();
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Act, Fake};

    fn session(fakes: &[&Fake]) -> Session {
        let addr = fakes.iter().map(|fake| fake.address.clone()).collect();
        Session::connect(&Servers { addr }, Style::Raw).expect("a connection")
    }

    #[test]
    fn what_was_queued_is_lost_with_its_connection_and_never_sent_elsewhere() {
        let ok = Act::Say("+OK\r\n");
        let one = Fake::start(&[ok, Act::Say("+QUEUED\r\n"), Act::Close]);
        let other = Fake::start(&[ok]);
        let mut session = session(&[&one, &other]);
        assert_eq!(session.run(&[b"MULTI"]).expect("a verdict"), Verdict::Fine);
        assert!(session.prompt().ends_with("(TX)> "));
        session.run(&[b"SET", b"a", b"1"]).expect("a verdict");
        assert_eq!(session.run(&[b"SET", b"b", b"1"]).expect("a verdict"), Verdict::Error);
        assert!(!session.prompt().contains("(TX)"));
        assert_eq!(session.run(&[b"SET", b"c", b"1"]).expect("a verdict"), Verdict::Fine);
        assert_eq!(other.seen(), ["SET c 1"]);
    }

    #[test]
    fn an_exec_that_cannot_be_executed_now_is_not_sent_twice() {
        let ok = Act::Say("+OK\r\n");
        let fake = Fake::start(&[ok, Act::Say("-TRYAGAIN group=1 moving\r\n"), ok]);
        let mut session = session(&[&fake]);
        session.run(&[b"MULTI"]).expect("a verdict");
        assert_eq!(session.run(&[b"EXEC"]).expect("a verdict"), Verdict::Error);
        assert_eq!(fake.seen(), ["MULTI", "EXEC"]);
    }

    #[test]
    fn nil_and_errors_are_told_apart() {
        let fake = Fake::start(&[Act::Say("$-1\r\n"), Act::Say("-ERR no\r\n"), Act::Close]);
        let mut session = session(&[&fake]);
        assert_eq!(session.run(&[b"GET", b"x"]).expect("a verdict"), Verdict::Nil);
        assert_eq!(session.run(&[b"GET"]).expect("a verdict"), Verdict::Error);
        assert_eq!(session.run(&[b"INCR", b"x"]).expect("a verdict"), Verdict::Error);
        assert_eq!(fake.seen().len(), 3, "a write in doubt is not sent again");
    }

    /// The watch of a connection that was lost was forgotten without a word: `MULTI` and `EXEC` went over a new
    /// one, and the transaction was applied although the watched key had changed.
    #[test]
    fn a_lost_watch_is_told_and_what_follows_is_not_sent() {
        let fake = Fake::start(&[Act::SayAndClose("+OK\r\n"), Act::Say("+OK\r\n"), Act::Say("+OK\r\n")]);
        let mut session = session(&[&fake]);
        assert!(matches!(session.run(&[b"WATCH", b"k"]), Ok(Verdict::Fine)));
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while session.client.is_open() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(session.run(&[b"MULTI"]), Ok(Verdict::Error)));
        assert_eq!(fake.seen(), ["WATCH k"]);
        // Told once; then the user begins again.
        assert!(matches!(session.run(&[b"WATCH", b"k"]), Ok(Verdict::Fine)));
        assert!(matches!(session.run(&[b"UNWATCH"]), Ok(Verdict::Fine)));
        assert!(!session.watching);
    }

    #[test]
    fn a_watch_does_not_move_to_another_node() {
        let busy = "-BUSY too much at once\r\n";
        let fake = Fake::start(&[Act::Say("+OK\r\n"), Act::Say(busy), Act::Say("+OK\r\n")]);
        let mut session = session(&[&fake]);
        assert!(matches!(session.run(&[b"WATCH", b"k"]), Ok(Verdict::Fine)));
        assert!(matches!(session.run(&[b"GET", b"k"]), Ok(Verdict::Error)));
        assert_eq!(fake.seen(), ["WATCH k", "GET k"], "it was not sent again by itself");
        assert!(session.watching && session.client.is_open());
    }
}
