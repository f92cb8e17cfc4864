//! What the README shows is what happens: its sessions and its command lines, word by word, on a real
//! cluster.

mod cluster;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster::{Cluster, Recipe, turn, within};

const README: &str = include_str!("../../README.md");

/// What is fenced below a heading of the README.
fn fenced(heading: &str) -> Vec<&'static str> {
    let from = README.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    let section = from.split_once("\n## ").map_or(from, |(section, _)| section);
    section.split("```").skip(1).step_by(2).collect()
}

/// Says what stands behind `> ` in a session, and compares the answers with what stands below.
fn as_written(cluster: &Cluster, node: u32, session: &str) {
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
    assert_eq!(answers.replace("\r\n", "\n").trim_end(), shown.collect::<Vec<_>>().join("\n"), "{session}");
}

/// `sh` in the directory of the cluster, with `pelago` on its path.
fn shell(cluster: &Cluster, line: &str) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pelago"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().expect("a directory").display());
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
