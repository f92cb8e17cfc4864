//! What happened beside the load and may explain it: lines that scripts append to a file, and changes of leaders that the
//! servers report themselves.

mod leaders;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;

pub use leaders::Watch;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Seconds after the beginning of the measured time.
    pub at_seconds: f64,
    /// In words.
    pub what: String,
}

/// Events of one row at most; later ones are counted in a last one.
const MOST: usize = 200;
/// Bytes of the file that are read, from its end.
const TAIL: u64 = 1 << 20;

/// Brings events in order, as many as a row may have.
pub fn in_order(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
    let more = events.len().saturating_sub(MOST);
    if more > 0 {
        events.truncate(MOST);
        let at_seconds = events.last().map_or(0.0, |event| event.at_seconds);
        events.push(Event { at_seconds, what: format!("and {more} more events") });
    }
    events
}

/// The events of a file that happened in so many seconds after `begun`, a time in seconds since 1970. Scripts may create
/// the file only when something happens.
pub fn read_file(path: &Path, begun: f64, seconds: f64) -> Vec<Event> {
    match read_tail(path) {
        Ok(text) => {
            let (events, strange) = parse(&text, begun, seconds);
            if let Some(line) = strange {
                let (file, line) = (path.display(), line.escape_debug());
                eprintln!("{file}: \"{line}\" is no event and left out; one is \"<unix-seconds> <text>\"");
            }
            events
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            eprintln!("--events {}: {error}; the report has no events of it", path.display());
            Vec::new()
        }
    }
}

/// The end of the file, from a whole line on.
fn read_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    if skipped > 0 {
        let cut = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..cut);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The events within the time, and the first line that is none.
fn parse(text: &str, begun: f64, seconds: f64) -> (Vec<Event>, Option<&str>) {
    let (mut events, mut strange) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            continue;
        }
        let (time, what) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match time.parse::<f64>() {
            Ok(time) if time.is_finite() && !what.trim().is_empty() => {
                let at_seconds = time - begun;
                if (0.0..=seconds).contains(&at_seconds) {
                    events.push(Event { at_seconds, what: what.trim().to_owned() });
                }
            }
            _ => {
                strange.get_or_insert(line);
            }
        }
    }
    (events, strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_measured_time_are_events() {
        let text = "1000.5 before\n1001.25 kill -9 node 2\n\n1003 restart  \n1011 after\n";
        let (events, strange) = parse(text, 1_001.0, 10.0);
        assert_eq!(strange, None);
        let told: Vec<(f64, &str)> =
            events.iter().map(|event| (event.at_seconds, event.what.as_str())).collect();
        assert_eq!(told, [(0.25, "kill -9 node 2"), (2.0, "restart"), (10.0, "after")]);
    }

    #[test]
    fn lines_that_are_no_events_are_named_and_left_out() {
        for (text, line) in [("1001 x\nkilled\nagain\n", "killed"), ("nan x\n", "nan x"), ("1001\n", "1001")]
        {
            assert_eq!(parse(text, 1_000.0, 10.0).1, Some(line), "{text}");
        }
    }

    #[test]
    fn there_is_an_end_to_the_events_of_a_row() {
        let event = |at: u32| Event { at_seconds: f64::from(at), what: String::new() };
        let told = in_order((0..250).rev().map(event).collect());
        assert_eq!((told.len(), told[0].at_seconds), (201, 0.0));
        assert_eq!(told[200].what, "and 50 more events");
    }
}
