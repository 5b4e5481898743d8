//! An instance from its first look to its end.

use pinion_machine::{NodeId, PageSize};
use pinion_nodes::{GuestPhase, GuestReport};
use pinion_planner::{HeldMemory, Holding, HoldingState};
use serde_json::{Value, json};

use super::{at, conditions, instance_object};
use crate::instance::{FINALIZER, Instance, Next, Phase, Seen, Step, next};
use crate::pod::{PodPhase, PodTrouble, PodView};
use crate::{Meta, status_patch};

fn pod(phase: PodPhase) -> PodView {
    PodView {
        meta: Meta {
            name: "virt-launcher-web-1".into(),
            uid: "pod-uid".into(),
            created: Some(at(1)),
            ..Meta::default()
        },
        phase,
        node: Some("node-a".into()),
        addresses: vec!["10.244.1.2".into()],
        qos: "Guaranteed".into(),
        is_ready: phase == PodPhase::Running,
        trouble: None,
        exit: None,
    }
}

fn report(phase: GuestPhase, verdict: &str) -> GuestReport {
    GuestReport {
        pod_uid: "pod-uid".into(),
        owner: "default/web".into(),
        phase,
        verdict: verdict.into(),
        mismatches: Vec::new(),
        cpus: "2-3".parse().unwrap(),
        message: None,
        since: at(5),
    }
}

fn held() -> Holding {
    let memory = HeldMemory { node: NodeId(1), page_size: PageSize::MIB2, bytes: 128 << 20 };
    Holding {
        owner: "default/web".into(),
        state: HoldingState::Committed,
        cpus: "2-3".parse().unwrap(),
        floating: Vec::new(),
        memory: vec![memory],
        devices: vec!["0000:31:00.0".parse().unwrap()],
    }
}

/// What there is of one instance, and its story.
struct World {
    object: Value,
    pod: Option<PodView>,
    booked: Option<String>,
    nowhere: Option<String>,
    missing_claim: Option<String>,
    report: Option<GuestReport>,
    held: Option<Holding>,
    node_trouble: Option<String>,
    clock: i64,
}

impl World {
    fn new() -> Self {
        Self {
            object: instance_object("web"),
            pod: None,
            booked: None,
            nowhere: None,
            missing_claim: None,
            report: None,
            held: None,
            node_trouble: None,
            clock: 0,
        }
    }

    /// Looks once, and stores the status as an API server would.
    fn look(&mut self) -> Next {
        self.clock += 1;
        let instance = Instance::of(&self.object);
        let seen = Seen {
            instance: &instance,
            pod: self.pod.as_ref(),
            booked: self.booked.as_deref(),
            nowhere: self.nowhere.as_deref(),
            missing_claim: self.missing_claim.as_deref(),
            report: self.report.as_ref(),
            held: self.held.as_ref(),
            node_trouble: self.node_trouble.as_deref(),
            image: "pinion.dev/launcher:0.1.0",
        };
        let next = next(seen, at(self.clock));
        if let Some(patch) =
            status_patch("VirtualMachineInstance", &instance.meta, instance.status.as_ref(), &next.status)
        {
            assert_eq!(patch["metadata"]["uid"], "uid-of-web");
            self.object["status"] = patch["status"].clone();
        }
        next
    }

    fn delete(&mut self) {
        self.object["metadata"]["deletionTimestamp"] = "2026-11-22T11:00:00Z".into();
    }
}

#[test]
fn a_guest_is_booked_gets_a_pod_runs_and_ends() {
    let mut world = World::new();
    assert_eq!(world.look().steps, [Step::Book]);
    world.booked = Some("node-a".into());
    assert_eq!(world.look().steps, [Step::CreatePod]);
    world.pod = Some(pod(PodPhase::Pending));
    let next = world.look();
    assert_eq!((next.steps.len(), next.status["phase"].as_str().unwrap()), (0, "Scheduling"));
    world.pod = Some(pod(PodPhase::Running));
    assert_eq!(world.look().status["phase"], "Scheduled");
    world.report = Some(report(GuestPhase::Starting, ""));
    assert_eq!(world.look().status["phase"], "Scheduled");
    world.report = Some(report(GuestPhase::Running, "holds"));
    world.held = Some(held());
    let next = world.look();
    let placement = json!({
        "cpus": "2-3", "devices": ["0000:31:00.0"],
        "memory": [{"node": 1, "pageSize": PageSize::MIB2, "bytes": 128 << 20}],
    });
    assert_eq!(next.status["pinion"], json!({"placement": placement}));
    assert_eq!(next.status["phase"], "Running");
    assert_eq!(conditions(&next.status), ["Ready=True/", "PodScheduled=True/", "Deterministic=True/Holds"]);
    assert_eq!(next.status["interfaces"][0]["ipAddress"], "10.244.1.2");
    assert_eq!(next.status["activePods"], json!({"pod-uid": "node-a"}));
    assert_eq!(
        (&next.status["qosClass"], &next.status["nodeName"]),
        (&json!("Guaranteed"), &json!("node-a"))
    );
    assert_eq!(next.events.iter().map(|e| e.reason).collect::<Vec<_>>(), ["Started"]);
    // Nothing has changed: nothing is written, nothing is told.
    let before = world.object.clone();
    let again = world.look();
    assert_eq!((again.steps.len(), again.events.len()), (0, 0));
    assert_eq!(world.object, before);
    // Its agent was started anew, and says nothing for a moment.
    let report = world.report.take();
    assert_eq!(world.look().status["phase"], "Running");
    world.report = report;
    world.look();
    let mut ended = pod(PodPhase::Succeeded);
    ended.exit = Some((0, String::new()));
    world.pod = Some(ended);
    let next = world.look();
    assert_eq!((next.status["phase"].as_str().unwrap(), next.steps), ("Succeeded", vec![Step::Unbook]));
    world.booked = None;
    assert_eq!(world.look().steps, []);
    let came: Vec<&str> = world.object["status"]["phaseTransitionTimestamps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["phase"].as_str().unwrap())
        .collect();
    assert_eq!(came, ["Pending", "Scheduling", "Scheduled", "Running", "Succeeded"]);
}

#[test]
fn what_fits_nowhere_says_why_and_is_not_asked_again_by_itself() {
    let mut world = World::new();
    world.nowhere = Some("0 of 1 nodes can take it\n* node-a: full".into());
    let next = world.look();
    assert_eq!((next.steps, next.status["phase"].as_str().unwrap()), (vec![], "Pending"));
    assert_eq!(conditions(&next.status), ["Ready=False/Unschedulable", "PodScheduled=False/Unschedulable"]);
    assert_eq!(next.status["conditions"][1]["message"], "0 of 1 nodes can take it\n* node-a: full");
    world.nowhere = None;
    assert_eq!(world.look().steps, [Step::Book]);
}

#[test]
fn a_pod_that_is_turned_away_is_replaced_elsewhere_by_one_of_another_name() {
    let mut world = World::new();
    world.booked = Some("node-a".into());
    let mut turned_away = pod(PodPhase::Failed);
    turned_away.trouble = Some(PodTrouble::TurnedAway("SMTAlignmentError".into(), "3 of 2".into()));
    world.pod = Some(turned_away);
    let next = world.look();
    let why = "the kubelet turned it away (SMTAlignmentError): 3 of 2".to_owned();
    assert_eq!(next.steps, [Step::Avoid("node-a".into(), why), Step::Unbook, Step::DeletePod]);
    assert_eq!(next.status["phase"], "Scheduling");
    assert_eq!(Instance::of(&world.object).attempts(), 1);
    (world.pod, world.booked) = (None, None);
    assert_eq!(world.look().steps, [Step::Book]);
    assert_eq!(Instance::of(&world.object).attempts(), 1);
}

#[test]
fn a_pod_that_the_scheduler_has_no_room_for_waits_a_while() {
    let mut world = World::new();
    world.booked = Some("node-a".into());
    let mut waiting = pod(PodPhase::Pending);
    waiting.node = None;
    waiting.trouble = Some(PodTrouble::Unschedulable("too many pods".into()));
    world.pod = Some(waiting);
    let next = world.look();
    assert!(matches!(next.steps.as_slice(), [Step::LookAgain(_)]), "{:?}", next.steps);
    assert_eq!(conditions(&next.status)[1], "PodScheduled=False/Unschedulable");
    world.clock = 60;
    let steps = world.look().steps;
    assert!(
        matches!(&steps[..], [Step::Avoid(node, _), Step::Unbook, Step::DeletePod] if node == "node-a"),
        "{steps:?}"
    );
}

#[test]
fn who_is_deleted_goes_pod_first_then_place_then_name() {
    let mut world = World::new();
    world.booked = Some("node-a".into());
    world.pod = Some(pod(PodPhase::Running));
    world.report = Some(report(GuestPhase::Running, "holds"));
    world.look();
    world.delete();
    assert_eq!(world.look().steps, [Step::DeletePod]);
    let mut terminating = pod(PodPhase::Running);
    terminating.meta.deleted = Some(at(9));
    world.pod = Some(terminating);
    let next = world.look();
    assert_eq!(next.steps, []);
    assert_eq!(conditions(&next.status)[0], "Ready=False/PodTerminating");
    (world.pod, world.report) = (None, None);
    assert_eq!(world.look().steps, [Step::Unbook, Step::DropFinalizer]);
    world.booked = None;
    world.object["metadata"]["finalizers"] = json!(["other"]);
    assert_eq!(world.look().steps, []);
    // Nothing of it was ever there.
    let mut early = World::new();
    early.delete();
    assert_eq!(early.look().steps, [Step::DropFinalizer]);
    assert!(early.object["metadata"]["finalizers"].to_string().contains(FINALIZER));
}

#[test]
fn a_guest_that_fails_says_how() {
    for (code, reason) in [
        (1, "NotArmed"),
        (10, "StoppedByForce"),
        (11, "GuestCrashed"),
        (13, "NotVerified"),
        (99, "LauncherFailed"),
    ] {
        let mut world = World::new();
        world.booked = Some("node-a".into());
        let mut failed = pod(PodPhase::Failed);
        failed.exit = Some((code, "the guest crashed: triple fault".into()));
        world.pod = Some(failed);
        let next = world.look();
        assert_eq!(next.status["phase"], "Failed");
        assert_eq!(next.status["reason"], reason);
        assert_eq!(next.status["conditions"][0]["message"], "the guest crashed: triple fault");
        assert_eq!(next.steps, [Step::Unbook]);
    }
}

#[test]
fn a_pod_that_vanishes_takes_its_guest_with_it_once_that_had_begun() {
    for (phase, after) in
        [("Scheduled", Phase::Failed), ("Running", Phase::Failed), ("Scheduling", Phase::Pending)]
    {
        let mut world = World::new();
        world.object["status"] = json!({"phase": phase});
        world.look();
        assert_eq!(Instance::of(&world.object).phase(), after, "{phase}");
    }
}

#[test]
fn drift_a_pause_and_a_lost_node_are_seen() {
    let mut world = World::new();
    world.booked = Some("node-a".into());
    world.pod = Some(pod(PodPhase::Running));
    let mut drifted = report(GuestPhase::Paused, "drifted");
    drifted.mismatches = (0..7).map(|n| format!("vcpu {n} may run on 0-1")).collect();
    world.report = Some(drifted);
    let next = world.look();
    let found = conditions(&next.status);
    assert_eq!(
        found,
        ["Ready=True/", "PodScheduled=True/", "Deterministic=False/Drifted", "Paused=True/PausedByUser"]
    );
    let message = next.status["conditions"][2]["message"].as_str().unwrap();
    assert!(message.ends_with("; vcpu 4 may run on 0-1; and 2 more"), "{message}");
    world.node_trouble = Some("node node-a is not ready".into());
    assert_eq!(conditions(&world.look().status)[0], "Ready=False/NodeNotReady");
    assert_eq!(Instance::of(&world.object).phase(), Phase::Running);
}

#[test]
fn an_image_that_cannot_be_had_and_a_spec_of_older_rules_are_told() {
    let mut world = World::new();
    world.booked = Some("node-a".into());
    let mut waiting = pod(PodPhase::Pending);
    waiting.trouble = Some(PodTrouble::Image("ImagePullBackOff".into(), "no such image".into()));
    world.pod = Some(waiting);
    let found = conditions(&world.look().status);
    assert!(found.contains(&"Synchronized=False/ImagePullBackOff".to_owned()), "{found:?}");
    let mut without = World::new();
    without.missing_claim = Some("data".into());
    let next = without.look();
    assert_eq!((next.steps.len(), next.status["phase"].as_str().unwrap()), (0, "Pending"));
    assert!(conditions(&next.status).contains(&"Synchronized=False/FailedPvcNotFound".to_owned()));
    let mut old = World::new();
    old.object["spec"]["colour"] = "red".into();
    let next = old.look();
    assert_eq!(next.steps, []);
    assert_eq!(next.status["reason"], "InvalidSpec");
    old.delete();
    assert_eq!(old.look().steps, [Step::DropFinalizer]);
}
