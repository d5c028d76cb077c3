//! `resume ID`

use super::{Answer, Context};
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    if let Some(name) = arguments.next()? {
        return unknown_option(&name);
    }
    context.runtime.resume(&arguments.container_id()?)?;
    Ok(0)
}
