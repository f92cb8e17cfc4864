//! What the `fuzz_entry` tests of all crates share: they drive the entry points of the fuzz
//! targets on stable Rust, a few seconds each.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

/// Counts what a thread holds, so that a length taken from the input and believed is seen.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(by: isize) {
    // A thread that ends frees memory after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An entry point and the memory that it may take: so much, and so many times its input.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub base: usize,
    pub times: usize,
}

impl Entry {
    /// Runs it once.
    pub fn check(&self, data: &[u8]) {
        let before = HELD.get();
        PEAK.set(before);
        (self.run)(data);
        let taken = PEAK.get() - before;
        let most = self.base + self.times * data.len();
        assert!(taken <= most as isize, "{}: {taken} bytes taken for {} of input", self.name, data.len());
    }

    /// The committed seeds of its target.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.directory())
            .expect("every target has seeds")
            .map(|entry| entry.expect("a file").path())
            .collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).expect("a readable seed")).collect()
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds")).join(self.name)
    }

    /// Seeds, every one of their beginnings, random bytes, and damaged seeds.
    pub fn drive(&self, cases: u32) {
        let seeds = self.seeds();
        for seed in &seeds {
            (0..=seed.len().min(512)).for_each(|cut| self.check(&seed[..cut]));
            self.check(seed);
        }
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let random = prop::collection::vec(any::<u8>(), 0..400);
        let inputs = prop_oneof![1 => random, 3 => damaged(seeds)];
        let outcome = proptest::test_runner::TestRunner::new(config).run(&inputs, |data| {
            self.check(&data);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{}: {error}", self.name);
        }
    }

    /// Writes seeds for the target beside those that are there.
    #[allow(dead_code, reason = "not every crate makes its seeds by program")]
    pub fn write_seeds(&self, seeds: &[Vec<u8>]) {
        fs::create_dir_all(self.directory()).expect("a writable directory");
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(self.directory().join(format!("valid-{n:02}")), seed).expect("a writable seed");
        }
    }
}

/// One of `seeds` with a few changes, or two of them grown together.
fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<u8>(), any::<prop::sample::Index>(), any::<u8>(), 0..64usize);
    let one = prop::sample::select(seeds);
    (one.clone(), one, prop::collection::vec(change, 1..5)).prop_map(|(mut bytes, other, changes)| {
        for (what, at, byte, length) in changes {
            damage(&mut bytes, &other, what, at, byte, length);
        }
        bytes
    })
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], what: u8, at: prop::sample::Index, byte: u8, length: usize) {
    const HURTING: [u32; 6] = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
    let start = at.index(bytes.len() + 1);
    let end = (start + length).min(bytes.len());
    match what % 8 {
        0 => bytes.truncate(start),
        1 => drop(bytes.drain(start..end)),
        2 => bytes.splice(start..start, std::iter::repeat_n(byte, length)).for_each(drop),
        3 => {
            let again = bytes[start..end].to_vec();
            bytes.splice(start..start, again).for_each(drop);
        }
        4 => {
            bytes.truncate(start);
            bytes.extend_from_slice(&other[at.index(other.len() + 1)..]);
        }
        5 => {
            let number = HURTING[usize::from(byte) % HURTING.len()].to_le_bytes();
            bytes[start..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
        }
        6 => bytes.iter_mut().skip(start).take(1).for_each(|old| *old = byte),
        _ => bytes.iter_mut().skip(start).take(1).for_each(|old| *old ^= 1 << (byte % 8)),
    }
}
