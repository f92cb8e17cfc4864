//! Watching keys on clusters of real processes.

mod cluster;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::{Client, Cluster, Recipe, Reply, turn};

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    group: i64,
    revision: i64,
    key: String,
    /// `None` for a key that is gone.
    value: Option<String>,
    token: String,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Event(Event),
    Progress(String),
    Refused(String),
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    }
}

fn said(reply: Reply) -> Said {
    let items = match reply {
        Reply::Array(items) | Reply::Push(items) => items,
        Reply::Error(text) => return Said::Refused(text),
        other => panic!("{other:?}"),
    };
    match (text(&items[0]).as_str(), &items[1..]) {
        (
            "subscribekv-event",
            [_, Reply::Integer(group), Reply::Integer(revision), kind, key, value, token],
        ) => {
            let value = (*value != Reply::nil()).then(|| text(value));
            assert_eq!(text(kind), if value.is_some() { "set" } else { "del" });
            Said::Event(Event {
                group: *group,
                revision: *revision,
                key: text(key),
                value,
                token: text(token),
            })
        }
        ("subscribekv-progress", [_, token]) => Said::Progress(text(token)),
        other => panic!("{other:?}"),
    }
}

/// Begins a watch; returns the position from which it goes on.
fn watch(client: &mut Client, prefix: &str, from: Option<&str>) -> Result<String, String> {
    let mut words = vec!["SUBSCRIBEKV", prefix];
    words.extend(from.iter().flat_map(|from| ["FROM", *from]));
    match client.call(&words).expect("an answer") {
        Reply::Array(items) => {
            assert_eq!((text(&items[0]), text(&items[1])), ("subscribekv".to_owned(), prefix.to_owned()));
            Ok(text(&items[3]))
        }
        Reply::Error(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn next_event(client: &mut Client) -> Event {
    loop {
        match said(client.receive().expect("an event")) {
            Said::Event(event) => return event,
            Said::Progress(_) => {}
            Said::Refused(why) => panic!("{why}"),
        }
    }
}

fn writes(client: &mut Client, lines: &[String]) {
    for line in lines {
        client.say_only(line).expect("sent");
    }
    for line in lines {
        assert!(client.receive().expect("an answer").error_class().is_none(), "{line}");
    }
}

/// Events of each group come in the order of its revisions.
fn check_order(events: &[Event], prefix: &str) {
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for event in events {
        assert!(event.key.starts_with(prefix), "{event:?}");
        let before = last.insert(event.group, event.revision).unwrap_or(-1);
        assert!(before < event.revision, "{event:?} behind revision {before}");
    }
}

/// The values of each key in the order in which they were told.
fn by_key(events: &[Event]) -> BTreeMap<String, Vec<Option<String>>> {
    let mut keys: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for event in events {
        keys.entry(event.key.clone()).or_default().push(event.value.clone());
    }
    keys
}

/// Writes rounds of values to keys of many groups, with a deletion at the end of each, and what a watch
/// has to say of them.
fn rounds(first: usize, count: usize) -> (Vec<String>, BTreeMap<String, Vec<Option<String>>>) {
    let (mut lines, mut expected) = (Vec::new(), BTreeMap::<String, Vec<Option<String>>>::new());
    for round in first..first + count {
        for n in 0..30 {
            lines.push(format!("PUT job:{n} r{round}"));
            lines.push(format!("PUT other:{n} r{round}"));
            expected.entry(format!("job:{n}")).or_default().push(Some(format!("r{round}")));
        }
        lines.push("DEL job:3 other:3 job:nobody".to_owned());
        expected.entry("job:3".to_owned()).or_default().push(None);
    }
    (lines, expected)
}

fn collect(client: &mut Client, count: usize) -> Vec<Event> {
    (0..count).map(|_| next_event(client)).collect()
}

#[test]
fn a_watch_tells_every_change_and_goes_on_at_another_node() {
    // The story: a worker watches jobs. The node that it is connected to dies, jobs go on changing, and it
    // comes back at another node with the token of the last event that it has dealt with.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let mut writer = cluster.client(2);
    let (lines, _) = rounds(0, 1);
    writes(&mut writer, &lines);

    let mut watcher = cluster.client(1);
    let position = watch(&mut watcher, "job:", None).expect("a watch");
    let (lines, expected) = rounds(1, 5);
    writes(&mut writer, &lines);
    let count: usize = expected.values().map(Vec::len).sum();
    let events = collect(&mut watcher, count);
    check_order(&events, "job:");
    // What was acknowledged before the watch began is not told.
    assert_eq!(by_key(&events), expected);

    // From the confirmed position the same is told again, by every node.
    for node in [2, 3] {
        let mut again = cluster.client(node);
        assert_eq!(watch(&mut again, "job:", Some(&position)), Ok(position.clone()));
        let events = collect(&mut again, count);
        check_order(&events, "job:");
        assert_eq!(by_key(&events), expected, "by node {node}");
    }

    // It has dealt with half of them when its node dies.
    let half = &events[..count / 2];
    let token = half[half.len() - 1].token.clone();
    cluster.kill(1);
    cluster.wait_led(Duration::from_secs(3));
    let (lines, later) = rounds(6, 3);
    writes(&mut writer, &lines);
    let mut watcher = cluster.client(3);
    assert_eq!(watch(&mut watcher, "job:", Some(&token)), Ok(token));
    let rest: usize = count - half.len() + later.values().map(Vec::len).sum::<usize>();
    let mut all = half.to_vec();
    all.extend(collect(&mut watcher, rest));
    let mut whole = expected;
    for (key, values) in later {
        whole.entry(key).or_default().extend(values);
    }
    check_order(&all, "job:");
    assert_eq!(by_key(&all), whole);

    // The node that died comes back and knows what it was told, from its own log and checkpoint or by
    // saying that it does not.
    cluster.run(1);
    cluster.wait_whole(Duration::from_secs(10));
    cluster.wait_same(Duration::from_secs(5));
    let mut back = cluster.client(1);
    let last = all[all.len() - 1].token.clone();
    match watch(&mut back, "job:", Some(&last)) {
        Ok(_) => {
            writes(&mut writer, &["PUT job:last x".to_owned()]);
            assert_eq!(next_event(&mut back).key, "job:last");
        }
        Err(why) => assert!(why.starts_with("COMPACTED min="), "{why}"),
    }
}

#[test]
fn a_snapshot_behind_the_confirmation_and_the_events_are_everything() {
    // The story: a cache fills itself from PREFIX and keeps itself up to date, while others write.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let mut watcher = cluster.client(1);
    watch(&mut watcher, "c:", None).expect("a watch");
    let addresses = cluster.addresses();
    let writer = std::thread::spawn(move || {
        let mut client = Client::connect(addresses[1]).expect("a connection");
        for n in 0..2_000 {
            let line = if n % 7 == 0 { format!("DEL c:{}", n % 50) } else { format!("PUT c:{} {n}", n % 50) };
            assert!(client.say(&line).expect("an answer").error_class().is_none());
        }
        assert_eq!(client.say("PUT c:end x").expect("an answer"), Reply::ok());
    });
    let mut cache: BTreeMap<String, String> = BTreeMap::new();
    let mut reader = cluster.client(3);
    let (mut words, mut token) = (vec!["PREFIX", "c:", "LIMIT", "20"], String::new());
    loop {
        let mut request = words.clone();
        if !token.is_empty() {
            request.extend(["AFTER", &token]);
        }
        let Reply::Array(parts) = reader.call(&request).expect("a page") else { panic!("no page") };
        let [next, Reply::Array(items)] = &parts[..] else { panic!("no page") };
        cache.extend(items.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))));
        token = text(next);
        if token.is_empty() {
            break;
        }
        words.truncate(4);
    }
    loop {
        let event = next_event(&mut watcher);
        let end = event.key == "c:end";
        match event.value {
            Some(value) => cache.insert(event.key, value),
            None => cache.remove(&event.key),
        };
        if end {
            break;
        }
    }
    writer.join().expect("the writer");
    // The end may have come before the last events of other groups: wait until nothing is missing.
    let mut held = BTreeMap::new();
    let Reply::Array(parts) = reader.say("PREFIX c: LIMIT 10000").expect("a page") else { panic!("no page") };
    let Reply::Array(items) = &parts[1] else { panic!("no page") };
    held.extend(items.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))));
    let begun = Instant::now();
    while cache != held {
        assert!(begun.elapsed() < Duration::from_secs(5), "{cache:?} is not {held:?}");
        let event = next_event(&mut watcher);
        match event.value {
            Some(value) => cache.insert(event.key, value),
            None => cache.remove(&event.key),
        };
    }
}

#[test]
fn what_is_gone_is_said_and_a_slow_watch_is_cut_off() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    let mut writer = cluster.client(2);
    let value = "v".repeat(40_000);
    let put = |client: &mut Client, from: usize, to: usize| {
        for n in from..to {
            client.send(&["PUT", &format!("{{t}}:{n}"), &value]).expect("sent");
            assert_eq!(client.receive().expect("an answer"), Reply::ok());
        }
    };
    put(&mut writer, 0, 10);
    // The changes of one group are counted by its revision alone.
    let mut early = cluster.client(1);
    watch(&mut early, "{t}", Some("0")).expect("a watch");
    assert_eq!(
        collect(&mut early, 10).iter().map(|e| e.revision).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );

    // It reads no more while far more is written than any buffer holds.
    put(&mut writer, 10, 700);
    let mut late = cluster.client(1);
    let why = watch(&mut late, "{t}", Some("10")).expect_err("gone");
    assert!(why.starts_with("COMPACTED min=") && why.contains("nothing is watched"), "{why}");
    let min: i64 =
        why["COMPACTED min=".len()..].split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert_eq!(late.say("PING").expect("an answer"), Reply::Status("PONG".into()), "the connection goes on");
    watch(&mut late, "{t}", Some(&min.to_string())).expect("what is said to be there is there");
    let events = collect(&mut late, (700 - min) as usize);
    assert_eq!((events[0].revision, events[events.len() - 1].revision), (min + 1, 700));

    let (mut last, mut token) = (10, String::new());
    let why = loop {
        match said(early.receive().expect("an event or the end")) {
            Said::Event(event) => {
                assert_eq!(event.revision, last + 1, "nothing is passed over in silence");
                (last, token) = (event.revision, event.token);
            }
            Said::Progress(_) => {}
            Said::Refused(why) => break why,
        }
    };
    assert!(last < 700, "a client that does not read was told everything");
    assert!(why.starts_with("COMPACTED min=") && why.contains("PREFIX"), "{why}");
    assert!(why.contains(&format!("token={token}")), "{why} does not name {token}");
    assert!(early.is_closed().expect("the end"), "and the connection ends");

    for (words, part) in [
        (&["SUBSCRIBEKV"][..], "usage"),
        (&["SUBSCRIBEKV", "x", "FROM"], "usage"),
        (&["SUBSCRIBEKV", "x", "FROM", "7"], "{tag}"),
        (&["SUBSCRIBEKV", "x", "FROM", "nonsense"], "token"),
        (&["SUBSCRIBEKV", "x", "FROM", &token], "other groups"),
        (&["SUBSCRIBEKV", "x", "SINCE", "7"], "SINCE"),
    ] {
        let mut client = cluster.client(3);
        let Reply::Error(error) = client.call(words).expect("an answer") else { panic!("{words:?}") };
        assert!(error.starts_with("ERR ") && error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn a_connection_that_watches_in_both_protocols() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let mut writer = cluster.client(1);

    let mut old = cluster.client(2);
    watch(&mut old, "a", None).expect("a watch");
    watch(&mut old, "b", None).expect("a second one");
    assert!(watch(&mut old, "a", None).expect_err("twice").contains("already"));
    assert!(matches!(old.say("GET a").expect("an answer"), Reply::Error(e) if e.contains("UNSUBSCRIBEKV")));
    assert_eq!(old.say("PING").expect("an answer"), Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")]));
    assert_eq!(writer.say("MSET a1 x b1 y c1 z").expect("an answer"), Reply::ok());
    let mut keys: Vec<String> = collect(&mut old, 2).into_iter().map(|e| e.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a1", "b1"]);
    let ended =
        |prefix: Reply, left| Reply::Array(vec![Reply::bulk("unsubscribekv"), prefix, Reply::Integer(left)]);
    assert_eq!(old.say("UNSUBSCRIBEKV a").expect("an answer"), ended(Reply::bulk("a"), 1));
    assert_eq!(writer.say("MSET a2 x b2 y").expect("an answer"), Reply::ok());
    assert_eq!(next_event(&mut old).key, "b2");
    assert_eq!(old.say("UNSUBSCRIBEKV").expect("an answer"), ended(Reply::nil(), 0));
    assert_eq!(old.say("GET a2").expect("an answer"), Reply::bulk("x"), "it is an ordinary connection again");
    watch(&mut old, "a", None).expect("a watch");
    assert_eq!(old.say("RESET").expect("an answer"), Reply::Status("RESET".into()));
    assert_eq!(writer.say("PUT a3 x").expect("an answer"), Reply::ok());
    assert_eq!(old.say("GET a3").expect("an answer"), Reply::bulk("x"), "nothing is told any more");

    // RESP3 tells events from replies: commands go on.
    let mut new = cluster.client(3);
    new.say("HELLO 3").expect("an answer");
    watch(&mut new, "n", None).expect("a watch");
    assert_eq!(new.say("PUT n1 x").expect("an answer"), Reply::ok());
    let push = new.receive().expect("an event");
    assert!(matches!(push, Reply::Push(_)), "{push:?}");
    assert!(matches!(said(push), Said::Event(event) if event.key == "n1"));
    assert_eq!(new.say("GET n1").expect("an answer"), Reply::bulk("x"));

    // A line client is told in RESP2.
    let mut line = cluster.client(1);
    line.raw(b"SUBSCRIBEKV line:\r\n").expect("sent");
    assert!(matches!(line.receive().expect("an answer"), Reply::Array(items) if items.len() == 4));
    assert_eq!(writer.say("PUT line:1 x").expect("an answer"), Reply::ok());
    assert_eq!(next_event(&mut line).key, "line:1");

    // Whoever has nothing to hear hears how far it is.
    let mut idle =
        Client::connect_with(cluster.ports().client(2), Duration::from_secs(30)).expect("a connection");
    let first = watch(&mut idle, "quiet:", None).expect("a watch");
    for n in 0..200 {
        assert_eq!(writer.say(&format!("PUT loud:{n} x")).expect("an answer"), Reply::ok());
    }
    let Said::Progress(token) = said(idle.receive().expect("a word")) else {
        panic!("an event out of nothing")
    };
    assert_ne!(token, first, "others' changes move it on");
    assert_eq!(writer.say("PUT quiet:1 x").expect("an answer"), Reply::ok());
    assert_eq!(next_event(&mut idle).key, "quiet:1");
}

#[test]
fn a_node_without_a_seat_in_every_group_asks_the_others() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { nodes: 5, groups: 10, ..Recipe::default() });
    let mut writer = cluster.client(2);
    let mut watcher = cluster.client(1);
    watch(&mut watcher, "job:", None).expect("a watch");
    let (lines, expected) = rounds(0, 3);
    writes(&mut writer, &lines);
    let count: usize = expected.values().map(Vec::len).sum();
    let events = collect(&mut watcher, count);
    check_order(&events, "job:");
    assert_eq!(by_key(&events), expected);

    // A leader among the others dies: the watch goes on with its successor.
    cluster.kill(4);
    cluster.wait_led(Duration::from_secs(3));
    let (lines, expected) = rounds(3, 3);
    writes(&mut writer, &lines);
    let more = collect(&mut watcher, count);
    check_order(&[events, more.clone()].concat(), "job:");
    assert_eq!(by_key(&more), expected);
}
