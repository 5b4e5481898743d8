//! Machines: run strategies, requests by hand, failures.

use serde_json::{Value, json};

use super::{at, conditions, instance_object, spec};
use crate::instance::Instance;
use crate::machine::{Machine, Next, Seen, Step, next};

fn machine_object(strategy: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "uid-of-machine", "generation": 3,
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
        "spec": {
            "runStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "web"}, "creationTimestamp": null}, "spec": spec()},
        },
    })
}

/// A machine, its instance, and their story.
struct World {
    machine: Value,
    instance: Option<Value>,
    clock: i64,
    made: u32,
}

impl World {
    fn new(strategy: &str) -> Self {
        Self { machine: machine_object(strategy), instance: None, clock: 0, made: 0 }
    }

    fn look(&mut self) -> Next {
        self.clock += 1;
        let machine = Machine::of(&self.machine);
        let instance = self.instance.as_ref().map(Instance::of);
        let next = next(Seen { machine: &machine, instance: instance.as_ref() }, at(self.clock));
        self.machine["status"] = next.status.clone();
        next
    }

    /// Looks, and does what is to be done; how it is printed then.
    fn act(&mut self) -> String {
        let next = self.look();
        for step in &next.steps {
            match step {
                Step::CreateInstance(object) => {
                    assert!(self.instance.is_none(), "a second instance");
                    self.made += 1;
                    let mut object = object.clone();
                    object["metadata"]["uid"] = format!("instance-{}", self.made).into();
                    self.instance = Some(object);
                }
                Step::DeleteInstance(uid) => {
                    assert_eq!(self.instance.as_ref().unwrap()["metadata"]["uid"], uid.as_str());
                    self.instance = None;
                }
                Step::DropFinalizer => self.machine["metadata"]["finalizers"] = json!([]),
                Step::LookAgain(_) => {}
            }
        }
        next.status["printableStatus"].as_str().unwrap().to_owned()
    }

    /// The instance comes to a phase, having run for that many seconds.
    fn comes_to(&mut self, phase: &str, ran: i64) {
        let now = at(self.clock);
        let mut transitions =
            vec![json!({"phase": "Pending", "phaseTransitionTimestamp": at(0).to_string()})];
        if ran > 0 || phase == "Running" {
            let began = at(self.clock - ran).to_string();
            transitions.push(json!({"phase": "Running", "phaseTransitionTimestamp": began}));
        }
        if phase != "Running" {
            transitions.push(json!({"phase": phase, "phaseTransitionTimestamp": now.to_string()}));
        }
        let status = json!({"phase": phase, "phaseTransitionTimestamps": transitions, "conditions": []});
        self.instance.as_mut().unwrap()["status"] = status;
    }

    /// A condition of the machine.
    fn condition(&self, kind: &str) -> Value {
        let list = self.machine["status"]["conditions"].as_array().unwrap();
        list.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
    }
}

#[test]
fn an_instance_is_made_as_the_template_says_and_is_the_machines() {
    let mut world = World::new("Always");
    let next = world.look();
    let [Step::CreateInstance(made)] = next.steps.as_slice() else { panic!("{next:?}") };
    assert_eq!(made["metadata"]["name"], "web");
    assert_eq!(made["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "uid-of-machine");
    assert_eq!(made["spec"], spec());
    assert_eq!(next.status["printableStatus"], "Starting");
    assert_eq!(
        (&next.status["observedGeneration"], &next.status["runStrategy"]),
        (&json!(3), &json!("Always"))
    );
    assert_eq!(conditions(&next.status), ["Ready=False/VMINotExists"]);
}

#[test]
fn each_run_strategy_does_what_kubevirt_says() {
    // After: it powered itself off, it failed after a while.
    for (strategy, starts, off, failed) in [
        ("Always", true, 2, 3),
        ("RerunOnFailure", true, 1, 2),
        ("Once", true, 1, 1),
        ("Manual", false, 0, 0),
        ("Halted", false, 0, 0),
    ] {
        let mut world = World::new(strategy);
        world.act();
        assert_eq!(world.instance.is_some(), starts, "{strategy}");
        for (phase, made) in [("Succeeded", off), ("Failed", failed)] {
            if world.instance.is_some() {
                world.clock += 100;
                world.comes_to(phase, 60);
                world.act();
                world.act();
            }
            assert_eq!(world.made, made, "{strategy} after {phase}");
        }
    }
}

#[test]
fn who_ran_once_does_not_run_again_even_if_his_instance_is_deleted() {
    let mut world = World::new("Once");
    world.act();
    world.act();
    world.instance = None;
    assert_eq!(world.act(), "Stopped");
    assert_eq!(world.made, 1);
}

#[test]
fn halting_deletes_and_running_true_is_always() {
    let mut world = World::new("Always");
    world.act();
    world.comes_to("Running", 1);
    assert_eq!(world.act(), "Running");
    world.machine["spec"]["runStrategy"] = "Halted".into();
    assert_eq!(world.act(), "Stopping");
    assert_eq!(world.act(), "Stopped");
    let spec = world.machine["spec"].as_object_mut().unwrap();
    spec.remove("runStrategy");
    spec.insert("running".into(), true.into());
    assert_eq!(world.act(), "Starting");
    assert_eq!(world.made, 2);
}

#[test]
fn start_stop_and_restart_by_hand() {
    let mut world = World::new("Manual");
    assert_eq!(world.act(), "Stopped");
    world.machine["status"]["stateChangeRequests"] = json!([{"action": "Start"}]);
    assert_eq!(world.act(), "Starting");
    world.comes_to("Running", 1);
    assert_eq!(world.act(), "Running");
    assert_eq!(world.machine["status"]["stateChangeRequests"], Value::Null);
    // A restart is a stop of this instance, then a start.
    world.machine["status"]["stateChangeRequests"] =
        json!([{"action": "Stop", "uid": "instance-1"}, {"action": "Start"}]);
    assert_eq!(world.act(), "Stopping");
    assert_eq!(world.act(), "Starting");
    assert_eq!((world.made, world.act().as_str()), (2, "Starting"));
    assert_eq!(world.machine["status"]["stateChangeRequests"], Value::Null);
    // A stop of one that is gone stops nobody else.
    world.machine["status"]["stateChangeRequests"] = json!([{"action": "Stop", "uid": "instance-1"}]);
    world.act();
    assert!(world.instance.is_some());
    world.machine["status"]["stateChangeRequests"] = json!([{"action": "Stop", "uid": "instance-2"}]);
    assert_eq!(world.act(), "Stopping");
    assert_eq!(world.act(), "Stopped");
}

#[test]
fn who_fails_to_start_waits_longer_each_time_until_he_runs() {
    let mut world = World::new("Always");
    let mut pauses = Vec::new();
    for failures in 1..=7 {
        world.act();
        world.comes_to("Failed", 0);
        let instance = world.instance.as_mut().unwrap();
        instance["status"]["reason"] = "NotArmed".into();
        instance["status"]["conditions"] =
            json!([{"type": "Ready", "status": "False", "reason": "NotArmed", "message": "no such image"}]);
        assert_eq!(world.act(), "CrashLoopBackOff");
        let failure = &world.machine["status"]["startFailure"];
        assert_eq!(failure["consecutiveFailCount"], failures);
        let retry: jiff::Timestamp = failure["retryAfterTimestamp"].as_str().unwrap().parse().unwrap();
        let pause = retry.duration_since(at(world.clock)).as_secs();
        pauses.push(pause);
        assert_eq!(world.act(), "CrashLoopBackOff");
        assert!(world.instance.is_none());
        // Whoever asks afterwards learns why.
        let said = world.condition("Failure");
        assert_eq!((&said["reason"], &said["message"]), (&"NotArmed".into(), &"no such image".into()));
        world.clock += pause;
    }
    assert_eq!(pauses, [10, 40, 90, 160, 250, 300, 300]);
    world.act();
    world.comes_to("Running", 0);
    world.act();
    assert_eq!(world.machine["status"]["startFailure"]["consecutiveFailCount"], 7);
    world.clock += 20;
    world.act();
    assert_eq!(world.machine["status"]["startFailure"], Value::Null);
    assert_eq!(world.condition("Failure"), Value::Null);
}

#[test]
fn a_deleted_machine_waits_for_its_instance() {
    let mut world = World::new("Always");
    world.act();
    world.machine["metadata"]["deletionTimestamp"] = "2026-11-22T11:00:00Z".into();
    assert_eq!(world.act(), "Terminating");
    assert!(world.instance.is_none());
    assert_eq!(
        world.machine["metadata"]["finalizers"],
        json!(["kubevirt.io/virtualMachineControllerFinalize"])
    );
    assert_eq!(world.act(), "Terminating");
    assert_eq!(world.machine["metadata"]["finalizers"], json!([]));
    assert_eq!(world.look().steps, []);
}

#[test]
fn somebody_elses_instance_of_its_name_is_left_alone() {
    let mut world = World::new("Always");
    world.instance = Some(instance_object("web"));
    let next = world.look();
    assert_eq!((next.steps.len(), next.events[0].reason), (0, "FailedCreate"));
    assert_eq!(conditions(&next.status), ["Ready=False/VMINotExists", "Failure=True/FailedCreate"]);
    world.machine["metadata"]["deletionTimestamp"] = "2026-11-22T11:00:00Z".into();
    assert_eq!(world.look().steps, [Step::DropFinalizer]);
}

#[test]
fn a_changed_template_asks_for_a_restart_and_conditions_are_the_instances() {
    let mut world = World::new("Always");
    world.act();
    world.comes_to("Running", 1);
    world.instance.as_mut().unwrap()["status"]["conditions"] = json!([
        {"type": "Ready", "status": "True"},
        {"type": "Deterministic", "status": "False", "reason": "Drifted", "message": "m"},
    ]);
    let next = world.look();
    assert_eq!(conditions(&next.status), ["Ready=True/", "Deterministic=False/Drifted"]);
    assert_eq!(next.status["ready"], true);
    world.machine["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] = 4.into();
    let found = conditions(&world.look().status);
    assert!(found.contains(&"RestartRequired=True/TemplateChanged".to_owned()), "{found:?}");
}

#[test]
fn what_keeps_an_instance_from_starting_is_printed() {
    for (condition, printed) in [
        (json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}), "ErrorUnschedulable"),
        (json!({"type": "Synchronized", "status": "False", "reason": "ErrImagePull"}), "ErrImagePull"),
        (
            json!({"type": "Synchronized", "status": "False", "reason": "ImagePullBackOff"}),
            "ImagePullBackOff",
        ),
        (
            json!({"type": "Synchronized", "status": "False", "reason": "FailedPvcNotFound"}),
            "ErrorPvcNotFound",
        ),
        (json!({"type": "PodScheduled", "status": "True"}), "Starting"),
        (json!({"type": "Paused", "status": "True"}), "Paused"),
    ] {
        let mut world = World::new("Always");
        world.act();
        world.instance.as_mut().unwrap()["status"] =
            json!({"phase": "Scheduling", "conditions": [condition]});
        assert_eq!(world.act(), printed);
    }
}
