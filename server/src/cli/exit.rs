//! How a command ends.

use std::io::{self, Write};
use std::process::ExitCode;

/// How a command ends when it does not end well: an exit code, and what to say on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// For the person who typed the command; nothing is printed when it is empty.
    pub message: String,
}

impl Failure {
    /// Exit code 1: there is no such key, or a condition did not hold, or a check failed.
    pub fn no(message: impl Into<String>) -> Failure {
        Failure { code: 1, message: message.into() }
    }

    /// Exit code 2: the command could not do its work.
    pub fn error(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into() }
    }

    /// Says it and becomes the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(io::stderr(), "pelago: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// Writes to stdout. A reader that has closed the pipe has seen enough: the command then ends
/// without a word.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure { code: 0, message: String::new() })
        }
        Err(error) => Err(Failure::error(format!("could not write to stdout: {error}"))),
    }
}
