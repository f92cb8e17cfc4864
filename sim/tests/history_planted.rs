//! Planted histories: what a broken store shows its clients must be rejected, and what a correct one may show in the
//! same situation must not.

use sim::history::{Action, History, Limits, Operation, Outcome, Verdict, check, check_within};

/// A history under construction: operations on the key `k`, each by a client of its own.
#[derive(Default)]
struct Story(History);

impl Story {
    fn op(mut self, invoke: u64, response: u64, action: Action, outcome: Outcome) -> Self {
        let client = self.0.operations().len() as u64;
        let response = (outcome != Outcome::Unknown).then_some(response);
        let operation = Operation { client, key: b"k".to_vec(), invoke, response, action, outcome };
        self.0.push(operation).expect("well formed");
        self
    }

    fn put(self, invoke: u64, response: u64, value: &str) -> Self {
        self.op(invoke, response, Action::Put(value.into()), Outcome::Done)
    }

    fn lost_put(self, invoke: u64, value: &str) -> Self {
        self.op(invoke, 0, Action::Put(value.into()), Outcome::Unknown)
    }

    fn get(self, invoke: u64, response: u64, value: &str) -> Self {
        self.op(invoke, response, Action::Get, Outcome::Value(Some(value.into())))
    }

    fn nil(self, invoke: u64, response: u64) -> Self {
        self.op(invoke, response, Action::Get, Outcome::Value(None))
    }

    fn flag(self, invoke: u64, response: u64, action: Action, flag: bool) -> Self {
        self.op(invoke, response, action, Outcome::Flag(flag))
    }

    fn add(self, invoke: u64, response: u64, delta: i64, sum: i64) -> Self {
        self.op(invoke, response, Action::Add(delta), Outcome::Number(sum))
    }

    /// Judged as it is and with a conditional write at the end, which takes it away from the judge of simple keys:
    /// both judges must see it.
    fn judged(self) -> bool {
        let simple = check(&self.0).is_linearizable();
        let fails = Action::Cas { old: b"no such value".to_vec(), new: b"y".to_vec() };
        let searched = check(&self.flag(1_000, 1_001, fails, false).0).is_linearizable();
        assert_eq!(simple, searched, "the two judges disagree");
        simple
    }

    fn right(self) {
        assert!(self.judged());
    }

    fn wrong(self) {
        assert!(!self.judged());
    }
}

fn cas(old: &str, new: &str) -> Action {
    Action::Cas { old: old.into(), new: new.into() }
}

fn story() -> Story {
    Story::default()
}

#[test]
fn a_stale_read() {
    story().put(1, 2, "a").put(3, 4, "b").get(5, 6, "a").wrong();
    story().put(1, 2, "a").put(3, 7, "b").get(5, 6, "a").right();
}

#[test]
fn a_lost_write() {
    story().put(1, 2, "a").nil(3, 4).wrong();
    story().put(1, 3, "a").nil(2, 4).right();
}

#[test]
fn reads_that_go_back_in_time() {
    story().put(1, 2, "a").put(3, 20, "b").get(4, 5, "b").get(6, 7, "a").wrong();
    story().put(1, 2, "a").put(3, 20, "b").get(4, 7, "b").get(6, 8, "a").right();
}

#[test]
fn two_readers_that_see_two_orders() {
    story().put(1, 10, "a").put(1, 10, "b").get(11, 12, "a").get(13, 14, "b").wrong();
    story().put(1, 10, "a").put(1, 10, "b").get(5, 6, "a").get(13, 14, "b").right();
}

#[test]
fn an_add_applied_twice() {
    story().add(1, 2, 1, 1).add(3, 4, 1, 3).wrong();
    // The extra one may be a lost request of somebody else, but then only once.
    let lost = |s: Story| s.op(1, 0, Action::Add(1), Outcome::Unknown);
    lost(story()).add(1, 2, 1, 1).add(3, 4, 1, 3).right();
    lost(story()).add(1, 2, 1, 1).add(3, 4, 1, 3).add(5, 6, 1, 5).wrong();
}

#[test]
fn an_add_that_got_lost() {
    story().add(1, 2, 1, 1).add(3, 4, 1, 1).wrong();
    story().add(1, 5, 1, 2).add(3, 4, 1, 1).right();
}

#[test]
fn a_read_of_a_refused_write() {
    let refused = |s: Story| s.op(1, 2, Action::Put(b"a".to_vec()), Outcome::NotApplied);
    refused(story()).get(3, 4, "a").wrong();
    refused(story()).nil(3, 4).right();
}

#[test]
fn a_read_of_a_write_whose_condition_failed() {
    story().put(1, 2, "a").flag(3, 4, cas("x", "b"), false).get(5, 6, "b").wrong();
    story().put(1, 2, "a").flag(3, 4, Action::SetNx(b"b".to_vec()), false).get(5, 6, "b").wrong();
}

#[test]
fn a_value_read_before_it_was_sent() {
    story().get(1, 2, "a").put(3, 4, "a").wrong();
    story().get(1, 2, "a").lost_put(3, "a").wrong();
    story().get(1, 3, "a").put(3, 4, "a").right();
}

#[test]
fn a_value_from_nowhere() {
    story().put(1, 2, "a").get(3, 4, "b").wrong();
}

#[test]
fn a_deleted_key_that_comes_back() {
    story().put(1, 2, "a").flag(3, 4, Action::Delete, true).get(5, 6, "a").wrong();
    story().put(1, 2, "a").flag(3, 6, Action::Delete, true).get(5, 6, "a").right();
}

#[test]
fn a_lost_write_that_takes_effect_late_but_once() {
    story().lost_put(1, "a").put(2, 3, "b").get(4, 5, "b").get(6, 7, "a").right();
    story().lost_put(1, "a").get(2, 3, "a").put(4, 5, "b").get(6, 7, "a").wrong();
}

#[test]
fn two_locks_taken_by_one_key() {
    let take = |who: &str| Action::SetNx(who.into());
    story().flag(1, 5, take("a"), true).flag(2, 6, take("b"), true).wrong();
    story()
        .flag(1, 5, take("a"), true)
        .op(2, 6, Action::GetDel, Outcome::Value(Some(b"a".to_vec())))
        .flag(2, 6, take("b"), true)
        .right();
}

#[test]
fn two_compare_and_swaps_of_one_value() {
    story().put(1, 2, "a").flag(3, 9, cas("a", "b"), true).flag(4, 8, cas("a", "c"), true).wrong();
    story().put(1, 2, "a").flag(3, 9, cas("a", "b"), true).flag(4, 8, cas("b", "a"), true).right();
}

#[test]
fn a_failed_condition_that_held() {
    story().put(1, 2, "a").flag(3, 4, cas("a", "b"), false).wrong();
    story().flag(3, 4, Action::SetNx(b"a".to_vec()), false).wrong();
}

#[test]
fn an_exchange_that_two_clients_won() {
    let swap = |s: Story, old: Option<&str>, new: &str| {
        s.op(3, 9, Action::GetSet(new.into()), Outcome::Value(old.map(Into::into)))
    };
    swap(swap(story().put(1, 2, "a"), Some("a"), "b"), Some("a"), "c").wrong();
    swap(swap(story().put(1, 2, "a"), Some("a"), "b"), Some("b"), "c").right();
}

#[test]
fn an_append_applied_twice() {
    let append = |s: Story, at: u64, length: i64| {
        s.op(at, at + 1, Action::Append(b"ab".to_vec()), Outcome::Number(length))
    };
    append(append(story(), 1, 2), 3, 6).wrong();
    append(append(story(), 1, 2), 3, 4).get(5, 6, "abab").right();
}

#[test]
fn revisions_that_fall_or_repeat() {
    let put = |s: Story, at: u64, value: &str, revision: u64| {
        s.op(at, at + 1, Action::Put(value.into()), Outcome::Revision(revision))
    };
    let read = |s: Story, at: u64, value: &str, revision: u64| {
        s.op(at, at + 1, Action::Get, Outcome::Versioned(Some((value.into(), revision))))
    };
    put(put(story(), 1, "a", 5), 3, "b", 5).wrong();
    put(put(story(), 1, "a", 5), 3, "b", 4).wrong();
    read(put(story(), 1, "a", 5), 3, "a", 6).wrong();
    read(read(story().put(1, 2, "a"), 3, "a", 6), 5, "a", 7).wrong();
    read(read(put(story(), 1, "a", 5).put(3, 4, "b"), 5, "b", 9), 7, "b", 9).right();
}

#[test]
fn a_conditional_write_on_an_old_revision() {
    let put_if = |s: Story, at: u64, wanted: u64, value: &str, outcome: Outcome| {
        s.op(at, at + 1, Action::PutIfRev { revision: wanted, value: value.into() }, outcome)
    };
    let two = put_if(put_if(story(), 1, 0, "a", Outcome::Revision(3)), 3, 3, "b", Outcome::Revision(4));
    put_if(two, 5, 3, "c", Outcome::Revision(6)).wrong();
    let two = put_if(put_if(story(), 1, 0, "a", Outcome::Revision(3)), 3, 3, "b", Outcome::Revision(4));
    put_if(two, 5, 3, "c", Outcome::Flag(false)).right();
}

#[test]
fn keys_are_judged_by_themselves() {
    let mut history = History::new();
    for (client, key) in [b"a", b"b"].into_iter().enumerate() {
        let put = Operation {
            client: client as u64,
            key: key.to_vec(),
            invoke: 1,
            response: Some(2),
            action: Action::Put(key.to_vec()),
            outcome: Outcome::Done,
        };
        history.push(put.clone()).expect("well formed");
        let get = Operation { invoke: 3, response: Some(4), action: Action::Get, ..put };
        history.push(Operation { outcome: Outcome::Value(Some(b"a".to_vec())), ..get }).expect("well formed");
    }
    let Verdict::NotLinearizable(explanation) = check(&history) else { panic!("b read a's value") };
    assert_eq!(explanation.key, b"b");
}

#[test]
fn an_answer_that_does_not_fit_the_question_is_a_defect_of_the_recorder() {
    let operation = Operation {
        client: 1,
        key: b"k".to_vec(),
        invoke: 5,
        response: Some(6),
        action: Action::Get,
        outcome: Outcome::Done,
    };
    let mut history = History::new();
    assert!(history.push(operation.clone()).is_err());
    let early = Operation { response: Some(4), outcome: Outcome::Value(None), ..operation.clone() };
    assert!(history.push(early).is_err());
    let timed = Operation { outcome: Outcome::Unknown, ..operation };
    assert!(history.push(timed).is_err());
}

#[test]
fn the_story_of_a_stale_read_is_short() {
    let mut story = story();
    for n in 0..500_u64 {
        let at = n * 10;
        story = story.put(at, at + 1, &format!("v{n}")).get(at + 2, at + 3, &format!("v{n}"));
    }
    let story = story.get(5_000, 5_001, "v490").put(5_002, 5_003, "last");
    let Verdict::NotLinearizable(explanation) = check(&story.0) else { panic!("v490 is stale") };
    assert!(explanation.operations.len() <= 4, "{explanation}");
    let text = explanation.to_string();
    assert!(text.contains("get -> \"v490\"") && text.contains("put \"v490\""), "{text}");
}

#[test]
fn the_story_of_a_double_add_is_short_and_ends_where_it_went_wrong() {
    let mut story = story();
    for n in 0..300 {
        let at = n as u64 * 10;
        story = story.add(at, at + 1, 1, n + 1).get(at + 2, at + 3, &(n + 1).to_string());
    }
    story = story.add(3_000, 3_001, 1, 302);
    for n in 301..400 {
        story = story.add(n as u64 * 10, n as u64 * 10 + 1, 1, n + 2);
    }
    let Verdict::NotLinearizable(explanation) = check(&story.0) else { panic!("302 skips 301") };
    let last = explanation.operations.last().expect("a story has operations");
    assert_eq!(last.outcome, Outcome::Number(302), "{explanation}");
    assert!(explanation.operations.len() <= 12, "{explanation}");
}

#[test]
fn too_much_work_is_undecided_and_neither_right_nor_wrong() {
    // Forty concurrent increments whose sums nobody saw, then an impossible total.
    let mut story = story();
    for n in 0..40 {
        story = story.op(1, 0, Action::Add(1 << n), Outcome::Unknown);
    }
    let story = story.get(2, 3, "-1");
    let verdict = check_within(&story.0, &Limits { steps_per_key: 10_000 });
    assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict}");
}

/// A key with a life that a client gave it at 10, for 100.
fn mortal() -> Story {
    Story::default().op(10, 20, Action::PutFor { value: b"a".to_vec(), life: 100 }, Outcome::Done)
}

#[test]
fn a_key_that_vanishes_before_its_time_is_found() {
    mortal().nil(30, 109).wrong();
    mortal().nil(30, 110).right();
    mortal().get(500, 510, "a").right();
    mortal().get(120, 130, "a").nil(140, 150).get(160, 170, "a").wrong();
    mortal().put(30, 40, "b").nil(500, 510).wrong();
    // Who saw the key gone and who saw it there cannot change places.
    mortal().nil(30, 115).get(116, 120, "a").wrong();
}

#[test]
fn a_life_that_is_changed_counts_from_there() {
    let stays = || mortal().flag(30, 40, Action::Renew(None), true);
    stays().nil(500, 510).wrong();
    let longer = || mortal().flag(30, 40, Action::Renew(Some(200)), true);
    longer().nil(120, 229).wrong();
    longer().nil(120, 230).right();
    let shorter = || mortal().flag(30, 40, Action::Renew(Some(20)), true);
    shorter().nil(45, 50).right();
    Story::default().put(10, 20, "a").flag(30, 40, Action::Renew(Some(5)), true).nil(41, 50).right();
    // Nobody knows whether the life was taken away.
    mortal().op(30, 0, Action::Renew(None), Outcome::Unknown).nil(200, 210).right();
    mortal().op(30, 0, Action::Renew(Some(1)), Outcome::Unknown).nil(40, 50).right();
    mortal().flag(200, 210, Action::Renew(Some(5)), false).nil(220, 230).right();
    mortal().flag(50, 60, Action::Renew(Some(5)), false).wrong();
}
