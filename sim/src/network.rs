//! The network between the machines: every direction of every pair is a link of its own, and
//! what is wrong with it follows from the effects in force.
//!
//! Parcels travel independently, so they overtake each other even on a good day. That is more
//! than TCP would do inside one connection, and less than reconnecting does.

use std::time::Duration;

use groups::random::Random;
use groups::time::Time;

/// A direction between two machines, by index.
pub type Direction = (usize, usize);

/// Something that is wrong with the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing passes in these directions.
    Cut(Vec<Direction>),
    /// Nothing passes in these directions in every other period.
    Flap(Vec<Direction>, Duration),
    /// So many of a thousand parcels are lost, everywhere.
    Loss(u64),
    /// So many of a thousand parcels come twice, everywhere, the second time up to so much later.
    Duplication(u64, Duration),
    /// So many of a thousand parcels are late by up to so much, everywhere.
    Reorder(u64, Duration),
    /// One direction is slower by so much.
    Slow(Direction, Duration),
}

#[derive(Clone, Debug, Default)]
struct Link {
    cut: bool,
    flaps: Vec<(Time, Duration)>,
    slow: Duration,
    /// Rises when the connection breaks: what was under way before is lost.
    epoch: u64,
}

/// What becomes of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives after this.
    Once(Duration),
    /// It arrives after both.
    Twice(Duration, Duration),
}

/// All links.
#[derive(Debug)]
pub struct Network {
    machines: usize,
    links: Vec<Link>,
    effects: Vec<(usize, Time, Effect)>,
    loss: u64,
    duplication: (u64, Duration),
    reorder: (u64, Duration),
    random: Random,
}

impl Network {
    /// A sound network between so many machines.
    #[must_use]
    pub fn new(machines: usize, seed: u64) -> Network {
        Network {
            machines,
            links: vec![Link::default(); machines * machines],
            effects: Vec::new(),
            loss: 0,
            duplication: (0, Duration::ZERO),
            reorder: (0, Duration::ZERO),
            random: Random::new(seed),
        }
    }

    fn link(&self, (from, to): Direction) -> &Link {
        &self.links[from * self.machines + to]
    }

    /// Puts an effect in force under a name of the caller's.
    pub fn begin(&mut self, name: usize, effect: Effect, now: Time) {
        self.effects.push((name, now, effect));
        self.apply();
    }

    /// Ends an effect.
    pub fn end(&mut self, name: usize) {
        self.effects.retain(|(n, _, _)| *n != name);
        self.apply();
    }

    /// Ends all effects.
    pub fn heal(&mut self) {
        self.effects.clear();
        self.apply();
    }

    fn apply(&mut self) {
        for link in &mut self.links {
            *link = Link { epoch: link.epoch, ..Link::default() };
        }
        (self.loss, self.duplication, self.reorder) = (0, (0, Duration::ZERO), (0, Duration::ZERO));
        let machines = self.machines;
        let at = |(from, to): Direction| from * machines + to;
        for (_, since, effect) in &self.effects {
            match effect {
                Effect::Cut(directions) => {
                    for direction in directions {
                        self.links[at(*direction)].cut = true;
                    }
                }
                Effect::Flap(directions, period) => {
                    for direction in directions {
                        self.links[at(*direction)].flaps.push((*since, *period));
                    }
                }
                Effect::Loss(share) => self.loss = self.loss.max(*share),
                Effect::Duplication(share, by) => self.duplication = self.duplication.max((*share, *by)),
                Effect::Reorder(share, by) => self.reorder = self.reorder.max((*share, *by)),
                Effect::Slow(direction, by) => {
                    let slow = &mut self.links[at(*direction)].slow;
                    *slow = (*slow).max(*by);
                }
            }
        }
    }

    /// Breaks the connection of two machines: everything under way in both directions is lost.
    pub fn disconnect(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links[from * self.machines + to].epoch += 1;
        }
    }

    /// The connection that a direction has now; what was sent on an earlier one is lost.
    #[must_use]
    pub fn epoch(&self, direction: Direction) -> u64 {
        self.link(direction).epoch
    }

    /// Whether nothing ever passes in this direction while the effects in force last.
    #[must_use]
    pub fn is_cut(&self, direction: Direction) -> bool {
        self.link(direction).cut
    }

    /// Decides over a parcel that is sent now.
    pub fn carry(&mut self, direction: Direction, now: Time) -> Fate {
        let link = &self.links[direction.0 * self.machines + direction.1];
        let flapping = |(since, period): &(Time, Duration)| {
            (now.since(*since).as_nanos() / period.as_nanos().max(1)).is_multiple_of(2)
        };
        if link.cut || link.flaps.iter().any(flapping) || self.random.below(1000) < self.loss {
            return Fate::Lost;
        }
        let slow = link.slow;
        let (share, late) = self.reorder;
        let random = &mut self.random;
        let mut delay = || {
            let mut delay = Duration::from_micros(100 + random.below(1_500)) + slow;
            // The tail that every network has.
            if random.below(16) == 0 {
                delay += Duration::from_millis(5);
            }
            if share > 0 && random.below(1000) < share {
                delay += random.duration_below(late);
            }
            delay
        };
        let first = delay();
        let (share, late) = self.duplication;
        if share > 0 && self.random.below(1000) < share {
            let second = Duration::from_micros(100) + self.random.duration_below(late);
            return Fate::Twice(first, first + second);
        }
        Fate::Once(first)
    }
}
