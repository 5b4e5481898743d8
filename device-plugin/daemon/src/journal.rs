//! The log: each line once, however often the same is found.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use pinion_endpoint::chain;
use pinion_inventory::News;
use pinion_kubelet::Event;

type Line = dyn Fn(&str) + Send + Sync;

/// The log.
pub(crate) struct Journal {
    line: Box<Line>,
    /// What was said last of each thing.
    said: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("said", &self.said).finish_non_exhaustive()
    }
}

impl Journal {
    pub(crate) fn new(line: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { line: Box::new(line), said: Mutex::default() }
    }

    pub(crate) fn news(&self, news: &[News]) {
        for one in news {
            let text = match one {
                News::File(error) => chain(error),
                News::Machine(error) => chain(error),
                other => other.to_string(),
            };
            (self.line)(&text);
        }
    }

    pub(crate) fn error(&self, error: &(dyn std::error::Error + 'static)) {
        (self.line)(&chain(error));
    }

    pub(crate) fn kubelet(&self, event: &Event) {
        match event {
            Event::Registered { resource } => {
                self.say(resource, format!("{resource}: the kubelet knows of it"))
            }
            Event::NotRegistered { resource, error } => {
                self.say(resource, format!("{resource}: {}", chain(error)))
            }
            Event::Forgotten { resource } => {
                self.say(resource, format!("{resource}: its socket is gone; once more"))
            }
            Event::NoSocket { path, error } => {
                let path = path.display().to_string();
                let text = format!("Cannot make the socket {path}: {error}");
                self.say(&path, text);
            }
            Event::Answered { resource, call, refused: Some(why), .. } => {
                (self.line)(&format!("{resource}: {} was refused: {why}", call.name()));
            }
            Event::Answered { .. } => {}
        }
    }

    fn say(&self, about: &str, text: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(about) != Some(&text) {
            (self.line)(&text);
            said.insert(about.to_owned(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_same_is_said_once_until_it_changes() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let to = Arc::clone(&lines);
        let journal = Journal::new(move |line| to.lock().unwrap().push(line.to_owned()));
        let resource = || "a.b/c".to_owned();
        let silent = || pinion_kubelet::RegisterError::Silent { resource: resource() };
        for _ in 0..3 {
            journal.kubelet(&Event::NotRegistered { resource: resource(), error: silent() });
        }
        journal.kubelet(&Event::Registered { resource: resource() });
        journal.kubelet(&Event::NotRegistered { resource: resource(), error: silent() });
        let silent = "a.b/c: The kubelet has not answered about a.b/c for 15 s";
        assert_eq!(*lines.lock().unwrap(), [silent, "a.b/c: the kubelet knows of it", silent]);
    }
}
