//! A cluster: brought up, asked by `kubectl`, and gone when it is dropped.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pinion_lab::{Cache, Lab, LabError, Shape, Slot};

use crate::control_plane::{ControlPlane, free_ports};
use crate::node::{self, NodeImage, Place, node_shape};
use crate::{ClusterError, ClusterPrograms};

/// Emulated kubelets are ready half a minute after they start, on a machine that does nothing else.
const READY_WITHIN: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(500);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// A node of each shape.
    pub nodes: Vec<Shape>,
    /// Where its certificates, logs and data are.
    pub folder: PathBuf,
    /// Files that every node has, by their places; OCI archives in `/var/lib/pinion/images` are imported.
    pub files: Vec<(PathBuf, PathBuf)>,
}

impl Options {
    /// So many nodes of the usual shape.
    #[must_use]
    pub fn of_nodes(count: usize, folder: &Path) -> Self {
        Self { nodes: vec![node_shape(); count], folder: folder.to_owned(), files: Vec::new() }
    }
}

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    // Nodes go first: their kubelets would only wail.
    nodes: Vec<Lab>,
    plane: ControlPlane,
    /// Cables between nodes.
    _cables: Cables,
}

/// A folder with a short path, as sockets need, which goes with this.
#[derive(Debug)]
struct Cables(PathBuf);

impl Drop for Cables {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Keys are in it: nobody else on this machine may look.
fn make_private(folder: &Path) -> Result<(), ClusterError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    Ok(made.map_err(LabError::file("make the folder", folder))?)
}

impl Cluster {
    /// Brings it up, and waits until all nodes are ready; `told` hears of each step with the time since the beginning.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn up(options: &Options, told: &mut dyn FnMut(&str, Duration)) -> Result<Self, ClusterError> {
        let cache = Cache::of_user();
        let programs = ClusterPrograms::of_user(&cache)?;
        let image = NodeImage::of_user(&cache, &programs)?;
        let slot = Arc::new(Slot::wait(&cache)?);
        let began = Instant::now();
        let folder = &options.folder;
        make_private(folder)?;
        let [proxy] = free_ports::<1>()?;
        let cables =
            Cables(std::env::temp_dir().join(format!("pinion-cables-{}-{proxy}", std::process::id())));
        make_private(&cables.0)?;
        let plane = ControlPlane::up(&programs, folder, proxy)?;
        told("control plane", began.elapsed());
        let mut cluster = Self { nodes: Vec::new(), plane, _cables: cables };
        let of = u16::try_from(options.nodes.len()).unwrap_or(u16::MAX);
        for (number, shape) in (1..=of).zip(&options.nodes) {
            let place = Place { number, of, folder: &cluster._cables.0 };
            let server = cluster.plane.address_for_nodes();
            let boot = |name: &str, files: &pinion_lab::Files| {
                Ok(Lab::boot_beside(Arc::clone(&slot), name, shape, files)?)
            };
            let lab = node::boot(
                place,
                (&image, &options.files),
                (cluster.plane.authority(), &server, proxy),
                boot,
            )?;
            cluster.nodes.push(lab);
            told(&place.name(), began.elapsed());
        }
        cluster.ready()?;
        told("ready", began.elapsed());
        Ok(cluster)
    }

    /// The nodes, `node-1` first.
    #[must_use]
    pub fn nodes(&self) -> &[Lab] {
        &self.nodes
    }

    /// Kills the API server, starts it again, and waits until it answers. It lives as long as the calling thread.
    ///
    /// # Errors
    /// [`ClusterError::NotReady`].
    pub fn restart_server(&mut self) -> Result<(), ClusterError> {
        self.plane.restart_server()
    }

    /// A `kubectl` command for this cluster, as its administrator.
    #[must_use]
    pub fn command(&self) -> Command {
        self.plane.kubectl()
    }

    /// Runs `kubectl` and gives what it prints.
    ///
    /// # Errors
    /// [`ClusterError::Kubectl`] with what it said.
    pub fn kubectl(&self, words: &[&str]) -> Result<String, ClusterError> {
        let failed = |said: String| ClusterError::Kubectl { words: words.join(" "), said };
        let done = self.command().args(words).output().map_err(|e| failed(e.to_string()))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
    }

    /// Asks again until `kubectl` prints what is wanted, and gives that.
    ///
    /// # Errors
    /// [`ClusterError::NotReady`] with what it printed last.
    pub fn until(
        &self,
        words: &[&str],
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, ClusterError> {
        let end = Instant::now() + limit;
        loop {
            let printed = self.kubectl(words);
            match printed {
                Ok(text) if wanted(&text) => return Ok(text),
                other if Instant::now() >= end => {
                    let hint = match other {
                        Ok(text) => format!("it prints {:?}", text.trim()),
                        Err(e) => e.to_string(),
                    };
                    let what = format!("`kubectl {}`", words.join(" "));
                    return Err(ClusterError::NotReady { what, seconds: limit.as_secs(), hint });
                }
                _ => thread::sleep(LOOK),
            }
        }
    }

    fn ready(&mut self) -> Result<(), ClusterError> {
        let ready =
            "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        let count = self.nodes.len();
        let all = |text: &str| text.lines().filter(|l| *l == "True").count() == count;
        let done = self.until(&["get", "nodes", "-o", ready], READY_WITHIN, all);
        match (done, self.plane.ended()) {
            (Err(_), Some(hint)) => Err(ClusterError::NotReady {
                what: "The control plane".to_owned(),
                seconds: READY_WITHIN.as_secs(),
                hint,
            }),
            (done, _) => done.map(drop),
        }
    }
}
