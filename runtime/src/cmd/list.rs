//! `list [--format table|json] [--quiet]`

use anyhow::bail;

use super::{Answer, Context, output};
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments, context: &Context) -> Answer {
    let (mut json, mut quiet) = (false, false);
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "format" | "f" => match arguments.text()?.as_str() {
                "json" => json = true,
                "table" => json = false,
                other => bail!("invalid format option {other:?}: use table or json"),
            },
            "quiet" | "q" => quiet = arguments.switch()?,
            other => return unknown_option(other),
        }
    }
    let mut states = Vec::new();
    for state in context.runtime.list()? {
        match state {
            Ok(state) => states.push(state),
            Err(error) => context.log.warning(&error.to_string()),
        }
    }
    let text = if quiet {
        states.iter().fold(String::new(), |text, state| text + &state.id + "\n")
    } else if json {
        format!("{}\n", serde_json::to_string(&states)?)
    } else {
        table(&states)
    };
    output(&text)?;
    Ok(0)
}

/// Columns as wide as their widest cell, then three spaces; at least twelve wide, as runc's.
fn table(states: &[corten_runtime::State]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.iter().map(|state| {
        let (pid, status) = (state.pid.to_string(), state.status.to_string());
        [
            state.id.clone(),
            pid,
            status,
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    });
    let rows: Vec<[String; 6]> = [header].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 3).max().unwrap_or(0).max(12);
    let widths: [usize; 6] = std::array::from_fn(width);
    rows.iter().fold(String::new(), |mut text, row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().concat().trim_end());
        text.push('\n');
        text
    })
}
