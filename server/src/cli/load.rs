//! `pelago load`

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::connect::{Servers, cluster_of, shown};
use super::progress::{Progress, Unit, bytes, count, time};
use super::rows::{Form, Line, next_line};
use super::sidefile::{SideFile, fingerprint};
use super::{Failure, print};
use crate::client::Client;
use crate::client::bulk::{Bulk, Put, WINDOW_BYTES, WINDOW_PUTS};

/// Set keys from a file of TSV or JSON lines
#[derive(Debug, Args)]
#[command(after_help = "\
TSV: key, tab, value, and a tab and milliseconds to live; \\n \\r \\t \\\\ \\xHH. JSON: key, value, ttl_ms
(key_base64, value_base64). Each line is a put: sent twice it does no harm. What is refused for now
is sent again; lines that are wrong are listed and left out. FILE.loading says how far it came.
Exit codes: 0 all lines, 1 all but those listed, 2 stopped (which says how to go on).

Example: pelago load users.jsonl --resume")]
pub struct Load {
    /// The file; - is stdin
    file: PathBuf,

    /// How lines are written [default: by the file's name, else tsv]
    #[arg(long, value_enum)]
    format: Option<Form>,

    /// Go on where an earlier load of this file was stopped
    #[arg(long)]
    resume: bool,

    /// Read and check everything and send nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,

    #[command(flatten)]
    servers: Servers,
}

/// A cluster that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that are wrong are listed up to here, and counted beyond.
const LISTED: u64 = 20;

/// What `FILE.loading` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Of the file as it was loaded.
    length: u64,
    /// Checksum of what [`fingerprint`] looks at.
    fingerprint: String,
    /// How its lines were read.
    form: String,
    /// The cluster that it went to.
    cluster: String,
    /// Everything before this byte is done.
    offset: u64,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    /// Lines so far, empty ones included.
    lines: u64,
    /// Keys that were set.
    loaded: u64,
    /// Their bytes.
    bytes: u64,
    /// Lines that were left out.
    wrong: u64,
}

/// Lines on their way, and where they are from.
#[derive(Default)]
struct Window {
    puts: Vec<Put>,
    lines: Vec<u64>,
    bytes: usize,
}

impl Load {
    pub(super) fn run(self) -> Result<(), Failure> {
        let form = self.format.unwrap_or_else(|| Form::of(&self.file));
        if self.file.as_os_str() == "-" {
            if self.resume {
                return Err(Failure::error("stdin cannot be resumed. Nothing was sent. Load from a file"));
            }
            return self.load(&mut io::stdin().lock(), form, Start::default(), None);
        }
        let fail = |error: io::Error| {
            Failure::error(format!("{} cannot be read: {error}. Nothing was sent", self.file.display()))
        };
        let cluster = match self.dry_run {
            true => String::new(),
            false => {
                let client = Client::connect(&self.servers.addresses(), Servers::options());
                cluster_of(&mut client.map_err(|error| Failure::error(error.to_string()))?)?
            }
        };
        let mut file = File::open(&self.file).map_err(fail)?;
        let side = SideFile::of(&self.file, "loading");
        let mut start = Start {
            offset: 0,
            counts: Counts::default(),
            length: Some(file.metadata().map_err(fail)?.len()),
            cluster,
        };
        match side.read::<Note>() {
            Ok(Some(note)) if self.resume => {
                let now = fingerprint(&mut file, note.offset).map_err(fail)?;
                if now != (note.length, note.fingerprint) {
                    return Err(Failure::error(format!(
                        "{} has changed since {} was written. Nothing was sent. Run it again without --resume",
                        self.file.display(),
                        side.path().display()
                    )));
                }
                let form = form.name();
                if (note.form.as_str(), &note.cluster) != (form.as_str(), &start.cluster) {
                    return Err(Failure::error(format!(
                        "the earlier load of {} went to the cluster {} and read {}; this one would go to {} and read \
                         {form}. Nothing was sent. Name that one with --addr, with --format as before, or run it again \
                         without --resume",
                        self.file.display(),
                        note.cluster,
                        note.form,
                        start.cluster,
                    )));
                }
                (start.offset, start.counts) = (note.offset, note.counts);
            }
            Ok(None) if self.resume => say("no earlier load was stopped: this one begins at the first line"),
            Ok(Some(note)) if !self.dry_run => say(&format!(
                "an earlier load came to line {}: --resume goes on there; this one begins at the first line",
                note.counts.lines
            )),
            Err(failure) if self.resume => return Err(failure),
            _ => {}
        }
        // Also where it was looked at: behind what is done.
        fingerprint(&mut file, start.offset).map_err(fail)?;
        let side = (!self.dry_run).then_some(side);
        self.load(&mut BufReader::with_capacity(1 << 18, file), form, start, side)
    }

    fn load(
        &self,
        input: &mut impl BufRead,
        form: Form,
        start: Start,
        side: Option<SideFile>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut loading = Loading {
            load: self,
            progress: Progress::new("load", Unit::Bytes, start.length, start.offset),
            side,
            form,
            cluster: start.cluster,
            offset: start.offset,
            counts: start.counts,
            length: start.length,
        };
        let mut bulk = match self.dry_run {
            true => None,
            false => {
                let bulk = Bulk::connect(&self.servers.addresses(), &Servers::options(), PATIENCE);
                Some(bulk.map_err(|error| Failure::error(error.to_string()))?)
            }
        };
        loop {
            let (mut window, more) = loading.read(input)?;
            if let Some(bulk) = &mut bulk {
                loading.write(bulk, &mut window)?;
            }
            loading.counts.loaded += window.puts.len() as u64;
            loading.counts.bytes +=
                window.puts.iter().map(|put| (put.key.len() + put.value.len()) as u64).sum::<u64>();
            loading.note();
            loading.progress.at(loading.offset);
            if !more {
                break;
            }
        }
        let Loading { counts, progress, side, .. } = loading;
        drop(progress);
        if let Some(side) = side {
            side.remove().map_err(|error| {
                Failure::error(format!(
                    "everything is loaded, but {} cannot be removed: {error}",
                    side.path().display()
                ))
            })?;
        }
        let verb = if self.dry_run { "to load: " } else { "loaded " };
        let again = bulk.map_or(0, |bulk| bulk.repeated());
        let again = if again > 0 { format!(", {again} sent again") } else { String::new() };
        print(format!(
            "{verb}{} ({}) from {} in {}{again}\n",
            count(counts.loaded, "key"),
            bytes(counts.bytes),
            count(counts.lines, "line"),
            time(begun.elapsed().as_secs_f64())
        ))?;
        if self.dry_run {
            say("nothing was sent");
        }
        match counts.wrong {
            0 => Ok(()),
            wrong => Err(Failure::no(format!(
                "{} wrong and left out. Correct them and load the file again: what is loaded already does no harm",
                if wrong == 1 { "1 line was".to_owned() } else { format!("{wrong} lines were") }
            ))),
        }
    }
}

/// Where a load begins.
#[derive(Default)]
struct Start {
    offset: u64,
    counts: Counts,
    /// Bytes of the whole input, where that is known.
    length: Option<u64>,
    /// The cluster that it goes to, where that matters.
    cluster: String,
}

struct Loading<'a> {
    load: &'a Load,
    progress: Progress,
    side: Option<SideFile>,
    form: Form,
    /// For the note, as in [`Note`].
    cluster: String,
    /// Bytes read.
    offset: u64,
    counts: Counts,
    length: Option<u64>,
}

impl Loading<'_> {
    /// The next window, and whether there may be more.
    fn read(&mut self, input: &mut impl BufRead) -> Result<(Window, bool), Failure> {
        let mut window = Window::default();
        while window.puts.len() < WINDOW_PUTS && window.bytes < WINDOW_BYTES {
            let line = match next_line(input) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok((window, false)),
                Err(error) => {
                    let lines = self.counts.lines - window.lines.len() as u64;
                    return Err(
                        self.stopped(&format!("the input cannot be read behind line {lines}: {error}"))
                    );
                }
            };
            self.offset += line.1;
            self.counts.lines += 1;
            let put = match line.0 {
                Line::Whole(line) => self.form.read(&line),
                Line::TooLong => Err("the line is longer than any value can be".to_owned()),
            };
            match put {
                Ok(Some(put)) => {
                    window.bytes += put.key.len() + put.value.len();
                    window.lines.push(self.counts.lines);
                    window.puts.push(put);
                }
                Ok(None) => {}
                Err(why) => self.wrong(self.counts.lines, &why),
            }
        }
        Ok((window, true))
    }

    /// Writes a window; what was refused for what it is is taken out of it.
    fn write(&mut self, bulk: &mut Bulk, window: &mut Window) -> Result<(), Failure> {
        let refused = bulk.write(&window.puts).map_err(|error| self.stopped(&error.to_string()))?;
        for (at, error) in refused.iter().rev() {
            let put = window.puts.remove(*at);
            self.wrong(window.lines[*at], &format!("the key \"{}\" was refused: {error}", shown(&put.key)));
        }
        Ok(())
    }

    fn wrong(&mut self, line: u64, why: &str) {
        self.counts.wrong += 1;
        if self.counts.wrong <= LISTED {
            self.progress.say(&format!("{}:{line}: {why}", self.load.file.display()));
        }
        if self.counts.wrong == LISTED {
            self.progress.say("further lines that are wrong are only counted");
        }
    }

    /// Notes how far it has come. What cannot be noted can be loaded all the same.
    fn note(&mut self) {
        let (Some(side), Some(length)) = (&mut self.side, self.length) else { return };
        let note = || -> io::Result<Note> {
            let mut file = File::open(&self.load.file)?;
            let (_, fingerprint) = fingerprint(&mut file, self.offset)?;
            let (form, cluster) = (self.form.name(), self.cluster.clone());
            Ok(Note { length, fingerprint, form, cluster, offset: self.offset, counts: self.counts })
        };
        // Reading for the fingerprint costs as much as the note.
        if !side.is_due() {
            return;
        }
        if let Err(error) = note().and_then(|note| side.note(&note)) {
            self.progress.say(&format!(
                "{} cannot be written, so that this load cannot be resumed: {error}",
                side.path().display()
            ));
            self.side = None;
        }
    }

    fn stopped(&self, why: &str) -> Failure {
        let Counts { loaded, .. } = self.counts;
        let how = match &self.side {
            Some(_) => format!(
                "Go on with: pelago load {} --resume{}{}",
                quoted(&self.load.file),
                Form::option(self.load.format),
                self.load.servers.hint()
            ),
            None => "Load it again: what is there already does no harm".to_owned(),
        };
        Failure::error(format!("{why}. {} set before that, and perhaps some behind. {how}", are(loaded)))
    }
}

fn are(keys: u64) -> String {
    if keys == 1 { "1 key was".to_owned() } else { format!("{keys} keys were") }
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match text.chars().all(|c| c.is_alphanumeric() || "/._-+,=:@%".contains(c)) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Those options of a command line that were given, as they are repeated behind it.
pub fn given(options: &[(bool, &str)]) -> String {
    options.iter().filter(|(given, _)| *given).map(|(_, option)| format!(" {option}")).collect()
}

fn say(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "pelago: {text}");
}
