use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::sync::Mutex;

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

#[path = "../../tests/publisher/stage.rs"]
mod stage;

use stage::PlayedNode;

const SOON: Duration = Duration::from_secs(60);
const NODE: &str = "node-a";

/// An API server with one node, and a ledger at most.
#[derive(Debug, Default)]
struct Played {
    ledger: Mutex<Option<Value>>,
    labels: Mutex<Option<Value>>,
    /// Patches of the ledger's status.
    patches: Mutex<Vec<Value>>,
    /// Says so to everything.
    refuse: Mutex<Option<StatusCode>>,
}

impl Played {
    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        if let Some(status) = *self.refuse.lock().unwrap() {
            return failure(status);
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if path.starts_with("/api/v1/nodes/") {
            if *method == Method::PATCH {
                assert_eq!(body["metadata"]["uid"], "uid-of-node");
                *self.labels.lock().unwrap() = Some(body["metadata"]["labels"].clone());
            }
            return (StatusCode::OK, json!({"metadata": {"name": NODE, "uid": "uid-of-node"}}));
        }
        let mut ledger = self.ledger.lock().unwrap();
        if *method == Method::POST {
            *ledger = Some(body);
        } else if *method == Method::PATCH
            && let Some(ledger) = ledger.as_mut()
        {
            assert!(path.ends_with("/node-a/status"), "{path}");
            assert!(body.get("spec").is_none(), "{body}");
            ledger["status"] = body["status"].clone();
            self.patches.lock().unwrap().push(body);
        }
        ledger.clone().map_or_else(|| failure(StatusCode::NOT_FOUND), |ledger| (StatusCode::OK, ledger))
    }

    fn client(self: &Arc<Self>) -> Client {
        let played = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let played = Arc::clone(&played);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) = played.answer(&head.method, head.uri.path(), &body);
                let response =
                    Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn status(&self) -> LedgerStatus {
        let ledger = self.ledger.lock().unwrap().clone().unwrap_or_default();
        ledger.get("status").and_then(|s| serde_json::from_value(s.clone()).ok()).unwrap_or_default()
    }

    fn guests(&self) -> Vec<(GuestPhase, String)> {
        self.status().guests.into_iter().map(|guest| (guest.phase, guest.verdict)).collect()
    }

    fn owners(&self) -> Vec<String> {
        self.status().holdings.into_iter().map(|holding| holding.owner).collect()
    }

    fn writes(&self) -> usize {
        self.patches.lock().unwrap().len()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < SOON, "not in time: {what}: {:#?}", self.status());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn failure(status: StatusCode) -> (StatusCode, Value) {
    let code = status.as_u16();
    (status, json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": code}))
}

/// Publishes a played node to a played API server while `play` goes on; returns what was told, and what was counted.
fn publishing<F: Future<Output = ()>>(
    node: &PlayedNode,
    played: &Arc<Played>,
    play: F,
) -> (Vec<String>, Arc<Published>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let sources = Sources { kvm: node.path("kvm"), ..Sources::of(&node.ledger(), &node.pods()) };
    let options = Options {
        node: NODE.into(),
        sources,
        published: Arc::default(),
        tell: Arc::new(move |text| telling.lock().unwrap().push(text.to_owned())),
    };
    let published = Arc::clone(&options.published);
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::select! {
            () = publish(played.client(), options) => {}
            () = play => {}
        }
    });
    let told = told.lock().unwrap().clone();
    (told, published)
}

#[test]
fn the_ledger_is_made_and_says_what_the_node_is_once() {
    let (mut node, played) = (PlayedNode::new(), Arc::new(Played::default()));
    node.count();
    node.facts(&[("pinion.dev/smt", "true")]);
    let (told, published) = publishing(&node, &played, async {
        played.until("there are labels", |p| p.labels.lock().unwrap().is_some()).await;
        let writes = played.writes();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(played.writes(), writes, "nothing has changed");
    });
    assert_eq!((told, played.writes()), (Vec::new(), 1));
    assert_eq!(published.total(PublishOutcome::Stored), 2);
    assert!(published.last().is_some());
    let status = played.status();
    assert_eq!((status.generation, status.housekeeping.to_string()), (1, "0-1".to_owned()));
    assert_eq!((status.obstacles.len(), status.heard.is_some()), (0, true));
    assert_eq!(status.machine.machine().unwrap().cores.len(), 4);
    assert_eq!(played.owners(), ["pod/lab/db"], "the booking stands for a launcher that starts");
    assert_eq!(*played.labels.lock().unwrap(), Some(json!({"pinion.dev/smt": "true"})));
    assert_eq!(played.patches.lock().unwrap()[0]["kind"], "NodeLedger");
}

#[test]
fn what_changes_again_and_again_is_written_once() {
    let (mut node, played) = (PlayedNode::new(), Arc::new(Played::default()));
    let spec = json!({"bookings": [{"uid": "u"}]});
    *played.ledger.lock().unwrap() =
        Some(json!({"apiVersion": "pinion.dev/v1alpha1", "kind": "NodeLedger", "metadata": {"name": NODE},
            "spec": spec}));
    let ledger = node.ledger();
    let sources = Sources { kvm: node.path("kvm"), ..Sources::of(&ledger, &node.pods()) };
    let options = Options { node: NODE.into(), sources, published: Arc::default(), tell: Arc::new(|_| ()) };
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let play = async {
            played.until("it is published", |p| p.writes() > 0).await;
            let before = played.writes();
            // Nobody else has a turn meanwhile.
            (0..20).for_each(|_| node.count());
            played.until("the last is published", |p| p.status().generation == 20).await;
            assert!(played.writes() <= before + 2, "{} writes of 20 changes", played.writes() - before);
        };
        tokio::select! {
            () = publish(played.client(), options) => {}
            () = play => {}
        }
    });
    assert_eq!(
        played.ledger.lock().unwrap().as_ref().unwrap()["spec"],
        spec,
        "bookings are the controller's"
    );
}

#[test]
fn an_api_server_that_is_away_is_told_once_and_then_has_the_newest() {
    let (mut node, played) = (PlayedNode::new(), Arc::new(Played::default()));
    *played.refuse.lock().unwrap() = Some(StatusCode::SERVICE_UNAVAILABLE);
    let ledger = node.ledger();
    node.count();
    let (told, published) = publishing(&node, &played, async {
        sleep(Duration::from_millis(1500)).await;
        ledger.set_housekeeping("2".parse().unwrap()).unwrap();
        *played.refuse.lock().unwrap() = None;
        played.until("the newest is published", |p| p.status().generation == 2).await;
    });
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(
        told[0],
        "warning: Cannot read NodeLedger \"node-a\": the API server says: no; it is tried again until it can be"
    );
    assert_eq!(told[1], "this node's NodeLedger is published again");
    assert!(published.total(PublishOutcome::Refused) > 1, "tried again");
    assert_eq!(played.status().housekeeping.to_string(), "0-2");
}

#[test]
fn guests_are_reported_from_their_start_to_their_end() {
    let (mut node, played) = (PlayedNode::new(), Arc::new(Played::default()));
    let guest = node.guest("a", "2-3");
    let other = node.guest("b", "4-5");
    other.says("Running", "holds");
    let _ = publishing(&node, &played, async {
        played
            .until("both are there", |p| p.guests().len() == 2 && p.guests()[1].0 == GuestPhase::Running)
            .await;
        assert_eq!(played.guests()[0], (GuestPhase::Starting, String::new()));
        assert_eq!(played.owners(), ["lab/a", "lab/b", "pod/lab/db"]);
        let report: GuestReport = played.status().guests[0].clone();
        assert_eq!((report.pod_uid.as_str(), report.owner.as_str()), ("uid-a", "lab/a"));
        assert_eq!(report.cpus.to_string(), "2-3");
        guest.says("Running", "holds");
        played.until("it runs", |p| p.guests()[0] == (GuestPhase::Running, "holds".to_owned())).await;
        let since = played.status().guests[0].since;
        guest.says("Running", "drifted");
        played.until("it has drifted", |p| p.guests()[0].1 == "drifted").await;
        assert_eq!(played.status().guests[0].since, since);
        other.says("Succeeded", "holds");
        played.until("the other has ended", |p| p.guests()[1].0 == GuestPhase::Succeeded).await;
        guest.end();
        other.end();
        played.until("its place is free", |p| p.owners() == ["pod/lab/db", "pod/lab/virt-launcher-a"]).await;
        // How the one has ended, its pod says.
        assert_eq!(played.guests(), [(GuestPhase::Succeeded, "holds".to_owned())]);
    });
}

#[test]
fn what_an_earlier_agent_said_of_a_guest_stays() {
    let (mut node, played) = (PlayedNode::new(), Arc::new(Played::default()));
    let guest = node.guest("a", "2-3");
    guest.says("Running", "holds");
    let before = LedgerStatus {
        guests: vec![GuestReport {
            pod_uid: "uid-a".into(),
            owner: "lab/a".into(),
            phase: GuestPhase::Running,
            verdict: "holds".into(),
            mismatches: Vec::new(),
            cpus: "2-3".parse().unwrap(),
            message: None,
            since: Timestamp::UNIX_EPOCH,
        }],
        ..LedgerStatus::default()
    };
    let ledger = json!({"apiVersion": "pinion.dev/v1alpha1", "kind": "NodeLedger", "metadata": {"name": NODE},
        "status": before});
    *played.ledger.lock().unwrap() = Some(ledger);
    let _ = publishing(&node, &played, async {
        played
            .until("it is there", |p| p.status().generation == 1 && p.guests()[0].0 == GuestPhase::Running)
            .await;
    });
    assert_eq!(played.status().guests[0].since, Timestamp::UNIX_EPOCH);
    let phases: Vec<Value> =
        played.patches.lock().unwrap().iter().map(|p| p["status"]["guests"][0]["phase"].clone()).collect();
    assert!(phases.iter().all(|phase| phase == "running"), "{phases:?}");
    guest.end();
}

#[test]
fn a_node_without_kvm_says_so() {
    let (node, played) = (PlayedNode::new(), Arc::new(Played::default()));
    fs::remove_file(node.path("kvm")).unwrap();
    let _ = publishing(&node, &played, async {
        played.until("it says so", |p| p.status().obstacles.len() == 1).await;
        fs::write(node.path("kvm"), "").unwrap();
        played.until("it says so no more", |p| p.status().obstacles.is_empty()).await;
    });
}
