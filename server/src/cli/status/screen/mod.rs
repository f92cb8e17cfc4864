//! The status as a screen that is redrawn in place: `pelago status --watch`, and the demo's.
//!
//! * `mod` what is shown where, and what the keys do · `parts` nodes, groups, transfers, alarms
//! * `paint` rows, bars, plots · `past` rates · `terminal` taking it and giving it back
//! * `live` the loop: looks at the cluster on a thread of its own, keys, frames

mod live;
mod paint;
mod parts;
mod past;
mod terminal;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

pub(crate) use live::{Live, Looker, Source};
pub(crate) use terminal::is_there;

use crate::client::overview::{GroupOverview, Overview};
use paint::{Row, Theme, cut, wrap};
use past::Past;

/// From so many columns on there are two of parts side by side.
const WIDE: u16 = 120;
/// Data older than this are said to be old.
const OLD: Duration = Duration::from_secs(3);
/// Events that are kept.
const EVENTS: usize = 50;

/// In which order the groups are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// By number.
    #[default]
    Number,
    /// Those with a problem first.
    Trouble,
    /// The largest lag first.
    Lag,
    /// The checkpoint that is furthest behind first.
    Checkpoint,
    /// The largest first.
    Size,
}

impl Order {
    const ALL: [Order; 5] = [Order::Number, Order::Trouble, Order::Lag, Order::Checkpoint, Order::Size];

    fn next(self) -> Order {
        let place = Order::ALL.iter().position(|order| *order == self).unwrap_or(0);
        Order::ALL[(place + 1) % Order::ALL.len()]
    }

    fn name(self) -> &'static str {
        match self {
            Order::Number => "sort: number",
            Order::Trouble => "sort: trouble",
            Order::Lag => "sort: lag",
            Order::Checkpoint => "sort: checkpoint",
            Order::Size => "sort: size",
        }
    }

    fn sort(self, groups: &[GroupOverview]) -> Vec<&GroupOverview> {
        let mut sorted: Vec<&GroupOverview> = groups.iter().collect();
        // Stable, and the groups come by number.
        match self {
            Order::Number => {}
            Order::Trouble => sorted.sort_by_key(|g| (g.problem.is_none(), std::cmp::Reverse(g.lag))),
            Order::Lag => sorted.sort_by_key(|g| std::cmp::Reverse(g.lag)),
            Order::Checkpoint => sorted.sort_by_key(|g| std::cmp::Reverse(g.checkpoint_behind)),
            Order::Size => sorted.sort_by_key(|g| std::cmp::Reverse(g.bytes)),
        }
        sorted
    }
}

/// How an event is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Something was done.
    Plain,
    /// Not as it should be.
    Bad,
}

/// What a key was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressed {
    /// Nothing that means anything here.
    Nothing,
    /// The screen has changed.
    Changed,
    /// The screen is to be drawn in whole.
    Redraw,
    /// The end is wanted.
    Quit,
    /// A letter that the screen itself has no meaning for.
    Letter(char),
}

/// What is shown, and how somebody wants to see it.
#[derive(Debug)]
pub(crate) struct Screen {
    theme: Theme,
    overview: Option<Overview>,
    /// Why the last look saw nothing.
    failure: Option<String>,
    /// When the overview was true, and when now is, since the screen was made.
    seen: Duration,
    now: Duration,
    past: Past,
    order: Order,
    top: usize,
    /// Groups that the last frame had room for.
    page: usize,
    help: bool,
    /// Keys beside those of every screen, with what they do in a word and in a sentence.
    keys: &'static [(char, &'static str, &'static str)],
    /// More for the help, a line each.
    about: Vec<String>,
    events: VecDeque<(Duration, Tone, String)>,
    /// What is going on now, said until it is over.
    doing: Option<String>,
}

impl Screen {
    /// An empty one.
    pub fn new(colour: bool) -> Screen {
        Screen {
            theme: Theme { colour },
            overview: None,
            failure: None,
            seen: Duration::ZERO,
            now: Duration::ZERO,
            past: Past::default(),
            order: Order::default(),
            top: 0,
            page: 1,
            help: false,
            keys: &[],
            about: Vec::new(),
            events: VecDeque::new(),
            doing: None,
        }
    }

    /// One with more keys, and with more to say in its help.
    pub fn with(self, keys: &'static [(char, &'static str, &'static str)], about: Vec<String>) -> Screen {
        Screen { keys, about, ..self }
    }

    /// What the newest look saw, or why it saw nothing.
    pub fn look(&mut self, at: Duration, look: Result<Overview, String>) {
        self.now = at;
        match look {
            Ok(overview) => {
                self.past.note(at, &overview);
                self.overview = Some(overview);
                self.seen = at;
                self.failure = None;
            }
            Err(why) => self.failure = Some(why),
        }
    }

    /// Time passes. Says whether that shows.
    pub fn tick(&mut self, at: Duration) -> bool {
        let before = self.staleness();
        self.now = at;
        self.staleness() != before
    }

    /// What the newest look saw.
    pub fn overview(&self) -> Option<&Overview> {
        self.overview.as_ref()
    }

    /// Something has happened.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((self.now, tone, text.into()));
    }

    /// Something is going on, or nothing any more.
    pub fn doing(&mut self, what: Option<String>) {
        self.doing = what;
    }

    /// What a key means.
    pub fn key(&mut self, key: KeyEvent) -> Pressed {
        let groups = self.overview.as_ref().map_or(0, |overview| overview.groups.len());
        let last = groups.saturating_sub(self.page);
        match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Pressed::Quit;
            }
            KeyCode::Char('l') if key.modifiers.contains(KeyModifiers::CONTROL) => return Pressed::Redraw,
            KeyCode::Char('?') => self.help = !self.help,
            // Whatever closes the help does nothing else.
            _ if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.top = 0;
            }
            KeyCode::Down => self.top = (self.top + 1).min(last),
            KeyCode::Up => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = (self.top + self.page).min(last),
            KeyCode::PageUp => self.top = self.top.saturating_sub(self.page),
            KeyCode::Home => self.top = 0,
            KeyCode::End => self.top = last,
            KeyCode::Char(letter) => return Pressed::Letter(letter),
            _ => return Pressed::Nothing,
        }
        Pressed::Changed
    }

    /// Whole seconds since the last look that saw something, once that is worth a word.
    fn staleness(&self) -> Option<u64> {
        let age = self.now.saturating_sub(self.seen);
        (age >= OLD || self.failure.is_some()).then_some(age.as_secs())
    }

    /// Draws everything.
    pub fn draw(&mut self, buffer: &mut Buffer, area: Rect) {
        self.title(buffer, area);
        let body = Rect { y: area.y + 1, height: area.height.saturating_sub(2), ..area };
        if self.help {
            self.draw_help(buffer, body);
        } else if let Some(overview) = self.overview.take() {
            self.body(buffer, body, &overview);
            self.overview = Some(overview);
        } else {
            self.waiting(buffer, body);
        }
        self.footer(buffer, area);
    }

    fn title(&self, buffer: &mut Buffer, area: Rect) {
        let style = self.theme.title();
        Row::new(buffer, area, 0).put(&" ".repeat(usize::from(area.width)), style);
        let mut row = Row::new(buffer, area, 0);
        let Some(Overview { summary, .. }) = &self.overview else {
            row.put(" pelago", style);
            return;
        };
        let short: String = summary.cluster.chars().take(8).collect();
        let stale = self.staleness().map(|seconds| format!("  seen {seconds} s ago")).unwrap_or_default();
        let well = summary.healthy && stale.is_empty();
        let badge = if well { " HEALTHY " } else { " LOOK " };
        let right = format!("{}/{} nodes ", summary.nodes_alive, summary.nodes);
        let tail = right.chars().count() + badge.chars().count();
        let left = format!(" pelago {}  {} ({short}){stale}", summary.version, summary.cluster_name);
        row.left(&left, usize::from(area.width).saturating_sub(tail), style);
        row.put(&right, style).put(badge, self.theme.badge(well));
    }

    fn body(&mut self, buffer: &mut Buffer, area: Rect, overview: &Overview) {
        let figures = Rect { height: area.height.min(2), ..area };
        self.figures(buffer, figures, overview);
        let rest = Rect { y: area.y + figures.height, height: area.height - figures.height, ..area };
        if rest.width >= WIDE {
            let left = Rect { width: rest.width * 2 / 3, ..rest };
            let right = Rect { x: left.right() + 2, width: rest.width - left.width - 2, ..rest };
            let nodes = self.nodes(buffer, left, overview, rest.height / 2);
            self.groups(buffer, below(left, nodes), overview);
            let plots = self.plots(buffer, right);
            let ways = self.transfers(buffer, below(right, plots), overview, rest.height / 4);
            let mut used = plots + ways;
            used += self.alarms(buffer, below(right, used), overview, rest.height / 3);
            self.events(buffer, below(right, used), rest.height);
        } else {
            let nodes = self.nodes(buffer, rest, overview, (rest.height / 3).max(4));
            let free = below(rest, nodes);
            // From the bottom up; what is left belongs to the groups, a few lines at least.
            let (most, least) = (free.height / 4 + 1, 4);
            let mut foot = free.height;
            for part in [Part::Events, Part::Alarms, Part::Transfers] {
                let wanted = self.lines(part, overview, rest.width).min(most);
                if wanted > 1 && foot >= wanted + least {
                    foot -= wanted;
                    let place = Rect { height: wanted, ..below(free, foot) };
                    match part {
                        Part::Events => self.events(buffer, place, wanted),
                        Part::Alarms => self.alarms(buffer, place, overview, wanted),
                        Part::Transfers => self.transfers(buffer, place, overview, wanted),
                    };
                }
            }
            self.groups(buffer, Rect { height: foot, ..free }, overview);
        }
    }

    fn waiting(&self, buffer: &mut Buffer, area: Rect) {
        let text = match &self.failure {
            Some(why) => format!("nobody answers: {why}"),
            None => "asking the nodes …".to_owned(),
        };
        for (line, text) in (1..).zip(wrap(&text, usize::from(area.width).saturating_sub(2), 8)) {
            Row::new(buffer, area, line).gap(1).put(&text, self.theme.warn());
        }
    }

    fn footer(&self, buffer: &mut Buffer, area: Rect) {
        let Some(line) = area.height.checked_sub(1) else { return };
        let mut row = Row::new(buffer, area, line);
        row.gap(1);
        let own = self.keys.iter().map(|(key, word, _)| (key.to_string(), *word));
        let always = [("s", self.order.name()), ("↑↓", "scroll"), ("?", "help"), ("q", "quit")];
        for (key, word) in own.chain(always.map(|(key, word)| (key.to_owned(), word))) {
            // A word that would be cut says nothing; the help has it.
            if row.room() > key.chars().count() + 1 + word.chars().count() {
                row.put(&key, self.theme.head()).gap(1).put(word, self.theme.dim()).gap(2);
            }
        }
    }

    fn draw_help(&self, buffer: &mut Buffer, area: Rect) {
        let mut lines: Vec<(String, String)> =
            self.keys.iter().map(|(key, _, sentence)| (key.to_string(), (*sentence).to_owned())).collect();
        lines.extend(
            [
                ("s", "sort the groups: by number, trouble, lag, checkpoint, size"),
                ("↑ ↓ PgUp PgDn", "scroll the groups; Home and End, too"),
                ("Ctrl-L", "draw the screen anew"),
                ("q Esc Ctrl-C", "end"),
                ("", ""),
                ("lag", "instances that the slowest member lacks, and how old they are"),
                ("checkpoint", "instances that the oldest one lacks, and its age"),
                ("fsync p99", "of the latest 1024 commits: one write and one sync each"),
                ("full in", "until min_free_disk is left, at the rate of ten minutes"),
                ("replicas", "equal: at the same instance; moving: at different ones"),
            ]
            .map(|(key, text)| (key.to_owned(), text.to_owned())),
        );
        Row::new(buffer, area, 0).rule("help", "any key goes back", self.theme);
        let mut at = 1;
        for (key, text) in &lines {
            let mut row = Row::new(buffer, area, at);
            row.gap(1).left(key, 14, self.theme.head()).put(text, self.theme.strong());
            at += 1;
        }
        at += 1;
        for text in &self.about {
            Row::new(buffer, area, at).gap(1).put(text, self.theme.accent());
            at += 1;
        }
    }
}

/// What is below a number of lines of an area.
fn below(area: Rect, lines: u16) -> Rect {
    let lines = lines.min(area.height);
    Rect { y: area.y + lines, height: area.height - lines, ..area }
}

/// A part that is only there when it has something to show.
#[derive(Clone, Copy)]
enum Part {
    Events,
    Alarms,
    Transfers,
}
