//! Whole files: what is no spec, several documents, JSON, and what comes out of a good one.

use pinion_api::{Document, HostDisk, ImageFormat, ProblemCode, parse};

/// A good instance.
const GOOD: &str = include_str!("data/small.yaml");

fn problems(text: &str) -> String {
    match parse(text) {
        Ok(_) => "good".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn files_that_are_no_specs_get_one_clear_error() {
    let code = |input: &[u8]| {
        let problems = parse(input).unwrap_err();
        assert_eq!(problems.iter().count(), 1, "{problems}");
        problems.iter().map(|problem| problem.code).next().unwrap()
    };
    assert_eq!(code(b""), ProblemCode::Empty);
    assert_eq!(code(b"# nothing\n---\n"), ProblemCode::Empty);
    assert_eq!(code(b"\x7fELF\x02\x01\x01\x00\x00"), ProblemCode::NotText);
    assert_eq!(code(&[0xff, 0xfe, b'a', 0]), ProblemCode::NotText);
    assert_eq!(code(&vec![b'a'; 100 << 20]), ProblemCode::TooLarge);
    assert_eq!(code(b"just words"), ProblemCode::WrongType);
    assert_eq!(code(b"{\"apiVersion\": "), ProblemCode::Syntax);
    assert_eq!(code(&GOOD.as_bytes()[..GOOD.len() - 4]), ProblemCode::Syntax);
    assert_eq!(code(b"apiVersion: v1\nkind: Pod\n"), ProblemCode::UnsupportedKind);
    assert_eq!(code(GOOD.replace("/v1", "/v1alpha3").as_bytes()), ProblemCode::UnsupportedKind);
    assert_eq!(code(b"kind: VirtualMachine\n"), ProblemCode::Required);
    assert_eq!(code("a: ".repeat(10).as_bytes()), ProblemCode::Syntax);
    assert_eq!(code("[".repeat(5000).as_bytes()), ProblemCode::Syntax);
}

#[test]
fn repeated_aliases_cannot_exhaust_memory() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let problems = parse(text).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [ProblemCode::TooLarge]);
}

#[test]
fn syntax_errors_have_a_place_and_later_documents_are_still_read() {
    let text = format!("a: [1\nb: }}\n---\n{}", GOOD.replace("cores", "coers"));
    let text = problems(&text);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("document 1: Not valid YAML: ") && lines[0].contains("(line 2, column "),
        "{text}"
    );
    assert!(
        lines[1].starts_with("document 2 (VirtualMachineInstance guest): spec.domain.cpu.coers: "),
        "{text}"
    );
}

#[test]
fn several_documents_json_and_lists_are_read() {
    let yaml = format!("{GOOD}---\n{GOOD}");
    assert_eq!(parse(&yaml).unwrap().len(), 2);
    let instance = parse(GOOD).unwrap().remove(0).into_instance();
    let json = serde_json::to_string(&instance).unwrap();
    assert_eq!(parse(&json).unwrap().remove(0).into_instance(), instance);
    let pretty = serde_json::to_string_pretty(&instance).unwrap().replace("  ", "\t");
    assert_eq!(parse(format!("{pretty}\n{json}")).unwrap().len(), 2);
    let list = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{json}, {}]}}",
        json.replace("cores", "coers")
    );
    let problems = parse(list).unwrap_err();
    assert!(problems.to_string().starts_with("items[1].spec.domain.cpu.coers: "), "{problems}");
}

#[test]
fn defaults_are_filled_in() {
    let text = GOOD.replace("cpu: {cores: 2}", "resources: {limits: {cpu: 2500m}}").replace("256Mi", "100M");
    let Some(document) = parse(&text).ok().and_then(|mut documents| documents.pop()) else {
        panic!("{}", problems(&text));
    };
    assert!(matches!(document, Document::VirtualMachineInstance(_)));
    let instance = document.into_instance();
    let spec = &instance.spec;
    assert_eq!((spec.topology().sockets, spec.topology().cores, spec.topology().threads), (3, 1, 1));
    assert_eq!(spec.guest_memory(), Some(100_003_840));
    assert_eq!(spec.page_size(), 4096);
    assert_eq!(spec.grace_period().as_secs(), 30);
    assert_eq!(instance.full_name(), "default/guest");
    assert_eq!(instance.host_name(), "guest");
    let json = serde_json::to_value(&instance).unwrap();
    assert_eq!(json["spec"]["architecture"], "amd64");
    assert_eq!(json["spec"]["domain"]["devices"]["disks"][0]["disk"]["bus"], "virtio");
    assert_eq!(json["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"].as_str().unwrap().len(), 17);
    assert_eq!(json["metadata"]["namespace"], "default");
}

#[test]
fn a_machine_makes_an_instance_with_its_name_and_the_templates_labels() {
    let text = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: a, namespace: lab, labels: {of: machine}}
spec:
  runStrategy: Halted
  template:
    metadata: {creationTimestamp: null, labels: {of: instance}}
    spec:
      domain:
        memory: {guest: 1Gi}
        devices: {}
        firmware: {kernelBoot: {container: {image: 'file:/b', kernelPath: k}}}
";
    let instance = parse(text).unwrap().remove(0).into_instance();
    assert_eq!(instance.full_name(), "lab/a");
    assert_eq!(instance.kind, "VirtualMachineInstance");
    assert_eq!(instance.metadata.labels["of"], "instance");
}

#[test]
fn a_file_of_nothing_but_problems_is_answered_in_bounds() {
    for text in ["{}".repeat(100_000), "--- a\n".repeat(100_000), "}\n---\n".repeat(100_000)] {
        let problems = parse(text).unwrap_err();
        assert_eq!(problems.iter().count(), 1001);
        assert_eq!(problems.iter().last().map(|problem| problem.code), Some(ProblemCode::TooLarge));
    }
}

#[test]
fn of_two_readers_the_one_that_understood_more_reports() {
    assert!(problems("{a: 1, b: [}").starts_with("Not valid YAML: "), "{}", problems("{a: 1, b: [}"));
    let answer = problems("{\"kind\": 1}\n{\"a\": }");
    assert!(answer.ends_with("Not valid JSON: expected value (line 2, column 7)"), "{answer}");
}

#[test]
fn tags_that_would_change_a_value_are_refused() {
    assert_eq!(problems(&GOOD.replace("{name: guest}", "!!map {name: !!str 7}")), "good");
    assert!(problems("!Pod {a: 1}").starts_with("The tag !Pod is not read"));
    assert!(
        problems(&GOOD.replace("{name: guest}", "{name: !secret guest}"))
            .starts_with("The tag !secret is not read")
    );
}

#[test]
fn an_images_format_follows_from_its_name() {
    let format = |path: &str| HostDisk { path: path.to_owned(), ..HostDisk::default() }.format();
    assert_eq!(format("/a/root.qcow2"), ImageFormat::Qcow2);
    assert_eq!(format("/a.qcow2/root.img"), ImageFormat::Raw);
    assert_eq!(format("/dev/vg/root"), ImageFormat::Raw);
    let text = GOOD.replace("/root.img, type: Disk", "/root.qcow2, type: DiskOrCreate, capacity: 1Gi");
    assert!(problems(&text).starts_with("spec.volumes[0].hostDisk.type: DiskOrCreate makes raw images"));
}
