//! Boots a kernel on the machine, with nothing around it: `boot KERNEL INITRD COMMAND-LINE [key=value…]`.
//!
//! Keys: `sockets`, `cores`, `threads`, `cells`, `mib` (of each cell), `page` (bytes), `cpus`
//! (a comma list, one per vCPU), `nodes` (a comma list, one per cell), `disk` (an image, may be
//! repeated), `io` (CPU of an I/O thread for the disks), `tap` (a tap device), `fifo` (a real-time
//! priority), `input` (`yes`: the console reads standard input), `press` and `stop` (seconds after which the
//! power button is pressed, and the guest stopped by force).

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_block::{Access, DiskOptions};
use vmm_host::Tap;
use vmm_machine::{
    ArmedMachine, CellConfig, ConsoleConfig, DiskConfig, GuestEnd, Hints, IoThreadConfig, Kernel,
    KernelFiles, MachineConfig, NetConfig, Rng, RunningMachine, VcpuConfig,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().ok_or("usage: boot KERNEL INITRD COMMAND-LINE [key=value…]");
    let (kernel, initrd, command_line) = (File::open(next()?)?, File::open(next()?)?, next()?);
    let pairs: Vec<(String, String)> =
        words.filter_map(|w| w.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect();
    let config = config(kernel, initrd, command_line, &pairs)?;
    let mut progress = |phase: &str, time| eprintln!("{phase}: {time:?}");
    let machine = ArmedMachine::arm(config, &mut progress)?.run();
    wait(&machine, &pairs)?;
    let (end, stats) = (machine.end(), machine.stats());
    drop(machine);
    eprintln!(
        "first entry after {:?}, {} reboots, {:?}, {:?}, {:?}",
        stats.first_entry, stats.reboots, stats.vcpus, stats.disks, stats.nets
    );
    match end {
        Some(GuestEnd::PoweredOff) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// Waits for the guest's end, and does meanwhile what `press` and `stop` say.
fn wait(machine: &RunningMachine, pairs: &[(String, String)]) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let seconds = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.parse::<u64>()).transpose();
    let (mut press, mut stop) = (seconds("press")?, seconds("stop")?);
    let due = |after: &mut Option<u64>| {
        after.take_if(|after| began.elapsed() >= Duration::from_secs(*after)).is_some()
    };
    while machine.end().is_none() {
        if due(&mut press) {
            machine.power_button();
        }
        if due(&mut stop) {
            machine.stop();
        }
        poll(&mut [PollFd::new(machine.ended_fd(), PollFlags::POLLIN)], PollTimeout::from(100u8))?;
    }
    Ok(())
}

fn config(
    kernel: File,
    initrd: File,
    command_line: String,
    pairs: &[(String, String)],
) -> Result<MachineConfig, Box<dyn Error>> {
    let last: HashMap<&str, &str> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let number = |key: &str, default: u64| last.get(key).map_or(Ok(default), |v| v.parse::<u64>());
    let list = |key: &str| -> Result<Vec<u32>, std::num::ParseIntError> {
        last.get(key).map_or(Ok(Vec::new()), |v| v.split(',').map(str::parse).collect())
    };
    let count = |key| -> Result<u32, Box<dyn Error>> { Ok(u32::try_from(number(key, 1)?)?) };
    let (sockets, cores, threads, cells) =
        (count("sockets")?, count("cores")?, count("threads")?, count("cells")?);
    let fifo = last.get("fifo").map(|v| v.parse()).transpose()?;
    let (cpus, nodes) = (list("cpus")?, list("nodes")?);
    let total = sockets * cores * threads;
    let vcpu = |i: u32| VcpuConfig {
        socket: i / (cores * threads),
        core: i / threads % cores,
        thread: i % threads,
        cell: i * cells / total,
        cpus: vec![cpus.get(i as usize).copied().unwrap_or(0)],
        fifo,
    };
    let cell = |c: u32| -> Result<CellConfig, Box<dyn Error>> {
        Ok(CellConfig {
            memory_bytes: number("mib", 256)? << 20,
            page_size: number("page", 4096)?,
            host_node: nodes.get(c as usize).copied(),
            distances: (0..cells).map(|o| if o == c { 10 } else { 21 }).collect(),
        })
    };
    let options = DiskOptions { access: Access::ReadWrite, format: None };
    let io = last.get("io").map(|v| v.parse::<u32>()).transpose()?;
    let io_thread = io.map(|_| 0);
    let nets = last.get("tap").map(|name| Tap::open(name)).transpose()?.map(|tap| NetConfig {
        name: tap.name().to_owned(),
        tap: tap.into_fd(),
        mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
    });
    let input = last.contains_key("input").then(|| std::io::stdin().as_fd().try_clone_to_owned());
    let output = Some(std::io::stdout().as_fd().try_clone_to_owned()?);
    let disks = pairs.iter().filter(|(k, _)| k == "disk").enumerate().map(|(n, (_, path))| {
        let image = vmm_block::open(Path::new(path), options)?;
        Ok(DiskConfig {
            name: path.clone(),
            image: Arc::new(Mutex::new(image)),
            serial: format!("disk-{n}"),
            io_thread,
        })
    });
    Ok(MachineConfig {
        sockets,
        cores,
        threads,
        vcpus: (0..total).map(vcpu).collect(),
        cells: (0..cells).map(cell).collect::<Result<_, _>>()?,
        kernel: Kernel::Files(KernelFiles { kernel, initrd: Some(initrd), command_line }),
        disks: disks.collect::<Result<_, Box<dyn Error>>>()?,
        nets: nets.into_iter().collect(),
        devices: Vec::new(),
        iommu: None,
        rng: Rng::Present,
        console: ConsoleConfig { output, input: input.transpose()? },
        io_threads: io.map(|cpu| IoThreadConfig { id: 0, cpus: vec![cpu] }).into_iter().collect(),
        emulator_cpus: vec![0],
        hints: Hints::Dedicated,
    })
}
