//! Size, header, name and content of source files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::root;

/// Lines above which a file is noted, and above which it is refused; tests at its foot aside.
const SOFT: usize = 400;
const HARD: usize = 800;

/// Names that say nothing about what is in a file or folder.
const EMPTY_NAMES: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"];

/// Written in two halves, so that this file does not contain what it looks for.
const IGNORED: &str = concat!("#[", "ignore");
const FORBID: &str = concat!("#![forbid(", "unsafe_code)]");
/// What starts unsafe code, after leading space or an opening word.
const UNSAFE: [&str; 5] = [
    concat!("uns", "afe {"),
    concat!("uns", "afe fn "),
    concat!("uns", "afe impl "),
    concat!("uns", "afe extern "),
    concat!("#[uns", "afe("),
];
const MACHINE_PATHS: [&str; 3] = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// What is wrong with the files.
pub(super) fn check(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(name(file));
        // Images and fuzz seeds are no text.
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue };
        if file.file_name().is_some_and(|n| n != "Cargo.lock") {
            findings.extend(paths(file, &text));
        }
        if file.extension().is_some_and(|x| x == "rs") {
            findings.extend(source(file, &text));
        }
    }
    Ok(findings)
}

fn name(file: &Path) -> Option<String> {
    let stem = |part: &std::ffi::OsStr| Path::new(part).file_stem().map(|s| s.to_string_lossy().into_owned());
    let empty = file.iter().filter_map(stem).find(|s| EMPTY_NAMES.contains(&s.as_str()))?;
    Some(format!("{}: {empty:?} does not say what it is about", file.display()))
}

fn paths(file: &Path, text: &str) -> Vec<String> {
    let hits = (1..).zip(text.lines()).filter(|(_, l)| MACHINE_PATHS.iter().any(|p| l.contains(p)));
    hits.map(|(n, _)| format!("{}:{n}: a path of one machine", file.display())).collect()
}

fn source(file: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |what: String| findings.push(format!("{}: {what}", file.display()));
    let is_test = file.iter().any(|p| p == "tests" || p == "tests.rs");
    let lines = if is_test { text.lines().count() } else { own_lines(text) };
    if lines > HARD {
        find(format!("{lines} lines, more than {HARD}"));
    } else if lines > SOFT && !is_test {
        println!("note: {}: {lines} lines, more than {SOFT}", file.display());
    }
    let in_tests = file.file_name().is_some_and(|n| n == "tests.rs");
    if !in_tests && !header(text) {
        find("does not open with //! and what it owns".to_owned());
    }
    if text.contains(IGNORED) {
        find("an ignored test".to_owned());
    }
    let in_vmm = file.starts_with("vmm");
    if !in_vmm && is_crate_root(file) && !text.contains(FORBID) {
        find(format!("lacks {FORBID}"));
    }
    // Tests, examples and benchmarks are crates of their own, which the line above does not reach.
    if !in_vmm && unsafe_code(text) {
        find("unsafe code, which only vmm/ may have".to_owned());
    }
    findings
}

/// Whether a line that is no comment has unsafe code.
fn unsafe_code(text: &str) -> bool {
    let mut code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    code.any(|l| UNSAFE.iter().any(|u| l.contains(u)))
}

/// Whether the first line that is no attribute of the crate is a module header.
fn header(text: &str) -> bool {
    let first = text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!"));
    first.is_none_or(|l| l.starts_with("//!"))
}

/// Lines before the tests at the foot.
fn own_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let foot = lines.windows(2).position(|w| {
        matches!(w, [attribute, module] if attribute.starts_with("#[cfg(") && attribute.contains("test") && module.starts_with("mod tests"))
    });
    foot.unwrap_or(lines.len())
}

fn is_crate_root(file: &Path) -> bool {
    let place: Vec<_> = file.iter().rev().take(2).collect();
    matches!(place.as_slice(), [name, folder] if *folder == "src" && (*name == "lib.rs" || *name == "main.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<String> {
        let file = Path::new(file);
        name(file).into_iter().chain(paths(file, text)).chain(source(file, text)).collect()
    }

    #[test]
    fn a_good_file_passes() {
        let text = "//! Owns this.\n\nfn f() {}\n";
        assert!(found("api/src/cpu.rs", text).is_empty());
        assert!(found("vmm/kvm/src/lib.rs", text).is_empty());
        assert!(found("vmm/kvm/src/vm.rs", &format!("{text}{} }}\n", UNSAFE[0])).is_empty());
        assert!(found("api/src/cpu.rs", &format!("{text}// {} }}\n", UNSAFE[0])).is_empty());
    }

    #[test]
    fn each_fault_is_found() {
        for (file, text) in [
            ("api/src/utils.rs", "//! x\n".to_owned()),
            ("api/src/common/x.rs", "//! x\n".to_owned()),
            ("api/src/x.rs", "fn f() {}\n".to_owned()),
            ("api/src/x.rs", format!("//! x\n{IGNORED}]\n")),
            ("api/src/x.rs", format!("//! x\n// see {}me/x\n", "/ho")),
            ("api/src/lib.rs", "//! x\n".to_owned()),
            ("api/src/x.rs", format!("//! x\n{}", "\n".repeat(HARD))),
            ("api/tests/x.rs", format!("//! x\nfn f() {{ {} }} }}\n", UNSAFE[0])),
        ] {
            assert_eq!(found(file, &text).len(), 1, "{file}: {:?}", found(file, &text));
        }
    }

    #[test]
    fn tests_at_the_foot_do_not_count() {
        let text = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(HARD));
        assert_eq!(own_lines(&text), 1);
    }
}
