//! Where a problem is: the path of a field inside a document.
//!
//! Built while a document is read or validated; printed as people write it:
//! `spec.template.spec.domain.cpu.cores`, `spec.volumes[0].hostDisk.path`.

use std::fmt;

use serde::{Serialize, Serializer};

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A field of an object, or a key of a map.
    Name(String),
    /// An item of a list, from 0.
    Index(usize),
}

/// The path of a field inside a document; the empty path is the document itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    /// The document itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The steps from the document down.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The field of that name below this one. A dotted name is several steps.
    #[must_use]
    pub fn field(&self, dotted: &str) -> Self {
        let mut path = self.clone();
        path.0.extend(dotted.split('.').map(|name| Segment::Name(name.to_owned())));
        path
    }

    /// The value of that key of a map; the key may hold any character.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Name(key.to_owned()));
        path
    }

    /// The item of a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Index(index));
        path
    }

    /// This path seen from above: `prefix` first.
    #[must_use]
    pub fn below(&self, prefix: &Self) -> Self {
        Self(prefix.0.iter().chain(&self.0).cloned().collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("(document)");
        }
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Name(name) if is_plain(name) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(name)?;
                }
                Segment::Name(name) => write!(f, "[{name:?}]")?,
            }
        }
        Ok(())
    }
}

/// Whether a name reads well between dots.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_people_write_them() {
        let path = FieldPath::root().field("spec.volumes").index(2).field("hostDisk.path");
        assert_eq!(path.to_string(), "spec.volumes[2].hostDisk.path");
        let label = FieldPath::root().field("metadata.labels").key("kubevirt.io/size");
        assert_eq!(label.to_string(), "metadata.labels[\"kubevirt.io/size\"]");
        assert_eq!(FieldPath::root().to_string(), "(document)");
        assert_eq!(
            path.below(&FieldPath::root().field("items").index(0)).to_string(),
            "items[0].spec.volumes[2].hostDisk.path"
        );
    }
}
