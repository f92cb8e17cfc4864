//! Deliberate defects, for the proof that the simulator finds them.
//!
//! Each is one rule of Multi-Paxos, broken the way implementations have broken it. The feature
//! `planted` compiles them in, and even then a thread has to [`plant`] one; without the feature
//! [`is`] is a constant `false` and nothing of them is in the program.

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A promise leaves before it is on the disk.
    PromiseBeforeSync,
    /// A vote leaves before it is on the disk.
    VoteBeforeSync,
    /// The leader counts its own vote before its own disk has it.
    OwnVoteBeforeSync,
    /// A candidate does not write down the ballot that it uses.
    BallotNotPersisted,
    /// Accepts are not checked against the promise.
    AcceptIgnoresPromise,
    /// A promise counts when its first part has come.
    TruncatedPromise,
    /// The value of the lowest ballot is adopted.
    AdoptsLowest,
    /// Reported values are not proposed again: everything open becomes a no-op.
    AdoptsNothing,
    /// Votes of different ballots add up: late ones, and what phase 1 reports.
    VotesAcrossBallots,
    /// Half of the members make a quorum.
    HalfIsEnough,
    /// Phase 1 is content with the own promise.
    NoPhaseOneQuorum,
    /// A watermark vouches for values accepted at any ballot.
    WatermarkOfAnyBallot,
    /// What a lost "chosen" would have said is never said again.
    LostChosenStaysLost,
    /// A learned value's ballot becomes the promise (PhxPaxos).
    LearningMovesPromise,
    /// A promise of a restarted node starts anew.
    PromiseForgotten,
    /// Accepted values are forgotten when a higher ballot is promised.
    AcceptedForgotten,
    /// Every copy of a command is applied.
    NoSessions,
    /// The session table ignores the node's life.
    SessionIgnoresBoot,
    /// Commands apply in whatever order they come.
    SessionOutOfOrder,
    /// A refused copy is remembered as applied.
    SessionAnswersTooEarly,
    /// A new leader reads before an entry of its own ballot is applied.
    ReadBeforeOpening,
    /// A leader reads without asking whether it still leads.
    ReadWithoutBarrier,
    /// A follower confirms a leader that it has promised to depose.
    BarrierIgnoresPromise,
    /// The leader's lease begins when the answer comes.
    LeaseFromReply,
    /// A new life honours no lease that the one before may have granted.
    LeaseForgottenAtRestart,
    /// Acceptors promise whatever they have granted.
    LeaseBindsNobody,
    /// A follower's grant counts in groups whose leader it has left.
    LeaseOutlivesPromise,
    /// A leader that hands over keeps its lease.
    LeaseKeptOnTransfer,
    /// A leader holds a lease whoever grants it.
    LeaseOfOne,
    /// A read that may be old is answered however old it is.
    StaleWithoutBound,
    /// A read does not wait for the own client's write before it.
    ReadOvertakesWrite,
    /// One failed condition fails the rest of its batch.
    BatchFailsTogether,
    /// The state depends on the node that applies.
    NodeInApply,
    /// One replica's state goes its own way.
    StateSkewed,
    /// Replay applies an instance once for each record of it.
    ReplayTwice,
    /// A failed sync is taken for success.
    SyncErrorIgnored,
    /// A damaged spot is taken for the end of the log.
    RotIsTornTail,
    /// The ballot is raised without a probe.
    NoProbe,
    /// A timeout is reported as "not applied".
    TimeoutIsFailure,
    /// A repeated command gets a new number.
    RetryRenumbers,
    /// A repeated frame counts twice.
    FramesCountTwice,
    /// The boot number is not counted up.
    BootReused,
    /// A disk votes for more than one birth.
    BirthVotesAgain,
    /// Log GC trusts a point that the mirror has not made durable.
    AnchorBeforeDurable,
    /// A segment is removed before the manifest begins behind it.
    FileBeforeManifest,
    /// A point of the mirror is recorded that was never synced.
    MirrorNotSynced,
    /// The mirror writes data and position apart.
    PositionApart,
    /// A start builds on a mirror that is ahead of the log and not durable.
    MirrorAheadOfLog,
    /// Taking in a checkpoint lowers the promise.
    InstallLowersPromise,
    /// Taking in a checkpoint forgets what was accepted beyond it.
    InstallDropsAccepted,
    /// The session table is left out of a checkpoint.
    SessionsNotInCheckpoint,
    /// Whatever disk a node runs on votes for it.
    AnyDiskVotes,
    /// A leader goes on proposing behind a change of members that is not applied.
    ProposesPastChange,
    /// After a change of members the leader does not ask the new ones in phase 1.
    NoNewPhaseOne,
    /// A candidate counts promises of members that know of a change that it does not know.
    IgnoresNewerMembers,
    /// A disk whose memory peers know better votes all the same.
    TrustsOldMemory,
    /// The members are left out of a checkpoint.
    MembersNotInCheckpoint,
    /// The members are left out of an anchor.
    MembersNotInAnchor,
    /// A leader gives up its opening: it acknowledges what only it has.
    AcknowledgesAlone,
    /// A learned value is taken for the next one, whatever its instance.
    ValuesOutOfOrder,
    /// Values are read for a peer before the newest record of each is on the disk. Not in [`Bug::ALL`]:
    /// it takes a reader within the millisecond between a choice and its sync, and whether 5 000 seeds
    /// have one depends on their luck.
    LogReadBeforeSync,
    /// Log GC drops what is being sent.
    GcIgnoresReaders,
    /// The consent of a leader is taken for that of every leader at a lower ballot.
    LeaseConsentOfAnother,
    /// Whoever leads at a higher ballot is followed, whatever lease this disk bears.
    LeaseYieldsToLeaders,
    /// A replica that was taken out is told that nobody needs it before that is so.
    PartsTooEarly,
    /// The roll is left out of a checkpoint.
    RollNotInCheckpoint,
    /// Only the first write of a transaction is applied.
    TransactionHalfApplied,
    /// A transaction goes on although a guard does not hold.
    GuardIgnored,
    /// The group's clock is whatever the clock of its leader shows, and clocks differ.
    ExpiryByOwnClock,
    /// A client's request is executed however often it comes.
    ReqIgnored,
    /// The table of the clients' requests is left out of a checkpoint.
    ReqsNotInCheckpoint,
    /// A watch that asks for changes that are gone gets those behind the gap.
    WatchSkipsGap,
    /// A watch that waits takes one change for told that is still to come.
    WatchSkipsOne,
    /// A page of a scan names the key behind the one at which the next should begin.
    ScanSkipsAtPageEnd,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 73] = [
        Bug::PromiseBeforeSync,
        Bug::VoteBeforeSync,
        Bug::OwnVoteBeforeSync,
        Bug::BallotNotPersisted,
        Bug::AcceptIgnoresPromise,
        Bug::TruncatedPromise,
        Bug::AdoptsLowest,
        Bug::AdoptsNothing,
        Bug::VotesAcrossBallots,
        Bug::HalfIsEnough,
        Bug::NoPhaseOneQuorum,
        Bug::WatermarkOfAnyBallot,
        Bug::LostChosenStaysLost,
        Bug::LearningMovesPromise,
        Bug::PromiseForgotten,
        Bug::AcceptedForgotten,
        Bug::NoSessions,
        Bug::SessionIgnoresBoot,
        Bug::SessionOutOfOrder,
        Bug::SessionAnswersTooEarly,
        Bug::ReadBeforeOpening,
        Bug::ReadWithoutBarrier,
        Bug::BarrierIgnoresPromise,
        Bug::LeaseFromReply,
        Bug::LeaseForgottenAtRestart,
        Bug::LeaseBindsNobody,
        Bug::LeaseOutlivesPromise,
        Bug::LeaseKeptOnTransfer,
        Bug::LeaseOfOne,
        Bug::StaleWithoutBound,
        Bug::ReadOvertakesWrite,
        Bug::BatchFailsTogether,
        Bug::NodeInApply,
        Bug::StateSkewed,
        Bug::ReplayTwice,
        Bug::SyncErrorIgnored,
        Bug::RotIsTornTail,
        Bug::NoProbe,
        Bug::TimeoutIsFailure,
        Bug::RetryRenumbers,
        Bug::FramesCountTwice,
        Bug::BootReused,
        Bug::BirthVotesAgain,
        Bug::AnchorBeforeDurable,
        Bug::FileBeforeManifest,
        Bug::MirrorNotSynced,
        Bug::PositionApart,
        Bug::MirrorAheadOfLog,
        Bug::InstallLowersPromise,
        Bug::InstallDropsAccepted,
        Bug::SessionsNotInCheckpoint,
        Bug::AnyDiskVotes,
        Bug::ProposesPastChange,
        Bug::NoNewPhaseOne,
        Bug::IgnoresNewerMembers,
        Bug::TrustsOldMemory,
        Bug::MembersNotInCheckpoint,
        Bug::MembersNotInAnchor,
        Bug::AcknowledgesAlone,
        Bug::ValuesOutOfOrder,
        Bug::GcIgnoresReaders,
        Bug::TransactionHalfApplied,
        Bug::GuardIgnored,
        Bug::WatchSkipsGap,
        Bug::WatchSkipsOne,
        Bug::ScanSkipsAtPageEnd,
        Bug::ExpiryByOwnClock,
        Bug::ReqIgnored,
        Bug::ReqsNotInCheckpoint,
        Bug::LeaseConsentOfAnother,
        Bug::LeaseYieldsToLeaders,
        Bug::PartsTooEarly,
        Bug::RollNotInCheckpoint,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in whatever this thread runs from now on; `None` takes it out.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    /// Whether `bug` is planted on this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::{is, plant};

/// Whether `bug` is planted: never, in a program without the feature.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}
