//! `kill [--all] ID [SIGNAL]`, SIGTERM by default.

use anyhow::{Context as _, bail};
use corten_sys::signal;

use super::{Answer, Context};
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    let mut all = false;
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "all" | "a" => all = arguments.switch()?,
            other => return unknown_option(other),
        }
    }
    let operands = arguments.operands()?;
    let (id, signal) = match operands.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        _ => bail!("needs the container's id, and a signal if it is not SIGTERM"),
    };
    let signal = signal::parse(signal).with_context(|| format!("unknown signal {signal:?}"))?;
    context.runtime.kill(id, signal, all)?;
    Ok(0)
}
