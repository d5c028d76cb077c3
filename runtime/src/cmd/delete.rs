//! `delete [--force] ID`

use super::{Answer, Context};
use crate::options::Arguments;

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    let mut force = false;
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "force" | "f" => force = arguments.switch()?,
            other => return arguments.unknown(other),
        }
    }
    let complaints = context.runtime.delete(&arguments.container_id()?, force)?;
    complaints.iter().for_each(|complaint| context.log.warning(complaint));
    Ok(0)
}
