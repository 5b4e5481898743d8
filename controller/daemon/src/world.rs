//! What there is, as the watches have told it: kept in memory, and told from object to object whom it concerns.
//!
//! Written by the watchers' tasks, read by the workers. It must never ask the API server.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pinion_reconcile::instance::Instance;
use pinion_reconcile::machine::Machine;
use pinion_reconcile::pod::PodView;
use pinion_reconcile::replica_set::ReplicaSet;
use pinion_reconcile::{Meta, replica_set};
use serde_json::Value;

use crate::kinds::Kind;
use crate::queue::Key;

/// Namespace and name.
pub(crate) type Name = (String, String);

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct World {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    machines: HashMap<Name, Arc<Machine>>,
    instances: HashMap<Name, Arc<Instance>>,
    sets: HashMap<Name, Arc<ReplicaSet>>,
    pods: HashMap<Name, Arc<PodView>>,
    /// Pods and instances by the identity of what manages them.
    owned: HashMap<String, BTreeSet<Name>>,
}

fn name_of(meta: &Meta) -> Name {
    (meta.namespace.clone(), meta.name.clone())
}

fn key(kind: Kind, (namespace, name): &Name) -> Key {
    Key { kind, namespace: namespace.clone(), name: name.clone() }
}

impl World {
    /// An object is as it says; whom that concerns.
    pub(crate) fn apply(&self, kind: Kind, object: &Value) -> Vec<Key> {
        self.put(kind, object, Said::ByTheWatch)
    }

    /// An object was made, and this was the answer; whom that concerns. What a watch has said of it meanwhile is newer, and is
    /// not said again.
    pub(crate) fn made(&self, kind: Kind, object: &Value) -> Vec<Key> {
        self.put(kind, object, Said::ByTheAnswer)
    }

    fn put(&self, kind: Kind, object: &Value, said: Said) -> Vec<Key> {
        // Read before the lock is taken: that is most of the work.
        let mut state;
        match kind {
            Kind::Machine => {
                let machine = Arc::new(Machine::of(object));
                state = self.write();
                let name = name_of(&machine.meta);
                state.machines.insert(name.clone(), machine);
                vec![key(kind, &name)]
            }
            Kind::ReplicaSet => {
                let set = Arc::new(ReplicaSet::of(object));
                state = self.write();
                let name = name_of(&set.meta);
                state.sets.insert(name.clone(), set);
                vec![key(kind, &name)]
            }
            Kind::Instance => {
                let instance = Arc::new(Instance::of(object));
                state = self.write();
                let concerned = state.concerned_by_instance(&instance.meta);
                let known = state.instances.get(&name_of(&instance.meta)).map(|known| &known.meta);
                if !said.is_older(&instance.meta, known) {
                    state.own(&instance.meta);
                    state.instances.insert(name_of(&instance.meta), instance);
                }
                concerned
            }
            Kind::Pod => {
                let pod = Arc::new(PodView::of(object));
                state = self.write();
                let concerned = concerned_by_pod(&pod.meta);
                let known = state.pods.get(&name_of(&pod.meta)).map(|known| &known.meta);
                if !said.is_older(&pod.meta, known) {
                    state.own(&pod.meta);
                    state.pods.insert(name_of(&pod.meta), pod);
                }
                concerned
            }
            _ => Vec::new(),
        }
    }

    /// An object is gone; whom that concerns.
    pub(crate) fn remove(&self, kind: Kind, name: &Name) -> Vec<Key> {
        let mut state = self.write();
        match kind {
            Kind::Machine => {
                state.machines.remove(name);
                Vec::new()
            }
            Kind::ReplicaSet => {
                state.sets.remove(name);
                Vec::new()
            }
            Kind::Instance => {
                let Some(instance) = state.instances.remove(name) else { return Vec::new() };
                state.disown(&instance.meta);
                state.concerned_by_instance(&instance.meta)
            }
            Kind::Pod => {
                let Some(pod) = state.pods.remove(name) else { return Vec::new() };
                state.disown(&pod.meta);
                concerned_by_pod(&pod.meta)
            }
            _ => Vec::new(),
        }
    }

    /// Names of all objects of a kind.
    #[must_use]
    pub(crate) fn names(&self, kind: Kind) -> BTreeSet<Name> {
        let state = self.read();
        match kind {
            Kind::Machine => state.machines.keys().cloned().collect(),
            Kind::Instance => state.instances.keys().cloned().collect(),
            Kind::ReplicaSet => state.sets.keys().cloned().collect(),
            Kind::Pod => state.pods.keys().cloned().collect(),
            _ => BTreeSet::new(),
        }
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub(crate) fn count(&self, kind: Kind) -> usize {
        let state = self.read();
        match kind {
            Kind::Machine => state.machines.len(),
            Kind::Instance => state.instances.len(),
            Kind::ReplicaSet => state.sets.len(),
            Kind::Pod => state.pods.len(),
            _ => 0,
        }
    }

    /// A machine, and the instance of its name.
    #[must_use]
    pub(crate) fn machine(&self, name: &Name) -> Option<(Arc<Machine>, Option<Arc<Instance>>)> {
        let state = self.read();
        Some((state.machines.get(name)?.clone(), state.instances.get(name).cloned()))
    }

    /// An instance, and its pod: of several the one that lives, then the youngest.
    #[must_use]
    pub(crate) fn instance(&self, name: &Name) -> Option<(Arc<Instance>, Option<Arc<PodView>>)> {
        let state = self.read();
        let instance = state.instances.get(name)?.clone();
        let owned = state.owned.get(&instance.meta.uid).into_iter().flatten();
        let pods = owned.filter_map(|name| state.pods.get(name));
        let pod =
            pods.max_by_key(|pod| (pod.meta.deleted.is_none(), !pod.is_over(), pod.meta.created)).cloned();
        Some((instance, pod))
    }

    /// A replica set, and its instances.
    #[must_use]
    pub(crate) fn replica_set(&self, name: &Name) -> Option<(Arc<ReplicaSet>, Vec<Arc<Instance>>)> {
        let state = self.read();
        let set = state.sets.get(name)?.clone();
        let owned = state.owned.get(&set.meta.uid).into_iter().flatten();
        Some((Arc::clone(&set), owned.filter_map(|name| state.instances.get(name)).cloned().collect()))
    }

    /// Identities of all instances.
    #[must_use]
    pub(crate) fn instance_uids(&self) -> BTreeSet<String> {
        self.read().instances.values().map(|instance| instance.meta.uid.clone()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who says how an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    ByTheWatch,
    ByTheAnswer,
}

impl Said {
    /// Whether it is older than what is known of the same object: an answer is how the object was when it was made.
    fn is_older(self, meta: &Meta, known: Option<&Meta>) -> bool {
        self == Self::ByTheAnswer && known.is_some_and(|known| known.uid == meta.uid)
    }
}

fn concerned_by_pod(meta: &Meta) -> Vec<Key> {
    let owner = meta.owner.iter().filter(|owner| owner.kind == pinion_reconcile::instance::KIND);
    owner.map(|owner| key(Kind::Instance, &(meta.namespace.clone(), owner.name.clone()))).collect()
}

impl State {
    /// It, who manages it, and the machine of its name, which waits for the name.
    fn concerned_by_instance(&self, meta: &Meta) -> Vec<Key> {
        let name = name_of(meta);
        let mut concerned = vec![key(Kind::Instance, &name)];
        if self.machines.contains_key(&name) {
            concerned.push(key(Kind::Machine, &name));
        }
        if let Some(owner) = meta.owner.as_ref().filter(|owner| owner.kind == replica_set::KIND) {
            concerned.push(key(Kind::ReplicaSet, &(meta.namespace.clone(), owner.name.clone())));
        }
        concerned
    }

    fn own(&mut self, meta: &Meta) {
        if let Some(owner) = &meta.owner {
            self.owned.entry(owner.uid.clone()).or_default().insert(name_of(meta));
        }
    }

    fn disown(&mut self, meta: &Meta) {
        let Some(owner) = &meta.owner else { return };
        if let Some(owned) = self.owned.get_mut(&owner.uid) {
            owned.remove(&name_of(meta));
            if owned.is_empty() {
                self.owned.remove(&owner.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, owner: Option<(&str, &str)>) -> Value {
        let mut object = json!({
            "apiVersion": "kubevirt.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "default", "uid": format!("{kind}-{name}")},
        });
        if let Some((kind, name)) = owner {
            let uid = format!("{kind}-{name}");
            object["metadata"]["ownerReferences"] =
                json!([{"kind": kind, "name": name, "uid": uid, "controller": true}]);
        }
        object
    }

    fn named(keys: &[Key]) -> Vec<String> {
        keys.iter().map(|key| format!("{}/{}", key.kind.plural(), key.name)).collect()
    }

    #[test]
    fn an_object_concerns_itself_and_who_manages_it() {
        let world = World::default();
        let name: Name = ("default".into(), "a".into());
        assert_eq!(
            named(&world.apply(Kind::Machine, &object("VirtualMachine", "a", None))),
            ["virtualmachines/a"]
        );
        let owned = object("VirtualMachineInstance", "a", Some(("VirtualMachine", "a")));
        assert_eq!(
            named(&world.apply(Kind::Instance, &owned)),
            ["virtualmachineinstances/a", "virtualmachines/a"]
        );
        let pod = object("Pod", "virt-launcher-a", Some(("VirtualMachineInstance", "a")));
        assert_eq!(named(&world.apply(Kind::Pod, &pod)), ["virtualmachineinstances/a"]);
        assert_eq!(world.instance(&name).unwrap().1.unwrap().meta.name, "virt-launcher-a");
        assert!(world.machine(&name).unwrap().1.is_some());
        let gone = world.remove(Kind::Pod, &("default".into(), "virt-launcher-a".into()));
        assert_eq!(named(&gone), ["virtualmachineinstances/a"]);
        assert!(world.instance(&name).unwrap().1.is_none());
        assert_eq!(
            named(&world.remove(Kind::Instance, &name)),
            ["virtualmachineinstances/a", "virtualmachines/a"]
        );
        assert_eq!(world.remove(Kind::Instance, &name), []);
        assert!(world.machine(&name).unwrap().1.is_none());
    }

    /// Under load, a pod can be bound and run before whoever made it has the answer.
    #[test]
    fn an_answer_does_not_take_back_what_the_watch_has_said_since() {
        let world = World::default();
        let name: Name = ("default".into(), "a".into());
        let owned = object("VirtualMachineInstance", "a", None);
        world.made(Kind::Instance, &owned);
        let made = object("Pod", "virt-launcher-a", Some(("VirtualMachineInstance", "a")));
        let mut bound = made.clone();
        bound["spec"]["nodeName"] = "node-a".into();
        let node = || world.instance(&name).unwrap().1.unwrap().node.clone();
        world.apply(Kind::Pod, &bound);
        assert_eq!(named(&world.made(Kind::Pod, &made)), ["virtualmachineinstances/a"]);
        assert_eq!(node().as_deref(), Some("node-a"));
        // One of the same name that came after it is another.
        let mut next = made;
        next["metadata"]["uid"] = "another".into();
        world.made(Kind::Pod, &next);
        assert_eq!(node(), None);
    }

    #[test]
    fn a_sets_instances_are_its_own() {
        let world = World::default();
        let set: Name = ("default".into(), "s".into());
        world.apply(Kind::ReplicaSet, &object("VirtualMachineInstanceReplicaSet", "s", None));
        for name in ["s-1", "s-2"] {
            let owner = Some(("VirtualMachineInstanceReplicaSet", "s"));
            let keys = world.apply(Kind::Instance, &object("VirtualMachineInstance", name, owner));
            assert_eq!(keys[1], key(Kind::ReplicaSet, &set));
        }
        world.apply(Kind::Instance, &object("VirtualMachineInstance", "other", None));
        assert_eq!(world.replica_set(&set).unwrap().1.len(), 2);
        assert_eq!(world.names(Kind::Instance).len(), 3);
        assert_eq!(world.instance_uids().len(), 3);
    }
}
