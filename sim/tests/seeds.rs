//! Stories that once failed, told again as plans of their own, and a sample of seeds that must
//! replay bit for bit.
//!
//! A seed means something else whenever the derivation of plans changes, so a bug that was found
//! by a seed is kept as the faults that it needs, under several kinds of luck.

use std::time::Duration;

use sim::fault::{Fault, Rot};
use sim::machine::Cluster;
use sim::operator::Step;
use sim::plan::{Plan, Planned};
use sim::shrink::Cut;
use sim::world::World;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three nodes, one group, and these faults at these milliseconds.
fn story(faults: &[(u64, Fault)]) -> Plan {
    let planned = |(n, (at, fault)): (usize, &(u64, Fault))| Planned {
        number: n + 1,
        at: ms(*at),
        fault: fault.clone(),
    };
    Plan {
        seed: 1,
        salt: 0,
        cluster: Cluster {
            nodes: 3,
            spares: 0,
            groups: 1,
            replication: 3,
            shards: 1,
            segment_size: 64 << 10,
            leases: true,
        },
        clients: 4,
        tellers: 0,
        keys: 8,
        value_bytes: 0,
        crowd: false,
        turmoil: ms(5_000),
        recovery: ms(15_000),
        beyond_repair: false,
        faults: faults.iter().enumerate().map(planned).collect(),
    }
}

/// Runs a plan under several kinds of luck.
fn passes(plan: &Plan) -> Vec<sim::world::Report> {
    let run = |salt| match World::aloud(Plan { salt, ..plan.clone() }).run() {
        Ok(report) => report,
        Err(failure) => panic!("salt {salt}: {}\n{}", failure.what, failure.story.join("\n")),
    };
    (1..=8).map(run).collect()
}

fn count(reports: &[sim::world::Report], name: &str) -> u64 {
    let one =
        |r: &sim::world::Report| r.coverage.lines().iter().find(|(n, _)| *n == name).map_or(0, |(_, c)| *c);
    reports.iter().map(one).sum()
}

#[test]
fn seeds_replay_bit_for_bit() {
    for seed in [2, 7, 11, 40, 41, 65] {
        let run = |world: World| world.run().map(|r| (r.hash, r.events)).map_err(|f| f.what);
        let (quiet, aloud) = (World::new(Plan::from_seed(seed)), World::aloud(Plan::from_seed(seed)));
        assert_eq!(run(quiet), run(aloud), "seed {seed}");
    }
}

/// Two born nodes answered each other's words of birth for ever, and a duplicating network made
/// a storm of it. Later a leader took a late word of a follower's earlier life for its
/// confirmation, and so never told the restarted follower who leads.
#[test]
fn birth_words_do_not_breed_and_a_restarted_follower_is_told() {
    let plan = story(&[
        (0, Fault::Duplication { share: 300, by: ms(20), length: ms(4_000) }),
        (0, Fault::MidwayStart { node: 2, operations: 6, log: false }),
        (0, Fault::Reorder { share: 300, by: ms(100), length: ms(4_000) }),
        (1_500, Fault::Kill { node: 1, down: ms(20) }),
        (2_200, Fault::Kill { node: 2, down: ms(20) }),
        (2_900, Fault::Kill { node: 1, down: ms(450) }),
    ]);
    passes(&plan);
}

/// A forwarded command was refused by one copy of its frame and taken by another; the client was
/// told "not applied" and the value appeared later.
#[test]
fn a_duplicated_frame_does_not_turn_not_applied_into_a_lie() {
    let reports = passes(&duplicated_frames());
    assert!(
        count(&reports, "leaderships lost") + count(&reports, "leaderships given up without a majority") > 0
    );
}

fn duplicated_frames() -> Plan {
    let mut faults = vec![
        (300, Fault::Duplication { share: 300, by: ms(20), length: ms(4_500) }),
        (300, Fault::Reorder { share: 100, by: ms(1_000), length: ms(4_500) }),
    ];
    for (at, node) in [(900, 0), (1_700, 1), (2_500, 2), (3_300, 0), (4_100, 1)] {
        faults.push((at, Fault::Pause { node, length: ms(700) }));
    }
    story(&faults)
}

/// After a restart with many open instances a leader refused its own accept as too far ahead,
/// and nobody ever sent it again: the group stood still.
#[test]
fn a_leader_takes_its_own_accepts() {
    let plan = Plan {
        value_bytes: 2_000,
        clients: 6,
        ..story(&[
            (600, Fault::SlowDisk { node: 1, micros: 100_000, share: 0, length: ms(3_000) }),
            (600, Fault::SlowDisk { node: 2, micros: 100_000, share: 0, length: ms(3_000) }),
            (1_000, Fault::Blackout { operations: 3, down: ms(50) }),
            (2_000, Fault::Kill { node: 0, down: ms(900) }),
            (2_300, Fault::Blackout { operations: 2, down: ms(50) }),
            (3_400, Fault::Blackout { operations: 3, down: ms(50) }),
        ])
    };
    passes(&plan);
}

/// A machine takes the places of another while its peers are cut off and die, and comes back later. On the
/// way the first leader of the new members counted on a lease of a disk that followed a leader of the
/// old ones, a parted node took what it had accepted for what was chosen, and a newcomer with a lower
/// number than the others was proposed in an order that nobody could read.
#[test]
fn members_change_while_everything_goes_wrong() {
    let step = Fault::Roster;
    let base = story(&[
        (600, step(Step::Add(3))),
        (900, step(Step::Remove(0))),
        (1_100, Fault::Cut { side: 0b10, both: true, length: ms(900) }),
        (1_300, Fault::Kill { node: 3, down: ms(200) }),
        (2_000, step(Step::Add(4))),
        (2_200, Fault::PartialCut { a: 1, b: 2, length: ms(1_200) }),
        (2_300, step(Step::Replace(2, 0))),
        (2_600, Fault::Blackout { operations: 3, down: ms(60) }),
        (3_200, step(Step::Remove(3))),
        (3_400, Fault::PowerLoss { node: 4, operations: 2, down: ms(100) }),
        (3_600, step(Step::Add(0))),
        (4_000, step(Step::Add(0))),
        (4_300, step(Step::MoveLeader(0, 0))),
    ]);
    let plan = Plan { cluster: Cluster { spares: 2, groups: 3, ..base.cluster.clone() }, ..base };
    let reports = passes(&plan);
    assert!(count(&reports, "groups given up by nodes that were taken out") >= 8);
    assert!(count(&reports, "changes of the roster asked for") >= 40);
}

/// What is synced and then rots is seen at the next start, whatever kind of rot it is; the node
/// goes on as another disk, learns everything and is taken in.
#[test]
fn a_damaged_log_is_put_aside_and_the_node_is_taken_in_again() {
    for rot in [Rot::BitFlip, Rot::LostBlock, Rot::Misplaced] {
        for place in [0, 300, 999] {
            let reports = passes(&damaged(rot, place));
            assert!(count(&reports, "nodes that went on as another disk") >= 8, "{rot:?} at {place}");
            assert!(count(&reports, "new disks proposed as members") >= 8, "{rot:?} at {place}");
        }
    }
}

fn damaged(rot: Rot, place: u64) -> Plan {
    story(&[(2_000, Fault::Damage { node: 0, rot, place })])
}

/// A disk that was put back from an older copy has forgotten what it promised since: it hears so
/// from its peers before it says anything, and goes on as another one.
#[test]
fn an_older_copy_of_a_disk_is_found_out() {
    let reports = passes(&story(&[(1_500, Fault::OldCopy { node: 0, length: ms(3_000) })]));
    let found = count(&reports, "older copies of a disk found out");
    assert!(found >= 4, "found out {found} times");
}

/// Story: answers to a life came late, when an older copy of the disk had begun another life with the same
/// number. It had sent nothing yet, being unproven, and took them for answers to its own requests: a client
/// was told of an addition that its condition had not held.
#[test]
fn late_answers_do_not_meet_the_requests_of_an_unproven_disk() {
    // Both lives are short of answers: they give out the same few numbers.
    for length in (500..1_300).step_by(50) {
        let slow = |from| Fault::SlowLink { from, to: 1, by: ms(311), length: ms(length + 300) };
        passes(&story(&[
            (1_000, Fault::OldCopy { node: 1, length: ms(length) }),
            (1_000, slow(0)),
            (1_000, slow(2)),
        ]));
    }
}

/// An empty disk in the place of a founder's learns everything and is taken in.
#[test]
fn an_empty_disk_is_taken_in() {
    let reports = passes(&empty_disk());
    assert_eq!(count(&reports, "empty disks put into machines of a born cluster"), 8);
    assert!(count(&reports, "new disks proposed as members") >= 8);
}

/// A machine was given an empty disk twice in a moment. One shard of a peer had heard the first of
/// them, the other told the second which lives it knew of: both disks counted their lives from the
/// same number, the second was taken for a late word of the first, and never heard again.
#[test]
fn two_empty_disks_in_a_moment_are_told_apart() {
    let faults: Vec<(u64, Fault)> = (0..6).map(|n| (2_000 + 130 * n, Fault::EmptyDisk { node: 0 })).collect();
    let mut plan = story(&faults);
    (plan.cluster.shards, plan.cluster.groups) = (2, 2);
    passes(&plan);
}

fn empty_disk() -> Plan {
    story(&[(2_000, Fault::EmptyDisk { node: 0 })])
}

/// A full disk stops its own node's log and nothing else, and the node goes on when there is
/// space again.
#[test]
fn a_full_disk_waits_for_space() {
    let plan = Plan {
        value_bytes: 2_000,
        clients: 6,
        ..story(&[(400, Fault::NoSpace { node: 0, spare: 0, length: ms(4_000) })])
    };
    let reports = passes(&plan);
    assert!(count(&reports, "commits that waited for space") > 0);
}

/// An error of the disk ends the process.
#[test]
fn a_failed_sync_or_write_ends_the_process() {
    let reports = passes(&failing_disks());
    assert_eq!(count(&reports, "processes ended by a failing disk"), 16);
}

fn failing_disks() -> Plan {
    story(&[
        (1_000, Fault::SyncError { node: 0, after: 1 }),
        (2_000, Fault::WriteError { node: 1, after: 1 }),
    ])
}

/// Money moves between accounts while leaders die, pause and forget what was not synced: none is made,
/// none is lost, and nobody sees the middle of a transfer.
#[test]
fn transfers_keep_the_sum_whoever_leads() {
    let reports = passes(&transfers());
    assert!(count(&reports, "transfers between accounts") > 100);
    assert!(count(&reports, "transfers that met a change") > 10);
    assert!(count(&reports, "times all accounts were counted") > 10);
    assert!(count(&reports, "leaderships won") > 16, "somebody else leads in between");
}

fn transfers() -> Plan {
    let plan = story(&[
        (300, Fault::Duplication { share: 200, by: ms(20), length: ms(4_500) }),
        (900, Fault::Kill { node: 0, down: ms(600) }),
        (2_000, Fault::Pause { node: 0, length: ms(700) }),
        (3_000, Fault::Blackout { operations: 3, down: ms(50) }),
        (3_800, Fault::Kill { node: 1, down: ms(400) }),
    ]);
    Plan { clients: 1, tellers: 5, ..plan }
}

/// The plans above are worth something only if they fail when the rule they tell of is broken.
#[cfg(feature = "planted")]
#[test]
fn the_plans_fail_with_their_bug_planted() {
    use groups::planted::Bug;
    let fails = |plan: &Plan, bug| {
        let salts = 1..=LUCK_WITH_A_BUG;
        let mut failures = salts.filter_map(|salt| {
            let plan = Plan { salt, ..plan.clone() };
            sim::trial::run(plan, Some(bug), false).result.err().map(|failure| (salt, failure.what))
        });
        let first = failures.next();
        println!("{bug:?}: {first:?}");
        first.is_some()
    };
    assert!(fails(&duplicated_frames(), Bug::FramesCountTwice), "a copy of a frame");
    for rot in [Rot::BitFlip, Rot::LostBlock, Rot::Misplaced] {
        assert!(fails(&damaged(rot, 300), Bug::RotIsTornTail), "{rot:?}");
    }
    for bug in [Bug::TransactionHalfApplied, Bug::GuardIgnored, Bug::NoSessions] {
        assert!(fails(&transfers(), bug), "{bug:?}");
    }
    // One lost sync seldom costs anything; but the process has to end, and goes on.
    let reports = sim::trial::run(failing_disks(), Some(Bug::SyncErrorIgnored), false).result.ok();
    assert!(reports.is_none_or(|r| count(&[r], "processes ended by a failing disk") < 2), "a failing disk");
}

/// So many kinds of luck are tried until a planted bug shows.
#[cfg(feature = "planted")]
const LUCK_WITH_A_BUG: u64 = 200;

#[test]
fn a_cut_is_read_as_it_is_written() {
    let cut =
        Cut { only: Some(vec![3, 7]), clients: Some(1), turmoil: Some(1_500), salt: 2, ..Cut::default() };
    let text = cut.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["--only", "3,7", "--clients", "1", "--turmoil", "1500", "--salt", "2"]);
    assert_eq!(Cut::parse(&words), Ok(cut));
    assert!(Cut::parse(&["--only", "x"]).is_err());
    assert!(Cut::parse(&["--only"]).is_err());
    let numbers: Vec<usize> =
        Cut { only: Some(vec![2]), ..Cut::default() }.of(3).faults.iter().map(|f| f.number).collect();
    assert_eq!(numbers, [2]);
}
