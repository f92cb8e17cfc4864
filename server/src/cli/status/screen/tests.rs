//! What the screen looks like, compared with texts in `snapshots`. `PELAGO_BLESS=1` writes them anew: look at them
//! before they are committed.

use std::path::Path;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui_core::backend::TestBackend;
use ratatui_core::buffer::Buffer;
use ratatui_core::style::Color;
use ratatui_core::terminal::Terminal;

use super::{Pressed, Screen, Tone};
use crate::cli::status::tests::{healthy, without_node_3};
use crate::client::overview::Overview;
use crate::client::survey::Survey;
use crate::status::{LearningLine, TransferLine};

const KEYS: &[(char, &str, &str)] = &[
    ('k', "kill", "end the node that leads most groups with SIGKILL"),
    ('r', "restart", "start again whatever does not run"),
];

fn drawn(screen: &mut Screen, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    terminal
        .draw(|frame| {
            let area = frame.area();
            screen.draw(frame.buffer_mut(), area);
        })
        .expect("drawn");
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let row = |y| -> String { (0..area.width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

fn compare(name: &str, screen: &mut Screen, width: u16, height: u16) {
    let seen = text(&drawn(screen, width, height));
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/status/screen/snapshots")
        .join(format!("{name}-{width}x{height}.txt"));
    if std::env::var_os("PELAGO_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        std::fs::write(&file, &seen).expect("written");
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(seen == wanted, "{} is\n{wanted}and not\n{seen}", file.display());
}

/// A look every second: the nodes have executed more commands each time.
fn looked(screen: &mut Screen, mut survey: Survey, seconds: u64) {
    for second in 0..seconds {
        for node in &mut survey.nodes {
            node.commands += u64::from(node.node) * 100 * (second % 7 + 1);
        }
        screen.look(Duration::from_secs(second), Ok(Overview::of(survey.clone())));
    }
}

fn well(groups: u32) -> Survey {
    let mut survey = healthy(groups);
    for node in &mut survey.nodes {
        node.log.free_bytes = 12 << 30;
        node.log.runway_s = (node.node == 2).then_some(3.5 * 3_600.0);
    }
    survey
}

/// A node that is dead, one that lags, a checkpoint and values on their way.
fn ill() -> Survey {
    let mut survey = without_node_3(16);
    let [first, second] = &mut survey.nodes[..] else { panic!("two nodes") };
    first.groups[0].followers[0].behind = 12_345;
    first.groups[0].followers[0].behind_s = 2.5;
    first.groups[0].applied = 40_000;
    first.alarms.push("this node lags behind its peers: records take 84 ms until they are synced. It has handed over what it led and follows. Look at its disk, and at what else takes processor time here".into());
    first.read_only = Some("nospace".into());
    second.transfers.push(TransferLine {
        group: 0,
        peer: 1,
        incoming: true,
        bytes: 12 << 20,
        expected_bytes: 20 << 20,
        elapsed_s: 4.0,
    });
    second.learning.push(LearningLine {
        group: 1,
        peer: 1,
        incoming: false,
        next: 300,
        target: 1_000,
        bytes: 300_000,
        elapsed_s: 3.0,
    });
    survey
}

fn press(screen: &mut Screen, code: KeyCode) -> Pressed {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn a_healthy_cluster() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut screen = Screen::new(true);
        looked(&mut screen, well(64), 20);
        compare("healthy", &mut screen, width, height);
    }
}

#[test]
fn a_cluster_in_trouble_says_why_and_what_is_on_its_way() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut screen = Screen::new(true);
        looked(&mut screen, ill(), 10);
        compare("trouble", &mut screen, width, height);
    }
}

#[test]
fn the_demo_has_more_keys_and_tells_what_happened() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut screen = Screen::new(true).with(KEYS, vec!["redis-cli -h 127.0.0.1 -p 7001".into()]);
        looked(&mut screen, without_node_3(16), 5);
        screen.say(Tone::Bad, "killed node 3 (pid 103), which led 5 groups");
        screen.doing(Some("bench: 2 s of 5, 2345 puts/s".into()));
        compare("demo", &mut screen, width, height);
        assert_eq!(press(&mut screen, KeyCode::Char('k')), Pressed::Letter('k'));
        press(&mut screen, KeyCode::Char('?'));
        compare("help", &mut screen, width, height);
        assert_eq!(
            press(&mut screen, KeyCode::Char('k')),
            Pressed::Changed,
            "closes the help and kills nothing"
        );
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Pressed::Quit);
    }
}

#[test]
fn before_the_first_look_and_when_nobody_answers_any_more() {
    let mut screen = Screen::new(true);
    assert!(text(&drawn(&mut screen, 80, 24)).contains("asking the nodes …"));
    screen.look(Duration::from_secs(1), Err("127.0.0.1:7001: connection refused".into()));
    let seen = text(&drawn(&mut screen, 80, 24));
    assert!(seen.contains("nobody answers: 127.0.0.1:7001: connection refused"), "{seen}");

    looked(&mut screen, well(16), 3);
    assert!(text(&drawn(&mut screen, 80, 24)).contains(" HEALTHY"));
    screen.look(Duration::from_secs(9), Err("no answer in time".into()));
    let seen = text(&drawn(&mut screen, 80, 24));
    assert!(seen.contains("seen 7 s ago") && !seen.contains("HEALTHY"), "{seen}");
    assert!(screen.tick(Duration::from_secs(10)) && !screen.tick(Duration::from_millis(10_500)));
}

#[test]
fn groups_are_scrolled_and_sorted() {
    let groups = |screen: &mut Screen| -> Vec<u32> {
        let seen = text(&drawn(screen, 80, 24));
        let rows = seen.lines().skip_while(|line| !line.contains("group leader")).skip(1);
        rows.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    };
    let mut survey = well(64);
    survey.nodes[0].groups[33].followers[0].behind = 5;
    survey.nodes[2].groups[9].halted = Some("checksum mismatch".into());
    for node in &mut survey.nodes {
        node.groups[50].bytes = 1 << 30;
    }
    let mut screen = Screen::new(true);
    looked(&mut screen, survey, 2);
    let first = groups(&mut screen);
    assert_eq!(first[0], 0);
    press(&mut screen, KeyCode::Down);
    assert_eq!(groups(&mut screen)[0], 1);
    press(&mut screen, KeyCode::PageDown);
    assert_eq!(groups(&mut screen)[0], 1 + first.len() as u32);
    press(&mut screen, KeyCode::End);
    press(&mut screen, KeyCode::PageDown);
    assert_eq!(groups(&mut screen).last(), Some(&63), "no further than the last");
    press(&mut screen, KeyCode::PageUp);
    press(&mut screen, KeyCode::Up);
    assert_eq!(groups(&mut screen)[0], 63 - 2 * first.len() as u32);
    for wanted in [9, 33, 0, 50, 0] {
        press(&mut screen, KeyCode::Char('s'));
        assert_eq!(groups(&mut screen)[0], wanted, "{:?}", screen.order);
    }
    press(&mut screen, KeyCode::Home);
    assert_eq!(groups(&mut screen), first);
}

#[test]
fn no_size_is_too_small_and_none_too_large() {
    for (width, height) in
        [(0, 0), (1, 1), (3, 2), (20, 5), (79, 10), (119, 3), (120, 4), (121, 12), (400, 200)]
    {
        let mut screen = Screen::new(true).with(KEYS, vec!["about".into()]);
        looked(&mut screen, ill(), 3);
        screen.say(
            Tone::Plain,
            "something happened that takes more than one line on a screen as narrow as some are",
        );
        drawn(&mut screen, width, height);
        press(&mut screen, KeyCode::Char('?'));
        drawn(&mut screen, width, height);
    }
}

#[test]
fn without_colour_not_one_cell_has_one() {
    let coloured = |colour: bool| {
        let mut screen = Screen::new(colour).with(KEYS, Vec::new());
        looked(&mut screen, ill(), 3);
        screen.say(Tone::Good, "done");
        let buffer = drawn(&mut screen, 160, 50);
        buffer.content().iter().filter(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset)).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 500);
}
