//! `pelago dump`

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::connect::{Servers, cluster_of, key};
use super::load::{given, quoted};
use super::progress::{Progress, Unit, bytes, count, time};
use super::rows::Form;
use super::scan::understood;
use super::sidefile::SideFile;
use super::{Failure, print};
use crate::client::Client;
use crate::protocol::Reply;

/// Write keys, values and lives as TSV or JSON lines, in the order of the keys
#[derive(Debug, Args)]
#[command(after_help = "\
Any node answers for all groups. Each page of 1000 keys shows each group at one instant, and lives
are asked for behind it: what is written meanwhile may be in the dump or not. A consistent copy
of every group is pelago admin backup. FILE appears when it is complete (FILE.part until then).
Exit codes: 0 written, 2 stopped (which says how to go on).

Example: pelago dump users.jsonl --prefix user:")]
pub struct Dump {
    /// The file; - is stdout
    #[arg(default_value = "-")]
    file: PathBuf,

    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: OsString,

    /// How lines are written [default: by the file's name, else tsv]
    #[arg(long, value_enum)]
    format: Option<Form>,

    /// Leave out how long keys will be there, and ask for it no more
    #[arg(long)]
    no_ttl: bool,

    /// Go on where an earlier dump into this file was stopped
    #[arg(long)]
    resume: bool,

    /// Replace the file if there is one
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    servers: Servers,
}

/// Keys asked for at a time.
const PAGE: &[u8] = b"1000";

/// What `FILE.dumping` holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// What is dumped, and how.
    of: String,
    /// Where the next page begins.
    token: String,
    /// Bytes of `FILE.part` that are complete.
    offset: u64,
    /// Keys in them.
    keys: u64,
}

/// A page with the lives of its keys.
type Rows = Vec<(Bytes, Bytes, Option<u64>)>;

impl Dump {
    pub(super) fn run(self) -> Result<(), Failure> {
        let form = self.format.unwrap_or_else(|| Form::of(&self.file));
        let mut client = Client::connect(&self.servers.addresses(), Servers::options())
            .map_err(|error| Failure::error(error.to_string()))?;
        let begun = Instant::now();
        if self.file.as_os_str() == "-" {
            if self.resume {
                return Err(Failure::error(
                    "stdout cannot be resumed. Nothing was written. Dump into a file",
                ));
            }
            let mut progress = Progress::new("dump", Unit::Keys, self.expected(&mut client), 0);
            let mut keys = 0;
            let mut token = String::new();
            loop {
                let (next, rows) = self.page(&mut client, &token)?;
                let mut out = Vec::new();
                rows.iter().for_each(|(key, value, life)| form.write(key, value, *life, &mut out));
                print(&out)?;
                keys += rows.len() as u64;
                progress.at(keys);
                token = next;
                if token.is_empty() {
                    return Ok(());
                }
            }
        }
        let mut part = self.file.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut side = SideFile::of(&self.file, "dumping");
        let of = format!(
            "{form:?}{} of the keys that begin with \"{}\", from the cluster {}",
            if self.no_ttl { " without lives" } else { "" },
            key(&self.prefix).escape_ascii(),
            cluster_of(&mut client)?
        );
        let (mut file, mut note) = self.begin(&part, &side, of)?;
        let mut progress = Progress::new("dump", Unit::Keys, self.expected(&mut client), note.keys);
        loop {
            let (next, rows) =
                self.page(&mut client, &note.token).map_err(|failure| self.go_on(failure.message))?;
            let mut out = Vec::new();
            rows.iter().for_each(|(key, value, life)| form.write(key, value, *life, &mut out));
            file.write_all(&out).map_err(|error| self.unwritable(&part, &error))?;
            note.offset += out.len() as u64;
            note.keys += rows.len() as u64;
            note.token = next;
            progress.at(note.keys);
            if note.token.is_empty() {
                break;
            }
            if side.is_due() {
                // What the note promises must be there after a crash.
                file.sync_data().map_err(|error| self.unwritable(&part, &error))?;
                side.note(&note).map_err(|error| self.unwritable(side.path(), &error))?;
            }
        }
        drop(progress);
        finish(&file, &part, &self.file).map_err(|error| self.unwritable(&self.file, &error))?;
        side.remove().map_err(|error| self.unwritable(side.path(), &error))?;
        print(format!(
            "wrote {} ({}) to {} in {}\n",
            count(note.keys, "key"),
            bytes(note.offset),
            self.file.display(),
            time(begun.elapsed().as_secs_f64())
        ))
    }

    /// The file to write into, and where to begin.
    fn begin(&self, part: &Path, side: &SideFile, of: String) -> Result<(File, Note), Failure> {
        if self.file.exists() && !self.overwrite {
            return Err(Failure::error(format!(
                "{} exists. Nothing was written. Dump into another file, or add --overwrite",
                self.file.display()
            )));
        }
        let fail = |error: io::Error| {
            Failure::error(format!("{} cannot be written: {error}. Nothing was written", part.display()))
        };
        let fresh = Note { of, token: String::new(), offset: 0, keys: 0 };
        let note = if self.resume { side.read::<Note>()? } else { None };
        let Some(note) = note else {
            return Ok((File::create(part).map_err(fail)?, fresh));
        };
        if note.of != fresh.of {
            return Err(Failure::error(format!(
                "the earlier dump into {} was another one ({}, now {}). Nothing was written. Run it again without --resume",
                self.file.display(),
                note.of,
                fresh.of
            )));
        }
        let mut file = OpenOptions::new().write(true).open(part).map_err(fail)?;
        if file.metadata().map_err(fail)?.len() < note.offset {
            return Err(Failure::error(format!(
                "{} is shorter than {} says. Nothing was written. Run it again without --resume",
                part.display(),
                side.path().display()
            )));
        }
        file.set_len(note.offset).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
        Ok((file, note))
    }

    /// How many keys there will be, if that is what all keys together are.
    fn expected(&self, client: &mut Client) -> Option<u64> {
        if !self.prefix.is_empty() {
            return None;
        }
        match client.call(&[b"DBSIZE"]) {
            Ok(Reply::Integer(keys)) => u64::try_from(keys).ok(),
            _ => None,
        }
    }

    /// The page that the token names, and the token of the next one.
    fn page(&self, client: &mut Client, token: &str) -> Result<(String, Rows), Failure> {
        let mut words: Vec<&[u8]> = vec![b"PREFIX", key(&self.prefix), b"LIMIT", PAGE];
        if !token.is_empty() {
            words.extend([&b"AFTER"[..], token.as_bytes()]);
        }
        let fail = |error: &dyn std::fmt::Display| Failure::error(format!("{error}"));
        let reply = client.call(&words).map_err(|error| fail(&error))?;
        if let Reply::Error(error) = reply {
            return Err(fail(&error));
        }
        let strange = |client: &Client| {
            fail(&format!(
                "{} answered with something that is no page. Is it a node of this version?",
                client.address()
            ))
        };
        let (next, pairs) = understood(reply).ok_or_else(|| strange(client))?;
        if self.no_ttl {
            return Ok((next, pairs.into_iter().map(|(key, value)| (key, value, None)).collect()));
        }
        let questions: Vec<[&[u8]; 2]> = pairs.iter().map(|(key, _)| [&b"PTTL"[..], &key[..]]).collect();
        let mut lives = Vec::with_capacity(questions.len());
        let mut asked = 0;
        while asked < questions.len() {
            let commands: Vec<&[&[u8]]> = questions[asked..].iter().map(|words| &words[..]).collect();
            let before = asked;
            for reply in client.pipeline(&commands).map_err(|error| fail(&error))? {
                match reply {
                    Reply::Integer(life) => lives.push(life),
                    // What follows is asked again; a single question is repeated by the client itself.
                    Reply::Error(_) if asked > before => break,
                    Reply::Error(_) => match client.call(&questions[asked]).map_err(|error| fail(&error))? {
                        Reply::Integer(life) => {
                            lives.push(life);
                            asked += 1;
                            break;
                        }
                        Reply::Error(error) => return Err(fail(&error)),
                        _ => return Err(strange(client)),
                    },
                    _ => return Err(strange(client)),
                }
                asked += 1;
            }
        }
        // -1: for good. -2: gone by now, and not to come back as a key that stays.
        let rows = pairs.into_iter().zip(lives).filter(|(_, life)| *life != -2);
        let rows =
            rows.map(|((key, value), life)| (key, value, u64::try_from(life).ok().map(|life| life.max(1))));
        Ok((next, rows.collect()))
    }

    fn go_on(&self, why: String) -> Failure {
        let prefix = match self.prefix.is_empty() {
            true => String::new(),
            false => format!(" --prefix {}", quoted(Path::new(&self.prefix))),
        };
        Failure::error(format!(
            "{why}. Go on with: pelago dump {} --resume{prefix}{}{}{}",
            quoted(&self.file),
            Form::option(self.format),
            given(&[(self.no_ttl, "--no-ttl"), (self.overwrite, "--overwrite")]),
            self.servers.hint()
        ))
    }

    fn unwritable(&self, path: &Path, error: &io::Error) -> Failure {
        self.go_on(format!("{} cannot be written: {error}", path.display()))
    }
}

/// Gives the complete file its name.
fn finish(file: &File, part: &Path, name: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(part, name)?;
    checkpoint::durably::sync_dir(name.parent().unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Act, Fake};

    const STATUS: &str = "$18\r\n{\"cluster\":\"c0ff\"}\r\n";
    const ONE: &str = "*2\r\n$2\r\nr1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n";
    const LAST: &str = "*2\r\n$0\r\n\r\n*4\r\n$1\r\nb\r\n$1\r\n2\r\n$1\r\nc\r\n$1\r\n3\r\n";

    fn dump(fake: &Fake, file: &Path, resume: bool) -> Dump {
        let servers = Servers { addr: vec![fake.address.clone()] };
        let (prefix, format) = ("x".into(), Some(Form::Tsv));
        Dump { file: file.to_owned(), prefix, format, no_ttl: false, resume, overwrite: false, servers }
    }

    #[test]
    fn goes_on_behind_what_is_complete_and_leaves_out_what_has_gone() {
        let dir = std::env::temp_dir().join(format!("pelago-dump-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let file = dir.join("a.tsv");
        let fake =
            Fake::start(&[Act::Say(STATUS), Act::Say(ONE), Act::Say(":-1\r\n"), Act::Say("-ERR no\r\n")]);
        let failure = dump(&fake, &file, false).run().expect_err("the second page is refused");
        assert!(failure.message.contains("--resume --prefix x") && failure.code == 2, "{}", failure.message);
        assert!(!file.exists());
        // A crash leaves more than was noted.
        let mut part = OpenOptions::new().append(true).open(dir.join("a.tsv.part")).expect("the part");
        part.write_all(b"half a li").expect("written");
        let fake = Fake::start(&[Act::Say(STATUS), Act::Say(LAST), Act::Say(":7\r\n"), Act::Say(":-2\r\n")]);
        dump(&fake, &file, true).run().expect("the rest");
        assert_eq!(fake.seen()[1], "PREFIX x LIMIT 1000 AFTER r1");
        assert_eq!(fs::read_to_string(&file).expect("the file"), "a\t1\nb\t2\t7\n");
        let fake = Fake::start(&[Act::Say(STATUS)]);
        let again = dump(&fake, &file, false).run().expect_err("the file is there");
        assert!(again.message.contains("exists"), "{}", again.message);
        assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
