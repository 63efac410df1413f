//! What commands print on stdout: data, as a table or as JSON.

use std::io::{self, Write};

/// Prints rows under a header, in columns as wide as they need; numbers to the right.
pub(crate) fn table(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([header[column].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..header.len())
        .map(|column| !rows.is_empty() && rows.iter().all(|row| row[column].parse::<f64>().is_ok()))
        .collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| -> io::Result<()> {
        let mut text = String::new();
        for (column, cell) in cells.enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let width = widths[column];
            let padding = " ".repeat(width - cell.chars().count());
            let (left, right) = if numeric[column] { (&*padding, "") } else { ("", &*padding) };
            text.extend([gap, left, cell, right]);
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(&mut header.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_they_need_and_numbers_stand_to_the_right() {
        let rows = vec![vec!["1".to_owned(), "a".to_owned()], vec!["22".to_owned(), "longer".to_owned()]];
        let mut out = Vec::new();
        super::table(&mut out, &["ID", "NAME"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID  NAME\n 1  a\n22  longer\n");
    }
}
