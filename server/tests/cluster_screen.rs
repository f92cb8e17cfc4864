//! The screens on a real terminal: keys are pressed, what is seen is read, and the terminal must be as it was before,
//! however the program ends.

mod cluster;

use cluster::{Cluster, Recipe, Seat, TestDir, has_setsid, turn};

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
