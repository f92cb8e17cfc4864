//! When to dial again, and where a host name leads.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::{Resolved, Shared};

/// Addresses of one name that are tried; a name server's answer has no limit of its own.
const MAX_ADDRESSES: usize = 16;

/// Look-ups that wait, more than the links of a large cluster: peers come and go while the loop
/// runs. A dial beyond it fails and is tried again.
const MAX_QUESTIONS: usize = 1024;

/// xorshift64*: jitter needs no better randomness, and a bad seed costs nothing but jitter.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new() -> Jitter {
        Jitter(RandomState::new().build_hasher().finish() | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// The pause before dial number `attempt` (from 0) of a row of failures: `min * 2^attempt`,
    /// at most `max`, of which a random share of up to a half is left out so that nodes that
    /// failed together do not come back together.
    pub(crate) fn backoff(&mut self, attempt: u32, min: Duration, max: Duration) -> Duration {
        let full = min.saturating_mul(1 << attempt.min(20)).min(max);
        let micros = u64::try_from(full.as_micros()).unwrap_or(u64::MAX).max(2);
        full.saturating_sub(Duration::from_micros(self.next() % (micros / 2)))
    }
}

struct Question {
    link: usize,
    dial: usize,
    address: String,
}

/// Looks names up on a thread of its own: a name server may take seconds, the loop may not.
#[derive(Debug)]
pub(crate) struct Resolver {
    questions: Sender<Question>,
}

impl Resolver {
    /// A resolver. Its thread ends when it is dropped, or after the look-up it is then in.
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Resolver> {
        let (questions, inbox) = bounded::<Question>(MAX_QUESTIONS);
        std::thread::Builder::new().name("netio-resolve".to_owned()).spawn(move || {
            for Question { link, dial, address } in inbox {
                let addresses = address.to_socket_addrs().map(|all| all.take(MAX_ADDRESSES).collect());
                shared.note(|notes| notes.resolved.push(Resolved { link, dial, addresses }));
            }
        })?;
        Ok(Resolver { questions })
    }

    /// Asks; the answer comes as a note. `false` when too many questions wait already.
    pub(crate) fn ask(&self, link: usize, dial: usize, address: &str) -> bool {
        let question = Question { link, dial, address: address.to_owned() };
        !matches!(self.questions.try_send(question), Err(TrySendError::Full(_)))
    }
}

/// The address itself, when it needs no look-up.
pub(crate) fn numeric(address: &str) -> Option<SocketAddr> {
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_within_its_bounds_and_varies() {
        let (min, max) = (Duration::from_millis(20), Duration::from_secs(1));
        let mut jitter = Jitter::new();
        for attempt in 0..40 {
            let full = (min * 2u32.pow(attempt.min(10))).min(max);
            for _ in 0..50 {
                let pause = jitter.backoff(attempt, min, max);
                assert!(pause <= full && pause >= full / 2, "attempt {attempt}: {pause:?} of {full:?}");
            }
        }
        let some: Vec<Duration> = (0..8).map(|_| jitter.backoff(9, min, max)).collect();
        assert!(some.windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {some:?}");
    }
}
