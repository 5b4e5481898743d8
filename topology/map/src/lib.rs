//! The picture of a machine and of who holds what on it, as text and as SVG.
//!
//! Pure: from a [`Machine`] and a [`View`] to a string. Called by the command line and
//! the node agent. It must never read the machine itself, decide anything, or pass a
//! name through that could break out of a terminal line or of an SVG element.

#![forbid(unsafe_code)]

mod outline;
mod svg;
mod text;
mod view;
mod words;

use pinion_machine::Machine;

pub use view::View;
pub use words::bytes;

/// How text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns that a line may have; less than 40 counts as 40, more than 200 as 200.
    pub width: usize,
    /// Whether in colour.
    pub color: Color,
}

/// Whether text has ANSI colour codes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// None.
    Never,
    /// 256-colour codes.
    Ansi,
}

/// Draws a machine as text, each line ended and none wider than asked.
#[must_use]
pub fn text(machine: &Machine, view: &View, style: Style) -> String {
    text::draw(machine, view, style)
}

/// Draws a machine as an SVG document that needs nothing else.
#[must_use]
pub fn svg(machine: &Machine, view: &View) -> String {
    svg::draw(machine, view)
}
