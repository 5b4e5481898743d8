//! What is told of an object as a Kubernetes event.

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether its user should look.
    pub warning: bool,
    /// A stable word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Event {
    /// As it should be.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    /// Something that its user should look at.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}
