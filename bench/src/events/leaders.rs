//! Asks a server twice a second who leads its groups, on a connection of its own, and notes what has changed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::plan::Clock;
use crate::resp::{Reply, Scanned, scan};

/// Between two questions. A status that takes long to answer is asked for less often, so that asking stays below a
/// twentieth of the time.
const INTERVAL: Duration = Duration::from_millis(500);
const SPARING: u32 = 20;
/// Before another server is asked than the one that has gone.
const SOON: Duration = Duration::from_millis(50);
/// A server that does not answer within this is left for the next one.
const PATIENCE: Duration = Duration::from_millis(500);
/// A longer status is not read.
const MOST_BYTES: usize = 64 << 20;
/// When more change at once they are counted, not named.
const MOST_NAMED: usize = 20;
/// Changes kept at most.
const MOST_KEPT: usize = 1_000;

/// A change: when, on the run's clock, and in words.
pub type Change = (u64, String);

/// The thread that asks.
pub struct Watch {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Change>>,
}

impl Watch {
    /// Begins to ask one of these servers. Where they do not know the question, nothing is noted.
    pub fn begin(servers: Vec<SocketAddr>, clock: Clock) -> Watch {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || watch(&servers, clock, &stopped));
        Watch { stop, thread }
    }

    /// What has changed since it began.
    pub fn end(self) -> Vec<Change> {
        drop(self.stop);
        // Without this thread's word there are no events, and the figures are as good.
        self.thread.join().unwrap_or_default()
    }
}

fn watch(servers: &[SocketAddr], clock: Clock, stopped: &mpsc::Receiver<()>) -> Vec<Change> {
    let mut leaders = Leaders::default();
    let mut changes = Vec::new();
    let mut connection: Option<TcpStream> = None;
    for turn in 0_usize.. {
        let asked = clock.now();
        let stream = match connection.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect_timeout(&servers[turn % servers.len()], PATIENCE),
        };
        match stream.and_then(|mut stream| ask(&mut stream).map(|answer| (stream, answer))) {
            Ok((stream, Some(status))) => {
                connection = Some(stream);
                let now = clock.now();
                changes.extend(leaders.note(leaders_in(&status)).into_iter().map(|change| (now, change)));
                changes.truncate(MOST_KEPT);
            }
            Ok((_, None)) => return changes,
            Err(_) => {}
        }
        let taken = Duration::from_nanos(clock.now().saturating_sub(asked));
        // When a server has gone, the next one is asked soon: this is just when something changes.
        let pause = if connection.is_some() { INTERVAL.max(taken * SPARING) } else { SOON };
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
    }
    changes
}

/// The status; `None` if the server does not know the question.
fn ask(stream: &mut TcpStream) -> io::Result<Option<Value>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"*2\r\n$6\r\nSTATUS\r\n$4\r\nJSON\r\n")?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match scan(&bytes) {
            Scanned::Reply(Reply::Bulk(text), _) => return Ok(serde_json::from_slice(text).ok()),
            Scanned::Reply(..) | Scanned::Malformed => return Ok(None),
            Scanned::Incomplete if bytes.len() > MOST_BYTES => return Ok(None),
            Scanned::Incomplete => {}
        }
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The leader of each group, as far as there is one.
fn leaders_in(status: &Value) -> BTreeMap<u64, Option<u64>> {
    let groups = status["groups"].as_array().map_or(&[][..], Vec::as_slice);
    groups.iter().filter_map(|group| Some((group["group"].as_u64()?, group["leader"].as_u64()))).collect()
}

/// Who led when it was last asked.
#[derive(Debug, Default)]
struct Leaders(Option<BTreeMap<u64, Option<u64>>>);

impl Leaders {
    /// What has changed, in words. A group that was not known before has not changed.
    fn note(&mut self, now: BTreeMap<u64, Option<u64>>) -> Vec<String> {
        let before = self.0.replace(now.clone()).unwrap_or_default();
        let name = |leader: Option<u64>| leader.map_or("none".to_owned(), |node| node.to_string());
        let changed: Vec<(u64, Option<u64>, Option<u64>)> = now
            .into_iter()
            .filter_map(|(group, leader)| Some((group, *before.get(&group)?, leader)))
            .filter(|(_, before, leader)| before != leader)
            .collect();
        if changed.len() > MOST_NAMED {
            return vec![format!("{} groups changed leader", changed.len())];
        }
        let told = |(group, before, leader)| format!("group {group}: {} → {}", name(before), name(leader));
        changed.into_iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(leaders: &[(u64, Value)]) -> BTreeMap<u64, Option<u64>> {
        let groups: Vec<Value> = leaders
            .iter()
            .map(
                |(group, leader)| serde_json::json!({ "group": group, "leader": leader, "role": "follower" }),
            )
            .collect();
        leaders_in(&serde_json::json!({ "groups": groups }))
    }

    #[test]
    fn changes_are_named_with_both_leaders() {
        let mut leaders = Leaders::default();
        assert!(
            leaders.note(status(&[(0, 1.into()), (5, 1.into())])).is_empty(),
            "the first answer is no change"
        );
        assert!(leaders.note(status(&[(0, 1.into()), (5, 1.into()), (6, 3.into())])).is_empty());
        assert_eq!(leaders.note(status(&[(0, 1.into()), (5, Value::Null)])), ["group 5: 1 → none"]);
        assert_eq!(
            leaders.note(status(&[(0, 3.into()), (5, 2.into())])),
            ["group 0: 1 → 3", "group 5: none → 2"]
        );
    }

    #[test]
    fn many_changes_at_once_are_counted() {
        let of = |leader: u64| status(&(0..37).map(|group| (group, leader.into())).collect::<Vec<_>>());
        let mut leaders = Leaders::default();
        leaders.note(of(1));
        assert_eq!(leaders.note(of(2)), ["37 groups changed leader"]);
    }

    #[test]
    fn a_status_of_another_form_has_no_leaders() {
        assert!(leaders_in(&serde_json::json!({ "groups": 7 })).is_empty());
        assert!(leaders_in(&serde_json::json!([1])).is_empty());
    }
}
