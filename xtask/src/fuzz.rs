//! `cargo xtask fuzz`: each fuzz target for a bounded time.
//!
//! Built on the stable compiler: the instrumentation is asked of LLVM by its own names.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::step::{Steps, Tally};
use crate::workspace::{Metadata, Package, cargo, root, show, target};

/// Packages of fuzz targets. They are one workspace, that of the first: what several of them need is built once.
pub(crate) const FUZZ_FOLDERS: [&str; 3] = ["vmm/fuzz", "node-agent/fuzz", "launcher/libvirt/fuzz"];
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code --cfg fuzzing";

/// Builds the targets and runs each, or the one named.
pub(crate) fn fuzz(steps: &mut Steps, seconds: u32, only: Option<&str>) {
    let mut names = Vec::new();
    let built = steps.step("fuzz targets are built", "cargo xtask fuzz --seconds 1", || {
        names = targets()?;
        names.retain(|t| only.is_none_or(|o| o == t.name));
        ensure!(!names.is_empty(), "there is no such fuzz target");
        build(only)?;
        Ok(Tally::default())
    });
    if !built {
        return;
    }
    let repeat = format!("cargo xtask fuzz --seconds {seconds}");
    steps.step(&format!("fuzzing, {seconds} s each"), &repeat, || Ok(all(names, seconds)));
}

/// Runs the targets, as many at a time as there are processors.
fn all(names: Vec<Target>, seconds: u32) -> Tally {
    let tally = Mutex::new(Tally::default());
    let queue = Mutex::new(names.into_iter());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let name = target.name.clone();
                    let result = run(&target, seconds);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.add(if result.is_ok() { Tally::PASSED } else { Tally::FAILED });
                    match result {
                        Ok(statistics) => println!("{statistics}"),
                        Err(error) => println!(
                            "{error:#}\nrepeat with: cargo xtask fuzz --seconds {seconds} --target {name}"
                        ),
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A target, and the folder that it belongs to.
#[derive(Clone, Debug)]
struct Target {
    folder: PathBuf,
    name: String,
}

/// The manifest of their workspace.
fn manifest() -> PathBuf {
    root().join(FUZZ_FOLDERS[0]).join("Cargo.toml")
}

/// All packages of their workspace, with those that they are built from.
pub(crate) fn metadata() -> anyhow::Result<Metadata> {
    Metadata::read(Some(&manifest()))
}

fn targets() -> anyhow::Result<Vec<Target>> {
    let metadata = metadata()?;
    let of = |package: &Package| {
        let folder = root().join(package.folder());
        let binaries = package.targets.iter().filter(|t| t.kind.iter().any(|k| k == "bin"));
        let targets: Vec<_> =
            binaries.map(|t| Target { folder: folder.clone(), name: t.name.clone() }).collect();
        targets
    };
    Ok(metadata.members().flat_map(of).collect())
}

/// What builds all targets, or the one named.
fn building(only: Option<&str>) -> Command {
    let words = ["build", "--workspace", "--release", "--locked", "--target", TRIPLE, "--manifest-path"];
    let mut command = cargo(&words);
    command.arg(manifest()).args(only.map_or(vec!["--bins"], |name| vec!["--bin", name]));
    in_own_folder(&mut command);
    command
}

fn in_own_folder(command: &mut Command) {
    command
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", target().join("fuzz"));
}

/// A build in the background; it is waited for when this goes.
#[derive(Debug)]
pub(crate) struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Builds all targets with what others leave of the processors. Whoever builds them afterwards waits for it, and finds what is
/// there; where it cannot be started, they are built then.
pub(crate) fn build_beside() -> Option<Beside> {
    let build = building(None);
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"])
        .arg(build.get_program())
        .args(build.get_args())
        .arg("--quiet")
        .current_dir(root());
    in_own_folder(&mut nice);
    let started = nice.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started.ok().map(Beside)
}

/// Builds all targets, or the one named.
fn build(only: Option<&str>) -> anyhow::Result<()> {
    let mut command = building(only);
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "`{}` failed ({status})", show(&command));
    Ok(())
}

/// Throws away what the tree's own packages left in the build folder of fuzz targets.
pub(crate) fn clean() -> anyhow::Result<()> {
    let own = metadata()?.packages.into_iter().filter(|package| package.source.is_none());
    let mut command = cargo(&["clean", "--quiet", "--release", "--target", TRIPLE, "--manifest-path"]);
    command.arg(manifest()).args(own.flat_map(|package| ["-p".to_owned(), package.name]));
    in_own_folder(&mut command);
    command.status().context("cannot run cargo").map(drop)
}

/// Runs a target; its last line of statistics, or what it found.
fn run(of: &Target, seconds: u32) -> anyhow::Result<String> {
    let name = of.name.as_str();
    let (corpus, artifacts) = (of.folder.join("corpus").join(name), of.folder.join("artifacts").join(name));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = artifacts.join("log");
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let seeds = of.folder.join("seeds").join(name);
    let mut command = Command::new(target().join("fuzz").join(TRIPLE).join("release").join(name));
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .args(seeds.is_dir().then_some(&seeds))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", show(&command)))?;
    // It ends by itself; this is for one that does not.
    let limit = Duration::from_secs(u64::from(seconds) * 3 + 60);
    let began = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{name} did not end; its log is {}", log.display());
        }
        thread::sleep(Duration::from_millis(100));
    };
    let text = fs::read(&log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    ensure!(
        status.success(),
        "{name} found something; inputs are in {}\n{}",
        artifacts.display(),
        tail(&text)
    );
    Ok(statistics(name, &text))
}

fn statistics(name: &str, text: &str) -> String {
    let stat = |key: &str| text.lines().find_map(|l| Some(l.strip_prefix(key)?.trim().to_owned()));
    let runs = stat("stat::number_of_executed_units:").unwrap_or_default();
    let coverage = text.lines().rev().find_map(|l| l.split_once(" cov: ")?.1.split_whitespace().next());
    format!("{name}: {runs} runs, {} edges", coverage.unwrap_or("no"))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_those_of_the_manifest() {
        let targets = targets().unwrap();
        assert!(FUZZ_FOLDERS.iter().all(|f| targets.iter().any(|t| t.folder.ends_with(f))));
        for Target { folder, name } in targets {
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{name}\"")));
        }
    }

    #[test]
    fn statistics_are_read_from_the_log() {
        let log =
            "#2\tINITED cov: 14 ft: 15\n#9\tDONE   cov: 120 ft: 300\nstat::number_of_executed_units: 900\n";
        assert_eq!(statistics("x", log), "x: 900 runs, 120 edges");
        assert!(tail(&"line\n".repeat(100)).lines().count() == 40);
    }
}
