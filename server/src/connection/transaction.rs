//! Transactions on a connection: its own commands about them, and from a transaction to one command
//! of one group, and from the outcome to one reply.

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::{self, Outcome};

use super::plan::{Piece, Shape, condition, failure_reply, not_understood, shaped, single};
use super::{Connection, Shared, Slot};
use crate::node::layout::Layout;
use crate::protocol::{
    DataCommand, ErrorClass, ErrorReply, LocalCommand, ManyKeys, PutAnswer, Reply, Transaction,
    TransactionCommand, TransactionForm, slot_of,
};
use crate::runtime::worker::Worker;

/// What a transaction that only reads may answer: a frame to the node that asked takes it.
const MAX_READ: u32 = 14 << 20;

/// What one that writes may answer at least, however small values are. Its answers stand in the session
/// table until the node has them, so it may answer little more than the largest value.
const LEAST_WRITE: u32 = 4 << 20;

/// Room for what stands around the largest value in the answers of a transaction.
const AROUND: u32 = 1 << 20;

impl Connection {
    /// A command about this connection's transaction; handed back as what it became when that has to
    /// wait for earlier reads.
    pub(super) fn transaction(
        &self,
        command: TransactionCommand,
        worker: &Worker,
        shared: &Shared,
    ) -> Result<(), Box<DataCommand>> {
        let reply = match command {
            TransactionCommand::Multi => self.state.borrow_mut().session.transaction().begin().into(),
            TransactionCommand::Discard => self.state.borrow_mut().session.transaction().discard().into(),
            TransactionCommand::Unwatch => {
                self.state.borrow_mut().session.transaction().unwatch();
                Reply::ok()
            }
            TransactionCommand::Watch(keys) => {
                let may =
                    self.state.borrow_mut().session.transaction().may_watch(&keys, self.limits.max_request);
                match may {
                    Ok(()) => {
                        // What follows may be the `EXEC` that needs the answer.
                        self.state.borrow_mut().asking = true;
                        return self.data(DataCommand::Revisions(keys), worker, shared);
                    }
                    Err(error) => error.into(),
                }
            }
            TransactionCommand::Exec => {
                let finished = self.state.borrow_mut().session.transaction().finish();
                match finished.map(DataCommand::Transaction) {
                    Ok(DataCommand::Transaction(transaction)) if transaction.is_local() => {
                        let locals = self.locals(&DataCommand::Transaction(transaction), shared);
                        Reply::Array(locals.into_iter().map(|(_, reply)| reply).collect())
                    }
                    Ok(command) => return self.data(command, worker, shared),
                    Err(error) => error.into(),
                }
            }
        };
        self.push(Slot::Ready(reply));
        Ok(())
    }

    /// The answers to those commands of a transaction that the connection answers by itself.
    pub(super) fn locals(&self, command: &DataCommand, shared: &Shared) -> Vec<(usize, Reply)> {
        let DataCommand::Transaction(Transaction { form: TransactionForm::Exec(locals), .. }) = command
        else {
            return Vec::new();
        };
        let (mut state, live) = (self.state.borrow_mut(), shared.live.now());
        let mut answer = |local: &LocalCommand| state.session.local(local, &shared.info(&live));
        locals.iter().map(|(place, local)| (*place, answer(local))).collect()
    }
}

/// How the outcome of a transaction reads as a reply.
#[derive(Debug)]
pub(super) struct Branches {
    then: Vec<Shape>,
    otherwise: Vec<Shape>,
    /// Whether it came as `MULTI` and `EXEC`.
    exec: bool,
    /// Answers of the connection itself, with their places among all answers, ascending.
    pub(super) locals: Vec<(usize, Reply)>,
}

/// Makes one command of one group.
pub(super) fn plan(
    transaction: Transaction,
    layout: &Layout,
    max_value: u32,
) -> Result<(Piece, Branches), ErrorReply> {
    let group = group_of(&transaction, layout)?;
    let max = match transaction.is_write() {
        true => max_value.saturating_add(AROUND).clamp(LEAST_WRITE, MAX_READ),
        false => MAX_READ,
    };
    let Transaction { guards, then, otherwise, form } = transaction;
    let guards = guards
        .into_iter()
        .map(|guard| kv::Guard { key: guard.key, condition: condition(guard.condition) })
        .collect();
    let list = |commands: Vec<DataCommand>| {
        let commands = commands.into_iter().map(|command| part(command, max_value));
        commands.collect::<Result<(Vec<_>, Vec<_>), _>>()
    };
    let (then, then_shapes) = list(then)?;
    let (otherwise, otherwise_shapes) = list(otherwise)?;
    let command = kv::Command::Transaction(kv::Transaction { guards, then, otherwise, max });
    let branches = Branches {
        then: then_shapes,
        otherwise: otherwise_shapes,
        exec: matches!(form, TransactionForm::Exec(_)),
        locals: Vec::new(),
    };
    Ok((Piece { group, command }, branches))
}

/// The one group of all keys.
fn group_of(transaction: &Transaction, layout: &Layout) -> Result<GroupId, ErrorReply> {
    let counts = transaction.commands().any(|command| matches!(command, DataCommand::Size));
    if counts && layout.groups() > 1 {
        return Err(ErrorReply::new(
            ErrorClass::CrossSlot,
            "DBSIZE counts the keys of all groups, and a transaction has one; nothing was applied; \
             send it outside the transaction",
        ));
    }
    let mut first: Option<(&Bytes, GroupId)> = None;
    for key in transaction.guards.iter().map(|g| &g.key).chain(transaction.commands().flat_map(|c| c.keys()))
    {
        let group = layout.group_of(slot_of(key));
        match first {
            None => first = Some((key, group)),
            Some((known, same)) if same != group => {
                return Err(ErrorReply::cross_slot((known, same), (key, group)));
            }
            Some(_) => {}
        }
    }
    Ok(first.map_or(GroupId(0), |(_, group)| group))
}

/// One command of a transaction, as the group executes it and as it is answered.
fn part(command: DataCommand, max_value: u32) -> Result<(kv::Command, Shape), ErrorReply> {
    Ok(match command {
        DataCommand::One(one) => single(one, max_value),
        DataCommand::Many(ManyKeys::Get(keys)) => (kv::Command::GetMany { keys }, Shape::List),
        DataCommand::Many(ManyKeys::Delete(keys)) => (kv::Command::Delete { keys }, Shape::Number),
        DataCommand::Many(ManyKeys::Exists(keys)) => (kv::Command::Exists { keys }, Shape::Number),
        DataCommand::Many(ManyKeys::Put(pairs)) => {
            (kv::Command::PutMany { pairs }, Shape::Put(PutAnswer::Ok))
        }
        DataCommand::Size => (kv::Command::Count, Shape::Number),
        DataCommand::Fenced { token, command } => {
            let (command, shape) = part(*command, max_value)?;
            (kv::Command::Fenced { token, command: Box::new(command) }, shape)
        }
        DataCommand::Revisions(_)
        | DataCommand::Ordered(_)
        | DataCommand::Transaction(_)
        | DataCommand::Once { .. } => {
            return Err(ErrorReply::err(
                "a transaction cannot hold a transaction, a numbered command or a read of many keys; nothing was applied",
            ));
        }
    })
}

impl Branches {
    /// The reply, from what the group has answered.
    pub(super) fn reply(self, outcome: Option<Outcome>, max_value: u64) -> Reply {
        let Some(Outcome::Transaction { met, outcomes }) = outcome else {
            return not_understood(&"a transaction");
        };
        if self.exec && !met {
            return Reply::NilArray;
        }
        let shapes = if met { self.then } else { self.otherwise };
        if shapes.len() != outcomes.len() {
            return not_understood(&shapes);
        }
        let mut locals = self.locals.into_iter().peekable();
        let mut replies = Vec::with_capacity(shapes.len() + locals.len());
        for (shape, outcome) in shapes.into_iter().zip(outcomes) {
            while let Some((_, reply)) = locals.next_if(|(place, _)| *place == replies.len()) {
                replies.push(reply);
            }
            replies.push(match outcome {
                Outcome::Failed(failure) => failure_reply(failure, max_value).into(),
                outcome => shaped(shape, outcome),
            });
        }
        replies.extend(locals.map(|(_, reply)| reply));
        match self.exec {
            true => Reply::Array(replies),
            false => Reply::Array(vec![Reply::Integer(met.into()), Reply::Array(replies)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use groups::ids::NodeId;
    use groups::kv::{Failure, Want};

    use super::super::plan::plan as whole;
    use super::*;
    use crate::protocol::{Args, Command, SizeLimits, Version};

    fn layout(groups: u32) -> Layout {
        Layout::new(vec![NodeId(1), NodeId(2), NodeId(3)], groups, 3)
    }

    fn parsed(line: &str) -> DataCommand {
        let sizes = SizeLimits { max_key: 64, max_value: 64 };
        match Command::parse(&Args::from_words(line.split(' ')), &sizes) {
            Ok(Command::Data(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn exec(lines: &[&str], locals: Vec<(usize, LocalCommand)>) -> DataCommand {
        DataCommand::Transaction(Transaction {
            guards: Vec::new(),
            then: lines.iter().map(|line| parsed(line)).collect(),
            otherwise: Vec::new(),
            form: TransactionForm::Exec(locals),
        })
    }

    fn answered(command: DataCommand, locals: Vec<(usize, Reply)>, outcome: Outcome) -> String {
        let (pieces, mut join) = whole(command, &layout(1), 64).expect("one group");
        join.set_locals(locals);
        assert!(join.take(pieces[0].group, Ok(outcome)), "one piece");
        String::from_utf8(join.reply(64).to_bytes(Version::Resp2).to_vec()).expect("text")
    }

    #[test]
    fn keys_of_two_groups_are_refused_by_name() {
        for line in [
            "MULTIOP IF a PRESENT THEN GET b",
            "MULTIOP THEN GET a THEN PUT b 1",
            "MULTIOP THEN GET a ELSE DEL b",
        ] {
            let error = whole(parsed(line), &layout(16), 64).map(|_| ()).expect_err(line).to_string();
            assert!(error.starts_with("CROSSSLOT "), "{error}");
            for word in ["'a' is in group", "'b' is in group", "nothing was applied", "{tag}"] {
                assert!(error.contains(word), "{error}");
            }
            let one = whole(parsed(line), &layout(1), 64).expect("one group");
            assert_eq!(one.0.len(), 1);
        }
        // Different slots of one group are no obstacle, and a tag makes one slot.
        let layout = layout(2);
        let group = |key: &str| layout.group_of(slot_of(key.as_bytes()));
        let keys: Vec<String> = (0..9).map(|n| format!("k{n}")).filter(|k| group(k) == group("k0")).collect();
        let line = format!("MULTIOP THEN GET {} THEN GET {}", keys[0], keys[1]);
        assert!(slot_of(keys[0].as_bytes()) != slot_of(keys[1].as_bytes()));
        assert_eq!(whole(parsed(&line), &layout, 64).expect(&line).0[0].group, group("k0"));
        let error = whole(exec(&["GET k", "DBSIZE"], vec![]), &layout, 64).map(|_| ()).expect_err("DBSIZE");
        assert_eq!(error.class(), ErrorClass::CrossSlot);
    }

    #[test]
    fn exec_answers_in_the_order_of_the_queue() {
        let lines = ["SET k v", "MGET k x", "INCR n", "DEL k x", "SET k v GET"];
        let locals = vec![
            (0, Reply::Simple("PONG".into())),
            (2, Reply::Bulk("e".into())),
            (3, Reply::Integer(7)),
            (8, Reply::ok()),
        ];
        let outcomes = vec![
            Outcome::Done,
            Outcome::Values(vec![Some("v".into()), None]),
            Outcome::Failed(Failure::NotAnInteger),
            Outcome::Integer(1),
            Outcome::Value(None),
        ];
        let outcome = Outcome::Transaction { met: true, outcomes };
        assert_eq!(
            answered(exec(&lines, vec![]), locals, outcome),
            "*9\r\n+PONG\r\n+OK\r\n$1\r\ne\r\n:7\r\n*2\r\n$1\r\nv\r\n$-1\r\n\
             -ERR value is not an integer or out of range\r\n:1\r\n$-1\r\n+OK\r\n"
        );
    }

    #[test]
    fn what_is_not_applied_says_so() {
        let unmet = || Outcome::Transaction { met: false, outcomes: vec![] };
        assert_eq!(answered(exec(&["SET k v"], vec![]), vec![(0, Reply::ok())], unmet()), "*-1\r\n");
        let multiop = || parsed("MULTIOP IF k ABSENT THEN PUT k v REV ELSE GET k REV");
        let other =
            Outcome::Transaction { met: false, outcomes: vec![Outcome::Value(Some(("w".into(), 7)))] };
        assert_eq!(answered(multiop(), vec![], other), "*2\r\n:0\r\n*1\r\n*2\r\n$1\r\nw\r\n:7\r\n");
        let met = Outcome::Transaction { met: true, outcomes: vec![Outcome::Revision(9)] };
        assert_eq!(answered(multiop(), vec![], met), "*2\r\n:1\r\n*1\r\n:9\r\n");
        let much = answered(multiop(), vec![], Outcome::Failed(Failure::AnswerTooLong(99)));
        assert!(much.starts_with("-TOOBIG max=99 ") && much.contains("nothing was applied"), "{much}");
        for strange in [Outcome::Done, Outcome::Transaction { met: true, outcomes: vec![] }] {
            assert!(answered(multiop(), vec![], strange).starts_with("-INDOUBT"));
        }
    }

    #[test]
    fn what_a_transaction_may_answer_fits_a_frame_and_holds_the_largest_value() {
        for (line, max_value, max) in [
            ("MULTIOP THEN GET k", 64, MAX_READ),
            ("MULTIOP THEN PUT k v ELSE GET k", 64, LEAST_WRITE),
            ("MULTIOP THEN GETDEL k", 8 << 20, (8 << 20) + AROUND),
            ("MULTIOP THEN GETDEL k", u32::MAX, MAX_READ),
        ] {
            let (pieces, _) = whole(parsed(line), &layout(1), max_value).expect(line);
            let kv::Command::Transaction(transaction) = &pieces[0].command else { panic!("{line}") };
            assert_eq!(transaction.max, max, "{line}");
        }
        let put = parsed("MULTIOP THEN PUT k v REV");
        let (pieces, _) = whole(put, &layout(1), 64).expect("one group");
        let kv::Command::Transaction(transaction) = &pieces[0].command else { panic!("no transaction") };
        assert!(matches!(transaction.then[..], [kv::Command::Put { want: Want::Revision, .. }]));
    }
}
