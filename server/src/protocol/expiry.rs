//! The forms of the commands about lives: until when a key is there.

use groups::kv::When;

use super::command::Command;
use super::data::{Operation, Put, PutAnswer, Renew};
use super::error::{ErrorReply, quoted};
use super::words::Words;

/// Until when a key is to be there, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So long from now on; not at all if that is not positive.
    In(i64),
    /// Until then, since the Unix epoch. The node that takes the command makes a life of it, by
    /// its own wall clock.
    At(i64),
}

impl Until {
    /// The life in milliseconds when the wall clock shows `unix` milliseconds; 0 when it is over.
    #[must_use]
    pub fn life(self, unix: u64) -> u64 {
        match self {
            Until::In(millis) => u64::try_from(millis).unwrap_or(0),
            Until::At(at) => u64::try_from(at).unwrap_or(0).saturating_sub(unix),
        }
    }
}

/// Times that are as long or as far are refused, as Redis refuses what overflows.
const TOO_LONG: u64 = 1 << 62;

/// What a time counts, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    seconds: bool,
    at: bool,
}

pub(super) const EX: Unit = Unit { seconds: true, at: false };
pub(super) const PX: Unit = Unit { seconds: false, at: false };
pub(super) const EXAT: Unit = Unit { seconds: true, at: true };
pub(super) const PXAT: Unit = Unit { seconds: false, at: true };

impl Unit {
    /// The option's unit, in capitals.
    fn of(option: &[u8]) -> Option<Unit> {
        match option {
            b"EX" => Some(EX),
            b"PX" => Some(PX),
            b"EXAT" => Some(EXAT),
            b"PXAT" => Some(PXAT),
            _ => None,
        }
    }
}

impl Words<'_> {
    fn invalid_expire(&self) -> ErrorReply {
        ErrorReply::err(format!("invalid expire time in '{}' command", self.spec.name))
    }

    /// A time, whatever its sign.
    pub(super) fn time(&mut self, unit: Unit) -> Result<Until, ErrorReply> {
        let number = self.integer()?;
        let factor = if unit.seconds { 1000 } else { 1 };
        let millis = number.checked_mul(factor).filter(|millis| millis.unsigned_abs() < TOO_LONG);
        let millis = millis.ok_or_else(|| self.invalid_expire())?;
        Ok(if unit.at { Until::At(millis) } else { Until::In(millis) })
    }

    /// A time that must be positive.
    fn positive_time(&mut self, unit: Unit) -> Result<Until, ErrorReply> {
        match self.time(unit)? {
            Until::In(..=0) | Until::At(..=0) => Err(self.invalid_expire()),
            until => Ok(until),
        }
    }

    /// `EX`, `PX`, `EXAT` and `PXAT`, in capitals, with the time behind them; `None` for another word.
    pub(super) fn until_option(&mut self, option: &[u8]) -> Result<Option<Until>, ErrorReply> {
        let Some(unit) = Unit::of(option) else { return Ok(None) };
        if self.left() == 0 {
            return Err(self.syntax_error(&format!("{} needs a time", quoted(option))));
        }
        self.positive_time(unit).map(Some)
    }

    /// `SETEX` and `PSETEX`.
    pub(super) fn set_for(self, unit: Unit) -> Result<Command, ErrorReply> {
        self.one(|words| {
            let until = Some(words.positive_time(unit)?);
            Ok(Operation::Put(Put { until, answer: PutAnswer::Ok, ..Put::new(words.value()?) }))
        })
    }

    /// `EXPIRE` and its like.
    pub(super) fn expire(self, unit: Unit) -> Result<Command, ErrorReply> {
        self.one(|words| {
            let until = words.time(unit)?;
            let mut when = When::default();
            let (mut nx, mut gt, mut lt) = (false, false, false);
            while let Some(option) = words.bytes() {
                match &*option.to_ascii_uppercase() {
                    b"NX" => nx = true,
                    b"XX" => when.mortal = Some(true),
                    b"GT" => gt = true,
                    b"LT" => lt = true,
                    b"REQ" => words.req()?,
                    b"FENCE" => words.token()?,
                    _ => return Err(ErrorReply::err(format!("Unsupported option {}", quoted(&option)))),
                }
            }
            if nx && (when.mortal.is_some() || gt || lt) {
                return Err(ErrorReply::err(
                    "NX and XX, GT or LT options at the same time are not compatible",
                ));
            }
            if gt && lt {
                return Err(ErrorReply::err("GT and LT options at the same time are not compatible"));
            }
            if nx {
                when.mortal = Some(false);
            }
            when.later = (gt || lt).then_some(gt);
            Ok(Operation::Renew(Renew { until: Some(until), when, value: false }))
        })
    }

    /// `PERSIST`.
    pub(super) fn persist(self) -> Result<Command, ErrorReply> {
        let when = When { mortal: Some(true), later: None };
        self.one(|_| Ok(Operation::Renew(Renew { until: None, when, value: false })))
    }

    /// `GETEX`: without an option it is a get.
    pub(super) fn get_ex(self) -> Result<Command, ErrorReply> {
        self.one(|words| {
            let mut renew: Option<Option<Until>> = None;
            while let Some(option) = words.bytes() {
                let upper = option.to_ascii_uppercase();
                let next = match &*upper {
                    b"REQ" => {
                        words.req()?;
                        continue;
                    }
                    b"FENCE" => {
                        words.token()?;
                        continue;
                    }
                    b"PERSIST" => None,
                    other => match words.until_option(other)? {
                        Some(until) => Some(until),
                        None => return Err(words.unexpected(&option)),
                    },
                };
                if renew.replace(next).is_some() {
                    return Err(words.syntax_error("only one of EX, PX, EXAT, PXAT and PERSIST can be given"));
                }
            }
            Ok(match renew {
                None => Operation::Get { revision: false, stale: None },
                Some(until) => Operation::Renew(Renew { until, when: When::default(), value: true }),
            })
        })
    }

    /// `TTL` and its like.
    pub(super) fn rest_of_life(self, unit: Unit) -> Result<Command, ErrorReply> {
        self.one(|_| Ok(Operation::Rest { seconds: unit.seconds, at: unit.at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_what_is_left_by_the_wall_clock_of_the_node() {
        for (until, unix, life) in [
            (Until::In(5), 1_000, 5),
            (Until::In(0), 1_000, 0),
            (Until::In(-7), 1_000, 0),
            (Until::At(1_005), 1_000, 5),
            (Until::At(1_000), 1_000, 0),
            (Until::At(3), 1_000, 0),
            (Until::At(-3), 1_000, 0),
        ] {
            assert_eq!(until.life(unix), life, "{until:?} at {unix}");
        }
    }
}
