//! Standard output: text, and JSON documents with their version and kind.
//!
//! A closed pipe (`pinion topology | head`) ends the command quietly.

use std::io::{ErrorKind, IsTerminal, Write};

use pinion_map::{Color, Style};
use serde::Serialize;

use crate::failure::Failure;

/// The version of every JSON document that Pinion writes.
pub(crate) const API_VERSION: &str = "pinion.dev/v1alpha1";

/// Width for text where standard output is no terminal, columns.
const DEFAULT_WIDTH: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// The width that pictures may have, columns.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(w, _)| usize::from(w.0)).clamp(40, 200)
}

/// How pictures for a terminal are drawn.
pub(crate) fn style() -> Style {
    Style { width: width(), color: if in_colour() { Color::Ansi } else { Color::Never } }
}

/// Whether people look at standard output, in colour.
fn in_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A document as a JSON value, with its version and kind first.
///
/// # Errors
/// Never for the types of this program: they have text keys.
pub(crate) fn value<T: Serialize>(kind: &str, body: &T) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(Document { api_version: API_VERSION, kind, body }).map_err(Failure::failed)
}

/// Prints one JSON document.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn document<T: Serialize>(kind: &str, body: &T) -> Result<(), Failure> {
    json(&value(kind, body)?)
}

/// Prints a JSON value, indented.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    text(&format!("{value:#}\n"))
}

/// Prints text as it is.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Failure::Silent(0)),
        done => done.map_err(Failure::failed),
    }
}
