//! `state ID`: the state as JSON.

use super::{Answer, Context, output};
use crate::options::Arguments;

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    if let Some(name) = arguments.next()? {
        return arguments.unknown(&name);
    }
    let state = context.runtime.state(&arguments.container_id()?)?;
    output(&format!("{}\n", serde_json::to_string_pretty(&state)?))?;
    Ok(0)
}
