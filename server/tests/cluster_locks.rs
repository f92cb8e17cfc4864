//! `pelago lock` as a program, against a running cluster: holders that are killed, that stand still, and that
//! lose what they hold; and the fences that keep them from writing afterwards.

mod cluster;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, Recipe, Reply, turn, until, within};

/// Long enough for a busy machine, short enough for a test.
const TTL: Duration = Duration::from_secs(2);

/// How long anything may take that does not wait for a lock.
const SOON: Duration = Duration::from_secs(10);

/// A script under a lock, and what it said.
struct Holder {
    child: Child,
}

/// A shell script that finds this program as `$PELAGO`.
fn lock(cluster: &Cluster, options: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    command.args(["lock", "{job}lock", "--addr", &addresses.join(",")]).args(options);
    command.args(["--", "sh", "-c", script]).env("PELAGO", env!("CARGO_BIN_EXE_pelago"));
    command.env("DIR", cluster.dir()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Holder {
    fn start(cluster: &Cluster, options: &[&str], script: &str) -> Holder {
        Holder { child: lock(cluster, options, script).spawn().expect("pelago starts") }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }

    /// Waits for the end, and kills it if that does not come.
    fn end(mut self, deadline: Duration) -> Output {
        let begun = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > deadline {
                let _ = self.child.kill();
                panic!("no end within {deadline:?}: {:?}", self.child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.wait_with_output().expect("its output")
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.dir().join(name)
}

/// Waits until a script has written its whole line into a file; returns the line.
fn wait_line(path: &PathBuf) -> String {
    within(SOON, &format!("{} is written", path.display()), || match fs::read_to_string(path) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim_end().to_owned()),
        Ok(text) => Err(format!("{text:?}")),
        Err(error) => Err(error.to_string()),
    })
    .0
}

fn get(cluster: &Cluster, key: &str) -> Reply {
    cluster.client(1).say(&format!("GET {key}")).expect("an answer")
}

#[test]
fn a_lock_is_held_while_the_command_runs_and_free_behind_it() {
    // The story: a job runs under a lock, writes with its token, and ends with a code of its own. A second
    // one does not get the lock meanwhile and says so; a third one waits, and gets it when the first has ended.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    let ttl = "2s";
    let first = Holder::start(
        &cluster,
        &["--ttl", ttl],
        "echo $PELAGO_FENCE $PELAGO_LOCK > $DIR/first; $PELAGO put '{job}k' one --fence $PELAGO_FENCE; \
         while [ ! -e $DIR/go ]; do sleep 0.05; done; exit 7",
    );
    let line = wait_line(&file(&cluster, "first"));
    let (token, name) = line.split_once(' ').expect("two words");
    assert_eq!(name, "{job}lock");
    let begun = Instant::now();
    let refused = lock(&cluster, &["--wait", "300ms"], "echo never").output().expect("it runs");
    let (code, out, errors) = said(&refused);
    assert_eq!((code, &out[..]), (Some(75), ""), "{errors}");
    for words in
        ["the lock \"{job}lock\" is held by ", "was not free within 300ms", "The command was not run"]
    {
        assert!(errors.contains(words), "{errors}");
    }
    assert!(begun.elapsed() < SOON);

    // Longer than the lock's life: it is renewed.
    let third = Holder::start(&cluster, &["--ttl", ttl], "echo $PELAGO_FENCE");
    let mut client = cluster.client(2);
    let held = Instant::now();
    while held.elapsed() < TTL * 3 / 2 {
        let rest = client.say("PTTL {job}lock").expect("an answer");
        assert!(matches!(rest, Reply::Integer(1..=2000)), "{rest:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::write(file(&cluster, "go"), "").expect("a file");
    let freed = Instant::now();
    let (code, out, errors) = said(&first.end(SOON));
    assert_eq!((code, &out[..], &errors[..]), (Some(7), "OK\n", ""));
    let (code, out, errors) = said(&third.end(SOON));
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        freed.elapsed() < TTL,
        "it heard of the release instead of waiting for the time: {:?}",
        freed.elapsed()
    );
    let (first, third): (u64, u64) = (token.parse().expect("a token"), out.trim().parse().expect("a token"));
    assert!(third > first, "tokens rise: {first}, {third}");
    assert_eq!(get(&cluster, "{job}lock"), Reply::nil(), "given back");
    assert_eq!(get(&cluster, "{job}k"), Reply::bulk("one"));

    // Whoever ends the holder ends the command, and the lock is given back at once.
    let fourth = Holder::start(
        &cluster,
        &["--ttl", "1h"],
        "trap 'echo told; exit 3' TERM; echo $PELAGO_FENCE > $DIR/fourth; while :; do sleep 0.05; done",
    );
    wait_line(&file(&cluster, "fourth"));
    fourth.signal("TERM");
    let (code, out, errors) = said(&fourth.end(SOON));
    // What the shell started gets the signal too, of which the shell says something.
    assert_eq!((code, &out[..]), (Some(3), "told\n"), "{errors}");
    assert_eq!(get(&cluster, "{job}lock"), Reply::nil());

    // What cannot be started gives the lock back too, and a signal shows as a shell shows it.
    let mut missing = Command::new(env!("CARGO_BIN_EXE_pelago"));
    let address = cluster.addresses()[0].to_string();
    missing.args(["lock", "{job}lock", "--addr", &address, "--", "/no/such/program"]);
    let (code, _, errors) = said(&missing.output().expect("it runs"));
    assert_eq!(code, Some(127), "{errors}");
    assert!(errors.contains("could not start /no/such/program"), "{errors}");
    let (code, _, errors) =
        said(&lock(&cluster, &["--wait", "0"], "kill -KILL $$").output().expect("it runs"));
    assert_eq!((code, &errors[..]), (Some(137), ""));
}

#[test]
fn a_killed_holder_loses_the_lock_after_its_time_and_not_before() {
    // The story: the holder gets a kill -9. Nobody gives the lock back, so the next one has it when its time
    // is over. The command hears of its holder's end.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    let first = Holder::start(
        &cluster,
        &["--ttl", "2s"],
        "trap 'echo ended > $DIR/ended; exit 1' TERM; echo $PELAGO_FENCE > $DIR/first; \
         while :; do sleep 0.05; done",
    );
    let token: u64 = wait_line(&file(&cluster, "first")).parse().expect("a token");
    first.signal("KILL");
    let killed = Instant::now();
    let second = Holder::start(&cluster, &["--ttl", "2s", "--wait", "20s"], "echo $PELAGO_FENCE");
    assert_eq!(wait_line(&file(&cluster, "ended")), "ended");
    let mut client = cluster.client(2);
    let free = within(SOON, "the lock of the killed holder ends", || match client.say("EXISTS {job}lock") {
        Ok(Reply::Integer(0)) => Ok(()),
        // The second one may have it already.
        _ if second_has(&mut client, token) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The last renewal was a quarter of the time old at most when it was killed, and some way was lost.
    assert!(killed.elapsed() > TTL / 2, "free after {:?}", free.1);
    let (code, out, errors) = said(&second.end(SOON));
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.trim().parse::<u64>().expect("a token") > token);
    // The first one's output ends with its command.
    drop(first.end(SOON));
}

fn second_has(client: &mut cluster::Client, first: u64) -> bool {
    match client.say("GET {job}lock REV") {
        Ok(Reply::Array(parts)) => {
            matches!(parts[..], [_, Reply::Integer(revision)] if revision as u64 > first)
        }
        _ => false,
    }
}

#[test]
fn a_holder_that_stood_still_writes_nothing_any_more() {
    // The story of every lock that ends by itself: its holder stands still for longer than that, somebody else
    // takes the lock and writes, and then the command of the first one writes too, not knowing. Its token is
    // too old. When the holder goes on it notices, and ends what still runs.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    let first = Holder::start(
        &cluster,
        &["--ttl", "2s", "--grace", "1s"],
        "$PELAGO put '{job}k' one --fence $PELAGO_FENCE; echo $PELAGO_FENCE > $DIR/first; \
         while [ ! -e $DIR/go ]; do sleep 0.05; done; \
         $PELAGO put '{job}k' late --fence $PELAGO_FENCE 2> $DIR/why; \
         $PELAGO put '{job}gone' late --fence $PELAGO_FENCE 2>> $DIR/why; \
         $PELAGO put '{job}free' unfenced; echo tried > $DIR/tried; \
         trap '' TERM; while :; do sleep 0.05; done",
    );
    wait_line(&file(&cluster, "first"));
    first.signal("STOP");
    let second = Holder::start(
        &cluster,
        &["--ttl", "2s"],
        "$PELAGO put '{job}k' two --fence $PELAGO_FENCE; $PELAGO del '{job}gone' --fence $PELAGO_FENCE; exit 0",
    );
    let (code, out, errors) = said(&second.end(SOON));
    assert_eq!((code, &out[..]), (Some(0), "OK\n0\n"), "{errors}");
    fs::write(file(&cluster, "go"), "").expect("a file");
    wait_line(&file(&cluster, "tried"));
    let why = fs::read_to_string(file(&cluster, "why")).expect("what it said");
    assert_eq!(why.matches("FENCED token=").count(), 2, "{why}");
    assert_eq!(get(&cluster, "{job}k"), Reply::bulk("two"));
    assert_eq!(get(&cluster, "{job}gone"), Reply::nil());
    assert_eq!(
        get(&cluster, "{job}free"),
        Reply::bulk("unfenced"),
        "a lock alone keeps nobody from anything"
    );
    let resumed = Instant::now();
    first.signal("CONT");
    let (code, _, errors) = said(&first.end(SOON));
    assert_eq!(code, Some(70), "{errors}");
    assert!(errors.contains("was lost while the command ran"), "{errors}");
    // SIGTERM was ignored, and the grace is a second.
    assert!(resumed.elapsed() >= Duration::from_millis(900), "{:?}", resumed.elapsed());
}

#[test]
fn a_lock_survives_the_death_of_its_leader_and_fences_a_restart_of_all() {
    // The story: while a job runs its lock's leader is killed, then every node is, at once. The lock lives on
    // through the first, for its holder renews it at the new leader; the fence is remembered through both.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    // So that there is a smaller token than the holder's.
    assert_eq!(cluster.client(1).say("PUT {job}before v").expect("an answer"), Reply::ok());
    let holder = Holder::start(
        &cluster,
        &["--ttl", "6s"],
        "$PELAGO put '{job}k' one --fence $PELAGO_FENCE; echo $PELAGO_FENCE > $DIR/first; \
         while [ ! -e $DIR/go ]; do sleep 0.05; done; $PELAGO put '{job}k' two --fence $PELAGO_FENCE",
    );
    let token: u64 = wait_line(&file(&cluster, "first")).parse().expect("a token");
    let leader = cluster.leader_of("{job}lock");
    cluster.kill(leader);
    cluster.wait_led(SOON);
    let alive = cluster.running()[0];
    let mut client = cluster.client(alive);
    let mut least = i64::MAX;
    until(SOON, "the lock is renewed at the new leader: its life becomes longer again", || {
        let Ok(Reply::Integer(rest)) = client.say("PTTL {job}lock") else { return false };
        least = least.min(rest);
        rest > least
    });
    fs::write(file(&cluster, "go"), "").expect("a file");
    let (code, out, errors) = said(&holder.end(SOON));
    assert_eq!((code, &out[..]), (Some(0), "OK\nOK\n"), "{errors}");

    cluster.kill_all();
    for node in cluster.nodes() {
        cluster.run(node);
    }
    cluster.wait_led(Duration::from_secs(20));
    let mut client = cluster.client(1);
    let late = client.say(&format!("PUT {{job}}k late FENCE {}", token - 1)).expect("an answer");
    assert_eq!(late.error_class(), Some("FENCED"), "{late:?}");
    assert_eq!(get(&cluster, "{job}k"), Reply::bulk("two"));

    // The epoch has counted the leaders, and is a guard.
    let Reply::Integer(epoch) = client.say("EPOCH {job}k").expect("an answer") else { panic!("no epoch") };
    assert!(epoch >= 3, "{epoch}");
    let put = |epoch: i64| format!("PUT {{job}}k v IFEPOCH {epoch}");
    assert_eq!(client.say(&put(epoch - 1)).expect("an answer"), Reply::nil());
    let guarded = format!("MULTIOP IF {{job}}k EPOCH {epoch} THEN EPOCH {{job}}k");
    let held = Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![Reply::Integer(epoch)])]);
    assert_eq!(client.say(&guarded).expect("an answer"), held);
    assert_eq!(client.say(&put(epoch)).expect("an answer"), Reply::ok());
    cluster.wait_same(Duration::from_secs(5));
}
