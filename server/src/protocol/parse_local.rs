//! The forms of the commands about the connection, the table of commands and the cluster.

use bytes::Bytes;
use groups::ids::{GroupId, Slot};
use groups::kv::slot::{SLOTS, slot_of};

use super::args::Args;
use super::command::{Credentials, Hello, HelpTopic, KillFilter, LocalCommand, TableQuery};
use super::error::{ErrorReply, quoted};
use super::number;
use super::refusal::unknown;
use super::reply::Version;
use super::table::{self, COMMANDS, Verb};
use super::words::{Words, lower};

impl Words<'_> {
    pub(super) fn local(&mut self) -> Result<LocalCommand, ErrorReply> {
        Ok(match self.spec.verb {
            Verb::Ping => {
                let message = self.bytes();
                self.end()?;
                LocalCommand::Ping(message)
            }
            Verb::Echo => LocalCommand::Echo(self.required()?),
            Verb::Hello => LocalCommand::Hello(self.hello()?),
            Verb::Auth => LocalCommand::Auth(self.auth()?),
            Verb::ClientId => LocalCommand::ClientId,
            Verb::ClientGetName => LocalCommand::ClientGetName,
            Verb::ClientSetName => LocalCommand::ClientSetName(self.client_name()?),
            Verb::ClientSetInfo => self.client_info()?,
            Verb::ClientInfo => LocalCommand::ClientInfo,
            Verb::ClientReply => self.one_of(&["ON"])?,
            Verb::ClientSwitch => self.one_of(&["ON", "OFF"])?,
            Verb::ClientRedirect => {
                let on = self.args.get(self.next).is_some_and(|word| word.eq_ignore_ascii_case(b"ON"));
                self.one_of(&["ON", "OFF"])?;
                LocalCommand::Redirect(on)
            }
            Verb::SubcommandHelp => {
                LocalCommand::Help(self.parent.map_or(HelpTopic::All, HelpTopic::Command))
            }
            Verb::Select => self.select()?,
            Verb::Command => LocalCommand::Table(TableQuery::All),
            Verb::CommandCount => LocalCommand::Table(TableQuery::Count),
            Verb::CommandInfo => LocalCommand::Table(self.command_info()),
            Verb::CommandDocs => LocalCommand::Table(self.command_docs()),
            Verb::CommandList => LocalCommand::Table(self.command_list()?),
            Verb::CommandGetKeys => LocalCommand::Table(self.command_keys()?),
            Verb::ConfigGet => LocalCommand::ConfigGet(self.rest().collect()),
            Verb::ConfigSet => {
                return Err(ErrorReply::err(
                    "settings are not changed by clients; nothing was changed; edit config.toml, check it with \
                     `pelago config check`, and have it read again with `pelago admin reload`",
                ));
            }
            Verb::Help => self.help()?,
            Verb::Time => LocalCommand::Time,
            Verb::Reset => LocalCommand::Reset,
            Verb::Quit => LocalCommand::Quit,
            Verb::ReadOnly => LocalCommand::Nothing,
            Verb::ClusterKeySlot => LocalCommand::KeySlot(slot_of(&self.required()?)),
            // Commands with subcommands get here only without one, which their arity forbids.
            _ => return Err(self.wrong_arity()),
        })
    }

    pub(super) fn hello(&mut self) -> Result<Hello, ErrorReply> {
        let mut hello = Hello::default();
        let Some(version) = self.word() else { return Ok(hello) };
        hello.version = Some(match number::integer(version) {
            Some(2) => Version::Resp2,
            Some(3) => Version::Resp3,
            Some(_) => return Err(ErrorReply::no_proto()),
            None => return Err(ErrorReply::err("Protocol version is not an integer or out of range")),
        });
        while let Some(option) = self.bytes() {
            if option.eq_ignore_ascii_case(b"AUTH") && self.left() >= 2 {
                hello.auth =
                    Some(Credentials { user: self.required()?, password: self.required()?, named: true });
            } else if option.eq_ignore_ascii_case(b"SETNAME") && self.left() >= 1 {
                hello.name = Some(self.client_name()?);
            } else {
                return Err(ErrorReply::err(format!("Syntax error in HELLO option '{}'", quoted(&option))));
            }
        }
        Ok(hello)
    }

    pub(super) fn auth(&mut self) -> Result<Credentials, ErrorReply> {
        let first = self.required()?;
        match (self.bytes(), self.left()) {
            (None, _) => {
                Ok(Credentials { user: Bytes::from_static(b"default"), password: first, named: false })
            }
            (Some(password), 0) => Ok(Credentials { user: first, password, named: true }),
            _ => Err(ErrorReply::err("syntax error")),
        }
    }

    pub(super) fn client_name(&mut self) -> Result<String, ErrorReply> {
        let name = self.required()?;
        printable(&name).ok_or_else(|| {
            ErrorReply::err("Client names cannot contain spaces, newlines or special characters.")
        })
    }

    pub(super) fn client_info(&mut self) -> Result<LocalCommand, ErrorReply> {
        let attribute = self.required()?;
        let value = self.required()?;
        let command: fn(String) -> LocalCommand = if attribute.eq_ignore_ascii_case(b"LIB-NAME") {
            LocalCommand::ClientLibraryName
        } else if attribute.eq_ignore_ascii_case(b"LIB-VER") {
            LocalCommand::ClientLibraryVersion
        } else {
            return Err(ErrorReply::err(format!("Unrecognized option '{}'", quoted(&attribute))));
        };
        printable(&value).map(command).ok_or_else(|| {
            ErrorReply::err(format!(
                "{} cannot contain spaces, newlines or special characters.",
                lower(&attribute)
            ))
        })
    }

    pub(super) fn one_of(&mut self, choices: &[&str]) -> Result<LocalCommand, ErrorReply> {
        let word = self.required()?;
        match choices.iter().any(|choice| word.eq_ignore_ascii_case(choice.as_bytes())) {
            true => Ok(LocalCommand::Nothing),
            false => Err(self.unexpected(&word)),
        }
    }

    pub(super) fn select(&mut self) -> Result<LocalCommand, ErrorReply> {
        match self.integer()? {
            0 => Ok(LocalCommand::Nothing),
            _ => Err(ErrorReply::err("DB index is out of range")),
        }
    }

    pub(super) fn json(&mut self) -> Result<bool, ErrorReply> {
        let Some(word) = self.bytes() else { return Ok(false) };
        if !word.eq_ignore_ascii_case(b"JSON") {
            return Err(self.unexpected(&word));
        }
        self.end().map(|()| true)
    }

    /// `GROUP n`, or nothing.
    pub(super) fn group(&mut self) -> Result<Option<GroupId>, ErrorReply> {
        let Some(word) = self.bytes() else { return Ok(None) };
        if !word.eq_ignore_ascii_case(b"GROUP") {
            return Err(self.unexpected(&word));
        }
        let group = self.group_number()?;
        self.end()?;
        Ok(Some(group))
    }

    pub(super) fn group_number(&mut self) -> Result<GroupId, ErrorReply> {
        let group = self.integer()?;
        let group = u32::try_from(group)
            .map_err(|_| ErrorReply::err("a group is a number from 0 on; nothing was changed"))?;
        Ok(GroupId(group))
    }

    pub(super) fn slot(&mut self) -> Result<Slot, ErrorReply> {
        let slot = self.integer()?;
        u16::try_from(slot)
            .ok()
            .filter(|slot| *slot < SLOTS)
            .map(Slot)
            .ok_or_else(|| ErrorReply::err("Invalid slot"))
    }

    pub(super) fn command_info(&mut self) -> TableQuery {
        match self.left() {
            0 => TableQuery::All,
            _ => TableQuery::Info(self.rest().map(|name| table::find(&name)).collect()),
        }
    }

    pub(super) fn command_docs(&mut self) -> TableQuery {
        match self.left() {
            0 => TableQuery::Docs(COMMANDS.iter().collect()),
            _ => TableQuery::Docs(self.rest().filter_map(|name| table::find(&name)).collect()),
        }
    }

    pub(super) fn command_list(&mut self) -> Result<TableQuery, ErrorReply> {
        let Some(filter) = self.bytes() else { return Ok(TableQuery::List(None)) };
        let kind = self.bytes();
        let by_pattern = filter.eq_ignore_ascii_case(b"FILTERBY")
            && kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"PATTERN"));
        match (by_pattern, self.bytes(), self.left()) {
            (true, Some(pattern), 0) => Ok(TableQuery::List(Some(pattern))),
            _ => Err(self.syntax_error("only FILTERBY PATTERN is known")),
        }
    }

    pub(super) fn command_keys(&mut self) -> Result<TableQuery, ErrorReply> {
        let words: Vec<Bytes> = self.rest().collect();
        let spec = words
            .first()
            .and_then(|name| table::find(name))
            .ok_or_else(|| ErrorReply::err("Invalid command specified"))?;
        if spec.keys.first == 0 {
            return Err(ErrorReply::err("The command has no key arguments"));
        }
        if !spec.admits(words.len()) {
            return Err(ErrorReply::err("Invalid number of arguments specified for command"));
        }
        Ok(TableQuery::Keys(spec.keys.of(words.len()).filter_map(|at| words.get(at).cloned()).collect()))
    }

    pub(super) fn help(&mut self) -> Result<LocalCommand, ErrorReply> {
        let Some(name) = self.bytes() else { return Ok(LocalCommand::Help(HelpTopic::All)) };
        // `HELP @chapter` as redis-cli writes it, and `HELP client setname` as people do.
        let bare = name.strip_prefix(b"@").unwrap_or(&name);
        let chapter = || {
            COMMANDS.iter().map(|spec| spec.group).find(|group| bare.eq_ignore_ascii_case(group.as_bytes()))
        };
        let topic = if let Some(spec) = table::find(&name) {
            HelpTopic::Command(spec)
        } else if let Some(chapter) = chapter() {
            HelpTopic::Chapter(chapter)
        } else if name.eq_ignore_ascii_case(b"COMPAT") {
            HelpTopic::Compat
        } else {
            return Err(unknown(&name, &Args::default()));
        };
        Ok(LocalCommand::Help(topic))
    }

    pub(super) fn kill_filter(&mut self) -> Result<KillFilter, ErrorReply> {
        let mut filter = KillFilter { id: None, peer: None, local: None, skip_me: true, plain: false };
        if self.left() == 1 {
            let peer = Some(lower(&self.required()?));
            return Ok(KillFilter { peer, skip_me: false, plain: true, ..filter });
        }
        while let Some(option) = self.bytes() {
            let value = self.bytes().ok_or_else(|| self.syntax_error("a filter needs a value"))?;
            match lower(&option).as_str() {
                "id" => {
                    let id = number::unsigned(&value).filter(|id| *id > 0);
                    filter.id =
                        Some(id.ok_or_else(|| ErrorReply::err("client-id should be greater than 0"))?);
                }
                "addr" => filter.peer = Some(lower(&value)),
                "laddr" => filter.local = Some(lower(&value)),
                "skipme" if value.eq_ignore_ascii_case(b"YES") => filter.skip_me = true,
                "skipme" if value.eq_ignore_ascii_case(b"NO") => filter.skip_me = false,
                _ => return Err(self.unexpected(&option)),
            }
        }
        Ok(filter)
    }

    /// How many keys are wanted; more are not given at one time.
    pub(super) fn key_count(&mut self) -> Result<u32, ErrorReply> {
        let count = self.integer()?;
        u32::try_from(count)
            .map(|count| count.min(MAX_KEYS_IN_SLOT))
            .map_err(|_| ErrorReply::err("Invalid slot or number of keys"))
    }
}

/// The most keys that `CLUSTER GETKEYSINSLOT` names.
const MAX_KEYS_IN_SLOT: u32 = 10_000;

/// A name without blanks or special characters, of at most 256 bytes.
fn printable(name: &[u8]) -> Option<String> {
    const LONGEST: usize = 256;
    let fine = name.len() <= LONGEST && name.iter().all(u8::is_ascii_graphic);
    fine.then(|| name.iter().copied().map(char::from).collect())
}
