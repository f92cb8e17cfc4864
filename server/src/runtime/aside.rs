//! What a node does with a directory, or a log, that is no memory to vote with: it is put aside and
//! never deleted before another one is, so that an operator can still look at it.
//!
//! ```text
//! aside      the newest of them: NODE, PEERS, log, checkpoint, or some of these
//! ```

use std::fs;
use std::io;
use std::path::Path;

use checkpoint::durably::sync_dir;

use crate::node::{manifest, memory};

const ASIDE: &str = "aside";
const LOG: &str = "log";
const MIRROR: &str = "checkpoint";

/// Whether the directory has no manifest and is not empty either: it has lost its memory.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_left_behind(directory: &Path) -> io::Result<bool> {
    if directory.join(manifest::FILE).try_exists()? {
        return Ok(false);
    }
    for name in [ASIDE, LOG, MIRROR, memory::FILE] {
        if directory.join(name).try_exists()? {
            everything(directory)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts the log aside. Returns what to tell an operator.
///
/// # Errors
/// When the file system fails; then it is tried again at the next start.
pub fn log(directory: &Path) -> io::Result<String> {
    put(directory, &[LOG])
}

/// Puts the mirror aside.
///
/// # Errors
/// When the file system fails.
pub fn mirror(directory: &Path) -> io::Result<String> {
    put(directory, &[MIRROR])
}

/// Puts everything aside. Returns what to tell an operator.
///
/// # Errors
/// When the file system fails; then it is tried again at the next start.
pub fn everything(directory: &Path) -> io::Result<String> {
    // The manifest last: as long as it is there, the next start leads here again.
    put(directory, &[LOG, MIRROR, memory::FILE, manifest::FILE])
}

fn put(directory: &Path, names: &[&str]) -> io::Result<String> {
    let aside = directory.join(ASIDE);
    let there: Vec<&&str> = names.iter().filter(|name| directory.join(name).exists()).collect();
    // An earlier one goes only when another takes its place: disk use stays bounded.
    let fresh = there.iter().any(|name| aside.join(name).exists());
    if fresh {
        fs::remove_dir_all(&aside)?;
    }
    fs::create_dir_all(&aside)?;
    for name in there {
        fs::rename(directory.join(name), aside.join(name))?;
    }
    sync_dir(&aside)?;
    sync_dir(directory)?;
    Ok(format!(
        "What was there is now in {}. The node goes on as a new disk: it fetches everything from its peers and \
         votes in each group once the group has taken it in. Check the disk",
        aside.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_is_there_and_the_next_takes_its_place() {
        let dir = std::env::temp_dir().join(format!("pelago-aside-{}", std::process::id()));
        fs::create_dir_all(dir.join(LOG)).unwrap();
        assert!(is_left_behind(&dir).unwrap(), "a log without a manifest");
        assert!(dir.join(ASIDE).join(LOG).exists() && !dir.join(LOG).exists());
        assert!(is_left_behind(&dir).unwrap(), "it is not taken for an empty one later");
        fs::write(dir.join(manifest::FILE), "damaged").unwrap();
        assert!(!is_left_behind(&dir).unwrap());
        fs::create_dir_all(dir.join(LOG)).unwrap();
        fs::write(dir.join(LOG).join("second"), "").unwrap();
        log(&dir).unwrap();
        assert!(dir.join(ASIDE).join(LOG).join("second").exists());
        let told = everything(&dir).unwrap();
        assert!(told.contains("aside") && dir.join(ASIDE).join(manifest::FILE).exists());
        assert!(dir.join(ASIDE).join(LOG).exists(), "what has another name stays");
        fs::remove_dir_all(&dir).unwrap();
    }
}
