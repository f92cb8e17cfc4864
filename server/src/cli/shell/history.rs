//! What was typed before, in a file that only its owner reads.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Lines that are kept.
pub const KEPT: usize = 1000;

/// A line that is longer is not kept.
const LONGEST: usize = 4096;

/// The file is written anew once it has so many lines.
const MOST: usize = 2 * KEPT;

/// The history.
#[derive(Debug, Default)]
pub struct History {
    /// `None` where nothing is kept.
    path: Option<PathBuf>,
    lines: VecDeque<String>,
    /// Lines in the file.
    written: usize,
}

impl History {
    /// The one of this user: in `XDG_STATE_HOME`, or `~/.local/state`.
    pub fn open() -> io::Result<History> {
        let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let state = set("XDG_STATE_HOME").map(PathBuf::from);
        let state = state.or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/state")));
        match state {
            Some(state) => History::at(&state.join("pelago")),
            None => Ok(History::none()),
        }
    }

    /// One that keeps nothing.
    pub fn none() -> History {
        History::default()
    }

    fn at(dir: &Path) -> io::Result<History> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join("history");
        let mut text = Vec::new();
        match OpenOptions::new().read(true).open(&path) {
            Ok(file) => {
                // One that somebody else made readable, or huge.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                let most = (MOST * LONGEST) as u64;
                file.take(most).read_to_end(&mut text)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let text = String::from_utf8_lossy(&text);
        let mut history = History { path: Some(path), ..History::default() };
        for line in text.lines() {
            history.written += 1;
            history.keep(line);
        }
        Ok(history)
    }

    /// From the oldest on.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    fn keep(&mut self, line: &str) {
        self.lines.push_back(line.to_owned());
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// Adds a line.
    pub fn add(&mut self, line: &str) -> io::Result<()> {
        self.keep(line);
        let Some(path) = &self.path else { return Ok(()) };
        if self.written < MOST {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            // One write: shells that run beside each other do not tear lines.
            file.write_all(format!("{line}\n").as_bytes())?;
            self.written += 1;
            return Ok(());
        }
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)?;
        self.written = self.lines.len();
        Ok(())
    }
}

/// Whether a line is kept: passwords are not, nor what begins with a blank, nor what is no line.
pub fn may_be_kept(line: &str) -> bool {
    let secret = line.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("auth"));
    !secret
        && !line.trim().is_empty()
        && !line.starts_with(' ')
        && !line.contains('\n')
        && line.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_its_owner_and_bounded() {
        let dir = std::env::temp_dir().join(format!("pelago-history-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let mut history = History::at(&dir).expect("a file");
        for n in 0..MOST + 10 {
            history.add(&format!("GET {n}")).expect("written");
        }
        let text = fs::read_to_string(dir.join("history")).expect("the file");
        assert!(text.lines().count() <= MOST, "{}", text.lines().count());
        fs::set_permissions(dir.join("history"), fs::Permissions::from_mode(0o644)).expect("changed");
        let again = History::at(&dir).expect("a file");
        let lines: Vec<&str> = again.lines().collect();
        assert_eq!((lines.len(), lines[KEPT - 1]), (KEPT, &format!("GET {}", MOST + 9)[..]));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&dir.join("history")), mode(&dir)), (0o600, 0o700));
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn passwords_are_not_kept() {
        for (line, kept) in [
            ("GET k", true),
            ("AUTH secret", false),
            ("hello 3 auth default secret", false),
            (" GET k", false),
            ("", false),
            ("SET k \"a\nb\"", false),
        ] {
            assert_eq!(may_be_kept(line), kept, "{line}");
        }
    }
}
