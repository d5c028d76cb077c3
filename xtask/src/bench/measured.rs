//! A bench whose measuring is a program of its own, which prints its samples as JSON: runs it, makes the report.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::sample::Samples;
use super::{Report, Unit};
use crate::run;

#[derive(Deserialize)]
struct Measured {
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Row {
    what: String,
    unit: Unit,
    samples: Vec<Samples>,
}

/// `bench` names the report, `measure` is the program.
pub fn by(bench: &str, measure: &mut Command) -> Result<Report> {
    let printed = run::output(measure)?;
    let measured: Measured = serde_json::from_str(&printed)
        .with_context(|| format!("{} printed no samples", run::shown(measure)))?;
    let mut report = Report::new(bench);
    for row in measured.rows {
        report.row(row.what, row.unit, &row.samples);
    }
    for note in measured.notes {
        report.note(note);
    }
    Ok(report)
}
