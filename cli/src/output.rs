//! What commands print on stdout: data, as a table or as JSON.

use std::io::{self, IsTerminal, Write};

/// A column that is narrowed to fit a terminal is left this wide at least.
const MIN_WIDTH: usize = 8;

/// How a table is to look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look<'a> {
    /// The columns to be narrowed, the first of them first, when a table is wider than the terminal.
    pub(crate) narrow: &'a [usize],
    /// The width of the terminal; none: nothing is narrowed.
    pub(crate) width: Option<usize>,
    /// The colour of a cell, by its column and text; none: no colours.
    pub(crate) colour: Option<fn(usize, &str) -> Option<Colour>>,
}

/// A colour of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Blue,
}

impl Colour {
    /// The text in this colour.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Blue => 34,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

impl Look<'static> {
    /// For stdout: as wide as the terminal and in colours, if it is one that has them.
    pub(crate) fn of_stdout(narrow: &'static [usize], colour: fn(usize, &str) -> Option<Colour>) -> Self {
        if !io::stdout().is_terminal() {
            return Self::default();
        }
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0);
        Self { narrow, width, colour: has_colours().then_some(colour) }
    }
}

/// Whether a terminal may be coloured (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints rows under a header, in columns as wide as they need; numbers to the right.
pub(crate) fn table(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    Table::new(header, rows, Look::default()).print(out, rows)
}

/// The columns of a table.
pub(crate) struct Table<'a> {
    header: &'a [&'a str],
    /// As many as there are columns.
    widths: Vec<usize>,
    /// As many as there are columns.
    numeric: Vec<bool>,
    look: Look<'a>,
}

impl<'a> Table<'a> {
    /// Columns for these rows, and for such as may follow.
    pub(crate) fn new(header: &'a [&'a str], rows: &[Vec<String>], look: Look<'a>) -> Self {
        let mut widths: Vec<usize> = (0..header.len())
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
                cells.chain([header[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        if let Some(width) = look.width {
            let gaps = 2 * widths.len().saturating_sub(1);
            for column in look.narrow {
                let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
                let least = MIN_WIDTH.max(header[*column].chars().count()).min(widths[*column]);
                widths[*column] = widths[*column].saturating_sub(excess).max(least);
            }
        }
        let numeric = (0..header.len())
            .map(|column| !rows.is_empty() && rows.iter().all(|row| row[column].parse::<f64>().is_ok()))
            .collect();
        Self { header, widths, numeric, look }
    }

    /// Prints the header and the rows.
    pub(crate) fn print(&self, out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
        let header: Vec<String> = self.header.iter().map(|cell| (*cell).to_owned()).collect();
        self.line(out, &header, false)?;
        self.rows(out, rows)
    }

    /// Prints rows alone.
    pub(crate) fn rows(&self, out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
        rows.iter().try_for_each(|row| self.line(out, row, true))
    }

    fn line(&self, out: &mut impl Write, cells: &[String], coloured: bool) -> io::Result<()> {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let cell = if self.look.width.is_some() { cut(cell, self.widths[column]) } else { cell.clone() };
            let padding = " ".repeat(self.widths[column].saturating_sub(cell.chars().count()));
            let colour = self.look.colour.filter(|_| coloured).and_then(|colour| colour(column, &cell));
            let cell = colour.map_or_else(|| cell.clone(), |colour| colour.paint(&cell));
            let (left, right) = if self.numeric[column] { (&*padding, "") } else { ("", &*padding) };
            text.extend([gap, left, &cell, right]);
        }
        writeln!(out, "{}", text.trim_end())
    }
}

/// A text in so many characters, the last of which stands for what is left out.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(header: &[&str], rows: &[&[&str]], look: Look) -> String {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        let mut out = Vec::new();
        Table::new(header, &rows, look).print(&mut out, &rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_they_need_and_numbers_stand_to_the_right() {
        let text = printed(&["ID", "NAME"], &[&["1", "a"], &["22", "longer"]], Look::default());
        assert_eq!(text, "ID  NAME\n 1  a\n22  longer\n");
    }

    #[test]
    fn a_table_fits_its_terminal_as_long_as_there_is_something_to_narrow() {
        let rows: &[&[&str]] = &[&["abc", "a label that is long", "a command that is longer"]];
        let fit =
            |width| printed(&["ID", "LABEL", "TASK"], rows, Look { narrow: &[2, 1], width: Some(width), colour: None });
        assert_eq!(fit(80), "ID   LABEL                 TASK\nabc  a label that is long  a command that is longer\n");
        assert_eq!(fit(40), "ID   LABEL                 TASK\nabc  a label that is long  a command th…\n");
        assert_eq!(fit(24), "ID   LABEL      TASK\nabc  a label …  a comma…\n");
        assert_eq!(fit(5), "ID   LABEL     TASK\nabc  a label…  a comma…\n", "what is left is printed all the same");
    }

    #[test]
    fn colours_take_no_room() {
        let colour = |column: usize, text: &str| (column == 0 && text == "ok").then_some(Colour::Green);
        let text =
            printed(&["STATE", "X"], &[&["ok", "a"], &["no", "b"]], Look { colour: Some(colour), ..Look::default() });
        assert_eq!(text, "STATE  X\n\u{1b}[32mok\u{1b}[0m     a\nno     b\n");
    }
}
