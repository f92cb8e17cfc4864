//! What `COMMAND` and `HELP` say about the table of commands.

use std::fmt::Write;

use bytes::Bytes;

use super::command::{HelpTopic, TableQuery};
use super::compat;
use super::glob;
use super::refusal::usage;
use super::reply::Reply;
use super::table::{COMMANDS, CommandSpec, flag};

pub(super) fn answer(query: &TableQuery) -> Reply {
    match query {
        TableQuery::All => Reply::Array(COMMANDS.iter().map(|spec| info(None, spec)).collect()),
        TableQuery::Count => Reply::Integer(COMMANDS.len() as i64),
        TableQuery::Info(specs) => Reply::Array(
            specs.iter().map(|spec| spec.map_or(Reply::NilArray, |spec| info(None, spec))).collect(),
        ),
        TableQuery::Docs(specs) => {
            Reply::Map(specs.iter().map(|spec| (Reply::bulk(spec.name), docs(None, spec))).collect())
        }
        TableQuery::List(pattern) => {
            Reply::Array(matching(COMMANDS, pattern.as_ref()).map(Reply::bulk).collect())
        }
        TableQuery::Keys(keys) => Reply::Array(keys.iter().cloned().map(Reply::Bulk).collect()),
    }
}

/// The ten elements that Redis answers for one command; tips and key specifications are empty,
/// the positions of the keys say it all.
fn info(parent: Option<&CommandSpec>, spec: &CommandSpec) -> Reply {
    let status = |name: String| Reply::Simple(name.into());
    let flags = flag::NAMES.iter().filter(|(flag, _)| spec.has(*flag));
    Reply::Array(vec![
        Reply::bulk(full_name(parent, spec)),
        Reply::Integer(spec.arity.into()),
        Reply::Set(flags.map(|(_, name)| status((*name).to_owned())).collect()),
        Reply::Integer(spec.keys.first.into()),
        Reply::Integer(spec.keys.last.into()),
        Reply::Integer(spec.keys.step.into()),
        Reply::Set(categories(spec).into_iter().map(|name| status(format!("@{name}"))).collect()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(spec.subcommands.iter().map(|subcommand| info(Some(spec), subcommand)).collect()),
    ])
}

fn docs(parent: Option<&CommandSpec>, spec: &CommandSpec) -> Reply {
    let mut fields = vec![
        (Reply::bulk("summary"), Reply::bulk(spec.summary)),
        (Reply::bulk("since"), Reply::bulk(spec.since)),
        (Reply::bulk("group"), Reply::bulk(redis_group(spec))),
        (Reply::bulk("usage"), Reply::bulk(usage(parent, spec))),
    ];
    let arguments: Vec<Reply> = arguments(spec.syntax).map(argument).collect();
    if !arguments.is_empty() {
        fields.push((Reply::bulk("arguments"), Reply::Array(arguments)));
    }
    if !spec.subcommands.is_empty() {
        let subcommands = spec.subcommands.iter();
        let docs = subcommands.map(|sub| (Reply::bulk(full_name(Some(spec), sub)), docs(Some(spec), sub)));
        fields.push((Reply::bulk("subcommands"), Reply::Map(docs.collect())));
    }
    Reply::Map(fields)
}

/// The arguments of a syntax, each as it is written: words, and whole brackets.
fn arguments(syntax: &str) -> impl Iterator<Item = &str> {
    let mut rest = syntax;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let mut depth = 0i32;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            depth == 0 && c == ' '
        });
        let (argument, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        (!argument.is_empty()).then_some(argument)
    })
}

/// An argument as `COMMAND DOCS` tells of it, which `redis-cli` shows while people type.
fn argument(written: &str) -> Reply {
    let inner = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let kind = if written == "key" { "key" } else { "string" };
    let mut fields = vec![
        (Reply::bulk("name"), Reply::bulk(inner.unwrap_or(written))),
        (Reply::bulk("display_text"), Reply::bulk(inner.unwrap_or(written))),
        (Reply::bulk("type"), Reply::bulk(kind)),
    ];
    if inner.is_some() {
        fields.push((Reply::bulk("flags"), Reply::Set(vec![Reply::Simple("optional".into())])));
    }
    Reply::Map(fields)
}

fn full_name(parent: Option<&CommandSpec>, spec: &CommandSpec) -> String {
    parent.map_or(spec.name.to_owned(), |parent| format!("{}|{}", parent.name, spec.name))
}

fn categories(spec: &CommandSpec) -> Vec<&'static str> {
    let mut categories = Vec::new();
    if spec.has(flag::WRITE) {
        categories.push("write");
    }
    if spec.has(flag::READONLY) {
        categories.push("read");
    }
    if spec.group == "data" {
        categories.push("string");
    }
    if spec.group == "connection" {
        categories.push("connection");
    }
    if spec.group == "transactions" {
        categories.push("transaction");
    }
    categories.push(if spec.has(flag::FAST) { "fast" } else { "slow" });
    categories
}

/// Redis' tools know their own chapters only.
fn redis_group(spec: &CommandSpec) -> &'static str {
    match spec.group {
        "data" => "string",
        "ordered" => "generic",
        "watch" => "pubsub",
        group => group,
    }
}

/// `HELP` for people.
pub(super) fn help(topic: HelpTopic) -> Reply {
    let mut text = String::new();
    match topic {
        HelpTopic::All => overview(&mut text),
        HelpTopic::Compat => text = compat::help(),
        HelpTopic::Chapter(chapter) => {
            for spec in COMMANDS.iter().filter(|spec| spec.group == chapter) {
                line(&mut text, &usage(None, spec), spec.summary);
            }
        }
        HelpTopic::Command(spec) => {
            line(&mut text, &usage(None, spec), spec.summary);
            for subcommand in spec.subcommands {
                line(&mut text, &usage(Some(spec), subcommand), subcommand.summary);
            }
        }
    }
    Reply::text(text)
}

fn overview(text: &mut String) {
    let mut group = "";
    for spec in COMMANDS {
        if group != spec.group {
            group = spec.group;
            *text += if text.is_empty() { "" } else { "\n" };
            *text += group;
            *text += "\n";
        }
        *text += "  ";
        line(text, &spec.name.to_uppercase(), spec.summary);
    }
    *text += "\nHELP command shows what stands behind its name, HELP chapter does so for all of a chapter,\n\
              and HELP COMPAT says what of Redis is here.\n";
}

fn line(text: &mut String, left: &str, right: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{left:<12} {right}");
}

/// The names of `specs` that match `pattern`.
fn matching<'a>(
    specs: &'a [CommandSpec],
    pattern: Option<&'a Bytes>,
) -> impl Iterator<Item = &'static str> + 'a {
    specs
        .iter()
        .map(|spec| spec.name)
        .filter(move |name| pattern.is_none_or(|pattern| glob::matches(pattern, name.as_bytes(), true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_is_cut_into_its_arguments() {
        let cut = |syntax| arguments(syntax).collect::<Vec<_>>();
        assert_eq!(cut(""), [""; 0]);
        assert_eq!(cut("key start end"), ["key", "start", "end"]);
        assert_eq!(cut("key [NX | XX [a b]] [GET]"), ["key", "[NX | XX [a b]]", "[GET]"]);
        for spec in COMMANDS {
            assert_eq!(cut(spec.syntax).join(" "), spec.syntax, "{}", spec.name);
        }
    }
}
