//! How a launcher ends, and the exit code that says so.

use serde::{Deserialize, Serialize};

/// How a launcher ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "how", content = "why")]
pub enum End {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest ignored the power button, or was given no time: it was stopped by force.
    Forced,
    /// The guest crashed.
    Crashed(String),
    /// The virtual machine monitor or the host failed while the guest ran.
    HostFailed(String),
    /// The placement could not be verified: the guest was not started.
    NotVerified(Vec<String>),
    /// The guest could not be set up.
    NotArmed(String),
}

impl End {
    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::PoweredOff => 0,
            Self::NotArmed(_) => 1,
            Self::Forced => 10,
            Self::Crashed(_) => 11,
            Self::HostFailed(_) => 12,
            Self::NotVerified(_) => 13,
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::PoweredOff => "the guest powered off".to_owned(),
            Self::Forced => "the guest was stopped by force".to_owned(),
            Self::Crashed(why) => format!("the guest crashed: {why}"),
            Self::HostFailed(why) => format!("the host failed: {why}"),
            Self::NotVerified(why) => {
                format!("not started, since it is not where the plan says: {}", why.join("; "))
            }
            Self::NotArmed(why) => why.clone(),
        }
    }
}
