//! What runs: command, environment, directory, user, capabilities.

use corten_cri_api::v1;
use oci_spec::runtime::{Process, ProcessBuilder, User, UserBuilder};

use super::{ImageDefaults, Input, ResolvedUser, SpecError, resources, security};

/// PATH of a container whose image sets none (Docker's and containerd's).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(
    input: &Input<'_>,
    context: &v1::LinuxContainerSecurityContext,
) -> Result<Process, SpecError> {
    let mut builder = ProcessBuilder::default()
        .terminal(input.config.tty)
        .user(user(input.user))
        .args(args(input.config, input.image)?)
        .env(env(input)?)
        .cwd(cwd(input.config, input.image)?)
        .capabilities(security::capabilities(context, input.host)?)
        .no_new_privileges(context.no_new_privs && !context.privileged);
    if let Some(profile) = security::apparmor_profile(context, input.host)? {
        builder = builder.apparmor_profile(profile);
    }
    let mut process = builder.build().expect("every field has a default");
    // A container inherits the monitor's limits; the crate's default would lower the number of open files to 1024.
    process.set_rlimits(None);
    process.set_oom_score_adj(resources::oom_score_adj(input.config)?);
    Ok(process)
}

fn user(user: &ResolvedUser) -> User {
    UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.groups.clone())
        .build()
        .expect("every field has a default")
}

/// `command` replaces the entrypoint (and then the image's cmd is left out), `args` replace the cmd.
pub fn args(config: &v1::ContainerConfig, image: &ImageDefaults) -> Result<Vec<String>, SpecError> {
    let entrypoint = if image.entrypoint == [""] { &[][..] } else { &image.entrypoint };
    let (command, args) = match (config.command.as_slice(), config.args.as_slice()) {
        ([], []) => (entrypoint, image.cmd.as_slice()),
        ([], args) => (entrypoint, args),
        (command, args) => (command, args),
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() {
        return Err(SpecError::NoCommand);
    }
    no_nul("command", &all)?;
    Ok(all)
}

fn cwd(config: &v1::ContainerConfig, image: &ImageDefaults) -> Result<String, SpecError> {
    let dir = [&config.working_dir, &image.working_dir].into_iter().find(|d| !d.is_empty());
    let dir = dir.map_or("/", String::as_str);
    if !dir.starts_with('/') || dir.contains('\0') {
        return Err(SpecError::Value { field: "working_dir", value: dir.into(), wanted: "an absolute path" });
    }
    Ok(dir.into())
}

/// PATH, HOSTNAME and TERM, then the image's, then the config's: later ones win. HOME is the user's if nobody set it.
fn env(input: &Input<'_>) -> Result<Vec<String>, SpecError> {
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    if input.config.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    env.push(("HOSTNAME".into(), input.hostname.into()));
    let from_image = input.image.env.iter().filter_map(|e| e.split_once('='));
    let from_config = input.config.envs.iter().map(|e| (e.key.as_str(), e.value.as_str()));
    for (key, value) in from_image.chain(from_config) {
        set(&mut env, key, value);
    }
    if !env.iter().any(|(key, _)| key == "HOME") {
        let home = input.user.home.clone().unwrap_or_else(|| "/".into());
        env.push(("HOME".into(), home));
    }
    let joined: Vec<String> = env.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    no_nul("env", &joined)?;
    Ok(joined)
}

fn set(env: &mut Vec<(String, String)>, key: &str, value: &str) {
    match env.iter_mut().find(|(k, _)| k == key) {
        Some(entry) => value.clone_into(&mut entry.1),
        None => env.push((key.into(), value.into())),
    }
}

fn no_nul(field: &'static str, values: &[String]) -> Result<(), SpecError> {
    match values.iter().find(|v| v.contains('\0')) {
        Some(value) => Err(SpecError::Value { field, value: value.clone(), wanted: "text without NUL" }),
        None => Ok(()),
    }
}
