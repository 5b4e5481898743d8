use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use pinion_endpoint::chain;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::*;
use crate::certificates::Lives;

/// An API server that has one Secret at most, and takes a write of what it has now only.
#[derive(Default)]
struct Api {
    secret: Mutex<Option<Value>>,
    writes: AtomicU32,
    /// Says so to every write.
    refuse: Option<StatusCode>,
}

impl Api {
    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let mut secret = self.secret.lock().unwrap();
        if *method == Method::GET {
            return secret.clone().map_or_else(|| failure(StatusCode::NOT_FOUND), |s| (StatusCode::OK, s));
        }
        if let Some(status) = self.refuse {
            return failure(status);
        }
        let mut new: Value = serde_json::from_slice(body).unwrap();
        let version = |of: &Value| of["metadata"]["resourceVersion"].clone();
        let expected = if *method == Method::POST { None } else { Some(version(&new)) };
        if secret.as_ref().map(version) != expected {
            return failure(StatusCode::CONFLICT);
        }
        let count = self.writes.fetch_add(1, Ordering::Relaxed);
        new["metadata"]["resourceVersion"] = count.to_string().into();
        *secret = Some(new.clone());
        (StatusCode::OK, new)
    }
}

fn failure(status: StatusCode) -> (StatusCode, Value) {
    let code = status.as_u16();
    let reason = if status == StatusCode::NOT_FOUND { "NotFound" } else { "" };
    (status, json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code}))
}

fn store(api: &Arc<Api>) -> Store {
    let api = Arc::clone(api);
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = Arc::clone(&api);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            // Others get between a read and a write.
            tokio::task::yield_now().await;
            let (status, answer) = api.answer(&head.method, &body);
            let response =
                Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    Store::new(Client::new(service, "default"), "pinion-system", "pinion-webhook")
}

fn wish() -> Wish {
    Wish::new(&["pinion-webhook.pinion-system.svc"], Lives::default()).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn replicas_that_begin_together_have_one_authority() {
    let api = Arc::new(Api::default());
    let now = Timestamp::now();
    let kept = runtime().block_on(async {
        let mut all = JoinSet::new();
        for _ in 0..8 {
            let store = store(&api);
            let _ = all.spawn(async move { store.refresh(&wish(), now).await.unwrap() });
        }
        all.join_all().await
    });
    assert_eq!(api.writes.load(Ordering::Relaxed), 1);
    assert!(kept.iter().all(|k| k.stored == kept[0].stored && k.until > now));
    assert_eq!(kept.iter().map(|k| k.events.len()).sum::<usize>(), 1, "who wrote tells");
    let secret = api.secret.lock().unwrap().clone().unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
}

#[test]
fn a_damaged_secret_is_replaced_and_what_is_not_ours_in_it_stays() {
    let api = Arc::new(Api::default());
    let metadata = json!({"name": "pinion-webhook", "namespace": "pinion-system", "resourceVersion": "7"});
    let data = json!({"tls.crt": "AAAA", "other": "b3RoZXI="});
    *api.secret.lock().unwrap() = Some(json!({"metadata": metadata, "type": "Opaque", "data": data}));
    let kept = runtime().block_on(async { store(&api).refresh(&wish(), Timestamp::now()).await }).unwrap();
    let told: Vec<String> = kept.events.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "What is in the Secret pinion-system/pinion-webhook cannot be used, and is replaced: ca.key has no key",
            "The Secret pinion-system/pinion-webhook has new certificates: Authority, Serving",
        ]
    );
    let secret = api.secret.lock().unwrap().clone().unwrap();
    assert_eq!(secret["data"]["other"], "b3RoZXI=");
    assert_eq!(secret["type"], "Opaque", "a type cannot be changed");
}

#[test]
fn an_api_server_that_refuses_is_told_with_the_secret() {
    let now = Timestamp::now();
    for (refuse, said) in [
        (
            StatusCode::FORBIDDEN,
            "Cannot write the Secret pinion-system/pinion-webhook with the webhook's certificates: no (403)",
        ),
        (StatusCode::CONFLICT, "The Secret pinion-system/pinion-webhook was written by others 8 times"),
    ] {
        let api = Arc::new(Api { refuse: Some(refuse), ..Api::default() });
        let error = runtime().block_on(async { store(&api).refresh(&wish(), now).await }).unwrap_err();
        assert!(chain(&error).starts_with(said), "{}", chain(&error));
    }
}
