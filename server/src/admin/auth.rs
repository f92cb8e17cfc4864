//! Who may read the admin port: with `security.password` set, whoever knows it, by HTTP's own means.

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

/// Standard base64 (RFC 4648, section 4), with its padding or without. A header has at most 16 KiB.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut held, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (bits < 6 && held == 0).then_some(out)
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
