//! What happens to the webhook, for the log and for metrics.

use std::fmt;

use pinion_endpoint::chain;

use crate::certificates::{Cause, DamageError};
use crate::injection::InjectError;
use crate::review::Hook;
use crate::store::StoreError;

/// Something happened. Its text is a line for the log.
#[derive(Debug)]
pub enum Event {
    /// What was in the Secret cannot be used, and is replaced.
    Damaged {
        /// The Secret.
        secret: String,
        /// Why.
        error: DamageError,
    },
    /// There is a new authority, a new certificate, or an authority less; told by the replica that wrote it.
    Replaced {
        /// The Secret.
        secret: String,
        /// Why.
        causes: Vec<Cause>,
    },
    /// Certificates could not be looked after. It is tried again.
    NotKept {
        /// Why.
        error: StoreError,
    },
    /// A configuration got the bundle.
    Injected {
        /// Which kind.
        hook: Hook,
        /// Its name.
        configuration: String,
    },
    /// A configuration did not get it. It is tried again.
    NotInjected {
        /// Which kind.
        hook: Hook,
        /// Why.
        error: InjectError,
    },
    /// The rules panicked. The API server was told to call it a failure.
    Panicked {
        /// Asked for what.
        hook: Hook,
        /// What the panic said.
        said: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { secret, error } => {
                write!(f, "What is in the Secret {secret} cannot be used, and is replaced: {error}")
            }
            Self::Replaced { secret, causes } => {
                let causes: Vec<&str> = causes.iter().map(|c| c.reason()).collect();
                write!(f, "The Secret {secret} has new certificates: {}", causes.join(", "))
            }
            Self::NotKept { error } => f.write_str(&chain(error)),
            Self::Injected { hook, configuration } => {
                let kind = hook.configuration();
                write!(f, "The {kind} {configuration} has the bundle of our authorities")
            }
            Self::NotInjected { error, .. } => f.write_str(&chain(error)),
            Self::Panicked { hook, said } => write!(f, "A review to {} panicked: {said}", hook.name()),
        }
    }
}
