//! The node's page at 64 and at 512 CPUs, looked at by a browser where there is one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pinion_endpoint::guest::GuestStatus;
use pinion_machine::{CpuSet, Machine, PageSize};
use pinion_node_agent::{GuestRow, Isolation, NodeStatus, Shown, page_html};
use pinion_planner::{
    CpuPolicy, CpuRequest, GuestTopology, HoldingState, MemoryRequest, NumaPolicy, Occupancy, Request, Shape,
    plan,
};

fn request(name: &str, vcpus: u32) -> Request {
    Request {
        name: format!("default/{name}"),
        cpu: CpuRequest {
            topology: GuestTopology { sockets: 1, cores: vcpus / 2, threads: 2 },
            policy: CpuPolicy::Dedicated,
            realtime: Vec::new(),
        },
        memory: MemoryRequest { bytes: 1 << 30, page_size: PageSize::KIB4 },
        numa: NumaPolicy::Auto,
        io_threads: Vec::new(),
        devices: Vec::new(),
        within: None,
    }
}

/// A page with guests of 4 to 16 vCPUs on two thirds of a machine.
fn page(machine: &Machine) -> String {
    let mut occupancy =
        Occupancy { housekeeping: Occupancy::default_housekeeping(machine), ..Occupancy::default() };
    let mut guests = Vec::new();
    let mut taken = CpuSet::new();
    for (number, vcpus) in (1..).zip([4, 8, 16, 8, 4, 12].into_iter().cycle()) {
        if taken.len() * 3 > machine.online().len() * 2 {
            break;
        }
        let Ok(placement) = plan(machine, &occupancy, &request(&format!("guest-{number}"), vcpus)) else {
            break;
        };
        let holding = placement.holding(HoldingState::Committed);
        taken = taken.union(&holding.cpus);
        let row = GuestRow {
            owner: holding.owner.clone(),
            pid: 1000 + number,
            state: holding.state,
            cpus: holding.cpus.clone(),
            devices: vec![],
            isolation: if number % 5 == 0 { Isolation::Pinned } else { Isolation::Isolated },
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        let drifted = number % 7 == 0;
        let status = GuestStatus {
            phase: "Running".into(),
            verdict: Some(if drifted { "drifted" } else { "holds" }.into()),
            mismatches: if drifted { vec!["vcpu/3: cpus planned 4, observed 0-7".into()] } else { vec![] },
            longest_wait_ns: 12_345,
            ..GuestStatus::default()
        };
        guests.push((row, Some(status)));
        occupancy.holdings.push(holding);
    }
    let rows = guests.iter().map(|(row, _)| row.clone()).collect();
    let status = NodeStatus { guests: rows, occupancy, ..NodeStatus::default() };
    page_html("node-1", Shown { machine: Some(machine), status: &status, guests: &guests })
}

#[test]
fn it_shows_every_cpu_and_guest_of_a_large_machine() {
    for (cpus, nodes, cores) in [(64, 2, 16), (512, 8, 32)] {
        let machine = Shape::new(nodes, cores).threads(2).l3_cores(8).memory(256 << 30).build();
        assert_eq!(machine.online().len(), cpus);
        let page = page(&machine);
        assert!(page.contains("guest-1<") && page.contains("guest-6<"), "guests are named");
        // Of a large machine, nodes that are alike are drawn once.
        for cpu in machine.cores.iter().filter_map(|core| core.cpus.iter().next()).filter(|_| cpus <= 64) {
            assert!(page.contains(&format!(">{cpu}<")), "CPU {cpu}");
        }
        assert!(page.len() < 2 << 20, "{} bytes", page.len());
        look(&page, cpus);
    }
}

fn look(page: &str, cpus: usize) {
    let browsers = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];
    let Some(browser) = browsers.into_iter().find(|b| Path::new(b).exists()) else {
        println!("skipped: the page is not looked at: no Chromium on this machine");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    // The browser says how large the digits of a CPU's number are drawn.
    let measure = "<script>addEventListener('load',()=>{const h=[...document.querySelectorAll('svg text')].map(t=>\
        t.getBoundingClientRect().height);document.title='smallest '+Math.min(...h).toFixed(1)+' wide '+\
        (document.documentElement.scrollWidth>innerWidth)})</script></body>";
    fs::write(&file, page.replace("</body>", measure)).unwrap();
    let run = |height: u32, extra: String| {
        let mut command = Command::new(browser);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=500",
        ]);
        command.arg(format!("--window-size=1600,{height}")).arg(extra);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        let done = command.arg(format!("file://{}", file.display())).stderr(Stdio::null()).output().unwrap();
        assert!(done.status.success());
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let dom = run(1200, "--dump-dom".to_owned());
    let title = dom.split("<title>").nth(1).and_then(|t| t.split('<').next()).unwrap_or_default();
    println!("{cpus} CPUs: {title}");
    let words: Vec<&str> = title.split(' ').collect();
    let ["smallest", height, "wide", wide] = words.as_slice() else { panic!("{title:?}") };
    assert!(height.parse::<f64>().unwrap() >= 7.0, "text of {height} pixels cannot be read");
    assert_eq!(*wide, "false", "it is wider than the window");
    if let Some(keep) = std::env::var_os("PINION_KEEP_PICTURES") {
        let height = if cpus > 64 { 2600 } else { 1500 };
        run(
            height,
            format!("--screenshot={}", Path::new(&keep).join(format!("page-{cpus}-cpus.png")).display()),
        );
    }
}
