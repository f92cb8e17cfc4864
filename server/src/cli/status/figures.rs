//! Figures as people read them.

/// Bytes with a binary unit, at most nine characters.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    // Rounded figures like 64 MiB read better without a fraction.
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A duration given in microseconds.
pub(crate) fn micros(count: u64) -> String {
    match count {
        0..1_000 => format!("{count}us"),
        1_000..10_000 => format!("{:.1}ms", count as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0}ms", count as f64 / 1e3),
        _ => format!("{:.1}s", count as f64 / 1e6),
    }
}

/// A duration given in seconds, at most five characters: what is longer than a year is `>1y`.
pub(crate) fn span(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    let of = |unit: f64, name: &str| match seconds / unit {
        count if count < 9.95 => format!("{count:.1}{name}"),
        count => format!("{count:.0}{name}"),
    };
    match seconds {
        s if s < 0.05 => "0s".to_owned(),
        s if s < 2.0 * MINUTE => of(1.0, "s"),
        s if s < 2.0 * HOUR => of(MINUTE, "m"),
        s if s < 2.0 * DAY => of(HOUR, "h"),
        s if s < 365.0 * DAY => of(DAY, "d"),
        _ => ">1y".to_owned(),
    }
}

/// A count, at most five characters: large ones are rounded.
pub(crate) fn count(number: f64) -> String {
    match number {
        n if n < 9_999.5 => format!("{n:.0}"),
        n if n < 999.5e3 => format!("{:.0}k", n / 1e3),
        n if n < 9.95e6 => format!("{:.1}M", n / 1e6),
        n if n < 999.5e6 => format!("{:.0}M", n / 1e6),
        n => format!("{:.0}G", n / 1e9),
    }
}

/// A place behind another one: how much, and since when.
pub(crate) fn behind(entries: u64, seconds: Option<f64>) -> String {
    match seconds {
        _ if entries == 0 => "0".to_owned(),
        Some(seconds) => format!("{} {}", count(entries as f64), span(seconds)),
        None => count(entries as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            (150 * 1024 + 512, "150 KiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        for (number, text) in
            [(0, "0us"), (999, "999us"), (1_500, "1.5ms"), (25_400, "25ms"), (2_500_000, "2.5s")]
        {
            assert_eq!(micros(number), text);
        }
        for (seconds, text) in [
            (0.0, "0s"),
            (0.04, "0s"),
            (0.1, "0.1s"),
            (9.96, "10s"),
            (119.0, "119s"),
            (120.0, "2.0m"),
            (7_199.0, "120m"),
            (7_200.0, "2.0h"),
            (172_800.0, "2.0d"),
            (86_400.0 * 364.0, "364d"),
            (86_400.0 * 366.0, ">1y"),
            (f64::INFINITY, ">1y"),
        ] {
            assert_eq!(span(seconds), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (9_999.0, "9999"),
            (9_999.6, "10k"),
            (1_250_000.0, "1.2M"),
            (2e7, "20M"),
            (3e9, "3G"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(behind(0, Some(3.0)), "0");
        assert_eq!(behind(12_345, Some(0.5)), "12k 0.5s");
        assert_eq!(behind(7, None), "7");
    }
}
