//! Many puts at a bounded pace: what `pelago load` and `pelago admin restore` write with.
//!
//! Puts are handed over in windows. A window is dealt out by key over a few connections, sent as
//! pipelines, and is over when every put has its answer: so what is in flight is bounded by the
//! window, and "everything up to here is written" is one number. All puts of one key go over one
//! connection, in order.
//!
//! What is not known to be applied is sent again: after `-TRYAGAIN`, `-CLUSTERDOWN`, `-BUSY` and
//! `-CORRUPT`, after `-INDOUBT`, and after a lost connection. A put without conditions may be applied twice.
//! From the first one of a pipeline on that has to be repeated all behind it are sent again, so
//! that the last put of a key stays the last.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::{Client, ClientError, Options};
use crate::protocol::{ErrorClass, ErrorReply, Reply};

/// One key that is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Milliseconds that it shall be there; `None` for good.
    pub life: Option<u64>,
}

/// Puts and bytes of one window, at most; one put in any case.
pub const WINDOW_PUTS: usize = 4096;
/// See [`WINDOW_PUTS`].
pub const WINDOW_BYTES: usize = 8 << 20;

/// Connections.
const LANES: usize = 4;

/// Puts and bytes of one pipeline.
const PIPELINE_PUTS: usize = 256;
const PIPELINE_BYTES: usize = 1 << 20;

/// Between two attempts: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a window was given up. Some of its puts may have been applied.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// Nothing was taken for so long.
    #[error("nothing was taken for {} s: {why}", .after.as_secs())]
    Stalled {
        /// The last that was said.
        why: String,
        /// How long.
        after: Duration,
    },
    /// The cluster takes no writes.
    #[error("{0}")]
    Refused(ErrorReply),
    /// The cluster cannot be talked to.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer that is none to a put.
    #[error("{0} answered a put with something else. Is it a Pelago node of this version?")]
    Strange(String),
}

/// Writes windows of puts.
#[derive(Debug)]
pub struct Bulk {
    lanes: Vec<Client>,
    patience: Duration,
    repeated: u64,
}

impl Bulk {
    /// Connects. A put that nobody takes is tried for `patience`.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect(addresses: &[String], options: &Options, patience: Duration) -> Result<Bulk, ClientError> {
        let mut lanes = Vec::with_capacity(LANES);
        for lane in 0..LANES {
            // Each begins at another node: all of them share the work.
            let mut addresses = addresses.to_vec();
            let by = lane % addresses.len().max(1);
            addresses.rotate_left(by);
            lanes.push(Client::connect(&addresses, options.clone())?);
        }
        Ok(Bulk { lanes, patience, repeated: 0 })
    }

    /// How many puts were sent again so far.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Writes a window. Returns the puts that were refused for what they are, by their place in
    /// it; all others are applied.
    ///
    /// # Errors
    /// When the rest could not be written; see [`BulkError`].
    pub fn write(&mut self, window: &[Put]) -> Result<BTreeMap<usize, ErrorReply>, BulkError> {
        let mut dealt: Vec<Vec<usize>> = vec![Vec::new(); self.lanes.len()];
        for (at, put) in window.iter().enumerate() {
            dealt[(xxh3_64(&put.key) % LANES as u64) as usize].push(at);
        }
        let patience = self.patience;
        let ends: Vec<Result<Written, BulkError>> = thread::scope(|scope| {
            let lanes = self.lanes.iter_mut().zip(dealt).filter(|(_, places)| !places.is_empty());
            let running: Vec<_> = lanes
                .map(|(client, places)| scope.spawn(move || lane(client, window, &places, patience)))
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let mut refused = BTreeMap::new();
        for end in ends {
            let written = end?;
            self.repeated += written.repeated;
            refused.extend(written.refused);
        }
        Ok(refused)
    }
}

#[derive(Default)]
struct Written {
    refused: BTreeMap<usize, ErrorReply>,
    repeated: u64,
}

/// Writes what falls to one connection, pipeline after pipeline.
fn lane(
    client: &mut Client,
    window: &[Put],
    places: &[usize],
    patience: Duration,
) -> Result<Written, BulkError> {
    let mut written = Written::default();
    let mut left = places;
    while !left.is_empty() {
        let mut bytes = 0;
        let count = left
            .iter()
            .take(PIPELINE_PUTS)
            .take_while(|at| {
                let first = bytes == 0;
                bytes += 64 + window[**at].key.len() + window[**at].value.len();
                first || bytes <= PIPELINE_BYTES
            })
            .count();
        let (pipeline, behind) = left.split_at(count);
        pipelined(client, window, pipeline, patience, &mut written)?;
        left = behind;
    }
    Ok(written)
}

fn pipelined(
    client: &mut Client,
    window: &[Put],
    mut places: &[usize],
    patience: Duration,
    written: &mut Written,
) -> Result<(), BulkError> {
    let mut moved = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let lives: Vec<Option<String>> =
            places.iter().map(|at| window[*at].life.map(|life| life.to_string())).collect();
        let commands: Vec<Vec<&[u8]>> =
            places.iter().zip(&lives).map(|(at, life)| words(&window[*at], life.as_deref())).collect();
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let why = match client.pipeline(&commands) {
            Ok(replies) => {
                let mut again = None;
                for (place, reply) in replies.into_iter().enumerate() {
                    match reply {
                        Reply::Simple(_) => {}
                        Reply::Error(error) if repeats(error.class()) => {
                            again = Some((place, error));
                            break;
                        }
                        Reply::Error(error) if stops(error.class()) => return Err(BulkError::Refused(error)),
                        Reply::Error(error) => {
                            written.refused.insert(places[place], error);
                        }
                        _ => return Err(BulkError::Strange(client.address())),
                    }
                }
                let Some((place, error)) = again else { return Ok(()) };
                if place > 0 {
                    places = &places[place..];
                    (moved, pause) = (Instant::now(), FIRST_PAUSE);
                }
                if !matches!(error.class(), ErrorClass::TryAgain | ErrorClass::InDoubt) {
                    client.go_elsewhere();
                }
                error.to_string()
            }
            Err(error @ (ClientError::InDoubt { .. } | ClientError::Unreachable(_))) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if moved.elapsed() >= patience {
            return Err(BulkError::Stalled { why, after: moved.elapsed() });
        }
        written.repeated += places.len() as u64;
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn words<'a>(put: &'a Put, life: Option<&'a str>) -> Vec<&'a [u8]> {
    let mut words: Vec<&[u8]> = vec![b"SET", &put.key, &put.value];
    if let Some(life) = life {
        words.extend([&b"PX"[..], life.as_bytes()]);
    }
    words
}

/// Sent again after an answer of this class.
fn repeats(class: ErrorClass) -> bool {
    use ErrorClass::{Busy, ClusterDown, Corrupt, InDoubt, TryAgain};
    matches!(class, TryAgain | ClusterDown | Busy | InDoubt | Corrupt)
}

/// It would be the answer to every other put, too.
fn stops(class: ErrorClass) -> bool {
    use ErrorClass::{NoAuth, NoPerm, ReadOnly};
    matches!(class, NoAuth | NoPerm | ReadOnly)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{Act, Fake};

    fn put(key: &str, value: &str, life: Option<u64>) -> Put {
        Put { key: key.into(), value: value.into(), life }
    }

    fn bulk(fake: &Fake, patience: Duration) -> Bulk {
        let client = Client::connect(std::slice::from_ref(&fake.address), Options::default());
        // One connection: the fake serves one after the other.
        Bulk { lanes: vec![client.expect("a connection")], patience, repeated: 0 }
    }

    /// All puts in the first lane, whatever their keys.
    fn write(bulk: &mut Bulk, window: &[Put]) -> Result<Written, BulkError> {
        let places: Vec<usize> = (0..window.len()).collect();
        let patience = bulk.patience;
        lane(&mut bulk.lanes[0], window, &places, patience)
    }

    #[test]
    fn repeats_from_the_first_that_was_not_taken_and_keeps_the_order() {
        let ok = Act::Say("+OK\r\n");
        let fake = Fake::start(&[
            ok,
            Act::Say("-TRYAGAIN group=1 moving\r\n"),
            ok,
            Act::Say("-INDOUBT group=1 what\r\n"),
            ok,
            ok,
            ok,
        ]);
        let mut bulk = bulk(&fake, Duration::from_secs(5));
        let window = [put("a", "1", None), put("b", "1", None), put("b", "2", Some(5))];
        let written = write(&mut bulk, &window).expect("written");
        assert!(written.refused.is_empty());
        assert_eq!(
            fake.seen(),
            [
                "SET a 1",
                "SET b 1",
                "SET b 2 PX 5", // b 2 may have overtaken b 1
                "SET b 1",
                "SET b 2 PX 5",
                "SET b 1",
                "SET b 2 PX 5",
            ]
        );
        assert_eq!(written.repeated, 4);
    }

    #[test]
    fn a_put_that_is_refused_for_what_it_is_does_not_hold_up_the_others() {
        let fake = Fake::start(&[Act::Say("-TOOBIG max=3\r\n"), Act::Say("+OK\r\n")]);
        let mut bulk = bulk(&fake, Duration::from_secs(5));
        let written = write(&mut bulk, &[put("a", "1234", None), put("b", "1", None)]).expect("written");
        let refused: Vec<_> = written.refused.iter().map(|(at, e)| (*at, e.class())).collect();
        assert_eq!(refused, [(0, ErrorClass::TooBig)]);
    }

    #[test]
    fn a_lost_connection_is_a_reason_to_send_again() {
        let fake = Fake::start(&[Act::Close, Act::Say("+OK\r\n")]);
        let mut bulk = bulk(&fake, Duration::from_secs(5));
        write(&mut bulk, &[put("a", "1", None)]).expect("written");
        assert_eq!(fake.seen(), ["SET a 1", "SET a 1"]);
    }

    #[test]
    fn gives_up_when_nothing_is_taken_and_at_what_would_refuse_everything() {
        let fake = Fake::start(&[Act::Say("-INDOUBT group=1 what\r\n"); 50]);
        let mut bulk_of = bulk(&fake, Duration::from_millis(50));
        let error = write(&mut bulk_of, &[put("a", "1", None)]).err().expect("an end");
        assert!(matches!(&error, BulkError::Stalled { why, .. } if why.contains("INDOUBT")), "{error}");
        let fake = Fake::start(&[Act::Say("-READONLY nospace x\r\n")]);
        let error = write(&mut bulk(&fake, Duration::from_secs(5)), &[put("a", "1", None)]).err();
        assert!(matches!(error, Some(BulkError::Refused(_))));
    }

    #[test]
    fn one_key_has_one_connection() {
        let fakes: Vec<Fake> = (0..LANES).map(|_| Fake::start(&[Act::Say("+OK\r\n"); 200])).collect();
        let lane = |fake: &Fake| {
            Client::connect(std::slice::from_ref(&fake.address), Options::default()).expect("a connection")
        };
        let lanes = fakes.iter().map(lane).collect();
        let mut bulk = Bulk { lanes, patience: Duration::from_secs(5), repeated: 0 };
        let window: Vec<Put> = (0..100).map(|n| put(&format!("k{}", n % 10), &n.to_string(), None)).collect();
        assert!(bulk.write(&window).expect("written").is_empty());
        let mut last = BTreeMap::new();
        for (lane, fake) in fakes.iter().enumerate() {
            for line in fake.seen() {
                let words: Vec<&str> = line.split(' ').collect();
                let value: u32 = words[2].parse().expect("a number");
                let before = last.insert(words[1].to_owned(), (lane, value));
                assert!(before.is_none_or(|(l, v)| l == lane && v < value), "{line}");
            }
        }
        assert_eq!(last.len(), 10);
        assert!(last.values().any(|(lane, _)| *lane != last["k0"].0), "all of them are used");
    }
}
