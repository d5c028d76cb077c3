//! The CRI log of a container: `2006-01-02T15:04:05.999999999Z stdout F line`. A container is never held up by it and
//! the monitor never dies of it: what the disk does not take is dropped and counted.
//! Source: kubernetes design-proposals "CRI logging"; containerd internal/cri/io/logger.go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::timestamp::push_rfc3339;

/// A longer line is written in pieces tagged `P`, the last one `F` (containerd's `max_container_log_line_size`).
pub const MAX_LINE_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamName {
    Stdout,
    Stderr,
}

/// Cuts one stream into tagged lines. Holds at most [`MAX_LINE_BYTES`].
#[derive(Debug)]
pub struct LineSplitter {
    stream: StreamName,
    partial: Vec<u8>,
}

impl LineSplitter {
    pub fn new(stream: StreamName) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Appends to `out` every line that `chunk` completes, stamped with the time it was read.
    pub fn push(&mut self, now_unix_nanos: i64, mut chunk: &[u8], out: &mut Vec<u8>) {
        while !chunk.is_empty() {
            let room = MAX_LINE_BYTES - self.partial.len();
            // One byte past the room: a newline there still completes an unsplit line.
            let newline = chunk[..chunk.len().min(room + 1)].iter().position(|byte| *byte == b'\n');
            if let Some(end) = newline {
                self.emit(now_unix_nanos, b'F', &chunk[..end], out);
                chunk = &chunk[end + 1..];
            } else if chunk.len() > room {
                self.emit(now_unix_nanos, b'P', &chunk[..room], out);
                chunk = &chunk[room..];
            } else {
                self.partial.extend_from_slice(chunk);
                return;
            }
        }
    }

    /// Appends what is left when the stream ends: a last line without a newline counts as full.
    pub fn finish(&mut self, now_unix_nanos: i64, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.emit(now_unix_nanos, b'F', &[], out);
        }
    }

    fn emit(&mut self, now_unix_nanos: i64, tag: u8, rest: &[u8], out: &mut Vec<u8>) {
        push_rfc3339(out, now_unix_nanos);
        out.extend_from_slice(match self.stream {
            StreamName::Stdout => b" stdout ",
            StreamName::Stderr => b" stderr ",
        });
        out.extend_from_slice(&[tag, b' ']);
        // Taken, not cleared: an idle container's monitor keeps no buffer.
        out.append(&mut std::mem::take(&mut self.partial));
        out.extend_from_slice(rest);
        out.push(b'\n');
    }
}

/// The file both streams of a container share. Only whole lines stay in it.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    dropped_bytes: u64,
}

impl LogWriter {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, dropped_bytes: 0 })
    }

    /// Opens the path anew, after a rotation renamed the file. The old file is kept when that fails.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Appends whole lines. What cannot be written is dropped and counted.
    pub fn append(&mut self, lines: &[u8]) {
        let written = self.write(lines);
        self.dropped_bytes += (lines.len() - written) as u64;
    }

    /// How many bytes stand in the file afterwards: `lines`, or its longest prefix of whole lines.
    fn write(&mut self, lines: &[u8]) -> usize {
        let mut written = 0;
        while written < lines.len() {
            match self.file.write(&lines[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let whole = whole_lines(&lines[..written]);
        if whole < written {
            self.cut((written - whole) as u64);
        }
        whole
    }

    /// Takes a torn line off the end again (the disk is full); where even that fails it stays torn.
    fn cut(&mut self, torn_bytes: u64) {
        if let Ok(metadata) = self.file.metadata() {
            let _ = self.file.set_len(metadata.len().saturating_sub(torn_bytes));
        }
    }
}

fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> String {
        let mut splitter = LineSplitter::new(StreamName::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(0, chunk, &mut out);
        }
        splitter.finish(0, &mut out);
        String::from_utf8(out).unwrap().replace("1970-01-01T00:00:00Z stdout ", "")
    }

    #[test]
    fn lines_are_tagged_full_or_partial() {
        let long = "x".repeat(MAX_LINE_BYTES);
        let longer = long.repeat(2);
        let table: [(&[&[u8]], String); 9] = [
            (&[b"a\nb\n"], "F a\nF b\n".into()),
            (&[b"a", b"b", b"\n"], "F ab\n".into()),
            (&[b"no newline"], "F no newline\n".into()),
            (&[b"\n\n"], "F \nF \n".into()),
            (&[b""], String::new()),
            (&[b"crlf\r\n"], "F crlf\r\n".into()),
            (&[long.as_bytes(), b"\n"], format!("F {long}\n")),
            (&[long.as_bytes(), b"yz\n"], format!("P {long}\nF yz\n")),
            (&[longer.as_bytes(), b"y"], format!("P {long}\nP {long}\nF y\n")),
        ];
        for (chunks, expected) in table {
            assert_eq!(split(chunks), expected);
        }
    }

    #[test]
    fn any_chunking_gives_the_same_lines() {
        let text = format!("{}\nshort\n{}", "a".repeat(MAX_LINE_BYTES * 2 + 7), "b".repeat(MAX_LINE_BYTES));
        let whole = split(&[text.as_bytes()]);
        for size in [1, 7, 4096, MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1] {
            assert_eq!(split(&text.as_bytes().chunks(size).collect::<Vec<_>>()), whole, "chunks of {size}");
        }
    }

    #[test]
    fn reopening_follows_a_rename_and_appends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path).unwrap();
        log.append(b"one\n");
        std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
        log.append(b"two\n");
        log.reopen().unwrap();
        log.append(b"three\n");
        assert_eq!(std::fs::read(dir.path().join("0.log.old")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        assert_eq!(log.dropped_bytes(), 0);
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_lines_alone() {
        let mut log = LogWriter::open(Path::new("/dev/full")).unwrap();
        log.append(b"lost\n");
        assert_eq!(log.dropped_bytes(), 5);
    }
}
