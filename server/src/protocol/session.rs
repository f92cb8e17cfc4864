//! What a connection remembers between requests, and the commands that need nothing else.

use std::time::Duration;

use bytes::Bytes;

use super::command::{Command, Credentials, Hello, LocalCommand};
use super::error::ErrorReply;
use super::glob;
use super::introspect;
use super::reply::{Reply, Version};
use super::transaction::Queue;

/// What a connection needs to know of its server to answer by itself.
#[derive(Clone, Copy, Debug)]
pub struct ServerInfo<'a> {
    /// The version of Pelago.
    pub version: &'a str,
    /// `security.password`, if clients have to authenticate.
    pub password: Option<&'a str>,
    /// What `CONFIG GET` may show, secrets left out; see
    /// [`Config::settings`](crate::config::Config::settings).
    pub settings: &'a [(String, String)],
    /// Wall clock time since the start of 1970.
    pub now: Duration,
}

/// The state of one client connection. It lives as long as the connection.
#[derive(Clone, Debug)]
pub struct Session {
    id: u64,
    peer: String,
    local: String,
    opened: Duration,
    version: Version,
    name: String,
    library_name: String,
    library_version: String,
    authenticated: bool,
    closing: bool,
    redirects: bool,
    transaction: Queue,
}

impl Session {
    /// A new connection. `id` names it for `CLIENT ID`, `peer` and `local` are its two addresses
    /// as text.
    #[must_use]
    pub fn new(id: u64, peer: String, local: String, server: &ServerInfo<'_>) -> Session {
        Session {
            id,
            peer,
            local,
            opened: server.now,
            version: Version::Resp2,
            name: String::new(),
            library_name: String::new(),
            library_version: String::new(),
            authenticated: server.password.is_none(),
            closing: false,
            redirects: false,
            transaction: Queue::default(),
        }
    }

    /// The protocol in which the next reply is to be encoded. Ask after the command was
    /// answered: `HELLO 3` is answered in RESP3.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The number of this connection.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the client has authenticated, or need not.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether the connection is to be closed once everything is answered.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether keys of other nodes are answered with `MOVED` instead of being forwarded.
    #[must_use]
    pub fn redirects(&self) -> bool {
        self.redirects
    }

    /// Has the connection closed once everything is answered.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// The client's address and the node's.
    #[must_use]
    pub fn addresses(&self) -> (&str, &str) {
        (&self.peer, &self.local)
    }

    /// What is watched and queued.
    pub fn transaction(&mut self) -> &mut Queue {
        &mut self.transaction
    }

    /// Whether `command` is queued now and not executed.
    #[must_use]
    pub fn queues(&self, command: &Command) -> bool {
        self.transaction.takes(command)
    }

    /// Whether this client may run `command` at all.
    ///
    /// # Errors
    /// With the reply to send instead.
    pub fn admit(&self, command: &Command) -> Result<(), ErrorReply> {
        match self.authenticated || command.needs_no_auth() {
            true => Ok(()),
            false => Err(ErrorReply::no_auth()),
        }
    }

    /// Answers a command that needs nothing but the connection.
    pub fn local(&mut self, command: &LocalCommand, server: &ServerInfo<'_>) -> Reply {
        match command {
            LocalCommand::Ping(None) => Reply::Simple("PONG".into()),
            LocalCommand::Ping(Some(message)) | LocalCommand::Echo(message) => Reply::Bulk(message.clone()),
            LocalCommand::Hello(hello) => self.hello(hello, server).into(),
            LocalCommand::Auth(credentials) => self.auth(credentials, server).map(|()| Reply::ok()).into(),
            LocalCommand::ClientId => Reply::unsigned(self.id),
            LocalCommand::ClientGetName if self.name.is_empty() => Reply::Nil,
            LocalCommand::ClientGetName => Reply::bulk(&self.name),
            LocalCommand::ClientSetName(name) => {
                self.name.clone_from(name);
                Reply::ok()
            }
            LocalCommand::ClientLibraryName(name) => {
                self.library_name.clone_from(name);
                Reply::ok()
            }
            LocalCommand::ClientLibraryVersion(version) => {
                self.library_version.clone_from(version);
                Reply::ok()
            }
            LocalCommand::ClientInfo => Reply::text(self.describe(server.now) + "\n"),
            LocalCommand::Nothing => Reply::ok(),
            LocalCommand::Redirect(on) => {
                self.redirects = *on;
                Reply::ok()
            }
            LocalCommand::Table(query) => introspect::answer(query),
            LocalCommand::ConfigGet(patterns) => settings(patterns, server.settings),
            LocalCommand::Help(topic) => introspect::help(*topic),
            LocalCommand::Time => time(server.now),
            LocalCommand::Reset => {
                self.reset(server);
                Reply::Simple("RESET".into())
            }
            LocalCommand::Quit => {
                self.closing = true;
                Reply::ok()
            }
            LocalCommand::KeySlot(slot) => Reply::Integer(slot.0.into()),
        }
    }

    /// The connection in one line, as `CLIENT INFO` and `CLIENT LIST` show it.
    #[must_use]
    pub fn describe(&self, now: Duration) -> String {
        format!(
            "id={} addr={} laddr={} name={} age={} db=0 resp={} user=default lib-name={} lib-ver={} redirect={}",
            self.id,
            self.peer,
            self.local,
            self.name,
            now.saturating_sub(self.opened).as_secs(),
            self.version.number(),
            self.library_name,
            self.library_version,
            if self.redirects { "on" } else { "off" },
        )
    }

    fn auth(&mut self, credentials: &Credentials, server: &ServerInfo<'_>) -> Result<(), ErrorReply> {
        let known_user = &credentials.user[..] == b"default";
        let Some(password) = server.password else {
            return match (credentials.named, known_user) {
                (true, true) => Ok(()),
                (true, false) => Err(ErrorReply::wrong_pass()),
                (false, _) => Err(ErrorReply::err(
                    "AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                )),
            };
        };
        if !(same(&credentials.password, password.as_bytes()) && known_user) {
            return Err(ErrorReply::wrong_pass());
        }
        self.authenticated = true;
        Ok(())
    }

    fn hello(&mut self, hello: &Hello, server: &ServerInfo<'_>) -> Result<Reply, ErrorReply> {
        if let Some(credentials) = &hello.auth {
            self.auth(credentials, server)?;
        }
        if !self.authenticated {
            return Err(ErrorReply::new(
                super::error::ErrorClass::NoAuth,
                "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                 AUTH <user> <pass> option can be used to authenticate the client and select the RESP \
                 protocol version at the same time",
            ));
        }
        if let Some(version) = hello.version {
            self.version = version;
        }
        if let Some(name) = &hello.name {
            self.name.clone_from(name);
        }
        Ok(Reply::Map(vec![
            (Reply::bulk("server"), Reply::bulk("pelago")),
            (Reply::bulk("version"), Reply::bulk(server.version)),
            (Reply::bulk("proto"), Reply::Integer(self.version.number())),
            (Reply::bulk("id"), Reply::unsigned(self.id)),
            // Any node answers any key, so clients need not know of slots.
            (Reply::bulk("mode"), Reply::bulk("standalone")),
            (Reply::bulk("role"), Reply::bulk("master")),
            (Reply::bulk("modules"), Reply::Array(Vec::new())),
        ]))
    }

    fn reset(&mut self, server: &ServerInfo<'_>) {
        self.version = Version::Resp2;
        self.name.clear();
        self.redirects = false;
        self.transaction.clear();
        self.authenticated = server.password.is_none();
    }
}

fn settings(patterns: &[Bytes], settings: &[(String, String)]) -> Reply {
    let matching = settings
        .iter()
        .filter(|(name, _)| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes(), true)));
    Reply::Map(matching.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
}

fn time(now: Duration) -> Reply {
    Reply::Array(vec![Reply::bulk(now.as_secs().to_string()), Reply::bulk(now.subsec_micros().to_string())])
}

/// Compares in a time that depends on the length of `given` only.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != secret.len());
    for (at, byte) in given.iter().enumerate() {
        difference |= byte ^ secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}
