//! What the table of commands says about a line that is being typed.

use crate::protocol::table::{self, COMMANDS, CommandSpec};

/// Where the shell's own words are.
const OWN: [&str; 5] = [":help", ":pretty", ":quit", ":raw", ":status"];

/// Where the word under the cursor begins, and what it may become.
pub fn completions(line: &str) -> (usize, Vec<String>) {
    let start = line.rfind([' ', '\t', '\n']).map_or(0, |at| at + 1);
    let (before, word) = line.split_at(start);
    let words: Vec<&str> = before.split_ascii_whitespace().collect();
    // Quotes hold keys and values.
    if before.contains(['"', '\'']) || word.starts_with(['"', '\'']) {
        return (start, Vec::new());
    }
    let found: Vec<String> = match &words[..] {
        [] if word.starts_with(':') => OWN.iter().map(|own| (*own).to_owned()).collect(),
        [] => COMMANDS.iter().map(|spec| spec.name.to_owned()).collect(),
        [help] if help.eq_ignore_ascii_case("help") => {
            COMMANDS.iter().map(|spec| spec.name.to_owned()).collect()
        }
        [name, ..] => match table::find(name.as_bytes()) {
            None => Vec::new(),
            Some(spec) if words.len() == 1 && !spec.subcommands.is_empty() => {
                spec.subcommands.iter().map(|inner| inner.name.to_owned()).collect()
            }
            Some(spec) => match spec.subcommands.is_empty() {
                true => options(spec),
                false => words
                    .get(1)
                    .and_then(|second| spec.subcommand(second.as_bytes()))
                    .map_or_else(Vec::new, options),
            },
        },
    };
    // A key may be anything: an option is offered once somebody has begun to type it.
    let behind_keys = words.len() > 1;
    let mut found: Vec<String> = found
        .into_iter()
        .filter(|_| !(behind_keys && word.is_empty()))
        .filter(|name| name.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word)))
        .map(|name| match word.chars().any(char::is_lowercase) {
            true => name.to_lowercase(),
            false if name.starts_with(':') => name,
            false => name.to_uppercase(),
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    (start, found)
}

/// The words of a command's syntax that are typed as they are.
fn options(spec: &CommandSpec) -> Vec<String> {
    let words = spec.syntax.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let literal = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '-');
    words.filter(literal).map(str::to_owned).collect()
}

/// What is missing of the command, to be shown behind the cursor.
pub fn hint(line: &str) -> Option<String> {
    if line.contains(['"', '\'', '\n']) {
        return None;
    }
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let spec = table::find(words.first()?.as_bytes())?;
    let (spec, named) = match words.get(1).and_then(|word| spec.subcommand(word.as_bytes())) {
        Some(inner) => (inner, 2),
        None => (spec, 1),
    };
    let ended = line.ends_with([' ', '\t']);
    let given = words.len() - named;
    if !ended && given > 0 {
        return None;
    }
    let parts = parts(spec.syntax);
    let is_one = |part: &&str| !part.starts_with('[') && !part.ends_with("...");
    let missing: Vec<&str> = parts.iter().take(given).take_while(|part| is_one(part)).copied().collect();
    let left = &parts[missing.len()..];
    // Everything that must be there is; what may be there was begun.
    if left.is_empty() || (given > missing.len() && !left[0].starts_with('[')) {
        return None;
    }
    let blank = if ended { "" } else { " " };
    Some(format!("{blank}{}", left.join(" ")))
}

/// Words and bracketed groups of a syntax.
fn parts(syntax: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in syntax.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ' ' if depth == 0 => {
                parts.push(&syntax[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&syntax[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_subcommands_and_options_are_completed() {
        let all = |line: &str| completions(line).1;
        assert_eq!(all("getd"), ["getdel"]);
        assert_eq!(all("GETD"), ["GETDEL"]);
        assert!(all("").len() > 50);
        assert_eq!(all("help su"), ["subscribekv", "substr"]);
        assert_eq!(all("cluster key"), ["keyslot"]);
        assert!(all("CLUSTER ").contains(&"SLOTS".to_owned()));
        assert_eq!(all("PUT k v IFR"), ["IFREV"]);
        assert_eq!(all("put k v ke"), ["keepttl"]);
        assert_eq!(all(":st"), [":status"]);
        for nothing in ["PUT k v ", "PUT k \"a IF", "nonsense x", "PUT k 'N"] {
            assert!(all(nothing).is_empty(), "{nothing}");
        }
        assert_eq!(completions("PUT k v IFR").0, 8);
    }

    #[test]
    fn a_hint_says_what_is_missing() {
        for (line, missing) in [
            ("cas", Some(" key old new")),
            ("CAS ", Some("key old new")),
            ("CAS k ", Some("old new")),
            ("CAS k o", None),
            ("ttl k ", None),
            ("ttl", Some(" key")),
            ("CLUSTER KEYSLOT ", Some("key")),
            ("nonsense ", None),
            ("SET \"k\" ", None),
            ("", None),
        ] {
            let begin = hint(line).map(|hint| hint.split(" [").next().unwrap_or_default().to_owned());
            assert_eq!(begin.as_deref(), missing, "{line}");
        }
        assert!(hint("PUT k v ").is_some_and(|hint| hint.starts_with("[NX | XX")));
        assert!(hint("DEL a b ").is_some_and(|hint| hint.starts_with("[key ...]")));
    }

    #[test]
    fn every_syntax_can_be_hinted() {
        for spec in COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
            let brackets = |c| spec.syntax.matches(c).count();
            assert_eq!(brackets('['), brackets(']'), "{}", spec.name);
            assert_eq!(parts(spec.syntax).join(" "), spec.syntax, "{}", spec.name);
        }
    }
}
