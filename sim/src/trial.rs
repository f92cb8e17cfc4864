//! One run of a plan on a thread of its own, with a planted bug if one is asked for.
//!
//! The thread is there for the assertions of the product: under `panic = "abort"` nothing comes back
//! from them, but a panic hook may wait for ever. So the hook hands out the story so far and parks
//! the thread, with the run that it holds, and a product that stops itself is a failure like others.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::mpsc::{Sender, channel};

use groups::planted::Bug;

use crate::plan::Plan;
use crate::story;
use crate::world::{Failure, Report, World};

/// How a run ended.
#[derive(Debug)]
pub struct Trial {
    /// Well, or how not.
    pub result: Result<Report, Failure>,
    /// Hash over all events up to the end or the failure.
    pub hash: u64,
}

thread_local! {
    /// Who waits for the run of this thread.
    static WAITS: RefCell<Option<Sender<Trial>>> = const { RefCell::new(None) };
}

/// Whether bugs can be planted in this program.
pub const CAN_PLANT: bool = cfg!(feature = "planted");

/// Runs a plan, `aloud` with its story in words.
///
/// # Panics
/// When no thread can be started.
#[must_use]
pub fn run(plan: Plan, plant: Option<Bug>, aloud: bool) -> Trial {
    catch_panics();
    let (ended, waits) = channel();
    let run = move || {
        #[cfg(feature = "planted")]
        groups::planted::plant(plant);
        let _ = plant;
        WAITS.set(Some(ended.clone()));
        let world = if aloud { World::aloud(plan) } else { World::new(plan) };
        let result = world.run();
        let _ = ended.send(Trial { result, hash: story::hash() });
        WAITS.set(None);
    };
    std::thread::Builder::new().name("world".into()).spawn(run).expect("a thread");
    waits.recv().expect("a run ends with a trial, even by a panic")
}

fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let Some(waits) = WAITS.take() else { return before(info) };
            let what = info.payload_as_str().unwrap_or("a panic");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let what = format!("the program stopped itself: {what} ({place})");
            let failure = Failure { what, story: story::told() };
            let _ = waits.send(Trial { result: Err(failure), hash: story::hash() });
            loop {
                std::thread::park();
            }
        }));
    });
}
