//! The API server, as the publisher asks it.
//!
//! Of the `NodeLedger` it writes the status alone: what is booked is the controller's. Of the node's object it writes labels
//! alone, and only where there is such a node.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pinion_node_agent::Labels;
use pinion_nodes::{LEDGER_GROUP, LEDGER_KIND, LEDGER_PLURAL, LEDGER_VERSION, LedgerStatus};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::FIELD_MANAGER;
use crate::error::PublishError;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What the API server says where somebody was quicker.
const CONFLICT: u16 = 409;

/// The API server, for one node.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    ledgers: Api<DynamicObject>,
    nodes: Api<Node>,
    node: String,
}

impl Server {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let kind = GroupVersionKind::gvk(LEDGER_GROUP, LEDGER_VERSION, LEDGER_KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, LEDGER_PLURAL);
        Self {
            ledgers: Api::all_with(client.clone(), &resource),
            nodes: Api::all(client),
            node: node.to_owned(),
        }
    }

    /// What the ledger's status says now; none where there is no ledger, or none that can be read.
    pub(crate) async fn status(&self) -> Result<Option<LedgerStatus>, PublishError> {
        let found = match self.done("read", LEDGER_KIND, self.ledgers.get(&self.node)).await {
            Err(error) if error.is_absent() => return Ok(None),
            found => found?,
        };
        let status = found.data.get("status").cloned();
        Ok(status.and_then(|status| serde_json::from_value(status).ok()))
    }

    /// Writes the ledger's status. Where there is no ledger, it is made first.
    pub(crate) async fn store(&self, status: &LedgerStatus) -> Result<(), PublishError> {
        match self.apply(status).await {
            Err(error) if error.is_absent() => {
                self.make().await?;
                self.apply(status).await
            }
            done => done,
        }
    }

    async fn apply(&self, status: &LedgerStatus) -> Result<(), PublishError> {
        let patch = Patch::Apply(json!({
            "apiVersion": format!("{LEDGER_GROUP}/{LEDGER_VERSION}"),
            "kind": LEDGER_KIND,
            "metadata": {"name": self.node},
            "status": status,
        }));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = self.ledgers.patch_status(&self.node, &params, &patch);
        self.done("write the status of", LEDGER_KIND, applied).await.map(drop)
    }

    async fn make(&self) -> Result<(), PublishError> {
        let ledger = json!({
            "apiVersion": format!("{LEDGER_GROUP}/{LEDGER_VERSION}"),
            "kind": LEDGER_KIND,
            "metadata": {"name": self.node, "labels": {"app.kubernetes.io/part-of": "pinion"}},
        });
        let ledger: DynamicObject = serde_json::from_value(ledger).map_err(|error| {
            PublishError::of("make", self.named(LEDGER_KIND), kube::Error::SerdeError(error))
        })?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.done("make", LEDGER_KIND, self.ledgers.create(&params, &ledger)).await {
            Err(PublishError::Refused { code: CONFLICT, .. }) => Ok(()),
            made => made.map(drop),
        }
    }

    /// Writes labels of the node's object; those that were written earlier and are not among them go. The object's identity
    /// is in the patch, so that none is made where there is no such node.
    pub(crate) async fn label(&self, labels: &Labels) -> Result<(), PublishError> {
        let found = self.done("read", "Node", self.nodes.get_metadata(&self.node)).await?;
        let patch: Patch<Value> = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node, "uid": found.uid(), "labels": labels},
        }));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.done("label", "Node", self.nodes.patch_metadata(&self.node, &params, &patch)).await.map(drop)
    }

    fn named(&self, kind: &str) -> String {
        format!("{kind} {:?}", self.node)
    }

    async fn done<T>(
        &self,
        verb: &'static str,
        kind: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, PublishError> {
        match timeout(ANSWER_WITHIN, request).await {
            Ok(answer) => answer.map_err(|error| PublishError::of(verb, self.named(kind), error)),
            Err(_) => Err(PublishError::Silent { verb, what: self.named(kind), limit: ANSWER_WITHIN }),
        }
    }
}
