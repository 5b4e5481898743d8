//! Pictures of machines: golden text, well-formed SVG, hostile names, large machines.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use pinion_machine::{Bdf, CpuId, CpuSet, Machine, NodeId, PageSize, PciFunction, PciLink};
use pinion_map::{Color, Style, View, svg, text};
use pinion_planner::{
    Cell, Device, Emulator, HeldFloating, HeldMemory, Holding, HoldingState, IoThread, Occupancy, Placement,
    Shape, Vcpu,
};

fn bdf(address: &str) -> Bdf {
    address.parse().unwrap()
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn function(address: &str, class: u32, node: Option<u32>, name: &str) -> PciFunction {
    PciFunction {
        address: bdf(address),
        vendor: 0x8086,
        device: 0x1572,
        class,
        node: node.map(NodeId),
        iommu_group: Some(17),
        driver: Some("vfio-pci".into()),
        link: Some(PciLink { speed: 80, width: 4, max_speed: 160, max_width: 16 }),
        reset_methods: vec!["flr".into()],
        os_devices: if name.is_empty() { vec![] } else { vec![name.into()] },
        ..PciFunction::default()
    }
}

fn machine() -> Machine {
    let mut machine = Shape::new(4, 4).threads(2).l3_cores(2).huge_pages(PageSize::MIB2, 4096).build();
    machine.packages[0].model = Some("AMD EPYC 7543 32-Core Processor".into());
    machine.kernel.release = Some("6.1.0-56-amd64".into());
    machine.kernel.isolated = cpus("4-7,20-23");
    machine.pci = vec![
        function("0000:00:01.0", 0x010802, None, "nvme0n1"),
        function("0000:00:02.0", 0x060400, None, ""),
        function("0000:3b:00.0", 0x020000, Some(1), "enp59s0f0"),
        function("0000:5e:00.0", 0x030000, Some(1), ""),
    ];
    machine
}

fn occupancy(owner: &str) -> Occupancy {
    let old = Holding {
        owner: owner.into(),
        state: HoldingState::Committed,
        cpus: cpus("12,13,29"),
        floating: vec![HeldFloating { cpus: cpus("8-9"), vcpus: 3 }],
        memory: vec![HeldMemory { node: NodeId(3), page_size: PageSize::MIB2, bytes: 2 << 30 }],
        devices: vec![bdf("0000:5e:00.0")],
    };
    Occupancy { generation: 1, housekeeping: cpus("0,16"), holdings: vec![old] }
}

fn placement(name: &str, first: u32) -> Placement {
    let own = [first, first + 16, first + 1, first + 17];
    let vcpu = |(cpu, id): (u32, u32)| Vcpu {
        id,
        socket: 0,
        core: id / 2,
        thread: id % 2,
        cell: 0,
        cpu: Some(CpuId(cpu)),
        cpus: CpuSet::new(),
        realtime: false,
    };
    Placement {
        name: name.into(),
        generation: 1,
        vcpus: own.into_iter().zip(0..).map(vcpu).collect(),
        emulator: Emulator { cpus: cpus("0,16") },
        io_threads: vec![IoThread { id: 1, cpus: cpus("6"), disks: vec!["root".into()] }],
        cells: vec![Cell {
            id: 0,
            host_node: NodeId(1),
            memory_bytes: 4 << 30,
            page_size_bytes: PageSize::MIB2,
            vcpus: vec![0, 1, 2, 3],
            distances: vec![10],
        }],
        devices: vec![Device {
            name: "nic".into(),
            address: bdf("0000:3b:00.0"),
            iommu_group: Some(17),
            host_node: Some(NodeId(1)),
            cell: 0,
            interrupt_cpus: pinion_machine::CpuSet::new(),
        }],
    }
}

fn placed() -> (Machine, View) {
    let machine = machine();
    let view = View::of(&machine, &occupancy("default/old")).with_placement(&placement("rt/plc", 4));
    (machine, view)
}

fn plain(machine: &Machine, view: &View, width: usize) -> String {
    text(machine, view, Style { width, color: Color::Never })
}

/// Every text of the document, and that it parses.
fn texts(document: &str) -> Vec<String> {
    let parsed = roxmltree::Document::parse(document).unwrap();
    let named = parsed.descendants().filter(|n| n.has_tag_name("text") || n.has_tag_name("title"));
    named.filter_map(|n| n.text().map(str::to_owned)).collect()
}

#[test]
fn a_placed_machine_at_80_columns() {
    let (machine, view) = placed();
    insta::assert_snapshot!(plain(&machine, &view, 80));
}

#[test]
fn a_placed_machine_at_40_columns() {
    let (machine, view) = placed();
    insta::assert_snapshot!(plain(&machine, &view, 40));
}

#[test]
fn sixty_four_nodes_of_256_cores_fit_on_a_screen() {
    let machine = Shape::new(64, 256).threads(2).l3_cores(8).huge_pages(PageSize::GIB1, 100).build();
    let view = View::of(&machine, &Occupancy { housekeeping: cpus("0,16384"), ..Occupancy::default() });
    insta::assert_snapshot!(plain(&machine, &view, 80));
    assert!(svg(&machine, &view).len() < 20_000);
}

#[test]
fn a_touched_node_of_a_large_machine_is_drawn_by_itself() {
    let machine = Shape::new(16, 4).build();
    let occupancy = Occupancy { housekeeping: cpus("0"), ..Occupancy::default() };
    let mut plan = placement("rt/plc", 36);
    plan.vcpus.truncate(1);
    plan.io_threads.clear();
    plan.devices.clear();
    plan.cells[0].host_node = NodeId(9);
    let drawn = plain(&machine, &View::of(&machine, &occupancy).with_placement(&plan), 100);
    assert!(drawn.contains("node 9 "), "{drawn}");
    assert!(drawn.contains("× 13 more alike: nodes 2-8,10-15"), "{drawn}");
}

#[test]
fn no_line_is_wider_than_asked() {
    let (machine, view) = placed();
    for width in 40..=200 {
        let drawn = plain(&machine, &view, width);
        let widest = drawn.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width, "{widest} columns in {width}:\n{drawn}");
    }
    assert_eq!(plain(&machine, &view, 0), plain(&machine, &view, 40));
    assert_eq!(plain(&machine, &view, 9999), plain(&machine, &view, 200));
}

#[test]
fn colour_changes_nothing_but_colour() {
    let (machine, view) = placed();
    let mut colored = text(&machine, &view, Style { width: 80, color: Color::Ansi });
    assert!(colored.contains("\x1b["));
    while let Some(start) = colored.find('\x1b') {
        let length = colored[start..].find('m').unwrap();
        colored.replace_range(start..=start + length, "");
    }
    let trimmed: String = colored.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert_eq!(trimmed, plain(&machine, &view, 80));
}

#[test]
fn svg_names_vcpus_io_threads_cells_and_guests() {
    let (machine, view) = placed();
    let texts = texts(&svg(&machine, &view));
    for wanted in
        ["v0", "v3", "io1", "hk", "~A", "rt/plc", "default/old", "cell 0: v0-3, 4 GiB in 2Mi pages, node 1"]
    {
        assert!(texts.iter().any(|t| t == wanted), "{wanted} in {texts:?}");
    }
    assert!(texts.iter().any(|t| t == "CPU 4 of core 4: dedicated to rt/plc (v0)"));
}

#[test]
fn several_planned_guests_are_told_apart() {
    let machine = machine();
    let view = View::of(&machine, &Occupancy::default());
    let mut second = placement("rt/b", 8);
    second.io_threads.clear();
    let view = view.with_placement(&placement("rt/a", 4)).with_placement(&second);
    let texts = texts(&svg(&machine, &view));
    assert!(texts.iter().any(|t| t == "Av0") && texts.iter().any(|t| t == "Bv3"), "{texts:?}");
}

#[test]
fn hostile_names_stay_inside_their_place() {
    let hostile = "a</text><script>alert(1)</script>\u{1b}[2J\u{0}\u{202e}&\"'";
    let mut machine = machine();
    machine.packages[0].model = Some(hostile.into());
    machine.pci[2].os_devices = vec![hostile.into()];
    machine.pci[3].driver = Some(hostile.into());
    machine.kernel.release = Some(hostile.into());
    machine.source = pinion_machine::Source::Xml(hostile.into());
    let mut plan = placement(hostile, 4);
    plan.io_threads[0].disks = vec![hostile.into()];
    plan.devices[0].name = hostile.into();
    let view = View::of(&machine, &occupancy(&format!("{hostile}2"))).with_placement(&plan);
    let document = svg(&machine, &view);
    let parsed = roxmltree::Document::parse(&document).unwrap();
    assert!(!parsed.descendants().any(|n| n.has_tag_name("script")));
    let drawn = plain(&machine, &view, 80);
    assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()), "{drawn}");
    assert!(drawn.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn odd_machines_are_drawn() {
    let mut odd = Shape::new(4, 2).without_cpus(&[1, 3]).without_memory(&[2]).build();
    odd.nodes[1].huge_pages.clear();
    odd.cores[0].node = None;
    odd.cores[0].l3 = None;
    odd.nodes[2].package = None;
    for machine in [odd, Machine::default()] {
        let view = View::of(&machine, &Occupancy::default());
        assert!(!texts(&svg(&machine, &view)).is_empty());
        let drawn = plain(&machine, &view, 60);
        assert!(machine.nodes.is_empty() || drawn.contains("Memory without CPUs"), "{drawn}");
    }
}
