//! Numbers for people.

/// `value` with as many digits as mean something: `1,234,567`, `12.3`, `0.987`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    match value.abs() {
        size if size >= 100.0 => grouped(value.round() as i64),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if value < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rows as aligned columns: the first to the left, the others to the right. The first row is the heading.
pub(crate) fn table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| if at < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_short() {
        let shown: Vec<String> = [1_234_567.4, 999.6, 12.34, 0.987_6, 0.0, 0.012_34].into_iter().map(number).collect();
        assert_eq!(shown, ["1,234,567", "1,000", "12.3", "0.99", "0.00", "0.0123"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["side".to_owned(), "jobs/s".to_owned()], vec!["ours".to_owned(), "12".to_owned()]];
        assert_eq!(table(&rows, 1), "side  jobs/s\nours      12\n");
    }
}
