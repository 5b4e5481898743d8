use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certificates::{Decision, Lives, Stored, Wish, next};
use crate::event::Event;
use crate::review::{AdmissionRequest, Hook, Verdict};
use crate::tls::trust;

const NAME: &str = "pinion-webhook.pinion-system.svc";

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Certificates as they follow each other when nobody looks for so long.
fn stored(before: Option<&Stored>, now: Timestamp) -> Arc<Stored> {
    let wish = Wish::new(&[NAME], Lives::default()).unwrap();
    match next(before, now, &wish).unwrap() {
        Decision::Replace { stored, .. } => Arc::new(*stored),
        Decision::Keep { .. } => panic!("nothing is new"),
    }
}

fn rules(hook: Hook, request: &AdmissionRequest) -> Verdict {
    match request.name.as_str() {
        "wrong" => Verdict::invalid("spec.cpu is wrong", Vec::new()),
        "panic" => panic!("a rule is wrong"),
        "unfinished" => {
            UNFINISHED.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            Verdict::allowed()
        }
        _ if hook == Hook::Mutate => {
            Verdict { patch: vec![json!({"op": "add", "path": "/a", "value": 1})], ..Verdict::allowed() }
        }
        _ => Verdict::allowed(),
    }
}

/// A review that takes its time has begun.
static UNFINISHED: AtomicBool = AtomicBool::new(false);

struct Served {
    address: SocketAddr,
    publish: watch::Sender<Option<Arc<Stored>>>,
    metrics: Metrics,
    told: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    bundle: String,
}

async fn serve(limits: Limits) -> Served {
    let first = stored(None, Timestamp::now());
    let bundle = first.bundle();
    let (publish, current) = watch::channel(Some(first));
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let metrics = Metrics::new();
    let parts = Parts {
        current,
        review: Arc::new(rules),
        limits,
        metrics: metrics.clone(),
        clock: Arc::new(Timestamp::now),
        tell: Arc::new(move |event: &Event| telling.lock().unwrap().push(event.to_string())),
    };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), parts).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.serve(async move { drop(stopped.await) }));
    Served { address, publish, metrics, told, stop, task, bundle }
}

impl Served {
    async fn connect_with(&self, bundle: &str, now: Timestamp) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(trust::client(bundle, now)));
        let stream = TcpStream::connect(self.address).await?;
        connector.connect(ServerName::try_from(NAME).unwrap(), stream).await
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_with(&self.bundle, Timestamp::now()).await.unwrap()
    }

    /// Sends that on a connection of its own, and gives what comes back until it ends or is quiet for a while.
    async fn ask(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        // It may refuse while we still write.
        let _ = stream.write_all(text.as_bytes()).await;
        answer(&mut stream).await
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|l| l == line)
    }
}

/// One response, or what there is of it when the connection ends.
async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = String::new();
    let mut part = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(20), stream.read(&mut part)).await {
        text.push_str(&String::from_utf8_lossy(&part[..count]));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            if length.is_some_and(|l| l.parse() == Ok(body.len())) {
                break;
            }
        }
    }
    text
}

fn review(name: &str) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("uid of {name}"), "name": name, "operation": "CREATE",
            "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "userInfo": {"username": "a", "extra": {"b": ["c"]}},
            "object": {"kind": "ConfigMap"}, "oldObject": null, "dryRun": false, "options": null,
        },
    })
    .to_string()
}

fn post(path: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn response(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str::<Value>(body).unwrap()["response"].clone()
}

#[test]
fn reviews_are_answered_with_their_uid() {
    runtime().block_on(async {
        let served = serve(Limits::default()).await;
        let asked = |path: &str, name: &str| post(path, "application/json; charset=utf-8", &review(name));
        let good = response(&served.ask(&asked("/validate?timeout=10s", "good")).await);
        assert_eq!(good, json!({"uid": "uid of good", "allowed": true}));
        let wrong = response(&served.ask(&asked("/validate", "wrong")).await);
        assert_eq!(wrong["uid"], "uid of wrong");
        assert_eq!(wrong["status"]["message"], "spec.cpu is wrong");
        let changed = response(&served.ask(&asked("/mutate", "good")).await);
        assert_eq!(changed["patchType"], "JSONPatch");
        // Many on one connection.
        let mut stream = served.connect().await;
        for number in 0..20 {
            let name = format!("n{number}");
            stream.write_all(asked("/validate", &name).as_bytes()).await.unwrap();
            assert_eq!(response(&answer(&mut stream).await)["uid"], format!("uid of {name}"));
        }
        let line =
            "pinion_webhook_requests_total{hook=\"validate\",operation=\"CREATE\",verdict=\"Allowed\"} 21";
        assert!(served.counts(line), "{:?}", served.metrics.text());
    });
}

#[test]
fn what_is_no_review_gets_one_line_and_the_server_goes_on() {
    runtime().block_on(async {
        let served = serve(Limits { body: 10_000, ..Limits::default() }).await;
        let json = "application/json";
        let long = "x".repeat(10_001);
        let chunked = format!(
            "POST /validate HTTP/1.1\r\nHost: a\r\nContent-Type: {json}\r\nTransfer-Encoding: chunked\r\n\r\n\
             2711\r\n{long}\r\n0\r\n\r\n"
        );
        let announced = format!(
            "POST /validate HTTP/1.1\r\nHost: a\r\nContent-Type: {json}\r\nContent-Length: 99999999999\r\n\r\n"
        );
        for (asked, status, said) in [
            ("GET /validate HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405, "Only POST"),
            (post("/validate", "text/yaml", "a: b"), 415, "Only application/json"),
            (post("/validate", json, "garbage"), 400, "no AdmissionReview"),
            (post("/mutate", json, "{}"), 400, "no AdmissionReview"),
            (post("/validate", json, &long), 413, "more than 10000 bytes"),
            (chunked, 413, "more than 10000 bytes"),
            (announced, 413, "more than 10000 bytes"),
            (post("/", json, "{}"), 404, "There are /validate"),
            (post("/healthz", json, "{}"), 405, "Only GET"),
        ] {
            let answer = served.ask(&asked).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{said}: {answer}");
            assert!(body.contains(said) && body.lines().count() == 1, "{answer}");
            assert!(head.contains("connection: close"), "{answer}");
        }
        let huge = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(200_000));
        assert!(!served.ask(&huge).await.contains(" 200 "));
        // No TLS at all, and a client that trusts others.
        let mut plain = TcpStream::connect(served.address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = plain.read_to_end(&mut rest).await;
        let other = stored(None, Timestamp::now()).bundle();
        let refused = served.connect_with(&other, Timestamp::now()).await.unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
        let healthy = served.ask("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(healthy.starts_with("HTTP/1.1 200") && healthy.ends_with("ok\n"), "{healthy}");
        assert!(served.counts("pinion_webhook_rejected_connections_total{cause=\"Handshake\"} 2"));
    });
}

#[test]
fn a_panic_of_the_rules_ends_one_request() {
    runtime().block_on(async {
        let served = serve(Limits::default()).await;
        let mut other = served.connect().await;
        let answer_of_panic = served.ask(&post("/validate", "application/json", &review("panic"))).await;
        assert!(answer_of_panic.starts_with("HTTP/1.1 500"), "{answer_of_panic}");
        assert_eq!(*served.told.lock().unwrap(), ["A review to validate panicked: a rule is wrong"]);
        let line =
            "pinion_webhook_requests_total{hook=\"validate\",operation=\"CREATE\",verdict=\"Panicked\"} 1";
        assert!(served.counts(line));
        other.write_all(post("/validate", "application/json", &review("good")).as_bytes()).await.unwrap();
        assert_eq!(response(&answer(&mut other).await)["allowed"], true);
    });
}

#[test]
fn it_is_not_ready_without_a_certificate_that_holds() {
    runtime().block_on(async {
        let served = serve(Limits::default()).await;
        let ready = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(served.ask(ready).await.starts_with("HTTP/1.1 200"));
        let mut open = served.connect().await;
        served.publish.send_replace(None);
        assert!(served.connect_with(&served.bundle, Timestamp::now()).await.is_err(), "nothing to show");
        open.write_all(ready.as_bytes()).await.unwrap();
        assert!(answer(&mut open).await.contains("There is no certificate yet"));
        let then = Timestamp::now() - SignedDuration::from_hours(31 * 24);
        let ended = stored(None, then);
        let bundle = ended.bundle();
        served.publish.send_replace(Some(ended));
        let mut late = served.connect_with(&bundle, then).await.unwrap();
        late.write_all(ready.as_bytes()).await.unwrap();
        let told = answer(&mut late).await;
        assert!(told.starts_with("HTTP/1.1 503") && told.contains("The certificate holds from"), "{told}");
    });
}

#[test]
fn slow_clients_are_cut_off_and_too_many_are_turned_away() {
    runtime().block_on(async {
        let short = Duration::from_millis(400);
        let limits = Limits {
            connections: 3,
            first: short,
            request: short * 3,
            idle: Duration::from_secs(60),
            ..Limits::default()
        };
        let served = serve(limits).await;
        // One that never shakes hands, one that never ends its head, one that never ends its body.
        let _silent = TcpStream::connect(served.address).await.unwrap();
        let mut head = served.connect().await;
        let mut body = served.connect().await;
        head.write_all(b"POST /validate HTTP/1.1\r\nX: ").await.unwrap();
        let asked = post("/validate", "application/json", &review("good"));
        body.write_all(&asked.as_bytes()[..asked.len() - 1]).await.unwrap();
        assert!(served.connect_with(&served.bundle, Timestamp::now()).await.is_err(), "there are three");
        assert!(served.counts("pinion_webhook_rejected_connections_total{cause=\"Full\"} 1"));
        assert_eq!(answer(&mut head).await, "");
        assert!(answer(&mut body).await.starts_with("HTTP/1.1 408"));
        assert!(served.counts("pinion_webhook_rejected_connections_total{cause=\"Slow\"} 2"));
        // Their places are free again, and who has asked may be quiet for longer than that.
        let mut good = served.connect().await;
        for _ in 0..2 {
            good.write_all(asked.as_bytes()).await.unwrap();
            assert_eq!(response(&answer(&mut good).await)["allowed"], true);
            sleep(short * 2).await;
        }
    });
}

#[test]
fn certificates_are_swapped_under_load_and_no_request_fails() {
    runtime().block_on(async {
        let served = Arc::new(serve(Limits::default()).await);
        let done = Arc::new(AtomicUsize::new(0));
        let (end, ended) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..4 {
            let (served, done, ended) = (Arc::clone(&served), Arc::clone(&done), ended.clone());
            let _ = clients.spawn(async move {
                let asked = post("/validate", "application/json", &review("good"));
                let mut kept = served.connect().await;
                while !*ended.borrow() {
                    if number % 2 == 0 {
                        let bundle = served.publish.borrow().as_ref().unwrap().bundle();
                        kept = served.connect_with(&bundle, Timestamp::now()).await.unwrap();
                    }
                    kept.write_all(asked.as_bytes()).await.unwrap();
                    assert_eq!(response(&answer(&mut kept).await)["allowed"], true);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut swaps = Vec::new();
        for number in 1..=10 {
            let names = [NAME.to_owned(), format!("n{number}")];
            let wish = Wish::new(&names.each_ref().map(String::as_str), Lives::default()).unwrap();
            let before = served.publish.borrow().clone();
            let Decision::Replace { stored, .. } = next(before.as_deref(), Timestamp::now(), &wish).unwrap()
            else {
                panic!("other names are a reason")
            };
            let count = done.load(Ordering::Relaxed);
            served.publish.send_replace(Some(Arc::new(*stored)));
            swaps.push(count);
            while done.load(Ordering::Relaxed) < count + 8 {
                sleep(Duration::from_millis(5)).await;
                assert!(clients.try_join_next().is_none(), "a client failed");
            }
        }
        end.send_replace(true);
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        assert!(swaps.windows(2).all(|w| w[1] >= w[0] + 8));
    });
}

#[test]
fn what_is_in_progress_is_finished_when_it_ends() {
    runtime().block_on(async {
        let served = serve(Limits::default()).await;
        let mut idle = served.connect().await;
        let mut slow = served.connect().await;
        slow.write_all(post("/validate", "application/json", &review("unfinished")).as_bytes())
            .await
            .unwrap();
        idle.write_all(post("/validate", "application/json", &review("good")).as_bytes()).await.unwrap();
        assert_eq!(response(&answer(&mut idle).await)["allowed"], true);
        while !UNFINISHED.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        served.stop.send(()).unwrap();
        assert_eq!(response(&answer(&mut slow).await)["allowed"], true);
        served.task.await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err());
    });
}
