//! The parts of the screen. Each draws itself into an area and says how many lines it took.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;

use super::paint::plot;
use super::{Part, Row, Screen, Tone, cut, wrap};
use crate::cli::status::figures::{behind, bytes, count, micros, span};
use crate::cli::status::table::tolerance;
use crate::client::overview::{Agreement, GroupOverview, Overview, UnderWay, under_way};
use crate::status::NodeStatus;

/// From so many columns on the lists have more of them.
const ROOMY: u16 = 100;
/// A disk that is full within a day is worth a colour.
const SOON: f64 = 86_400.0;

impl Screen {
    /// The cluster in two lines.
    pub(super) fn figures(&self, buffer: &mut Buffer, area: Rect, overview: &Overview) {
        let theme = self.theme;
        let summary = &overview.summary;
        let mut row = Row::new(buffer, area, 0);
        row.gap(1);
        match summary.groups - summary.groups_led {
            0 => row.put(&format!("all {} groups have a leader", summary.groups), theme.good()),
            without => {
                row.put(&format!("{without} of {} groups have no leader", summary.groups), theme.bad())
            }
        };
        let spare = if summary.tolerates.is_some_and(|more| more > 0) { Style::new() } else { theme.bad() };
        row.put(", ", Style::new()).put(&tolerance(summary), spare);
        let rate = self.past.rates().last().copied();
        let rate = rate.map(|rate| format!("{} commands/s", count(rate))).unwrap_or_default();
        let size = format!("{} keys, {}", count(summary.keys as f64), bytes(summary.bytes));
        let end = if rate.is_empty() { size.clone() } else { format!("{size}, {rate}") };
        let end = if end.chars().count() + 2 <= row.room() { end } else { size };
        row.at_end(&format!("{end} "), Style::new());

        let agreement = &summary.agreement;
        let mut row = Row::new(buffer, area, 1);
        row.gap(1);
        match agreement.differs {
            0 => row.put(&format!("replicas: {} equal", agreement.equal), theme.good()),
            differs => row.put(&format!("replicas of {differs} groups DIFFER"), theme.bad()),
        };
        for (number, what) in
            [(agreement.partial, "partly"), (agreement.moving, "moving"), (agreement.alone, "alone")]
        {
            if number > 0 {
                row.put(&format!(", {number} {what}"), Style::new());
            }
        }
        row.put("; lag ", Style::new()).put(&behind(summary.lag, summary.lag_s), self.lag_style(summary.lag));
        row.put(&format!("; fsync p99 {}", micros(summary.commit_p99_us)), Style::new());
        match summary.runway {
            Some(runway) => {
                let style = if runway.seconds < SOON { theme.warn() } else { Style::new() };
                row.put(&format!("; disk {} full in {}", runway.node, span(runway.seconds)), style);
            }
            None if row.room() > 20 => {
                row.put("; no disk is filling", theme.dim());
            }
            None => {}
        }
    }

    fn lag_style(&self, lag: u64) -> Style {
        if lag > 1_000 { self.theme.warn() } else { Style::new() }
    }

    /// A line for each node, as many as fit into `most` lines with their head; those that are missing come first when
    /// there are more.
    pub(super) fn nodes(&self, buffer: &mut Buffer, area: Rect, overview: &Overview, most: u16) -> u16 {
        let roomy = area.width >= ROOMY;
        let theme = self.theme;
        let mut row = Row::new(buffer, area, 0);
        let head = theme.head();
        row.gap(1)
            .put("node  client address         state  leads        fsync p99  disk left  full in", head);
        if roomy {
            row.put("   log size  clients  cmd/s", head);
        }
        let room = usize::from(most.min(area.height).saturating_sub(1));
        let mut lines: Vec<(u32, Option<&NodeStatus>)> =
            overview.nodes.iter().map(|node| (node.node, Some(node))).collect();
        lines.extend(overview.unreachable.iter().map(|missing| (missing.node, None)));
        lines.sort_by_key(|(node, _)| *node);
        let all = lines.len();
        if all > room {
            lines.sort_by_key(|(node, status)| (status.is_some(), *node));
            lines.truncate(room.saturating_sub(1));
        }
        let mut at = 1;
        for (node, status) in &lines {
            let mut row = Row::new(buffer, area, at);
            row.gap(1).right(&node.to_string(), 4, theme.strong()).gap(2);
            match status {
                Some(status) => self.node(&mut row, status, overview, roomy),
                None => self.missing(&mut row, *node, overview),
            }
            at += 1;
        }
        if lines.len() < all {
            let rest = all - lines.len();
            Row::new(buffer, area, at)
                .gap(1)
                .put(&format!("and {rest} more nodes, which answer"), theme.dim());
            at += 1;
        }
        at.min(area.height)
    }

    fn node(&self, row: &mut Row<'_>, node: &NodeStatus, overview: &Overview, roomy: bool) {
        let theme = self.theme;
        let plain = Style::new();
        let own = node.nodes.iter().find(|peer| peer.node == node.node);
        row.left(own.map_or("", |peer| peer.client_addr.as_str()), 21, plain).gap(2);
        match &node.read_only {
            None => row.left("alive", 5, theme.good()),
            Some(_) => row.left("full!", 5, theme.bad()),
        };
        let leads = overview.summary.leads.get(&node.node).copied().unwrap_or(0);
        let share = leads as f64 / overview.summary.groups.max(1) as f64;
        row.gap(2).bar(share, 6, theme.accent(), theme.dim()).gap(1).left(&count(leads as f64), 4, plain);
        row.gap(2).right(&micros(node.log.commit_p99_us), 9, plain);
        row.gap(2).right(&bytes(node.log.free_bytes), 9, plain);
        let runway = node.log.runway_s;
        let style = if runway.is_some_and(|seconds| seconds < SOON) { theme.warn() } else { plain };
        row.gap(2).right(&runway.map_or_else(|| "-".to_owned(), span), 7, style);
        if roomy {
            let rate = self.past.rate_of(node.node).map_or_else(|| "-".to_owned(), count);
            row.gap(2).right(&bytes(node.log.disk_bytes), 9, plain);
            row.gap(2).right(&node.connections.to_string(), 7, plain);
            row.gap(2).right(&rate, 5, plain);
        }
    }

    fn missing(&self, row: &mut Row<'_>, node: u32, overview: &Overview) {
        let Some(missing) = overview.unreachable.iter().find(|missing| missing.node == node) else { return };
        let state = if missing.alive { "heard" } else { "dead" };
        row.left(&missing.client_addr, 21, Style::new()).gap(2);
        row.left(state, 5, self.theme.bad()).gap(2);
        row.left(&missing.why, row.room(), self.theme.bad());
    }

    /// The groups from where somebody has scrolled to.
    pub(super) fn groups(&mut self, buffer: &mut Buffer, area: Rect, overview: &Overview) {
        let roomy = area.width >= ROOMY;
        let groups = self.order.sort(&overview.groups);
        self.page = usize::from(area.height.saturating_sub(1)).max(1);
        self.top = self.top.min(groups.len().saturating_sub(self.page));
        let shown = &groups[self.top..groups.len().min(self.top + self.page)];
        let head = self.theme.head();
        let mut row = Row::new(buffer, area, 0);
        row.gap(1)
            .put("group leader members             lag   checkpoint     keys      size  replicas", head);
        if roomy {
            row.put("    applied        slots", head);
        }
        for (at, group) in (1..).zip(shown) {
            self.group(&mut Row::new(buffer, area, at), group, overview, roomy);
        }
        self.place(buffer, area, groups.len());
    }

    /// How far somebody has scrolled, at the right end: a mark in the column of the last cells.
    fn place(&self, buffer: &mut Buffer, area: Rect, all: usize) {
        let rows = self.page;
        if all <= rows || area.width == 0 || area.height < 2 {
            return;
        }
        let column = Rect { x: area.right() - 1, width: 1, ..area };
        let size = (rows * rows / all).max(1);
        let start = (self.top * (rows - size)).div_ceil((all - rows).max(1));
        for line in 0..rows {
            let (text, style) = match (start..start + size).contains(&line) {
                true => ("█", self.theme.accent()),
                false => ("│", self.theme.dim()),
            };
            Row::new(buffer, column, line as u16 + 1).put(text, style);
        }
    }

    fn group(&self, row: &mut Row<'_>, group: &GroupOverview, overview: &Overview, roomy: bool) {
        let theme = self.theme;
        let plain = Style::new();
        row.gap(1).right(&group.group.to_string(), 5, theme.strong()).gap(1);
        match group.leader {
            Some(node) => row.right(&node.to_string(), 6, theme.accent()),
            None => row.right("none", 6, theme.bad()),
        };
        row.gap(1);
        let mut width = 11_usize;
        for (index, node) in group.members.iter().enumerate() {
            let text = if index == 0 { node.to_string() } else { format!(" {node}") };
            let answers = overview.nodes.iter().any(|status| status.node == *node);
            if text.len() <= width {
                width -= text.len();
                row.put(&text, if answers { plain } else { theme.bad() });
            }
        }
        row.gap(width as u16 + 1);
        if let Some(problem) = &group.problem {
            // The scroll mark has the last column.
            let room = row.room().saturating_sub(1);
            row.put(&cut(problem, room), theme.bad());
            return;
        }
        row.right(&behind(group.lag, group.lag_s), 11, self.lag_style(group.lag)).gap(1);
        row.right(&behind(group.checkpoint_behind, group.checkpoint_age_s), 12, plain).gap(1);
        row.right(&count(group.keys as f64), 8, plain).gap(1).right(&bytes(group.bytes), 9, plain).gap(2);
        match group.agreement {
            Agreement::Equal => row.left("equal", 7, theme.good()),
            Agreement::Partial => row.left("partly", 7, theme.warn()),
            Agreement::Moving => row.left("moving", 7, plain),
            Agreement::Alone => row.left("alone", 7, theme.warn()),
            Agreement::Differs => row.left("DIFFER", 7, theme.bad()),
        };
        if roomy {
            row.gap(2).right(&group.applied.to_string(), 10, plain);
            row.gap(2).right(&format!("{}-{}", group.first_slot, group.last_slot), 11, theme.dim());
        }
    }

    /// Commands and syncs over time.
    pub(super) fn plots(&self, buffer: &mut Buffer, area: Rect) -> u16 {
        const HEIGHT: u16 = 4;
        if area.height < 2 * (HEIGHT + 1) {
            return 0;
        }
        let (rates, syncs) = (self.past.rates(), self.past.syncs());
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let seen = |values: Vec<f64>| values[values.len().saturating_sub(usize::from(area.width))..].to_vec();
        let (rates, syncs) = (seen(rates), seen(syncs));
        let parts = [
            ("commands/s", count(most(&rates)), rates, self.theme.good()),
            ("fsync p99", micros(most(&syncs) as u64), syncs, self.theme.accent()),
        ];
        let mut used = 0;
        for (name, top, values, style) in parts {
            Row::new(buffer, super::below(area, used), 0).rule(name, &format!("top {top}"), self.theme);
            let place = Rect { height: HEIGHT, ..super::below(area, used + 1) };
            plot(buffer, place, &values, style);
            used += HEIGHT + 1;
        }
        used
    }

    /// What is on its way, with bars.
    pub(super) fn transfers(&self, buffer: &mut Buffer, area: Rect, overview: &Overview, most: u16) -> u16 {
        let ways = under_way(&overview.nodes);
        if ways.is_empty() {
            return 0;
        }
        let shown = usize::from(most.min(area.height).saturating_sub(1)).min(ways.len());
        let note = match ways.len() - shown {
            0 => String::new(),
            more => format!("and {more} more"),
        };
        Row::new(buffer, area, 0).rule("on the way", &note, self.theme);
        for (line, way) in (1..).zip(&ways[..shown]) {
            self.transfer(&mut Row::new(buffer, area, line), way);
        }
        shown as u16 + 1
    }

    fn transfer(&self, row: &mut Row<'_>, way: &UnderWay) {
        let plain = Style::new();
        let progress = self.past.progress(way);
        let what = if way.checkpoint { "checkpoint" } else { "values" };
        let roomy = row.room() > 70;
        let (name, bar) = if roomy { (21, 10) } else { (14, 6) };
        let what =
            if roomy { format!("group {} {what}", way.group) } else { format!("{} {what}", way.group) };
        row.gap(1).left(&what, name, plain);
        row.gap(1).left(&format!("{}→{}", way.from, way.to), 5, self.theme.accent()).gap(1);
        row.bar(progress.share.unwrap_or(0.0), bar, self.theme.good(), self.theme.dim());
        let share =
            progress.share.map_or_else(|| "  ? ".to_owned(), |share| format!("{:>3.0}%", share * 100.0));
        row.gap(1).put(&share, plain);
        let amount = match way.checkpoint && way.expected_bytes > 0 {
            true => format!("{}/{}", bytes(way.bytes), bytes(way.expected_bytes)),
            false => bytes(way.bytes),
        };
        let left = progress.remaining.map(|left| format!(", {} left", span(left))).unwrap_or_default();
        let rate = bytes(way.rate() as u64);
        let end = if roomy { format!("{amount}, {rate}/s{left}") } else { format!("{rate}/s{left}") };
        row.gap(2);
        let room = row.room();
        row.put(&cut(&end, room), plain);
    }

    /// What an operator should look at.
    pub(super) fn alarms(&self, buffer: &mut Buffer, area: Rect, overview: &Overview, most: u16) -> u16 {
        let lines = alarm_lines(overview, area.width);
        if lines.is_empty() {
            return 0;
        }
        let room = usize::from(most.min(area.height).saturating_sub(1));
        let shown = lines.len().min(room);
        let alarms = overview.summary.alarms.len();
        let note =
            if shown < lines.len() { format!("{alarms} in all; see pelago status") } else { String::new() };
        Row::new(buffer, area, 0).rule("look at", &note, self.theme);
        for (at, (first, text)) in (1..).zip(&lines[..shown]) {
            let mark = if *first { "! " } else { "  " };
            Row::new(buffer, area, at).gap(1).put(mark, self.theme.bad()).put(text, Style::new());
        }
        shown as u16 + 1
    }

    /// What has happened lately, the newest last.
    pub(super) fn events(&self, buffer: &mut Buffer, area: Rect, most: u16) -> u16 {
        let lines = self.event_lines(area.width);
        if lines.is_empty() || area.height < 2 {
            return 0;
        }
        let room = usize::from(most.min(area.height).saturating_sub(1));
        let shown = &lines[lines.len().saturating_sub(room)..];
        Row::new(buffer, area, 0).rule("what happened", "", self.theme);
        for (at, (when, tone, text)) in (1..).zip(shown) {
            let style = match tone {
                Tone::Good => self.theme.good(),
                Tone::Plain => Style::new(),
                Tone::Bad => self.theme.bad(),
            };
            Row::new(buffer, area, at).gap(1).right(when, 6, self.theme.dim()).gap(2).put(text, style);
        }
        shown.len() as u16 + 1
    }

    /// Time, tone and text of each line.
    fn event_lines(&self, width: u16) -> Vec<(String, Tone, String)> {
        let room = usize::from(width).saturating_sub(10);
        let past = self.events.iter().map(|(at, tone, text)| (format!("{}s", at.as_secs()), *tone, text));
        let now = self.doing.iter().map(|text| ("now".to_owned(), Tone::Plain, text));
        let mut lines = Vec::new();
        for (when, tone, text) in past.chain(now) {
            let mut when = Some(when);
            for text in wrap(text, room, 3) {
                lines.push((when.take().unwrap_or_default(), tone, text));
            }
        }
        lines
    }

    /// How many lines a part would take if it had them.
    pub(super) fn lines(&self, part: Part, overview: &Overview, width: u16) -> u16 {
        let lines = match part {
            Part::Events => self.event_lines(width).len(),
            Part::Alarms => alarm_lines(overview, width).len(),
            Part::Transfers => under_way(&overview.nodes).len(),
        };
        u16::try_from(lines).unwrap_or(u16::MAX - 1) + u16::from(lines > 0)
    }
}

/// Whether it is the first of its alarm, and the text of each line.
fn alarm_lines(overview: &Overview, width: u16) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    for alarm in &overview.summary.alarms {
        let text = match alarm.node {
            Some(node) => format!("node {node}: {}", alarm.text),
            None => alarm.text.clone(),
        };
        let wrapped = wrap(&text, usize::from(width).saturating_sub(4), 3);
        lines.extend(wrapped.into_iter().enumerate().map(|(index, text)| (index == 0, text)));
    }
    lines
}
