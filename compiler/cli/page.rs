//! Results laid out once, as text for a terminal and as a page for a browser.

use std::fmt::Write as _;

/// Width of a bar in text.
const BAR: usize = 24;

/// A titled list of sections.
pub struct Page {
    /// What it is about.
    pub title: String,
    /// Its sections, of which empty ones are left out.
    pub sections: Vec<Section>,
}

/// A titled table.
#[derive(Default)]
pub struct Section {
    /// What it shows; nothing for the first.
    pub title: String,
    /// Heads of the columns; none for lists of facts.
    pub head: Vec<&'static str>,
    /// Rows, of as many cells as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// What stands in one place of a table.
pub enum Cell {
    /// Words, which begin at the same place.
    Text(String),
    /// A number, whose units end at the same place.
    Number(String),
    /// A share of one, drawn as a bar.
    Bar(f64),
}

impl Cell {
    /// Words. They may come from a model.
    pub fn text(text: impl AsRef<str>) -> Self {
        Cell::Text(clean(text.as_ref()))
    }

    fn to_text(&self) -> String {
        match self {
            Cell::Text(text) | Cell::Number(text) => text.clone(),
            Cell::Bar(share) => {
                let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
                "█".repeat(full) + &"·".repeat(BAR - full)
            }
        }
    }
}

impl Section {
    /// Facts: a name and what is to be said of it.
    pub fn facts(title: &str, facts: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let rows = facts.into_iter().map(|(name, fact)| vec![Cell::text(name), Cell::text(fact)]).collect();
        Section { title: title.to_owned(), head: Vec::new(), rows }
    }

    /// A list of sentences or names.
    pub fn lines(title: &str, lines: impl IntoIterator<Item = String>) -> Self {
        let rows = lines.into_iter().map(|line| vec![Cell::text(line)]).collect();
        Section { title: title.to_owned(), head: Vec::new(), rows }
    }
}

/// A text without characters that steer a terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl Page {
    /// The page as text, with columns lined up.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.title.is_empty() {
            out.push_str(&clean(&self.title));
            out.push('\n');
        }
        for section in self.sections.iter().filter(|section| !section.rows.is_empty()) {
            if !out.is_empty() {
                out.push('\n');
            }
            if !section.title.is_empty() {
                out.push_str(&clean(&section.title));
                out.push('\n');
            }
            section.write_text(&mut out);
        }
        out
    }

    /// The page as HTML that needs nothing else.
    pub fn to_html(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\n\
             body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}\n\
             table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; }}\n\
             td, th {{ padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }}\n\
             .n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}\n\
             </style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        for section in self.sections.iter().filter(|section| !section.rows.is_empty()) {
            if !section.title.is_empty() {
                out += &format!("<h2>{}</h2>\n", escape(&section.title));
            }
            section.write_html(&mut out);
        }
        out + "</body>\n</html>\n"
    }
}

impl Section {
    fn write_text(&self, out: &mut String) {
        let cells: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(Cell::to_text).collect()).collect();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = (0..columns).map(|c| self.head.get(c).map_or(0, |head| width(head))).collect();
        for (column, widest) in widths.iter_mut().enumerate() {
            let cells = cells.iter().filter_map(|row| row.get(column));
            *widest = cells.map(|cell| width(cell)).max().unwrap_or(0).max(*widest);
        }
        let mut line = |row: &mut dyn Iterator<Item = (&str, bool)>| {
            let mut text = String::new();
            for ((cell, right), &width) in row.zip(&widths) {
                // Writing to a string cannot fail.
                let _ = if right { write!(text, "  {cell:>width$}") } else { write!(text, "  {cell:<width$}") };
            }
            out.push_str(text.trim_end());
            out.push('\n');
        };
        let is_number = |column: usize| self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
        if !self.head.is_empty() {
            line(&mut self.head.iter().enumerate().map(|(column, &head)| (head, is_number(column))));
        }
        for row in &cells {
            line(&mut row.iter().enumerate().map(|(column, cell)| (cell.as_str(), is_number(column))));
        }
    }

    fn write_html(&self, out: &mut String) {
        out.push_str("<table>\n");
        if !self.head.is_empty() {
            let heads: String = self.head.iter().map(|head| format!("<th>{}</th>", escape(head))).collect();
            *out += &format!("<tr>{heads}</tr>\n");
        }
        for row in &self.rows {
            let cell = |cell: &Cell| match cell {
                Cell::Text(text) => format!("<td>{}</td>", escape(text)),
                Cell::Number(text) => format!("<td class=\"n\">{}</td>", escape(text)),
                Cell::Bar(share) => format!("<td><meter value=\"{:.4}\"></meter></td>", share.clamp(0.0, 1.0)),
            };
            let cells: String = row.iter().map(cell).collect();
            *out += &format!("<tr>{cells}</tr>\n");
        }
        out.push_str("</table>\n");
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let row = |name: &str, cycles: &str, share: f64| {
            vec![Cell::text(name), Cell::Number(cycles.to_owned()), Cell::Bar(share)]
        };
        let table = Section {
            title: "where".to_owned(),
            head: vec!["part", "cycles", "share"],
            rows: vec![row("<b>\u{1b}[2J", "12", 0.5), row("y", "1,234", 0.0)],
        };
        Page { title: "a & b".to_owned(), sections: vec![Section::lines("empty", []), table] }
    }

    #[test]
    fn columns_line_up() {
        let expected = "a & b\n\nwhere\n  part     cycles  share\n  <b>\u{fffd}[2J      12  \
                        ████████████············\n  y         1,234  ························\n";
        assert_eq!(page().to_text(), expected);
    }

    #[test]
    fn names_cannot_become_markup() {
        let html = page().to_html();
        assert!(html.contains("<td>&lt;b&gt;\u{fffd}[2J</td>"), "{html}");
        assert!(html.contains("<h1>a &amp; b</h1>"), "{html}");
    }
}
