//! Which of several replicas acts: the one that holds a Lease.
//!
//! A task of its own. Who cannot renew it in time stops acting before another may begin; the generation of ledgers and the
//! names of pods keep two from doing harm even if clocks lie.
//!
//! Source: `coordination.k8s.io/v1`; client-go's leader election.

use std::time::Duration;

use jiff::Timestamp;
use pinion_reconcile::Meta;
use serde_json::{Value, json};
use tokio::sync::watch::Sender;
use tokio::time::Instant;

use crate::api::{Api, Created, RequestError, now};
use crate::kinds::Kind;

/// How long a lease holds that is not renewed. client-go's.
const HOLDS: Duration = Duration::from_secs(15);
/// Who has not renewed it for so long stops acting.
const STOPS_AFTER: Duration = Duration::from_secs(10);
/// How often it is renewed, or asked for.
const EACH: Duration = Duration::from_secs(2);

/// Asks for the lease for ever; `leads` is told whenever it comes or goes.
pub(crate) async fn lead(api: Api, (namespace, name): (String, String), me: String, leads: Sender<bool>) {
    let mut seen = Seen::default();
    let mut renewed: Option<Instant> = None;
    loop {
        match turn(&api, (&namespace, &name), &me, &mut seen).await {
            Ok(true) => renewed = Some(Instant::now()),
            Ok(false) => renewed = None,
            Err(error) => tracing::warn!("{error}"),
        }
        let is_leader = renewed.is_some_and(|at| at.elapsed() < STOPS_AFTER);
        leads.send_if_modified(|leads| std::mem::replace(leads, is_leader) != is_leader);
        tokio::time::sleep(EACH).await;
    }
}

/// Gives the lease back, so that another begins at once.
pub(crate) async fn resign(api: &Api, (namespace, name): (&str, &str), me: &str) {
    let Ok(lease) = api.get(Kind::Lease, namespace, name).await else { return };
    if holder(&lease) == me {
        let _ = write(api, &lease, "", 0).await;
    }
}

/// What was seen of somebody else's lease, and when it was by this clock: others' clocks are not asked.
#[derive(Debug, Default)]
struct Seen {
    version: String,
    at: Option<Instant>,
}

impl Seen {
    /// Whether it has not been renewed for as long as it holds.
    fn is_over(&mut self, lease: &Value, now: Instant) -> bool {
        let version = lease.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        if self.version != version {
            version.clone_into(&mut self.version);
            self.at = Some(now);
        }
        holder(lease).is_empty() || self.at.is_some_and(|at| now.duration_since(at) >= HOLDS)
    }
}

/// Whether the lease is held after this.
async fn turn(
    api: &Api,
    (namespace, name): (&str, &str),
    me: &str,
    seen: &mut Seen,
) -> Result<bool, RequestError> {
    let lease = match api.get(Kind::Lease, namespace, name).await {
        Ok(lease) => lease,
        Err(error) if error.is_absent() => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": namespace}, "spec": spec(me, 0, now()),
            });
            return Ok(matches!(api.create(Kind::Lease, &lease).await?, Created::Made(_)));
        }
        Err(error) => return Err(error),
    };
    let mine = holder(&lease) == me;
    if !mine && !seen.is_over(&lease, Instant::now()) {
        return Ok(false);
    }
    let changes = lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64).unwrap_or(0);
    match write(api, &lease, me, if mine { changes } else { changes.saturating_add(1) }).await {
        Ok(_) => Ok(true),
        // Somebody was quicker.
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn write(api: &Api, lease: &Value, holder: &str, changes: i64) -> Result<Value, RequestError> {
    let version = lease.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let steps = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/spec", "value": spec(holder, changes, now())},
    ]);
    api.patch(Kind::Lease, &Meta::of(lease), steps).await
}

fn holder(lease: &Value) -> &str {
    lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default()
}

fn spec(holder: &str, changes: i64, now: Timestamp) -> Value {
    // Source: `metav1.MicroTime`: six digits.
    let time = format!("{now:.6}");
    json!({
        "holderIdentity": holder, "leaseDurationSeconds": HOLDS.as_secs(), "acquireTime": time, "renewTime": time,
        "leaseTransitions": changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn somebody_elses_lease_is_over_once_it_has_not_changed_for_as_long_as_it_holds() {
        let mut seen = Seen::default();
        let lease = |version: &str, holder: &str| json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}});
        assert!(!seen.is_over(&lease("1", "other"), Instant::now()));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!seen.is_over(&lease("1", "other"), Instant::now()));
        assert!(!seen.is_over(&lease("2", "other"), Instant::now()));
        tokio::time::advance(HOLDS).await;
        assert!(seen.is_over(&lease("2", "other"), Instant::now()));
        assert!(seen.is_over(&lease("3", ""), Instant::now()));
    }

    #[test]
    fn times_are_written_with_six_digits() {
        let written = spec("a", 0, Timestamp::UNIX_EPOCH);
        assert_eq!(written["renewTime"], "1970-01-01T00:00:00.000000Z");
    }
}
