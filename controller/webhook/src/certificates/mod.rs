//! The webhook's own authorities and its serving certificate: what is kept, and when it is replaced.
//!
//! Pure but for the keys it makes: the time is given. Called by the store, which alone writes what comes out, on any
//! thread. Keys never get into text, be it an error or a `Debug`.

mod issue;
mod lives;
mod rotation;
mod stored;

pub use issue::IssueError;
pub use lives::{Lives, Wish, WishError};
pub use rotation::{Cause, Decision, next};
pub use stored::{Authority, DamageError, Serving, Stored};

#[cfg(test)]
mod tests;
