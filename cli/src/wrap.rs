//! Sentences on a terminal: broken at spaces, and without characters that move the cursor.
//!
//! Called by every command that prints sentences. It must never break a word: a path or a
//! command that is longer than a line stays whole, so that it can be copied.

/// `text` after `lead`, broken at spaces so that no line is wider than `width`;
/// later lines are indented by `indent`.
pub(crate) fn wrapped(lead: &str, text: &str, indent: usize, width: usize) -> String {
    let indent = indent.min(width / 2);
    let (mut lines, mut line) = (String::new(), lead.to_owned());
    let mut fresh = true;
    for word in text.split_inclusive(' ') {
        let fits = line.chars().count() + word.trim_end().chars().count() <= width;
        if !fits && !fresh {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = " ".repeat(indent);
        }
        line.push_str(word);
        fresh = false;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}

/// Text from files of the host or of a gathered tree, safe to print.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_between_words_and_only_there() {
        let text = wrapped("- ", "one two three /a/long/path/that/stays", 2, 12);
        assert_eq!(text, "- one two\n  three\n  /a/long/path/that/stays\n");
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2J\n\u{202e}b"), "a?[2J??b");
    }
}
