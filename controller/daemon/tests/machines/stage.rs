//! A cluster of one node, and Pinion on it by its manifests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pinion_lab::Lab;
use pinion_lab_cluster::{Cluster, Options};

use crate::images::{LATER, VERSIONS, images};

/// Long enough for a guest in a pod of an emulated node of a busy machine.
const LONG: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);

/// What the device plugin offers.
const DEVICES: &str = "apiVersion: pinion.dev/v1alpha1\nkind: DeviceResources\nresources:\n\
    - name: example.com/edu\n  select: [{vendor: \"1234\", device: \"11e8\", node: 1}]\n";

/// The manifests as somebody has them who keeps images elsewhere.
const OVERLAY: &str = "
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [BASE]
images:
  - {name: pinion.dev/pinion, newTag: VERSION}
  - {name: pinion.dev/controller, newTag: VERSION}
patches:
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: pinion-controller, namespace: pinion-system}
      spec:
        template:
          spec:
            containers:
              - name: controller
                env:
                  - {name: LAUNCHER_IMAGE, value: 'pinion.dev/launcher:VERSION'}
                  - {name: LIBVIRT_LAUNCHER_IMAGE, value: 'pinion.dev/launcher-libvirt:VERSION'}
";

/// What can be killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Victim {
    Agent,
    Kubelet,
    Server,
    Controllers,
}

impl Victim {
    pub(crate) const ALL: [Self; 4] = [Self::Agent, Self::Kubelet, Self::Server, Self::Controllers];
}

/// The cluster, and the files for it.
pub(crate) struct Stage {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::of_nodes(1, &folder.path().join("cluster"));
        options.files = images(folder.path());
        let devices = folder.path().join("devices.yaml");
        fs::write(&devices, DEVICES).unwrap();
        options.files.push(("/etc/pinion/devices.yaml".into(), devices));
        let told =
            |what: &str, after: Duration| println!("machines: {what} after {:.1} s", after.as_secs_f32());
        let cluster = Cluster::up(&options, &mut { told }).unwrap();
        let stage = Self { cluster, folder };
        stage.sh("for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) = 0x11e8 ] || continue
            echo vfio-pci > $d/driver_override; echo ${d##*/} > /sys/bus/pci/drivers_probe; done");
        for image in ["pinion", "controller", "launcher"] {
            let [now, next] = VERSIONS.map(|version| format!("pinion.dev/{image}:{version}"));
            stage.sh(&format!("ctr -n k8s.io images tag {now} {next}"));
        }
        stage.sh(&format!(
            "setsid ctr -n k8s.io images import --platform linux/amd64 {LATER} > /dev/null 2>&1 < /dev/null &"
        ));
        stage
    }

    /// Waits for the image that is imported meanwhile.
    pub(crate) fn imported(&self, image: &str) {
        let began = Instant::now();
        while self.sh(&format!("ctr -n k8s.io images list -q name=={image}")).trim() != image {
            assert!(began.elapsed() < LONG, "{image} is not imported");
            std::thread::sleep(Duration::from_secs(1));
        }
        println!("machines: {image} imported after {:.1} s", began.elapsed().as_secs_f32());
    }

    /// The manifests of a version, on top of those of a commit or of this tree.
    pub(crate) fn overlay(&self, name: &str, version: &str, manifests: &Path) -> String {
        let folder = self.folder.path().join(name);
        let base = folder.join("base");
        fs::create_dir_all(&base).unwrap();
        copied(manifests, &base);
        let over = folder.join("over");
        fs::create_dir_all(&over).unwrap();
        let text = OVERLAY.replace("BASE", "../base").replace("VERSION", version);
        fs::write(over.join("kustomization.yaml"), text).unwrap();
        over.display().to_string()
    }

    /// Installs or upgrades, and waits until all of it is there.
    pub(crate) fn install(&self, overlay: &str) {
        self.until(&["apply", "--server-side", "-k", overlay], |said| {
            said.contains("pinion-controller serverside-applied")
        });
        for part in
            ["daemonset/pinion-device-plugin", "daemonset/pinion-agent", "deployment/pinion-controller"]
        {
            let rolled = ["rollout", "status", "-n", "pinion-system", part, "--timeout=20s"];
            self.until(&rolled, |said| said.contains("successfully rolled out"));
        }
    }

    /// Applies documents until the API server takes them: its webhook may be away.
    pub(crate) fn apply(&self, text: &str) {
        let file = self.folder.path().join("applied.yaml");
        fs::write(&file, text).unwrap();
        self.until(&["apply", "-f", &file.display().to_string()], |said| {
            !said.contains("error") && !said.contains("rror from server")
        });
    }

    pub(crate) fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(words).map_err(|error| error.to_string())
    }

    /// One field, by its JSON path.
    pub(crate) fn field(&self, what: &[&str], path: &str) -> String {
        let path = format!("jsonpath={path}");
        let words = [&["get"], what, &["-o", &path]].concat();
        self.kubectl(&words).unwrap_or_else(|error| error)
    }

    pub(crate) fn node(&self) -> &Lab {
        &self.cluster.nodes()[0]
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        let done = self.node().sh(script, SOON).unwrap();
        assert!(done.success(), "`{script}`: {}{}", done.text(), done.error_text());
        done.text()
    }

    /// Kills it, with no time to say anything. What starts a kubelet anew is not ours.
    pub(crate) fn kill(&mut self, victim: Victim) {
        println!("machines: killed: {victim:?}");
        match victim {
            Victim::Agent => drop(self.sh("kill -9 $(pgrep -f '[p]inion agent') || true")),
            Victim::Controllers => drop(self.sh("kill -9 $(pgrep -f '[p]inion-controller') || true")),
            Victim::Kubelet => {
                self.sh("kill -9 $(pidof kubelet); while pidof kubelet > /dev/null; do sleep 0.1; done; start-kubelet");
            }
            Victim::Server => self.cluster.restart_server().unwrap(),
        }
    }

    pub(crate) fn until(&self, words: &[&str], is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let said = self.kubectl(words).unwrap_or_else(|error| error);
            if is_so(&said) {
                println!("machines: {:.90} after {:.1} s", words.join(" "), began.elapsed().as_secs_f32());
                return said;
            }
            assert!(began.elapsed() < LONG, "{words:?}: {said}\n{}", self.all());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until a script on the node prints that.
    pub(crate) fn until_said(&self, script: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let said = self.sh(script);
            if said == wanted {
                return;
            }
            assert!(began.elapsed() < SOON, "`{script}`: {said}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// What people would look at first.
    fn all(&self) -> String {
        let words = [
            &["get", "vm,vmi,pods", "-A", "-o", "wide"][..],
            &["get", "vmi", "-o", "yaml"],
            &["get", "nodeledgers", "-o", "yaml"],
            &["get", "events", "-A"],
            &["logs", "-n", "pinion-system", "-l", "app.kubernetes.io/part-of=pinion", "--tail=40"],
            &["logs", "-l", "kubevirt.io=virt-launcher", "--tail=60"],
        ];
        let said = words.map(|words| self.kubectl(words).unwrap_or_else(|error| error)).join("\n");
        let log = self.node().sh("tail -n 30 /var/log/kubelet.log", SOON);
        format!("{said}\n{}", log.map(|done| done.text()).unwrap_or_default())
    }
}

/// This tree's manifests.
pub(crate) fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

/// Those of the commit before, where there is one: a checkout may be without history.
pub(crate) fn manifests_before(folder: &Path) -> Option<PathBuf> {
    let script = "git archive HEAD~1 manifests | tar -x -C \"$0\"";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let done =
        Command::new("bash").args(["-o", "pipefail", "-c", script]).arg(folder).current_dir(root).output();
    let found = folder.join("manifests");
    (done.is_ok_and(|done| done.status.success()) && found.is_dir()).then_some(found)
}

fn copied(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from.join(".")).arg(to).status().unwrap();
    assert!(done.success(), "{}", from.display());
}

impl Stage {
    /// Brought up with what the commit before had, else with what this one has.
    pub(crate) fn installed() -> Self {
        let stage = Self::up();
        let folder = tempfile::tempdir().unwrap();
        let before = manifests_before(folder.path()).unwrap_or_else(|| {
            println!("machines: upgraded from its own manifests: this checkout has no commit before");
            manifests()
        });
        let overlay = stage.overlay("before", VERSIONS[0], &before);
        stage.install(&overlay);
        stage
    }
}
