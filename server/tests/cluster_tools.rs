//! `pelago load`, `dump`, `admin backup` and `admin restore` as programs against real clusters.

mod cluster;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, Recipe, Reply, Seat, has_setsid, turn, within};

const KEYS: usize = 40_000;

/// Lines of a file in the order of their keys, with everything that a line can hold.
fn lines() -> (String, BTreeMap<Vec<u8>, Vec<u8>>) {
    let (mut text, mut held) = (String::new(), BTreeMap::new());
    for n in 0..KEYS {
        let _ = writeln!(text, "key-{n:06}\tvalue of {n}");
        held.insert(format!("key-{n:06}").into_bytes(), format!("value of {n}").into_bytes());
    }
    text.push_str("mortal\tfor an hour\t3600000\n\\x00\\xff\\t\\n\t\\x01\\\\\nempty\t\n");
    held.insert(b"mortal".to_vec(), b"for an hour".to_vec());
    held.insert(b"\x00\xff\t\n".to_vec(), b"\x01\\".to_vec());
    held.insert(b"empty".to_vec(), Vec::new());
    (text, held)
}

fn pelago(cluster: &Cluster, words: &[&str]) -> Child {
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
    command.args(words).args(["--addr", &addresses.join(",")]).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pelago runs")
}

fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs it, and kills it as soon as it has noted how far it is.
fn killed_in_the_middle(cluster: &Cluster, words: &[&str], note: &Path) {
    let mut child = pelago(cluster, words);
    within(Duration::from_secs(20), "it notes how far it is", || {
        let (keys, noted) = (keys(cluster), note.exists());
        // A restore has its note before the first key: stopped before, it was refused by what it had put itself.
        assert!(keys == 0 || noted || words.contains(&"load"), "{keys} keys, and nothing to go on with");
        if keys > 0 && noted { Ok(()) } else { Err(format!("noted: {noted}, {keys} keys")) }
    });
    child.kill().expect("it runs");
    let (code, said) = ended(child);
    assert_eq!(code, None, "{said}");
    assert!(note.exists(), "it was done before it was killed");
}

fn dump(cluster: &Cluster, file: &Path) -> String {
    let (code, said) = ended(pelago(cluster, &["dump", file.to_str().expect("text"), "--overwrite"]));
    assert_eq!(code, Some(0), "{said}");
    fs::read_to_string(file).expect("the dump")
}

fn keys(cluster: &Cluster) -> i64 {
    match cluster.client(1).say("DBSIZE").expect("a reply") {
        Reply::Integer(keys) => keys,
        other => panic!("{other:?}"),
    }
}

fn number(reply: Reply) -> u64 {
    match reply {
        Reply::Bulk(Some(text)) => String::from_utf8(text).expect("text").parse().expect("a number"),
        other => panic!("{other:?}"),
    }
}

/// Two counters of one group, the first always counted first, until told to stop.
fn write_pairs(cluster: &Cluster, stop: &AtomicBool) -> u64 {
    let mut client = cluster.client(2);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        for key in ["{pair}:first", "{pair}:second"] {
            let reply = client.say(&format!("SET {key} {count}")).expect("a reply");
            assert_eq!(reply, Reply::ok());
        }
    }
    count
}

#[test]
fn what_is_loaded_is_dumped_backed_up_and_restored_elsewhere() {
    let _turn = turn();
    let mut here = Cluster::start(Recipe { groups: 8, ..Recipe::default() });
    let dir = here.dir().to_owned();
    let path = |name: &str| dir.join(name).to_str().expect("text").to_owned();
    let (text, held) = lines();
    fs::write(dir.join("in.tsv"), format!("{text}no tab\n")).expect("the file");

    // Nothing is sent by a dry run, and what is wrong is found by it.
    let (code, said) = ended(pelago(&here, &["load", &path("in.tsv"), "--dry-run"]));
    assert!(code == Some(1) && said.contains("in.tsv:40004: there is no tab"), "{said}");
    assert_eq!(keys(&here), 0);

    // Killed in the middle, and a node with it; the rest comes with --resume.
    killed_in_the_middle(&here, &["load", &path("in.tsv")], &dir.join("in.tsv.loading"));
    here.kill(2);
    // Pasted without its --addr, the advice to go on once brought the rest into another cluster.
    let note = fs::read_to_string(dir.join("in.tsv.loading")).expect("a note");
    let strange = note.replace("\"cluster\":\"", "\"cluster\":\"f");
    assert!(strange != note, "{note}");
    fs::write(dir.join("in.tsv.loading"), strange).expect("a note");
    let (code, said) = ended(pelago(&here, &["load", &path("in.tsv"), "--resume"]));
    assert!(code == Some(2) && said.contains("Nothing was sent"), "{said}");
    fs::write(dir.join("in.tsv.loading"), note).expect("a note");
    let (code, said) = ended(pelago(&here, &["load", &path("in.tsv"), "--resume"]));
    assert!(
        code == Some(1) && said.contains("loaded 40003 keys") && said.contains("1 line was wrong"),
        "{said}"
    );
    assert!(!dir.join("in.tsv.loading").exists());
    here.run(2);
    here.wait_whole(Duration::from_secs(20));
    assert_eq!(keys(&here), held.len() as i64);

    // What is dumped is what was loaded, in the order of the keys, in both forms.
    let dumped = dump(&here, &dir.join("out.tsv"));
    let mut expected: Vec<&str> = text.lines().collect();
    expected.sort_unstable();
    let mut found: Vec<String> = dumped.lines().map(str::to_owned).collect();
    for line in &mut found {
        if let Some(rest) = line.strip_prefix("mortal\tfor an hour\t") {
            let rest: u64 = rest.parse().expect("milliseconds");
            assert!((1..=3_600_000).contains(&rest), "{rest}");
            *line = "mortal\tfor an hour\t3600000".to_owned();
        }
    }
    assert!(found[0].starts_with("\\x00"), "the least key comes first: {}", found[0]);
    found.sort_unstable();
    assert!(found == expected, "{} lines of {}", found.len(), expected.len());
    let json = dump(&here, &dir.join("out.jsonl"));
    assert_eq!(json.lines().count(), held.len());
    assert!(json.contains("{\"key_base64\":\"AP8JCg==\",\"value\":\"\\u0001\\\\\"}"));

    // A backup, from a node that leads little, while somebody writes.
    here.client(1).say("SET before the-backup").expect("a reply");
    let stop = AtomicBool::new(false);
    let (backup, counted) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_pairs(&here, &stop));
        let first = within(Duration::from_secs(10), "the writer writes", || {
            match here.client(1).say("GET {pair}:second") {
                Ok(reply @ Reply::Bulk(Some(_))) => Ok(number(reply)),
                other => Err(format!("{other:?}")),
            }
        });
        let backup = here.pelago(&["admin", "backup", &path("backup")], 3);
        stop.store(true, Ordering::Relaxed);
        (backup, (first.0, writer.join().expect("it wrote")))
    });
    assert!(backup.0 == Some(0) && backup.1.contains("verified"), "{}", backup.1);
    println!("{}", backup.1);
    assert!(!dir.join("backup.partial").exists());
    let (code, said) = here.pelago(&["admin", "backup", &path("backup")], 1);
    assert!(code == Some(2) && said.contains("exists"), "{said}");
    let verify = |dir: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
        let child =
            command.args(["admin", "backup", "verify", dir]).stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(child.spawn().expect("pelago runs"))
    };
    let (code, said) = verify(&path("backup"));
    assert!(code == Some(0) && said.starts_with("sound: 8 groups"), "{said}");
    // What a backup holds a mirror up for goes on: the group's checkpoint is verified behind it.
    let (code, said) = here.pelago(&["admin", "checkpoint"], 1);
    assert_eq!(code, Some(0), "{said}");

    // Into a cluster with another number of nodes and groups, killed in the middle.
    let there = Cluster::start(Recipe { nodes: 1, groups: 5, name: "there", ..Recipe::default() });
    let (code, said) = there.pelago(&["admin", "restore", &path("backup"), "--dry-run"], 1);
    assert!(code == Some(0) && said.contains("5 groups"), "{said}");
    assert_eq!(keys(&there), 0);
    killed_in_the_middle(&there, &["admin", "restore", &path("backup")], &dir.join("backup.restoring"));
    let (code, said) = there.pelago(&["admin", "restore", &path("backup")], 1);
    assert!(
        code == Some(2) && said.contains("--into-nonempty") && said.contains("Nothing was changed"),
        "{said}"
    );
    // As a restore leaves it that is stopped in its first window: keys are there, and none of them is noted.
    let note = fs::read_to_string(dir.join("backup.restoring")).expect("a note");
    let mut note: serde_json::Value = serde_json::from_str(&note).expect("JSON");
    (note["files"], note["entries"]) = (0.into(), 0.into());
    fs::write(dir.join("backup.restoring"), note.to_string()).expect("a note");
    let (code, said) = there.pelago(&["admin", "restore", &path("backup"), "--resume"], 1);
    assert!(code == Some(0) && said.contains("all the same"), "{said}");
    println!("{said}");
    assert_eq!(keys(&there), held.len() as i64 + 3);
    let mut client = there.client(1);
    assert_eq!(client.say("GET before").expect("a reply"), Reply::Bulk(Some(b"the-backup".to_vec())));
    let first = number(client.say("GET {pair}:first").expect("a reply"));
    let second = number(client.say("GET {pair}:second").expect("a reply"));
    assert!(first == second || first == second + 1, "of one instant: {first} and {second}");
    assert!((counted.0..=counted.1).contains(&second), "{second} of {counted:?}");
    let Reply::Integer(rest) = client.say("TTL mortal").expect("a reply") else { panic!("no number") };
    assert!((3_000..=3_600).contains(&rest), "{rest}");
    let again = dump(&there, &dir.join("there.tsv"));
    assert_eq!(again.lines().count(), held.len() + 3);
    let same = |line: &&str| {
        !line.starts_with("mortal") && !line.starts_with("{pair}") && !line.starts_with("before")
    };
    assert!(again.lines().filter(same).eq(dumped.lines().filter(same)), "another dump");

    // A damaged backup is refused before anything is put.
    let file = dir.join("backup/group-00003.checkpoint");
    let mut bytes = fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).expect("written");
    let (code, said) = verify(&path("backup"));
    assert!(code == Some(1) && said.contains("group-00003.checkpoint is damaged"), "{said}");
    let (code, said) = there.pelago(&["admin", "restore", &path("backup"), "--into-nonempty"], 1);
    assert!(code == Some(1) && said.contains("Nothing was changed"), "{said}");
}

/// A key whose life was over by the time of the restore, and a cluster that has keys of its own: the sum of
/// both was once taken for what must be there.
#[test]
fn lives_that_are_over_are_left_out_of_a_restore_into_a_cluster_that_has_keys() {
    let _turn = turn();
    let here = Cluster::start(Recipe { nodes: 1, groups: 2, ..Recipe::default() });
    let there = Cluster::start(Recipe { nodes: 1, groups: 3, name: "there", ..Recipe::default() });
    let dir = here.dir().join("backup");
    let dir = dir.to_str().expect("text");
    let mut client = here.client(1);
    for line in ["PUT lasting 1", "PUT mortal 2 PX 2500", "PUT long 3 EX 3600"] {
        assert_eq!(client.say(line).expect("a reply"), Reply::ok());
    }
    let (code, said) = here.pelago(&["admin", "backup", dir], 1);
    assert!(code == Some(0) && said.contains("3 keys"), "{said}");
    // Counted from the backup: the group's clock stood still before it.
    let taken = Instant::now();
    within(Duration::from_secs(20), "its life is over", || match client.say("GET mortal") {
        Ok(reply) if reply == Reply::nil() && taken.elapsed() > Duration::from_millis(2_500) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let mut other = there.client(1);
    for line in ["PUT own 1", "PUT mortal own"] {
        assert_eq!(other.say(line).expect("a reply"), Reply::ok());
    }
    let (code, said) = there.pelago(&["admin", "restore", dir, "--into-nonempty", "--deadlines"], 1);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("2 keys read back") && said.contains("1 left out because their lives were over"),
        "{said}"
    );
    assert_eq!(keys(&there), 4);
    assert_eq!(other.say("GET mortal").expect("a reply"), Reply::bulk("own"), "nothing was put over it");
    let Reply::Integer(rest) = other.say("TTL long").expect("a reply") else { panic!("no number") };
    assert!((3_000..=3_600).contains(&rest), "{rest}");
}

/// Feeds a shell its lines. Says how it ended, and what it wrote to stdout and to stderr.
fn shell(cluster: &Cluster, more: &[&str], lines: &str) -> (Option<i32>, String, String) {
    let address = cluster.ports().client(1).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
    command.args(["shell", "--addr", &address]).args(more).env("NO_COLOR", "1");
    fed(command, lines)
}

fn fed(mut command: Command, lines: &str) -> (Option<i32>, String, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_shell_takes_lines_from_a_pipe_and_from_a_terminal() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe { nodes: 1, groups: 2, ..Recipe::default() });
    let (code, out, err) = shell(&cluster, &[], "PUT k \"a \\x01\"\n\nGET k\nINCR n\n");
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "OK\na \u{1}\n1\n", ""));
    let (code, out, _) = shell(&cluster, &["--no-raw"], "GET k\nMGET k none\nGET none\nDBSIZE\n:status\n");
    assert_eq!(code, Some(1), "a reply was nil");
    assert!(
        out.starts_with("\"a \\x01\"\n1) \"a \\x01\"\n2) (nil)\n(nil)\n(integer) 2\nnode 1 of cluster"),
        "{out}"
    );
    let (code, out, err) = shell(&cluster, &[], "GET k\nGTE k\nDEL k\n");
    assert!(code == Some(2) && out == "a \u{1}\n" && err.contains("line 2"), "{out}{err}");
    let (code, out, _) = shell(&cluster, &["--keep-going"], "GTE k\nGET \"k\nDEL k\n");
    assert!(code == Some(2) && out == "1\n", "{out}");
    let transaction = "MULTI\nSET {t}a 1\nSET {t}b 2\nEXEC\n:quit\nDEL {t}a\n";
    let (code, out, _) = shell(&cluster, &["--no-raw"], transaction);
    assert_eq!((code, out.as_str()), (Some(0), "OK\nQUEUED\nQUEUED\n1) OK\n2) OK\n"));
    assert_eq!(cluster.client(1).say("EXISTS {t}a").expect("a reply"), Reply::Integer(1));

    if !has_setsid() {
        return;
    }
    let state = cluster.dir().join("state");
    let (address, home) = (cluster.ports().client(1).to_string(), state.display().to_string());
    let seat =
        Seat::take(&["shell", "--addr", &address], &[("XDG_STATE_HOME", &home), ("NO_COLOR", "1")], 100, 40);
    seat.sees(&format!("{address}>"));
    // A quote goes on in the next line; Tab completes.
    seat.press("PUT t \"two\r");
    seat.press("lines\"\r");
    seat.sees("OK");
    seat.press("GET t\r");
    seat.sees("\"two\\nlines\"");
    seat.press("EXIS\tt\r");
    seat.sees("(integer) 1");
    seat.press("AUTH secret\r");
    seat.sees("(error)");
    seat.press(":quit\r");
    let (status, out, _) = seat.end();
    assert!(status.success(), "{status} {out}");
    let kept = fs::read_to_string(state.join("pelago/history")).expect("a history");
    assert!(kept.contains("GET t") && !kept.contains("secret"), "{kept}");
}
