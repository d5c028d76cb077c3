//! `delete [--force] ID`

use super::{Answer, Context};
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    let mut force = false;
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "force" | "f" => force = arguments.switch()?,
            other => return unknown_option(other),
        }
    }
    let complaints = context.runtime.delete(&arguments.container_id()?, force)?;
    context.log.warnings(&complaints);
    Ok(0)
}
