//! How an event becomes a line.

use std::fmt::{self, Write as _};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::limit::{Limit, Verdict};

/// Writes events as text or as JSON, and leaves out what repeats itself.
pub(super) struct Lines {
    json: bool,
    text: Format<Full, SystemTime>,
    limit: Mutex<Limit<Identifier>>,
}

impl Lines {
    pub fn new(json: bool) -> Lines {
        Lines { json, text: Format::default(), limit: Mutex::default() }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let left_out = match self.limit.lock().judge(event.metadata().callsite(), Instant::now()) {
            Verdict::Leave => return Ok(()),
            Verdict::Write(left_out) => left_out,
        };
        if self.json {
            return json(&mut writer, event, left_out);
        }
        self.text.format_event(context, writer.by_ref(), event)?;
        match left_out {
            0 => Ok(()),
            _ => writeln!(writer, "  ({left_out} more lines like this one were left out before it)"),
        }
    }
}

/// `{"time", "level", "target", "message", …}`: fields of the event stand beside them under their own names.
fn json(writer: &mut Writer<'_>, event: &Event<'_>, left_out: u64) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let mut line = Map::new();
    let metadata = event.metadata();
    line.insert("time".to_owned(), time.into());
    line.insert("level".to_owned(), metadata.level().as_str().into());
    line.insert("target".to_owned(), metadata.target().into());
    line.insert("message".to_owned(), "".into());
    event.record(&mut Fields(&mut line));
    if left_out > 0 {
        line.insert("left_out".to_owned(), left_out.into());
    }
    writeln!(writer, "{}", Value::Object(line))
}

/// Puts the fields of an event into an object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{value:?}");
        self.put(field, text);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Memory {
        type Writer = Memory;

        fn make_writer(&'a self) -> Memory {
            self.clone()
        }
    }

    fn logged(json: bool, work: impl FnOnce()) -> String {
        let memory = Memory::default();
        let words = tracing_subscriber::fmt::layer()
            .with_writer(memory.clone())
            .with_ansi(false)
            .event_format(Lines::new(json));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(words), work);
        let bytes = memory.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn an_event_is_one_object_on_one_line() {
        let text = logged(true, || {
            tracing::warn!(node = 3_u32, took_ms = 1.5, lane = ?Some("bulk"), "two\nlines, \"quoted\"");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).expect("an object");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "two\nlines, \"quoted\"");
        assert_eq!((&line["node"], &line["took_ms"]), (&3.into(), &1.5.into()));
        assert_eq!(line["lane"], "Some(\"bulk\")");
        assert!(line["target"].as_str().is_some_and(|target| target.contains("logging")), "{line}");
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() >= 20), "{line}");
    }

    #[test]
    fn a_thousand_lines_of_one_place_are_a_few_and_other_places_are_heard() {
        for json in [true, false] {
            let text = logged(json, || {
                for n in 0..1_000 {
                    tracing::info!(n, "peer connected");
                }
                tracing::error!("the reason");
            });
            assert!(text.lines().count() < 50 && text.contains("the reason"), "{text}");
        }
    }
}
