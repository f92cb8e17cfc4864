//! A fixed number of puts through three replicas, for counting instructions; see `scripts/instructions`.
//!
//! ```text
//! put_path PUTS BATCH DIRECTORY
//! ```
//! The puts come in batches of BATCH (1, 16 …), overwrite 10 000 keys of one group in turn, and pass
//! everything between a leader's submission and its answer: core, codec, log (written below DIRECTORY,
//! not synced), fold for the mirror. Everything before the first of them costs the same however many
//! follow, so the difference between two runs is the cost of puts alone.

use std::path::Path;

use groups::ids::GroupId;
use trio::Trio;

#[path = "../benches/trio/mod.rs"]
mod trio;

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 10_000;

const GROUP: GroupId = GroupId(0);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [puts, batch, dir] = &args[..] else { panic!("put_path PUTS BATCH DIRECTORY") };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (puts, batch) = (number(puts), number(batch));

    let commands: Vec<_> = (0..KEYS).map(trio::put).collect();
    let mut trio = Trio::whole(1, Path::new(dir));
    for chunk in commands.chunks(100) {
        trio.write(GROUP, chunk.iter().cloned());
    }
    let mut next = commands.iter().cycle();
    for _ in 0..puts.div_ceil(batch) {
        trio.write(GROUP, next.by_ref().take(batch).cloned());
    }
}
