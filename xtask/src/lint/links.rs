//! Links between Markdown files: what they point at exists, its heading too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::workspace::root;

/// Links that lead nowhere.
pub(super) fn check(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|x| x == "md")) {
        let text = fs::read_to_string(root().join(file))?;
        for (line, link) in links(&text) {
            if let Some(what) = broken(file, &link) {
                findings.push(format!("{}:{line}: {link}: {what}", file.display()));
            }
        }
    }
    Ok(findings)
}

fn broken(file: &Path, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(p, a)| (p, Some(a)));
    let target = if path.is_empty() { file.to_owned() } else { resolve(file, path) };
    if !root().join(&target).exists() {
        return Some("no such file");
    }
    let anchor = anchor?;
    let text = fs::read_to_string(root().join(target)).unwrap_or_default();
    (!anchors(&text).iter().any(|a| a == anchor)).then_some("no such heading")
}

fn resolve(from: &Path, path: &str) -> PathBuf {
    let mut target = from.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(target.pop()),
            Component::Normal(name) => target.push(name),
            _ => {}
        }
    }
    target
}

/// Lines outside fenced code, with their number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return false;
        }
        !fenced
    })
}

/// Targets of inline links, with the line of each.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second part of a line cut at backquotes is code.
        let words: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for rest in words.split("](").skip(1) {
            if let Some((link, _)) = rest.split_once(')') {
                let link = link.split_whitespace().next().unwrap_or_default();
                found.push((number, link.to_owned()));
            }
        }
    }
    found
}

/// Anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter_map(|(_, l)| l.strip_prefix('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    let mut numbered = |slug: String| {
        let times = seen.entry(slug.clone()).or_default();
        *times += 1;
        if *times == 1 { slug } else { format!("{slug}-{}", *times - 1) }
    };
    headings.map(|h| numbered(slug(h))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "see [a](b.md#c) and `[x](y)`\n```\n[n](o)\n```\n![p](q.svg \"t\")\n";
        assert_eq!(links(text), [(1, "b.md#c".to_owned()), (5, "q.svg".to_owned())]);
    }

    #[test]
    fn headings_become_anchors() {
        let text = "# One `two`, three\n## Same\n## Same\n```\n# no\n```\n";
        assert_eq!(anchors(text), ["one-two-three", "same", "same-1"]);
    }

    #[test]
    fn what_leads_nowhere_is_named() {
        let file = Path::new("xtask/x.md");
        assert_eq!(broken(file, "../Cargo.toml"), None);
        assert_eq!(broken(file, "https://example.org"), None);
        assert_eq!(broken(file, "nowhere.md"), Some("no such file"));
        assert_eq!(broken(file, "../Cargo.toml#nothing"), Some("no such heading"));
    }
}
