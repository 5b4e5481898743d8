//! The command `test`. Source: GRUB manual, "test".

use super::machine::Machine;

/// Whether an expression holds: `a`, `! a`, `a -a b`, `a -o b`, `( a )`.
pub(super) fn holds(machine: &Machine<'_>, words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    any(machine, &words)
}

fn any(machine: &Machine<'_>, words: &[&str]) -> bool {
    words.split(|w| *w == "-o").any(|part| part.split(|w| *w == "-a").all(|p| one(machine, p)))
}

fn one(machine: &Machine<'_>, words: &[&str]) -> bool {
    match words {
        ["!", rest @ ..] => !one(machine, rest),
        ["(", rest @ .., ")"] if !rest.contains(&"(") => any(machine, rest),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-d", path] => {
            let file = machine.locate(path);
            file.is_some_and(|f| {
                machine.volumes.files(f.volume).is_some_and(|files| files.is_folder(&f.path))
            })
        }
        ["-e", path] => size(machine, path).is_some() || one(machine, &["-d", path]),
        ["-f", path] => size(machine, path).is_some(),
        ["-s", path] => size(machine, path).is_some_and(|bytes| bytes > 0),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        [a, "<", b] => a < b,
        [a, ">", b] => a > b,
        [a, "<=", b] => a <= b,
        [a, ">=", b] => a >= b,
        [a, operator @ ("-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge"), b] => {
            let (a, b) = (number(a), number(b));
            match *operator {
                "-eq" => a == b,
                "-ne" => a != b,
                "-lt" => a < b,
                "-le" => a <= b,
                "-gt" => a > b,
                _ => a >= b,
            }
        }
        [text] => !text.is_empty(),
        _ => false,
    }
}

fn number(text: &str) -> i64 {
    text.trim().parse().unwrap_or(0)
}

fn size(machine: &Machine<'_>, path: &str) -> Option<u64> {
    let file = machine.locate(path)?;
    machine.volumes.files(file.volume)?.size(&file.path)
}
