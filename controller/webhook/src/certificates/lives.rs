//! What certificates are wanted: for which names, for how long.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::SignedDuration;
use rustls::pki_types::ServerName;

/// For how long certificates hold. Counted in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// An authority's.
    pub authority: SignedDuration,
    /// A serving certificate's.
    pub serving: SignedDuration,
}

impl Default for Lives {
    fn default() -> Self {
        Self { authority: SignedDuration::from_hours(365 * 24), serving: SignedDuration::from_hours(30 * 24) }
    }
}

/// Why certificates cannot be wanted so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// There is no name.
    #[error("The webhook's certificate needs a name: NAME.NAMESPACE.svc of its Service")]
    NoName,
    /// A name is none.
    #[error("{name:?} is no DNS name and no address: give the name of the webhook's Service")]
    Name {
        /// The name.
        name: String,
    },
    /// Lives that leave no room for one to follow the other.
    #[error(
        "A serving certificate for {serving} s from an authority for {authority} s: the first must be 3 s or more and the \
         second six times as much"
    )]
    Lives {
        /// Seconds.
        authority: i64,
        /// Seconds.
        serving: i64,
    },
}

/// What certificates are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    names: BTreeSet<String>,
    lives: Lives,
}

impl Wish {
    /// A certificate for these names, which are DNS names or addresses.
    ///
    /// # Errors
    /// [`WishError`].
    pub fn new(names: &[&str], lives: Lives) -> Result<Self, WishError> {
        if names.is_empty() {
            return Err(WishError::NoName);
        }
        let names = names.iter().map(|name| normal(name)).collect::<Result<_, _>>()?;
        let (authority, serving) = (lives.authority.as_secs(), lives.serving.as_secs());
        // An authority's successor is known for a sixth of its life before it is used (see `rotation`).
        if serving < 3 || authority / 6 < serving {
            return Err(WishError::Lives { authority, serving });
        }
        Ok(Self { names, lives })
    }

    pub(super) const fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    pub(super) const fn lives(&self) -> Lives {
        self.lives
    }
}

/// The one way of writing a name.
fn normal(name: &str) -> Result<String, WishError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    match ServerName::try_from(name) {
        Ok(_) => Ok(name.to_ascii_lowercase()),
        Err(_) => Err(WishError::Name { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lives_that_cannot_be_are_refused() {
        let seconds = |authority, serving| Lives {
            authority: SignedDuration::from_secs(authority),
            serving: SignedDuration::from_secs(serving),
        };
        assert_eq!(Wish::new(&[], Lives::default()), Err(WishError::NoName));
        let name = "two words".to_owned();
        assert_eq!(Wish::new(&["a.b.svc", &name], Lives::default()), Err(WishError::Name { name }));
        for (authority, serving) in [(0, 0), (100, 2), (100, 17), (-1, 3), (i64::MIN, i64::MIN)] {
            assert!(Wish::new(&["a"], seconds(authority, serving)).is_err(), "{authority} {serving}");
        }
        let wish = Wish::new(&["A.b.svc", "a.b.svc", "0:0::1"], seconds(18, 3)).unwrap();
        assert_eq!(wish.names().iter().collect::<Vec<_>>(), ["::1", "a.b.svc"]);
    }
}
