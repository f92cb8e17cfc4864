//! A small RESP server that misbehaves on request, and a run of `pelago-bench` against it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// All values of every key, newest last.
pub type Store = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// What a server does with a request.
pub enum Answer {
    /// What a correct store would.
    Right,
    /// Sends these bytes instead.
    Bytes(Vec<u8>),
    /// A correct answer, this much later; everything behind it waits as well.
    Late(Duration),
    /// Closes the connection, the request executed or not.
    Close { applied: bool },
    /// Never answers this connection again, but keeps it open.
    Silence,
}

/// A request as the server sees it.
pub struct Request<'a> {
    /// Which request this is over all connections, from 0.
    pub number: u64,
    pub get: bool,
    pub command: &'a [u8],
    pub key: &'a [u8],
    /// Everything put so far, newest last.
    pub values: &'a [Vec<u8>],
    /// Everything put so far on any key.
    pub store: &'a Store,
}

/// A server on a port of its own; it serves until the test process ends.
pub struct Fake {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

type Behaviour = dyn Fn(&Request<'_>) -> Answer + Send + Sync;

struct Shared {
    behaviour: Box<Behaviour>,
    number: AtomicU64,
    /// What `STATUS JSON` is answered; where there is nothing, the command is unknown.
    status: Mutex<Option<String>>,
    /// How often it was asked.
    asked: AtomicU64,
    store: Mutex<Store>,
}

impl Fake {
    /// Starts a server with this behaviour.
    pub fn start(behaviour: impl Fn(&Request<'_>) -> Answer + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            behaviour: Box::new(behaviour),
            number: AtomicU64::new(0),
            status: Mutex::default(),
            asked: AtomicU64::new(0),
            store: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            let shared = served;
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // The client may go away at any time; that ends the thread.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Fake { address, shared }
    }

    /// A handle to change what `STATUS JSON` is answered, for use in a behaviour as well.
    pub fn status(&self) -> Status {
        Status(Arc::clone(&self.shared))
    }

    /// Runs `pelago-bench run` against it.
    pub fn bench(&self, arguments: &[&str]) -> Output {
        let address = self.address.to_string();
        let mut all = vec!["run", "--addr", &address, "--no-environment", "--warmup", "0s"];
        all.extend(arguments);
        bench(&all)
    }

    /// The only row of a run that must end with this exit code.
    pub fn row(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.bench(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
        let rows = report["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 1, "{report}");
        rows[0].clone()
    }
}

/// What a server says about itself.
pub struct Status(Arc<Shared>);

impl Status {
    /// Says from now on that these nodes lead groups 0, 1, ….
    pub fn leaders(&self, leaders: &[u64]) {
        let groups: Vec<Value> = (0..)
            .zip(leaders)
            .map(|(group, leader): (u64, _)| serde_json::json!({ "group": group, "leader": leader }))
            .collect();
        let text = serde_json::json!({ "groups": groups }).to_string();
        *self.0.status.lock().expect("no thread panics with it") = Some(text);
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::SeqCst)
    }
}

/// Runs the program.
pub fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pelago-bench")).args(arguments).output().expect("it can be started")
}

/// What a run said.
pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        let words = read_request(&mut input)?;
        if words[0] == b"STATUS" {
            let status = shared.status.lock().expect("no thread panics with it").clone();
            let unknown = b"-ERR unknown command 'STATUS'\r\n".to_vec();
            in_pieces(&mut out, &status.map_or(unknown, |text| bulk(text.as_bytes())))?;
            shared.asked.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let number = shared.number.fetch_add(1, Ordering::SeqCst);
        let (reply, answer) = execute(&words, number, shared);
        match answer {
            Answer::Right => in_pieces(&mut out, &reply)?,
            Answer::Bytes(bytes) => in_pieces(&mut out, &bytes)?,
            Answer::Late(pause) => {
                std::thread::sleep(pause);
                in_pieces(&mut out, &reply)?;
            }
            Answer::Close { .. } => return Ok(()),
            Answer::Silence => {
                while !input.fill_buf()?.is_empty() {
                    let length = input.buffer().len();
                    input.consume(length);
                }
                return Ok(());
            }
        }
    }
}

fn execute(words: &[Vec<u8>], number: u64, shared: &Shared) -> (Vec<u8>, Answer) {
    let mut store = shared.store.lock().expect("no thread panics with it");
    let (command, key) = (words[0].as_slice(), &words[1]);
    let values = store.get(key).cloned().unwrap_or_default();
    let get = command == b"GET";
    let request = Request { number, get, command, key, values: &values, store: &store };
    let answer = (shared.behaviour)(&request);
    let (reply, written) = carry_out(words, values.last().map(Vec::as_slice), &store);
    if let Some(value) = written
        && matches!(answer, Answer::Right | Answer::Late(_) | Answer::Close { applied: true })
    {
        store.entry(key.clone()).or_default().push(value);
    }
    (reply, answer)
}

/// The reply of a correct store, and what it writes.
fn carry_out(words: &[Vec<u8>], value: Option<&[u8]>, store: &Store) -> (Vec<u8>, Option<Vec<u8>>) {
    match words[0].as_slice() {
        b"GET" => (value.map_or(b"$-1\r\n".to_vec(), bulk), None),
        b"SET" => (b"+OK\r\n".to_vec(), Some(words[2].clone())),
        b"CAS" if value == Some(&words[2]) => (b":1\r\n".to_vec(), Some(words[3].clone())),
        b"CAS" => (b":0\r\n".to_vec(), None),
        b"INCR" => {
            let before: i64 =
                value.map_or(0, |text| String::from_utf8_lossy(text).parse().expect("a number"));
            let sum = (before + 1).to_string();
            (format!(":{sum}\r\n").into_bytes(), Some(sum.into_bytes()))
        }
        b"RANGE" => {
            assert_eq!(words[2..4], [b"+".to_vec(), b"LIMIT".to_vec()]);
            let limit: usize = String::from_utf8_lossy(&words[4]).parse().expect("a number");
            let found: Vec<_> = store.range(words[1].clone()..).take(limit).collect();
            (page(&found, if found.len() < limit { b"" } else { b"token" }), None)
        }
        other => (format!("-ERR unknown command '{}'\r\n", other.escape_ascii()).into_bytes(), None),
    }
}

/// A page of keys with all their values.
pub fn page(found: &[(&Vec<u8>, &Vec<Vec<u8>>)], token: &[u8]) -> Vec<u8> {
    let mut reply = [b"*2\r\n", bulk(token).as_slice()].concat();
    reply.extend_from_slice(format!("*{}\r\n", found.len() * 2).as_bytes());
    for (key, values) in found {
        reply.extend([bulk(key), bulk(values.last().expect("written"))].concat());
    }
    reply
}

/// A value as it goes over the wire.
pub fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

/// Every reply arrives cut in two, so that the client has to put replies together.
fn in_pieces(out: &mut TcpStream, reply: &[u8]) -> std::io::Result<()> {
    let (head, tail) = reply.split_at(reply.len() / 2);
    out.write_all(head)?;
    out.write_all(tail)
}

fn read_request(input: &mut impl BufRead) -> std::io::Result<Vec<Vec<u8>>> {
    let count = read_length(input, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = read_length(input, b'$')?;
        let mut word = vec![0; length + 2];
        input.read_exact(&mut word)?;
        assert!(word.ends_with(b"\r\n"), "a malformed request");
        word.truncate(length);
        words.push(word);
    }
    Ok(words)
}

fn read_length(input: &mut impl BufRead, mark: u8) -> std::io::Result<usize> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    assert!(line[0] == mark && line.ends_with(b"\r\n"), "a malformed request: {}", line.escape_ascii());
    let digits = std::str::from_utf8(&line[1..line.len() - 2]).expect("digits");
    Ok(digits.parse().expect("a length"))
}
