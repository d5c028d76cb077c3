//! The real monitor with real containers. Needs root and /bin/busybox.

mod client;
mod cost;
mod cve;
mod exec;
mod lifecycle;
mod logs;
mod pod;
mod survival;
