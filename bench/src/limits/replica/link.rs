//! A socket with what is half read and half written.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

/// What is not read on the other side in time; a replica that is so far behind has failed.
const MOST_WAITING: usize = 64 << 20;

/// One connection.
pub struct Link {
    stream: TcpStream,
    /// Read and not yet taken.
    pub input: Vec<u8>,
    /// To be written.
    pub output: Vec<u8>,
}

impl Link {
    /// The connection over this socket.
    pub fn new(stream: TcpStream) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        Ok(Link { stream, input: Vec::new(), output: Vec::new() })
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads all there is. `false` if the other side is gone.
    pub fn fill(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Writes what the socket takes; the rest goes out when it is reported writable. `false` if the other side is
    /// gone.
    pub fn flush(&mut self) -> bool {
        let mut written = 0;
        let there = loop {
            if written == self.output.len() {
                break true;
            }
            match self.stream.write(&self.output[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.output.drain(..written);
        there && self.output.len() <= MOST_WAITING
    }
}
