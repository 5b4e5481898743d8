//! Tables as `kubectl` prints them: columns by content, two spaces apart, no lines.

/// A table of text.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new(names: &[&str]) -> Self {
        Self { rows: vec![names.iter().map(|&n| n.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, below each row its text of several lines, which may be empty.
    pub(crate) fn with_below(&self, below: impl IntoIterator<Item = String>) -> String {
        let table = self.picture(0);
        let below = std::iter::once(String::new()).chain(below);
        table.lines().zip(below).map(|(line, below)| format!("{line}\n{below}")).collect()
    }

    /// The lines, each indented by `indent` spaces and without trailing spaces.
    pub(crate) fn picture(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["10".to_owned(), "a".to_owned()]);
        table.row(["1".to_owned(), "longer".to_owned()]);
        assert_eq!(table.picture(1), " ID  NAME\n 10  a\n 1   longer\n");
    }
}
