//! Lives and numbered requests against a simple model: what is there, until when, and what a state
//! that was taken out of a checkpoint still knows of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::{Boot, InstanceId, NodeId};
use groups::kv::value::{Batch, expire};
use groups::kv::{
    Command, Condition, Failure, Life, Outcome, Renewal, Req, Scanned, State, Ticket, Want, When,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

/// What a key has: its value, its revision, and where its life ends.
type Held = (Vec<u8>, u64, Option<u64>);

/// What the state should be, written as plainly as it can be.
#[derive(Default)]
struct Model {
    items: BTreeMap<Vec<u8>, Held>,
    revision: u64,
    clock: u64,
}

impl Model {
    fn set(&mut self, key: &[u8], value: &[u8], ends: Option<u64>) {
        self.revision += 1;
        self.items.insert(key.to_vec(), (value.to_vec(), self.revision, ends));
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let there = self.items.remove(key).is_some();
        self.revision += u64::from(there);
        there
    }

    fn expire(&mut self, clock: u64, most: usize) {
        self.clock = self.clock.max(clock);
        let mut over: Vec<(u64, Vec<u8>)> = Vec::new();
        for (key, (_, _, ends)) in &self.items {
            over.extend(ends.filter(|at| *at <= clock).map(|at| (at, key.clone())));
        }
        over.sort();
        for (_, key) in over.into_iter().take(most) {
            self.remove(&key);
        }
    }

    fn run(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Put { key, value, .. } => {
                self.set(key, value, None);
                Outcome::Done
            }
            Command::PutFor { key, value, condition, life, .. } => {
                let there = self.items.contains_key(&key[..]);
                if *condition == Condition::Present && !there || *condition == Condition::Absent && there {
                    return Outcome::Unmet;
                }
                let kept = self.items.get(&key[..]).and_then(|(_, _, ends)| *ends);
                match life {
                    Life::Keep => self.set(key, value, kept),
                    Life::For(0) => {
                        self.set(key, value, None);
                        self.remove(key);
                    }
                    Life::For(millis) => self.set(key, value, Some(self.clock + millis)),
                }
                Outcome::Done
            }
            Command::Renew { key, renewal } => self.renew(key, renewal),
            Command::Append { key, value, .. } => {
                let (held, _, ends) = self.items.get(&key[..]).cloned().unwrap_or_default();
                let whole = [&held[..], &value[..]].concat();
                self.set(key, &whole, ends);
                Outcome::Integer(whole.len() as i64)
            }
            Command::Delete { keys } => {
                Outcome::Integer(keys.iter().filter(|key| self.remove(key)).count() as i64)
            }
            Command::Rest { key } => Outcome::Integer(match self.items.get(&key[..]) {
                None => -2,
                Some((_, _, None)) => -1,
                Some((_, _, Some(at))) => at.saturating_sub(self.clock) as i64,
            }),
            other => unreachable!("{other:?} is not made here"),
        }
    }

    fn renew(&mut self, key: &[u8], renewal: &Renewal) -> Outcome {
        let held = self.items.get(key).cloned();
        let mut changed = false;
        if let Some((_, _, ends)) = &held {
            let never = u64::MAX;
            let new = renewal.life.map_or(never, |millis| self.clock + millis);
            let old = ends.unwrap_or(never);
            let mortal = match renewal.when.mortal {
                None => true,
                Some(wanted) => wanted == ends.is_some(),
            };
            let side = match renewal.when.later {
                None => true,
                Some(true) => new > old,
                Some(false) => new < old,
            };
            changed = mortal && side;
        }
        if changed && renewal.life == Some(0) {
            self.remove(key);
        } else if changed && let Some((_, _, ends)) = self.items.get_mut(key) {
            *ends = renewal.life.map(|millis| self.clock + millis);
        }
        if renewal.value {
            Outcome::Value(held.map(|(value, revision, _)| (Bytes::from(value), revision)))
        } else {
            Outcome::Integer(i64::from(changed))
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A command, in a batch that is stamped so much later than the one before.
    Run(u64, Command),
    /// An entry that ends lives, stamped so much sooner than the clock shows, or later.
    Expire(i64, u32),
    /// The state goes through a checkpoint.
    Restart,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(|k| Bytes::from_static(k.as_bytes()))
}

fn command() -> impl Strategy<Value = Command> {
    let value = || (0..9_u8).prop_map(|n| Bytes::from(vec![b'0' + n]));
    let condition = prop_oneof![Just(Condition::None), Just(Condition::Absent), Just(Condition::Present)];
    let life = prop_oneof![Just(Life::Keep), (0..30_u64).prop_map(Life::For)];
    let choice = || proptest::option::of(any::<bool>());
    let renewal = (proptest::option::of(0..30_u64), choice(), choice(), any::<bool>())
        .prop_map(|(life, mortal, later, value)| Renewal { life, when: When { mortal, later }, value });
    prop_oneof![
        1 => (key(), value()).prop_map(|(key, value)| {
            Command::Put { key, value, condition: Condition::None, want: Want::Done }
        }),
        4 => (key(), value(), condition, life).prop_map(|(key, value, condition, life)| {
            Command::PutFor { key, value, condition, want: Want::Done, life }
        }),
        4 => (key(), renewal).prop_map(|(key, renewal)| Command::Renew { key, renewal }),
        1 => (key(), value()).prop_map(|(key, value)| Command::Append { key, value, max: 100 }),
        1 => key().prop_map(|key| Command::Delete { keys: vec![key] }),
        1 => key().prop_map(|key| Command::Rest { key }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..8_u64, command()).prop_map(|(later, command)| Step::Run(later, command)),
        3 => (-9..12_i64, 0..3_u32).prop_map(|(later, most)| Step::Expire(later, most)),
        1 => Just(Step::Restart),
    ]
}

fn batch(clock: u64, number: u64, command: &Command) -> Bytes {
    let mut batch = Batch::stamped(clock, 0);
    batch.push(Ticket { node: NodeId(1), boot: Boot(1), number, behind: 0 }, &command.to_bytes());
    batch.finish()
}

fn apply(state: &mut State, value: Bytes) -> Vec<Outcome> {
    let mut answers = Vec::new();
    let next = state.applied().next();
    state.apply(next, value, &mut |_, outcome| answers.push(outcome)).expect("readable");
    answers
}

fn through_a_checkpoint(mut state: State) -> State {
    let before = state.sum();
    let state = state.image(0).into_state().expect("its own image");
    assert_eq!(state.sum(), before, "a checkpoint has lost something");
    state
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn lives_end_as_the_model_says(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut state, mut model) = (State::default(), Model { clock: 1, ..Model::default() });
        apply(&mut state, expire(1, 0));
        for (number, step) in (1..).zip(steps) {
            match step {
                Step::Run(later, command) => {
                    model.clock += later;
                    let wanted = vec![model.run(&command)];
                    prop_assert_eq!(apply(&mut state, batch(model.clock, number, &command)), wanted, "{:?}", command);
                }
                Step::Expire(later, most) => {
                    let clock = model.clock.saturating_add_signed(later);
                    model.expire(clock, most as usize);
                    apply(&mut state, expire(clock, most));
                }
                Step::Restart => state = through_a_checkpoint(state),
            }
            let held: Vec<_> = state
                .iter()
                .map(|(k, i)| (k.to_vec(), (i.value.to_vec(), i.revision, (i.expires > 0).then_some(i.expires))))
                .collect();
            prop_assert_eq!(&held, &model.items.clone().into_iter().collect::<Vec<_>>());
            let mut ends: Vec<u64> = held.iter().filter_map(|(_, (_, _, ends))| *ends).collect();
            ends.sort_unstable();
            prop_assert_eq!((state.next_deadline(), state.mortal()), (ends.first().copied(), ends.len()));
            prop_assert_eq!((state.clock(), state.revision()), (model.clock, model.revision));
            prop_assert_eq!(state.hash(), state.recomputed_hash());
        }
    }

    /// A pass over the items that is under way while lives change finds nothing wrong.
    #[test]
    fn a_rescan_goes_on_while_lives_change(steps in proptest::collection::vec(command(), 1..60)) {
        let mut state = State::default();
        for (number, command) in (1..).zip(steps) {
            apply(&mut state, batch(number, number, &command));
            let rotten = matches!(state.rescan(1), Scanned::Rotten { .. });
            prop_assert!(!rotten);
        }
    }
}

fn put_for(millis: u64) -> Command {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    Command::PutFor { key, value, condition: Condition::None, want: Want::Done, life: Life::For(millis) }
}

fn get() -> Command {
    Command::Get { key: Bytes::from_static(b"k") }
}

#[test]
fn a_key_is_there_until_the_entry_that_removes_it_and_the_clock_never_goes_back() {
    let mut state = State::default();
    apply(&mut state, batch(100, 1, &put_for(10)));
    apply(&mut state, batch(500, 2, &Command::Delete { keys: Vec::new() }));
    assert!(matches!(state.read(&get()), Outcome::Value(Some(_))), "over, and there");
    assert_eq!(state.read(&Command::Rest { key: Bytes::from_static(b"k") }), Outcome::Integer(0));
    // What an old leader stamped is chosen late: it moves nothing.
    apply(&mut state, expire(105, 9));
    assert!(matches!(state.read(&get()), Outcome::Value(Some(_))), "not over then");
    apply(&mut state, expire(110, 9));
    assert_eq!(state.clock(), 500);
    assert_eq!(state.read(&get()), Outcome::Value(None));
    let unstamped = {
        let mut batch = Batch::new();
        batch.push(Ticket { node: NodeId(1), boot: Boot(1), number: 3, behind: 0 }, &put_for(7).to_bytes());
        batch.finish()
    };
    apply(&mut state, unstamped);
    assert_eq!(state.next_deadline(), Some(507), "a batch without a stamp counts from the last one");
}

fn once(client: &'static str, seq: u64, print: u64, command: Command) -> Command {
    let req = Req { client: Bytes::from_static(client.as_bytes()), seq, print };
    Command::Once { req, command: Box::new(command) }
}

#[test]
fn a_numbered_write_is_applied_once_through_other_nodes_and_checkpoints() {
    let add = || Command::Add { key: Bytes::from_static(b"n"), delta: 1 };
    let mut state = State::default();
    assert_eq!(apply(&mut state, batch(1, 1, &once("c", 5, 9, add()))), [Outcome::Integer(1)]);
    let mut state = through_a_checkpoint(state);
    // The same node, and another one.
    assert_eq!(apply(&mut state, batch(2, 2, &once("c", 5, 9, add()))), [Outcome::Integer(1)]);
    let mut other = Batch::stamped(3, 0);
    let ticket = Ticket { node: NodeId(2), boot: Boot(7), number: 1, behind: 0 };
    other.push(ticket, &once("c", 5, 9, add()).to_bytes());
    assert_eq!(apply(&mut state, other.finish()), [Outcome::Integer(1)]);
    assert_eq!(apply(&mut state, batch(4, 3, &once("c", 6, 9, add()))), [Outcome::Integer(2)]);
    assert_eq!(apply(&mut state, batch(4, 4, &once("d", 5, 9, add()))), [Outcome::Integer(3)]);
    let reused = Outcome::Failed(Failure::Reused);
    assert_eq!(apply(&mut state, batch(4, 5, &once("c", 5, 8, add()))), [reused]);
    assert_eq!(state.get(b"n").map(|item| &item.value[..]), Some(&b"3"[..]));
    for seq in 7..30 {
        apply(&mut state, batch(5, seq, &once("c", seq, 9, add())));
    }
    let forgotten = Outcome::Forgotten { newest: 29 };
    assert_eq!(apply(&mut state, batch(5, 30, &once("c", 5, 9, add()))), [forgotten]);
}

#[test]
fn what_differs_beside_the_items_shows_in_the_sum() {
    let with = |steps: &[Bytes]| {
        let mut state = State::default();
        steps.iter().for_each(|value| drop(apply(&mut state, value.clone())));
        assert_eq!(state.applied(), InstanceId(steps.len() as u64));
        state.sum()
    };
    let nothing = |clock| batch(clock, 1, &Command::Delete { keys: Vec::new() });
    let numbered = |seq| batch(1, 1, &once("c", seq, 9, Command::Delete { keys: Vec::new() }));
    assert_ne!(with(&[nothing(1)]), with(&[nothing(2)]), "the clock");
    assert_ne!(with(&[nothing(1)]), with(&[numbered(1)]), "the clients' table");
    assert_ne!(with(&[numbered(1)]), with(&[numbered(2)]), "the clients' table");
    let (short, long) = (batch(1, 1, &put_for(5)), batch(1, 1, &put_for(6)));
    assert_ne!(with(&[short]).hash, with(&[long]).hash, "where a life ends");
}
