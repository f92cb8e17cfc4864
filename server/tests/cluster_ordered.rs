//! Reads of many keys on clusters of real processes: pages, tokens, cursors.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::{Client, Cluster, Recipe, Reply, turn};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn put_all(client: &mut Client, pairs: &Map) {
    for (key, value) in pairs {
        client.send(&[&b"PUT"[..], key, value]).expect("a put is sent");
    }
    for _ in pairs {
        assert_eq!(client.receive().expect("an answer"), Reply::ok());
    }
}

fn texts(items: Vec<Reply>) -> Vec<Vec<u8>> {
    let text = |item| match item {
        Reply::Bulk(Some(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(text).collect()
}

/// A page as token and pairs.
fn page(reply: Reply) -> (Vec<u8>, Pairs) {
    let Reply::Array(parts) = reply else { panic!("{reply:?}") };
    let [Reply::Bulk(Some(token)), Reply::Array(items)] = <[Reply; 2]>::try_from(parts).expect("two parts")
    else {
        panic!("no page")
    };
    let flat = texts(items);
    assert!(flat.len().is_multiple_of(2));
    (token, flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

/// Follows the tokens of a range, the next page through the next of `nodes`. Returns what came and
/// how many pages it took.
fn read_through(cluster: &Cluster, nodes: &[u32], words: &[&[u8]]) -> (Pairs, usize) {
    let mut clients: Vec<Client> = nodes.iter().map(|node| cluster.client(*node)).collect();
    let (mut all, mut token, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let mut request = words.to_vec();
        if pages > 0 {
            request.extend([&b"AFTER"[..], &token]);
        }
        let count = clients.len();
        let (next, items) = page(clients[pages % count].call(&request).expect("a page"));
        pages += 1;
        assert!(pages < 10_000, "a range without an end");
        all.extend(items);
        token = next;
        if token.is_empty() {
            return (all, pages);
        }
    }
}

fn sample() -> Map {
    let mut pairs = Map::new();
    for n in 0..700 {
        pairs.insert(format!("key-{n:03}").into_bytes(), format!("value-{n}").into_bytes());
    }
    for n in 0..40 {
        pairs.insert(format!("{{one}}:{n:02}").into_bytes(), vec![b'x'; 40_000]);
    }
    for n in 0..3 {
        pairs.insert(format!("large-{n}").into_bytes(), vec![b'y'; 700_000]);
    }
    pairs.insert(b"\xff\xfe\x00".to_vec(), b"\x00\xff".to_vec());
    pairs
}

#[test]
fn pages_lead_through_all_groups_on_any_node_also_when_one_dies() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let pairs = sample();
    put_all(&mut cluster.client(1), &pairs);
    let all: Pairs = pairs.clone().into_iter().collect();

    for limit in ["1", "37", "10000"] {
        let words = [&b"RANGE"[..], b"-", b"+", b"LIMIT", limit.as_bytes()];
        let (read, pages) = read_through(&cluster, &[1, 2, 3], &words);
        assert!(read == all, "LIMIT {limit}: {} of {} pairs", read.len(), all.len());
        println!("LIMIT {limit}: {pages} pages");
    }
    let some = |from: &[u8], to: Option<&[u8]>| -> Pairs {
        let inside = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
        all.iter().filter(|(key, _)| inside(key)).cloned().collect()
    };
    for (words, expected) in [
        (&["RANGE", "key-100", "key-200"][..], some(b"key-100", Some(b"key-200"))),
        (&["RANGE", "large-1", "+"], some(b"large-1", None)),
        (&["RANGE", "-", "key-001"], some(b"", Some(b"key-001"))),
        (&["RANGE", "z", "a"], Vec::new()),
        (&["PREFIX", "key-1"], some(b"key-1", Some(b"key-2"))),
        (&["PREFIX", "{one}:"], some(b"{one}:", Some(b"{one};"))),
        (&["PREFIX", "nothing"], Vec::new()),
        (&["PREFIX", ""], all.clone()),
    ] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        assert!(read_through(&cluster, &[2, 3], &words).0 == expected, "{words:?}");
    }
    // The keys of a tag are all in one group: a page of them is as full as it may be.
    let (token, items) = page(cluster.client(1).say("PREFIX {one}: LIMIT 26").expect("a page"));
    assert_eq!(items.len(), 26);
    assert!(!token.is_empty());

    // A token outlives the node that gave it out.
    let words = "RANGE - + LIMIT 100";
    let (token, mut read) = page(cluster.client(3).say(words).expect("a page"));
    cluster.kill(3);
    cluster.wait_led(Duration::from_secs(3));
    let token = String::from_utf8(token).expect("a token of letters");
    let words = format!("{words} AFTER {token}");
    let (mut next, items) = page(cluster.client(1).say(&words).expect("a page"));
    read.extend(items);
    while !next.is_empty() {
        let request = [&b"RANGE"[..], b"-", b"+", b"AFTER", &next];
        let (then, items) = page(cluster.client(2).call(&request).expect("a page"));
        read.extend(items);
        next = then;
    }
    assert!(read == all, "{} of {} pairs across a death", read.len(), all.len());

    // A pipeline sees its own writes.
    let mut client = cluster.client(1);
    for words in [
        &["PUT", "new-1", "v"][..],
        &["PUT", "new-2", "v"],
        &["PREFIX", "new-"],
        &["DEL", "new-1"],
        &["PREFIX", "new-"],
    ] {
        client.send(words).expect("sent");
    }
    let replies: Vec<Reply> = (0..5).map(|_| client.receive().expect("an answer")).collect();
    assert_eq!(page(replies[2].clone()).1.len(), 2);
    assert_eq!(page(replies[4].clone()).1, [(b"new-2".to_vec(), b"v".to_vec())]);

    for (line, class) in [
        ("RANGE a", "ERR"),
        ("RANGE a b LIMIT 0", "ERR"),
        ("RANGE a b LIMIT 10001", "ERR"),
        ("RANGE a b LIMIT", "ERR"),
        ("RANGE a b AFTER nonsense", "ERR"),
        ("PREFIX other AFTER rAHVzZXI6NzV2", "ERR"),
        ("PREFIX a b", "ERR"),
    ] {
        assert_eq!(client.say(line).expect("an answer").error_class(), Some(class), "{line}");
    }
}

fn scan(client: &mut Client, cursor: &str, more: &str) -> (String, Vec<Vec<u8>>) {
    let reply = client.say(&format!("SCAN {cursor}{more}")).expect("an answer");
    let Reply::Array(parts) = reply else { panic!("{reply:?}") };
    let [Reply::Bulk(Some(cursor)), Reply::Array(keys)] = <[Reply; 2]>::try_from(parts).expect("two parts")
    else {
        panic!("no answer of SCAN")
    };
    (String::from_utf8(cursor).expect("a number"), texts(keys))
}

/// A whole scan, each step through the next of `nodes`, with something done before each.
fn scan_through(
    cluster: &Cluster,
    nodes: &[u32],
    more: &str,
    mut between: impl FnMut(usize),
) -> BTreeSet<Vec<u8>> {
    let mut clients: Vec<Client> = nodes.iter().map(|node| cluster.client(*node)).collect();
    let (mut cursor, mut met, mut steps) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        between(steps);
        let count = clients.len();
        let (next, keys) = scan(&mut clients[steps % count], &cursor, more);
        met.extend(keys);
        steps += 1;
        assert!(steps < 10_000, "a scan without an end");
        cursor = next;
        if cursor == "0" {
            return met;
        }
    }
}

#[test]
fn a_scan_meets_every_key_that_is_there_all_the_time() {
    // The story: a client library goes through all keys with SCAN, while others write, through
    // whichever node it is connected to, and while leaders move.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let mut pairs = Map::new();
    for n in 0..3_000 {
        pairs.insert(format!("key-{n:04}").into_bytes(), b"v".to_vec());
    }
    put_all(&mut cluster.client(1), &pairs);
    let all: BTreeSet<Vec<u8>> = pairs.keys().cloned().collect();
    assert_eq!(cluster.client(2).say("DBSIZE").expect("an answer"), Reply::Integer(3_000));
    assert_eq!(scan_through(&cluster, &[1], "", |_| {}), all);
    assert_eq!(scan_through(&cluster, &[1, 2, 3], " COUNT 500", |_| {}), all);
    let tens: BTreeSet<Vec<u8>> = all.iter().filter(|key| key.ends_with(b"7")).cloned().collect();
    assert_eq!(scan_through(&cluster, &[3], " MATCH *7 COUNT 200 TYPE string", |_| {}), tens);
    assert_eq!(scan_through(&cluster, &[3], " TYPE hash", |_| {}), BTreeSet::new());

    let mut writer = cluster.client(1);
    let met = scan_through(&cluster, &[2, 3], " COUNT 50", |step| {
        let step = step * 2;
        for line in
            [format!("PUT born-{step} v"), format!("DEL key-{step:04}"), format!("DEL born-{}", step / 2)]
        {
            assert!(writer.say(&line).expect("an answer").error_class().is_none(), "{line}");
        }
    });
    let touched = |key: &Vec<u8>| {
        let number: usize = String::from_utf8_lossy(&key[4..]).parse().expect("a number");
        number.is_multiple_of(2)
    };
    for key in all.iter().filter(|key| !touched(key)) {
        assert!(met.contains(key), "{} was not met", String::from_utf8_lossy(key));
    }

    // Half way the node that answers dies; its groups find new leaders, and the cursor means the same.
    let left: BTreeSet<Vec<u8>> = scan_through(&cluster, &[1], " COUNT 1000", |_| {})
        .into_iter()
        .filter(|k| k.starts_with(b"key"))
        .collect();
    let mut met = BTreeSet::new();
    let mut cursor = "0".to_owned();
    for _ in 0..20 {
        let (next, keys) = scan(&mut cluster.client(3), &cursor, " COUNT 60");
        met.extend(keys);
        cursor = next;
    }
    assert_ne!(cursor, "0", "half way");
    cluster.kill(3);
    cluster.wait_led(Duration::from_secs(3));
    let mut client = cluster.client(2);
    while cursor != "0" {
        let (next, keys) = scan(&mut client, &cursor, " COUNT 60");
        met.extend(keys);
        cursor = next;
    }
    assert!(left.is_subset(&met), "{} of {} keys across a death", met.len(), left.len());

    for line in ["SCAN", "SCAN x", "SCAN 1", "SCAN -1", "SCAN 0 COUNT 0", "SCAN 0 COUNT", "SCAN 0 LIMIT 3"] {
        assert_eq!(client.say(line).expect("an answer").error_class(), Some("ERR"), "{line}");
    }
    // A cursor of a group that there is not.
    let strange = (99_u64 << 49 | 1 << 48).to_string();
    assert_eq!(client.say(&format!("SCAN {strange}")).expect("an answer").error_class(), Some("ERR"));
}

#[test]
fn keys_answers_all_or_says_that_it_cannot() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    let mut pairs = Map::new();
    for n in 0..12_000 {
        pairs.insert(format!("many:{n:05}").into_bytes(), Vec::new());
    }
    for n in 0..20 {
        pairs.insert(format!("few:{n}").into_bytes(), Vec::new());
    }
    put_all(&mut cluster.client(1), &pairs);
    let mut client = cluster.client(2);
    let keys = |client: &mut Client, pattern: &str| match client.call(&["KEYS", pattern]).expect("an answer")
    {
        Reply::Array(items) => Ok(texts(items).len()),
        Reply::Error(error) => Err(error),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys(&mut client, "few:*"), Ok(20));
    assert_eq!(keys(&mut client, "few:?"), Ok(10));
    assert_eq!(keys(&mut client, "few:1"), Ok(1));
    assert_eq!(keys(&mut client, "many:011*"), Ok(100));
    assert_eq!(keys(&mut client, "nobody*"), Ok(0));
    let refused = keys(&mut client, "many:*").expect_err("too many");
    assert!(refused.starts_with("ERR KEYS") && refused.contains("SCAN"), "{refused}");
    assert_eq!(client.say("DBSIZE").expect("an answer"), Reply::Integer(12_020));
}
