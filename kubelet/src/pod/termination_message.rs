//! The last words of a container: the file at `terminationMessagePath`, or the end of its log.
//! Limits are upstream's (`kubelet/container/runtime.go`). Both files are written by the container: hostile.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use k8s_openapi::api::core::v1::Container as Spec;

use super::observed::Container;

const MAX_MESSAGE_BYTES: u64 = 4096;
const MAX_LOG_BYTES: u64 = 2048;
const MAX_LOG_LINES: usize = 80;
/// CRI log lines carry a time stamp and tags; so much of the file is read to find [`MAX_LOG_BYTES`] of text.
const LOG_WINDOW_BYTES: u64 = 16 * 1024;

/// The message of an exited container; empty when it left none.
pub fn of_container(spec: &Spec, container: &Container) -> String {
    let Some(exit) = container.exit() else { return String::new() };
    let message =
        container.message_file.as_deref().and_then(|file| head(Path::new(file))).unwrap_or_default();
    let falls_back = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if message.is_empty() && falls_back && exit.code != 0 {
        return log_tail(Path::new(&container.log_path)).unwrap_or_default();
    }
    message
}

fn head(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    open_regular(file)?.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The container could have put anything at this path's end, were it not a bind mount of our own file; a fifo there
/// must still not block the kubelet.
fn open_regular(file: &Path) -> Option<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = std::fs::File::from(rustix::fs::open(file, flags, Mode::empty()).ok()?);
    opened.metadata().ok()?.is_file().then_some(opened)
}

fn log_tail(file: &Path) -> Option<String> {
    let mut log = open_regular(file)?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LOG_WINDOW_BYTES))).ok()?;
    let mut bytes = Vec::new();
    log.take(LOG_WINDOW_BYTES).read_to_end(&mut bytes).ok()?;
    Some(tail(&String::from_utf8_lossy(&bytes)))
}

/// The last lines of a CRI log, without their stamps: `TIME STREAM P|F TEXT`.
fn tail(log: &str) -> String {
    let mut text = String::new();
    let records = log.lines().filter_map(|line| {
        let mut parts = line.splitn(4, ' ').skip(2);
        Some((parts.next().filter(|tag| matches!(*tag, "P" | "F"))?, parts.next()?))
    });
    for (tag, part) in records {
        text.push_str(part);
        if tag == "F" {
            text.push('\n');
        }
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut kept = lines[lines.len().saturating_sub(MAX_LOG_LINES)..].concat();
    while kept.len() as u64 > MAX_LOG_BYTES {
        let cut = kept.char_indices().map(|(i, _)| i).find(|i| kept.len() - i <= MAX_LOG_BYTES as usize);
        kept = kept[cut.unwrap_or(kept.len())..].to_owned();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_has_its_text_only() {
        let log = "half a line\n2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n2026-01-01T00:00:01Z stderr F o\n";
        assert_eq!(tail(log), "one\ntwo\n");
        let many = (0..100).map(|i| format!("t stdout F {i}\n")).collect::<Vec<_>>().concat();
        assert_eq!(tail(&many).lines().count(), MAX_LOG_LINES);
        let long = format!("t stdout F {}\n", "ä".repeat(3000));
        assert!(tail(&long).len() as u64 <= MAX_LOG_BYTES);
    }

    #[test]
    fn a_message_is_cut_and_a_link_or_fifo_is_not_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("m");
        std::fs::write(&file, "x".repeat(5000)).expect("write");
        assert_eq!(head(&file).map(|m| m.len()), Some(4096));
        let link = dir.path().join("l");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("link");
        assert_eq!(head(&link), None);
        let fifo = dir.path().join("f");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("fifo");
        assert_eq!(head(&fifo), None);
    }
}
