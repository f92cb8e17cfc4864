use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::Cli;
use crate::protocol::split_line;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("pelago").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn command_lines_of_the_contract() {
    for line in [
        "serve --config config.toml --node 1",
        "serve --node 1 --log-format json --exit-with-stdin --stdin-commands",
        "admin reload --node 2 --addr h:1 --json",
        "serve --node 2 --set paxos.window=64 --set storage.data_dir=/x --log-level debug --exit-with-stdin",
        "demo",
        "demo --check",
        "demo --nodes 5 --groups 64 --data DIR --fresh",
        "put k v",
        "put k - --nx --rev",
        "put k -5 --xx --get",
        "put k v --ifrev 0",
        "put k v --ifeq -1 --addr 10.0.0.1:7001,10.0.0.2:7001 --json",
        "put -- --key --value",
        "put k v --ex 10 --fence 47 --req app-7:42",
        "put k v --px 10 --nx --rev",
        "del k --fence 47",
        "lock nightly -- sh -c true",
        "lock nightly --ttl 500ms --wait 0 --grace 1s --addr h:1 -- make --jobs 4",
        "get k --rev --raw",
        "del a b c",
        "cas k -1 -2",
        "incr k",
        "incr k -3",
        "txn IF k REV 5 THEN INCRBY k -5 THEN GET k ELSE GET k --addr h:1 --json",
        "txn -- IF --key VALUE --value THEN DEL --key",
        "status --json",
        "admin checkpoint --addr h:1 --group 3 --json",
        "admin verify",
        "admin backup backups/monday --addr h:1 --dry-run",
        "admin backup verify backups/monday",
        "admin restore backups/monday --into-nonempty --deadlines --resume",
        "load users.tsv --format jsonl --resume",
        "load - --dry-run",
        "dump",
        "dump users.jsonl --prefix user: --no-ttl --overwrite",
        "shell --addr h:1 --raw",
        "completions zsh",
        "man man",
        "status --watch --all --addr h:1",
        "config check config.toml --set cluster.groups=4",
        "config check",
        "config show",
        "config reference",
        "log dump data/node-1 --group 5",
        "log verify data/node-1",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn contradictions_and_omissions_are_errors_of_usage() {
    for line in [
        "put k",
        "put k v --nx --xx",
        "put k v --ex 1 --px 1",
        "lock nightly",
        "lock nightly make",
        "lock nightly --ttl 10 -- make",
        "lock nightly --ttl 2h -- make",
        "put k v --get --rev",
        "put k v --ifrev 3 --get",
        "put k v --ifrev -1",
        "del",
        "get",
        "cas k v",
        "incr k x",
        "txn",
        "admin backup",
        "admin restore",
        "load",
        "load x --dry-run --resume",
        "shell --raw --no-raw",
        "completions",
        "serve --config config.toml",
        "serve --node one",
        "serve --node 1 --log-format xml",
        "serve --node 1 --stdin-commands",
        "demo --nodes 0",
        "demo --nodes 26",
        "demo --groups 16385",
        "log",
        "log dump",
        "config",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_typo_is_answered_with_the_nearest_word() {
    for (line, word) in [("stauts", "status"), ("log verfy data", "verify"), ("put k v --ifreq 1", "--ifeq")]
    {
        let text = parse(line).expect_err(line).to_string();
        assert!(text.contains(word), "{line}: {text}");
    }
}

#[test]
fn every_help_fits_a_screen_and_ends_with_an_example() {
    fn visit(command: &mut clap::Command, path: &str) {
        let text = command.render_help().to_string();
        let lines = text.trim_end().lines().count();
        assert!(lines <= 24, "{path} --help has {lines} lines:\n{text}");
        let last = text.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("Example: pelago "), "{path}: {last}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for inner in command.get_subcommands_mut() {
            let path = format!("{path} {}", inner.get_name());
            visit(inner, &path);
        }
    }
    let mut command = Cli::command().term_width(100);
    command.build();
    visit(&mut command, "pelago");
}

/// The list of commands is written by hand, several to a line.
#[test]
fn every_command_is_in_the_help() {
    let mut command = Cli::command();
    let text = command.render_help().to_string();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let listed = text.split(|c: char| !c.is_ascii_lowercase()).any(|word| word == inner.get_name());
        assert!(listed, "{} is missing in:\n{text}", inner.get_name());
    }
}

#[test]
fn every_example_of_the_help_is_a_command_line() {
    fn visit(command: &clap::Command) {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = after.lines().last().and_then(|line| line.strip_prefix("Example: pelago "));
        let example = example.and_then(|line| line.split(" > ").next()).expect("an example");
        if let Err(error) = parse(example) {
            panic!("{example}: {error}");
        }
        command.get_subcommands().for_each(visit);
    }
    visit(&Cli::command());
}

#[test]
fn keys_and_values_need_not_be_utf8() {
    let bytes = || OsString::from_vec(vec![0xff, 0xfe]);
    let words = [OsString::from("pelago"), "put".into(), bytes(), bytes()];
    assert!(Cli::try_parse_from(words).is_ok());
}

#[test]
fn version_and_help_are_no_errors() {
    for (line, kind) in [("--version", ErrorKind::DisplayVersion), ("--help", ErrorKind::DisplayHelp)] {
        let error = parse(line).expect_err(line);
        assert_eq!((error.kind(), error.exit_code()), (kind, 0));
    }
}

#[test]
fn the_systemd_unit_and_the_container_call_the_program_as_it_is() {
    let unit = include_str!("../../../docs/ops/pelago.service");
    let words = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=/usr/local/bin/pelago ")));
        line.unwrap_or_else(|| panic!("{key} is not there")).replace("%i", "1")
    };
    for line in [words("ExecStartPre"), words("ExecStart")] {
        parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let ends = |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    assert_eq!(
        ends("RestartPreventExitStatus"),
        Some("2 3 4"),
        "mistakes, a refused directory, a failed disk"
    );
    let container = include_str!("../../../docs/ops/Containerfile");
    let run: Vec<&str> = container.lines().filter_map(|line| line.strip_prefix("#       ")).collect();
    let serve = run.iter().find(|line| line.starts_with("serve ")).expect("how a node is run");
    parse(serve).unwrap_or_else(|error| panic!("{serve}: {error}"));
}

#[test]
fn every_command_line_of_the_documents_is_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let docs =
        std::fs::read_dir(root.join("docs")).expect("documents").map(|entry| entry.expect("one").path());
    let mut found = 0;
    for path in
        docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = std::fs::read_to_string(&path).expect("text");
        for line in text.split("```").skip(1).step_by(2).flat_map(str::lines) {
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let Some(line) = line.strip_prefix("pelago ") else { continue };
            found += 1;
            let line = line.split(" #").next().unwrap_or(line);
            let words =
                split_line(bytes::Bytes::copy_from_slice(line.as_bytes())).expect("quotes are closed");
            let words = words.iter().map(|word| OsString::from_vec(word.to_vec()));
            if let Err(error) = Cli::try_parse_from(std::iter::once("pelago".into()).chain(words))
                && error.exit_code() != 0
            {
                panic!("{}: pelago {line}\n{error}", path.display());
            }
        }
    }
    assert!(found > 30, "{found} command lines");
}
