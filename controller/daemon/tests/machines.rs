//! A virtual machine on a real kubelet: from `kubectl apply` to a guest that answers through a Service.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pinion_controller::{Options, Way, run};
use pinion_lab::{Cache, Kernel, Lab, Programs, guest_initrd};
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options as ClusterOptions};
use pinion_oci::Image;
use tokio::runtime::{Builder, Runtime};

/// Long enough for a guest in a pod of an emulated node of a busy machine.
const LONG: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(60);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Gets its address, serves a page, and stays until the power button.
const SCRIPT: &str = r#"
cat > /tmp/bound <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "ADDRESS $ip"
END
chmod +x /tmp/bound
ip link set eth0 up
udhcpc -i eth0 -q -n -t 20 -s /tmp/bound
mkdir /www && echo "HELLO of $(grep -c ^processor /proc/cpuinfo) CPUs" > /www/index.html
httpd -p 80 -h /www
modprobe -a button evdev 2> /dev/null
(head -c 1 /dev/input/event0 > /dev/null; poweroff -f) &
echo SERVING
while true; do sleep 1; done
"#;

/// One core to itself, 2 MiB pages, and the pod's network.
const MACHINE: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web}
spec:
  runStrategy: Always
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 60
      domain:
        cpu: {cores: 1, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
        memory: {guest: 128Mi, hugepages: {pageSize: 2Mi}}
        firmware:
          kernelBoot:
            kernelArgs: quiet console=ttyS0 tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests
            container: {image: pinion.dev/lab/guest:1, kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd, imagePullPolicy: Never}
        devices:
          interfaces: [{name: default, masquerade: {}, ports: [{port: 80}]}]
      networks: [{name: default, pod: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

fn manifests(of: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(of).display().to_string()
}

/// The images that nodes have: the agent's, the launcher's, and the guest's kernel.
fn images(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let programs = Programs::built().unwrap();
    let program = |image: &str, name: &str| {
        Image::of_program(
            &format!("pinion.dev/{image}:{VERSION}"),
            &format!("/usr/bin/{name}"),
            &programs.path(name),
        )
        .unwrap()
    };
    let kernel = Kernel::of_debian(&Cache::of_user()).unwrap();
    let initrd = folder.join("initrd");
    guest_initrd(SCRIPT, &initrd).unwrap();
    let images = [
        ("pinion", program("pinion", "pinion")),
        (
            "launcher",
            program("launcher", "pinion-launcher")
                .with_file("/usr/bin/pinion-image", programs.path("pinion-image")),
        ),
        (
            "guest",
            Image::new("pinion.dev/lab/guest:1")
                .with_file("/boot/vmlinuz", kernel.image())
                .with_file("/boot/initrd", initrd),
        ),
    ];
    let place = |(name, image): (&str, Image)| {
        let archive = folder.join(format!("{name}.tar"));
        image.write(&archive).unwrap();
        (PathBuf::from(format!("/var/lib/pinion/images/{name}.tar")), archive)
    };
    images.into_iter().map(place).collect()
}

/// A cluster, and a controller beside it.
struct Stage {
    cluster: Cluster,
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Stage {
    fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = ClusterOptions::of_nodes(1, &folder.path().join("cluster"));
        options.files = images(folder.path());
        let told =
            |what: &str, after: Duration| println!("machines: {what} after {:.1} s", after.as_secs_f32());
        let cluster = Cluster::up(&options, &mut { told }).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stage = Self { cluster, folder, runtime };
        stage.apply_all();
        stage.control();
        stage
    }

    fn apply_all(&self) {
        let _ = self.kubectl(&["apply", "-f", &manifests("namespace.yaml")]).unwrap();
        for part in ["crds", "device-plugin", "agent"] {
            let _ = self.kubectl(&["apply", "-k", &manifests(part)]).unwrap();
        }
    }

    fn control(&self) {
        let text = Kubeconfig::read_from(self.folder.path().join("cluster/kubeconfig")).unwrap();
        let wanted = KubeConfigOptions::default();
        let config = self.runtime.block_on(Config::from_custom_kubeconfig(text, &wanted)).unwrap();
        let _inside = self.runtime.enter();
        let client = Client::try_from(config).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = Options {
            namespace: "pinion-system".into(),
            replica: "test".into(),
            launcher_image: format!("pinion.dev/launcher:{VERSION}"),
            pull_policy: "Never".into(),
            pages: None,
            webhook: Some((([127, 0, 0, 1], port).into(), Way::Url(format!("https://127.0.0.1:{port}")))),
            workers: 4,
        };
        drop(self.runtime.spawn(run(client, options, std::future::pending())));
    }

    fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(words).map_err(|error| error.to_string())
    }

    fn node(&self) -> &Lab {
        &self.cluster.nodes()[0]
    }

    fn sh(&self, script: &str) -> String {
        let done = self.node().sh(script, SOON).unwrap();
        assert!(done.success(), "`{script}`: {}{}", done.text(), done.error_text());
        done.text()
    }

    fn until(&self, words: &[&str], is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let said = self.kubectl(words).unwrap_or_else(|error| error);
            if is_so(&said) {
                println!("{words:?} after {:.1} s", began.elapsed().as_secs_f32());
                return said;
            }
            assert!(began.elapsed() < LONG, "{words:?}: {said}\n{}", self.all());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

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

#[test]
fn a_machine_runs_on_a_real_kubelet_and_answers_through_a_service() {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let stage = Stage::up();
    stage.until(&["get", "node", "node-1", "-o", "jsonpath={.status.allocatable}"], |said| {
        ["\"pinion.dev/agent\":\"1k\"", "\"devices.kubevirt.io/kvm\":\"1k\""]
            .iter()
            .all(|part| said.contains(part))
    });
    stage.until(&["get", "nodeledger", "node-1", "-o", "jsonpath={.status.machine.domains}"], |said| {
        said.contains("cores")
    });
    let file = stage.folder.path().join("machine.yaml");
    std::fs::write(&file, MACHINE).unwrap();
    let file = file.display().to_string();
    stage.until(&["apply", "-f", &file], |said| said.contains("virtualmachine.kubevirt.io/web"));
    stage.until(&["get", "vm", "web", "-o", "jsonpath={.status.printableStatus}"], |said| said == "Running");
    let pod = stage.until(&["get", "pods", "-l", "kubevirt.io=virt-launcher", "-o", "name"], |said| {
        said.contains("pod/")
    });
    let pod = pod.trim().to_owned();
    let console = stage.until(&["logs", &pod], |said| said.contains("SERVING"));
    assert!(console.contains("ADDRESS 10.0.2.2"), "{console}");
    let deterministic = "jsonpath={.status.conditions[?(@.type=='Deterministic')]}";
    stage.until(&["get", "vmi", "web", "-o", deterministic], |said| said.contains("\"status\":\"True\""));
    answers(&stage);
    is_where_it_says(&stage);
    let _ = stage.kubectl(&["delete", "vm", "web", "--wait=false"]).unwrap();
    stage.until(&["get", "vm,vmi,pods", "-o", "name"], |said| said.trim().is_empty());
    let bookings =
        stage.kubectl(&["get", "nodeledger", "node-1", "-o", "jsonpath={.spec.bookings}"]).unwrap();
    assert!(bookings.is_empty() || bookings == "[]", "{bookings}");
}

/// The guest's page, by the Service and by the pod's address, as another pod sees it.
fn answers(stage: &Stage) {
    let image = "--image=pinion.dev/lab/busybox:1";
    let _ = stage.kubectl(&["run", "client", image, "--image-pull-policy=Never", "--restart=Never"]).unwrap();
    stage.until(&["get", "pod", "client", "-o", "jsonpath={.status.phase}"], |said| said == "Running");
    let service = stage.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let instance =
        stage.kubectl(&["get", "vmi", "web", "-o", "jsonpath={.status.interfaces[0].ipAddress}"]).unwrap();
    for address in [service, instance] {
        // Debian's static busybox cannot look up names of protocols, which its wget does.
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80");
        stage
            .until(&["exec", "client", "--", "sh", "-c", &ask], |said| said.ends_with("\nHELLO of 2 CPUs\n"));
    }
    let _ = stage.kubectl(&["delete", "pod", "client", "--force", "--wait=false"]).unwrap();
}

/// What the ledger says of it, and what its threads may run on.
fn is_where_it_says(stage: &Stage) {
    let cpus =
        stage.kubectl(&["get", "nodeledger", "node-1", "-o", "jsonpath={.status.guests[0].cpus}"]).unwrap();
    let own: Vec<u32> = serde_json::from_str(&cpus).unwrap();
    assert_eq!(own.len(), 2, "{cpus}");
    let threads = stage.sh("for s in /proc/$(pgrep -x pinion-launcher)/task/*/status; do \
         awk -F '\\t' '/^Name/ {n=$2} /^Cpus_allowed_list/ {print n \"=\" $2}' $s; done");
    for line in threads.lines() {
        let (name, list) = line.split_once('=').unwrap();
        let on_own = list.parse::<u32>().is_ok_and(|cpu| own.contains(&cpu));
        assert_eq!(on_own, name.starts_with("vcpu"), "{line}: {threads}");
    }
}
