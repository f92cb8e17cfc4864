//! The pelago program. Everything is in the library, where tests reach it.

use std::process::ExitCode;

/// A seventh of what a put costs is the allocator: commands, messages and values are small, are made on one
/// thread and freed on another, and glibc's allocator gives memory back to the system between turns only to
/// ask for it again. See `docs/performance.md`.
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::cli::run(std::env::args_os())
}
