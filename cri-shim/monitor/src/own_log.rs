//! The monitor's own messages: stderr, which is `monitor.log`. Bounded, since nobody rotates it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::layout::Layout;
use crate::timestamp::{now_unix_nanos, push_rfc3339};

/// A monitor that has said this much says no more.
pub const MAX_BYTES: usize = 64 * 1024;

static SAID: AtomicUsize = AtomicUsize::new(0);

/// Makes `monitor.log` this process's stderr.
pub fn open(layout: &Layout) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().append(true).create(true).mode(0o600).open(layout.monitor_log())?;
    SAID.store(file.metadata()?.len() as usize, Ordering::Relaxed);
    Ok(rustix::stdio::dup2_stderr(file)?)
}

/// One line. What cannot be written is lost.
pub fn say(text: &str) {
    let mut line = Vec::with_capacity(text.len() + 40);
    push_rfc3339(&mut line, now_unix_nanos());
    line.push(b' ');
    line.extend(text.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
    line.push(b'\n');
    if SAID.fetch_add(line.len(), Ordering::Relaxed) + line.len() <= MAX_BYTES {
        let _ = io::stderr().write_all(&line);
    }
}
