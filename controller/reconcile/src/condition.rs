//! Conditions of a status. The time of a change stays while a condition does.

use jiff::Timestamp;
use pinion_api::Condition;
use serde_json::Value;

/// Conditions that are being written.
#[derive(Debug)]
pub(crate) struct Conditions<'a> {
    old: &'a [Value],
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// In place of those of an old status.
    pub(crate) fn over(old: Option<&'a Value>, now: Timestamp) -> Self {
        let old = old.and_then(|status| status.get("conditions")).and_then(Value::as_array);
        Self { old: old.map(Vec::as_slice).unwrap_or_default(), now, list: Vec::new() }
    }

    /// Something is so, is not (`false`), or is not known (`None`).
    pub(crate) fn set(&mut self, kind: &str, status: Option<bool>, reason: &str, message: &str) {
        let status = match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = self.old.iter().find(|old| text(old, "type") == kind && text(old, "status") == status);
        let since = before.and_then(|old| text(old, "lastTransitionTime").parse().ok()).unwrap_or(self.now);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.list.push(Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: some(reason),
            message: some(message),
            last_probe_time: None,
            last_transition_time: Some(written(since)),
        });
    }

    pub(crate) fn done(self) -> Vec<Condition> {
        self.list
    }
}

/// A time as objects have it: whole seconds.
pub(crate) fn written(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// A text of a JSON object; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}
