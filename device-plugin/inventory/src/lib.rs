//! What this host has to offer the kubelet, kept up to date: the machine and the file of devices are read again whenever the
//! kernel tells of a device, the file has changed, or the agent's folder comes or goes.
//!
//! [`Inventory::keep`] is called once and keeps its thread; what is new goes to its caller. It reads only, and must never
//! give up a list that was good for a file that is not.

#![forbid(unsafe_code)]

mod agent;
mod errors;
mod file;
mod news;
mod nodes;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pinion_device_plugin::{Catalogue, Offer, Shared, SharedKind};
use pinion_discovery::{From, Uevents, discover};
use pinion_machine::Machine;

use agent::AgentFolder;
use errors::Errors;
use file::DevicesFile;
pub use file::FileError;
pub use news::News;

/// Nothing is missed for longer, milliseconds, where the kernel or a folder cannot be listened to.
const UNHEARD: i32 = 10_000;
/// The same where all can, in case that one is deaf, as in a network namespace of another user. Not more often: reading
/// the machine reads `/proc/cpuinfo`, for which some kernels interrupt every CPU.
const HEARD: i32 = 300_000;
/// One change is many messages: what follows at once is read with it.
const PAUSE: Duration = Duration::from_millis(50);
/// Rest after a reading, in times of what it took: two hundred virtual functions that are bound one by one tell of themselves
/// for seconds, and a host that makes them has other things to do than to read itself again and again.
const REST: u32 = 3;
/// What was heard is never left for longer than that.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// Subsystems of devices that are given, and of the nodes that are shared.
static SUBSYSTEMS: [&str; 4] = ["pci", "vfio-dev", "mdev", "misc"];

/// Where it is read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file of devices; none is as good as an empty one.
    pub devices: PathBuf,
    /// The machine: this host, unless somebody tries something out.
    pub machine: From,
    /// Whether `/dev/kvm` and what is like it are offered. The way to the node's agent always is: nobody else offers it.
    pub shared: bool,
}

/// What was read last.
#[derive(Debug)]
pub struct Inventory {
    sources: Sources,
    file: DevicesFile,
    agent: AgentFolder,
    uevents: Option<Uevents>,
    errors: Errors,
    catalogue: Arc<Catalogue>,
}

impl Inventory {
    /// Nothing yet, but listening: whatever changes after the first reading is heard.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let file = DevicesFile::new(sources.devices.clone());
        let agent = AgentFolder::new(Path::new(Shared::agent().path));
        let (uevents, errors) = (Uevents::listen(&SUBSYSTEMS).ok(), Errors::new(Path::new("/sys")));
        Self { sources, file, agent, uevents, errors, catalogue: Arc::default() }
    }

    /// What is offered.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    /// Reads all again. What cannot be read stays as it was, and is told.
    pub fn read(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        let machine = match discover(&self.sources.machine) {
            Ok(machine) => machine,
            Err(error) => return vec![News::Machine(error)],
        };
        if let Err(error) = self.file.read(&machine) {
            news.push(News::File(error));
        }
        let next = self.made_of(&machine);
        news.extend(news::between(&self.catalogue, &next));
        self.catalogue = Arc::new(next);
        news
    }

    fn made_of(&mut self, machine: &Machine) -> Catalogue {
        let offer = Offer::new(machine, self.file.resources()).after(&self.catalogue.offer);
        let failed = self.errors.of(&offer);
        let offer = offer.failing(&failed);
        let of_kubevirt = Shared::of_kubevirt().into_iter().filter(|_| self.sources.shared);
        Catalogue {
            own_nodes: nodes::own(&offer),
            offer,
            shared: of_kubevirt.chain([Shared::agent()]).map(looked_at).collect(),
            distances: machine.distances.clone(),
        }
    }

    /// Whether the file of devices is followed; else what it said before holds.
    #[must_use]
    pub const fn follows_file(&self) -> bool {
        self.file.is_followed()
    }

    /// Reads all again for ever, when something has changed, on a thread of its own; `to` is given all of it and what is new, and
    /// says whether to go on.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn keep(mut self, mut to: impl FnMut(&Self, &[News]) -> bool + Send + 'static) -> io::Result<()> {
        let keep = move || {
            loop {
                self.wait();
                let began = Instant::now();
                let news = self.read();
                if !to(&self, &news) {
                    return;
                }
                thread::sleep((began.elapsed() * REST).min(LONGEST_REST));
            }
        };
        thread::Builder::new().name("inventory".into()).spawn(keep)?;
        Ok(())
    }

    fn wait(&mut self) {
        let hears = self.uevents.is_some() && self.file.watched().is_some() && self.agent.watched().is_some();
        let patience = PollTimeout::try_from(if hears { HEARD } else { UNHEARD }).unwrap_or(PollTimeout::MAX);
        loop {
            let mut fds: Vec<PollFd<'_>> =
                self.file.watched().into_iter().chain(self.agent.watched()).collect();
            fds.extend(self.uevents.iter().map(|u| PollFd::new(u.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, patience) {
                Ok(0) => return,
                Ok(_) => {}
                // Cannot be waited for: look again soon rather than spin.
                Err(_) => return thread::sleep(PAUSE),
            }
            thread::sleep(PAUSE);
            let of_folders = self.file.heard() | self.agent.heard();
            let errors = &mut self.errors;
            if self.uevents.as_ref().is_some_and(|u| u.each(|event| errors.hear(event))) || of_folders {
                return;
            }
        }
    }
}

/// As it is on this host.
fn looked_at(shared: Shared) -> Shared {
    let path = Path::new(shared.path);
    let is_there = match shared.kind {
        SharedKind::Node => path.exists(),
        SharedKind::Folder { .. } => path.is_dir(),
    };
    Shared { is_there, ..shared }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Nobody else offers it, so it is there in any case.
    const AGENT: &str = "pinion.dev/agent";
    const GPU: &str = "apiVersion: pinion.dev/v1alpha1\nkind: DeviceResources\nresources:\n\
        - {name: example.com/gpu, select: [{class: \"03\"}]}\n";

    fn inventory(devices: PathBuf) -> Inventory {
        let machine = From::Synthetic("numa:2 core:2 pu:1".into());
        Inventory::new(Sources { devices, machine, shared: false })
    }

    #[test]
    fn a_file_that_becomes_wrong_is_told_once_and_what_was_good_stays() {
        let folder = tempfile::tempdir().unwrap();
        let devices = folder.path().join("devices.yaml");
        let mut inventory = inventory(devices.clone());
        assert!(inventory.read().is_empty());
        let names = |inventory: &Inventory| -> Vec<String> {
            inventory.catalogue().names().map(ToOwned::to_owned).collect()
        };
        assert_eq!(names(&inventory), [AGENT], "no file is as good as an empty one");
        fs::write(&devices, GPU).unwrap();
        assert!(inventory.read().is_empty());
        assert_eq!(names(&inventory), [AGENT, "example.com/gpu"]);
        fs::write(&devices, GPU.replace("class", "clas")).unwrap();
        let news = inventory.read();
        assert_eq!(news.len(), 1);
        let told = news[0].to_string();
        assert!(told.contains("devices.yaml") && told.contains("clas"), "{told}");
        assert!(inventory.read().is_empty(), "told once");
        assert!(!inventory.follows_file());
        assert_eq!(names(&inventory), [AGENT, "example.com/gpu"]);
        fs::remove_file(&devices).unwrap();
        assert!(inventory.read().is_empty());
        assert_eq!(names(&inventory), [AGENT]);
        assert!(inventory.follows_file());
    }

    #[test]
    fn what_is_shared_is_looked_at_by_its_kind() {
        let there = |shared: Shared, path| looked_at(Shared { path, ..shared }).is_there;
        let [kvm, ..] = Shared::of_kubevirt();
        assert!(there(kvm, "/proc/version") && !there(kvm, "/proc/absent"));
        assert!(there(Shared::agent(), "/proc") && !there(Shared::agent(), "/proc/version"), "no folder");
    }

    #[test]
    fn a_change_of_the_file_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let devices = folder.path().join("devices.yaml");
        let mut inventory = inventory(devices.clone());
        let _ = inventory.read();
        let (to, changed) = std::sync::mpsc::channel();
        inventory.keep(move |inventory, _| to.send(inventory.catalogue()).is_ok()).unwrap();
        // As an editor and a ConfigMap do it: beside its place, and moved into it.
        let draft = folder.path().join("draft");
        fs::write(&draft, GPU).unwrap();
        fs::rename(&draft, &devices).unwrap();
        let seen = |names: usize| {
            (0..20).any(|_| {
                let next = changed.recv_timeout(Duration::from_secs(5));
                next.is_ok_and(|catalogue| catalogue.names().count() == names)
            })
        };
        assert!(seen(2));
        fs::remove_file(&devices).unwrap();
        assert!(seen(1));
    }
}
