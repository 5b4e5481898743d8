//! What the node agent costs with 100 guests: CPU time and memory, while Prometheus scrapes it every 15 s.
//!
//! The agent is the real program. Guests are processes that hold CPUs in its ledger and answer on their sockets as
//! launchers do; their CPUs have numbers that this machine lacks, so that nothing of it is changed. A second run without
//! guests says what the agent itself costs.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pinion_endpoint::guest::{GuestRequest, GuestStatus};
use pinion_endpoint::{Caller, Refusal, Reply};
use pinion_machine::{CpuId, CpuSet};
use pinion_node_agent::{Holder, HostWishes, Ledger};
use pinion_planner::{Holding, HoldingState};

const GUESTS: u32 = 100;
/// Dedicated CPUs of each.
const CPUS: u32 = 4;
/// The first of them: no machine of today has as many.
const FIRST_CPU: u32 = 10_000;
const MEASURED: Duration = Duration::from_secs(60);
const SCRAPE_EACH: Duration = Duration::from_secs(15);
/// Where a process that plays a guest is told which.
const ROLE: &str = "PINION_BENCH_GUEST";

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    if let Some(role) = std::env::var_os(ROLE) {
        return guest(&role.to_string_lossy());
    }
    // `cargo bench WORDS` runs those that are named.
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if !words.is_empty() && !words.iter().any(|w| "agent".contains(w.as_str())) {
        return Ok(());
    }
    let program = pinion_benches::side_by_side::program("pinion")?;
    for guests in [0, GUESTS] {
        measure(&program, guests)?;
    }
    Ok(())
}

struct Ends(Vec<Child>);

impl Drop for Ends {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn measure(program: &Path, count: u32) -> Outcome {
    let folder = tempfile::tempdir()?;
    let ledger = folder.path().join("ledger.json");
    // Nothing of this machine is to be changed.
    let profile = folder.path().join("profile.yaml");
    std::fs::write(&profile, "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\nspec: {knobs: []}\n")?;
    std::fs::create_dir_all(folder.path().join("guests"))?;
    let mut guests = Ends(Vec::new());
    for number in 0..count {
        let role = format!("{number} {}", ledger.display());
        guests.0.push(Command::new(std::env::current_exe()?).env(ROLE, role).stdout(Stdio::null()).spawn()?);
    }
    let end = Instant::now() + Duration::from_secs(60);
    while Ledger::at(&ledger).read()?.holdings.len() < count as usize && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let agent = Command::new(program)
        .args(["agent", "--listen", &address.to_string(), "--ledger"])
        .arg(&ledger)
        .arg("--profile")
        .arg(&profile)
        .stderr(Stdio::null())
        .spawn()?;
    let pid = agent.id();
    let agent = Ends(vec![agent]);
    while get(address, "/readyz").is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    get(address, "/metrics")?;
    let mut size = 0;
    thread::sleep(Duration::from_secs(5));
    let (before, began) = (cpu_time(pid)?, Instant::now());
    let (mut scrapes, mut took) = (0u32, Duration::ZERO);
    while began.elapsed() < MEASURED {
        thread::sleep(SCRAPE_EACH.min(MEASURED.saturating_sub(began.elapsed())));
        let asked = Instant::now();
        size = get(address, "/metrics")?.len();
        took += asked.elapsed();
        scrapes += 1;
    }
    let used = cpu_time(pid)?.saturating_sub(before);
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!(
        "{count} guests: {share:.3} % of one CPU, {:.1} MiB resident; a scrape of {} KiB takes {:.1} ms",
        resident_bytes(pid)? as f64 / f64::from(1 << 20),
        size >> 10,
        took.as_secs_f64() * 1e3 / f64::from(scrapes.max(1)),
    );
    drop(agent);
    Ok(())
}

fn get(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200") {
        Ok(text)
    } else {
        Err(text.into())
    }
}

/// `/proc/PID/stat`, fields 14 and 15.
fn cpu_time(pid: u32) -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).ok_or("no comm")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).ok_or("no time");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

fn resident_bytes(pid: u32) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(kib.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
}

/// Plays a guest: holds CPUs, and answers until it is killed.
fn guest(role: &str) -> Outcome {
    let (number, ledger) = role.split_once(' ').ok_or("no role")?;
    let number: u32 = number.parse()?;
    let ledger = Ledger::at(PathBuf::from(ledger));
    let name = format!("guest-{number}");
    let first = FIRST_CPU + number * CPUS;
    let cpus: CpuSet = (first..first + CPUS).map(CpuId).collect();
    let holding = Holding {
        owner: format!("default/{name}"),
        state: HoldingState::Reserved,
        cpus,
        floating: vec![],
        memory: vec![],
        devices: vec![],
    };
    let (mut reservation, ()) = ledger
        .reserve(Holder::current()?, |_| Ok::<_, std::convert::Infallible>((holding, ())))
        .map_err(|e| e.to_string())?;
    reservation.wish(HostWishes { quiet_cpus: true, ..HostWishes::default() })?;
    reservation.commit()?;
    let pid = i32::try_from(std::process::id())?;
    let listener = pinion_endpoint::bind(&ledger.socket_of(pid), 0o600)?;
    let metrics = metrics(&name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = move |caller: Caller| {
        let metrics = metrics.clone();
        async move {
            match serde_json::from_slice::<GuestRequest>(&caller.request) {
                Ok(GuestRequest::Metrics) => caller.reply(&Reply::Done(metrics)).await,
                Ok(GuestRequest::Status) => caller.reply(&Reply::Done(GuestStatus::default())).await,
                _ => caller.reply(&Reply::<()>::Refused(Refusal::new("Malformed", "no"))).await,
            }
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, pinion_endpoint::serve(listener, answer))?;
    Ok(())
}

/// As much as a launcher with four vCPUs, an I/O thread, two disks and an interface says.
fn metrics(name: &str) -> String {
    let mut text = String::new();
    for family in 0..60 {
        let family = format!("pinion_vmi_bench_{family}_total");
        text.push_str(&format!("# HELP {family} A count.\n# TYPE {family} counter\n"));
        for id in 0..4 {
            text.push_str(&format!(
                "{family}{{id=\"{id}\",name=\"{name}\",namespace=\"default\",node=\"bench\"}} {id}.123456789\n"
            ));
        }
    }
    text
}
