//! What is asked and answered: the part of `admission.k8s.io/v1` that a rule needs.
//!
//! Own types and not those of a library: an answer of ours has no uid, which the server alone fills in, and a refusal has
//! its causes by field. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Which of the two an API server asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// May refuse, after everybody has changed what they change: `/validate`.
    Validate,
    /// May change: `/mutate`.
    Mutate,
}

impl Hook {
    /// As metrics and paths have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Mutate => "mutate",
        }
    }
}

/// The rules. Called on a thread where it may take its time; several at once.
pub trait Review: Send + Sync + 'static {
    /// What it says to a request. A patch counts where the hook is [`Hook::Mutate`].
    fn review(&self, hook: Hook, request: &AdmissionRequest) -> Verdict;
}

impl<F: Fn(Hook, &AdmissionRequest) -> Verdict + Send + Sync + 'static> Review for F {
    fn review(&self, hook: Hook, request: &AdmissionRequest) -> Verdict {
        self(hook, request)
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Kind {
    /// Empty for the core group.
    #[serde(default)]
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `VirtualMachineInstance`.
    pub kind: String,
}

/// Group, version and resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// Empty for the core group.
    #[serde(default)]
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `virtualmachineinstances`.
    pub resource: String,
}

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// It is connected to.
    Connect,
}

impl Operation {
    /// As Kubernetes has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// Who does it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME` for a pod.
    pub username: String,
    /// Identity that outlives a name.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// What an API server asks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionRequest {
    /// Identity of this question.
    pub uid: String,
    /// What the object is.
    pub kind: Kind,
    /// What it was asked for as.
    pub resource: Resource,
    /// `status`, `scale`; absent for the object itself.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Empty where the API server is to make one.
    #[serde(default)]
    pub name: String,
    /// Absent for kinds without namespaces.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What is done.
    pub operation: Operation,
    /// Who does it.
    #[serde(default)]
    pub user_info: User,
    /// The object as it is to be; absent for [`Operation::Delete`].
    #[serde(default)]
    pub object: Option<Value>,
    /// The object as it is, for [`Operation::Update`] and [`Operation::Delete`].
    #[serde(default)]
    pub old_object: Option<Value>,
    /// Whether nothing of it will be kept.
    #[serde(default)]
    pub dry_run: bool,
    /// `CreateOptions` and the like.
    #[serde(default)]
    pub options: Option<Value>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldCause {
    /// `FieldValueInvalid` and the like.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Its path.
    pub field: String,
}

/// Why the API server is to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status that the client gets.
    pub code: u16,
    /// Kubernetes' word for it.
    pub reason: &'static str,
    /// For people: kubectl prints it.
    pub message: String,
    /// Field by field.
    pub causes: Vec<FieldCause>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether and why it is refused.
    pub refusal: Option<Refusal>,
    /// Operations of a JSON patch (RFC 6902), for [`Hook::Mutate`] only.
    pub patch: Vec<Value>,
    /// What kubectl prints as warnings; the API server cuts those of more than 256 characters.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// It may be.
    #[must_use]
    pub fn allowed() -> Self {
        Self::default()
    }

    /// The object is wrong: 422.
    #[must_use]
    pub fn invalid(message: impl Into<String>, causes: Vec<FieldCause>) -> Self {
        Self::refused(Refusal { code: 422, reason: "Invalid", message: message.into(), causes })
    }

    /// Who asks may not do that: 403.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::refused(Refusal { code: 403, reason: "Forbidden", message: message.into(), causes: Vec::new() })
    }

    /// It may not be.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }
}

/// A review of `admission.k8s.io/v1`, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    request: Option<AdmissionRequest>,
}

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Reads what an API server sends; the error is a line for it.
pub(crate) fn read(body: &[u8]) -> Result<AdmissionRequest, String> {
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|e| format!("The body is no {KIND} of {VERSION}: {e}"))?;
    if envelope.api_version != VERSION || envelope.kind != KIND {
        let Envelope { api_version, kind, .. } = envelope;
        return Err(format!("The body is a {kind:?} of {api_version:?}, and not a {KIND} of {VERSION}"));
    }
    envelope.request.ok_or_else(|| format!("The {KIND} has no request"))
}

/// What is sent back: the document, and nothing that the API server would refuse for its form.
pub(crate) fn answer(hook: Hook, request: &AdmissionRequest, verdict: &Verdict) -> Value {
    let mut response = json!({"uid": request.uid, "allowed": verdict.refusal.is_none()});
    if let Some(refusal) = &verdict.refusal {
        response["status"] = json!({
            "status": "Failure", "code": refusal.code, "reason": refusal.reason, "message": refusal.message,
        });
        if !refusal.causes.is_empty() {
            // With causes kubectl prints them and not the message, after the kind and the name.
            let Kind { group, kind, .. } = &request.kind;
            let details =
                json!({"group": group, "kind": kind, "name": request.name, "causes": refusal.causes});
            response["status"]["details"] = details;
        }
    } else if hook == Hook::Mutate && !verdict.patch.is_empty() {
        let patch = Value::from(verdict.patch.clone()).to_string();
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(patch).into();
    }
    if !verdict.warnings.is_empty() {
        response["warnings"] = verdict.warnings.clone().into();
    }
    json!({"apiVersion": VERSION, "kind": KIND, "response": response})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_uid_and_what_the_api_server_takes() {
        let request = json!({
            "uid": "u-1", "name": "one", "operation": "CREATE", "kind": {"version": "v1", "kind": "ConfigMap"},
            "resource": {"version": "v1", "resource": "configmaps"},
        });
        let request = json!({"apiVersion": VERSION, "kind": KIND, "request": request});
        let request = read(request.to_string().as_bytes()).unwrap();
        let of = |hook, verdict: &Verdict| answer(hook, &request, verdict)["response"].clone();
        assert_eq!(of(Hook::Validate, &Verdict::allowed()), json!({"uid": "u-1", "allowed": true}));
        let patch = vec![json!({"op": "add", "path": "/a", "value": 1})];
        let changed = Verdict { patch, warnings: vec!["old".into()], ..Verdict::default() };
        let wanted = json!({
            "uid": "u-1", "allowed": true, "patchType": "JSONPatch",
            "patch": STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#), "warnings": ["old"],
        });
        assert_eq!(of(Hook::Mutate, &changed), wanted);
        let validated = of(Hook::Validate, &changed);
        assert!(validated.get("patch").is_none(), "a patch there makes the API server fail: {validated}");
        let cause =
            FieldCause { reason: "FieldValueInvalid".into(), message: "m".into(), field: "spec.a".into() };
        let refused = of(Hook::Mutate, &Verdict::invalid("no", vec![cause]));
        assert_eq!(refused["allowed"], false);
        assert_eq!(refused["status"]["code"], 422);
        assert_eq!(refused["status"]["details"]["name"], "one");
        assert_eq!(refused["status"]["details"]["causes"][0]["field"], "spec.a");
    }

    #[test]
    fn what_is_no_review_is_told_in_one_line() {
        for (body, said) in [
            ("", "EOF"),
            ("[]", "no AdmissionReview"),
            (r#"{"apiVersion": "v1", "kind": "Pod"}"#, "\"Pod\" of \"v1\""),
            (r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#, "no request"),
            (r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#, "v1beta1"),
        ] {
            let error = read(body.as_bytes()).unwrap_err();
            assert!(error.contains(said) && error.lines().count() == 1, "{body}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(deep.as_bytes()).is_err());
    }
}
