//! `cargo xtask cluster`: a Kubernetes cluster of lab hosts, for as long as one wants it.
//!
//! A process of its own keeps it (`cluster keep`), since all of it dies with who holds it: `up` starts that and waits,
//! `down` ends it. Its folder has the number of that process, what it says, and the cluster's files.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use pinion_lab::Cache;
use pinion_lab_cluster::{Cluster, ClusterPrograms, NodeImage, Options};

use crate::{image, setup};

/// Where nodes import archives from.
const IMPORTED: &str = "/var/lib/pinion/images";
const LOOK: Duration = Duration::from_millis(200);
const DOWN_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Brings up a cluster in the background, and waits until its nodes are ready
    Up {
        /// Nodes, each a virtual host with 8 CPUs and 4 GiB
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
        nodes: u8,
        /// Folder of OCI archives (*.tar) that every node imports [default: what `cargo xtask image` has made]
        #[arg(long, value_name = "FOLDER")]
        images: Option<PathBuf>,
    },
    /// Takes it down again
    Down,
    /// Runs kubectl for it, as its administrator
    Kubectl {
        /// Passed on to kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Holds a cluster: what `up` starts
    #[command(hide = true)]
    Keep {
        #[arg(long)]
        nodes: u8,
        #[arg(long)]
        images: PathBuf,
    },
}

/// Carries out `cargo xtask cluster`.
pub(crate) fn cluster(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = crate::workspace::target().join("cluster");
    match &arguments.command {
        Task::Up { nodes, images } => up(&folder, *nodes, images.as_deref()).map(|()| ExitCode::SUCCESS),
        Task::Down => down(&folder).map(|()| ExitCode::SUCCESS),
        Task::Kubectl { words } => kubectl(&folder, words),
        Task::Keep { nodes, images } => keep(&folder, *nodes, images).map(|()| ExitCode::SUCCESS),
    }
}

/// The process that keeps the cluster, if it runs: it has a lock on the file with its number, which goes with it.
fn keeper(folder: &Path) -> Option<u32> {
    let mut file = File::open(folder.join("keeper")).ok()?;
    if file.try_lock_shared().is_ok() {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn up(folder: &Path, nodes: u8, images: Option<&Path>) -> anyhow::Result<()> {
    let mut child = None;
    let made_here = image::folder();
    let images = images.unwrap_or(&made_here);
    if keeper(folder).is_none() {
        setup::setup()?;
        made()?;
        let _ = fs::remove_dir_all(folder);
        // Its administrator's key will be in it.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        let log = File::create(folder.join("log")).context("cannot create the cluster's log")?;
        let mut keep = Command::new("setsid");
        keep.arg(std::env::current_exe()?).args(["cluster", "keep", "--nodes", &nodes.to_string()]);
        keep.arg("--images").arg(images);
        keep.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        child = Some(keep.spawn().context("cannot start the process that keeps the cluster")?);
    } else if folder.join("ready").exists() {
        bail!("a cluster is up already; `cargo xtask cluster down` takes it down");
    }
    follow(folder, child)?;
    println!("`cargo xtask cluster kubectl get nodes` asks it, `cargo xtask cluster down` takes it down;");
    println!("export KUBECONFIG={}", folder.join("kubeconfig").display());
    Ok(())
}

/// Whether nothing of [`made`] has to be built.
pub(crate) fn is_made() -> bool {
    ClusterPrograms::are_ready(&Cache::of_user())
}

/// What is slow to make, with a line for each.
pub(crate) fn made() -> anyhow::Result<()> {
    let cache = Cache::of_user();
    if !is_made() {
        setup::go()?;
        println!("building Kubernetes and containerd: six minutes on two CPUs…");
    }
    let began = Instant::now();
    let programs = ClusterPrograms::of_user(&cache)?;
    let image = NodeImage::of_user(&cache, &programs)?;
    println!(
        "programs and node image: there ({:.1} s), {}",
        began.elapsed().as_secs_f32(),
        image.path().display()
    );
    Ok(())
}

/// Shows what the keeper says until the cluster is ready, or the keeper has ended: this process's own, or that of another
/// `up` that was broken off.
fn follow(folder: &Path, mut child: Option<Child>) -> anyhow::Result<()> {
    let mut at = 0;
    loop {
        let ready = folder.join("ready").exists();
        let runs = match &mut child {
            Some(child) => child.try_wait()?.is_none(),
            None => keeper(folder).is_some(),
        };
        let mut log = File::open(folder.join("log")).context("cannot read the cluster's log")?;
        log.seek(SeekFrom::Start(at))?;
        let mut text = String::new();
        at += u64::try_from(log.read_to_string(&mut text)?)?;
        print!("{text}");
        if ready {
            return Ok(());
        }
        ensure!(runs, "the cluster did not come up; its logs are in {}", folder.display());
        thread::sleep(LOOK);
    }
}

fn keep(folder: &Path, nodes: u8, images: &Path) -> anyhow::Result<()> {
    let _lock = note(folder)?;
    let files = archives(images)?;
    for (place, _) in &files {
        println!("         image {}", place.display());
    }
    let options = Options { files, ..Options::of_nodes(usize::from(nodes), folder) };
    let mut told = |what: &str, after: Duration| println!("{:>6.1} s  {what}", after.as_secs_f32());
    let _cluster = Cluster::up(&options, &mut told)?;
    fs::write(folder.join("ready"), "")?;
    loop {
        thread::park();
    }
}

/// Archives of a folder, if there is one, by where nodes import them from.
fn archives(folder: &Path) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut archives = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if let (Some(name), Some("tar")) = (path.file_name(), path.extension().and_then(|e| e.to_str())) {
            archives.push((Path::new(IMPORTED).join(name), path));
        }
    }
    archives.sort();
    Ok(archives)
}

/// Notes this process as the keeper, for as long as the file is held.
fn note(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("keeper");
    let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

fn down(folder: &Path) -> anyhow::Result<()> {
    let Some(process) = keeper(folder) else {
        let _ = fs::remove_dir_all(folder);
        println!("no cluster is up");
        return Ok(());
    };
    // Nodes and programs die with it.
    Command::new("kill").arg(process.to_string()).status().context("cannot run `kill`")?;
    let end = Instant::now() + DOWN_WITHIN;
    while keeper(folder).is_some() {
        ensure!(Instant::now() < end, "process {process}, which keeps the cluster, does not end");
        thread::sleep(LOOK);
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    println!("the cluster is down");
    Ok(())
}

fn kubectl(folder: &Path, words: &[String]) -> anyhow::Result<ExitCode> {
    ensure!(keeper(folder).is_some(), "no cluster is up; `cargo xtask cluster up` brings one up");
    let kubectl: PathBuf = ClusterPrograms::of_user(&Cache::of_user())?.path("kubectl");
    let status =
        Command::new(kubectl).arg("--kubeconfig").arg(folder.join("kubeconfig")).args(words).status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_a_folder_are_imported_and_nothing_else_of_it() {
        let folder = std::env::temp_dir().join(format!("pinion-archives-{}", std::process::id()));
        assert!(archives(&folder).unwrap().is_empty());
        fs::create_dir_all(&folder).unwrap();
        for name in ["b.tar", "a.tar", "notes"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let found = archives(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let of = |name: &str| (Path::new(IMPORTED).join(name), folder.join(name));
        assert_eq!(found, [of("a.tar"), of("b.tar")]);
    }

    #[test]
    fn a_keeper_is_known_for_as_long_as_it_holds_its_file() {
        let folder = std::env::temp_dir().join(format!("pinion-keeper-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(keeper(&folder), None);
        let held = note(&folder).unwrap();
        assert_eq!(keeper(&folder), Some(std::process::id()));
        drop(held);
        // A process that another test starts has this one's files until it is another program.
        let until = Instant::now() + Duration::from_secs(10);
        while keeper(&folder).is_some() && Instant::now() < until {
            thread::sleep(LOOK);
        }
        assert_eq!(keeper(&folder), None, "its number may be another's by now");
        fs::remove_dir_all(&folder).unwrap();
    }
}
