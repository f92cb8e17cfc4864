//! A program on a terminal of its own: what is seen there is read, keys are pressed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::wait::within;

/// For a word to appear on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A program on a terminal of its own.
pub struct Seat {
    child: Child,
    /// The side of the one who types and looks.
    master: OwnedFd,
    /// The side of the program, held open so that its modes can be looked at when the program is gone.
    terminal: OwnedFd,
    modes: LocalModes,
    screen: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
}

impl Seat {
    pub fn take(words: &[&str], environment: &[(&str, &str)], columns: u16, rows: u16) -> Seat {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("UTF-8");
        // The test itself must not be the one whom the terminal belongs to.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&name, flags, Mode::empty()).expect("the program's side");
        let terminal = open();
        tcsetwinsize(&terminal, size(columns, rows)).expect("a size");
        let modes = tcgetattr(&terminal).expect("its modes").local_modes;
        // So that the terminal tells the program of a new size.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_pelago")]).args(words);
        command.env_remove("NO_COLOR").env_remove("RUST_LOG").env("TERM", "xterm-256color");
        // A panic's words are to fit the screen.
        command.env("RUST_BACKTRACE", "0");
        command.envs(environment.iter().copied());
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().expect("pelago starts");
        let screen = Arc::new(Mutex::new((vt100::Parser::new(rows, columns, 0), Vec::new())));
        let mut reader = File::from(master.try_clone().expect("a copy"));
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let mut seen = seen.lock().expect("no poison");
                seen.0.process(&bytes[..count]);
                seen.1.extend_from_slice(&bytes[..count]);
            }
        });
        Seat { child, master, terminal, modes, screen }
    }

    pub fn text(&self) -> String {
        self.screen.lock().expect("no poison").0.screen().contents()
    }

    pub fn wait(&self, what: &str, look: impl Fn(&str) -> bool) -> String {
        let seen = || {
            let text = self.text();
            if look(&text) { Ok(text) } else { Err(format!("\n{text}")) }
        };
        within(SOON, what, seen).0
    }

    pub fn sees(&self, words: &str) -> String {
        self.wait(&format!("{words:?} is seen"), |text| text.contains(words))
    }

    pub fn press(&self, keys: &str) {
        let mut writer = File::from(self.master.try_clone().expect("a copy"));
        writer.write_all(keys.as_bytes()).expect("typed");
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().expect("no poison").0.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, size(columns, rows)).expect("a new size");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }

    /// Waits for the program's end, and the rest of what it wrote, and checks that the terminal is as it was. Returns how it ended, the last screen,
    /// and every byte that was written.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let (status, _) = within(SOON, "the program ends", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}\n{}", self.text())),
        });
        let (enter, back) = ("\x1b[?1049h", "\x1b[?1049l");
        within(SOON, "the alternate screen is left", || {
            let seen = self.screen.lock().expect("no poison");
            let bytes = String::from_utf8_lossy(&seen.1);
            if !bytes.contains(enter) || bytes.contains(back) {
                Ok(())
            } else {
                Err(seen.0.screen().contents())
            }
        });
        let seen = self.screen.lock().expect("no poison");
        let screen = seen.0.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{}", screen.contents());
        let modes = tcgetattr(&self.terminal).expect("its modes").local_modes;
        assert_eq!(modes, self.modes, "keys are lines and are echoed again");
        (status, screen.contents(), String::from_utf8_lossy(&seen.1).into_owned())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

pub fn has_setsid() -> bool {
    let there = Command::new("setsid").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("skipped: there is no setsid (package util-linux)");
    }
    there
}
