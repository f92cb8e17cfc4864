//! Messages there and back over the loopback, between two threads that sleep until there is something to read, or that
//! look all the time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use super::repeat;
use crate::stats::Latencies;

/// How a thread waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// In the kernel.
    Asleep,
    /// Looking again and again.
    Busy,
}

/// What is measured.
pub const WAYS: [(&str, Waits); 2] = [
    ("64 B there and back over loopback, asleep meanwhile", Waits::Asleep),
    ("64 B there and back over loopback, busy meanwhile", Waits::Busy),
];

/// Sends messages for so long.
pub fn measure(waits: Waits, time: Duration) -> io::Result<Latencies> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(waits == Waits::Busy)?;
    }
    // An echo that hangs ends the measurement, too.
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    let echo = std::thread::spawn(move || {
        let mut message = [0; 64];
        // The end of the connection is the end of the measurement.
        while receive(&mut server, &mut message).is_ok() && server.write_all(&message).is_ok() {}
    });
    let mut message = [0; 64];
    let latencies = repeat(time, || {
        client.write_all(&message)?;
        receive(&mut client, &mut message)
    });
    drop(client);
    let _ = echo.join();
    latencies
}

/// Fills the message, whether or not the stream blocks.
fn receive(stream: &mut TcpStream, message: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < message.len() {
        match stream.read(&mut message[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_measured() {
        for (what, waits) in WAYS {
            let latencies = measure(waits, Duration::from_millis(5)).expect(what);
            assert!(latencies.quantile(0.5) > 0, "{what}");
        }
    }
}
