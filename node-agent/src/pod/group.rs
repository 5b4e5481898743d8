//! What a control group's path says of a pod. Pure.
//!
//! The kubelet names the groups of pods by its cgroup driver, and container runtimes those of containers:
//!
//! ```text
//! systemd   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope
//!           …/crio-<id>.scope, and perhaps a group below it
//! cgroupfs  /kubepods/burstable/pod<uid>/<id>
//! ```
//!
//! Both may be below other groups.

use std::path::{Component, Path, PathBuf};

/// Longest name of a pod's group that is looked at.
const LONGEST_UID: usize = 64;
/// Groups of this program begin so: they are no part of the container's path.
const OWN: &str = "pinion.";

/// The control group of a pod's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodGroup {
    /// The pod's unique id.
    pub(super) uid: String,
    /// The pod's group, from the root of control groups.
    pub(super) pod: PathBuf,
    /// The group of the process, from the root of control groups.
    pub(super) group: PathBuf,
}

/// What `/proc/PID/cgroup` says: the group of version 2.
pub(super) fn path_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// The pod's group on a path, if there is one. The first counts: below it, a container may make groups as it likes.
pub(super) fn parse(path: &str) -> Option<PodGroup> {
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            // Outside of what this process sees.
            _ => return None,
        }
    }
    let at = (0..names.len()).find(|i| names.get(*i).is_some_and(|n| uid(n, names.get(..*i)).is_some()))?;
    let uid = uid(names.get(at)?, names.get(..at))?;
    let own = names.iter().position(|name| name.starts_with(OWN)).unwrap_or(names.len());
    let group: PathBuf = names.get(..own)?.iter().collect();
    // A process of the pod is in a container's group, never in the pod's.
    (own > at + 1).then(|| PodGroup { uid, pod: names.iter().take(at + 1).collect(), group })
}

/// The unique id of a pod whose group has this name, below those.
fn uid(name: &str, above: Option<&[&str]>) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(name) => {
            let (prefix, uid) = name.rsplit_once("-pod")?;
            prefix.split('-').any(|part| part == "kubepods").then(|| uid.replace('_', "-"))?
        }
        None => {
            let below = above?.contains(&"kubepods");
            name.strip_prefix("pod").filter(|_| below)?.to_owned()
        }
    };
    let is_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    (!uid.is_empty() && uid.len() <= LONGEST_UID && uid.chars().all(is_id)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c2c4ce4-9d43-4c9b-8b8e-3a6f4e0c8d11";

    fn uid_of(path: &str) -> Option<String> {
        parse(path).map(|g| g.uid)
    }

    #[test]
    fn each_driver_and_runtime_is_understood() {
        let systemd = "0c2c4ce4_9d43_4c9b_8b8e_3a6f4e0c8d11";
        for path in [
            format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-ab12.scope"
            ),
            format!("kubepods.slice/kubepods-pod{systemd}.slice/crio-ab12.scope"),
            format!("kubepods.slice/kubepods-pod{systemd}.slice/crio-ab12.scope/container"),
            format!(
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{systemd}.slice/docker-ab12.scope"
            ),
            format!("kubepods/burstable/pod{UID}/ab12"),
            format!("kubepods/pod{UID}/ab12"),
            format!("kubelet/kubepods/besteffort/pod{UID}/ab12"),
        ] {
            assert_eq!(uid_of(&path).as_deref(), Some(UID), "{path}");
        }
        let of_a_file = "kubepods/burstable/pod61b4db27a1f8d2a1b4f6a4f4aa0b5a7c/ab12";
        assert_eq!(uid_of(of_a_file).as_deref(), Some("61b4db27a1f8d2a1b4f6a4f4aa0b5a7c"));
    }

    #[test]
    fn what_is_no_container_of_a_pod_is_none() {
        for path in [
            "",
            "system.slice/ssh.service",
            "user.slice/user-1000.slice/pod12/ab",
            "kubepods/burstable",
            "kubepods/pod12",
            "kubepods/pod12/pinion.cpus-2",
            "kubepods/podzz/ab",
            "kubepods/pod/ab",
            "../kubepods/pod12/ab",
            "system.slice/x-pod12.slice/ab",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_first_pod_counts_and_own_groups_do_not() {
        let found = parse("kubepods/pod12/ab/kubepods/pod34/cd").unwrap();
        assert_eq!((found.uid.as_str(), found.pod.as_path()), ("12", Path::new("kubepods/pod12")));
        let found = parse("kubepods/pod12/ab/pinion.cpus-2").unwrap();
        assert_eq!(found.group, Path::new("kubepods/pod12/ab"));
    }

    #[test]
    fn the_group_of_version_2_is_the_one_that_counts() {
        assert_eq!(path_of("12:cpuset:/a\n1:name=systemd:/b\n0::/c/d\n"), Some("c/d"));
        assert_eq!(path_of("12:cpuset:/a\n"), None);
    }
}
