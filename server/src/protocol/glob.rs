//! Glob patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^a]`, `\` before a special byte.

/// Whether the whole of `text` matches `pattern`, bytes compared without regard to ASCII case
/// if `fold` is set.
///
/// Takes at most `pattern.len() * text.len()` steps: only the latest `*` is ever retried,
/// so no pattern can make it exponential.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], fold: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(&pattern[p..], text[t], fold) {
            p += next;
            t += 1;
            continue;
        }
        match retry {
            Some((after_star, from)) => {
                retry = Some((after_star, from + 1));
                p = after_star;
                t = from + 1;
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How many bytes of `pattern` stand for themselves before the first that may match others.
#[must_use]
pub fn literal_prefix(pattern: &[u8]) -> usize {
    pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len())
}

/// The length of the pattern element that matches `byte`, if the first element does.
fn one(pattern: &[u8], byte: u8, fold: bool) -> Option<usize> {
    let same = |a: u8, b: u8| if fold { a.eq_ignore_ascii_case(&b) } else { a == b };
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref rest @ ..] => {
            let (matched, length) = class(rest, byte, fold);
            matched.then_some(length + 1)
        }
        [b'\\', escaped, ..] => same(escaped, byte).then_some(2),
        [plain, ..] => same(plain, byte).then_some(1),
    }
}

/// Matches `byte` against the class behind a `[`; also its length, the `]` included. A class
/// that is never closed ends with the pattern.
fn class(pattern: &[u8], byte: u8, fold: bool) -> (bool, usize) {
    let lower = |byte: u8| if fold { byte.to_ascii_lowercase() } else { byte };
    let byte = lower(byte);
    let negated = pattern.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= lower(escaped) == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (lower(low.min(high)), lower(low.max(high)));
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                found |= lower(plain) == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn as_redis_does() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxbxx", false),
            ("[abc", "a", true),
            ("a\\", "a\\", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), false), expected, "{pattern} {text}");
        }
        assert!(matches(b"MAX[A-M]*", b"maxmemory", true));
        assert!(!matches(b"MAX*", b"maxmemory", false));
    }
}
