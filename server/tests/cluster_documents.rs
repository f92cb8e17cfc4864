//! What the README and the other documents show is what happens: their sessions and their command lines,
//! word by word, on a real cluster.

mod cluster;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster::{Cluster, Recipe, turn, within};

const README: &str = include_str!("../../README.md");

/// The text of a document.
macro_rules! document {
    ($name:literal) => {
        include_str!(concat!("../../docs/", $name))
    };
}

/// What stands between fences in a document.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").skip(1).step_by(2)
}

/// What a document shows: a command, and what it prints.
#[derive(Clone, Default)]
struct Shown {
    command: String,
    prints: Vec<String>,
}

/// The command lines of the document's fenced blocks that begin with this word, with their prompt or without.
fn shown(document: &str, word: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    for block in blocks(document) {
        let mut printing = false;
        for line in block.lines().skip(1) {
            let bare = line.strip_prefix("$ ").unwrap_or(line);
            if bare.starts_with(word) {
                printing = bare != line;
                let command = bare.split(" #").next().unwrap_or(bare).trim().to_owned();
                found.push(Shown { command, prints: Vec::new() });
            } else if printing && let Some(last) = found.last_mut() {
                last.prints.push(line.to_owned());
            }
        }
    }
    found
}

/// Figures, sizes and identities are those of another cluster: `#` for each.
fn without_figures(line: &str) -> String {
    let mut plain = String::new();
    let id = |word: &&str| {
        let bare = word.trim_matches(['(', ')', ',']);
        bare.len() == 32 && bare.chars().all(|c| c.is_ascii_hexdigit())
    };
    let line: Vec<&str> = line.trim_end().split(' ').map(|word| if id(&word) { "0" } else { word }).collect();
    for c in line.join(" ").chars() {
        match c.is_ascii_digit() {
            true if plain.ends_with('#') => {}
            true => plain.push('#'),
            false => plain.push(c),
        }
    }
    ["KiB", "MiB", "GiB"].iter().fold(plain.replace("#.#", "#"), |plain, unit| plain.replace(unit, "B"))
}

/// The addresses of documents are those of a cluster here.
fn placed(cluster: &Cluster, line: &str) -> String {
    let mut line = line.to_owned();
    for node in 1..=5 {
        let (client, peer, admin) =
            (cluster.ports().client(node), cluster.ports().peer(node), cluster.ports().admin(node));
        for (shown, here) in [
            (format!("10.0.0.{node}:7001"), client),
            (format!("10.0.0.{node}:7101"), peer),
            (format!("127.0.0.1:700{node}"), client),
            (format!("127.0.0.1:720{node}"), admin),
        ] {
            line = line.replace(&shown, &here.to_string());
        }
    }
    line.replace("HOST:7001", &cluster.ports().client(1).to_string())
}

/// Runs it as it stands, and looks for each line that the document shows.
fn happens(cluster: &Cluster, shown: &Shown) {
    let (code, said) = run(cluster, &placed(cluster, &shown.command));
    assert_eq!(code, Some(0), "{}\n{said}", shown.command);
    let said: Vec<String> = said.lines().map(without_figures).collect();
    let mut rest = said.iter();
    for line in &shown.prints {
        let line = without_figures(line);
        assert!(rest.any(|said| *said == line), "{line}\nis not, or not there, in\n{said:#?}");
    }
}

/// What is fenced below a heading of the README.
fn fenced(heading: &str) -> Vec<&'static str> {
    let from = README.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    let section = from.split_once("\n## ").map_or(from, |(section, _)| section);
    blocks(section).collect()
}

/// Says what stands behind `> ` in a session. Returns the lines of the answers, and those that stand below.
fn acted_out<'a>(cluster: &Cluster, node: u32, session: &'a str) -> (Vec<String>, Vec<&'a str>) {
    let said = session.lines().filter_map(|line| line.strip_prefix("> "));
    let shown = session.lines().skip(1).filter(|line| !line.starts_with("> ") && !line.starts_with("$ nc"));
    let mut stream = TcpStream::connect(cluster.ports().client(node)).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    for line in said {
        stream.write_all(format!("{line}\r\n").as_bytes()).expect("it is sent");
    }
    stream.shutdown(Shutdown::Write).expect("a socket");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers, and then the end");
    (answers.lines().map(str::to_owned).collect(), shown.collect())
}

/// The answers are those that the session shows.
fn as_written(cluster: &Cluster, node: u32, session: &str) {
    let (told, shown) = acted_out(cluster, node, session);
    assert_eq!(told, shown, "{session}");
}

/// As above for a session whose revisions are those of another day, and whose errors are cut short.
fn as_sketched(cluster: &Cluster, node: u32, session: &str) {
    let (told, shown) = acted_out(cluster, node, session);
    assert_eq!(told.len(), shown.len(), "{told:#?}");
    for (shown, told) in shown.iter().zip(told.iter().map(|line| without_figures(line))) {
        match shown.strip_suffix("...") {
            Some(begins) => {
                let begins = begins.trim_end_matches([' ', ',', ';']);
                assert!(told.starts_with(&without_figures(begins)), "{told}: not {shown}");
            }
            None => assert_eq!(told, without_figures(shown)),
        }
    }
}

/// `sh` in the directory of the cluster, with `pelago` on its path.
fn shell(cluster: &Cluster, line: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_pelago"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path =
        format!("{}:{}:{path}", program.parent().expect("a directory").display(), cluster.dir().display());
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(cluster.dir()).env("PATH", path).env("NO_COLOR", "1");
    command.env("PELAGO_ADDR", addresses.join(",")).env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(cluster: &Cluster, line: &str) -> (Option<i32>, String) {
    let output = shell(cluster, line).output().expect("a shell");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A process that has no end of its own.
struct Endless(Child);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sessions_happen_as_they_are_written() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let [nc] = fenced("A session with nc")[..] else { panic!("another session") };
    as_written(&cluster, 1, nc);
    let shop = fenced("The same with redis-cli").into_iter().find(|s| s.contains("MULTIOP")).expect("one");
    let (code, said) = run(&cluster, "pelago put {shop}:stock 1");
    assert_eq!(code, Some(0), "{said}");
    as_written(&cluster, 2, shop);
    let [twice] = fenced("Sending a write twice")[..] else { panic!("another session") };
    as_written(&cluster, 3, twice);
}

#[test]
fn command_lines_do_what_stands_beside_them() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    fs::write(cluster.dir().join("Makefile"), "report:\n\t@echo reported\n").expect("a file");
    let (code, said) = run(&cluster, "pelago put user:anna 1");
    assert_eq!(code, Some(0), "{said}");
    let [lines, _] = fenced("From a shell")[..] else { panic!("another block") };
    let mut done = 0;
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let (command, comment) = line.split_once("   # ").or(line.split_once(" # ")).expect("a comment");
        done += 1;
        if command.starts_with("pelago watch") {
            let mut watch = Endless(shell(&cluster, &format!("exec {command}")).spawn().expect("a shell"));
            let mut told = BufReader::new(watch.0.stdout.take().expect("a pipe"));
            let (said, says) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let mut line = String::new();
                while told.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if said.send(std::mem::take(&mut line)).is_err() {
                        return;
                    }
                }
            });
            // Until it watches, changes are not for it.
            within(Duration::from_secs(30), "the change is told", || {
                let (code, text) = run(&cluster, "pelago put job:1 waiting");
                assert_eq!(code, Some(0), "{text}");
                match says.try_iter().any(|line| line.contains("job:1")) {
                    true => Ok(()),
                    false => Err("nothing"),
                }
            });
            continue;
        }
        if command.starts_with("pelago log verify") {
            assert!(cluster.terminate(1).success(), "it stops");
        }
        let (code, said) = run(&cluster, command);
        let expected = i32::from(comment.contains("exit code 1"));
        assert_eq!(code, Some(expected), "{line}\n{said}");
        let first = said.lines().next().unwrap_or_default();
        match command.trim() {
            "pelago put greeting hello" | "pelago get greeting" => assert_eq!(first, comment.trim()),
            "pelago lock nightly -- make report" => assert!(said.contains("reported"), "{said}"),
            "pelago status" => assert!(said.contains("node"), "{said}"),
            _ => {}
        }
    }
    assert!(done > 10, "{done} lines");
    cluster.run(1);
    cluster.wait_whole(Duration::from_secs(60));
    let others = ["Nodes by hand", "When a machine or its disk is lost", "Locks"];
    let others = others.iter().flat_map(|heading| fenced(heading)).flat_map(str::lines);
    for line in others.filter(|line| line.starts_with("pelago ")) {
        if line.contains("pelago serve") || line.contains("10.0.0.4") {
            continue; // the harness starts nodes itself, and nobody answers there
        }
        let (code, said) = run(&cluster, line);
        assert_eq!(code, Some(0), "{line}\n{said}");
    }
    assert_eq!(run(&cluster, "pelago get report"), (Some(0), "done\n".to_owned()));
}

#[test]
fn a_backup_is_restored_in_another_place() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let other = Cluster::start(Recipe { nodes: 1, groups: 4, name: "other", ..Recipe::default() });
    let (code, said) = run(&cluster, "pelago put greeting hello");
    assert_eq!(code, Some(0), "{said}");
    let [lines] = fenced("A backup, and another place")[..] else { panic!("another block") };
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let line = line.replace("10.0.0.9:7001", &other.ports().client(1).to_string());
        let (code, said) = run(&cluster, &line);
        assert_eq!(code, Some(0), "{line}\n{said}");
    }
    assert_eq!(other.pelago(&["get", "greeting"], 1), (Some(0), "hello\n".to_owned()));

    // With the slash that a shell's completion leaves, what was noted once lay in the backup itself, which was
    // then called damaged.
    let (code, said) = run(&cluster, "pelago admin backup tuesday/ && pelago admin backup verify tuesday/");
    assert_eq!(code, Some(0), "{said}");
    let restore = format!(
        "pelago admin restore tuesday/ --into-nonempty --addr {}; cd tuesday && pelago admin restore . --into-nonempty --addr {}",
        other.ports().client(1),
        other.ports().client(1)
    );
    let (code, said) = run(&cluster, &restore);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&cluster, "ls -A | grep -c 'tuesday'").1, "1\n", "nothing is left beside it");
    assert_eq!(run(&cluster, "pelago admin backup verify tuesday").0, Some(0));
}

#[test]
fn nodes_come_and_go_as_the_document_says() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let mut done = 0;
    for shown in shown(document!("membership.md"), "pelago ") {
        let words: Vec<&str> = shown.command.split(' ').collect();
        let new = match words[..] {
            ["pelago", "admin", "member", "add", new, ..]
            | ["pelago", "admin", "member", "replace", _, new, ..] => Some(new.parse().expect("a node")),
            _ => None,
        };
        if let Some(new) = new {
            // Its operator starts it, before or behind: here before.
            cluster.list(new);
            cluster.run(new);
        }
        happens(&cluster, &shown);
        done += 1;
        if let ["pelago", "admin", "member", "remove" | "replace", old, ..] = words[..] {
            let old = old.parse().expect("a node");
            // Who asks the node that is off is told so, or of the cluster as it is. (It showed the nodes of its own
            // last list, and who waited for a change through it waited for that node to hear of it.)
            let (code, said) = cluster.pelago(&["status", "--json"], old);
            let status: serde_json::Value = serde_json::from_str(&said).expect(&said);
            let nodes = status["nodes"].as_array().expect("nodes").iter();
            let nodes: Vec<_> = nodes.filter_map(|node| node["node"].as_u64()).collect();
            assert!(code.is_some() && nodes.len() > 1, "{said}");
            let told = said.contains(&format!("node {old} was taken off the cluster"));
            assert!(told || !nodes.contains(&u64::from(old)), "{said}");
            assert!(cluster.terminate(old).success(), "it ends, as the operator is told to have it end");
        }
    }
    assert_eq!(done, 6);
    let (code, said) = cluster.pelago(&["status"], 2);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("all 16 groups have a leader"), "{said}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let drained = said.lines().map(words).find(|words| words.len() > 4 && words[0] == "2");
    assert_eq!(drained.expect("node 2 is there")[3], "0", "it leads nothing:\n{said}");
}

#[test]
fn a_running_node_does_what_its_documents_show() {
    let _turn = turn();
    let more = "[limits]\nmax_value = \"8MiB\"\n\n[paxos]\nwindow = 256\n";
    let cluster = Cluster::start(Recipe { more, ..Recipe::default() });
    let [status, reload] = &shown(document!("running.md"), "pelago ")[..] else { panic!("other lines") };
    happens(&cluster, status);
    let text = fs::read_to_string(cluster.config()).expect("a file");
    let text = text.replace("\"8MiB\"", "\"4MiB\"").replace("window = 256", "window = 128");
    fs::write(cluster.config(), text).expect("written");
    happens(&cluster, reload);

    let report = "#!/bin/sh\necho reported\n";
    fs::write(cluster.dir().join("make-report"), report).expect("a file");
    assert_eq!(run(&cluster, "chmod +x make-report").0, Some(0));
    let [lock] = &shown(document!("locks.md"), "pelago ")[..] else { panic!("other lines") };
    happens(&cluster, lock);
    assert_eq!(run(&cluster, "pelago get report"), (Some(0), "done\n".to_owned()));
    let [trace] = &mut shown(document!("clients.md"), "redis-cli ")[..] else { panic!("other lines") };
    // Whose group it is, and who votes in time, is another on each day: each kind of step comes, in the form shown.
    trace.command = trace.command.replace("-p 7002", &format!("-p {}", cluster.ports().client(2).port()));
    let (code, said) = run(&cluster, &trace.command);
    assert_eq!((code, said.lines().next()), (Some(0), Some("OK")), "{said}");
    let step = |line: &str| -> Option<(String, usize)> {
        let rest = line.strip_prefix("node ")?.get(2..)?;
        Some((rest.split_whitespace().next()?.to_owned(), line.find(" us  ")?))
    };
    let mut steps: Vec<(String, usize)> = trace.prints.iter().skip(1).filter_map(|line| step(line)).collect();
    assert_eq!(steps.len(), trace.prints.len() - 1, "every line has a node, a step and a time");
    let said: Vec<(String, usize)> = said.lines().skip(1).filter_map(step).collect();
    if !said.iter().any(|(step, _)| step == "forward") {
        steps.retain(|(step, _)| !["queue", "forward", "way"].contains(&step.as_str()));
    }
    for step in ["parse", "plan", "batch", "disk", "peer", "quorum", "apply", "whole"] {
        let (name, column) = steps.iter().find(|(name, _)| name == step).expect("it is shown");
        assert!(said.iter().any(|(said, at)| said == name && at == column), "{name} is not in {said:?}");
    }
}

#[test]
fn sessions_of_the_documents_happen() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let sessions = |text: &'static str| blocks(text).filter(|s| s.starts_with("\n> "));
    let mut transactions = sessions(document!("transactions.md"));
    let mut client = cluster.client(1);
    let mut say = |line: &str| client.say(line).expect("an answer");
    say("PUT {shop}:stock 3");
    as_sketched(&cluster, 2, transactions.next().expect("MULTI"));
    say("PUT {shop}:stock 1");
    as_sketched(&cluster, 3, transactions.next().expect("MULTIOP"));
    assert!(transactions.next().is_none(), "another session");
    let [fences] = sessions(document!("locks.md")).collect::<Vec<_>>()[..] else { panic!("other sessions") };
    as_sketched(&cluster, 1, fences);
    let [ready] = &shown(document!("operations.md"), "curl ")[..] else { panic!("other lines") };
    let (code, said) = run(&cluster, &placed(&cluster, &ready.command));
    assert_eq!((code, said.as_str()), (Some(0), "{\"ready\":true,\"reasons\":[]}"));
}

#[test]
fn tools_do_what_their_document_shows() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 8, name: "b", ..Recipe::default() });
    let other = Cluster::start(Recipe { nodes: 1, groups: 4, name: "b", ..Recipe::default() });
    let lines: String = (0..500).map(|n| format!("user:{n}\tname {n}\n")).collect();
    fs::write(cluster.dir().join("users.tsv"), lines).expect("a file");
    fs::create_dir(cluster.dir().join("backups")).expect("a directory");
    let lines = shown(document!("tools.md"), "pelago ");
    let (shell, lines) = lines.split_last().expect("lines");
    assert_eq!(lines.len(), 5);
    for mut shown in lines.iter().cloned() {
        shown.command = shown.command.replace("10.0.0.9:7001", &other.ports().client(1).to_string());
        happens(&cluster, &shown);
    }
    assert_eq!(other.pelago(&["get", "user:7"], 1), (Some(0), "name 7\n".to_owned()));

    // At a terminal it prompts, and says first what helps.
    let prompt = |line: &str| {
        line.starts_with("127.0.0.1:7001")
            .then(|| line.split_once("> ").map(|(_, said)| said.to_owned()))
            .flatten()
    };
    let said: Vec<String> = shell.prints.iter().filter_map(|line| prompt(line)).collect();
    let answers: Vec<&String> = shell.prints.iter().skip(1).filter(|line| prompt(line).is_none()).collect();
    fs::write(cluster.dir().join("said"), said.join("\n") + "\n").expect("a file");
    let (code, told) = run(&cluster, &format!("{} --no-raw <said", placed(&cluster, &shell.command)));
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.lines().collect::<Vec<_>>(), answers);
}

/// Whether a test of some crate knows this command line: those of `pelago` are executed here, `sim` and
/// `pelago-bench` parse theirs in tests of their own, and what builds or measures for minutes is looked up.
fn is_known(root: &Path, command: &str) -> bool {
    let words: Vec<&str> =
        command.split_whitespace().take_while(|word| !word.starts_with(['#', '['])).collect();
    let is_option = |word: &&&str| word.starts_with("--");
    match words[..] {
        [script, ref rest @ ..] if script.starts_with("scripts/") => {
            let Ok(text) = fs::read_to_string(root.join(script)) else { return false };
            rest.iter().filter(is_option).all(|option| text.contains(*option))
        }
        ["cargo", "run", .., "--example", example] => {
            root.join(format!("checkpoint/examples/{example}.rs")).exists() && words.contains(&"checkpoint")
        }
        ["cargo", "run", "--release", "--", "demo"] => true,
        ["cargo", "run", ..] => ["sim", "bench"].iter().any(|package| words.contains(package)),
        ["cargo", "build" | "bench", ref rest @ ..] => rest
            .iter()
            .filter(|word| !word.starts_with('-'))
            .all(|package| root.join(package).join("Cargo.toml").exists()),
        _ => false,
    }
}

/// A command line that is in a document and in no test would rot.
#[test]
fn no_command_line_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let executed = [
        "README.md",
        "clients.md",
        "locks.md",
        "membership.md",
        "operations.md",
        "running.md",
        "tools.md",
        "transactions.md",
    ];
    let docs = fs::read_dir(root.join("docs")).expect("documents").map(|entry| entry.expect("a file").path());
    let mut looked_at = 0;
    for path in docs.chain([root.join("README.md")]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".md") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        for word in ["pelago ", "redis-cli ", "curl ", "nc "] {
            let left_out = shown(&text, word).into_iter().find(|_| !executed.contains(&&*name));
            assert!(
                left_out.is_none(),
                "{name} shows `{}`, which no test runs",
                left_out.unwrap_or_default().command
            );
        }
        for word in ["scripts/", "cargo "] {
            for Shown { command, .. } in shown(&text, word) {
                looked_at += 1;
                assert!(is_known(root, &command), "{name} shows `{command}`, which no test knows");
            }
        }
    }
    assert!(looked_at > 15, "{looked_at} command lines");
}
