//! A group and its mirror: what is handed over makes the same state, the log is let go of only
//! behind a durable point, a checkpoint leaves the promise alone, and a log that begins late is
//! read back for what it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use groups::group::{Group, Limits, Seat, Submission};
use groups::ids::{Ballot, Boot, GroupId, InstanceId, Member, NodeId, StorageId};
use groups::kv::value::{Batch, lead};
use groups::kv::{BadImage, Command, Condition, Fold, Image, State, StateHash, Ticket, Want};
use groups::log::Record;
use groups::mirrored::{Demand, MirrorLimits, MirrorOrder};
use groups::paxos::message::{Accept, Advance, Entry, Learn, Mark, Then, Values};
use groups::paxos::{Halt, Members, Message, Ready, Tuning, chain};
use groups::peers::{Peers, Proof};
use groups::random::Random;
use groups::replay::Replay;
use groups::time::Time;

const G: GroupId = GroupId(0);
const LIMITS: MirrorLimits = MirrorLimits { fold_keys: 3, fold_entries: 1000, keep_entries: 2 };

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn ticket(number: u64) -> Ticket {
    Ticket { node: NodeId(1), boot: Boot(1), number, behind: 0 }
}

fn put(key: &str, value: &str) -> Command {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Command::Put { key, value, condition: Condition::None, want: Want::Done }
}

fn value(number: u64, command: &Command) -> Bytes {
    let mut batch = Batch::new();
    batch.push(ticket(number), &command.to_bytes());
    batch.finish()
}

fn disk(node: NodeId) -> Member {
    Member { node, storage: StorageId(node.0.into()) }
}

fn alone() -> Peers {
    let proof = Proof::alone(StorageId(1));
    Peers::new(NodeId(1), Boot(1), 0, 1, Tuning::default().election_timeout, &[NodeId(1)], proof)
}

fn group(members: &[u32], replay: Replay) -> Group {
    let members: Vec<NodeId> = members.iter().copied().map(NodeId).collect();
    let seat = Seat {
        group: G,
        founders: Members::new(members.iter().map(|n| disk(*n)).collect()),
        preference: members,
        replay,
    };
    let limits = Limits { mirror: Some(LIMITS), ..Limits::default() };
    Group::new(seat, disk(NodeId(1)), Boot(1), Arc::new(Tuning::default()), Arc::new(limits), at(1))
}

/// A group of one member, which leads, with everything that it was asked to do done.
struct Alone {
    group: Group,
    peers: Peers,
    random: Random,
    now: u64,
    number: u64,
    records: Vec<Record>,
    orders: Vec<MirrorOrder>,
}

impl Alone {
    fn new() -> Alone {
        let peers = alone();
        let mut alone = Alone {
            group: group(&[1], Replay::mirrored()),
            peers,
            random: Random::new(7),
            now: 1,
            number: 0,
            records: Vec::new(),
            orders: Vec::new(),
        };
        while !alone.group.replica.is_leader() {
            alone.pass(100);
        }
        alone
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        let mut ready = Ready::default();
        self.group.replica.tick(at(self.now), &self.peers, &mut self.random, &mut ready);
        self.turn(ready);
    }

    fn turn(&mut self, mut ready: Ready) {
        let now = at(self.now);
        loop {
            let mut orders = Vec::new();
            self.group.turn(now, &self.peers, &mut ready, &mut Vec::new(), &mut orders);
            self.orders.extend(orders.into_iter().map(|(_, order)| order));
            self.records.append(&mut ready.records);
            let own = std::mem::take(&mut ready.send_after_sync);
            if own.is_empty() {
                return;
            }
            for envelope in own {
                let me = NodeId(1);
                self.group.replica.step(me, envelope.message, now, &self.peers, &mut self.random, &mut ready);
            }
        }
    }

    fn run(&mut self, command: &Command) {
        self.number += 1;
        let submission =
            Submission { ticket: ticket(self.number), read: false, after: 0, command: command.to_bytes() };
        self.group.submit(submission, at(self.now), &mut Vec::new());
        self.turn(Ready::default());
    }

    fn applied(&self) -> InstanceId {
        self.group.state().applied()
    }

    fn take_fold(&mut self) -> Option<Fold> {
        match self.orders.pop() {
            Some(MirrorOrder::Fold(fold)) => Some(fold),
            Some(other) => panic!("not a fold: {other:?}"),
            None => None,
        }
    }

    fn mirror_says(&mut self, say: impl FnOnce(&mut groups::mirrored::Mirrored)) {
        say(self.group.mirrored().expect("a mirror"));
        self.turn(Ready::default());
    }

    fn anchors(&self) -> Vec<InstanceId> {
        let anchor = |record: &Record| match record {
            Record::Anchor { instance, .. } => Some(*instance),
            _ => None,
        };
        self.records.iter().filter_map(anchor).collect()
    }
}

#[test]
fn folds_one_after_the_other_make_the_state() {
    let mut alone = Alone::new();
    let mut mirror = BTreeMap::new();
    let mut stands = InstanceId::ZERO;
    let mut folds = 0;
    for n in 0..200_u64 {
        let key = format!("k{}", n * 7 % 11);
        let command = match n % 5 {
            0..=2 => put(&key, &format!("v{n}")),
            3 => Command::Delete { keys: vec![Bytes::from(key)] },
            _ => Command::Append { key: Bytes::from(key), value: Bytes::from_static(b"+"), max: 99 },
        };
        alone.run(&command);
        if let Some(fold) = alone.take_fold() {
            folds += 1;
            assert_eq!(fold.from, stands, "a fold continues where the last one ended");
            for (key, item) in fold.items {
                match item {
                    Some(item) => mirror.insert(key, item),
                    None => mirror.remove(&key),
                };
            }
            let mut hash = StateHash::EMPTY;
            mirror.iter().for_each(|(k, i)| hash.add(k, &i.value, i.revision, 0));
            assert_eq!(hash, fold.head.hash, "fold {folds}");
            let items = mirror.iter().map(|(k, i)| (k.clone(), i.clone())).collect();
            let image = Image { head: fold.head.clone(), sessions: fold.sessions, items };
            let state = image.into_state().expect("what was handed over is a state");
            assert_eq!((state.revision(), state.epoch()), (fold.head.revision, fold.head.epoch));
            stands = fold.head.applied;
            let answered = stands;
            alone.mirror_says(|m| m.folded(answered));
        }
    }
    assert!(folds > 20, "{folds} folds");
}

#[test]
fn one_fold_is_under_way_at_most_and_a_lost_mirror_gets_everything() {
    let mut alone = Alone::new();
    for n in 0..30 {
        alone.run(&put(&format!("k{n}"), "v"));
    }
    assert_eq!(alone.orders.len(), 1, "the first fold was not answered");
    alone.orders.clear();
    alone.mirror_says(groups::mirrored::Mirrored::lost);
    let Some(MirrorOrder::Refill(image)) = alone.orders.pop() else { panic!("everything anew") };
    assert_eq!((image.items.len(), image.head.applied), (30, alone.applied()));
    let hash = alone.group.state().hash();
    assert_eq!(image.into_state().expect("a state").hash(), hash);
}

#[test]
fn an_image_that_is_not_what_it_says_is_no_state() {
    let mut state = State::default();
    state.apply(InstanceId(1), value(1, &put("a", "1")), &mut |_, _| {}).expect("applies");
    state.apply(InstanceId(2), value(2, &put("b", "2")), &mut |_, _| {}).expect("applies");
    let mut image = state.image(0);
    image.items.swap(0, 1);
    assert_eq!(image.into_state().unwrap_err(), BadImage::Unsorted);
    let mut image = state.image(0);
    image.items[0].1.revision += 1;
    assert!(matches!(image.into_state().unwrap_err(), BadImage::Hash { .. }));
    let mut image = state.image(0);
    image.items.pop();
    assert!(matches!(image.into_state().unwrap_err(), BadImage::Hash { .. }));
    let mut image = state.image(0);
    image.sessions = Bytes::from_static(b"\x01\x01");
    assert_eq!(image.into_state().unwrap_err(), BadImage::Sessions);
}

#[test]
fn the_log_is_let_go_of_behind_a_durable_point_and_not_before() {
    let mut alone = Alone::new();
    for n in 0..10 {
        alone.run(&put(&format!("k{}", n % 3), "v"));
    }
    let fold = alone.take_fold().expect("three keys have changed");
    let (folded, through) = (fold.head.applied, alone.applied());
    let demand = Demand { through, urgent: true };
    alone.group.compact(demand);
    alone.mirror_says(|m| m.folded(folded));
    let rest = alone.take_fold().expect("what the log is to let go of is folded at once");
    alone.mirror_says(|m| m.folded(rest.head.applied));
    assert!(matches!(alone.orders.pop(), Some(MirrorOrder::Settle)));
    assert!(alone.anchors().is_empty(), "nothing is durable yet");
    // An older point does not do.
    alone.mirror_says(|m| m.settled(Mark { instance: folded, chain: 0 }));
    assert!(alone.anchors().is_empty());
    let mark = alone.group.replica.mark();
    alone.group.compact(demand);
    alone.mirror_says(|m| m.settled(mark));
    assert_eq!(alone.anchors(), [through]);
}

#[test]
fn values_are_kept_for_slow_learners_unless_space_runs_out() {
    let mut alone = Alone::new();
    for n in 0..3 {
        alone.run(&put(&format!("k{n}"), "v"));
    }
    let fold = alone.take_fold().expect("three keys have changed");
    let mark = alone.group.replica.mark();
    alone.mirror_says(|m| m.folded(fold.head.applied));
    alone.group.compact(Demand { through: mark.instance, urgent: false });
    alone.mirror_says(|m| m.settled(mark));
    assert!(alone.anchors().is_empty(), "the last {} values stay", LIMITS.keep_entries);
    for n in 0..LIMITS.keep_entries {
        alone.run(&put(&format!("k{n}"), "w"));
    }
    assert_eq!(alone.anchors(), [mark.instance], "now they lie behind it");
    alone.group.compact(Demand { through: alone.applied(), urgent: true });
    alone.orders.clear();
    alone.turn(Ready::default());
    assert!(matches!(alone.orders.pop(), Some(MirrorOrder::Fold(_))), "urgent: the mirror is hurried");
}

#[test]
fn a_checkpoint_leaves_the_promise_and_what_was_accepted_beyond_it() {
    let mut follower = group(&[1, 2, 3], Replay::mirrored());
    let peers = alone();
    let mut random = Random::new(3);
    let mut ready = Ready::default();
    let ballot = Ballot { round: 4, node: NodeId(2) };
    for instance in [2, 5].map(InstanceId) {
        let accept = Accept { ballot, instance, mark: Mark::default(), value: value(9, &put("x", "y")) };
        follower.replica.step(NodeId(2), Message::Accept(accept), at(2), &peers, &mut random, &mut ready);
    }
    let mut state = State::default();
    let mut sum = 0;
    for n in 1..=3 {
        let value = value(n, &put("k", &n.to_string()));
        sum = chain(sum, &value);
        state.apply(InstanceId(n), value, &mut |_, _| {}).expect("applies");
    }
    ready.records.clear();
    let mark = Mark { instance: InstanceId(3), chain: sum };
    let copy = state.image(sum).into_state().expect("a state");
    follower.install(mark, copy, at(3), &mut ready);
    follower.turn(at(3), &peers, &mut ready, &mut Vec::new(), &mut Vec::new());
    assert_eq!(follower.replica.mark(), Mark { instance: InstanceId(3), chain: sum });
    assert_eq!(follower.replica.promised(), ballot, "rule 25");
    assert_eq!(follower.replica.open().keys().copied().collect::<Vec<_>>(), [InstanceId(5)]);
    assert_eq!(follower.state().hash(), state.hash());
    let anchor =
        Record::Anchor { group: G, instance: InstanceId(3), chain: sum, ballot, members: Bytes::new() };
    assert_eq!(ready.records, [anchor], "a later start knows that the prefix is chosen");
    // An older one changes nothing.
    follower.install(Mark::default(), State::default(), at(4), &mut ready);
    assert_eq!(follower.state().hash(), state.hash());
}

/// A learner was told by one peer that its log begins with instance 50, and looked for a checkpoint that
/// reaches so far. That peer then lost its mirror, and with it the only such checkpoint; the log of
/// another began with instance 20, and its checkpoint would have done, but the learner insisted on 49 and
/// stood for ever (simulator, seed 1019918).
#[test]
fn a_log_that_begins_sooner_makes_do_with_an_older_checkpoint() {
    let (mut learner, me) = (group(&[1, 2, 3], Replay::mirrored()), NodeId(1));
    let nodes = [1, 2, 3].map(NodeId);
    let timeout = Tuning::default().election_timeout;
    let peers = Peers::new(me, Boot(1), 0, 1, timeout, &nodes, Proof::alone(StorageId(1)));
    let (mut random, mut now) = (Random::new(7), 2);
    let ballot = Ballot { round: 1, node: NodeId(2) };
    let mark = Mark { instance: InstanceId(100), chain: 9 };
    let mut told = Some((NodeId(2), Message::Advance(Advance::new(ballot, mark, 0))));
    let mut wanted = Vec::new();
    // The third log begins later than the second: what is wanted stays.
    let mut beginnings = [50, 20, 50].map(InstanceId).into_iter();
    for _ in 0..1_000 {
        let mut ready = Ready::default();
        if let Some((from, message)) = told.take() {
            learner.replica.step(from, message, at(now), &peers, &mut random, &mut ready);
        }
        now += 100;
        learner.replica.tick(at(now), &peers, &mut random, &mut ready);
        let mut orders = Vec::new();
        learner.turn(at(now), &peers, &mut ready, &mut Vec::new(), &mut orders);
        wanted.extend(orders.into_iter().map(|(_, order)| match order {
            MirrorOrder::Fetch { least, .. } => least,
            other => panic!("not a fetch: {other:?}"),
        }));
        let asked = ready.send_now.into_iter().find_map(|envelope| match envelope.message {
            Message::Learn(Learn { session, from, credit: 1.. }) => Some((envelope.to, session, from)),
            _ => None,
        });
        let Some((source, session, first)) = asked else { continue };
        let Some(begins) = beginnings.next() else { break };
        let values = Values { session, first, then: Then::Begins(begins), entries: Vec::new() };
        told = Some((source, Message::Values(values)));
    }
    assert_eq!(wanted, [49, 19, 19].map(InstanceId));
}

fn accept(instance: u64, number: u64) -> Record {
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let value = value(number, &put("k", &number.to_string()));
    Record::Accept { group: G, instance: InstanceId(instance), ballot, value }
}

fn watermark(instance: u64) -> Record {
    Record::Watermark { group: G, first: InstanceId::ZERO, instance: InstanceId(instance) }
}

fn replayed(from: Replay, records: Vec<Record>) -> (bool, Group) {
    let mut replay = from;
    records.into_iter().for_each(|record| replay.record(record));
    (replay.is_mirror_ahead(), group(&[1, 2, 3], replay))
}

fn state_after(values: u64) -> (State, u64) {
    let (mut state, mut sum) = (State::default(), 0);
    for n in 1..=values {
        let value = value(n, &put("k", &n.to_string()));
        sum = chain(sum, &value);
        state.apply(InstanceId(n), value, &mut |_, _| {}).expect("applies");
    }
    (state, sum)
}

/// Log GC drops segments from the front, so a log may begin with a watermark whose values are
/// gone, in front of the anchor that stands for them. The watermark alone was once taken for
/// the proof that chosen values are missing, and a node whose mirror was lost stopped its group for
/// good.
#[test]
fn a_log_may_begin_with_a_watermark_whose_anchor_comes_later() {
    let (_, sum) = state_after(4);
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let records = vec![
        watermark(4),
        accept(5, 5),
        Record::Anchor { group: G, instance: InstanceId(4), chain: sum, ballot, members: Bytes::new() },
        watermark(5),
        accept(6, 6),
    ];
    let (_, group) = replayed(Replay::mirrored(), records);
    assert_eq!(group.replica.halted(), None);
    assert_eq!(group.replica.mark().instance, InstanceId(5));
    assert_eq!(group.replica.mark().chain, state_after(5).1);
    assert!(group.is_rebuilding(), "the state behind the anchor has to come from a peer");
    assert_eq!(group.replica.open().len(), 1, "it reports what it has accepted");
}

#[test]
fn chosen_values_that_nothing_stands_for_stop_the_group() {
    let records = vec![accept(2, 2), watermark(2)];
    let (_, group) = replayed(Replay::mirrored(), records);
    assert_eq!(group.replica.halted(), Some(&Halt::Missing { instance: InstanceId(1) }));
}

#[test]
fn an_anchor_whose_values_are_all_here_takes_nothing_away() {
    let (state, sum) = state_after(3);
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let anchor =
        Record::Anchor { group: G, instance: InstanceId(3), chain: sum, ballot, members: Bytes::new() };
    let records = vec![accept(1, 1), accept(2, 2), accept(3, 3), anchor.clone()];
    let (_, group) = replayed(Replay::mirrored(), records);
    assert!(!group.is_rebuilding());
    assert_eq!(group.state().hash(), state.hash());
    // Accepted in their place, but not chosen: the checksum tells.
    let records = vec![accept(1, 1), accept(2, 7), accept(3, 3), anchor];
    let (_, group) = replayed(Replay::mirrored(), records);
    assert!(group.is_rebuilding());
    assert_eq!(group.state().applied(), InstanceId::ZERO, "nothing of it was applied");
    assert_eq!(group.replica.mark(), Mark { instance: InstanceId(3), chain: sum });
}

#[test]
fn a_mirror_that_contradicts_the_log_stops_the_group() {
    let (state, sum) = state_after(3);
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let anchor =
        Record::Anchor { group: G, instance: InstanceId(3), chain: sum ^ 1, ballot, members: Bytes::new() };
    let (_, group) = replayed(Replay::from_mirror(state, sum), vec![anchor]);
    assert!(matches!(group.replica.halted(), Some(Halt::Checkpoint { .. })));
}

/// A follower applies learned values while their records wait for the disk. It folded them into
/// the mirror, died before the sync, and came back with a mirror that was ahead of its log; what
/// it accepted next was logged behind a hole. When the power failed before the mirror was synced,
/// the hole was all that was left (simulator, seed 1419 of the first swarm with mirrors).
#[test]
fn a_mirror_that_is_ahead_of_the_log_is_noticed() {
    let (state, sum) = state_after(3);
    let (ahead, _) =
        replayed(Replay::from_mirror(state, sum), vec![accept(1, 1), watermark(1), accept(3, 3)]);
    assert!(ahead, "the log has no value for instance 2");
    let (state, sum) = state_after(3);
    let records = vec![accept(1, 1), accept(3, 3), accept(2, 2), watermark(3)];
    assert!(!replayed(Replay::from_mirror(state, sum), records).0);
    let (state, sum) = state_after(3);
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let anchor = Record::Anchor {
        group: G,
        instance: InstanceId(2),
        chain: state_after(2).1,
        ballot,
        members: Bytes::new(),
    };
    let records = vec![accept(3, 3), anchor, watermark(3)];
    assert!(!replayed(Replay::from_mirror(state, sum), records).0);
    assert!(!replayed(Replay::mirrored(), vec![lead_record()]).0, "without a mirror there is nothing ahead");
}

/// A mirror that has three values.
fn mirror() -> Replay {
    let (state, sum) = state_after(3);
    Replay::from_mirror(state, sum)
}

/// Where the values begin that the group teaches node 3, which asks for those from `from` on.
fn teaches_from(group: &mut Group, from: u64) -> Option<InstanceId> {
    let (mut ready, mut random) = (Ready::default(), Random::new(3));
    // A session that is over stays so.
    let session = from + group.replica.counters.log_reads;
    let learn = Message::Learn(Learn { session, from: InstanceId(from), credit: 1 << 20 });
    group.replica.step(NodeId(3), learn, at(4), &alone(), &mut random, &mut ready);
    if let Some(read) = ready.log_reads.pop() {
        return Some(read.from);
    }
    match ready.send_now.into_iter().chain(ready.send_after_sync).next()?.message {
        Message::Values(Values { then: Then::Begins(first), .. }) => Some(first),
        _ => None,
    }
}

/// A replica had accepted a value that was never chosen, in an instance that a checkpoint then went
/// beyond. Its log had a record of every instance up to there, and after a restart it taught that value
/// as the chosen one (simulator, seed 3001150).
#[test]
fn what_was_accepted_before_a_checkpoint_came_is_taught_to_nobody() {
    let (state, sum) = state_after(3);
    let mark = Mark { instance: InstanceId(3), chain: sum };
    let mut log = vec![accept(1, 1), watermark(1)];
    log.extend([accept(2, 7), accept(3, 3)]);
    let (_, mut follower) = replayed(Replay::mirrored(), log.clone());
    assert_eq!(teaches_from(&mut follower, 1), Some(InstanceId(1)), "its log vouches for it");
    let mut ready = Ready::default();
    follower.install(mark, state, at(3), &mut ready);
    assert_eq!(teaches_from(&mut follower, 1), Some(InstanceId(4)), "it was not chosen");
    assert_eq!(teaches_from(&mut follower, 4), None, "nothing more is chosen");
    log.append(&mut ready.records);

    // After a restart, with its checkpoint and without.
    for replay in [mirror(), Replay::mirrored()] {
        let (_, mut follower) = replayed(replay, log.clone());
        assert_eq!(follower.replica.mark(), mark);
        assert_eq!(teaches_from(&mut follower, 1), Some(InstanceId(4)));
        assert_eq!(teaches_from(&mut follower, 2), Some(InstanceId(4)));
    }
    // And when what was chosen later has been marked.
    let (_, mut follower) = replayed(mirror(), log.clone());
    follower.replica.mark_chosen(&mut ready);
    let confession = Record::Watermark { group: G, first: InstanceId(4), instance: InstanceId(3) };
    assert_eq!(ready.records, std::slice::from_ref(&confession));
    log.extend([confession, accept(4, 4)]);
    log.push(Record::Watermark { group: G, first: InstanceId(4), instance: InstanceId(4) });
    for replay in [mirror(), Replay::mirrored()] {
        let (_, mut follower) = replayed(replay, log.clone());
        assert_eq!(follower.replica.mark().instance, InstanceId(4));
        assert_eq!(teaches_from(&mut follower, 2), Some(InstanceId(4)));
        assert_eq!(teaches_from(&mut follower, 4), Some(InstanceId(4)), "this it knows");
    }
}

/// As above, but it was the mirror that went beyond the log: values were folded before their
/// records were on the disk. Where the log had accepted others, it seemed to have them all.
#[test]
fn what_a_log_has_accepted_is_not_what_the_mirror_has_applied() {
    let mut log = vec![accept(1, 1), watermark(1), accept(2, 7), accept(3, 3)];
    let (ahead, mut group) = replayed(mirror(), log.clone());
    assert!(ahead, "the log does not call it chosen");
    assert_eq!(teaches_from(&mut group, 2), Some(InstanceId(4)));
    // What it learns next stands behind the word that the log is not to be trusted before it.
    let mut ready = Ready::default();
    let (peers, mut random) = (alone(), Random::new(3));
    let ballot = Ballot { round: 2, node: NodeId(2) };
    let more = Mark { instance: InstanceId(4), chain: state_after(4).1 };
    let advance = Message::Advance(Advance::new(ballot, more, 0));
    group.replica.step(NodeId(2), advance, at(4), &peers, &mut random, &mut ready);
    group.replica.tick(at(500), &peers, &mut random, &mut ready);
    let asked = ready.send_now.iter().find_map(|envelope| match envelope.message {
        Message::Learn(Learn { session, credit: 1.., .. }) => Some((envelope.to, session)),
        _ => None,
    });
    let (source, session) = asked.expect("it learns");
    let entries = vec![Entry { instance: InstanceId(4), ballot, value: value(4, &put("k", "4")) }];
    let values = Values { session, first: InstanceId(4), then: Then::End, entries };
    group.replica.step(source, Message::Values(values), at(501), &peers, &mut random, &mut ready);
    assert_eq!(group.replica.mark(), more);
    let said: Vec<Record> =
        ready.records.into_iter().filter(|record| !matches!(record, Record::Promise { .. })).collect();
    let confession = Record::Watermark { group: G, first: InstanceId(4), instance: InstanceId(3) };
    assert_eq!(said[0], confession);
    assert!(matches!(said[1], Record::Chosen { instance: InstanceId(4), .. }));
    log.extend(said);
    let (ahead, _) = replayed(mirror(), log.clone());
    assert!(ahead, "the next start must anchor it still");
    // If the mirror is lost before an anchor stands in the log, nothing is made of the wrong values.
    let (_, lost) = replayed(Replay::mirrored(), log.clone());
    assert_eq!(lost.replica.halted(), Some(&Halt::Missing { instance: InstanceId(2) }));
    assert_eq!(lost.state().applied(), InstanceId(1));
    // Behind one it is the state alone that is missing.
    log.push(Record::Anchor {
        group: G,
        instance: InstanceId(3),
        chain: state_after(3).1,
        ballot,
        members: Bytes::new(),
    });
    let (_, lost) = replayed(Replay::mirrored(), log);
    assert_eq!((lost.replica.halted(), lost.replica.mark()), (None, more));
    assert!(lost.is_rebuilding());
}

/// The doubt was groundless: the log had the chosen values, and only the watermark was not written yet when the
/// process died. They were thrown away for it when the mirror was lost later, although the anchor's
/// checksum proved them, and no other member had a checkpoint.
#[test]
fn what_an_anchor_proves_is_used_even_where_it_was_doubted() {
    let (state, sum) = state_after(3);
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let log = vec![
        accept(1, 1),
        watermark(1),
        accept(2, 2),
        accept(3, 3),
        Record::Watermark { group: G, first: InstanceId(4), instance: InstanceId(3) },
        Record::Anchor { group: G, instance: InstanceId(3), chain: sum, ballot, members: Bytes::new() },
    ];
    let (_, group) = replayed(Replay::mirrored(), log);
    assert_eq!(group.replica.halted(), None);
    assert_eq!(group.state().hash(), state.hash());
    assert!(!group.is_rebuilding());
}

/// A chosen value that could not be applied at a start was neither in the prefix nor among what is beyond it: a
/// replica that gave up its state for it went on, voted, and did not know the value.
#[test]
fn a_chosen_value_that_cannot_be_applied_is_chosen_all_the_same() {
    let garbage = Bytes::from_static(b"no batch");
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let bad = Record::Accept { group: G, instance: InstanceId(2), ballot, value: garbage.clone() };
    let (_, group) = replayed(Replay::mirrored(), vec![accept(1, 1), bad, accept(3, 3), watermark(3)]);
    assert!(matches!(group.replica.halted(), Some(Halt::Unreadable { instance: InstanceId(2), .. })));
    let chain = chain(state_after(1).1, &garbage);
    assert_eq!(group.replica.mark(), Mark { instance: InstanceId(2), chain });
    assert_eq!(group.replica.open().keys().copied().collect::<Vec<_>>(), [InstanceId(3)]);
}

/// The log learns what is chosen before the mirror folds it, so that it can vouch for its values after a
/// crash.
#[test]
fn a_fold_is_marked_in_the_log() {
    let mut alone = Alone::new();
    while alone.orders.is_empty() {
        alone.run(&put("k", "v"));
    }
    let fold = alone.take_fold().expect("a fold");
    let marked = alone.records.iter().filter_map(|record| match record {
        Record::Watermark { instance, .. } => Some(*instance),
        _ => None,
    });
    assert!(marked.max() >= Some(fold.head.applied));
}

fn lead_record() -> Record {
    let ballot = Ballot { round: 1, node: NodeId(1) };
    Record::Accept { group: G, instance: InstanceId(1), ballot, value: lead(NodeId(1)) }
}
