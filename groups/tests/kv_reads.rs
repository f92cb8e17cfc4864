//! Reads of many keys: pages in the order of the keys, walks by a number, and the changes that a
//! watch is told, against models as plain as can be.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use groups::ids::{Boot, NodeId, Slot};
use groups::kv::in_slot::SLICE;
use groups::kv::scan::ITEM_COST;
use groups::kv::slot::slot_of;
use groups::kv::value::Batch;
use groups::kv::walk::place;
use groups::kv::{
    Change, Command, Condition, Image, InSlot, Outcome, Page, Range, Since, State, Ticket, Walk, Want,
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

/// Runs commands as one chosen value each.
struct Store {
    state: State,
    number: u64,
}

impl Store {
    fn new() -> Store {
        Store { state: State::default(), number: 0 }
    }

    fn run(&mut self, command: &Command) {
        self.number += 1;
        let mut batch = Batch::new();
        let ticket = Ticket { node: NodeId(1), boot: Boot(1), number: self.number, behind: 0 };
        batch.push(ticket, &command.to_bytes());
        let next = self.state.applied().next();
        self.state.apply(next, batch.finish(), &mut |_, _| {}).expect("readable");
    }

    fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        self.run(&Command::Put { key, value, condition: Condition::None, want: Want::Done });
    }

    fn delete(&mut self, key: &str) {
        self.run(&Command::Delete { keys: vec![Bytes::from(key.to_owned())] });
    }

    fn page(&self, range: Range) -> Page {
        match self.state.read(&Command::Scan(range)) {
            Outcome::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn walk(&mut self, from: u64, limit: u32) -> (Vec<Bytes>, Option<u64>) {
        match self.state.answer(&Command::Walk(Walk { from, limit, max_bytes: 1 << 20 }), 0) {
            Outcome::Walked { keys, next } => (keys, next),
            other => panic!("{other:?}"),
        }
    }

    fn changes(&self, after: u64, prefix: &str, max_bytes: u32) -> (Vec<Change>, u64) {
        let since = Since { after: Some(after), prefix: Bytes::from(prefix.to_owned()), max_bytes };
        match self.state.read(&Command::Changes(since)) {
            Outcome::Changes { changes, through } => (changes, through),
            other => panic!("{other:?}"),
        }
    }
}

fn range(from: &str, to: Option<&str>, limit: u32, max_bytes: u32) -> Range {
    let bytes = |text: &str| Bytes::from(text.to_owned());
    Range { from: bytes(from), to: to.map(bytes), limit, max_bytes, values: true }
}

fn names(page: &Page) -> Vec<&[u8]> {
    page.items.iter().map(|(key, _)| &key[..]).collect()
}

#[test]
fn a_page_ends_where_it_says() {
    let mut store = Store::new();
    for (key, value) in [("a", "1"), ("b", "22"), ("c", "333"), ("d", "4444")] {
        store.put(key, value);
    }
    let page = store.page(range("", None, 10, 1 << 20));
    assert_eq!(names(&page), [b"a", b"b", b"c", b"d"]);
    assert_eq!(page.items[2].1, Some("333".into()));
    assert_eq!((page.next, page.large), (None, false));

    let page = store.page(range("b", Some("d"), 1, 1 << 20));
    assert_eq!((names(&page), page.next.as_deref()), (vec![&b"b"[..]], Some(&b"c"[..])));
    let page = store.page(range("b", Some("c"), 1, 1 << 20));
    assert_eq!((names(&page), page.next.as_deref()), (vec![&b"b"[..]], None), "the end is not in it");

    // Two items fit, and not a byte more.
    let two = (2 * ITEM_COST + 2 + 3) as u32;
    let page = store.page(range("", None, 10, two));
    assert_eq!((page.items.len(), page.next.as_deref(), page.large), (2, Some(&b"c"[..]), false));
    let page = store.page(range("", None, 10, two - 1));
    assert_eq!((page.items.len(), page.next.as_deref()), (1, Some(&b"b"[..])));
    // What alone is too much is named and said to be so.
    let page = store.page(range("d", None, 10, ITEM_COST as u32 + 4));
    assert_eq!((page.items.len(), page.next.as_deref(), page.large), (0, Some(&b"d"[..]), true));
    let page = store.page(Range { values: false, ..range("d", None, 10, ITEM_COST as u32 + 4) });
    assert_eq!(page.items, [("d".into(), None)]);

    for (from, to) in [("x", Some("b")), ("b", Some("b")), ("e", None), ("aa", Some("ab"))] {
        assert_eq!(store.page(range(from, to, 10, 1 << 20)), Page::default(), "{from} to {to:?}");
    }
}

#[test]
fn a_walk_over_more_keys_than_a_slice_meets_them_all_while_others_come_and_go() {
    // The story: the index of a walk is built in slices; between them, and between the pages, keys
    // appear, vanish and come back.
    let mut store = Store::new();
    for n in 0..5_000 {
        store.put(&format!("steady-{n:04}"), "v");
        if n % 2 == 0 {
            store.put(&format!("doomed-{n:04}"), "v");
        }
    }
    let (mut from, mut met, mut empty, mut questions) = (0, BTreeSet::new(), 0, 0_usize);
    loop {
        let (keys, next) = store.walk(from, 100);
        questions += 1;
        assert!(keys.len() <= 100, "{} keys", keys.len());
        let brought = !keys.is_empty();
        empty += usize::from(!brought);
        met.extend(keys);
        store.delete(&format!("doomed-{:04}", (questions * 14) % 5_000));
        store.put(&format!("born-{questions:04}"), "v");
        store.delete(&format!("steady-{questions:04}"));
        store.put(&format!("steady-{questions:04}"), "again");
        match next {
            Some(next) => {
                assert!(next > from || !brought, "a walk that stands still");
                from = next;
            }
            None => break,
        }
    }
    assert!(empty >= 5 && questions < 200, "{empty} of {questions} questions brought nothing");
    // Those that were deleted for a moment may be missing.
    for n in questions..5_000 {
        let key = format!("steady-{n:04}");
        assert!(met.contains(key.as_bytes()), "{key} was not met");
    }
    // The index is what going through all keys would find.
    for from in [0, 1 << 40, 1 << 47, (1 << 48) - 1] {
        let walk = Walk { from, limit: 50, max_bytes: 1 << 20 };
        assert_eq!(store.state.answer(&Command::Walk(walk), 0), store.state.read(&Command::Walk(walk)));
    }
    store.state.forget_places();
    assert_eq!(store.walk(7, 10), (Vec::new(), Some(7)), "begins anew where it was asked");
}

#[test]
fn the_keys_of_a_slot_are_counted_and_named_a_stretch_at_a_time() {
    let mut store = Store::new();
    let of = |n: usize| format!("{{{}}}:{n:05}", n % 7);
    for n in 0..3 * SLICE {
        store.put(&of(n), "v");
    }
    let ask = |store: &Store, slot, limit| {
        let (mut counted, mut named, mut from, mut questions) = (0, Vec::new(), Bytes::new(), 0);
        loop {
            questions += 1;
            let question = Command::InSlot(InSlot { slot, from: from.clone(), limit });
            match store.state.read(&question) {
                Outcome::InSlot { count, keys, next } => {
                    assert!(keys.len() as u64 == if limit > 0 { count } else { 0 }, "{count} keys, {keys:?}");
                    counted += count;
                    named.extend(keys);
                    match next {
                        Some(next) => {
                            assert!(next > from, "a question that stands still");
                            from = next;
                        }
                        None => return (counted, named, questions),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    for tag in 0..7 {
        let slot = slot_of(of(tag).as_bytes());
        let expected: Vec<Bytes> =
            (0..3 * SLICE).filter(|n| n % 7 == tag).map(|n| Bytes::from(of(n))).collect();
        let (counted, named, questions) = ask(&store, slot, 0);
        assert_eq!((counted, named.len()), (expected.len() as u64, 0));
        assert!((3..=4).contains(&questions), "a question goes through {SLICE} keys: {questions}");
        assert_eq!(ask(&store, slot, 100).1, expected, "in the order of the keys");
    }
    let empty = (0..).map(Slot).find(|slot| (0..7).all(|tag| slot_of(of(tag).as_bytes()) != *slot));
    assert_eq!(ask(&store, empty.expect("a slot without keys"), 0).0, 0);
}

#[test]
fn places_are_for_ever() {
    // A cursor outlives the version that gave it out.
    assert_eq!(place(b"key"), GOLDEN);
    assert!(place(b"") < 1 << 48);
}

const GOLDEN: u64 = 215_053_870_391_387;

#[test]
fn every_change_is_told_with_a_revision_of_its_own() {
    let mut store = Store::new();
    store.put("k", "1");
    store.run(&Command::PutMany { pairs: vec![("k".into(), "2".into()), ("other".into(), "3".into())] });
    store.run(&Command::Add { key: "k".into(), delta: 5 });
    store.run(&Command::Append { key: "k".into(), value: "!".into(), max: 9 });
    store.run(&Command::Append { key: "k".into(), value: "too long".into(), max: 9 });
    store.run(&Command::Cas { key: "k".into(), old: "no".into(), new: "x".into() });
    store.run(&Command::Cas { key: "k".into(), old: "7!".into(), new: "x".into() });
    store.run(&Command::Delete { keys: vec!["k".into(), "nobody".into(), "other".into()] });
    store.run(&Command::Take { key: "k".into() });
    store.put("k", "back");
    store.run(&Command::Take { key: "k".into() });
    let (changes, through) = store.changes(0, "k", 1 << 20);
    let told: Vec<(u64, Option<&[u8]>)> = changes.iter().map(|c| (c.revision, c.value.as_deref())).collect();
    let expected: [(u64, Option<&[u8]>); 8] = [
        (1, Some(b"1")),
        (2, Some(b"2")),
        (4, Some(b"7")),
        (5, Some(b"7!")),
        (6, Some(b"x")),
        (7, None),
        (9, Some(b"back")),
        (10, None),
    ];
    assert_eq!(told, expected);
    assert_eq!((through, store.state.revision()), (10, 10));
}

#[test]
fn a_checkpoint_begins_a_new_history() {
    let mut store = Store::new();
    (0..9).for_each(|n| store.put("k", &n.to_string()));
    let image: Image = store.state.image(0);
    let mut restored = Store { state: image.into_state().expect("a good image"), number: store.number };
    let since = Since { after: Some(8), prefix: Bytes::new(), max_bytes: 99 };
    assert_eq!(restored.state.read(&Command::Changes(since)), Outcome::Compacted { min: 9 });
    restored.put("k", "new");
    let (changes, through) = restored.changes(9, "", 99);
    assert_eq!((changes.len(), through), (1, 10));
}

#[derive(Clone, Debug)]
enum Step {
    Put(String),
    Delete(String),
    Ask(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || "[ab]{0,3}";
    prop_oneof![
        3 => key().prop_map(Step::Put),
        1 => key().prop_map(Step::Delete),
        2 => (1..5_u32, 0..200_u32).prop_map(|(limit, bytes)| Step::Ask(limit, bytes)),
    ]
}

proptest! {
    #![proptest_config(config(300))]

    /// Page after page, with writes between them: each is what the keys of its instant say, and a key
    /// that is there all the time and was passed was met, once.
    #[test]
    fn pages_follow_one_another(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut store, mut model) = (Store::new(), BTreeMap::new());
        let mut from = Some(Bytes::new());
        let mut touched = BTreeSet::new();
        let mut met: Vec<Bytes> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(key) => {
                    store.put(&key, &n.to_string());
                    model.insert(Bytes::from(key.clone()), Bytes::from(n.to_string()));
                    if n > 0 {
                        touched.insert(Bytes::from(key));
                    }
                }
                Step::Delete(key) => {
                    store.delete(&key);
                    model.remove(&Bytes::from(key.clone()));
                    touched.insert(Bytes::from(key));
                }
                Step::Ask(limit, max_bytes) => {
                    let Some(first) = from.take() else { break };
                    let range = Range { from: first.clone(), to: None, limit, max_bytes, values: true };
                    let page = store.page(range);
                    let mut left = model.range(first.clone()..);
                    for (key, value) in &page.items {
                        prop_assert_eq!(left.next(), Some((key, value.as_ref().expect("wanted"))));
                        met.push(key.clone());
                    }
                    prop_assert_eq!(left.next().map(|(key, _)| key), page.next.as_ref());
                    from = page.next;
                }
            }
        }
        prop_assert!(met.is_sorted_by(|a, b| a < b), "{:?}", met);
        for key in model.keys().filter(|key| !touched.contains(*key)) {
            let passed = from.as_ref().is_none_or(|from| key < from);
            prop_assert!(!passed || met.contains(key), "{:?} was passed over", key);
        }
    }

    /// What a watch is told, applied to what was there, gives what is there.
    #[test]
    fn changes_carry_one_state_to_another(
        steps in proptest::collection::vec(step(), 1..60),
        from in 0..40_u64,
        max_bytes in 1..600_u32,
        prefix in "[ab]{0,1}",
    ) {
        let mut store = Store::new();
        let mut snapshot: Option<BTreeMap<Vec<u8>, Vec<u8>>> = None;
        let held = |store: &Store| -> BTreeMap<Vec<u8>, Vec<u8>> {
            let matching = store.state.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
            matching.map(|(key, item)| (key.to_vec(), item.value.to_vec())).collect()
        };
        for (n, step) in steps.into_iter().enumerate() {
            if store.state.revision() == from && snapshot.is_none() {
                snapshot = Some(held(&store));
            }
            match step {
                Step::Put(key) => store.put(&key, &n.to_string()),
                Step::Delete(key) => store.delete(&key),
                Step::Ask(..) => {}
            }
        }
        let Some(mut copy) = snapshot else { return Ok(()) };
        let (mut after, mut last) = (from, from);
        while after < store.state.revision() {
            let (changes, through) = store.changes(after, &prefix, max_bytes);
            prop_assert!(through > after);
            for change in changes {
                prop_assert!(change.revision > last && change.revision <= through);
                prop_assert!(change.key.starts_with(prefix.as_bytes()));
                last = change.revision;
                match change.value {
                    Some(value) => copy.insert(change.key.to_vec(), value.to_vec()),
                    None => copy.remove(&change.key[..]),
                };
            }
            after = through;
        }
        prop_assert_eq!(copy, held(&store));
    }
}
