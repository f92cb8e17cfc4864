//! The screen on a terminal: looks at the cluster, keys, frames.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use crossterm::event::{self, Event, KeyEventKind};
use parking_lot::Mutex;

use super::terminal::Terminal;
use super::{Pressed, Screen};
use crate::cli::status::look;
use crate::client::Options;
use crate::client::overview::Overview;
use crate::demo::interrupt::Interrupt;

/// How soon a signal, a look or something that was done shows.
const SOON: Duration = Duration::from_millis(50);

/// Where the nodes are asked; whoever has it may change it.
pub(crate) type Source = Arc<Mutex<Vec<String>>>;

/// A thread that looks at the cluster again and again. It ends when this is dropped.
pub(crate) struct Looker {
    looks: Receiver<Result<Overview, String>>,
    nudge: Sender<()>,
}

impl Looker {
    /// Looks every `every`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(source: Source, options: Options, every: Duration) -> io::Result<Looker> {
        let (sender, looks) = bounded(1);
        let (nudge, nudges) = bounded(1);
        thread::Builder::new().name("looks".to_owned()).spawn(move || {
            loop {
                let begun = Instant::now();
                let addresses = source.lock().clone();
                let seen = look(&addresses, &options).map_err(|error| error.to_string());
                if sender.send(seen).is_err() {
                    return;
                }
                match nudges.recv_timeout(every.saturating_sub(begun.elapsed())) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Looker { looks, nudge })
    }

    /// Something has been done: the next look is due.
    pub fn hurry(&self) {
        // One that waits already is enough.
        let _ = self.nudge.try_send(());
    }
}

/// A screen on the terminal.
pub(crate) struct Live {
    terminal: Terminal,
    begun: Instant,
}

impl Live {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be taken; it then is as it was.
    pub fn open() -> io::Result<Live> {
        Ok(Live { terminal: Terminal::open()?, begun: Instant::now() })
    }

    /// Shows the screen until somebody wants an end. `letter` is told of the keys that the screen itself has no
    /// meaning for, and `step` is called often: what it does shows when it says so.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn run(
        mut self,
        screen: &mut Screen,
        looker: &Looker,
        interrupt: &Interrupt,
        mut letter: impl FnMut(&mut Screen, char),
        mut step: impl FnMut(&mut Screen) -> bool,
    ) -> io::Result<()> {
        let mut changed = true;
        loop {
            let now = self.begun.elapsed();
            match looker.looks.try_recv() {
                Ok(seen) => {
                    screen.look(now, seen);
                    changed = true;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => changed |= screen.tick(now),
            }
            changed |= step(screen);
            if interrupt.wait(Duration::ZERO) {
                return Ok(());
            }
            if std::mem::take(&mut changed) {
                self.terminal.draw(|buffer, area| screen.draw(buffer, area))?;
            }
            // Whatever has been typed, one frame shows all of it.
            let mut wait = SOON;
            while event::poll(wait)? {
                wait = Duration::ZERO;
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => match screen.key(key) {
                        Pressed::Quit => return Ok(()),
                        Pressed::Nothing => {}
                        Pressed::Changed => changed = true,
                        Pressed::Redraw => {
                            self.terminal.forget()?;
                            changed = true;
                        }
                        Pressed::Letter(key) => {
                            // Tests see with it that the terminal is given back.
                            #[cfg(debug_assertions)]
                            if key == '!'
                                && std::env::var("PELAGO_TEST_PANIC").is_ok_and(|what| what == "screen")
                            {
                                panic!("as a test wants it");
                            }
                            letter(screen, key);
                            looker.hurry();
                            changed = true;
                        }
                    },
                    Event::Resize(..) => changed = true,
                    _ => {}
                }
            }
        }
    }
}
