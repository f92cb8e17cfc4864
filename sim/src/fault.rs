//! Everything that can go wrong, as data.
//!
//! A fault says completely what happens, when and for how long; it ends by itself. So a plan is
//! a list of them, and a failing list can be shortened one by one. To add a fault: a variant, a
//! line in [`KINDS`], an arm in [`Fault::random`], one in `World::begin`, and, if it lasts, one
//! in `World::end`.

use std::fmt;
use std::time::Duration;

use groups::random::Random;

use crate::operator::Step;

/// A machine, by index.
pub type Node = usize;

/// What is done to a machine's disk while the machine is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One bit of a record is another.
    BitFlip,
    /// A sector of a record reads as zeros.
    LostBlock,
    /// A record was written to another place, over an older one.
    Misplaced,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "`down`, `length`: how long; `node`, `side`: where; the rest stands on the variants"
)]
pub enum Fault {
    /// The process dies, the machine does not.
    Kill { node: Node, down: Duration },
    /// The machine loses power; a write that is under way gets `operations` far.
    PowerLoss { node: Node, operations: u64, down: Duration },
    /// All machines lose power at one instant.
    Blackout { operations: u64, down: Duration },
    /// The process dies behind the next `operations` changes to its disk.
    Midway { node: Node, operations: u64 },
    /// The process is killed and dies again while it starts.
    MidwayStart { node: Node, operations: u64, log: bool },
    /// The process stands still (SIGSTOP), then finds everything late at once.
    Pause { node: Node, length: Duration },
    /// The machine's clock runs at `millionths` of the true speed.
    Drift { node: Node, millionths: u64, length: Duration },
    /// One side does not reach the other, nor (with `both`) the other it.
    Cut { side: u32, both: bool, length: Duration },
    /// Two machines do not reach each other, but both reach the rest.
    PartialCut { a: Node, b: Node, length: Duration },
    /// A machine hears everybody and is heard by nobody, or the other way round.
    Mute { node: Node, hears: bool, length: Duration },
    /// A cut that comes and goes.
    Flap { side: u32, period: Duration, length: Duration },
    /// So many of a thousand parcels are lost.
    Loss { share: u64, length: Duration },
    /// A machine is cut off from all others while its clock runs slow: it takes itself for the
    /// leader longer than anybody else does.
    Eclipse { node: Node, millionths: u64, length: Duration },
    /// So many of a thousand parcels come twice, the second time up to so much later.
    Duplication { share: u64, by: Duration, length: Duration },
    /// So many of a thousand parcels come much later.
    Reorder { share: u64, by: Duration, length: Duration },
    /// One direction is slow.
    SlowLink { from: Node, to: Node, by: Duration, length: Duration },
    /// A connection breaks; what is under way on it is lost.
    Disconnect { a: Node, b: Node },
    /// Every sync takes `micros` more, and some of a thousand (`share`) ten times that.
    SlowDisk { node: Node, micros: u64, share: u64, length: Duration },
    /// The `after`th write from now fails with EIO.
    WriteError { node: Node, after: u64 },
    /// The `after`th sync from now fails with EIO.
    SyncError { node: Node, after: u64 },
    /// The disk has `spare` bytes left.
    NoSpace { node: Node, spare: u64, length: Duration },
    /// The process is killed, its log is damaged at `place` (a thousandth of its records), and
    /// it is started again: it must go on as another disk, or refuse where nobody could take it in.
    Damage { node: Node, rot: Rot, place: u64 },
    /// A bit of a sealed segment of a running node's log is another, at `place` (a thousandth of
    /// the sealed records), and the scrub finds it: the node must get rid of the segment by itself.
    SealedRot { node: Node, place: u64 },
    /// The process dies behind the next `operations` operations of its mirror's engine.
    MirrorMidway { node: Node, operations: u64 },
    /// A bit of the mirror is another; it is noticed when the mirror is read.
    MirrorRot { node: Node, place: u64, bit: u64 },
    /// The process is killed and started again without its mirror.
    MirrorLost { node: Node },
    /// A write or a sync of the mirror fails with EIO.
    MirrorError { node: Node, after: u64, sync: bool },
    /// The mirror's disk has no space for one of the next writes.
    MirrorFull { node: Node, after: u64 },
    /// The machine is given an empty disk: it is another one for the cluster, which takes it in.
    EmptyDisk { node: Node },
    /// An operator changes which nodes the cluster has.
    Roster(Step),
    /// The machine's log is copied while it is off, and put back so much later: the node has
    /// forgotten what it promised in between, and must not vote with it.
    OldCopy { node: Node, length: Duration },
}

/// The kinds of faults, in the order of [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "see `Fault`")]
pub enum Kind {
    Kill,
    PowerLoss,
    Blackout,
    Midway,
    MidwayStart,
    Pause,
    Drift,
    Cut,
    OneWayCut,
    PartialCut,
    Mute,
    Flap,
    Eclipse,
    Loss,
    Duplication,
    Reorder,
    SlowLink,
    Disconnect,
    SlowDisk,
    WriteError,
    SyncError,
    NoSpace,
    BitFlip,
    LostBlock,
    Misplaced,
    SealedRot,
    MirrorMidway,
    MirrorRot,
    MirrorLost,
    MirrorError,
    MirrorFull,
    EmptyDisk,
    OldCopy,
    Roster,
}

/// How far a clock may be off, in millionths, where leases count on it.
pub const DRIFT: u64 = 20_000;

/// What is known of a kind.
#[derive(Debug)]
pub struct KindOf {
    /// Which.
    pub kind: Kind,
    /// Its name in the report.
    pub name: &'static str,
    /// How often it is drawn, relative to the others.
    pub weight: u64,
}

const fn kind(kind: Kind, name: &'static str, weight: u64) -> KindOf {
    KindOf { kind, name, weight }
}

/// All kinds.
pub const KINDS: &[KindOf] = &[
    kind(Kind::Kill, "processes killed", 10),
    kind(Kind::PowerLoss, "power losses", 12),
    kind(Kind::Blackout, "power losses of all machines", 4),
    kind(Kind::Midway, "deaths armed in the middle of file operations", 8),
    kind(Kind::MidwayStart, "deaths armed for the middle of a start", 5),
    kind(Kind::Pause, "pauses", 10),
    kind(Kind::Drift, "clocks drifting", 5),
    kind(Kind::Cut, "partitions", 8),
    kind(Kind::OneWayCut, "one-way partitions", 8),
    kind(Kind::PartialCut, "partial partitions", 8),
    kind(Kind::Mute, "machines mute or deaf", 6),
    kind(Kind::Flap, "flapping partitions", 4),
    kind(Kind::Eclipse, "machines cut off with a slow clock", 6),
    kind(Kind::Loss, "spells of loss", 6),
    kind(Kind::Duplication, "spells of duplication", 6),
    kind(Kind::Reorder, "spells of reordering", 6),
    kind(Kind::SlowLink, "slow links", 5),
    kind(Kind::Disconnect, "connections broken", 5),
    kind(Kind::SlowDisk, "slow disks", 6),
    kind(Kind::WriteError, "write errors armed", 3),
    kind(Kind::SyncError, "sync errors armed", 3),
    kind(Kind::NoSpace, "disks full", 4),
    kind(Kind::BitFlip, "bits flipped", 2),
    kind(Kind::LostBlock, "blocks lost", 2),
    kind(Kind::Misplaced, "blocks misplaced", 2),
    kind(Kind::SealedRot, "bits flipped in a sealed segment while running", 3),
    kind(Kind::MirrorMidway, "deaths armed in the middle of the mirror's operations", 6),
    kind(Kind::MirrorRot, "bits flipped in a mirror", 4),
    kind(Kind::MirrorLost, "mirrors lost", 4),
    kind(Kind::MirrorError, "errors of the mirror's disk armed", 2),
    kind(Kind::MirrorFull, "full disks of the mirror armed", 2),
    kind(Kind::EmptyDisk, "disks exchanged for empty ones", 2),
    kind(Kind::OldCopy, "older copies of a disk put back", 2),
    // Drawn apart, see `operator`.
    kind(Kind::Roster, "changes of the cluster's nodes", 0),
];

impl Fault {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Kill { .. } => Kind::Kill,
            Fault::PowerLoss { .. } => Kind::PowerLoss,
            Fault::Blackout { .. } => Kind::Blackout,
            Fault::Midway { .. } => Kind::Midway,
            Fault::MidwayStart { .. } => Kind::MidwayStart,
            Fault::Pause { .. } => Kind::Pause,
            Fault::Drift { .. } => Kind::Drift,
            Fault::Cut { both: true, .. } => Kind::Cut,
            Fault::Cut { both: false, .. } => Kind::OneWayCut,
            Fault::PartialCut { .. } => Kind::PartialCut,
            Fault::Mute { .. } => Kind::Mute,
            Fault::Flap { .. } => Kind::Flap,
            Fault::Eclipse { .. } => Kind::Eclipse,
            Fault::Loss { .. } => Kind::Loss,
            Fault::Duplication { .. } => Kind::Duplication,
            Fault::Reorder { .. } => Kind::Reorder,
            Fault::SlowLink { .. } => Kind::SlowLink,
            Fault::Disconnect { .. } => Kind::Disconnect,
            Fault::SlowDisk { .. } => Kind::SlowDisk,
            Fault::WriteError { .. } => Kind::WriteError,
            Fault::SyncError { .. } => Kind::SyncError,
            Fault::NoSpace { .. } => Kind::NoSpace,
            Fault::Damage { rot: Rot::BitFlip, .. } => Kind::BitFlip,
            Fault::Damage { rot: Rot::LostBlock, .. } => Kind::LostBlock,
            Fault::Damage { rot: Rot::Misplaced, .. } => Kind::Misplaced,
            Fault::SealedRot { .. } => Kind::SealedRot,
            Fault::MirrorMidway { .. } => Kind::MirrorMidway,
            Fault::MirrorRot { .. } => Kind::MirrorRot,
            Fault::MirrorLost { .. } => Kind::MirrorLost,
            Fault::MirrorError { .. } => Kind::MirrorError,
            Fault::MirrorFull { .. } => Kind::MirrorFull,
            Fault::EmptyDisk { .. } => Kind::EmptyDisk,
            Fault::OldCopy { .. } => Kind::OldCopy,
            Fault::Roster(_) => Kind::Roster,
        }
    }

    /// The machine whose memory this fault takes away for good, if it does.
    #[must_use]
    pub fn ends(&self) -> Option<Node> {
        match self {
            Fault::Damage { node, .. }
            | Fault::SealedRot { node, .. }
            | Fault::EmptyDisk { node }
            | Fault::OldCopy { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// The machine whose state this fault may take away until a peer gives it back.
    #[must_use]
    pub fn spoils(&self) -> Option<Node> {
        match self {
            Fault::MirrorRot { node, .. } | Fault::MirrorLost { node } => Some(*node),
            _ => None,
        }
    }

    /// How long it lasts in the world; `None` for what happens at one instant.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        match self {
            Fault::Drift { length, .. }
            | Fault::Cut { length, .. }
            | Fault::PartialCut { length, .. }
            | Fault::Mute { length, .. }
            | Fault::Flap { length, .. }
            | Fault::Eclipse { length, .. }
            | Fault::Loss { length, .. }
            | Fault::Duplication { length, .. }
            | Fault::Reorder { length, .. }
            | Fault::SlowLink { length, .. }
            | Fault::SlowDisk { length, .. }
            | Fault::OldCopy { length, .. }
            | Fault::NoSpace { length, .. } => Some(*length),
            _ => None,
        }
    }

    /// The same with clocks that drift no further than [`DRIFT`].
    #[must_use]
    pub fn with_true_clocks(self) -> Fault {
        let true_to = |rate: u64| rate.clamp(1_000_000 - DRIFT, 1_000_000 + DRIFT);
        match self {
            Fault::Drift { node, millionths, length } => {
                Fault::Drift { node, millionths: true_to(millionths), length }
            }
            Fault::Eclipse { node, millionths, length } => {
                Fault::Eclipse { node, millionths: true_to(millionths), length }
            }
            fault => fault,
        }
    }

    /// A fault of this kind in a cluster of `nodes`; `None` where it makes no sense.
    #[must_use]
    pub fn random(kind: Kind, nodes: usize, random: &mut Random) -> Option<Fault> {
        let pair = |random: &mut Random| {
            let a = random.below(nodes as u64) as usize;
            let b = (a + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
            (a, b)
        };
        let needs_pair = matches!(
            kind,
            Kind::Cut
                | Kind::OneWayCut
                | Kind::PartialCut
                | Kind::Mute
                | Kind::Flap
                | Kind::Eclipse
                | Kind::SlowLink
                | Kind::Disconnect
        );
        if needs_pair && nodes < 2 {
            return None;
        }
        let node = random.below(nodes as u64) as usize;
        let most = [200, 2_000][random.below(2) as usize];
        let down = Duration::from_millis(10 + random.below(most));
        let most = [400, 1_500, 5_000][random.below(3) as usize];
        let length = Duration::from_millis(50 + random.below(most));
        let side = |random: &mut Random| 1 + random.below((1 << nodes) - 2) as u32;
        let share = |random: &mut Random| [20, 100, 300][random.below(3) as usize];
        let place = random.below(1000);
        let fault = match kind {
            Kind::Kill => Fault::Kill { node, down },
            Kind::PowerLoss => Fault::PowerLoss { node, operations: random.below(4), down },
            Kind::Blackout => Fault::Blackout { operations: random.below(4), down },
            Kind::Midway => Fault::Midway { node, operations: random.below(8) },
            Kind::MidwayStart => {
                Fault::MidwayStart { node, operations: random.below(8), log: random.below(2) == 0 }
            }
            Kind::Pause => Fault::Pause { node, length },
            Kind::Drift => {
                // 200 ppm is what quartz does; the rest is far beyond any promise.
                let by = [200, 5_000, 200_000, 900_000][random.below(4) as usize];
                let faster = random.below(2) == 0;
                let millionths = if faster { 1_000_000 + by } else { 1_000_000 - by };
                Fault::Drift { node, millionths, length: length * 2 }
            }
            Kind::Cut => Fault::Cut { side: side(random), both: true, length },
            Kind::OneWayCut => Fault::Cut { side: side(random), both: false, length },
            Kind::PartialCut => {
                let (a, b) = pair(random);
                Fault::PartialCut { a, b, length }
            }
            Kind::Mute => Fault::Mute { node, hears: random.below(2) == 0, length },
            Kind::Flap => {
                let period = Duration::from_millis([30, 150, 500, 1_000][random.below(4) as usize]);
                Fault::Flap { side: side(random), period, length: length * 2 }
            }
            Kind::Loss => Fault::Loss { share: share(random), length },
            Kind::Eclipse => {
                let millionths = [100_000, 300_000, 700_000][random.below(3) as usize];
                Fault::Eclipse { node, millionths, length }
            }
            Kind::Duplication => {
                let by = Duration::from_millis([20, 500, 4_000][random.below(3) as usize]);
                Fault::Duplication { share: share(random), by, length }
            }
            Kind::Reorder => {
                let by = Duration::from_millis([10, 100, 1_000][random.below(3) as usize]);
                Fault::Reorder { share: share(random), by, length }
            }
            Kind::SlowLink => {
                let (from, to) = pair(random);
                let by = Duration::from_millis([5, 50, 300][random.below(3) as usize]);
                Fault::SlowLink { from, to, by, length }
            }
            Kind::Disconnect => {
                let (a, b) = pair(random);
                Fault::Disconnect { a, b }
            }
            Kind::SlowDisk => {
                let micros = [2_000, 20_000, 100_000][random.below(3) as usize];
                Fault::SlowDisk { node, micros, share: random.below(100), length }
            }
            Kind::WriteError => Fault::WriteError { node, after: 1 + random.below(20) },
            Kind::SyncError => Fault::SyncError { node, after: 1 + random.below(20) },
            Kind::NoSpace => Fault::NoSpace { node, spare: random.below(80 << 10), length },
            Kind::BitFlip => Fault::Damage { node, rot: Rot::BitFlip, place },
            Kind::LostBlock => Fault::Damage { node, rot: Rot::LostBlock, place },
            Kind::Misplaced => Fault::Damage { node, rot: Rot::Misplaced, place },
            Kind::SealedRot => Fault::SealedRot { node, place },
            Kind::MirrorMidway => Fault::MirrorMidway { node, operations: random.below(12) },
            Kind::MirrorRot => Fault::MirrorRot { node, place: random.next_u64(), bit: random.next_u64() },
            Kind::MirrorLost => Fault::MirrorLost { node },
            Kind::MirrorFull => Fault::MirrorFull { node, after: 1 + random.below(8) },
            Kind::MirrorError => {
                Fault::MirrorError { node, after: 1 + random.below(8), sync: random.below(2) == 0 }
            }
            Kind::EmptyDisk => Fault::EmptyDisk { node },
            Kind::OldCopy => Fault::OldCopy { node, length },
            // What makes sense there depends on what was done before.
            Kind::Roster => return None,
        };
        Some(fault)
    }
}

/// The machines of a side, as people count them.
struct Side(u32);

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> =
            (0..32).filter(|n| self.0 >> n & 1 == 1).map(|n| (n + 1).to_string()).collect();
        f.write_str(&nodes.join(", "))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { node, down } => write!(f, "node {} is killed, down {down:?}", node + 1),
            Fault::PowerLoss { node, operations, down } => {
                write!(
                    f,
                    "power loss of node {}, {operations} operations into its write, down {down:?}",
                    node + 1
                )
            }
            Fault::Blackout { operations, down } => {
                write!(f, "power loss of all nodes, {operations} operations into their writes, down {down:?}")
            }
            Fault::Midway { node, operations } => {
                write!(f, "node {} dies behind its next {operations} file operations", node + 1)
            }
            Fault::MidwayStart { node, operations, log } => {
                let disk = if *log { "log" } else { "manifest" };
                write!(f, "node {} dies behind the first {operations} {disk} operations of a start", node + 1)
            }
            Fault::Pause { node, length } => write!(f, "node {} pauses for {length:?}", node + 1),
            Fault::Drift { node, millionths, length } => {
                write!(f, "the clock of node {} runs at {millionths} millionths for {length:?}", node + 1)
            }
            Fault::Cut { side, both: true, length } => {
                write!(f, "nodes {} are cut off for {length:?}", Side(*side))
            }
            Fault::Cut { side, both: false, length } => {
                write!(f, "nodes {} are not heard by the others for {length:?}", Side(*side))
            }
            Fault::PartialCut { a, b, length } => {
                write!(f, "nodes {} and {} are cut from each other for {length:?}", a + 1, b + 1)
            }
            Fault::Mute { node, hears: true, length } => {
                write!(f, "node {} is mute for {length:?}", node + 1)
            }
            Fault::Mute { node, hears: false, length } => {
                write!(f, "node {} is deaf for {length:?}", node + 1)
            }
            Fault::Flap { side, period, length } => {
                write!(f, "nodes {} are cut off every other {period:?} for {length:?}", Side(*side))
            }
            Fault::Loss { share, length } => write!(f, "loss of {share} per mille for {length:?}"),
            Fault::Eclipse { node, millionths, length } => {
                write!(
                    f,
                    "node {} is cut off, its clock at {millionths} millionths, for {length:?}",
                    node + 1
                )
            }
            Fault::Duplication { share, by, length } => {
                write!(f, "duplication of {share} per mille, up to {by:?} later, for {length:?}")
            }
            Fault::Reorder { share, by, length } => {
                write!(f, "{share} per mille late by up to {by:?} for {length:?}")
            }
            Fault::SlowLink { from, to, by, length } => {
                write!(f, "the link from node {} to {} is slow by {by:?} for {length:?}", from + 1, to + 1)
            }
            Fault::Disconnect { a, b } => write!(f, "nodes {} and {} are disconnected", a + 1, b + 1),
            Fault::SlowDisk { node, micros, share, length } => {
                write!(
                    f,
                    "the disk of node {} is slow by {micros} us, {share} per mille ten times that, for {length:?}",
                    node + 1
                )
            }
            Fault::WriteError { node, after } => {
                write!(f, "write {after} from now of node {} fails with EIO", node + 1)
            }
            Fault::SyncError { node, after } => {
                write!(f, "sync {after} from now of node {} fails with EIO", node + 1)
            }
            Fault::NoSpace { node, spare, length } => {
                write!(f, "the disk of node {} has {spare} bytes left for {length:?}", node + 1)
            }
            Fault::Damage { node, rot, place } => {
                write!(f, "node {} is killed and its log damaged ({rot:?} at {place}/1000)", node + 1)
            }
            Fault::SealedRot { node, place } => {
                write!(f, "a bit flips in a sealed segment of node {} (at {place}/1000)", node + 1)
            }
            Fault::MirrorMidway { node, operations } => {
                write!(f, "node {} dies behind the next {operations} operations of its mirror", node + 1)
            }
            Fault::MirrorRot { node, .. } => write!(f, "a bit flips in the mirror of node {}", node + 1),
            Fault::OldCopy { node, length } => {
                write!(f, "the log of node {} is copied and put back {length:?} later", node + 1)
            }
            Fault::MirrorLost { node } => write!(f, "node {} is killed and loses its mirror", node + 1),
            Fault::MirrorError { node, after, sync } => {
                let what = if *sync { "sync" } else { "write" };
                write!(f, "{what} {after} from now of the mirror of node {} fails with EIO", node + 1)
            }
            Fault::MirrorFull { node, after } => {
                write!(f, "write {after} from now of the mirror of node {} finds no space", node + 1)
            }
            Fault::EmptyDisk { node } => write!(f, "node {} is given an empty disk", node + 1),
            Fault::Roster(step) => write!(f, "the operator: {step}"),
        }
    }
}
