//! Pieces of a drawing: each knows its size, and is moved by whoever contains it.

use std::fmt::Write;

/// A part of a drawing at its own origin, pixels.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    pub(super) width: u32,
    pub(super) height: u32,
    body: String,
}

/// How text is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    pub(super) size: u32,
    pub(super) fill: &'static str,
    pub(super) class: &'static str,
}

impl Piece {
    pub(super) fn sized(width: u32, height: u32) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Text whose left end is at the origin. Its width is what a wide font needs.
    pub(super) fn text(text: &str, font: Font) -> Self {
        let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let percent = match font.class {
            "b" => 66,
            "m" => 62,
            _ => 56,
        };
        let width = characters.saturating_mul(font.size).saturating_mul(percent) / 100;
        let mut piece = Self::sized(width, font.size * 5 / 4);
        piece.write_text(0, font.size, text, font, "start");
        piece
    }

    /// Text centred on a point of its base line.
    pub(super) fn write_text(&mut self, x: u32, y: u32, text: &str, font: Font, anchor: &str) {
        let Font { size, fill, class } = font;
        let text = escape(text);
        self.add(&format!(
            r#"<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" class="{class}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    /// A rectangle; `stroke` may be `none`.
    pub(super) fn rect(
        &mut self,
        (x, y, width, height): (u32, u32, u32, u32),
        radius: u32,
        fill: &str,
        stroke: &str,
    ) {
        self.add(&format!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" stroke="{stroke}"/>"#
        ));
    }

    /// Elements as they are; the caller has escaped them.
    pub(super) fn add(&mut self, elements: &str) {
        self.body.push_str(elements);
        self.body.push('\n');
    }

    /// Another piece with its origin at a point. This one grows to hold it.
    pub(super) fn place(&mut self, x: u32, y: u32, piece: &Self) {
        let _ = writeln!(self.body, r#"<g transform="translate({x},{y})">{}</g>"#, piece.body.trim_end());
        self.width = self.width.max(x.saturating_add(piece.width));
        self.height = self.height.max(y.saturating_add(piece.height));
    }

    /// With a text that shows while the pointer is on it.
    pub(super) fn titled(mut self, title: &str) -> Self {
        self.body = format!("<g><title>{}</title>{}</g>", escape(title), self.body.trim_end());
        self
    }

    pub(super) fn body(&self) -> &str {
        &self.body
    }
}

/// Pieces in rows no wider than `width`, `gap` apart.
pub(super) fn flow(pieces: &[Piece], width: u32, gap: u32) -> Piece {
    let mut all = Piece::default();
    let (mut x, mut y, mut row) = (0, 0, 0);
    for piece in pieces {
        if x > 0 && x + piece.width > width {
            y += row + gap;
            (x, row) = (0, 0);
        }
        all.place(x, y, piece);
        x += piece.width + gap;
        row = row.max(piece.height);
    }
    all
}

/// Pieces below each other.
pub(super) fn stack(pieces: &[Piece], gap: u32) -> Piece {
    let mut all = Piece::default();
    for piece in pieces.iter().filter(|p| p.height > 0) {
        let y = if all.height > 0 { all.height + gap } else { 0 };
        all.place(0, y, piece);
    }
    all
}

/// A piece in a rounded frame with a title above it.
pub(super) fn card(title: &Piece, inside: &Piece, pad: u32, (fill, stroke): (&str, &str)) -> Piece {
    let head = if title.height > 0 { title.height + pad / 2 } else { 0 };
    let width = inside.width.max(title.width) + 2 * pad;
    let mut card = Piece::sized(width, inside.height + head + 2 * pad);
    card.rect((0, 0, width, card.height), 8, fill, stroke);
    card.place(pad, pad, title);
    card.place(pad, pad + head, inside);
    card
}

/// Text for element content and attribute values. Control characters, which XML 1.0
/// cannot carry, are replaced.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
