//! Bytes as letters, six bits each (RFC 4648), without padding: whoever wants `=` at the end writes and takes it off.

/// Which letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Section 4: the last two are `+` and `/`.
    Standard,
    /// Section 5: the last two are `-` and `_`, which need no quoting anywhere.
    Url,
}

impl Alphabet {
    fn last(self) -> [u8; 2] {
        match self {
            Alphabet::Standard => *b"+/",
            Alphabet::Url => *b"-_",
        }
    }

    fn letter(self, six: u8) -> u8 {
        match six {
            0..26 => b'A' + six,
            26..52 => b'a' + (six - 26),
            52..62 => b'0' + (six - 52),
            _ => self.last()[usize::from(six == 63)],
        }
    }

    fn value(self, letter: u8) -> Option<u8> {
        Some(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            _ => 62 + self.last().iter().position(|last| *last == letter)? as u8,
        })
    }

    /// Writes the letters of some bytes behind `text`.
    pub fn encode(self, bytes: &[u8], text: &mut String) {
        for part in bytes.chunks(3) {
            let word =
                part.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
            for place in 0..=part.len() {
                text.push(char::from(self.letter((word >> (18 - 6 * place) & 63) as u8)));
            }
        }
    }

    /// The bytes of some letters; `None` for what [`Alphabet::encode`] does not write.
    #[must_use]
    pub fn decode(self, letters: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(letters.len() * 3 / 4);
        for part in letters.chunks(4) {
            let mut word = 0_u32;
            for letter in part {
                word = word << 6 | u32::from(self.value(*letter)?);
            }
            word <<= 6 * (4 - part.len());
            let all = word.to_be_bytes();
            let (kept, spare) = all[1..].split_at(part.len() - 1);
            if part.len() == 1 || spare.iter().any(|byte| *byte != 0) {
                return None;
            }
            bytes.extend_from_slice(kept);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_stands_for_its_six_bits() {
        for alphabet in [Alphabet::Standard, Alphabet::Url] {
            for six in 0..64 {
                assert_eq!(alphabet.value(alphabet.letter(six)), Some(six));
            }
            let known = (0..=255).filter(|letter| alphabet.value(*letter).is_some()).count();
            assert_eq!(known, 64);
        }
    }
}
