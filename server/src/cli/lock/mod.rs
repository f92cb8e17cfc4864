//! `pelago lock`: a command that runs while a lock is held. `docs/locks.md` says what that guarantees.

mod child;
mod hold;
mod keeper;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::connect::{Servers, key, shown};
use crate::config::{duration, show_duration};
use crate::demo::interrupt::Interrupt;
use child::Child;
pub use child::LockCommand;
use hold::{Hold, NotTaken};
use keeper::Keeper;

/// Run a command while holding a lock
#[derive(Debug, Args)]
#[command(after_help = "\
The lock is a key with a time to live, renewed while the command runs and deleted when it ends. The
command finds the fencing token in PELAGO_FENCE: pelago put KEY VALUE --fence $PELAGO_FENCE.
When the lock is lost the command gets SIGTERM, and SIGKILL after --grace.
Exit codes: the command's own, 128 and the signal that it died of; 69 no node answers, 70 the lock
was lost, 75 not taken within --wait, 126 or 127 the command could not be started.

Example: pelago lock nightly --wait 1m -- sh -c 'pelago put report done --fence $PELAGO_FENCE'")]
pub struct Lock {
    /// The key of the lock
    name: OsString,

    /// How long the lock outlives a holder that is gone, 500ms to 1h
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = ttl)]
    ttl: Duration,

    /// How long to wait for the lock; 0 tries once [default: without end]
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,

    /// How long the command has between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    grace: Duration,

    #[command(flatten)]
    servers: Servers,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// No node answers, or the answer makes no sense: `EX_UNAVAILABLE` of sysexits.h.
const UNAVAILABLE: u8 = 69;
/// The lock was lost: `EX_SOFTWARE`.
const LOST: u8 = 70;
/// The lock was not to be had in time: `EX_TEMPFAIL`.
const NOT_TAKEN: u8 = 75;

/// How often the command, the signals and the lock are looked at.
const LOOK: Duration = Duration::from_millis(20);

fn time(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "needs a number and a unit, as in 500ms, 10s or 5m".to_owned())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = time(text)?;
    let (least, most) = (Duration::from_millis(500), Duration::from_secs(3600));
    match (least..=most).contains(&ttl) {
        true => Ok(ttl),
        false => Err("must be from 500ms to 1h".to_owned()),
    }
}

impl Lock {
    pub(super) fn run(self) -> Result<(), Failure> {
        let name = key(&self.name);
        let mut hold = Hold::new(name, self.ttl, self.servers.addresses())?;
        if let Err(why) = hold.take(self.wait) {
            return Err(self.not_taken(why));
        }
        // Only now: whoever waits for a lock may be ended like any command.
        let interrupt = Interrupt::listen()?;
        let (token, keeper) = (hold.token(), Keeper::start(hold)?);
        let mut child = match Child::spawn(&self.command, name, token, &self.servers.addresses()) {
            Ok(child) => child,
            Err(error) => {
                keeper.end();
                return Err(Failure { code: 126, message: format!("could not start the command: {error}") });
            }
        };
        let ended = self.attend(&mut child, &keeper, &interrupt);
        let kept = keeper.end();
        let status = ended.map_err(|error| Failure {
            code: UNAVAILABLE,
            message: format!("could not wait for the command: {error}. The lock was released"),
        })?;
        match kept {
            Some(why) => Err(Failure {
                code: LOST,
                message: format!(
                    "the lock \"{}\" was lost while the command ran: {why}. The command ended with {status}; \
                     what it wrote with --fence counts only where nobody newer had written",
                    shown(name)
                ),
            }),
            None => match code(status) {
                0 => Ok(()),
                code => Err(Failure { code, message: String::new() }),
            },
        }
    }

    /// Waits for the command, and ends it when the lock is lost or somebody wants an end.
    fn attend(&self, child: &mut Child, keeper: &Keeper, interrupt: &Interrupt) -> io::Result<ExitStatus> {
        let mut kill_at = None;
        loop {
            if let Some(status) = child.ended()? {
                return Ok(status);
            }
            let interrupted = match kill_at {
                None => interrupt.wait(LOOK),
                // A second Ctrl-C does not wait for the grace.
                Some(_) => interrupt.again(LOOK),
            };
            match kill_at {
                None if interrupted || keeper.is_lost() => {
                    child.terminate();
                    kill_at = Some(hold::now() + self.grace);
                }
                Some(at) if interrupted || hold::now() >= at => child.kill(),
                _ => {}
            }
        }
    }

    fn not_taken(&self, why: NotTaken) -> Failure {
        let name = shown(key(&self.name));
        match why {
            NotTaken::Held { by } => Failure {
                code: NOT_TAKEN,
                message: format!(
                    "the lock \"{name}\" is held by {by}, and was not free within {}. The command was not run. See: \
                     pelago get {name} --rev",
                    self.wait.map_or_else(String::new, show_duration)
                ),
            },
            NotTaken::Trouble(why) => Failure {
                code: UNAVAILABLE,
                message: format!("the lock \"{name}\" was not taken: {why}. The command was not run"),
            },
        }
    }
}

/// The exit code of a command, as a shell shows it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Tells the person who waits.
fn say(text: &str) {
    // Whoever has closed stderr wants to hear nothing.
    let _ = writeln!(io::stderr(), "pelago: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_bounds() {
        assert_eq!(ttl("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(ttl("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["499ms", "61m", "10", "", "-1s"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
        assert_eq!(time("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn codes_are_those_of_a_shell() {
        use std::os::unix::process::ExitStatusExt;
        for (raw, expected) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), expected, "{raw}");
        }
    }
}
