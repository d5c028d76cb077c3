//! `state ID`: the state as JSON.

use super::{Answer, Context, output};
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    if let Some(name) = arguments.next()? {
        return unknown_option(&name);
    }
    let state = context.runtime.state(&arguments.container_id()?)?;
    output(&format!("{}\n", serde_json::to_string_pretty(&state)?))?;
    Ok(0)
}
