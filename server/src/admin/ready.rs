//! `/livez` and `/readyz`: whether the process is alive, and whether the node is of use to clients.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::look::Own;
use super::{Desk, Serving, Stage};

/// A worker that has had no turn for so long hangs: it has one every few milliseconds.
const HANGS: Duration = Duration::from_secs(10);

/// Why a node is not ready. The words are stable: they are the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The data is being opened.
    Opening,
    /// The cluster is not born.
    Unborn,
    /// The node was told to end.
    Ending,
    /// A worker does not answer.
    Silent,
    /// The node was taken off the cluster.
    TakenOff,
    /// Groups here have no leader that this node knows.
    NoLeader,
    /// Groups have halted here.
    Halted,
    /// The state of groups is missing here and is fetched.
    Rebuilding,
    /// The node's disk votes in no group, or not in all that it should.
    NotVoting,
    /// Writes are refused for lack of disk or memory.
    ReadOnly,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 10] = [
        Code::Opening,
        Code::Unborn,
        Code::Ending,
        Code::Silent,
        Code::TakenOff,
        Code::NoLeader,
        Code::Halted,
        Code::Rebuilding,
        Code::NotVoting,
        Code::ReadOnly,
    ];

    /// As it stands in the JSON and in the metric's label.
    pub fn word(self) -> &'static str {
        match self {
            Code::Opening => "opening",
            Code::Unborn => "unborn",
            Code::Ending => "ending",
            Code::Silent => "silent",
            Code::TakenOff => "taken_off",
            Code::NoLeader => "no_leader",
            Code::Halted => "halted",
            Code::Rebuilding => "rebuilding",
            Code::NotVoting => "not_voting",
            Code::ReadOnly => "read_only",
        }
    }
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For programs.
    pub code: Code,
    /// For people.
    pub text: String,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether there is no reason against it.
    pub ready: bool,
    /// The reasons against it.
    pub reasons: Vec<Reason>,
}

impl Readiness {
    fn of(reasons: Vec<Reason>) -> Readiness {
        Readiness { ready: reasons.is_empty(), reasons }
    }

    /// Of a node that does not serve yet, or no more.
    pub fn before(stage: &Stage) -> Readiness {
        let (code, text) = match stage {
            Stage::Opening => (Code::Opening, "the node opens its data and reads its log".to_owned()),
            Stage::Unborn(waiting) => (Code::Unborn, format!("the cluster is not born yet: {waiting}")),
            Stage::Ending | Stage::Serving(_) => (Code::Ending, "the node ends".to_owned()),
        };
        Readiness::of(vec![Reason { code, text }])
    }
}

/// Whether the node is of use to clients.
pub async fn readiness(desk: &Desk) -> Readiness {
    match desk.board.stage() {
        Stage::Serving(serving) => {
            let own = desk.look.own(&serving).await;
            serving_readiness(&serving, own.as_deref(), desk.board.is_leaving())
        }
        stage => Readiness::before(&stage),
    }
}

/// The same of a node that serves, from a look at it that was taken already.
pub fn serving_readiness(serving: &Serving, own: Result<&Own, &String>, leaving: bool) -> Readiness {
    let mut reasons = Vec::new();
    let mut say = |code, text: String| reasons.push(Reason { code, text });
    if leaving {
        say(Code::Ending, "the node was told to end and hands over what it leads".to_owned());
    }
    if serving.shared.roster.is_off() {
        say(Code::TakenOff, "the node was taken off the cluster: it serves nothing".to_owned());
    }
    match own {
        Err(why) => say(Code::Silent, why.clone()),
        Ok(own) => own_reasons(own, &mut say),
    }
    Readiness::of(reasons)
}

fn own_reasons(own: &Own, say: &mut impl FnMut(Code, String)) {
    let status = &own.status;
    let here = || status.groups.iter();
    let all = status.groups.len();
    let without: Vec<u32> = here().filter(|g| g.leader.is_none()).map(|g| g.group).collect();
    if !without.is_empty() {
        let known = status.nodes.iter().filter(|n| n.alive).count();
        say(
            Code::NoLeader,
            format!(
                "{} have no leader; {known} of {} nodes are alive",
                some(&without, all),
                status.nodes.len()
            ),
        );
    }
    let halted: Vec<u32> = here().filter(|g| g.halted.is_some()).map(|g| g.group).collect();
    if !halted.is_empty() {
        say(Code::Halted, format!("{} have halted here, see the alarms in /status", some(&halted, all)));
    }
    let rebuilding: Vec<u32> = here().filter(|g| g.rebuilding).map(|g| g.group).collect();
    if !rebuilding.is_empty() {
        say(Code::Rebuilding, format!("the state of {} is fetched from peers", some(&rebuilding, all)));
    }
    let strangers: Vec<u32> =
        here().filter(|g| !g.votes && g.wanted.contains(&status.node)).map(|g| g.group).collect();
    if own.reports.iter().any(|r| !r.proven) {
        say(Code::NotVoting, "too few peers have vouched for this disk yet: it votes in no group".to_owned());
    } else if !strangers.is_empty() {
        say(
            Code::NotVoting,
            format!("this disk is new to {} and does not vote there yet", some(&strangers, all)),
        );
    }
    if let Some(why) = &status.read_only {
        say(Code::ReadOnly, format!("writes are refused here ({why}); reads and deletes go on"));
    }
}

/// `3 of 16 groups (0, 3, 6)`; many are not all named.
fn some(groups: &[u32], all: usize) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = groups.iter().take(NAMED).map(u32::to_string).collect();
    if groups.len() > NAMED {
        names.push("…".to_owned());
    }
    format!("{} of {all} groups ({})", groups.len(), names.join(", "))
}

/// Why the process had better be ended and started again, if so.
pub fn hangs(serving: &Serving) -> Option<String> {
    let now = serving.shared.started.elapsed().as_millis() as u64;
    let silent = |turned: u64| Duration::from_millis(now.saturating_sub(turned));
    let longest = serving.shared.turned_ms.iter().map(|t| silent(t.load(Ordering::Relaxed))).max()?;
    (longest > HANGS).then(|| format!("a worker has had no turn for {} s", longest.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_json() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(&code).expect("a word"), format!("\"{}\"", code.word()));
        }
    }

    #[test]
    fn who_does_not_serve_is_not_ready_and_says_why() {
        let waiting = Stage::Unborn("node 3 is missing".to_owned());
        let not_ready = Readiness::before(&waiting);
        assert!(!not_ready.ready);
        assert_eq!(not_ready.reasons[0].code, Code::Unborn);
        assert!(not_ready.reasons[0].text.contains("node 3 is missing"));
        assert_eq!(Readiness::before(&Stage::Opening).reasons[0].code, Code::Opening);
        assert_eq!(Readiness::before(&Stage::Ending).reasons[0].code, Code::Ending);
    }

    #[test]
    fn many_groups_are_not_all_named() {
        assert_eq!(some(&[1], 16), "1 of 16 groups (1)");
        assert_eq!(some(&[0, 1, 2, 3, 4, 5], 16), "6 of 16 groups (0, 1, 2, 3, 4, …)");
    }
}
