//! `start ID`

use super::{Answer, Context};
use crate::options::Arguments;

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    if let Some(name) = arguments.next()? {
        return arguments.unknown(&name);
    }
    context.runtime.start(&arguments.container_id()?)?;
    Ok(0)
}
