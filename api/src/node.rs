//! A document as it was written: scalars with their text, maps with every entry, and where
//! each is. Made by the YAML and JSON readers; read against the schema.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::path::{FieldPath, Segment};
use crate::problem::Position;

/// A value and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Option<Position>,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// An entry of a map; keys may repeat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Option<Position>,
    pub(crate) value: Node,
}

/// A scalar: its text, and what it is without knowing what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: ScalarKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    Null,
    Bool(bool),
    Int,
    /// `010`: eight for some readers, ten for others.
    Ambiguous,
    Float,
    Text,
}

impl Node {
    /// The scalar, if it is one.
    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        self.scalar().filter(|scalar| scalar.kind == ScalarKind::Text).map(|scalar| scalar.text.as_str())
    }

    /// Whether it is null.
    pub(crate) fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.kind == ScalarKind::Null)
    }

    /// The first entry of that key, if it is a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// Where a path is, or the nearest thing above it that was written.
    pub(crate) fn position_of(&self, path: &FieldPath) -> Option<Position> {
        let mut node = self;
        let mut at = self.at;
        for segment in path.segments() {
            let next = match (segment, &node.value) {
                (Segment::Name(name), _) => node.get(name).map(|entry| (&entry.value, entry.at)),
                (Segment::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.at)),
                (Segment::Index(_), _) => None,
            };
            let Some((below, position)) = next else { break };
            node = below;
            at = position.or(at);
        }
        at
    }

    /// What it is, for a message.
    pub(crate) fn describe(&self) -> String {
        let scalar = match &self.value {
            Value::Scalar(scalar) => scalar,
            Value::List(_) => return "a list".to_owned(),
            Value::Map(_) => return "an object".to_owned(),
        };
        match scalar.kind {
            ScalarKind::Null => "nothing".to_owned(),
            ScalarKind::Bool(value) => format!("the boolean {value}"),
            ScalarKind::Int | ScalarKind::Float | ScalarKind::Ambiguous => {
                format!("the number {}", scalar.text)
            }
            ScalarKind::Text => format!("the text {:?}", shorten(&scalar.text)),
        }
    }
}

/// A text short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

impl Scalar {
    /// A text.
    pub(crate) fn quoted(text: String) -> Self {
        Self { text, kind: ScalarKind::Text }
    }

    /// A plain YAML scalar. Booleans as Kubernetes' own reader has them (`yes`, `off`, …), so
    /// that a file means here what it means there.
    pub(crate) fn plain(text: String) -> Self {
        let kind = match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
                ScalarKind::Bool(true)
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
                ScalarKind::Bool(false)
            }
            ".inf" | "-.inf" | "+.inf" | ".nan" | ".NaN" | ".Inf" | "-.Inf" => ScalarKind::Float,
            other => number_kind(other),
        };
        Self { text, kind }
    }
}

/// What a plain scalar is that is neither null nor a boolean.
fn number_kind(text: &str) -> ScalarKind {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if let Some(hex) = digits.strip_prefix("0x") {
        return if all(hex, 16) { ScalarKind::Int } else { ScalarKind::Text };
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return if all(octal, 8) { ScalarKind::Int } else { ScalarKind::Text };
    }
    if all(digits, 10) {
        return if digits.len() > 1 && digits.starts_with('0') {
            ScalarKind::Ambiguous
        } else {
            ScalarKind::Int
        };
    }
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => digits.split_at(at),
        None => (digits, ""),
    };
    let exponent = exponent.get(1..).unwrap_or_default();
    let exponent_is_good =
        !digits.contains(['e', 'E']) || all(exponent.strip_prefix(['-', '+']).unwrap_or(exponent), 10);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = (all(whole, 10) || (whole.is_empty() && all(fraction, 10)))
        && (fraction.is_empty() || all(fraction, 10));
    if is_number && exponent_is_good { ScalarKind::Float } else { ScalarKind::Text }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

/// Builds nodes from JSON, which has no positions.
struct JsonVisitor;

impl JsonVisitor {
    fn scalar<E>(text: String, kind: ScalarKind) -> Result<Node, E> {
        Ok(Node { value: Value::Scalar(Scalar { text, kind }), at: None })
    }
}

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Self::scalar(value.to_string(), ScalarKind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Self::scalar(value.to_string(), ScalarKind::Int)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Self::scalar(value.to_string(), ScalarKind::Int)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Self::scalar(value.to_string(), ScalarKind::Float)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Self::scalar(value.to_owned(), ScalarKind::Text)
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Self::scalar(value, ScalarKind::Text)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Self::scalar(String::new(), ScalarKind::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node { value: Value::List(items), at: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry()? {
            entries.push(Entry { key, at: None, value });
        }
        Ok(Node { value: Value::Map(entries), at: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubernetes() {
        let kinds = [
            ("", ScalarKind::Null),
            ("~", ScalarKind::Null),
            ("yes", ScalarKind::Bool(true)),
            ("off", ScalarKind::Bool(false)),
            ("4", ScalarKind::Int),
            ("-4", ScalarKind::Int),
            ("0x1f", ScalarKind::Int),
            ("010", ScalarKind::Ambiguous),
            ("1.5", ScalarKind::Float),
            ("1e3", ScalarKind::Float),
            (".5", ScalarKind::Float),
            ("64M", ScalarKind::Text),
            ("1.2.3", ScalarKind::Text),
            ("e3", ScalarKind::Text),
            (".", ScalarKind::Text),
            ("02:00:00:00:00:01", ScalarKind::Text),
            ("2024-01-26", ScalarKind::Text),
        ];
        for (text, kind) in kinds {
            assert_eq!(Scalar::plain(text.to_owned()).kind, kind, "{text}");
        }
    }

    #[test]
    fn the_place_of_a_missing_field_is_that_of_what_is_above_it() {
        let at = |line| Some(Position { line, column: 1 });
        let leaf = Node { value: Value::Scalar(Scalar::plain("1".into())), at: at(3) };
        let inner =
            Node { value: Value::Map(vec![Entry { key: "b".into(), at: at(2), value: leaf }]), at: at(2) };
        let outer =
            Node { value: Value::Map(vec![Entry { key: "a".into(), at: at(1), value: inner }]), at: at(1) };
        let path = FieldPath::root();
        assert_eq!(outer.position_of(&path.field("a.b")), at(2));
        assert_eq!(outer.position_of(&path.field("a.c.d")), at(1));
    }
}
