//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// Inside the file; both count from 1, columns in characters.
    At {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// On the command line, as it was written behind `--set`.
    Override(String),
}

/// One mistake, or one warning: what is wrong, what was meant, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as it was given.
    pub file: String,
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, message) = (&self.file, &self.message);
        match &self.place {
            Place::File => write!(f, "{file}: {message}"),
            Place::At { line, column } => write!(f, "{file}:{line}:{column}: {message}"),
            Place::Override(text) => write!(f, "--set {text}: {message}"),
        }
    }
}

/// Every mistake of a configuration, in the order of the file, overrides last. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The mistakes.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    /// One line each, without a line end behind the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Turns byte offsets of a text into places.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Lines<'a> {
        let behind = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(behind).collect() }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place::At { line, column }
    }

    /// The line around `offset`, without its end.
    pub(super) fn around(&self, offset: usize) -> Range<usize> {
        let line = self.line(offset);
        let end = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        self.starts[line - 1]..end
    }

    /// Counts from 1.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }
}
