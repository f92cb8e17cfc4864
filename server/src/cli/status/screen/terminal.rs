//! The terminal: taken for the screen, and given back as it was however the program ends.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Color as TermColor, Colors, Print, SetAttribute, SetColors};
use crossterm::terminal::{
    self, Clear, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use ratatui_core::backend::{Backend, ClearType, WindowSize};
use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::layout::{Position, Rect, Size};
use ratatui_core::style::{Color, Modifier};

/// Whether the terminal is taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while the screen is on it. Dropping it gives the terminal back; so does a panic.
pub(crate) struct Terminal {
    inner: ratatui_core::terminal::Terminal<Output>,
}

/// Whether there is somebody to look and to press keys.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Terminal {
    /// Takes the terminal: its alternate screen, and keys one by one.
    ///
    /// # Errors
    /// When it cannot be taken. It then is as it was.
    pub fn open() -> io::Result<Terminal> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            // The release build aborts at a panic and drops nothing.
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        // From here on whatever goes wrong drops this.
        let guard = Guard;
        execute!(io::stdout(), EnterAlternateScreen, DisableLineWrap, Hide)?;
        let inner = ratatui_core::terminal::Terminal::new(Output { out: BufWriter::new(io::stdout()) })?;
        std::mem::forget(guard);
        Ok(Terminal { inner })
    }

    /// Draws one frame; only what has changed since the last one is written.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer, Rect)) -> io::Result<()> {
        self.inner.draw(|frame| {
            let area = frame.area();
            draw(frame.buffer_mut(), area);
        })?;
        Ok(())
    }

    /// Forgets what is on the screen, so that the next frame is drawn in whole.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn forget(&mut self) -> io::Result<()> {
        self.inner.clear()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts the terminal back as it was. Harmless when it was not taken.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs neither.
        let _ = execute!(
            io::stdout(),
            SetAttribute(Attribute::Reset),
            EnableLineWrap,
            Show,
            LeaveAlternateScreen
        );
        let _ = terminal::disable_raw_mode();
    }
}

/// Writes cells as escape sequences.
struct Output {
    out: BufWriter<Stdout>,
}

const MODIFIERS: [(Modifier, Attribute); 4] = [
    (Modifier::BOLD, Attribute::Bold),
    (Modifier::UNDERLINED, Attribute::Underlined),
    (Modifier::REVERSED, Attribute::Reverse),
    (Modifier::DIM, Attribute::Dim),
];

impl Backend for Output {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut next = None;
        let mut style = None;
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                queue!(self.out, MoveTo(x, y))?;
            }
            next = Some((x + 1, y));
            let wanted = (cell.modifier, cell.fg, cell.bg);
            if style != Some(wanted) {
                queue!(self.out, SetAttribute(Attribute::Reset))?;
                for (_, attribute) in
                    MODIFIERS.iter().filter(|(modifier, _)| cell.modifier.contains(*modifier))
                {
                    queue!(self.out, SetAttribute(*attribute))?;
                }
                // A reset says no colour, too: with NO_COLOR not one is written.
                if (cell.fg, cell.bg) != (Color::Reset, Color::Reset) {
                    queue!(self.out, SetColors(Colors::new(colour(cell.fg), colour(cell.bg))))?;
                }
                style = Some(wanted);
            }
            queue!(self.out, Print(cell.symbol()))?;
        }
        queue!(self.out, SetAttribute(Attribute::Reset))
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        execute!(self.out, Hide)
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        execute!(self.out, Show)
    }

    /// The cursor is hidden; where it is matters to nobody.
    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        execute!(self.out, MoveTo(x, y))
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        let region = match region {
            ClearType::All => terminal::ClearType::All,
            ClearType::AfterCursor => terminal::ClearType::FromCursorDown,
            ClearType::BeforeCursor => terminal::ClearType::FromCursorUp,
            ClearType::CurrentLine => terminal::ClearType::CurrentLine,
            ClearType::UntilNewLine => terminal::ClearType::UntilNewLine,
        };
        execute!(self.out, Clear(region))
    }

    fn size(&self) -> io::Result<Size> {
        let (width, height) = terminal::size()?;
        Ok(Size { width, height })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The eight colours that every terminal has, as its owner has set them.
fn colour(colour: Color) -> TermColor {
    match colour {
        Color::Black => TermColor::Black,
        Color::Red => TermColor::DarkRed,
        Color::Green => TermColor::DarkGreen,
        Color::Yellow => TermColor::DarkYellow,
        Color::Cyan => TermColor::DarkCyan,
        Color::DarkGray => TermColor::DarkGrey,
        Color::White => TermColor::White,
        _ => TermColor::Reset,
    }
}
