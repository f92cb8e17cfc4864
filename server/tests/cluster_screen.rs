//! The screens on a real terminal: keys are pressed, what is seen is read, and the terminal must be as it was before,
//! however the program ends.

mod cluster;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, Recipe, TestDir, turn, within};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// For a word to appear on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A program on a terminal of its own.
struct Seat {
    child: Child,
    /// The side of the one who types and looks.
    master: OwnedFd,
    /// The side of the program, held open so that its modes can be looked at when the program is gone.
    terminal: OwnedFd,
    modes: LocalModes,
    screen: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
}

impl Seat {
    fn take(words: &[&str], environment: &[(&str, &str)], columns: u16, rows: u16) -> Seat {
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

    fn text(&self) -> String {
        self.screen.lock().expect("no poison").0.screen().contents()
    }

    fn wait(&self, what: &str, look: impl Fn(&str) -> bool) -> String {
        let seen = || {
            let text = self.text();
            if look(&text) { Ok(text) } else { Err(format!("\n{text}")) }
        };
        within(SOON, what, seen).0
    }

    fn sees(&self, words: &str) -> String {
        self.wait(&format!("{words:?} is seen"), |text| text.contains(words))
    }

    fn press(&self, keys: &str) {
        let mut writer = File::from(self.master.try_clone().expect("a copy"));
        writer.write_all(keys.as_bytes()).expect("typed");
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().expect("no poison").0.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.master, size(columns, rows)).expect("a new size");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }

    /// Waits for the program's end and checks that the terminal is as it was. Returns how it ended, the last screen,
    /// and every byte that was written.
    fn end(mut self) -> (ExitStatus, String, String) {
        let (status, _) = within(SOON, "the program ends", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}\n{}", self.text())),
        });
        let back = "\x1b[?1049l";
        within(SOON, "the alternate screen is left", || {
            let seen = self.screen.lock().expect("no poison");
            let left = String::from_utf8_lossy(&seen.1).contains(back);
            if left { Ok(()) } else { Err(seen.0.screen().contents()) }
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

fn has_setsid() -> bool {
    let there = Command::new("setsid").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("skipped: there is no setsid (package util-linux)");
    }
    there
}

#[test]
fn the_status_is_watched_by_key_and_left_in_every_way() {
    if !has_setsid() {
        return;
    }
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 32, ..Recipe::default() });
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let addresses = addresses.join(",");
    let words = ["status", "--watch", "--addr", &addresses];

    let seat = Seat::take(&words, &[], 80, 24);
    seat.sees("all 32 groups have a leader, 1 more node may fail");
    seat.sees("HEALTHY");
    seat.press("s");
    seat.sees("sort: trouble");
    seat.press("?");
    seat.sees("any key goes back");
    seat.press("x");
    seat.wait("the help is gone", |text| !text.contains("any key goes back"));
    // Two pages on: the first group is out of sight. The escape sequence is that of PgDn.
    seat.wait("group 0 is listed", |text| text.lines().any(|line| line.starts_with("     0 ")));
    seat.press("\x1b[6~");
    seat.wait("group 0 is out of sight", |text| !text.lines().any(|line| line.starts_with("     0 ")));
    seat.resize(160, 50);
    seat.wait("two columns of parts", |text| text.contains("commands/s ─") && text.contains("slots"));
    seat.resize(80, 24);
    seat.wait("one column again", |text| !text.contains("slots") && text.contains("group leader"));
    cluster.kill(3);
    seat.wait("a dead node", |text| {
        text.contains("dead") && text.contains("2/3 nodes") && text.contains("LOOK")
    });
    seat.press("q");
    let (status, last, bytes) = seat.end();
    assert!(status.success() && !last.contains("pelago"), "{status}, {last}");
    assert!(bytes.contains("\x1b[38;5;"), "in colour");

    let seat = Seat::take(&words, &[("NO_COLOR", "1")], 80, 24);
    seat.sees("dead");
    // Ctrl-C is a key where keys come one by one.
    seat.press("\x03");
    let (status, _, bytes) = seat.end();
    assert!(status.success() && !bytes.contains("\x1b[38;5;"), "{status}: not one colour");

    for name in ["TERM", "INT"] {
        let seat = Seat::take(&words, &[], 80, 24);
        seat.sees("dead");
        seat.signal(name);
        assert!(seat.end().0.success(), "SIG{name}");
    }

    let seat = Seat::take(&words, &[("PELAGO_TEST_PANIC", "screen")], 80, 24);
    seat.sees("dead");
    seat.press("!");
    let (status, last, _) = seat.end();
    assert!(
        !status.success() && last.contains("panicked"),
        "{status}: its words are seen on the usual screen, {last}"
    );
}

#[test]
fn the_demo_kills_cuts_heals_and_restarts_by_key() {
    if !has_setsid() {
        return;
    }
    let _turn = turn();
    let dir = TestDir::new();
    let data = dir.path().join("demo").display().to_string();
    let seat = Seat::take(&["demo", "--data", &data], &[], 100, 40);
    seat.sees("all 16 groups have a leader, 1 more node may fail");
    seat.sees("HEALTHY");
    seat.press("?");
    seat.sees("redis-cli -h 127.0.0.1");
    seat.press("?");

    seat.press("h");
    seat.sees("nothing is cut off");
    seat.press("k");
    seat.sees("kill -9 ");
    seat.wait("a dead node and others that lead", |text| {
        text.contains("dead") && text.contains("all groups have other leaders")
    });
    seat.press("r");
    seat.sees("started node");
    seat.sees("HEALTHY");

    seat.press("p");
    let seen = seat.sees("cut node ");
    let off: String = seen.split("cut node ").nth(1).unwrap_or_default().chars().take(1).collect();
    // The node is there and answers, and hears nobody: what it once led has other leaders.
    seat.wait("the others lead, and nobody is dead", |text| {
        text.matches("all groups have other leaders").count() == 2
            && text.contains("is dropped here")
            && !text.contains(" dead ")
    });
    seat.press("h");
    seat.sees(&format!("healed: node {off}"));
    seat.sees("HEALTHY");

    seat.press("b");
    seat.wait("what came of the load", |text| {
        text.contains("puts/s of 100 bytes") && text.contains("p50 ") && text.contains("p99 ")
    });
    seat.press("v");
    seat.sees("verify: all agree: 16 groups on 3 nodes");
    seat.press("q");
    let (status, last, _) = seat.end();
    assert!(status.success() && last.contains("the data stays in"), "{status}, {last}");
}
