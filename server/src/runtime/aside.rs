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

/// Puts the log and the mirror aside. Returns what to tell an operator.
///
/// # Errors
/// As [`log`].
pub fn log_and_mirror(directory: &Path) -> io::Result<String> {
    put(directory, &[MIRROR, LOG])
}

/// Puts everything aside. Returns what to tell an operator.
///
/// # Errors
/// As [`log`].
pub fn everything(directory: &Path) -> io::Result<String> {
    // The manifest last: as long as it is there, the next start leads here again.
    put(directory, &[LOG, MIRROR, memory::FILE, manifest::FILE])
}

fn put(directory: &Path, names: &[&str]) -> io::Result<String> {
    let aside = directory.join(ASIDE);
    fs::create_dir_all(&aside)?;
    for name in names {
        let (from, to) = (directory.join(name), aside.join(name));
        if !from.try_exists()? {
            continue;
        }
        if from.is_dir() && is_empty(&from)? {
            // A start that died on the way has left this: it takes no older one's place.
            fs::remove_dir_all(&from)?;
            continue;
        }
        // An earlier one of this name goes only when another takes its place: disk use stays bounded.
        if to.is_dir() {
            fs::remove_dir_all(&to)?;
        } else if to.try_exists()? {
            fs::remove_file(&to)?;
        }
        fs::rename(&from, &to)?;
    }
    sync_dir(&aside)?;
    sync_dir(directory)?;
    Ok(format!(
        "What was there is now in {}. The node goes on as a new disk: it fetches everything from its peers and \
         votes in each group once the group has taken it in. Check the disk",
        aside.display()
    ))
}

/// Whether a folder holds nothing but empty files, such as a lock.
fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() || entry.metadata()?.len() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_is_there_and_the_next_takes_its_place() {
        let dir = std::env::temp_dir().join(format!("pelago-aside-{}", std::process::id()));
        let log_of = |words: &str| {
            fs::create_dir_all(dir.join(LOG)).unwrap();
            fs::write(dir.join(LOG).join("segment"), words).unwrap();
        };
        let kept = || fs::read_to_string(dir.join(ASIDE).join(LOG).join("segment")).unwrap();
        log_of("first");
        assert!(is_left_behind(&dir).unwrap(), "a log without a manifest");
        assert!(dir.join(LOG).exists(), "looking moves nothing");
        everything(&dir).unwrap();
        assert!(kept() == "first" && !dir.join(LOG).exists());
        assert!(is_left_behind(&dir).unwrap(), "it is not taken for an empty one later");

        // A start that dies between the steps leaves an empty log behind.
        fs::write(dir.join(manifest::FILE), "damaged").unwrap();
        assert!(!is_left_behind(&dir).unwrap());
        fs::create_dir_all(dir.join(LOG)).unwrap();
        fs::write(dir.join(LOG).join("LOCK"), "").unwrap();
        log(&dir).unwrap();
        assert_eq!(kept(), "first", "the only copy of the old log stays");

        log_of("second");
        fs::create_dir_all(dir.join(MIRROR)).unwrap();
        fs::write(dir.join(MIRROR).join("table"), "state").unwrap();
        log_and_mirror(&dir).unwrap();
        assert_eq!(kept(), "second");
        assert!(
            dir.join(ASIDE).join(MIRROR).join("table").exists(),
            "the mirror was put there in the same step"
        );
        let told = everything(&dir).unwrap();
        assert!(told.contains("aside") && dir.join(ASIDE).join(manifest::FILE).exists());
        assert_eq!(kept(), "second", "what has another name stays");
        fs::remove_dir_all(&dir).unwrap();
    }
}
