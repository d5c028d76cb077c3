//! `exec [options] ID PROGRAM [ARGUMENTS...]`, or `exec --process FILE ID`

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use corten_runtime::{Console, ExecRequest, bundle};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::create::{check_preserved, listen_fds, non_empty};
use super::{Answer, Context};
use crate::foreground;
use crate::options::{Arguments, unknown_option};

#[derive(Default)]
struct Options {
    console_socket: Option<PathBuf>,
    cwd: Option<PathBuf>,
    environment: Vec<String>,
    tty: Option<bool>,
    user: Option<String>,
    groups: Vec<u32>,
    process: Option<PathBuf>,
    detach: bool,
    pid_file: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    no_new_privileges: Option<bool>,
    capabilities: Vec<String>,
    preserve_fds: u32,
    ignore_paused: bool,
}

pub fn run(arguments: Arguments, context: &Context) -> Answer {
    let (options, operands) = parse(arguments)?;
    let Some((id, program)) = operands.split_first() else { bail!("the container's id is missing") };
    let process = process(&options, id, program, context)?;
    let mut request = ExecRequest::new(process);
    let terminal = request.process.terminal().unwrap_or(false);
    request.console = match options.console_socket {
        Some(path) => Console::Socket(path),
        None if terminal && options.detach => {
            bail!("cannot allocate tty if the command detaches, without --console-socket")
        }
        None if terminal => Console::Return,
        None => Console::None,
    };
    request.pid_file = options.pid_file;
    request.pidfd_socket = options.pidfd_socket;
    request.listen_fds = listen_fds()?;
    request.preserve_fds = options.preserve_fds + request.listen_fds;
    request.ignore_paused = options.ignore_paused;
    check_preserved(request.preserve_fds)?;
    let signals = if options.detach { None } else { Some(foreground::catch_signals()?) };
    let executed = context.runtime.exec(id, &request)?;
    context.log.warnings(&executed.warnings);
    let Some(signals) = signals else { return Ok(0) };
    let exit = foreground::accompany(&executed.pidfd, executed.console, &signals)?;
    Ok(exit.shell_code() as u8)
}

fn parse(mut arguments: Arguments) -> anyhow::Result<(Options, Vec<String>)> {
    let mut options = Options::default();
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "console-socket" => options.console_socket = non_empty(arguments.path()?),
            "cwd" => options.cwd = non_empty(arguments.path()?),
            "env" | "e" => options.environment.push(arguments.text()?),
            "tty" | "t" => options.tty = Some(arguments.switch()?),
            "user" | "u" => options.user = Some(arguments.text()?),
            "additional-gids" | "g" => options.groups.push(id_number(&arguments.text()?)?),
            "process" | "p" => options.process = non_empty(arguments.path()?),
            "detach" | "d" => options.detach = arguments.switch()?,
            "pid-file" => options.pid_file = non_empty(arguments.path()?),
            "pidfd-socket" => options.pidfd_socket = non_empty(arguments.path()?),
            "no-new-privs" => options.no_new_privileges = Some(arguments.switch()?),
            "cap" | "c" => options.capabilities.push(arguments.text()?),
            "preserve-fds" => options.preserve_fds = arguments.number()?,
            "ignore-paused" => options.ignore_paused = arguments.switch()?,
            "apparmor" | "process-label" | "cgroup" => bail!("exec --{name} is not supported: leave it out"),
            other => return unknown_option(other),
        }
    }
    Ok((options, arguments.operands()?))
}

/// The file as it is; else the container's own process, with what the options change.
fn process(options: &Options, id: &str, program: &[String], context: &Context) -> anyhow::Result<Process> {
    if let Some(path) = &options.process {
        let loaded = bundle::load_process(path).with_context(|| path.display().to_string())?;
        context.log.warnings(&loaded.warnings);
        return Ok(loaded.value);
    }
    if program.is_empty() {
        bail!("the program is missing: give its arguments, or --process");
    }
    let config = context.runtime.state(id)?.bundle.join("config.json");
    let loaded = bundle::load_spec(&config).with_context(|| config.display().to_string())?;
    let mut process = loaded.value.process().clone().context("config.json has no process")?;
    process.set_args(Some(program.to_vec()));
    process.set_terminal(Some(options.tty.unwrap_or(false)));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let environment = process.env().iter().flatten().chain(&options.environment).cloned().collect();
    process.set_env(Some(environment));
    if let Some(user) = &options.user {
        let (uid, gid) = parse_user(user)?;
        let changed = process.user_mut();
        changed.set_uid(uid);
        if let Some(gid) = gid {
            changed.set_gid(gid);
        }
    }
    if !options.groups.is_empty() {
        process.user_mut().set_additional_gids(Some(options.groups.clone()));
    }
    if let Some(on) = options.no_new_privileges {
        process.set_no_new_privileges(Some(on));
    }
    add_capabilities(&mut process, &options.capabilities)?;
    Ok(process)
}

/// `UID[:GID]`, decimal digits only: `exec -u 1` must never mean another user (CVE-2026-30892).
fn parse_user(text: &str) -> anyhow::Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Ok((id_number(text)?, None)),
        Some((uid, gid)) => Ok((id_number(uid)?, Some(id_number(gid)?))),
    }
}

fn id_number(text: &str) -> anyhow::Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // 2^32 - 1 means "no change" to the kernel.
    let number = text.parse().ok().filter(|number| digits && *number != u32::MAX);
    number.with_context(|| format!("{text:?} is no user or group id"))
}

/// To the bounding, effective and permitted sets, never to the inheritable one (CVE-2022-29162); ambient only where
/// the container's configuration has it inheritable already.
fn add_capabilities(process: &mut Process, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    for name in names {
        let capability: Capability = serde_json::from_value(name.as_str().into())
            .ok()
            .with_context(|| format!("unknown capability {name:?}"))?;
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding);
        sets.set_effective(effective);
        sets.set_permitted(permitted);
        if sets.inheritable().as_ref().is_some_and(|set| set.contains(&capability)) {
            let ambient = with(sets.ambient());
            sets.set_ambient(ambient);
        }
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_30892_users_are_parsed_strictly() {
        assert_eq!(parse_user("1").unwrap(), (1, None));
        assert_eq!(parse_user("1000:0").unwrap(), (1000, Some(0)));
        for bad in
            ["", ":", "1:", ":1", "+1", "-1", " 1", "1 ", "0x1", "1:2:3", "root", "4294967295", "4294967296"]
        {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cve_2022_29162_cap_does_not_touch_the_inheritable_set() {
        let mut process = Process::default();
        process.set_capabilities(None);
        add_capabilities(&mut process, &["CAP_NET_RAW".to_owned()]).unwrap();
        let sets = process.capabilities().clone().unwrap();
        assert!(sets.permitted().as_ref().unwrap().contains(&Capability::NetRaw));
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
        assert!(add_capabilities(&mut process, &["CAP_FLY".to_owned()]).is_err());
    }
}
