//! A small load for the demo's screen: puts of 100 bytes over a few connections, and how long they took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::status::figures::micros;
use crate::client::{Client, Options};
use crate::protocol::Reply;

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 16;
/// For how long.
const TIME: Duration = Duration::from_secs(3);
/// Keys that are written again and again.
const KEYS: u64 = 10_000;
const VALUE: [u8; 100] = [b'x'; 100];

/// What a load tells while it runs.
pub enum Told {
    /// How far it is.
    Running(String),
    /// What came of it, and whether all puts were acknowledged.
    Ended(String, bool),
}

/// Runs the load and tells of it twice a second. Ends early when `stop` is set or nobody listens.
pub fn run(addresses: &[String], stop: &AtomicBool, mut tell: impl FnMut(Told) -> bool) {
    let begun = Instant::now();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
            // Each begins with another server.
            let mut addresses = addresses.to_vec();
            let first = number % addresses.len().max(1);
            addresses.rotate_left(first);
            thread::spawn(move || write(number as u64, &addresses, &acknowledged, &over))
        })
        .collect();
    while begun.elapsed() < TIME && !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        let seconds = begun.elapsed().as_secs_f64();
        let rate = acknowledged.load(Ordering::Relaxed) as f64 / seconds;
        let text = format!("bench: {seconds:.1} of {} s, {rate:.0} puts/s", TIME.as_secs());
        if !tell(Told::Running(text)) {
            break;
        }
    }
    over.store(true, Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    let (mut times, mut failed, mut why) = (Vec::new(), 0, None);
    for thread in threads {
        if let Ok(mut done) = thread.join() {
            times.append(&mut done.times);
            failed += done.failed;
            why = why.or(done.why);
        }
    }
    let text = summary(&mut times, took, failed, why.as_deref());
    tell(Told::Ended(text, failed == 0));
}

/// What one connection did.
struct Done {
    /// Microseconds of each put that was acknowledged.
    times: Vec<u32>,
    failed: u64,
    /// Why the first one failed that did.
    why: Option<String>,
}

fn write(number: u64, addresses: &[String], acknowledged: &AtomicU64, over: &AtomicBool) -> Done {
    let mut done = Done { times: Vec::new(), failed: 0, why: None };
    let mut client = match Client::connect(addresses, Options::default()) {
        Ok(client) => client,
        Err(error) => return Done { failed: 1, why: Some(error.to_string()), ..done },
    };
    let mut next = number;
    while !over.load(Ordering::Relaxed) {
        let key = format!("demo:bench:{}", next % KEYS);
        next += CONNECTIONS as u64;
        let begun = Instant::now();
        match client.call(&[b"SET", key.as_bytes(), &VALUE]) {
            Ok(Reply::Simple(_)) => {
                done.times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                done.failed += 1;
                let text = match other {
                    Ok(Reply::Error(error)) => error.to_string(),
                    Ok(reply) => format!("{reply:?}"),
                    Err(error) => error.to_string(),
                };
                done.why = done.why.or(Some(text));
            }
        }
    }
    done
}

fn summary(times: &mut [u32], took: f64, failed: u64, why: Option<&str>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let quantile = |percent| at(percent).map_or_else(|| "-".to_owned(), |time| micros(u64::from(*time)));
    let mut text = format!(
        "bench: {:.0} puts/s of {} bytes over {CONNECTIONS} connections, p50 {}, p99 {}, most {}",
        times.len() as f64 / took.max(1e-9),
        VALUE.len(),
        quantile(50),
        quantile(99),
        quantile(100),
    );
    if failed > 0 {
        text += &format!("; {failed} not acknowledged, the first: {}", why.unwrap_or("unknown"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_what_was_acknowledged() {
        let mut times: Vec<u32> = (1..=1_000).rev().map(|n| n * 10).collect();
        assert_eq!(
            summary(&mut times, 5.0, 0, None),
            "bench: 200 puts/s of 100 bytes over 16 connections, p50 5.0ms, p99 9.9ms, most 10ms"
        );
        let none = summary(&mut [], 5.0, 2, Some("CLUSTERDOWN"));
        assert!(
            none.contains("0 puts/s") && none.ends_with("2 not acknowledged, the first: CLUSTERDOWN"),
            "{none}"
        );
    }
}
