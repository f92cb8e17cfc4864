//! The scrub's thread: reads the sealed segments of the log again and again, slowly, so that rot
//! is found while the other replicas are there to heal it, and not by the next start.
//!
//! It opens the files by itself and shares nothing with the log's thread but its findings, which
//! are shown in `STATUS` and logged once. The node serves on, because it reads from memory and
//! votes with what it knows; and it heals: the log's thread has the groups move on and drops the
//! segment ([`Compactor::condemn`](crate::node::compaction::Compactor::condemn)). A finding that
//! is healed is shown until the next pass is over. Damage that a read for a peer meets is reported
//! here too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use groups::ids::StorageId;
use groups::log::{Damage, OpenError, RealDisk, Scrubbed, SegmentSeq, scrub_segment, sealed_segments};
use parking_lot::{Condvar, Mutex};

use crate::status::{FindingLine, ScrubStatus};

/// From the end of one pass to the beginning of the next.
const EVERY: Duration = Duration::from_secs(3600);

/// The least that is read per second, in bytes, when nobody waits for it.
const LEAST_RATE: u64 = 4 << 20;

/// The longest that a pass should take, when nobody waits for it.
const PASS: u64 = 1800;

/// A pass that somebody waits for reads so many bytes per second: a disk has that beside the
/// commits.
const ASKED_RATE: u64 = 256 << 20;

#[derive(Debug)]
struct Finding {
    damage: Damage,
    /// The segment was dropped since.
    healed: bool,
    /// The passes that had come to their end when it was found.
    pass: u64,
}

#[derive(Debug, Default)]
struct State {
    status: ScrubStatus,
    findings: BTreeMap<SegmentSeq, Finding>,
    end: bool,
}

/// What others may know about the scrub at any time, and where they ask for a pass.
#[derive(Debug, Default)]
pub struct ScrubGauge {
    state: Mutex<State>,
    bell: Condvar,
    /// The log's directory, for people.
    dir: PathBuf,
}

impl ScrubGauge {
    /// A gauge of the log in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> ScrubGauge {
        ScrubGauge { dir, ..ScrubGauge::default() }
    }

    /// Wants a pass now, from the oldest segment on. It is over when
    /// [`ScrubStatus::answered`] reaches the returned number.
    pub fn ask(&self) -> u64 {
        let mut state = self.state.lock();
        state.status.asked += 1;
        self.bell.notify_all();
        state.status.asked
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.state.lock().end = true;
        self.bell.notify_all();
    }

    /// Figures and findings.
    #[must_use]
    pub fn status(&self) -> ScrubStatus {
        let state = self.state.lock();
        let findings = state.findings.values().map(|finding| self.line(&finding.damage, finding.healed));
        ScrubStatus { findings: findings.collect(), ..state.status.clone() }
    }

    /// The newest sealed segment that is damaged and still there: this node would refuse to start
    /// on it.
    #[must_use]
    pub fn rotten(&self) -> Option<SegmentSeq> {
        let state = self.state.lock();
        state.findings.iter().rev().find(|(_, finding)| !finding.healed).map(|(seq, _)| *seq)
    }

    /// The log begins with `first` now: what was damaged before it is gone.
    pub fn dropped_before(&self, first: SegmentSeq) {
        let mut state = self.state.lock();
        for (seq, finding) in state.findings.range_mut(..first).filter(|(_, finding)| !finding.healed) {
            finding.healed = true;
            tracing::warn!(
                "the damage in {seq} at byte {} is healed: the segment was dropped, what it held is in the mirror \
                 checkpoints and in later segments",
                finding.damage.offset
            );
        }
    }

    /// Damage in a sealed segment, whoever met it: shown at once, and logged the first time.
    pub fn found(&self, damage: &Damage) {
        let Some(seq) = SegmentSeq::from_file_name(&damage.file) else { return };
        let mut state = self.state.lock();
        let pass = state.status.passes;
        let known = state.findings.get(&seq).map(|finding| &finding.damage);
        if known != Some(damage) {
            tracing::error!("{}", alarm(&self.line(damage, false)));
            state.findings.insert(seq, Finding { damage: damage.clone(), healed: false, pass });
        }
    }

    fn line(&self, damage: &Damage, healed: bool) -> FindingLine {
        FindingLine {
            file: self.dir.join(&damage.file).display().to_string(),
            offset: damage.offset,
            why: damage.why.clone(),
            groups: damage.groups.iter().map(|g| g.0).collect(),
            healed,
        }
    }

    /// Waits until `until`, or until somebody asks or ends; says whether to end.
    fn rest(&self, until: Instant, served: u64) -> bool {
        let mut state = self.state.lock();
        while !state.end && state.status.asked == served {
            if self.bell.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.end
    }

    /// Who has asked, and whether the process ends.
    fn look(&self) -> (u64, bool) {
        let state = self.state.lock();
        (state.status.asked, state.end)
    }
}

/// A finding in words: what, what it means, what to do.
#[must_use]
pub fn alarm(finding: &FindingLine) -> String {
    let groups = match &finding.groups[..] {
        [] => "which groups are concerned cannot be told".to_owned(),
        ids => {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            format!("groups {}", ids.join(", "))
        }
    };
    let place = format!(
        "the log of this node {} damaged: {} at byte {}: {} ({groups}).",
        if finding.healed { "was" } else { "is" },
        finding.file,
        finding.offset,
        finding.why
    );
    match finding.healed {
        true => format!(
            "{place} It is healed: the segment was dropped, what it held is in the mirror checkpoints and in later \
             segments. Check the disk"
        ),
        false => format!(
            "{place} The node serves on from memory, nothing acknowledged is lost, and the segment is dropped as \
             soon as mirror checkpoints hold what it held; until then the node would refuse to start on this log. \
             Keep the other nodes up and check the disk"
        ),
    }
}

/// Keeps a rate.
struct Pace {
    rate: u64,
    began: Instant,
    bytes: u64,
    owed: u64,
}

/// Between two looks at the clock, in bytes.
const STRIDE: u64 = 256 << 10;

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { rate, began: Instant::now(), bytes: 0, owed: 0 }
    }

    fn spend(&mut self, bytes: u64, gauge: &ScrubGauge, served: u64) {
        self.bytes += bytes;
        self.owed += bytes;
        if self.owed >= STRIDE {
            self.owed = 0;
            let due = Duration::from_millis(self.bytes.saturating_mul(1000) / self.rate);
            gauge.rest(self.began + due, served);
        }
    }
}

/// Runs until told to end.
pub fn run(disk: &RealDisk, storage: StorageId, segment_size: u64, gauge: &Arc<ScrubGauge>) {
    lower_priority();
    // The first pass does not meet the start: that has just read everything.
    let mut next = Instant::now() + EVERY;
    let mut served = 0;
    loop {
        if gauge.rest(next, served) {
            return;
        }
        let asked = gauge.look().0;
        if pass(disk, storage, segment_size, gauge, asked, asked > served) {
            served = asked;
            next = Instant::now() + EVERY;
        } else if gauge.look().1 {
            return;
        }
    }
}

/// One pass over everything that is sealed. `false` when it was given up, because the process ends
/// or somebody asked for another one.
fn pass(
    disk: &RealDisk,
    storage: StorageId,
    segment_size: u64,
    gauge: &Arc<ScrubGauge>,
    asked: u64,
    hurried: bool,
) -> bool {
    let began = Instant::now();
    let segments = match sealed_segments(disk, storage) {
        Ok(segments) => segments,
        Err(e) => {
            tracing::error!(
                "the scrub cannot read the log's manifest: {e}. It is tried again at the next pass"
            );
            Vec::new()
        }
    };
    let rate = match hurried {
        true => ASKED_RATE,
        false => LEAST_RATE.max(segments.len() as u64 * segment_size / PASS),
    };
    let mut pace = Pace::new(rate);
    let (mut read, mut sound) = (0, 0);
    let before = gauge.state.lock().status.passes;
    for seq in segments {
        // Only what comes from the disk itself says how the disk is.
        let _ = disk.forget(&seq.file_name());
        let outcome = scrub_segment(disk, storage, seq, &mut |bytes| pace.spend(bytes, gauge, asked));
        if gauge.look() != (asked, false) {
            return false;
        }
        match outcome {
            Ok(Scrubbed::Sound { bytes, .. }) => {
                sound += bytes;
                read += 1;
            }
            Ok(Scrubbed::Gone) => {}
            Err(OpenError::Damaged(damage)) => {
                // A damaged manifest is told of by whoever opens the log.
                gauge.found(&Damage { file: seq.file_name(), ..damage });
                read += 1;
            }
            Err(e) => {
                let why = format!("it cannot be read: {e}");
                gauge.found(&Damage { file: seq.file_name(), offset: 0, why, groups: Vec::new() });
            }
        }
    }
    let mut state = gauge.state.lock();
    // What was healed before this pass has been shown for long enough.
    state.findings.retain(|_, finding| !finding.healed || finding.pass >= before);
    let status = &mut state.status;
    status.passes += 1;
    status.answered = asked;
    (status.segments, status.bytes) = (read, sound);
    status.last_pass_unix_s =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    status.last_pass_took_s = began.elapsed().as_secs_f64();
    true
}

/// Whatever else wants the processor goes first.
fn lower_priority() {
    // Without the permission to it the pace alone keeps it slow.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
}
