//! Log files in CRI format (`timestamp stream P|F text`) → what the container printed. Pure.
//! Source: KEP/design "CRI: container log format"; P marks a part of a line, F its end.

/// One entry of a log file.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub timestamp: &'a str,
    pub text: &'a [u8],
    /// False when the next entry goes on with this line.
    pub ends_line: bool,
}

/// Reads one entry, without its newline; `None` when it has not the format.
pub fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let timestamp = std::str::from_utf8(fields.next()?).ok()?;
    let stream = fields.next()?;
    if stream != b"stdout" && stream != b"stderr" {
        return None;
    }
    // Tags are separated by colons; the first says whether the line is whole.
    let tag = fields.next()?.split(|byte| *byte == b':').next()?;
    Some(Entry { timestamp, text: fields.next()?, ends_line: tag != b"P" })
}

/// Turns chunks of a log file into printed output, keeping what is not whole yet.
#[derive(Default)]
pub struct Printer {
    timestamps: bool,
    pending: Vec<u8>,
    inside_line: bool,
}

impl Printer {
    pub fn new(timestamps: bool) -> Self {
        Self { timestamps, ..Self::default() }
    }

    /// The output for the next bytes of the file. An entry of another format is passed on as it is.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.pending.split_off(end + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        let mut out = Vec::with_capacity(whole.len());
        for line in whole[..end].split(|byte| *byte == b'\n') {
            self.line(line, &mut out);
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = entry(line) else {
            out.extend_from_slice(line);
            out.push(b'\n');
            return;
        };
        if self.timestamps && !self.inside_line {
            out.extend_from_slice(entry.timestamp.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        if entry.ends_line {
            out.push(b'\n');
        }
        self.inside_line = !entry.ends_line;
    }
}

/// Offset in `file` at which its last `lines` lines start. A line of several parts counts once.
pub fn tail_offset(file: &[u8], lines: usize) -> usize {
    let mut starts = Vec::new();
    let (mut at, mut starts_line) = (0, true);
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        if starts_line {
            starts.push(at);
        }
        starts_line = entry(line.strip_suffix(b"\n").unwrap_or(line)).is_none_or(|e| e.ends_line);
        at += line.len();
    }
    starts.len().checked_sub(lines).map_or(0, |first| starts.get(first).copied().unwrap_or(file.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:00.2Z stderr P tw\n\
        2026-01-01T00:00:00.3Z stderr F o\n2026-01-01T00:00:00.4Z stdout F \n";

    #[test]
    fn parts_of_a_line_are_joined_and_stamped_once() {
        assert_eq!(Printer::new(false).feed(LOG), b"one\ntwo\n\n");
        let stamped = Printer::new(true).feed(LOG);
        assert_eq!(
            stamped,
            b"2026-01-01T00:00:00.1Z one\n2026-01-01T00:00:00.2Z two\n2026-01-01T00:00:00.4Z \n"
        );
    }

    #[test]
    fn it_does_not_matter_where_the_file_was_cut() {
        for cut in 0..LOG.len() {
            let mut printer = Printer::new(true);
            let mut out = printer.feed(&LOG[..cut]);
            out.extend(printer.feed(&LOG[cut..]));
            assert_eq!(out, Printer::new(true).feed(LOG), "cut at {cut}");
        }
    }

    #[test]
    fn a_tail_starts_at_the_first_part_of_its_first_line() {
        let tail = |n| Printer::new(false).feed(&LOG[tail_offset(LOG, n)..]);
        assert_eq!(
            (tail(0), tail(1), tail(2), tail(3), tail(9)),
            (
                b"".to_vec(),
                b"\n".to_vec(),
                b"two\n\n".to_vec(),
                b"one\ntwo\n\n".to_vec(),
                b"one\ntwo\n\n".to_vec()
            )
        );
    }

    #[test]
    fn a_line_of_another_format_is_passed_on() {
        assert_eq!(Printer::new(false).feed(b"failed to create fifo\n"), b"failed to create fifo\n");
        assert_eq!(entry(b"2026 stdlog F x"), None);
    }

    #[test]
    fn bytes_that_are_no_text_come_through() {
        assert_eq!(Printer::new(false).feed(b"t stdout F \xff\x00\xfe\n"), b"\xff\x00\xfe\n");
    }
}
