//! Where a machine is read from, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a machine is read from: `host`, `xml:FILE`, `synthetic:TEXT` or `sysfs:DIR`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// This host.
    #[default]
    Host,
    /// An hwloc XML file (`lstopo --of xml`).
    Xml(PathBuf),
    /// An hwloc synthetic description (`pack:2 [numa] core:4 pu:2`).
    Synthetic(String),
    /// The root of a gathered tree: the folder that contains `sys` and `proc`.
    Sysfs(PathBuf),
}

/// Why the name of a source was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FromError {
    /// Not one of the four kinds.
    #[error("{0:?} is not a source: use host, xml:FILE, synthetic:TEXT or sysfs:DIR")]
    Unknown(String),
    /// A kind without what it needs.
    #[error("{0:?} names nothing to read: write it after the colon")]
    Empty(String),
}

impl FromStr for From {
    type Err = FromError;

    fn from_str(text: &str) -> Result<Self, FromError> {
        if text == "host" {
            return Ok(Self::Host);
        }
        let unknown = || FromError::Unknown(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
        let build: fn(&str) -> Self = match kind {
            "xml" => |rest| Self::Xml(rest.into()),
            "synthetic" => |rest| Self::Synthetic(rest.to_owned()),
            "sysfs" => |rest| Self::Sysfs(rest.into()),
            _ => return Err(unknown()),
        };
        if rest.trim().is_empty() {
            return Err(FromError::Empty(text.to_owned()));
        }
        Ok(build(rest))
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Xml(path) => write!(f, "xml:{}", path.display()),
            Self::Synthetic(text) => write!(f, "synthetic:{text}"),
            Self::Sysfs(root) => write!(f, "sysfs:{}", root.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_round_trip() {
        for text in ["host", "xml:a:b.xml", "synthetic:pack:2 core:4 pu:2", "sysfs:/tmp/tree"] {
            assert_eq!(text.parse::<From>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in ["", "hos", "json:x", "host:"] {
            assert_eq!(text.parse::<From>(), Err(FromError::Unknown(text.into())), "{text}");
        }
        for text in ["xml:", "synthetic: ", "sysfs:"] {
            assert_eq!(text.parse::<From>(), Err(FromError::Empty(text.into())), "{text}");
        }
    }
}
