//! Writes JSON as YAML, as kubectl does: keys in order, lists at the indent of their key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Words that YAML 1.1 or 1.2 takes for something else than text.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
/// Suffixes of quantities.
const SUFFIXES: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// A document.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// What is in a map or list, a line for each; else one line.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            for (number, (key, value)) in sorted.into_iter().enumerate() {
                if number > 0 {
                    spaces(indent, text);
                }
                text.push_str(&scalar(key));
                text.push(':');
                after_key(value, indent, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    spaces(indent, text);
                }
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        value => {
            text.push_str(&line(value));
            text.push('\n');
        }
    }
}

fn after_key(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            spaces(indent + 2, text);
            block(value, indent + 2, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            spaces(indent, text);
            block(value, indent, text);
        }
        value => {
            let _ = writeln!(text, " {}", line(value));
        }
    }
}

fn spaces(count: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', count));
}

fn line(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // Empty ones, numbers, true, false, null: as in JSON.
        other => other.to_string(),
    }
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Whether every reader takes it for text as it stands.
fn is_plain(text: &str) -> bool {
    let quantity = SUFFIXES.iter().find_map(|suffix| text.strip_suffix(suffix));
    if quantity.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return true;
    }
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// In double quotes, with escapes for what is not printable everywhere.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if is_printable(c) => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Source: YAML 1.2, `c-printable`, less what breaks lines, changes their direction or marks an order of bytes.
fn is_printable(c: char) -> bool {
    let hidden =
        matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    !c.is_control() && !hidden
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let value = json!({
            "a": {"empty": {}, "none": [], "text": "x: y # z", "list": [{"b": 1, "a": true}, [1, 2], "- x", {}]},
            "words": ["yes", "NO", "null", "~", "", "1e3", "0x10", "017", "52:54:00:12:34:56", "512Mi", "12Mi34", "-"],
            "text": "two\nlines\tand \"quotes\" \\ \u{7f}\u{85}\u{2028}\u{feff}\u{1f600} é",
            "key with spaces": {"null": -1},
        });
        let text = to_yaml(&value);
        assert_eq!(crate::plain_yaml(&text).unwrap(), value, "{text}");
    }

    #[test]
    fn it_looks_as_kubectl_writes_it() {
        let value =
            json!({"spec": {"list": [{"name": "a", "size": "1Gi"}, {"name": "b"}], "on": {}}, "kind": "VM"});
        let expected = "kind: VM\nspec:\n  list:\n  - name: a\n    size: 1Gi\n  - name: b\n  \"on\": {}\n";
        assert_eq!(to_yaml(&value), expected);
    }
}
