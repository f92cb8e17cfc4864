//! Sizes, durations and shares as people write them: "64MiB", "50ms", "2%".

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many times 1024 bytes.
    #[must_use]
    pub const fn kib(count: u64) -> Size {
        Size(count << 10)
    }

    /// So many times 1024 KiB.
    #[must_use]
    pub const fn mib(count: u64) -> Size {
        Size(count << 20)
    }

    /// So many times 1024 MiB.
    #[must_use]
    pub const fn gib(count: u64) -> Size {
        Size(count << 30)
    }

    /// For sizes of things in memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    /// In the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = SIZES
            .iter()
            .filter(|(unit, _)| unit.contains('i'))
            .rev()
            .find(|(_, bytes)| self.0 > 0 && u128::from(self.0).is_multiple_of(*bytes))
            .copied()
            .unwrap_or(("B", 1));
        match self.0 {
            0 => f.write_str("0"),
            size => write!(f, "{}{unit}", u128::from(size) / bytes),
        }
    }
}

/// A share of something, kept in millionths so that it has one exact value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    millionths: u32,
}

impl Share {
    /// A whole number of percent.
    #[must_use]
    pub const fn percent(percent: u32) -> Share {
        Share { millionths: percent * 10_000 }
    }

    /// In millionths.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.millionths
    }

    /// This share of a duration, rounded up to a nanosecond: where it is a safety margin,
    /// rounding must not take from it.
    #[must_use]
    pub fn of(self, duration: Duration) -> Duration {
        let nanos = (duration.as_nanos() * u128::from(self.millionths)).div_ceil(1_000_000);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.millionths) / 10_000.0)
    }
}

/// Bytes per unit, the smaller binary ones first.
const SIZES: &[(&str, u128)] = &[
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Nanoseconds per unit.
const DURATIONS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a size: "64MiB", "1.5GiB", "1000B", or "0".
pub(super) fn size(text: &str) -> Option<Size> {
    amount(text, SIZES).map(Size)
}

/// Reads a duration: "50ms", "1.5s", or "0".
pub(crate) fn duration(text: &str) -> Option<Duration> {
    amount(text, DURATIONS).map(Duration::from_nanos)
}

/// Reads a share: "2%", "0.5%", or "0".
pub(super) fn share(text: &str) -> Option<Share> {
    let millionths = amount(text, &[("%", 10_000)])?;
    Some(Share { millionths: u32::try_from(millionths).ok()? })
}

/// A duration as it would be written in the file.
pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, each) =
        DURATIONS.iter().rev().find(|(_, each)| nanos.is_multiple_of(*each)).copied().unwrap_or(("ns", 1));
    match nanos {
        0 => "0".to_owned(),
        nanos => format!("{}{unit}", nanos / each),
    }
}

/// A number, a unit, and perhaps a blank between. Zero needs no unit. Exact: an amount that is
/// not a whole number of the base unit is none.
fn amount(text: &str, units: &[(&str, u128)]) -> Option<u64> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')?;
    let (number, unit) = text.split_at(end);
    let (_, each) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || whole.len() > 19 || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let scaled = (whole.parse::<u128>().ok()? * scale + fraction).checked_mul(*each)?;
    match scaled.is_multiple_of(scale) {
        true => u64::try_from(scaled / scale).ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1.5KiB", Some(1536)),
            ("1_000B", Some(1000)),
            ("2kb", Some(2000)),
            ("16TiB", Some(16 << 40)),
            ("64", None),
            ("64 M", None),
            ("MiB", None),
            ("-1MiB", None),
            ("1.MiB", None),
            ("1.2.3MiB", None),
            ("0.3B", None),
            ("99999999999999999TiB", None),
            ("", None),
        ] {
            assert_eq!(size(text), bytes.map(Size), "{text:?}");
        }
        for text in ["0", "1B", "1000B", "4KiB", "64MiB", "1GiB", "3TiB"] {
            assert_eq!(size(text).expect("a size").to_string(), text);
        }
    }

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("50ms", Some(50_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("2m", Some(120_000_000_000)),
            ("1h", Some(3_600_000_000_000)),
            ("50", None),
            ("50 milliseconds", None),
            ("0.1ns", None),
            ("ms", None),
        ] {
            assert_eq!(duration(text), nanos.map(Duration::from_nanos), "{text:?}");
        }
        for text in ["0", "50ms", "1500ms", "90s", "2m", "1h", "7us"] {
            assert_eq!(show_duration(duration(text).expect("a duration")), text);
        }
    }

    #[test]
    fn shares() {
        assert_eq!(share("2%"), Some(Share::percent(2)));
        assert_eq!(share("0.5%").map(Share::millionths), Some(5_000));
        assert_eq!(share("0"), Some(Share::default()));
        assert_eq!(share("2"), None);
        assert_eq!(share("0.5%").map(|share| share.to_string()), Some("0.5%".to_owned()));
        assert_eq!(Share::percent(2).of(Duration::from_millis(300)), Duration::from_millis(6));
        assert_eq!(Share::percent(1).of(Duration::from_nanos(1)), Duration::from_nanos(1));
    }
}
