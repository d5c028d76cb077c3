//! `corten doctor`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Output;
use crate::doctor::{Finding, Level, examine, worst};
use crate::instance::Instance;

/// Say what this machine lacks for pods, each finding with its remedy
///
/// Looks at the kernel, cgroups, capabilities, network, other daemons, disk and limits. Changes nothing. Ends with 1
/// when `corten up` could not work.
#[derive(clap::Args)]
pub struct Args {
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let settings = instance.record()?.map(|record| record.settings).unwrap_or_default();
    let findings = examine(instance, &settings);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Table => print!("{}", text(&findings)),
    }
    Ok(if worst(&findings) == Level::Failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "!",
            Level::Failure => "x",
        };
        let _ = writeln!(out, " {:<14} {mark:>2}  {}", finding.check, finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(out, "                    remedy: {remedy}");
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    out + &format!(
        "\n {} checked, {} to know, {} in the way\n",
        findings.len(),
        count(Level::Warning),
        count(Level::Failure)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_under_their_findings() {
        let findings = [Finding::ok("kernel", "Linux 6.18"), Finding::failure("disk", "full", "free some")];
        let expected = " kernel         ok  Linux 6.18\n disk            x  full\n                    remedy: free some\n\
            \n 2 checked, 0 to know, 1 in the way\n";
        assert_eq!(text(&findings), expected);
    }
}
