//! What helps at the prompt: completion, hints, and lines that go on.

use std::borrow::Cow;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::syntax;

/// It.
pub struct Aid {
    /// Whether the terminal may show hints in grey; else there are none, for they would look typed.
    grey: bool,
}

impl Aid {
    pub fn new(grey: bool) -> Aid {
        Aid { grey }
    }
}

/// Is shown, and never taken over into the line.
pub struct Shown(String);

impl Hint for Shown {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Aid {
    type Hint = Shown;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Shown> {
        if !self.grey || pos < line.len() {
            return None;
        }
        syntax::hint(line).map(Shown)
    }
}

impl Completer for Aid {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let (start, mut found) = syntax::completions(line.get(..pos).unwrap_or(line));
        if let [only] = &mut found[..] {
            only.push(' ');
        }
        Ok((start, found))
    }
}

impl Highlighter for Aid {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

impl Validator for Aid {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_open(context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Helper for Aid {}

/// Whether a quote is not closed yet: what is typed next belongs to the same word.
fn is_open(line: &str) -> bool {
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
    }
    quote.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_open_goes_on() {
        for (line, open) in [
            ("", false),
            ("GET k", false),
            ("SET k \"a", true),
            ("SET k \"a\nb\"", false),
            ("SET k 'it\\'s", true),
            ("SET k 'it\\'s'", false),
            ("SET k \"a\\\"", true),
            ("SET k \"it's\"", false),
        ] {
            assert_eq!(is_open(line), open, "{line}");
        }
    }
}
