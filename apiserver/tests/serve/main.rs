//! Reading, watching and all that is around it: one behaviour a test.

mod common;
mod discovery;
mod http1;
mod list;
mod watch;
