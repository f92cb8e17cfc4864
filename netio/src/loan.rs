//! The loop on another thread.
//!
//! A thread that does everything else for a node, and has an event loop of its own, may run the network's turns as
//! well: what arrives is then where it is needed without a thread being woken for it, which on few cores
//! is a large part of what a message costs. It borrows the loop from the network thread, which sleeps meanwhile and goes on
//! when it comes back.
//!
//! ```text
//! let mut loan = thread.lend()?;
//! loop {
//!     let due = loan.turn();                   // never waits
//!     wait until loan.as_raw_fd() is readable, or `due`
//! }
//! ```

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::Shared;
use crate::driver::Driver;

/// Where the loop lives: the network thread's end.
pub(crate) struct Home {
    shared: Arc<Shared>,
    out: Sender<Driver>,
    back: Receiver<Driver>,
}

/// The end of those who borrow.
pub(crate) struct Lender {
    shared: Arc<Shared>,
    out: Receiver<Driver>,
    back: Sender<Driver>,
}

/// Both ends of where a loop changes hands.
pub(crate) fn exchange(shared: Arc<Shared>) -> (Home, Lender) {
    let (out, lent) = bounded(1);
    let (back, returned) = bounded(1);
    (Home { shared: shared.clone(), out, back: returned }, Lender { shared, out: lent, back })
}

impl Home {
    /// Runs the loop whenever nobody has borrowed it, until it has been stopped.
    pub(crate) fn keep(self, mut driver: Driver) {
        while !driver.run() {
            self.shared.wanted.store(false, Ordering::SeqCst);
            if self.out.send(driver).is_err() {
                return;
            }
            match self.back.recv() {
                Ok(returned) => driver = returned,
                Err(_) => return,
            }
        }
    }
}

impl Lender {
    pub(crate) fn lend(&self) -> Option<Loan> {
        self.shared.wanted.store(true, Ordering::SeqCst);
        self.shared.wake();
        // It comes behind the present turn, or when whoever has it gives it back.
        let driver = self.out.recv().ok()?;
        Some(Loan { driver: Some(driver), back: self.back.clone() })
    }
}

/// The borrowed loop. It goes home when this is dropped.
pub struct Loan {
    /// There until it goes home.
    driver: Option<Driver>,
    back: Sender<Driver>,
}

impl Loan {
    /// Does what there is to do, without waiting. The next turn is due when the descriptor becomes readable
    /// after the beginning of this one, and at the returned time at the latest, which may have come already.
    pub fn turn(&mut self) -> Instant {
        let driver = self.driver();
        if driver.turn(Duration::ZERO) {
            return Instant::now();
        }
        Instant::now() + driver.announce_sleep()
    }

    fn driver(&mut self) -> &mut Driver {
        match &mut self.driver {
            Some(driver) => driver,
            None => unreachable!("the loop goes home only when the loan is dropped"),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            // The network thread waits for it; there is room for the one loop that there is.
            let _ = self.back.try_send(driver);
        }
    }
}

impl AsRawFd for Loan {
    fn as_raw_fd(&self) -> RawFd {
        match &self.driver {
            Some(driver) => driver.as_raw_fd(),
            None => unreachable!("the loop goes home only when the loan is dropped"),
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loan")
    }
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lender")
    }
}
