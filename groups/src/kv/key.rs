//! Keys as the state holds them.

/// A key. Up to 20 bytes are in the key itself, so that a search through the ordered map stays in the
/// map's nodes: most of what a command costs is waiting for memory. A longer one is shared by whoever
/// holds it.
pub type Key = byteview::ByteView;

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_short_key_needs_no_memory_beside_its_place() {
        assert_eq!(size_of::<Key>(), 24);
        let long = Key::new(&[7; 21]);
        assert_eq!((Key::new(&[7; 20]).ref_count(), long.clone().ref_count()), (1, 2));
    }

    #[test]
    fn keys_are_ordered_as_their_bytes_are() {
        let mut words: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], vec![0, 0, 0, 0, 0]];
        for tail in [0, 1, 254, 255] {
            words.extend([3, 4, 5, 19, 20, 21, 40].map(|len| [&[9; 40][..len], &[tail]].concat()));
        }
        for a in &words {
            for b in &words {
                assert_eq!(Key::new(a).cmp(&Key::new(b)), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }
}
