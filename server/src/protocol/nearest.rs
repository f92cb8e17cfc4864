//! What somebody probably meant: the known word nearest to a mistyped one.

/// Longer words than this are not typos of anything known here.
const LONGEST: usize = 40;

/// The candidate nearest to `word`, if one is near enough to be what was meant: one edit for
/// short words, a third of the letters for longer ones. A letter changed, added, removed or
/// swapped with its neighbour is one edit (optimal string alignment); case does not count.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (word.len().max(candidate.len()) / 3).max(1) && *distance < word.len()
        })
        .min()
        .map(|(_, candidate)| candidate)
}

fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = [0usize; LONGEST + 1];
    let mut above = [0usize; LONGEST + 1];
    for (column, cell) in above.iter_mut().enumerate() {
        *cell = column;
    }
    for row in 1..=a.len() {
        let mut current = [row; LONGEST + 1];
        for column in 1..=b.len() {
            let same = a[row - 1].eq_ignore_ascii_case(&b[column - 1]);
            let mut best = (above[column] + 1).min(current[column - 1] + 1);
            best = best.min(above[column - 1] + usize::from(!same));
            if row > 1
                && column > 1
                && a[row - 1].eq_ignore_ascii_case(&b[column - 2])
                && a[row - 2].eq_ignore_ascii_case(&b[column - 1])
            {
                best = best.min(before[column - 2] + 1);
            }
            current[column] = best;
        }
        before = above;
        above = current;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typos() {
        let known = ["get", "set", "getdel", "incrby", "heartbeat_interval", "election_timeout"];
        for (word, expected) in [
            ("gte", Some("get")),
            ("GTE", Some("get")),
            ("incrbyy", Some("incrby")),
            ("hartbeat_intervall", Some("heartbeat_interval")),
            ("election_time_out", Some("election_timeout")),
            ("zzz", None),
            ("", None),
            ("x", None),
            (&"y".repeat(1000), None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
