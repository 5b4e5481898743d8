//! An error with all that caused it, as the one line that a person reads.
//!
//! Called where an error leaves the process: on standard error, or in an event or a refusal.

use std::error::Error;
use std::fmt::Write as _;

/// The error and its causes, outermost first.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("Cannot open the door")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_printed_once() {
        let error = Outer(std::io::Error::other("it is locked"));
        assert_eq!(chain(&error), "Cannot open the door: it is locked");
    }
}
