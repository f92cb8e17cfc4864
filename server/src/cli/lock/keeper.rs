//! Keeping a lock alive beside the command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::hold::{Hold, Renewed, now};
use super::say;
use crate::cli::Failure;

/// Between attempts to renew a lock while none succeeds.
const RETRY: Duration = Duration::from_millis(100);

/// What the thread that renews tells the one that looks after the command.
#[derive(Debug, Default)]
struct Word {
    /// Until when the lock counts as held, nanoseconds since the machine was started.
    counts_until: AtomicU64,
    /// The cluster has said that it is not.
    gone: AtomicBool,
}

/// A thread that renews a lock until it is told to give it back.
#[derive(Debug)]
pub struct Keeper {
    word: Arc<Word>,
    stop: Sender<()>,
    thread: JoinHandle<Renewed>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(mut hold: Hold) -> Result<Keeper, Failure> {
        let word = Arc::new(Word::default());
        word.note(hold.counts_until());
        let (stop, stopped) = bounded(1);
        let theirs = Arc::clone(&word);
        let body = move || {
            let mut pause = hold.ttl() / 4;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = match hold.renew() {
                    Renewed::Yes => {
                        theirs.note(hold.counts_until());
                        hold.ttl() / 4
                    }
                    Renewed::Lost => {
                        theirs.gone.store(true, Ordering::Release);
                        // There is nothing to renew any more, nor to give back.
                        let _ = stopped.recv();
                        return Renewed::Lost;
                    }
                    Renewed::Unknown(why) => {
                        say(&format!("the lock could not be renewed: {why}"));
                        RETRY
                    }
                };
            }
            hold.release()
        };
        let thread = std::thread::Builder::new()
            .name("lock".to_owned())
            .spawn(body)
            .map_err(|e| Failure::error(format!("could not start a thread: {e}. The command was not run")))?;
        Ok(Keeper { word, stop, thread })
    }

    /// Whether the lock does not count as held any more.
    pub fn is_lost(&self) -> bool {
        self.word.gone.load(Ordering::Acquire) || self.word.is_over()
    }

    /// Gives the lock back. Says why, if it was lost before.
    pub fn end(self) -> Option<String> {
        // The thread may have ended already.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(Renewed::Yes) => None,
            Ok(Renewed::Lost) => {
                Some("its time was over before it was renewed, or somebody took it away".to_owned())
            }
            Ok(Renewed::Unknown(why)) => {
                if self.word.is_over() {
                    return Some(format!("it could not be renewed: {why}"));
                }
                say(&format!("the lock could not be given back: {why}; it is free when its time is over"));
                None
            }
            Err(_) => Some("the thread that renewed it has failed".to_owned()),
        }
    }
}

impl Word {
    fn note(&self, until: Duration) {
        self.counts_until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether the time has come up to which the lock counted as held.
    fn is_over(&self) -> bool {
        now() >= Duration::from_nanos(self.counts_until.load(Ordering::Acquire))
    }
}
