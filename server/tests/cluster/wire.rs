//! A client of the tests' own, so that a mistake of the product's client cannot hide one of the
//! server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One reply, RESP2 or the parts of RESP3 that the tests meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+text`
    Status(String),
    /// `-text`
    Error(String),
    /// `:number`
    Integer(i64),
    /// `$`, `=`; `None` is nil.
    Bulk(Option<Vec<u8>>),
    /// `*`, `~`, `%` (keys and values in turn)
    Array(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
}

impl Reply {
    /// `+OK`
    pub fn ok() -> Reply {
        Reply::Status("OK".into())
    }

    /// A value.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(Some(bytes.as_ref().to_vec()))
    }

    /// No value.
    pub fn nil() -> Reply {
        Reply::Bulk(None)
    }

    /// The first word of an error.
    pub fn error_class(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => text.split(' ').next(),
            _ => None,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

/// How long an answer may take: longer than the server's own limit of 3 s.
const ANSWER: Duration = Duration::from_secs(6);

impl Client {
    /// Connects; answers may take a few seconds.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::connect_with(address, ANSWER)
    }

    /// Connects; an answer may take `patience`.
    pub fn connect_with(address: SocketAddr, patience: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let input = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        Ok(Client { stream, input })
    }

    /// Sends one request and takes its reply.
    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    /// Sends one request of words separated by blanks and takes its reply.
    pub fn say(&mut self, line: &str) -> io::Result<Reply> {
        let words: Vec<&str> = line.split(' ').collect();
        self.call(&words)
    }

    /// Sends one request of words separated by blanks and does not wait for its reply.
    pub fn say_only(&mut self, line: &str) -> io::Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        self.send(&words)
    }

    /// Sends one request.
    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<()> {
        self.raw(&encode(words))
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A second handle of the socket, for a thread that only writes.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Takes the next reply.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, text) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
        let number = || text.parse::<i64>().map_err(|_| bad("no number"));
        Ok(match kind {
            "+" => Reply::Status(text.to_owned()),
            "-" => Reply::Error(text.to_owned()),
            ":" => Reply::Integer(number()?),
            "_" => Reply::Bulk(None),
            "$" | "=" | "*" | "~" if number()? < 0 => Reply::Bulk(None),
            "$" | "=" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.input.read_exact(&mut bytes)?;
                if !bytes.ends_with(b"\r\n") {
                    return Err(bad("a value without its end"));
                }
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(Some(bytes))
            }
            "*" | "~" => Reply::Array(self.items(number()?)?),
            ">" => Reply::Push(self.items(number()?)?),
            "%" => Reply::Array(self.items(number()? * 2)?),
            _ => return Err(bad(&format!("not a reply: {line:?}"))),
        })
    }

    fn items(&mut self, count: i64) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.receive()).collect()
    }

    /// Whether the server has closed the connection, after everything that it said was read.
    pub fn is_closed(&mut self) -> io::Result<bool> {
        match self.input.fill_buf() {
            Ok(bytes) => Ok(bytes.is_empty()),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| bad("a line that is not UTF-8"))
    }
}

/// The bytes of one request.
pub fn encode<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
        out.extend_from_slice(word.as_ref());
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
