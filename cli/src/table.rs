//! Aligned columns for people.

/// Lines of `rows` under `header`, columns padded, no trailing blanks.
pub fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = header.iter().map(|h| (*h).to_string()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width =
        |column: usize| all().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in all() {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `1.2 MB`, `67.5 GB`: decimal as registries count.
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "printed with one decimal")]
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 10_000.0 { format!("{megabytes:.1} MB") } else { format!("{:.1} GB", megabytes / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["hello".into(), "10.88.0.2".into()], vec!["a".into(), "-".into()]];
        assert_eq!(aligned(&["POD", "IP"], &rows), "POD    IP\nhello  10.88.0.2\na      -\n");
    }
}
