//! A small blocking client, for the one-shot commands, the demo, the status view and the tests.
//!
//! A call ends with the server's reply or with a [`ClientError`] that says whether the command
//! may have been applied. What is certainly not applied is tried again, on another server where
//! that may help, until [`Options::deadline`]: connections that were not taken, and the replies
//! `-TRYAGAIN`, `-CLUSTERDOWN` and `-BUSY`. A connection that is lost under a read is a reason to
//! read elsewhere. One that is lost under a write is not: the write may have been applied, and
//! sending it again could apply it twice, so the caller hears [`ClientError::InDoubt`].

pub mod bulk;
mod connection;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod image;
pub mod overview;
pub mod survey;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::config::Address;
use crate::protocol::table::{self, flag};
use crate::protocol::{ErrorClass, Reply, ReplyLimits};
use connection::{Broken, Connection, why};

pub use error::{Attempt, ClientError};

/// How long a client waits, and who it is.
#[derive(Clone)]
pub struct Options {
    /// For one server to take a connection.
    pub connect: Duration,
    /// For any of the servers to take one, with everything that is tried again in it.
    pub reach: Duration,
    /// For one reply. Longer than a server needs to say `-INDOUBT`.
    pub reply: Duration,
    /// For a call with everything that is tried again in it.
    pub deadline: Duration,
    /// Sent with `AUTH` on every new connection.
    pub password: Option<String>,
    /// What a reply may take.
    pub limits: ReplyLimits,
    /// Whether to give up after one attempt at each server instead of trying until the deadline.
    pub once: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect: Duration::from_secs(1),
            reach: Duration::from_secs(3),
            reply: Duration::from_secs(8),
            deadline: Duration::from_secs(10),
            password: None,
            limits: ReplyLimits::default(),
            once: false,
        }
    }
}

impl std::fmt::Debug for Options {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Options { connect, reach, reply, deadline, password, limits, once } = self;
        f.debug_struct("Options")
            .field("connect", connect)
            .field("reach", reach)
            .field("reply", reply)
            .field("deadline", deadline)
            .field("password", &password.as_ref().map(|_| "…"))
            .field("limits", limits)
            .field("once", once)
            .finish()
    }
}

/// A client of one cluster. It talks to one server at a time.
#[derive(Debug)]
pub struct Client {
    /// Never empty.
    addresses: Vec<Address>,
    /// Index of the server that is talked to, or that is tried next.
    current: usize,
    connection: Option<Connection>,
    options: Options,
}

/// The pause before the first repetition; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// A pipeline is sent in pieces of about this many bytes and commands, so that neither side
/// waits for the other to read.
const PIECE_BYTES: usize = 32 * 1024;
const PIECE_COMMANDS: usize = 256;

impl Client {
    /// Connects to the first of `addresses` (`host:port` each) that takes a connection.
    ///
    /// # Errors
    /// When an address is none, when no server can be reached before the deadline, or when the
    /// password is refused.
    pub fn connect(addresses: &[String], options: Options) -> Result<Client, ClientError> {
        let parse = |text: &String| {
            Address::parse(text).map_err(|why| ClientError::BadAddress { address: text.clone(), why })
        };
        let addresses = addresses.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(ClientError::Unreachable(Vec::new()));
        }
        let mut client = Client { addresses, current: 0, connection: None, options };
        client.ensure(Instant::now() + client.options.deadline, &mut Vec::new())?;
        Ok(client)
    }

    /// The server that is talked to.
    #[must_use]
    pub fn address(&self) -> String {
        self.addresses[self.current].to_string()
    }

    /// Sends one command and waits for its reply, which may be an error reply.
    ///
    /// # Errors
    /// When there is no reply; see [`ClientError::maybe_applied`].
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Reply, ClientError> {
        let mut replies = self.pipeline(&[words])?;
        Ok(replies.pop().unwrap_or(Reply::Nil))
    }

    /// Sends many commands and waits for all replies, which come in order. A single command is
    /// repeated as the module says; of many, error replies are handed out as they are.
    ///
    /// # Errors
    /// When not all replies came. If one of the commands is a write, all of them are in doubt.
    pub fn pipeline(&mut self, commands: &[&[&[u8]]]) -> Result<Vec<Reply>, ClientError> {
        let end = Instant::now() + self.options.deadline;
        let writes = commands.iter().any(|words| may_write(words));
        let mut tries = Vec::new();
        let mut pause = FIRST_PAUSE;
        loop {
            self.ensure(end, &mut tries)?;
            match self.exchange(commands, end) {
                Ok(replies) => {
                    let again = match &replies[..] {
                        [Reply::Error(error)] => retry(error.class()),
                        _ => None,
                    };
                    let Some(elsewhere) = again.filter(|_| self.may_repeat(pause, end)) else {
                        return Ok(replies);
                    };
                    if elsewhere {
                        self.turn();
                    }
                }
                Err((broken, false)) => self.failed(&mut tries, broken.why()),
                Err((broken, true)) if writes => return Err(self.in_doubt(broken)),
                Err((Broken::NotResp(why), true)) => {
                    let address = self.address();
                    self.turn();
                    return Err(ClientError::NotResp { address, why, in_doubt: false });
                }
                Err((broken, true)) => self.failed(&mut tries, broken.why()),
            }
            if !self.may_repeat(pause, end) {
                return Err(ClientError::Unreachable(tries));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for what the server says by itself on the connection of the last call.
    ///
    /// # Errors
    /// When nothing comes for so long, or the connection ends; the next call goes to another server.
    pub fn listen(&mut self, wait: Duration) -> Result<Reply, ClientError> {
        let heard = match &mut self.connection {
            Some(connection) => connection.receive(Instant::now() + wait),
            None => Err(Broken::Io(std::io::ErrorKind::NotConnected.into())),
        };
        heard.map_err(|broken| {
            let mut tries = Vec::new();
            self.failed(&mut tries, broken.why());
            ClientError::Unreachable(tries)
        })
    }

    /// Waits for what the server says by itself, and leaves the connection as it is if nothing comes.
    ///
    /// # Errors
    /// When the connection ends; the next call goes to another server.
    pub fn poll(&mut self, wait: Duration) -> Result<Option<Reply>, ClientError> {
        let heard = match &mut self.connection {
            Some(connection) => connection.receive(Instant::now() + wait),
            None => Err(Broken::Io(std::io::ErrorKind::NotConnected.into())),
        };
        match heard {
            Ok(reply) => Ok(Some(reply)),
            Err(Broken::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => Ok(None),
            Err(broken) => {
                let mut tries = Vec::new();
                self.failed(&mut tries, broken.why());
                Err(ClientError::Unreachable(tries))
            }
        }
    }

    /// Whether the connection of the last call is still there, as far as one can know without sending.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_open)
    }

    /// Whether calls end after one attempt: [`Options::once`].
    pub fn set_once(&mut self, once: bool) {
        self.options.once = once;
    }

    /// Ends the connection. The next call opens one, to the same server if that takes it.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// One attempt. The flag of a failure says whether any byte may have reached the server.
    fn exchange(&mut self, commands: &[&[&[u8]]], end: Instant) -> Result<Vec<Reply>, (Broken, bool)> {
        let reply_time = self.options.reply;
        let Some(connection) = &mut self.connection else {
            return Err((Broken::Io(std::io::ErrorKind::NotConnected.into()), false));
        };
        let mut replies = Vec::with_capacity(commands.len().min(PIECE_COMMANDS));
        let mut bytes = Vec::new();
        let mut unanswered = 0;
        for (index, words) in commands.iter().enumerate() {
            encode(words, &mut bytes);
            unanswered += 1;
            let last = index + 1 == commands.len();
            if !last && bytes.len() < PIECE_BYTES && unanswered < PIECE_COMMANDS {
                continue;
            }
            let limit = end.min(Instant::now() + reply_time);
            connection.send(&bytes, limit).map_err(|broken| (broken, true))?;
            bytes.clear();
            for _ in 0..std::mem::take(&mut unanswered) {
                let limit = end.min(Instant::now() + reply_time);
                replies.push(connection.receive(limit).map_err(|broken| (broken, true))?);
            }
        }
        Ok(replies)
    }

    /// Makes sure that there is a connection, trying server after server until `end`.
    fn ensure(&mut self, end: Instant, tries: &mut Vec<Attempt>) -> Result<(), ClientError> {
        if self.connection.as_ref().is_some_and(Connection::is_open) {
            return Ok(());
        }
        self.connection = None;
        let end = end.min(Instant::now() + self.options.reach);
        let mut pause = FIRST_PAUSE;
        loop {
            for _ in 0..self.addresses.len() {
                let now = Instant::now();
                if now >= end {
                    return Err(ClientError::Unreachable(std::mem::take(tries)));
                }
                let address = &self.addresses[self.current];
                let time = self.options.connect.min(end - now);
                match Connection::open(address, time, self.options.limits) {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        if self.authenticate(end, tries)? {
                            return Ok(());
                        }
                    }
                    Err(error) => self.failed(tries, why(&error)),
                }
            }
            if !self.may_repeat(pause, end) {
                return Err(ClientError::Unreachable(std::mem::take(tries)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the connection may be used; else the next server is to be tried.
    fn authenticate(&mut self, end: Instant, tries: &mut Vec<Attempt>) -> Result<bool, ClientError> {
        let Some(password) = self.options.password.clone() else { return Ok(true) };
        match self.exchange(&[&[b"AUTH", password.as_bytes()]], end) {
            Ok(replies) => match &replies[..] {
                [Reply::Error(error)] => {
                    Err(ClientError::Password { address: self.address(), why: error.to_string() })
                }
                _ => Ok(true),
            },
            Err((broken, _)) => {
                self.failed(tries, broken.why());
                Ok(false)
            }
        }
    }

    fn may_repeat(&self, pause: Duration, end: Instant) -> bool {
        !self.options.once && Instant::now() + pause < end
    }

    fn in_doubt(&mut self, broken: Broken) -> ClientError {
        let address = self.address();
        self.turn();
        match broken {
            Broken::Io(error) => ClientError::InDoubt { address, why: why(&error) },
            Broken::NotResp(why) => ClientError::NotResp { address, why, in_doubt: true },
        }
    }

    fn failed(&mut self, tries: &mut Vec<Attempt>, why: String) {
        let address = self.address();
        match tries.iter_mut().find(|attempt| attempt.address == address) {
            Some(attempt) => {
                attempt.why = why;
                attempt.count += 1;
            }
            None => tries.push(Attempt { address, why, count: 1 }),
        }
        self.turn();
    }

    /// The next call goes to the next server: this one cannot serve what is asked of it now.
    pub fn go_elsewhere(&mut self) {
        self.turn();
    }

    /// On to the next server.
    fn turn(&mut self) {
        self.connection = None;
        self.current = (self.current + 1) % self.addresses.len();
    }
}

/// Whether a command answered with an error of this class is sent again, and if so, whether
/// another server may know better.
fn retry(class: ErrorClass) -> Option<bool> {
    match class {
        ErrorClass::TryAgain => Some(false),
        ErrorClass::ClusterDown | ErrorClass::Busy => Some(true),
        _ => None,
    }
}

/// Whether a command may change data; one that is not known may.
fn may_write(words: &[&[u8]]) -> bool {
    // The way of a write is told by executing it.
    let traced = words.first().is_some_and(|name| name.eq_ignore_ascii_case(b"TRACE"));
    let name = words.get(usize::from(traced));
    let spec = name.and_then(|name| table::find(name));
    spec.is_none_or(|spec| spec.flags & flag::WRITE != 0)
}

fn encode(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
