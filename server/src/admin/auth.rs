//! Who may read the admin port: with `security.password` set, whoever knows it, by HTTP's own means.

use crate::base64::Alphabet;

/// Whether an `Authorization` header proves the password: `Basic` with any user name, or `Bearer`.
pub fn proves(header: Option<&[u8]>, password: &str) -> bool {
    let Some((scheme, rest)) =
        header.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| h.split_once(' '))
    else {
        return false;
    };
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return same(rest.as_bytes(), password.as_bytes());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let Some(pair) = base64(rest) else { return false };
    pair.iter()
        .position(|byte| *byte == b':')
        .is_some_and(|colon| same(&pair[colon + 1..], password.as_bytes()))
}

/// Compares in a time that depends on the lengths alone.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    given.len() == wanted.len() && given.iter().zip(wanted).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Standard base64 with its padding or without. A header has at most 16 KiB.
fn base64(text: &str) -> Option<Vec<u8>> {
    Alphabet::Standard.decode(text.trim_end_matches('=').as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg", "foob"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for text in ["Z", "Zh", "Zm9v!", "Zm 9v", "ö"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_password_opens() {
        // prometheus:open sesame
        let basic = "Basic cHJvbWV0aGV1czpvcGVuIHNlc2FtZQ==";
        for (header, open) in [
            (Some(basic), true),
            (Some("basic OnB3"), false),
            (Some("Bearer open sesame"), true),
            (Some("Bearer open sesamE"), false),
            (Some("Bearer "), false),
            (Some("Digest open sesame"), false),
            (Some("open sesame"), false),
            (None, false),
        ] {
            assert_eq!(proves(header.map(str::as_bytes), "open sesame"), open, "{header:?}");
        }
        assert!(proves(Some(b"Basic OmE6Yg=="), "a:b"), "a password may hold a colon, a user name none");
        assert!(!proves(Some(&[0xff, b' ', 0xff]), "a"));
    }
}
