//! Engines panic on damaged files where they should return an error, and with `panic = "abort"`
//! that is the end of the process, again at every start.
//!
//! So every call into an engine is guarded. Where panics unwind, it becomes an error.
//! Where they abort, a panic hook leaves a mark in the store's directory first; a directory
//! whose engine panicked twice without a sync in between is refused at the next start, and the
//! caller rebuilds it. Once is not enough: a full disk makes engines panic too.
//!
//! A damaged length can also make an engine ask for more memory than there is, which ends the
//! process without any hook. So opening leaves a mark too, taken back when it returns; several
//! of them mean that it never did. Power that fails again and again in these milliseconds would
//! look the same, hence the larger number; and what is refused is moved aside, not deleted.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};

use super::error::EngineError;
use super::files::Files;
use crate::durably;

/// So many panics in a row, and the directory is not opened again.
const PANICS_REFUSED: usize = 2;

/// So many times in a row opening has not returned, and it is not tried again.
const DEATHS_REFUSED: usize = 5;

const MARK: &str = "panicked";
const OPENING: &str = "opening";

/// Sixteen lines with the longest of messages.
const MAX_MARK: usize = 1 << 20;

thread_local! {
    static INSIDE: RefCell<Option<Arc<Path>>> = const { RefCell::new(None) };
}

/// The stores open in this process: an engine's own threads are known by name only, so a panic
/// on one of them marks all of these.
static OPEN: Mutex<Vec<Arc<Path>>> = Mutex::new(Vec::new());

const ENGINE_THREADS: [&str; 2] = ["fjall:worker", "sled-io-"];

pub(super) struct Guard {
    files: Arc<dyn Files>,
    /// Where the panic hook leaves its mark; a simulated store has no place for one.
    dir: Option<Arc<Path>>,
}

impl Guard {
    /// Guards the engine beside `files`; `dir` is where they lie, if that is a real directory.
    pub(super) fn new(files: Arc<dyn Files>, dir: Option<&Path>) -> Guard {
        let dir: Option<Arc<Path>> = dir.map(Into::into);
        if let Some(dir) = &dir {
            install_hook();
            OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(dir.clone());
        }
        Guard { files, dir }
    }

    /// The reason, once the engine has died too often to try again.
    pub(super) fn refuses(&self) -> Option<String> {
        let deaths = self.deaths();
        if deaths >= DEATHS_REFUSED {
            return Some(format!("the process died {deaths} times while opening its engine"));
        }
        let marks = self.files.read(MARK, MAX_MARK).ok()??;
        let marks = String::from_utf8_lossy(&marks);
        let marks: Vec<&str> = marks.lines().collect();
        let last = marks.last()?;
        (marks.len() >= PANICS_REFUSED).then(|| format!("its engine panicked {} times: {last}", marks.len()))
    }

    /// As [`Guard::run`], for the call that opens the engine.
    pub(super) fn open<T>(&self, call: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        let deaths = vec![b'x'; self.deaths() + 1];
        self.files.replace(OPENING, &deaths).map_err(EngineError::Io)?;
        let result = self.run(call);
        // A mark that stays counts as a death that was none; the next opening takes it back.
        let _ = self.files.remove(OPENING);
        result
    }

    fn deaths(&self) -> usize {
        match self.files.read(OPENING, DEATHS_REFUSED) {
            Ok(mark) => mark.map_or(0, |mark| mark.len()),
            // Longer than any opening that was tried.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => DEATHS_REFUSED,
            Err(_) => 0,
        }
    }

    /// Forgets earlier panics: the engine has just proven itself.
    pub(super) fn clear(&self) {
        // A mark that stays costs a rebuild at worst.
        let _ = self.files.remove(MARK);
    }

    /// Runs a call into the engine; a panic becomes [`EngineError::Corrupt`].
    pub(super) fn run<T>(&self, call: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        let outer = INSIDE.with(|inside| inside.replace(self.dir.clone()));
        let result = panic::catch_unwind(AssertUnwindSafe(call));
        INSIDE.with(|inside| inside.replace(outer));
        result.unwrap_or_else(|payload| {
            let message = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(EngineError::Corrupt(format!("the engine panicked: {message}")))
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(own) = &self.dir else { return };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|dir| Arc::ptr_eq(dir, own)) {
            open.swap_remove(at);
        }
    }
}

fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let message = info.to_string().replace('\n', " ");
            for dir in concerned() {
                mark(&dir, &message);
            }
            earlier(info);
        }));
    });
}

fn concerned() -> Vec<Arc<Path>> {
    if let Ok(Some(dir)) = INSIDE.try_with(|inside| inside.try_borrow().ok().and_then(|dir| dir.clone())) {
        return vec![dir];
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    if ENGINE_THREADS.iter().any(|engine| name.starts_with(engine)) {
        // Never wait inside a panic: the lock's holder may be the one that panics.
        return OPEN.try_lock().map(|open| open.clone()).unwrap_or_default();
    }
    Vec::new()
}

fn mark(dir: &Path, message: &str) {
    let path = dir.join(MARK);
    let mut marks = fs::read_to_string(&path).unwrap_or_default();
    // Two lines decide; a directory that keeps panicking must not grow the file.
    if marks.lines().count() < 16 {
        marks.push_str(message);
        marks.push('\n');
    }
    // Nothing can be reported from inside a panic; without the mark the next start tries again.
    let _ = durably::replace(&path, marks.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::files::Directory;
    use super::*;

    fn guard_of(dir: &Path) -> Guard {
        Guard::new(Arc::new(Directory::open(dir).unwrap()), Some(dir))
    }

    #[test]
    fn openings_that_never_return_are_refused() {
        let dir = std::env::temp_dir().join(format!("pelago-opening-{}", std::process::id()));
        let guard = guard_of(&dir);
        for death in 0..DEATHS_REFUSED {
            assert_eq!(guard.refuses(), None, "after {death} deaths");
            // What a process that dies in there leaves behind.
            let died = guard.open(|| Ok(fs::read(dir.join(OPENING)).unwrap())).unwrap();
            fs::write(dir.join(OPENING), died).unwrap();
        }
        assert!(guard.refuses().is_some_and(|why| why.contains("5 times")));
        fs::write(dir.join(OPENING), "xx").unwrap();
        guard.open(|| Ok(())).unwrap();
        assert_eq!(guard.deaths(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn two_panics_in_a_row_are_refused_and_a_proof_clears_them() {
        let dir = std::env::temp_dir().join(format!("pelago-guard-{}", std::process::id()));
        let guard = guard_of(&dir);
        let failed = guard.run::<()>(|| panic!("first"));
        assert!(matches!(failed, Err(EngineError::Corrupt(why)) if why.contains("first")));
        assert_eq!(guard.refuses(), None);
        let _ = guard.run::<()>(|| panic!("second"));
        assert!(guard.refuses().is_some_and(|why| why.contains("second")));
        guard.clear();
        assert_eq!(guard.refuses(), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
