//! Ctrl-C and SIGTERM, for code that waits.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Failure;

/// Hears signals from its creation on. The process no longer dies of them.
#[derive(Debug)]
pub struct Interrupt {
    signals: Receiver<()>,
    heard: Cell<bool>,
}

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> Result<Interrupt, Failure> {
        let fail = |error: std::io::Error| Failure::error(format!("could not listen for Ctrl-C: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let guard = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        drop(guard);
        // One who presses Ctrl-C three times while nobody looks wants no more than twice.
        let (sender, signals) = bounded(2);
        let body = move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if sender.try_send(()).is_err_and(|error| error.is_disconnected()) {
                        return;
                    }
                }
            });
        };
        thread::Builder::new().name("signals".to_owned()).spawn(body).map_err(fail)?;
        Ok(Interrupt { signals, heard: Cell::new(false) })
    }

    /// Waits for that long, or until somebody wants an end. Says whether somebody does.
    pub fn wait(&self, time: Duration) -> bool {
        self.heard.get() || self.again(time)
    }

    /// The same for a further signal after one that was heard.
    pub fn again(&self, time: Duration) -> bool {
        match self.signals.recv_timeout(time) {
            Ok(()) => {
                self.heard.set(true);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(time);
                false
            }
        }
    }
}
