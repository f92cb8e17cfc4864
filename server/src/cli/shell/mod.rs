//! `pelago shell`: commands of the line protocol, one after the other, with their replies.
//!
//! At a terminal there are history, completion and hints ([`edit`]); without one it reads a command per
//! line. What is typed goes to the server as it is, but for the words that begin with a colon.

mod edit;
mod history;
mod session;
mod show;
mod syntax;

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use rustyline::Editor;
use rustyline::config::{Builder, CompletionType, Configurer as _};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use self::edit::Aid;
use self::history::History;
use self::session::{Session, Verdict};
use self::show::Style;
use super::connect::Servers;
use super::rows::{Line, next_line};
use super::{Failure, print};
use crate::protocol::split_line;

/// Type commands and see their replies
#[derive(Debug, Args)]
#[command(after_help = "\
Tab completes, Ctrl-R searches the history, help and help PUT explain, :help lists the shell's own
words. A quote that is not closed goes on in the next line. SUBSCRIBEKV prints changes until Ctrl-C.
A lost connection is replaced, and it is said whether the command may have been applied.
Commands come from stdin, one per line, where that is no terminal: it ends at the first error.
Exit codes there: 0 done, 1 a reply was nil, 2 an error.

Example: pelago shell --addr 127.0.0.1:7001,127.0.0.1:7002")]
pub struct Shell {
    /// Print replies as they are (so it is where stdout is no terminal)
    #[arg(long, conflicts_with = "no_raw")]
    raw: bool,

    /// Print replies for people in any case
    #[arg(long)]
    no_raw: bool,

    /// Without a terminal: go on behind an error
    #[arg(long)]
    keep_going: bool,

    #[command(flatten)]
    servers: Servers,
}

/// What `:help` says.
const HELP: &str = "\
help, help PUT   all commands of the server, or one in detail
:help            this
:status          the cluster as the node sees it
:raw, :pretty    how replies are printed
:quit            leaves; so do quit, exit and Ctrl-D
Tab completes a command or an option, Ctrl-R searches what was typed before, Ctrl-C gives up a line.
\"two words\" and 'two words' are one word; \"\\n \\t \\\\ \\\" \\xHH\" are what they are in C.
";

impl Shell {
    pub(super) fn run(self) -> Result<(), Failure> {
        let raw = self.raw || (!self.no_raw && !io::stdout().is_terminal());
        let session = Session::connect(&self.servers, if raw { Style::Raw } else { Style::Pretty })?;
        match io::stdin().is_terminal() {
            true => interactive(session),
            false => piped(session, self.keep_going),
        }
    }
}

fn interactive(mut session: Session) -> Result<(), Failure> {
    let fail =
        |error: &dyn std::fmt::Display| Failure::error(format!("the terminal cannot be used: {error}"));
    let config = Builder::new().completion_type(CompletionType::List).auto_add_history(false).build();
    let mut editor: Editor<Aid, MemHistory> =
        Editor::with_history(config, MemHistory::new()).map_err(|error| fail(&error))?;
    editor.set_max_history_size(history::KEPT).map_err(|error| fail(&error))?;
    editor.set_helper(Some(Aid::new(std::env::var_os("NO_COLOR").is_none())));
    let mut history = match History::open() {
        Ok(history) => history,
        Err(error) => {
            say(&format!("what is typed cannot be kept: {error}"));
            History::none()
        }
    };
    for line in history.lines() {
        editor.add_history_entry(line).map_err(|error| fail(&error))?;
    }
    say("help lists the commands, :help the shell's own words, Ctrl-D leaves");
    loop {
        let line = match editor.readline(&session.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(fail(&error)),
        };
        if history::may_be_kept(&line) {
            editor.add_history_entry(line.as_str()).map_err(|error| fail(&error))?;
            if let Err(error) = history.add(&line) {
                say(&format!("what is typed cannot be kept: {error}"));
                history = History::none();
            }
        }
        if let Verdict::Leave = one(&mut session, line.as_bytes())? {
            return Ok(());
        }
    }
}

fn piped(mut session: Session, keep_going: bool) -> Result<(), Failure> {
    let (mut input, mut number, mut worst) = (io::stdin().lock(), 0_u64, Verdict::Fine);
    loop {
        let line = match next_line(&mut input) {
            Ok(Some((line, _))) => line,
            Ok(None) => break,
            Err(error) => return Err(Failure::error(format!("stdin cannot be read: {error}"))),
        };
        number += 1;
        let verdict = match line {
            Line::Whole(line) => one(&mut session, &line)?,
            Line::TooLong => {
                say("the line is longer than any command can be. It was not sent");
                Verdict::Error
            }
        };
        match verdict {
            Verdict::Leave => break,
            Verdict::Error => {
                worst = Verdict::Error;
                if !keep_going {
                    let rest = "What follows was not sent; --keep-going sends it all the same";
                    return Err(Failure::error(format!("line {number}: ended at the error. {rest}")));
                }
            }
            Verdict::Nil if worst == Verdict::Fine => worst = Verdict::Nil,
            _ => {}
        }
    }
    match worst {
        Verdict::Error => Err(Failure::error("there were errors")),
        Verdict::Nil => Err(Failure::no("")),
        _ => Ok(()),
    }
}

/// One line.
fn one(session: &mut Session, line: &[u8]) -> Result<Verdict, Failure> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(args) = split_line(bytes::Bytes::copy_from_slice(line)) else {
        say("a quote is not closed, or is closed in the middle of a word. Nothing was sent");
        return Ok(Verdict::Error);
    };
    let words: Vec<&[u8]> = args.iter().collect();
    let Some(first) = words.first() else { return Ok(Verdict::Fine) };
    match first.to_ascii_lowercase().as_slice() {
        b":quit" | b":q" | b"quit" | b"exit" => Ok(Verdict::Leave),
        b":help" | b":h" => print(HELP).map(|()| Verdict::Fine),
        b":status" => session.run(&[b"STATUS"]),
        b":raw" => session.style(Style::Raw),
        b":pretty" => session.style(Style::Pretty),
        [b':', ..] => {
            say(&format!("the shell has no word {}. Nothing was sent. Type :help", first.escape_ascii()));
            Ok(Verdict::Error)
        }
        b"subscribekv" if words.len() >= 2 => session.subscribe(&words),
        _ => session.run(&words),
    }
}

fn say(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}
