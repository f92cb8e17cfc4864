//! The command under a lock, as a process.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};

use clap::Args;
use rustix::process::{
    Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};

use crate::cli::Failure;

/// A command that runs, with everything that it starts.
pub struct Child {
    child: std::process::Child,
    pid: Pid,
    /// Whether it leads a process group of its own, which is then signalled as a whole.
    group: bool,
}

impl Child {
    /// Starts it. It finds the lock's token in its environment, and where the nodes are.
    ///
    /// # Errors
    /// When this program cannot be started once more; a command that cannot be started shows in its exit
    /// code.
    pub fn spawn(command: &[OsString], name: &[u8], token: u64, addresses: &[String]) -> io::Result<Child> {
        let mut through = Command::new(std::env::current_exe()?);
        through.arg("lock-command").arg(std::process::id().to_string()).arg("--").args(command);
        through.env("PELAGO_FENCE", token.to_string()).env("PELAGO_LOCK", OsStr::from_bytes(name));
        through.env("PELAGO_ADDR", addresses.join(","));
        // At a terminal it must stay in the group that may read from it; Ctrl-C reaches it by itself there.
        let group = !io::stdin().is_terminal();
        if group {
            through.process_group(0);
        }
        let child = through.spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Child { child, pid, group })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Fails only where it has ended, which the next look at it shows.
        let _ = match self.group {
            true => kill_process_group(self.pid, signal),
            false => kill_process(self.pid, signal),
        };
    }
}

/// Becomes the command of `pelago lock`, in the process that it has started
#[derive(Debug, Args)]
#[command(after_help = "Example: pelago lock-command 1 -- true")]
pub struct LockCommand {
    /// The process that holds the lock
    holder: i32,

    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl LockCommand {
    /// Nobody renews the lock when its holder is gone, so the command hears of that too. This outlives the
    /// exec.
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let orphaned = |why: &str| Failure { code: 126, message: format!("{why}. The command was not run") };
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|e| orphaned(&format!("could not ask to hear of the holder's end: {e}")))?;
        if getppid().map(Pid::as_raw_pid) != Some(self.holder) {
            return Err(orphaned("the holder of the lock is gone"));
        }
        let Some((program, words)) = self.command.split_first() else { return Err(orphaned("no command")) };
        // Returns only when it could not be started.
        let error = Command::new(program).args(words).exec();
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let program = program.to_string_lossy();
        Err(Failure { code, message: format!("could not start {program}: {error}. The command was not run") })
    }
}
