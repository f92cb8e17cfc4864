//! Bytes as base64 with padding (RFC 4648, section 4), for what is no text in JSON.

use crate::base64::Alphabet;

/// The text of some bytes.
pub fn encode(bytes: &[u8]) -> String {
    let whole = bytes.len().div_ceil(3) * 4;
    let mut text = String::with_capacity(whole);
    Alphabet::Standard.encode(bytes, &mut text);
    text.extend(std::iter::repeat_n('=', whole - text.len()));
    text
}

/// The bytes of a text; `None` for one that [`encode`] does not write.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - letters.len() > 2 {
        return None;
    }
    Alphabet::Standard.decode(letters.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        for text in ["Z", "Zg", "Zg=", "Zh==", "Z===", "====", "Zm9v=", "Zm 9", "Zg==Zg==", "Zm9-"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
