//! A server for tests: it answers each connection by a script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What to do with one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Answer with these bytes.
    Say(&'static str),
    /// Close the connection without an answer.
    Close,
    /// Close the connection after this answer.
    SayAndClose(&'static str),
}

/// A listening server that takes one act per request, over all its connections.
pub(crate) struct Fake {
    /// Where it listens.
    pub address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Listens on a free port. When the acts are used up it closes every connection.
    pub fn start(acts: &[Act]) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let mut acts: Vec<Act> = acts.iter().rev().copied().collect();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &mut acts, &log);
            }
        });
        Fake { address, seen }
    }

    /// The requests so far, words joined by blanks.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no poison").clone()
    }
}

fn serve(mut stream: TcpStream, acts: &mut Vec<Act>, log: &Mutex<Vec<String>>) {
    while let Some(request) = read_request(&mut stream) {
        log.lock().expect("no poison").push(request);
        match acts.pop() {
            Some(Act::Say(bytes)) => stream.write_all(bytes.as_bytes()).expect("the client reads"),
            Some(Act::SayAndClose(bytes)) => {
                stream.write_all(bytes.as_bytes()).expect("the client reads");
                return;
            }
            Some(Act::Close) | None => return,
        }
    }
}

/// Only what the client of this crate sends.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let words = read_line(stream)?.strip_prefix('*')?.parse().ok()?;
    let mut request = Vec::new();
    for _ in 0..words {
        let length: usize = read_line(stream)?.strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).ok()?;
        word.truncate(length);
        request.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(request.join(" "))
}

fn read_line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).ok()
}
