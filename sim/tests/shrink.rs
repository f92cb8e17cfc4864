//! `--plant`, `replay` and `shrink` on seeds that really fail, through the program as people start it.
//!
//! Run with `cargo test --release -p sim --features planted --test shrink`; without the feature only the refusal
//! of `--plant` and a passing seed are looked at.

use std::process::{Command, Output};

const SIM: &str = env!("CARGO_BIN_EXE_sim");

fn sim(words: &[&str]) -> Output {
    Command::new(SIM).args(words).output().expect("the program starts")
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// What stands behind a mark, up to the end of its line.
fn behind(output: &Output, mark: &str) -> Option<String> {
    let text = text(&output.stdout);
    text.lines().find_map(|line| line.split_once(mark).map(|(_, rest)| rest.to_owned()))
}

#[test]
fn a_seed_replayed_in_two_processes_has_one_hash() {
    let runs = [sim(&["replay", "7"]), sim(&["replay", "7"])];
    for run in &runs {
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stdout));
    }
    let hashes = runs.map(|run| behind(&run, "event hash "));
    assert!(hashes[0].is_some());
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (words, part) in [
        (vec!["replay", "x"], "\"x\" is no seed"),
        (vec!["swarm"], "--seeds is missing"),
        (vec!["replay", "1", "--salt"], "--salt needs a value"),
        (vec!["shrink", "1", "--speed", "3"], "there is no option --speed"),
    ] {
        let output = sim(&words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(text(&output.stderr).contains(part), "{words:?}: {}", text(&output.stderr));
    }
}

#[cfg(not(feature = "planted"))]
#[test]
fn planting_needs_the_feature() {
    for words in
        [["swarm", "--seeds", "1", "--plant", "NoProbe"].as_slice(), &["shrink", "1", "--plant", "x"]]
    {
        let output = sim(words);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--features planted"));
    }
}

#[cfg(feature = "planted")]
mod planted {
    use std::path::Path;
    use std::time::Duration;

    use groups::planted::Bug;
    use sim::plan::Plan;
    use sim::shrink::{Cut, shrink, symptom};
    use sim::trial;

    use super::{SIM, behind, sim, text};

    #[test]
    fn an_unknown_bug_is_refused_with_the_nearest_name() {
        let output = sim(&["replay", "1", "--plant", "readwithoutbarier"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains("did you mean ReadWithoutBarrier?"),
            "{}",
            text(&output.stderr)
        );
    }

    #[test]
    fn a_planted_seed_shrinks_to_a_command_that_fails_alike() {
        let plant = Some(Bug::SyncErrorIgnored);
        let many = |seed: &u64| Plan::from_seed(*seed).faults.len() >= 8;
        let seed = (1..=500)
            .filter(many)
            .find(|seed| trial::run(Plan::from_seed(*seed), plant, false).result.is_err())
            .expect("the bug shows in 500 seeds");
        let (program, whole) = (Path::new(SIM), Cut { plant, ..Cut::default() });
        let plan = whole.of(seed);
        let cut =
            shrink(program, seed, &whole, Duration::from_secs(8)).expect("it fails in another process, too");
        let small = cut.of(seed);
        assert!(small.faults.len() * 2 <= plan.faults.len(), "{cut}");
        assert!(small.turmoil <= plan.turmoil && small.clients <= plan.clients, "{cut}");
        let (before, after) = (symptom(program, seed, &whole), symptom(program, seed, &cut));
        assert_eq!(before.map(|s| s.words), after.as_ref().map(|s| s.words.clone()), "{cut}");
        assert_eq!(after, symptom(program, seed, &cut), "{cut}");
        // The command that is told says all of it.
        let options = cut.to_string();
        let words = ["replay".to_owned(), seed.to_string()].into_iter();
        let words: Vec<String> = words.chain(options.split_whitespace().map(str::to_owned)).collect();
        let output = sim(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(behind(&output, "event hash "), after.map(|s| s.hash));
        let command = behind(&output, "replay it with: ").expect("a failure is told with its command");
        assert_eq!(command, cut.command(&format!("replay {seed}")));
        assert!(command.contains("--features planted") && command.ends_with("--plant SyncErrorIgnored"));
    }
}
