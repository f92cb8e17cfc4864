//! What the screen is drawn with: styles, rows of cells, bars, and text that is cut or wrapped.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::symbols::bar::NINE_LEVELS;

/// Styles by meaning. Without colour, weight and inversion carry what must not be overlooked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub colour: bool,
}

impl Theme {
    fn of(self, coloured: Style, plain: Style) -> Style {
        if self.colour { coloured } else { plain }
    }

    pub fn good(self) -> Style {
        self.of(Style::new().fg(Color::Green), Style::new())
    }

    pub fn warn(self) -> Style {
        self.of(Style::new().fg(Color::Yellow), Style::new())
    }

    pub fn bad(self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.of(bold.fg(Color::Red), bold)
    }

    pub fn dim(self) -> Style {
        self.of(Style::new().fg(Color::DarkGray), Style::new())
    }

    pub fn accent(self) -> Style {
        self.of(Style::new().fg(Color::Cyan), Style::new())
    }

    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The names of columns and parts.
    pub fn head(self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.of(bold.fg(Color::Cyan), bold.add_modifier(Modifier::UNDERLINED))
    }

    /// The bar at the top.
    pub fn title(self) -> Style {
        let inverse = Style::new().add_modifier(Modifier::REVERSED);
        self.of(Style::new().fg(Color::Black).bg(Color::Cyan), inverse)
    }

    /// A word in the bar at the top.
    pub fn badge(self, well: bool) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let back = if well { Color::Green } else { Color::Red };
        let front = if well { Color::Black } else { Color::White };
        self.of(bold.fg(front).bg(back), bold.add_modifier(Modifier::REVERSED))
    }
}

/// Writes into one row from left to right, and never past its end.
pub(super) struct Row<'a> {
    buffer: &'a mut Buffer,
    x: u16,
    y: u16,
    end: u16,
}

impl<'a> Row<'a> {
    /// The row `line` of an area; writes go nowhere when the area has no such row.
    pub fn new(buffer: &'a mut Buffer, area: Rect, line: u16) -> Row<'a> {
        let inside = line < area.height;
        let end = if inside { area.right() } else { area.x };
        Row { buffer, x: area.x, y: area.y.saturating_add(line), end }
    }

    /// Columns that are left.
    pub fn room(&self) -> usize {
        usize::from(self.end.saturating_sub(self.x))
    }

    pub fn put(&mut self, text: &str, style: Style) -> &mut Self {
        if self.room() > 0 {
            (self.x, _) = self.buffer.set_stringn(self.x, self.y, text, self.room(), style);
        }
        self
    }

    pub fn gap(&mut self, columns: u16) -> &mut Self {
        self.x = self.x.saturating_add(columns).min(self.end);
        self
    }

    /// A cell of that width; what is too long ends with an ellipsis.
    pub fn left(&mut self, text: &str, width: usize, style: Style) -> &mut Self {
        let text = cut(text, width);
        self.put(&format!("{text:<width$}"), style)
    }

    /// The same at the right end of the cell.
    pub fn right(&mut self, text: &str, width: usize, style: Style) -> &mut Self {
        let text = cut(text, width);
        self.put(&format!("{text:>width$}"), style)
    }

    /// Text at the right end of the row, if there is room for it.
    pub fn at_end(&mut self, text: &str, style: Style) -> &mut Self {
        let width = text.chars().count();
        if width <= self.room() {
            self.x = self.end - width as u16;
            self.put(text, style);
        }
        self
    }

    /// A bar of that width, filled as far as `share` of 1, in eighths of a column.
    pub fn bar(&mut self, share: f64, width: usize, full: Style, rest: Style) -> &mut Self {
        let eighths = (share.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
        for column in 0..width {
            let (text, style) = match eighths.saturating_sub(column * 8) {
                0 => ("·", rest),
                1 => ("▏", full),
                2 => ("▎", full),
                3 => ("▍", full),
                4 => ("▌", full),
                5 => ("▋", full),
                6 => ("▊", full),
                7 => ("▉", full),
                _ => ("█", full),
            };
            self.put(text, style);
        }
        self
    }

    /// The name of a part and a line to the end of the row, with a note in it.
    pub fn rule(&mut self, name: &str, note: &str, theme: Theme) {
        self.put(name, theme.head()).gap(1);
        let line = self.room().saturating_sub(if note.is_empty() { 0 } else { note.chars().count() + 1 });
        self.put(&"─".repeat(line), theme.dim());
        self.gap(1).put(note, theme.dim());
    }
}

/// The newest of `values` as a plot, the largest of what is seen at full height, the newest at the right.
pub(super) fn plot(buffer: &mut Buffer, area: Rect, values: &[f64], style: Style) {
    let seen = &values[values.len().saturating_sub(usize::from(area.width))..];
    let most = seen.iter().copied().fold(0.0, f64::max);
    let bars = NINE_LEVELS;
    let levels = [
        bars.empty,
        bars.one_eighth,
        bars.one_quarter,
        bars.three_eighths,
        bars.half,
        bars.five_eighths,
        bars.three_quarters,
        bars.seven_eighths,
        bars.full,
    ];
    let steps = f64::from(area.height) * 8.0;
    let first = area.right() - seen.len() as u16;
    for (x, value) in (first..).zip(seen) {
        // What is not nothing is seen.
        let height =
            if *value > 0.0 && most > 0.0 { (value / most * steps).round().max(1.0) as usize } else { 0 };
        for up in 0..area.height {
            let level = height.saturating_sub(usize::from(up) * 8).min(8);
            let y = area.bottom() - 1 - up;
            buffer.set_stringn(x, y, levels[level], 1, style);
        }
    }
}

/// At most so many characters, the last an ellipsis if there are more.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// Lines of at most `width` characters, broken at blanks where there are some; at most `most` of them.
pub(super) fn wrap(text: &str, width: usize, most: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let (have, more) = (line.chars().count(), word.chars().count());
        if have > 0 && have + 1 + more > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        while line.chars().count() > width {
            let rest: String = line.chars().skip(width).collect();
            lines.push(line.chars().take(width).collect());
            line = rest;
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    if lines.len() > most {
        let rest = lines[most.saturating_sub(1)..].join(" ");
        lines.truncate(most.saturating_sub(1));
        if most > 0 {
            lines.push(cut(&rest, width));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(buffer: &Buffer, y: u16) -> String {
        (0..buffer.area.width).filter_map(|x| buffer.cell((x, y))).map(|cell| cell.symbol()).collect()
    }

    #[test]
    fn long_words_and_long_texts_are_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(wrap("one two three", 7, 9), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3, 9), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("one two three four five", 8, 2), ["one two", "three f…"]);
        assert_eq!(wrap("", 8, 2), Vec::<String>::new());
    }

    #[test]
    fn a_row_ends_where_its_area_does() {
        let area = Rect::new(0, 0, 12, 2);
        let mut buffer = Buffer::empty(area);
        let plain = Style::new();
        Row::new(&mut buffer, Rect::new(2, 0, 6, 1), 0).put("0123456789", plain).put("more", plain);
        Row::new(&mut buffer, Rect::new(2, 0, 6, 1), 1).put("nowhere", plain);
        assert_eq!([text(&buffer, 0), text(&buffer, 1)], ["  012345    ", "            "]);
    }

    #[test]
    fn bars_and_plots_are_in_proportion() {
        let area = Rect::new(0, 0, 8, 2);
        let mut buffer = Buffer::empty(area);
        let plain = Style::new();
        Row::new(&mut buffer, area, 0).bar(0.5, 3, plain, plain).gap(1).bar(7.0, 2, plain, plain);
        assert_eq!(text(&buffer, 0), "█▌· ██  ");
        let mut buffer = Buffer::empty(area);
        plot(&mut buffer, area, &[9.0, 0.0, 0.01, 4.0, 8.0], plain);
        assert_eq!([text(&buffer, 0), text(&buffer, 1)], ["   █   ▆", "   █ ▁▇█"]);
    }
}
