//! Whether this cluster is Pinion's to serve: KubeVirt must not be there.
//!
//! Asked at the start and now and then. Both would act on the same objects.

use pinion_reconcile::Meta;
use serde_json::Value;

use crate::api::{Api, RequestError};
use crate::kinds::Kind;

/// The kind that only an installation of KubeVirt has.
const OF_KUBEVIRT: &str = "kubevirts.kubevirt.io";
/// The kinds that must be ours.
const OURS: [&str; 4] = [
    "virtualmachines.kubevirt.io",
    "virtualmachineinstances.kubevirt.io",
    "virtualmachineinstancereplicasets.kubevirt.io",
    "nodeledgers.pinion.dev",
];
/// The label of definitions that are ours.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "pinion");

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// KubeVirt is installed.
    #[error(
        "KubeVirt is installed on this cluster (the kind {OF_KUBEVIRT} is there): Pinion serves the same kinds and does not \
         run beside it. Remove KubeVirt, or Pinion (`kubectl delete -k manifests/`)"
    )]
    KubeVirt,
    /// A kind is missing.
    #[error("the kind {0} is not there: apply the manifests (`kubectl apply --server-side -k manifests/`)")]
    Missing(&'static str),
    /// A kind is somebody else's.
    #[error(
        "the kind {0} has not been defined by Pinion (it has no label app.kubernetes.io/part-of=pinion): another operator \
         serves it, and Pinion does not run beside that"
    )]
    Foreign(&'static str),
    /// Nobody knows.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Whether this cluster is ours to serve.
///
/// # Errors
/// [`GuardError`].
pub(crate) async fn check(api: &Api) -> Result<(), GuardError> {
    match api.get(Kind::Definition, "", OF_KUBEVIRT).await {
        Ok(_) => return Err(GuardError::KubeVirt),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error.into()),
    }
    for name in OURS {
        match api.get(Kind::Definition, "", name).await {
            Ok(definition) if is_ours(&definition) => {}
            Ok(_) => return Err(GuardError::Foreign(name)),
            Err(error) if error.is_absent() => return Err(GuardError::Missing(name)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_ours(definition: &Value) -> bool {
    Meta::of(definition).labels.get(PART_OF.0).is_some_and(|value| value == PART_OF.1)
}
