//! Runs other programs; a failure names the command, its exit and the end of what it said.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` on the user's terminal.
pub fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| start_failed(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` silently and returns its standard output; standard error comes with the failure.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| start_failed(command))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", shown(command), output.status, tail(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as the user would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The file that `program` resolves to in PATH and, since many tools live there, in the sbin directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn start_failed(command: &Command) -> String {
    let why = match find(&command.get_program().to_string_lossy()) {
        None => " (no such program in PATH)",
        Some(_) => "",
    };
    format!("cannot start `{}`{why}", shown(command))
}

fn tail(output: &Output) -> String {
    const LINES: usize = 20;
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
