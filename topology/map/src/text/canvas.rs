//! Lines of coloured text, boxes, and boxes side by side. Every character is one column.

use crate::{Color, Style};

/// What a piece of text is, hence its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Dim,
    Bold,
    Housekeeping,
    Isolated,
    Shared,
    Guest(usize),
}

/// Colours of guests, of the 256-colour palette.
const GUESTS: [u8; 8] = [39, 208, 78, 205, 220, 141, 51, 203];

impl Ink {
    fn code(self) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("38;5;244".to_owned()),
            Self::Bold => Some("1".to_owned()),
            Self::Housekeeping => Some("38;5;250".to_owned()),
            Self::Isolated => Some("38;5;109".to_owned()),
            Self::Shared => Some("38;5;180".to_owned()),
            Self::Guest(guest) => GUESTS.get(guest % GUESTS.len()).map(|color| format!("1;38;5;{color}")),
        }
    }
}

/// A line.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Ink, String)>);

/// Lines below each other.
pub(super) type Block = Vec<Line>;

impl Line {
    pub(super) fn of(ink: Ink, text: impl Into<String>) -> Self {
        Self(vec![(ink, text.into())])
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::of(Ink::Plain, text)
    }

    pub(super) fn push(&mut self, ink: Ink, text: impl Into<String>) {
        self.0.push((ink, text.into()));
    }

    pub(super) fn with(mut self, ink: Ink, text: impl Into<String>) -> Self {
        self.push(ink, text);
        self
    }

    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Exactly as wide: filled with spaces, or cut with `…` at the end.
    pub(super) fn fit(mut self, width: usize) -> Self {
        let have = self.width();
        if have <= width {
            self.push(Ink::Plain, " ".repeat(width - have));
            return self;
        }
        let mut left = width.saturating_sub(1);
        for (_, text) in &mut self.0 {
            let kept: String = text.chars().take(left).collect();
            left -= kept.chars().count();
            *text = kept;
        }
        self.push(Ink::Dim, if width > 0 { "…" } else { "" });
        self
    }

    fn write(&self, color: Color, out: &mut String) {
        let mut line = String::new();
        for (ink, text) in self.0.iter().filter(|(_, text)| !text.is_empty()) {
            match ink.code() {
                Some(code) if color == Color::Ansi => line.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
                _ => line.push_str(text),
            }
        }
        out.push_str(line.trim_end_matches(' '));
        out.push('\n');
    }
}

/// The whole text, no line wider than the style says.
pub(super) fn render(block: Block, style: Style) -> String {
    let mut out = String::new();
    for line in block {
        let line = if line.width() > style.width { line.fit(style.width) } else { line };
        line.write(style.color, &mut out);
    }
    out
}

/// Items after each other, in as many lines as they need.
pub(super) fn flow(items: impl IntoIterator<Item = Line>, width: usize, separator: &str) -> Block {
    let mut lines = Block::new();
    for item in items {
        let needed = item.width() + separator.chars().count();
        match lines.last_mut() {
            Some(line) if line.width() + needed <= width => {
                line.push(Ink::Dim, separator);
                line.append(item);
            }
            _ => lines.push(item),
        }
    }
    lines
}

/// A frame with a title, `width` wide and at least `height` lines high inside.
pub(super) fn framed(title: &Line, inside: Block, width: usize, height: usize) -> Block {
    let inner = width.saturating_sub(4);
    let title =
        if title.width() + 2 > inner { title.clone().fit(inner.saturating_sub(2)) } else { title.clone() };
    let rest = width.saturating_sub(title.width() + 5);
    let mut top = Line::of(Ink::Dim, "╭─ ");
    top.append(title);
    top.push(Ink::Dim, format!(" {}╮", "─".repeat(rest)));
    let mut block = vec![top];
    let missing = height.saturating_sub(inside.len());
    for line in inside.into_iter().chain(std::iter::repeat_n(Line::default(), missing)) {
        let mut row = Line::of(Ink::Dim, "│ ");
        row.append(line.fit(inner));
        row.push(Ink::Dim, " │");
        block.push(row);
    }
    block.push(Line::of(Ink::Dim, format!("╰{}╯", "─".repeat(width.saturating_sub(2)))));
    block
}

/// Blocks side by side, a space between. The lines of each are of one width.
pub(super) fn beside(blocks: Vec<Block>) -> Block {
    let height = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let mut rows = vec![Line::default(); height];
    for (at, block) in blocks.into_iter().enumerate() {
        let width = block.first().map_or(0, Line::width);
        let filled = block.into_iter().chain(std::iter::repeat(Line::default().fit(width)));
        for (row, line) in rows.iter_mut().zip(filled) {
            row.push(Ink::Plain, if at > 0 { " " } else { "" });
            row.append(line);
        }
    }
    rows
}
