//! Nodes that stand still and come back (SIGSTOP, SIGCONT): no old value is read, and a minority
//! answers with an error rather than with data.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Client, Cluster, Load, Plan, Recipe, Reply, classify, turn, within};
use sim::history::{Action, ClientLog, Outcome};

/// Longer than any lease and election timeout.
const PAUSE: Duration = Duration::from_secs(3);

#[test]
fn a_paused_leader_answers_nothing_old_when_it_goes_on() {
    // The story: a leader stands still for three seconds. The others elect a new one and go on
    // writing. Clients that had asked the old one in the meantime find their questions in its
    // socket buffers: it answers them as soon as it wakes, believing that no time has passed.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 3, ..Recipe::default() });
    let plan = Plan { tags: 6, seed: 4, patience: Duration::from_millis(500), ..Plan::default() };
    let load = Load::start(cluster.addresses(), plan);
    load.wait_written(5, Duration::from_secs(10));

    let key = "{paused}:probe";
    let sleeper = cluster.leader_of(key);
    let awake = cluster.nodes().into_iter().find(|node| *node != sleeper).expect("another node");
    let clock = load.clock();
    let mut log = ClientLog::new(500);
    let mut writer = cluster.client(awake);
    let mut value = 0_u64;
    // Writes the next value through a node that is awake, until one is acknowledged.
    let mut write = |log: &mut ClientLog| {
        within(Duration::from_secs(5), "a write beside the paused leader", || {
            value += 1;
            let action = Action::Put(value.to_string().into_bytes());
            let call = log.invoke(key.as_bytes(), clock(), action.clone());
            let reply = writer.say(&format!("PUT {key} {value}")).map_err(|e| e.to_string())?;
            let outcome = classify(&action, reply.clone())?;
            log.respond(call, clock(), outcome.clone());
            if outcome == Outcome::Done { Ok(()) } else { Err(format!("{reply:?}")) }
        });
    };
    write(&mut log);
    // The leader's lease, if it has one, is fresh and its connections are established.
    let mut asked: Vec<(Client, Option<sim::history::Call>)> =
        (0..60).map(|_| (cluster.client(sleeper), None)).collect();
    for (client, _) in &mut asked {
        assert!(matches!(client.say(&format!("GET {key}")), Ok(Reply::Bulk(Some(_)))));
    }

    cluster.pause(sleeper);
    let paused = Instant::now();
    let mut led = None;
    let count = asked.len() as u32;
    for (n, (client, call)) in (0..).zip(&mut asked) {
        write(&mut log);
        led.get_or_insert_with(|| paused.elapsed());
        // Asked after that write was acknowledged, so that only it or a later one may come back.
        *call = Some(log.invoke(key.as_bytes(), clock(), Action::Get));
        client.say_only(&format!("GET {key}")).expect("a question to the paused node");
        // Spread over the whole pause.
        let due = PAUSE * (n + 1) / count;
        std::thread::sleep(due.saturating_sub(paused.elapsed()));
    }
    cluster.resume(sleeper);
    let mut kinds = std::collections::BTreeMap::new();
    for (client, call) in &mut asked {
        let reply = client.receive().expect("an answer after the pause");
        *kinds.entry(reply.error_class().unwrap_or("value").to_owned()).or_insert(0) += 1;
        let outcome = classify(&Action::Get, reply).expect("a value or a refusal");
        log.respond(call.take().expect("it was asked"), clock(), outcome);
    }
    let whole = cluster.wait_whole(Duration::from_secs(10));
    load.wait_written(5, Duration::from_secs(10));
    let mut harvest = load.stop();
    cluster.wait_same(Duration::from_secs(5));
    harvest.add(log);
    harvest.read_everything();
    let (any, one) = harvest.longest_gaps();
    assert!(any < PAUSE, "no write was acknowledged for {any:?}: the others did not go on");
    println!(
        "paused leader: the first write beside it after {led:?}; its late answers {kinds:?}; whole again {whole:?} \
         after it went on; longest gap without a write {any:?}, of one group {one:?}; answers {:?}; {} operations \
         judged linearizable",
        harvest.answers.clone(),
        harvest.judge()
    );
}

/// Asks for something that must be refused; returns the class of the error and how long it took. A
/// get may still be answered while a lease runs, with what is true then.
fn refused(client: &mut Client, line: &str, leased: bool) -> (String, Duration) {
    let begun = Instant::now();
    let reply = client.say(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    if leased && line.starts_with("GET") && reply == Reply::bulk("before") {
        return ("answered on a lease".to_owned(), begun.elapsed());
    }
    let class = reply.error_class().unwrap_or_else(|| panic!("a minority answered {line} with {reply:?}"));
    assert!(matches!(class, "CLUSTERDOWN" | "TRYAGAIN" | "INDOUBT"), "{line}: {reply:?}");
    if line.starts_with("GET") {
        assert_ne!(class, "INDOUBT", "a read is never in doubt: {reply:?}");
    }
    (class.to_owned(), begun.elapsed())
}

#[test]
fn a_minority_answers_with_errors_and_never_with_data() {
    // The story: two of three nodes stand still. The third has all the data, and may have been the
    // leader, and still must not answer: for all it knows the other two go on without it.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let keys: Vec<String> = (0..24).map(|n| format!("key-{n}")).collect();
    let mut client = cluster.client(1);
    for key in &keys {
        assert_eq!(client.say(&format!("PUT {key} before")).expect("an answer"), Reply::ok());
    }
    cluster.pause(2);
    cluster.pause(3);
    let paused = Instant::now();
    let mut classes = std::collections::BTreeMap::new();
    let mut slowest = Duration::ZERO;
    let address = cluster.ports().client(1);
    // Twice: at once, while the survivor may still take the others for alive, and when it knows.
    for turn in ["first", "second"] {
        let asking: Vec<_> = keys
            .iter()
            .flat_map(|key| [format!("GET {key}"), format!("PUT {key} {turn}"), format!("INCR number-{key}")])
            .map(|line| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(address).expect("a connection to the survivor");
                    (line.clone(), refused(&mut client, &line, turn == "first"))
                })
            })
            .collect();
        for answer in asking {
            let (line, (class, took)) = answer.join().expect("an answer");
            slowest = slowest.max(took);
            *classes.entry((turn, line.split(' ').next().unwrap_or("").to_owned(), class)).or_insert(0) += 1;
        }
    }
    assert!(slowest < Duration::from_secs(5), "an error took {slowest:?}");
    let stood = paused.elapsed();

    cluster.resume(2);
    cluster.resume(3);
    let whole = cluster.wait_whole(Duration::from_secs(10));
    for key in &keys {
        let value = client.say(&format!("GET {key}")).expect("an answer");
        // A write in doubt may have happened.
        let possible = ["before", "first", "second"].map(Reply::bulk);
        assert!(possible.contains(&value), "{key}: {value:?}");
        assert_eq!(client.say(&format!("PUT {key} after")).expect("an answer"), Reply::ok());
    }
    cluster.wait_same(Duration::from_secs(5));
    println!(
        "minority for {stood:?}: {classes:?}, slowest {slowest:?}; whole {whole:?} after the others went on"
    );
}
