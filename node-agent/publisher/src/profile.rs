//! The node's profile, where the cluster has one for it: kept in a file beside the ledger, where the agent reads it.
//!
//! A task of the publisher's runtime. It writes that file alone. Where the API server is away, the file stays as it is.
//!
//! A profile is for the nodes that have all labels of its `nodeSelector`. Of several, the one that asks for the most labels is
//! the node's, then the one whose name comes first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, ResourceExt};
use pinion_nodes::{LEDGER_GROUP, LEDGER_VERSION};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::publish::Tell;

const KIND: &str = "NodeProfile";
const PLURAL: &str = "nodeprofiles";
/// How often the node's labels are looked at while no profile changes.
const LABELS_EACH: Duration = Duration::from_secs(60);

/// Keeps the file for ever.
pub(crate) async fn keep(client: Client, node: String, file: PathBuf, tell: Tell) {
    let kind = GroupVersionKind::gvk(LEDGER_GROUP, LEDGER_VERSION, KIND);
    let profiles: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, PLURAL));
    let nodes: Api<Node> = Api::all(client);
    let mut stream = watcher(profiles, Config::default()).default_backoff().boxed();
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut listing: BTreeMap<String, Value> = BTreeMap::new();
    let (mut is_complete, mut written) = (false, Written { file, text: None, tell });
    let mut looks = interval(LABELS_EACH);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            event = stream.next() => match event {
                Some(Ok(Event::Init)) => listing.clear(),
                Some(Ok(Event::InitApply(object))) => {
                    let _ = listing.insert(object.name_any(), object.data);
                }
                Some(Ok(Event::InitDone)) => {
                    (known, is_complete) = (std::mem::take(&mut listing), true);
                }
                Some(Ok(Event::Apply(object))) => drop(known.insert(object.name_any(), object.data)),
                Some(Ok(Event::Delete(object))) => drop(known.remove(&object.name_any())),
                // The kind may not be there yet, or nobody answers: it is tried again.
                Some(Err(_)) => continue,
                None => return,
            },
        }
        if !is_complete {
            continue;
        }
        // Without its labels, nobody knows which is the node's.
        if let Ok(node) = nodes.get_metadata(&node).await {
            written.write(chosen(&known, node.labels()));
        }
    }
}

/// The profile of a node with those labels, as its agent reads it.
fn chosen(profiles: &BTreeMap<String, Value>, labels: &BTreeMap<String, String>) -> Option<Value> {
    let selector = |data: &Value| -> Vec<(String, String)> {
        let map = data.pointer("/spec/nodeSelector").and_then(Value::as_object);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        map.into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
    };
    let fits = |wanted: &[(String, String)]| wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
    let mut best: Option<(usize, &String, &Value)> = None;
    for (name, data) in profiles {
        let wanted = selector(data);
        if fits(&wanted) && best.is_none_or(|(most, ..)| wanted.len() > most) {
            best = Some((wanted.len(), name, data));
        }
    }
    let (_, name, data) = best?;
    let mut spec = data.get("spec").cloned().unwrap_or_else(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("nodeSelector");
    }
    let version = format!("{LEDGER_GROUP}/{LEDGER_VERSION}");
    Some(json!({"apiVersion": version, "kind": KIND, "metadata": {"name": name}, "spec": spec}))
}

/// The file, and what it says.
struct Written {
    file: PathBuf,
    /// Nothing is known of what an earlier agent has left.
    text: Option<Option<String>>,
    tell: Tell,
}

impl Written {
    fn write(&mut self, profile: Option<Value>) {
        let text = profile.map(|profile| format!("{profile:#}\n"));
        if self.text.as_ref() == Some(&text) {
            return;
        }
        match self.replace(text.as_deref()) {
            Ok(()) => self.text = Some(text),
            Err(error) => {
                (self.tell)(&format!(
                    "warning: the node's profile cannot be kept in {:?}: {error}",
                    self.file
                ));
            }
        }
    }

    /// Beside its place, and moved into it: its reader sees all of it or what was there before.
    fn replace(&self, text: Option<&str>) -> io::Result<()> {
        let Some(text) = text else {
            return match fs::remove_file(&self.file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let draft = self.file.with_extension("draft");
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_profile_that_asks_for_most_is_the_nodes() {
        let profile = |selector: Value| json!({"spec": {"nodeSelector": selector, "dedicated": "2-3"}});
        let profiles = BTreeMap::from([
            ("all".to_owned(), json!({"spec": {"dedicated": "1"}})),
            ("rack".to_owned(), profile(json!({"rack": "a"}))),
            ("rack-b".to_owned(), profile(json!({"rack": "a"}))),
            ("rack-and-row".to_owned(), profile(json!({"rack": "a", "row": "1"}))),
        ]);
        let name = |of: &[(&str, &str)]| chosen(&profiles, &labels(of)).unwrap()["metadata"]["name"].clone();
        assert_eq!(name(&[]), "all");
        assert_eq!(name(&[("rack", "b")]), "all");
        assert_eq!(name(&[("rack", "a")]), "rack");
        assert_eq!(name(&[("rack", "a"), ("row", "1")]), "rack-and-row");
        let text = chosen(&profiles, &labels(&[("rack", "a")])).unwrap().to_string();
        let read = pinion_node_agent::NodeProfile::parse(&text).unwrap();
        assert_eq!((read.name.as_str(), read.dedicated), ("rack", Some("2-3".parse().unwrap())));
        assert!(chosen(&BTreeMap::new(), &labels(&[])).is_none());
    }

    #[test]
    fn the_file_is_there_while_there_is_a_profile() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("profile.json");
        fs::write(&file, "of an earlier agent").unwrap();
        let mut written = Written { file: file.clone(), text: None, tell: Arc::new(|text| panic!("{text}")) };
        written.write(None);
        assert!(!file.exists());
        written.write(Some(json!({"a": 1})));
        assert!(fs::read_to_string(&file).unwrap().contains("\"a\": 1"));
        written.write(None);
        assert!(!file.exists());
    }
}
