//! The words in which a request is refused.

use super::args::Args;
use super::command::SizeLimits;
use super::compat;
use super::error::{ErrorReply, quoted};
use super::nearest::nearest;
use super::table::{COMMANDS, CommandSpec};

/// How a command is written, its name in capitals.
pub(super) fn usage(parent: Option<&CommandSpec>, spec: &CommandSpec) -> String {
    let mut usage = parent.map_or(String::new(), |parent| parent.name.to_uppercase() + " ");
    usage += &spec.name.to_uppercase();
    if !spec.syntax.is_empty() {
        usage += " ";
        usage += spec.syntax;
    }
    usage
}

pub(super) fn wrong_arity(parent: Option<&CommandSpec>, spec: &CommandSpec) -> ErrorReply {
    let name = parent.map_or(spec.name.to_owned(), |parent| format!("{}|{}", parent.name, spec.name));
    ErrorReply::err(format!("wrong number of arguments for '{name}' command; usage: {}", usage(parent, spec)))
}

pub(super) fn unknown(name: &[u8], args: &Args) -> ErrorReply {
    let shown = quoted(name);
    if let Some(why) = compat::absence(name) {
        return ErrorReply::err(format!(
            "unknown command '{shown}': {why}; nothing was applied; HELP lists all commands"
        ));
    }
    let mut text = format!("unknown command '{shown}', with args beginning with: ");
    for word in args.iter().skip(1) {
        if text.len() > 256 {
            break;
        }
        text += &format!("'{}' ", quoted(word));
    }
    match nearest(&shown, COMMANDS.iter().map(|spec| spec.name)) {
        Some(known) => text += &format!("; did you mean '{known}'?"),
        None => text += "; HELP lists all commands",
    }
    ErrorReply::err(text)
}

pub(super) fn unknown_subcommand(spec: &CommandSpec, word: &[u8]) -> ErrorReply {
    let shown = quoted(word);
    let names = || spec.subcommands.iter().map(|subcommand| subcommand.name);
    let parent = spec.name.to_uppercase();
    if let Some(why) = compat::absence(format!("{}|{shown}", spec.name).as_bytes()) {
        return ErrorReply::err(format!(
            "unknown subcommand '{shown}': {why}; nothing was applied. Try HELP {parent}."
        ));
    }
    ErrorReply::err(match nearest(&shown, names()) {
        Some(known) => {
            format!("unknown subcommand '{shown}'. Did you mean {parent} {}?", known.to_uppercase())
        }
        None => format!("unknown subcommand '{shown}'. Try HELP {parent}."),
    })
}

pub(super) fn not_an_integer() -> ErrorReply {
    ErrorReply::err("value is not an integer or out of range")
}

pub(super) fn key_too_big(length: u64, limits: &SizeLimits) -> ErrorReply {
    ErrorReply::too_big("the key", length, limits.max_key as u64, "limits.max_key")
}

pub(super) fn value_too_big(length: u64, limits: &SizeLimits) -> ErrorReply {
    ErrorReply::too_big("the value", length, limits.max_value as u64, "limits.max_value")
}
