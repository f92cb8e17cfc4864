//! The same requests to a real `redis-server` and to a node of three: replies compared byte for byte, but for
//! what `docs/redis-compatibility.md` says is different. Skipped, loudly, on a machine without Redis.

mod cluster;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster::{Cluster, Recipe, TestDir, encode, turn, within};
use server::protocol::compat::{CHAPTERS, Chapter, Verdict};

/// Draws numbers; the same from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) % bound as u64) as usize
    }

    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len())]
    }
}

/// A Redis of our own, without files.
struct Redis {
    child: Child,
    address: SocketAddr,
    _dir: TestDir,
}

impl Redis {
    fn start() -> Option<Redis> {
        // A port that was free a moment ago; if somebody else has taken it, the ping below says so.
        let free =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let dir = TestDir::new();
        let child = Command::new("redis-server")
            .args(["--port", &free.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Redis { child, address: free, _dir: dir }),
            Err(e) => {
                println!("SKIPPED: no redis-server (apt-get install redis-server): {e}");
                None
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection whose replies are kept as they came.
struct Raw {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Raw {
    fn connect(address: SocketAddr) -> std::io::Result<Raw> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Raw { input: BufReader::new(stream.try_clone()?), stream })
    }

    fn ask(&mut self, request: &[Vec<u8>]) -> Vec<u8> {
        self.stream.write_all(&encode(request)).expect("sent");
        let mut reply = Vec::new();
        self.receive(&mut reply);
        reply
    }

    fn receive(&mut self, reply: &mut Vec<u8>) {
        let from = reply.len();
        self.input.read_until(b'\n', reply).expect("a reply in time");
        let line = String::from_utf8_lossy(&reply[from..]).into_owned();
        let count = || line[1..].trim_end().parse::<i64>().unwrap_or_else(|_| panic!("{line:?}"));
        match line.as_bytes().first() {
            Some(b'$') if count() >= 0 => {
                let at = reply.len();
                reply.resize(at + count() as usize + 2, 0);
                self.input.read_exact(&mut reply[at..]).expect("a value in time");
            }
            Some(b'*') => (0..count()).for_each(|_| self.receive(reply)),
            Some(b'%') => (0..2 * count()).for_each(|_| self.receive(reply)),
            Some(b'+' | b'-' | b':' | b'$' | b'_' | b'#' | b',') => {}
            _ => panic!("an end, or something new: {line:?}"),
        }
    }
}

const KEYS: [&str; 6] = ["{d}a", "{d}b", "{d}c", "{d}number", "{d}text", "{d}"];
const VALUES: [&str; 12] = [
    "",
    "1",
    "-7",
    "007",
    " 1",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "hello world",
    "\0\r\n\u{ff}",
    "99999999999999999999",
    "NX",
];
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "5",
    "-5",
    "100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1.5",
    "x",
    "",
    "+3",
    "00",
];
/// Lives that do not end while the test runs, or have ended already.
const LIVES: [&str; 7] = ["100000", "10000000", "0", "-1", "x", "9223372036854775807", "1.5"];

/// One request of those that are the same in Redis and here.
fn request(random: &mut Random) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let key = random.pick(&KEYS);
    let other = random.pick(&KEYS);
    let (value, number, life) = (random.pick(&VALUES), random.pick(&NUMBERS), random.pick(&LIVES));
    let mut request = match random.below(37) {
        0 => words(&["GET", key]),
        1 => words(&["SET", key, value]),
        2 => {
            let mut set = words(&["SET", key, value]);
            // Redis takes the same kind of life twice; here one may be given.
            match random.below(5) {
                0 => set.push("KEEPTTL".into()),
                1 => set.extend(words(&["EX", life])),
                2 => set.extend(words(&["px", life])),
                _ => {}
            }
            for _ in 0..random.below(3) {
                set.push(random.pick(&["NX", "XX", "GET", "get", "FOO"]).into());
            }
            set
        }
        3 => words(&["GETSET", key, value]),
        4 => words(&["GETDEL", key]),
        5 => words(&["SETNX", key, value]),
        6 => words(&["INCR", key]),
        7 => words(&["DECR", key]),
        8 => words(&["INCRBY", key, number]),
        9 => words(&["DECRBY", key, number]),
        10 => words(&["APPEND", key, value]),
        11 => words(&["STRLEN", key]),
        12 => words(&["GETRANGE", key, number, random.pick(&NUMBERS)]),
        13 => words(&["SUBSTR", key, number, random.pick(&NUMBERS)]),
        14 => words(&["MGET", key, other, "{d}never"]),
        15 => words(&["MSET", key, value, other, random.pick(&VALUES)]),
        16 => words(&["DEL", key, other]),
        17 => words(&["UNLINK", key]),
        18 => words(&["EXISTS", key, other, key]),
        19 => words(&["TOUCH", key, other]),
        20 => words(&["TYPE", key]),
        21 => words(&["SETEX", key, life, value]),
        22 => words(&["PSETEX", key, life, value]),
        23 => words(&["EXPIRE", key, life]),
        24 => {
            let mut expire = words(&["PEXPIRE", key, life, random.pick(&["NX", "XX", "GT", "LT", "FOO"])]);
            if random.below(3) == 0 {
                expire.push(random.pick(&["NX", "XX", "GT", "LT"]).into());
            }
            expire
        }
        25 => words(&["EXPIREAT", key, random.pick(&["99999999999", "1", "-1", "x"])]),
        26 => words(&["PERSIST", key]),
        27 => words(&["TTL", key]),
        28 => words(&["EXPIRETIME", "{d}never"]),
        29 => words(&["GETEX", key, "PERSIST"]),
        30 => words(&["GETEX", key, random.pick(&["EX", "PX", "FOO", "EXAT"]), life]),
        31 => words(&["PING", value]),
        32 => words(&["ECHO", value]),
        33 => words(&["SELECT", random.pick(&["0", "x", "99"])]),
        34 => words(&["MULTI"]),
        35 => words(&["EXEC"]),
        _ => words(&["DISCARD"]),
    };
    match random.below(40) {
        // Too few words, too many, and nonsense.
        0 => drop(request.pop()),
        // Redis ends a transaction by an `EXEC` with a word too many; here the next one ends it.
        1 if request != ["EXEC"] => request.push("more".into()),
        2 => request[0].push('X'),
        3 => request[0] = request[0].to_lowercase(),
        _ => {}
    }
    if request.is_empty() { words(&["PING"]) } else { request }
}

/// Whether replies are the same, but for what differs on purpose.
fn alike(redis: &[u8], ours: &[u8]) -> bool {
    if redis == ours {
        return true;
    }
    let (redis, ours) = (String::from_utf8_lossy(redis), String::from_utf8_lossy(ours));
    if redis.starts_with("-ERR ") && ours.starts_with("-ERR ") {
        // Ours goes on, and tells of an unknown command's words in its own way. Of several mistakes in one
        // request the two may tell different ones.
        let form = |text: &str| {
            [
                "syntax error",
                "wrong number of arguments",
                "unknown command",
                "Unsupported option",
                "not compatible",
            ]
            .iter()
            .any(|words| text.contains(words))
        };
        return ours.starts_with(redis.trim_end()) || form(&redis) || form(&ours);
    }
    // Lives are counted by other clocks: they may differ by a little, wherever they stand in the reply.
    let (theirs, our_lines): (Vec<&str>, Vec<&str>) = (redis.lines().collect(), ours.lines().collect());
    let life = |line: &str| {
        let seconds = line.strip_prefix(':')?.parse::<i64>().ok()?;
        (90_000..=10_000_000).contains(&seconds).then_some(seconds)
    };
    theirs.len() == our_lines.len()
        && theirs
            .iter()
            .zip(our_lines)
            .all(|(a, b)| *a == b || matches!((life(a), life(b)), (Some(a), Some(b)) if (a - b).abs() <= 3))
}

#[test]
fn replies_are_those_of_redis() {
    let _turn = turn();
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::start(Recipe::default());
    let (mut theirs, _) = within(Duration::from_secs(10), "redis-server", || {
        let mut raw = Raw::connect(redis.address).map_err(|e| e.to_string())?;
        match raw.ask(&[b"PING".to_vec()]) {
            pong if pong == b"+PONG\r\n" => Ok(raw),
            other => Err(String::from_utf8_lossy(&other).into_owned()),
        }
    });
    for seed in 0..3 {
        let mut random = Random(seed);
        let mut ours = Raw::connect(cluster.ports().client(1 + seed as u32)).expect("a node");
        let mut compared = BTreeSet::new();
        // RESP3 has another null, and the same replies otherwise.
        let hello = if seed == 2 { "3" } else { "2" };
        for raw in [&mut theirs, &mut ours] {
            let hello = raw.ask(&[b"HELLO".to_vec(), hello.into()]);
            assert!(
                hello.starts_with(b"*") || hello.starts_with(b"%"),
                "{}",
                String::from_utf8_lossy(&hello)
            );
            let keys = KEYS.iter().map(|key| key.as_bytes().to_vec());
            raw.ask(&std::iter::once(b"DEL".to_vec()).chain(keys).collect::<Vec<_>>());
        }
        let mut story = Vec::new();
        for n in 0..4_000 {
            let request = request(&mut random);
            // In Latin 1, so that values are bytes and no text.
            let bytes: Vec<Vec<u8>> =
                request.iter().map(|word| word.chars().map(|c| c as u8).collect()).collect();
            let (there, mut here) = (theirs.ask(&bytes), ours.ask(&bytes));
            if there == b"+QUEUED\r\n" && here.starts_with(b"-ERR ") {
                // Redis takes wrong arguments into a transaction and lets that command fail; here the transaction
                // is aborted at once. The two begin anew.
                assert!(ours.ask(&[b"EXEC".to_vec()]).starts_with(b"-EXECABORT "), "{request:?}");
                let discarded = theirs.ask(&[b"DISCARD".to_vec()]);
                assert_eq!(discarded, b"+OK\r\n", "{request:?}");
                here.clone_from(&there);
            }
            story.push(format!(
                "{request:?}: {:?} {:?}",
                String::from_utf8_lossy(&there),
                String::from_utf8_lossy(&here)
            ));
            // An invalid time is refused here whether or not there is such a key.
            let nil = there == b"$-1\r\n" || there == b"_\r\n";
            if request[0].eq_ignore_ascii_case("GETEX") && nil && here.starts_with(b"-ERR ") {
                continue;
            }
            if !alike(&there, &here) {
                let from = story.len().saturating_sub(12);
                panic!("seed {seed}, request {n}: Redis, then ours\n{}", story[from..].join("\n"));
            }
            if !there.starts_with(b"-") {
                compared.insert(request[0].to_lowercase());
            }
        }
        // Whatever the table calls the same about strings was compared at work, not only refused.
        let strings = CHAPTERS.iter().filter(|chapter| ["string", "transactions"].contains(&chapter.name));
        for row in strings.flat_map(Chapter::all).filter(|row| row.verdict == Verdict::Same) {
            assert!(compared.contains(row.name) || row.name == "unwatch", "{} was never compared", row.name);
        }
    }
    println!("12000 requests compared with {}", redis.address);
    cluster.wait_same(Duration::from_secs(5));
}
