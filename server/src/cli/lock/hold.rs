//! One hold of a lock: taking, renewing and giving it back.
//!
//! The lock is a key with a life. Its value names the holder, and the revision that it got when it was taken
//! is the *token*: as long as the key has that revision nobody else has held the lock since. So every later
//! step is conditional on it. A renewal gives the key a new life, which is no new revision.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::say;
use crate::cli::Failure;
use crate::cli::connect::{Servers, shown};
use crate::cli::watch::Told;
use crate::client::{Client, ClientError, Options};
use crate::protocol::{ErrorClass, Reply};
use crate::runtime::{ServeError, random_id};

/// However long nothing is heard of the lock, it is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Between attempts when something is wrong.
const PAUSE: Duration = Duration::from_millis(200);

/// Since the machine was started, also while it slept: a lock that was held when a laptop was closed is
/// not held when it is opened.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

/// A lock that is held, or is to be.
pub struct Hold {
    name: Vec<u8>,
    /// The value of the lock while this process holds it: nobody else writes the same.
    owner: String,
    ttl: Duration,
    addresses: Vec<String>,
    client: Client,
    token: u64,
    /// The last time at which the lock is held for certain was reckoned from here: before the words that
    /// gave it its life were sent.
    since: Duration,
    /// An attempt to take the lock may have been applied, or may still be.
    doubt: bool,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// Somebody else has it.
    Held {
        /// Who, as far as the value of the key says.
        by: String,
    },
    /// The cluster could not be asked, or refused.
    Trouble(String),
}

/// What came of a renewal.
#[derive(Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lock is held for another whole life.
    Yes,
    /// The lock is gone, or somebody else's.
    Lost,
    /// Nobody can say; trying again does no harm.
    Unknown(String),
}

impl Hold {
    /// A lock that nobody has tried to take yet.
    ///
    /// # Errors
    /// When no node can be reached.
    pub fn new(name: &[u8], ttl: Duration, addresses: Vec<String>) -> Result<Hold, Failure> {
        let unavailable = |why: String| Failure {
            code: super::UNAVAILABLE,
            message: format!("{why}. The command was not run"),
        };
        let owner = owner().map_err(|e| unavailable(e.to_string()))?;
        // A renewal must be able to fail at one node and succeed at another within the life of the lock.
        let most = (ttl / 4).clamp(Duration::from_millis(250), Duration::from_secs(2));
        let options =
            Options { connect: most / 2, reach: most, reply: most, deadline: most, ..Servers::options() };
        let client = Client::connect(&addresses, options).map_err(|e| unavailable(e.to_string()))?;
        let (token, since, doubt) = (0, Duration::ZERO, false);
        Ok(Hold { name: name.to_vec(), owner, ttl, addresses, client, token, since, doubt })
    }

    /// The revision that the lock's key got when it was taken: larger than that of every earlier holder.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// How long the lock outlives its holder.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Until when the lock counts as held. A quarter of its life is left then, in which the command can end.
    pub fn counts_until(&self) -> Duration {
        self.since + self.ttl * 3 / 4
    }

    /// Takes the lock, waiting for it for so long, `None` without end.
    pub fn take(&mut self, wait: Option<Duration>) -> Result<(), NotTaken> {
        let end = wait.map(|wait| now() + wait);
        let (mut watch, mut told, mut reached): (Option<Client>, bool, bool) = (None, false, false);
        loop {
            match self.attempt() {
                // An answer that took most of a life is no lock to begin with.
                Ok(true) if now() < self.counts_until() || self.renew() == Renewed::Yes => return Ok(()),
                Ok(_) => reached = true,
                Err(why) if !reached => return Err(NotTaken::Trouble(why)),
                Err(why) => say(&format!("{why}; still waiting for the lock")),
            }
            let left = end.map_or(LOOK_AGAIN, |end| end.saturating_sub(now()));
            if left.is_zero() {
                return Err(NotTaken::Held { by: self.holder() });
            }
            if !std::mem::replace(&mut told, true) {
                say(&format!("waiting for the lock \"{}\", held by {}", shown(&self.name), self.holder()));
            }
            watch = match watch.take() {
                Some(client) => self.await_end(client, left.min(LOOK_AGAIN)),
                // What happens between the attempt above and the begin of the watch is met by the next attempt.
                None => self.watch().or_else(|| {
                    std::thread::sleep(PAUSE.min(left));
                    None
                }),
            };
        }
    }

    /// One attempt to take the lock; whether it is held now.
    fn attempt(&mut self) -> Result<bool, String> {
        let ttl = self.ttl.as_millis().to_string();
        let sent = now();
        let words: [&[u8]; 7] =
            [b"PUT", &self.name, self.owner.as_bytes(), b"NX", b"PX", ttl.as_bytes(), b"REV"];
        match self.client.call(&words) {
            Ok(Reply::Integer(revision)) => {
                self.token = u64::try_from(revision).unwrap_or(0);
                self.since = sent;
                Ok(true)
            }
            Ok(Reply::Nil) if !self.doubt => Ok(false),
            Ok(Reply::Nil) => self.adopt(),
            Ok(Reply::Error(error)) => match error.class() {
                ErrorClass::InDoubt => self.adopt(),
                ErrorClass::TryAgain | ErrorClass::ClusterDown | ErrorClass::Busy => Ok(false),
                _ => Err(error.to_string()),
            },
            Err(error) if error.maybe_applied() => self.adopt(),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("the node gave an answer that is none to PUT".to_owned()),
        }
    }

    /// An attempt was in doubt: if its value is there, the lock was taken.
    fn adopt(&mut self) -> Result<bool, String> {
        self.doubt = true;
        match self.client.call(&[b"GET", &self.name, b"REV"]) {
            Ok(Reply::Array(parts)) => match &parts[..] {
                [Reply::Bulk(owner), Reply::Integer(revision)] if owner == self.owner.as_bytes() => {
                    self.token = u64::try_from(*revision).unwrap_or(0);
                    // Nobody knows when its life began; a renewal does.
                    Ok(self.renew() == Renewed::Yes)
                }
                _ => Ok(false),
            },
            Ok(_) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gives the lock a new whole life, if it is still this hold's.
    pub fn renew(&mut self) -> Renewed {
        let (ttl, token) = (self.ttl.as_millis().to_string(), self.token.to_string());
        let sent = now();
        let words: [&[u8]; 9] = [
            b"MULTIOP",
            b"IF",
            &self.name,
            b"REV",
            token.as_bytes(),
            b"THEN",
            b"PEXPIRE",
            &self.name,
            ttl.as_bytes(),
        ];
        match branch(self.client.call(&words)) {
            Ok(true) => {
                self.since = sent;
                Renewed::Yes
            }
            Ok(false) => Renewed::Lost,
            Err(why) => Renewed::Unknown(why),
        }
    }

    /// Gives the lock back, if it is still this hold's. Where that cannot be done it ends by itself.
    pub fn release(&mut self) -> Renewed {
        let token = self.token.to_string();
        let words: [&[u8]; 8] =
            [b"MULTIOP", b"IF", &self.name, b"REV", token.as_bytes(), b"THEN", b"DEL", &self.name];
        match branch(self.client.call(&words)) {
            Ok(true) => Renewed::Yes,
            Ok(false) => Renewed::Lost,
            Err(why) => Renewed::Unknown(why),
        }
    }

    /// Who has the lock, for people.
    fn holder(&mut self) -> String {
        match self.client.call(&[b"GET", &self.name]) {
            Ok(Reply::Bulk(owner)) => shown(&owner),
            Ok(Reply::Nil) => "nobody just now".to_owned(),
            _ => "somebody".to_owned(),
        }
    }

    /// A connection that hears of changes of the lock.
    fn watch(&self) -> Option<Client> {
        let mut client = Client::connect(&self.addresses, Servers::options()).ok()?;
        match client.call(&[b"SUBSCRIBEKV", &self.name]) {
            Ok(Reply::Array(_)) => Some(client),
            _ => None,
        }
    }

    /// Waits until the lock is deleted, or its life is over, or for so long. Hands the watch back while it
    /// lasts.
    fn await_end(&self, mut watch: Client, wait: Duration) -> Option<Client> {
        let end = now() + wait;
        loop {
            let reply = watch.listen(end.saturating_sub(now()).max(Duration::from_millis(1))).ok()?;
            match Told::of(reply) {
                Some(Told::Event(event)) if event.key == self.name && event.value.is_none() => {
                    return Some(watch);
                }
                // Of keys that begin like the lock's there may be any number.
                Some(Told::Event(_) | Told::Position(_)) if now() < end => {}
                Some(Told::Event(_) | Told::Position(_)) => return Some(watch),
                Some(Told::End(_)) | None => return None,
            }
        }
    }
}

/// Which way a `MULTIOP` went.
fn branch(reply: Result<Reply, ClientError>) -> Result<bool, String> {
    match reply {
        Ok(Reply::Array(parts)) => match parts.first() {
            Some(Reply::Integer(branch @ (0 | 1))) => Ok(*branch == 1),
            _ => Err("the node gave an answer that is none to MULTIOP".to_owned()),
        },
        Ok(Reply::Error(error)) => Err(error.to_string()),
        Ok(_) => Err("the node gave an answer that is none to MULTIOP".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A value that no other process writes: host and process for people, and 128 random bits.
fn owner() -> Result<String, ServeError> {
    let bits = random_id()?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(format!("{host}:{}:{bits:032x}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Act, Fake};

    fn hold(fake: &Fake) -> Hold {
        let ttl = Duration::from_secs(2);
        Hold::new(b"l", ttl, vec![fake.address.clone()]).expect("a node")
    }

    #[test]
    fn a_lock_is_taken_renewed_and_given_back_by_its_revision() {
        let yes = "*2\r\n:1\r\n*1\r\n:1\r\n";
        let fake =
            Fake::start(&[Act::Say(":47\r\n"), Act::Say(yes), Act::Say(yes), Act::Say("*2\r\n:0\r\n*0\r\n")]);
        let mut hold = hold(&fake);
        hold.take(Some(Duration::ZERO)).expect("taken");
        assert_eq!(hold.token(), 47);
        assert!(hold.counts_until() > now());
        assert_eq!((hold.renew(), hold.release(), hold.renew()), (Renewed::Yes, Renewed::Yes, Renewed::Lost));
        let owner = hold.owner.clone();
        assert_eq!(
            fake.seen(),
            [
                format!("PUT l {owner} NX PX 2000 REV"),
                "MULTIOP IF l REV 47 THEN PEXPIRE l 2000".to_owned(),
                "MULTIOP IF l REV 47 THEN DEL l".to_owned(),
                "MULTIOP IF l REV 47 THEN PEXPIRE l 2000".to_owned(),
            ]
        );
    }

    #[test]
    fn a_lock_that_somebody_has_says_who() {
        let fake = Fake::start(&[Act::Say("$-1\r\n"), Act::Say("$5\r\nother\r\n")]);
        match hold(&fake).take(Some(Duration::ZERO)) {
            Err(NotTaken::Held { by }) => assert_eq!(by, "other"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn owners_differ() {
        assert_ne!(owner().expect("random"), owner().expect("random"));
    }
}
