//! What the one-shot commands share: where the servers are, what values are, and how an answer
//! becomes an exit code.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, print};
use crate::client::{Client, ClientError, Options};
use crate::protocol::{ErrorClass, ErrorReply, Reply};

/// Where the three local nodes of the repository's config.toml listen.
const DEFAULT: &str = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";

/// A value read from stdin may take this many bytes; any server refuses far shorter ones.
const MAX_STDIN: u64 = 1 << 30;

/// Where the servers are.
#[derive(Debug, Clone, Args)]
pub struct Servers {
    /// Client ports [default: PELAGO_ADDR, else 127.0.0.1:7001 to 7003]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub addr: Vec<String>,
}

impl Servers {
    /// The addresses: as given, or from the environment, or the local ones.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses_or(std::env::var("PELAGO_ADDR").ok())
    }

    fn addresses_or(&self, environment: Option<String>) -> Vec<String> {
        if !self.addr.is_empty() {
            return self.addr.iter().map(|address| address.trim().to_owned()).collect();
        }
        let text = environment.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| DEFAULT.to_owned());
        text.split(',')
            .map(|address| address.trim().to_owned())
            .filter(|address| !address.is_empty())
            .collect()
    }

    /// What has to be said again for the same addresses: ` --addr …`, or nothing where none were given.
    #[must_use]
    pub fn hint(&self) -> String {
        match self.addr.is_empty() {
            true => String::new(),
            false => format!(" --addr {}", self.addr.join(",")),
        }
    }

    /// Waiting times, and the password from the environment, where `ps` does not show it.
    #[must_use]
    pub fn options() -> Options {
        let password = std::env::var("PELAGO_PASSWORD").ok().filter(|password| !password.is_empty());
        Options { password, ..Options::default() }
    }
}

/// The id of the cluster that the client talks to: what is noted for a later run is noted of one cluster.
///
/// # Errors
/// When it does not say.
pub fn cluster_of(client: &mut Client) -> Result<String, Failure> {
    let said = client.call(&[b"STATUS", b"JSON"]).map_err(|error| Failure::error(error.to_string()))?;
    let id = match &said {
        Reply::Bulk(text) => serde_json::from_slice::<Value>(text).ok(),
        Reply::Error(error) => return Err(Failure::error(error.to_string())),
        _ => None,
    };
    let id = id.as_ref().and_then(|status| status.get("cluster")?.as_str());
    id.map(str::to_owned).ok_or_else(|| {
        let address = client.address();
        Failure::error(format!("{address} does not say which cluster it belongs to. Nothing was changed"))
    })
}

/// What every write takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Written {
    /// Refused if the key was written with a larger token of a lock
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u64).range(1..))]
    fence: Option<u64>,

    /// Applied once, however often it is sent: a name and a number
    #[arg(long, value_name = "CLIENT:SEQ")]
    req: Option<String>,
}

impl Written {
    /// The words, which stand behind all others.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        if let Some(token) = self.fence {
            words.extend([b"FENCE".to_vec(), token.to_string().into_bytes()]);
        }
        if let Some(req) = &self.req {
            words.extend([b"REQ".to_vec(), req.clone().into_bytes()]);
        }
        words
    }
}

/// What every one-shot command takes.
#[derive(Debug, Clone, Args)]
pub struct OneShot {
    #[command(flatten)]
    servers: Servers,

    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// What a command has to say: as text, or as JSON, and whether it counts as a "no".
pub struct Answer {
    /// For people and scripts; written as it is.
    pub text: Vec<u8>,
    /// For `--json`.
    pub json: Value,
    /// Set when nothing was found or a condition failed: the explanation for stderr.
    pub no: Option<String>,
}

impl OneShot {
    /// Sends one command and prints what `understand` makes of its reply; `None` stands for a
    /// reply that does not belong to the command.
    pub fn run(
        &self,
        words: &[&[u8]],
        understand: impl FnOnce(Reply) -> Option<Answer>,
    ) -> Result<(), Failure> {
        let outcome = Client::connect(&self.servers.addresses(), Servers::options())
            .and_then(|mut client| Ok((client.call(words)?, client.address())));
        let (reply, address) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return self.refused(client_error(&error), error.to_string()),
        };
        let answer = match reply {
            Reply::Error(error) => return self.refused(error_json(&error), error.to_string()),
            reply => understand(reply),
        };
        let Some(answer) = answer else {
            return Err(Failure::error(format!(
                "{address} answered with something that is no answer to this command. It may have been applied. \
                 Is it a Pelago node of this version?"
            )));
        };
        if self.json {
            print(format!("{}\n", answer.json))?;
        } else {
            print(&answer.text)?;
        }
        match answer.no {
            Some(_) if self.json => Err(Failure::no("")),
            Some(why) => Err(Failure::no(why)),
            None => Ok(()),
        }
    }

    fn refused(&self, json: Value, text: String) -> Result<(), Failure> {
        if self.json {
            print(format!("{json}\n"))?;
        }
        Err(Failure::error(text))
    }
}

fn error_json(error: &ErrorReply) -> Value {
    let applied = if error.class() == ErrorClass::InDoubt { "unknown" } else { "no" };
    json!({ "error": { "class": error.class().word(), "text": error.text(), "applied": applied } })
}

fn client_error(error: &ClientError) -> Value {
    let class = if error.maybe_applied() { "INDOUBT" } else { "UNREACHABLE" };
    let applied = if error.maybe_applied() { "unknown" } else { "no" };
    json!({ "error": { "class": class, "text": error.to_string(), "applied": applied } })
}

/// The value that an argument stands for: `-` is everything on stdin, byte for byte.
pub fn value(argument: &OsStr) -> Result<Vec<u8>, Failure> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_STDIN + 1).read_to_end(&mut bytes);
    match read {
        Ok(count) if count as u64 > MAX_STDIN => {
            Err(Failure::error(format!("stdin has more than {MAX_STDIN} bytes. Nothing was sent")))
        }
        Ok(_) => Ok(bytes),
        Err(error) => {
            Err(Failure::error(format!("could not read the value from stdin: {error}. Nothing was sent")))
        }
    }
}

/// The bytes of a key.
pub fn key(argument: &OsString) -> &[u8] {
    argument.as_bytes()
}

/// Client bytes for people: readable, one line, at most a hundred characters.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 100;
    let mut text = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string();
    if bytes.len() > SHOWN {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

/// Puts bytes into a JSON object: as text under `name`, or, when they are not UTF-8, as hex
/// digits under `name_hex`.
pub fn put_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = json!(text),
        Err(_) => {
            let hex = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            object[format!("{name}_hex")] = json!(hex);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_from_the_command_line_then_the_environment_then_the_default() {
        let given = Servers { addr: vec!["a:1".into(), " b:2".into()] };
        assert_eq!(given.addresses_or(Some("c:3".into())), ["a:1", "b:2"]);
        let none = Servers { addr: Vec::new() };
        assert_eq!(none.addresses_or(Some("c:3, d:4".into())), ["c:3", "d:4"]);
        assert_eq!(none.addresses_or(Some(" ".into())).len(), 3);
        assert_eq!(none.addresses_or(None)[2], "127.0.0.1:7003");
    }

    #[test]
    fn bytes_in_json_keep_their_meaning() {
        let mut object = json!({});
        put_bytes(&mut object, "value", "ä".as_bytes());
        put_bytes(&mut object, "old", &[0xff, 0]);
        assert_eq!(object, json!({ "value": "ä", "old_hex": "ff00" }));
    }

    #[test]
    fn what_is_shown_is_one_bounded_line() {
        assert_eq!(shown(b"a\n\xff"), "a\\n\\xff");
        assert!(shown(&[b'x'; 5000]).len() < 130);
    }
}
