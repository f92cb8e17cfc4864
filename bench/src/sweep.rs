//! Several loads, one after the other: what was asked for, checked, and one load after the other out of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Failure;
use crate::args::{Load, Size};
use crate::html;
use crate::payload::Layout;
use crate::plan::Clock;
use crate::report::Settings;
use crate::workload::Mix;

/// Loads that make sense.
#[derive(Debug)]
pub struct Sweep {
    /// What was asked for.
    pub options: Load,
    /// What is done.
    pub mixes: Vec<Mix>,
    /// Different keys.
    pub keys: u32,
    /// Before each measurement.
    pub warmup: Duration,
    /// Of the choice of keys.
    pub seed: u64,
    /// Of the whole run.
    pub clock: Clock,
    /// Bytes per key; those of a history are longer than asked where they have to.
    pub key_size: usize,
    /// Whether histories are recorded.
    pub verify: bool,
    /// When it began, in seconds since 1970.
    pub begun: f64,
}

/// One load of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// What is done.
    pub mix: Mix,
    /// Over how many connections.
    pub connections: u32,
    /// With how many requests under way on each.
    pub pipeline: u32,
    /// With how many bytes in a value.
    pub value_size: usize,
}

impl Sweep {
    /// Checks the options.
    pub fn plan(options: Load, verify: bool) -> Result<Self, Failure> {
        if options.zipf.is_some_and(|theta| !(0.0..1.0).contains(&theta)) {
            return Err(Failure(
                "--zipf takes an exponent from 0 (uniform) to below 1 (very skewed)".to_owned(),
            ));
        }
        if options.duration.0.is_zero() && options.requests.is_none() {
            return Err(Failure("--duration 0 measures nothing".to_owned()));
        }
        if options.timeout.0.is_zero() {
            return Err(Failure("--timeout 0 gives every request up at once".to_owned()));
        }
        if let Some(dir) = &options.report {
            html::prepare(dir)?;
        }
        let mixes = match (options.workload.is_empty(), verify) {
            (true, true) => vec![Mix::Mixed(50)],
            (true, false) => vec![Mix::Put],
            (false, _) => options.workload.clone(),
        };
        let keys = options.keys.unwrap_or(if verify { 16 } else { 100_000 });
        check_scans(&mixes, keys, verify)?;
        let mut key_size = 0;
        for &Size(bytes) in &options.value_size {
            key_size = Layout::new(keys, options.key_size, bytes, verify.then_some(0))?.key(0).len();
        }
        Ok(Sweep {
            warmup: options.warmup.map_or(Duration::from_secs(if verify { 0 } else { 2 }), |span| span.0),
            seed: options.seed.unwrap_or_else(wall_nanos),
            clock: Clock::start(),
            mixes,
            keys,
            key_size,
            verify,
            begun: wall_nanos() as f64 / 1e9,
            options,
        })
    }

    /// Every load, those with values of one size together: a store is filled again for each size.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &Size(value_size) in &self.options.value_size {
            for &mix in &self.mixes {
                for &pipeline in &self.options.pipeline {
                    for &connections in &self.options.connections {
                        cases.push(Case { mix, connections, pipeline, value_size });
                    }
                }
            }
        }
        cases
    }

    /// Where the loads differ, apart from workload and connections.
    pub fn differs(&self) -> Differs {
        Differs { pipeline: self.options.pipeline.len() > 1, value_size: self.options.value_size.len() > 1 }
    }

    /// What the report says about all of them.
    pub fn settings(&self) -> Settings {
        let Load { addr, value_size, pipeline, rate, zipf, threads, .. } = &self.options;
        Settings {
            addresses: addr.clone(),
            keys: self.keys,
            key_size: self.key_size,
            value_sizes: value_size.iter().map(|size| size.0).collect(),
            pipelines: pipeline.clone(),
            rate: *rate,
            zipf: *zipf,
            threads: *threads,
            seed: self.seed,
        }
    }
}

impl Case {
    /// How a person calls it.
    pub fn told(&self, differs: Differs) -> String {
        let mut told = format!("{} at {} connections", self.mix, self.connections);
        if differs.pipeline {
            told.push_str(&format!(", pipeline {}", self.pipeline));
        }
        if differs.value_size {
            told.push_str(&format!(", values of {}", Size(self.value_size)));
        }
        told
    }
}

/// What has to be said about a load because the others have something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differs {
    /// The pipeline.
    pub pipeline: bool,
    /// The size of the values.
    pub value_size: bool,
}

/// Nanoseconds since 1970.
pub fn wall_nanos() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or_default()
}

fn check_scans(mixes: &[Mix], keys: u32, verify: bool) -> Result<(), Failure> {
    let Some(largest) = mixes.iter().map(|mix| mix.scanned()).max().filter(|&scanned| scanned > 0) else {
        return Ok(());
    };
    if verify {
        return Err(Failure(
            "--verify judges the history of each key alone, which cannot judge a scan over several; verify put, get, \
             mixed, cas or incr"
                .to_owned(),
        ));
    }
    if largest > keys {
        return Err(Failure(format!("scan:{largest} reads more keys than the {keys} of --keys")));
    }
    Ok(())
}
