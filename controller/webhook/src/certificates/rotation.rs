//! When what is kept is replaced, and by what.
//!
//! The API server connects to whatever is served with the bundle that it was told last, so the bundle goes ahead:
//!
//! 1. When the newest authority has lived two thirds, the next one is made, and is in the bundle from then on.
//! 2. Once that one has lived a sixth, it signs. Until then the one before does, which has a sixth left by then.
//! 3. The key of the one before is forgotten; its certificate stays in the bundle until it ends.
//! 4. A serving certificate is replaced when it has lived two thirds. It ends no later than its authority.
//!
//! So nothing is served that the bundle of the step before does not know. Only where nobody looked for so long that the
//! authority has a 24th of its life left or less does the next one sign at once.

use jiff::Timestamp;

use super::Wish;
use super::issue::{self, IssueError};
use super::stored::{Authority, Serving, Stored};

/// Of its life, when a certificate gets a successor.
const OLD: (i64, i64) = (2, 3);
/// Of its life, when an authority is known to all clients.
const KNOWN: (i64, i64) = (1, 6);
/// Of its life, until when an authority signs.
const SIGNS: (i64, i64) = (23, 24);

/// Why something is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no authority, or the newest was old: there is a new one.
    Authority,
    /// There was no serving certificate, it was old, or it was not for the names wanted: there is a new one.
    Serving,
    /// An authority has ended, and is in the bundle no more.
    Ended,
}

impl Cause {
    /// A stable code.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Authority => "Authority",
            Self::Serving => "Serving",
            Self::Ended => "Ended",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Nothing before then.
    Keep {
        /// When to look again.
        until: Timestamp,
    },
    /// This is to be kept instead.
    Replace {
        /// What.
        stored: Box<Stored>,
        /// Why.
        causes: Vec<Cause>,
    },
}

/// What is to be done with what is kept.
///
/// # Errors
/// [`IssueError`].
pub fn next(stored: Option<&Stored>, now: Timestamp, wish: &Wish) -> Result<Decision, IssueError> {
    let mut causes = Vec::new();
    let kept = stored.map(Stored::authorities).unwrap_or_default();
    let mut authorities: Vec<Authority> = kept.iter().filter(|a| now < a.until()).cloned().collect();
    if authorities.len() < kept.len() {
        causes.push(Cause::Ended);
    }
    let newest = authorities.iter().filter(|a| signs(a, now)).max_by_key(|a| a.from());
    if newest.is_none_or(|a| a.signed().at(OLD) <= now) {
        authorities.push(issue::authority(now, wish.lives())?);
        causes.push(Cause::Authority);
    }
    let signer = signer(&authorities, now).ok_or(IssueError::NoSigner { now })?.clone();
    let serving = match stored.filter(|s| s.is_signed_by_one_of(&authorities)).map(Stored::serving) {
        Some(serving) if keeps(serving, &signer, now, wish) => serving.clone(),
        _ => {
            causes.push(Cause::Serving);
            issue::serving(now, wish, &signer)?
        }
    };
    for authority in &mut authorities {
        if authority.from() < signer.from() {
            authority.forget_key();
        }
    }
    let next = Stored::new(authorities, serving);
    if causes.is_empty() {
        return Ok(Decision::Keep { until: look(&next, now) });
    }
    Ok(Decision::Replace { stored: Box::new(next), causes })
}

/// Whether it can sign at all.
fn signs(authority: &Authority, now: Timestamp) -> bool {
    authority.key().is_some() && authority.from() <= now && now < authority.signed().at(SIGNS)
}

/// The newest that is known; where none is, the oldest.
fn signer(authorities: &[Authority], now: Timestamp) -> Option<&Authority> {
    let able = || authorities.iter().filter(|a| signs(a, now));
    let known = able().filter(|a| a.signed().at(KNOWN) <= now).max_by_key(|a| a.from());
    known.or_else(|| able().min_by_key(|a| a.from()))
}

/// Whether it is served on. One that is old stays where a new one would end no later.
fn keeps(serving: &Serving, signer: &Authority, now: Timestamp, wish: &Wish) -> bool {
    let holds = serving.from() <= now && now < serving.until();
    let old = serving.signed().at(OLD) <= now;
    holds && serving.names() == wish.names() && !(old && serving.until() < signer.until())
}

/// The next time at which something may be to do.
fn look(stored: &Stored, now: Timestamp) -> Timestamp {
    let serving = stored.serving();
    let of_authority = |a: &Authority| {
        let signed = a.signed();
        [a.from(), signed.at(KNOWN), signed.at(OLD), signed.at(SIGNS), a.until()]
    };
    let times = stored.authorities().iter().flat_map(of_authority).chain([serving.signed().at(OLD)]);
    times.filter(|t| *t > now).min().unwrap_or(serving.until()).min(serving.until())
}
