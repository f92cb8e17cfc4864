//! What the servers spend meanwhile: processor time and context switches of their processes, as `/proc` tells them.

use std::fs;
use std::io;

use serde::Serialize;

use crate::Failure;
use crate::ledger::Window;

/// The processes of the servers, of all of them together.
#[derive(Clone, Debug, Default)]
pub struct Processes(Vec<u32>);

/// What processes have used since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Clock ticks of processor time, in user and kernel mode.
    pub ticks: u64,
    /// Context switches of all threads, voluntary or not.
    pub switches: u64,
}

/// What the servers spent on a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Spent {
    /// Between the beginning and the end of the measured time.
    Known {
        /// Processor time per success, in microseconds.
        cpu_us_per_op: f64,
        /// Context switches per success.
        context_switches_per_op: f64,
    },
    /// One of the processes ended, for instance.
    Unknown {
        /// Why there are no figures.
        unknown_because: String,
    },
}

impl Processes {
    /// These processes, all of which must be there.
    pub fn find(pids: &[u32]) -> Result<Self, Failure> {
        let processes = Processes(pids.to_vec());
        processes.usage().map_err(|why| Failure(format!("--server-pids: {why}; nothing was sent")))?;
        Ok(processes)
    }

    /// What they have used until now, or which of them cannot be read.
    fn usage(&self) -> Result<Usage, String> {
        let mut sum = Usage::default();
        for &pid in &self.0 {
            let one = usage_of(pid).map_err(|error| format!("process {pid} cannot be read: {error}"))?;
            sum = Usage { ticks: sum.ticks + one.ticks, switches: sum.switches + one.switches };
        }
        Ok(sum)
    }
}

/// Looks at the processes when the measured time begins and when it ends.
#[derive(Debug)]
pub struct Meter<'a> {
    processes: &'a Processes,
    /// First when the servers are being connected to, for loads that are over before they are looked at.
    before: Result<Usage, String>,
    begun: bool,
    after: Option<Result<Usage, String>>,
}

/// Until it is known when the measured time begins, it is looked for so often; in nanoseconds.
const SOON: u64 = 10_000_000;

impl<'a> Meter<'a> {
    /// One for the load that is about to begin.
    pub fn of(processes: &'a Processes) -> Self {
        Meter { processes, before: processes.usage(), begun: false, after: None }
    }

    /// Looks if it is time to. How many nanoseconds it is to the next time.
    pub fn look(&mut self, window: Option<Window>, now: u64) -> u64 {
        let Some(window) = window else { return SOON };
        if !self.begun && now >= window.from {
            (self.before, self.begun) = (self.processes.usage(), true);
        }
        if self.after.is_none() && now >= window.until {
            self.after = Some(self.processes.usage());
        }
        match (self.begun, &self.after) {
            (false, _) => window.from - now,
            (true, None) => window.until - now,
            (true, Some(_)) => u64::MAX,
        }
    }

    /// Looks for the last time, now that the load is over, unless the end of its time was seen.
    pub fn stop(&mut self) {
        self.after.get_or_insert_with(|| self.processes.usage());
    }

    /// What was spent on so many successes.
    pub fn spent(self, successes: u64) -> Spent {
        let after = self.after.unwrap_or_else(|| self.processes.usage());
        match (self.before, after) {
            (Ok(before), Ok(after)) => before.until(after, successes),
            (Err(unknown_because), _) | (_, Err(unknown_because)) => Spent::Unknown { unknown_because },
        }
    }
}

impl Usage {
    fn until(self, after: Usage, successes: u64) -> Spent {
        let successes = successes.max(1) as f64;
        let ticks = after.ticks.saturating_sub(self.ticks) as f64;
        // Threads that ended meanwhile have taken their switches with them.
        let switches = after.switches.saturating_sub(self.switches) as f64;
        Spent::Known {
            cpu_us_per_op: ticks * 1e6 / rustix::param::clock_ticks_per_second() as f64 / successes,
            context_switches_per_op: switches / successes,
        }
    }
}

fn usage_of(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut switches = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between being listed and being read.
        if let Ok(status) = fs::read_to_string(task?.path().join("status")) {
            switches += switches_in(&status);
        }
    }
    let ticks = ticks_in(&stat).ok_or_else(|| io::Error::other("its stat has an unknown form"))?;
    Ok(Usage { ticks, switches })
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted behind the name, which may hold blanks and parentheses.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn switches_in(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| line.split_once("ctxt_switches:"))
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 1234 66 0 0 20 0 9 0 100 1000 10";
        assert_eq!(ticks_in(stat), Some(1_300));
        assert_eq!(ticks_in("42 (cut) S 1 42"), None);
    }

    #[test]
    fn both_kinds_of_switches_are_counted() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(switches_in(status), 155);
    }

    #[test]
    fn what_is_spent_is_told_per_success() {
        let second = rustix::param::clock_ticks_per_second();
        let before = Usage { ticks: 7, switches: 50 };
        let after = Usage { ticks: 7 + 2 * second, switches: 350 };
        let spent = Spent::Known { cpu_us_per_op: 20_000.0, context_switches_per_op: 3.0 };
        assert_eq!(before.until(after, 100), spent);
    }

    #[test]
    fn the_meter_looks_when_the_measured_time_begins_and_ends() {
        let myself = Processes::find(&[std::process::id()]).expect("it is there");
        let window = Some(Window { from: 100, until: 300 });
        let mut meter = Meter::of(&myself);
        assert_eq!(meter.look(None, 0), SOON);
        assert_eq!(meter.look(window, 40), 60);
        assert!(!meter.begun);
        assert_eq!(meter.look(window, 100), 200);
        assert!(meter.begun && meter.after.is_none());
        assert_eq!(meter.look(window, 310), u64::MAX);
        assert!(meter.after.is_some());
        assert!(matches!(meter.spent(1), Spent::Known { .. }));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        // No process has this number: it is beyond what the kernel gives out.
        let Failure(reason) = Processes::find(&[u32::MAX]).expect_err("not there");
        assert!(reason.contains(&u32::MAX.to_string()) && reason.contains("nothing was sent"), "{reason}");
    }
}
