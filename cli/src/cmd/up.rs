//! `corten up`: start what is missing, run the pods, wait until they are Ready, say what to try.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, os::unix::fs::symlink};

use anyhow::{Context, Result, bail};
use corten_cri_api::corten_v1;
use corten_images::demo;
use corten_kubelet::status_api;

use crate::cmd::image;
use crate::cri::{Cri, block_on, need_root, told};
use crate::daemon::{self, CRI, KUBELET};
use crate::doctor::{self, Finding, Level};
use crate::instance::{Instance, RECORD_VERSION, Record, Settings, make_dirs, write_whole};
use crate::kubelet::{self, Pod};
use crate::manifest::{self, Manifest};
use crate::screen::Screen;
use crate::{config, network, programs, table};

/// Start the node and run pods; without -f, the hello pod
///
/// Starts corten-cri and corten-kubelet in the background if they do not run, pulls images, hands the pods to the
/// kubelet and returns when all are Ready. Run again, it starts what is missing and changes nothing else.
#[derive(clap::Args)]
pub struct Args {
    /// Manifest of one or more v1 Pods, YAML or JSON; - is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How long pods may take to become Ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Subnet that pods get addresses from [default: 10.88.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Option<String>,
    /// Bridge that pods are linked to [default: corten0]
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Name of the CNI network [default: corten]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// cgroup below which pods live, in every hierarchy [default: /corten]
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
}

/// A daemon that does not answer by then never will.
const DAEMON_LIMIT: Duration = Duration::from_secs(20);

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    need_root("corten up")?;
    let pods = wanted_pods(args)?;
    let record = instance.record()?;
    let settings = settings(args, record.as_ref().map(|r| &r.settings), &instance.command())?;
    let mut screen = Screen::new();
    if !preflight(&doctor::examine(instance, &settings), &mut screen) {
        return Ok(ExitCode::FAILURE);
    }
    let made_dirs = [make_dirs(&instance.root)?, make_dirs(&instance.state)?].concat();
    let _lock = instance.lock()?;
    if record.is_none() {
        let (ip_forward, tables) = (network::ip_forward(), network::tables()?);
        instance.write_record(&Record {
            version: RECORD_VERSION,
            settings: settings.clone(),
            made_dirs,
            ip_forward,
            tables,
        })?;
    }
    write_config(instance, &settings)?;
    start_daemons(instance, &settings)?;
    block_on(async {
        let mut cri = Cri::connect(instance).await?;
        images(instance, &pods, &mut cri, &mut screen).await?;
        let started = Instant::now();
        for pod in &pods {
            place(instance, pod)?;
        }
        let ready = wait(instance, &pods, started, Duration::from_secs(args.timeout), &mut screen).await?;
        if let Some(ready) = ready {
            screen.plain(&try_next(&hints(instance, &pods, &ready)));
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::FAILURE)
    })
}

fn wanted_pods(args: &Args) -> Result<Vec<Manifest>> {
    if args.files.is_empty() {
        return manifest::parse(manifest::HELLO, "the hello example");
    }
    let mut pods: Vec<Manifest> = Vec::new();
    for file in &args.files {
        for pod in manifest::read(file)? {
            if pods.iter().any(|known| known.file_name() == pod.file_name()) {
                bail!("pod {}/{} is given twice (again in {})", pod.namespace, pod.name, file.display());
            }
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// The settings of this run: those of the instance, which flags may only repeat.
fn settings(args: &Args, known: Option<&Settings>, command: &str) -> Result<Settings> {
    let defaults = Settings::default();
    let base = known.unwrap_or(&defaults);
    let choose = |flag: &str, asked: &Option<String>, now: &str| match asked {
        Some(asked) if known.is_some() && asked != now => {
            bail!(
                "{flag} is {now} for this instance and cannot change to {asked} while it exists; `{command} down` first"
            )
        }
        Some(asked) => Ok(asked.clone()),
        None => Ok(now.to_string()),
    };
    let settings = Settings {
        bridge: choose("--bridge", &args.bridge, &base.bridge)?,
        pod_cidr: choose("--pod-cidr", &args.pod_cidr, &base.pod_cidr)?,
        network: choose("--network", &args.network, &base.network)?,
        cgroup_parent: choose("--cgroup-parent", &args.cgroup_parent, &base.cgroup_parent)?,
    };
    // IFNAMSIZ: 15 bytes and a NUL.
    if settings.bridge.is_empty() || settings.bridge.len() > 15 || settings.bridge.contains(['/', ' ']) {
        bail!("--bridge {:?} is no name of a link: 1 to 15 bytes without / and blanks", settings.bridge);
    }
    let cgroup = settings.cgroup_parent.strip_prefix('/').unwrap_or("");
    if cgroup.is_empty() || cgroup.split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!(
            "--cgroup-parent {:?} must be an absolute path below the root cgroup, such as /corten",
            settings.cgroup_parent
        );
    }
    Ok(settings)
}

/// Prints what the doctor found; false when `up` cannot work.
fn preflight(findings: &[Finding], screen: &mut Screen) -> bool {
    let of = |level| findings.iter().filter(move |f| f.level == level);
    if of(Level::Failure).next().is_none() {
        let headlines: Vec<&str> = findings.iter().filter_map(|f| f.headline.as_deref()).collect();
        screen.ok("preflight", &headlines.join(", "), None);
    }
    for finding in of(Level::Failure) {
        screen.fail("preflight", &format!("{}: {}", finding.check, finding.found));
        screen.plain(&format!("                remedy: {}", finding.remedy.as_deref().unwrap_or_default()));
    }
    for finding in of(Level::Warning) {
        screen.warn(&finding.found);
    }
    of(Level::Failure).next().is_none()
}

/// Every file and directory the daemons read. Written again each time: an updated corten may write them differently.
fn write_config(instance: &Instance, settings: &Settings) -> Result<()> {
    let log = instance.daemon_log(CRI);
    let dirs = [instance.manifests(), instance.pod_logs(), instance.cni_conf(), instance.cni_bin()];
    for dir in dirs.iter().map(PathBuf::as_path).chain(log.parent()) {
        make_dirs(dir)?;
    }
    let plugins = programs::find("corten-cni")?;
    for name in config::CNI_PLUGINS {
        let link = instance.cni_bin().join(name);
        if fs::read_link(&link).ok().as_ref() != Some(&plugins) {
            let _ = fs::remove_file(&link);
            symlink(&plugins, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    let conflist = serde_json::to_vec_pretty(&config::conflist(instance, settings))?;
    write_whole(&instance.cni_conf().join("10-corten.conflist"), &conflist)?;
    let monitor = programs::find("corten-monitor")?;
    write_whole(&instance.cri_config(), config::cri_toml(instance, settings, &monitor).as_bytes())
}

/// Starts what does not run and waits until it answers.
pub fn start_daemons(instance: &Instance, settings: &Settings) -> Result<()> {
    start_cri(instance)?;
    daemon::start(instance, KUBELET, &config::kubelet_args(instance, settings), DAEMON_LIMIT, || {
        block_on(async { Ok(kubelet::answers(instance).await) }).unwrap_or(false)
    })?;
    Ok(())
}

pub fn start_cri(instance: &Instance) -> Result<()> {
    let args = ["--config".to_string(), instance.cri_config().display().to_string()];
    daemon::start(instance, CRI, &args, DAEMON_LIMIT, || {
        block_on(async { Ok(Cri::answers(instance).await) }).unwrap_or(false)
    })?;
    Ok(())
}

/// Gets the images that are not there, with progress; the kubelet would pull them too, but silently.
async fn images(instance: &Instance, pods: &[Manifest], cri: &mut Cri, screen: &mut Screen) -> Result<()> {
    let mut seen: Vec<&str> = Vec::new();
    for image in pods.iter().flat_map(|pod| &pod.images) {
        let reference = image.reference.as_str();
        if seen.contains(&reference) {
            continue;
        }
        seen.push(reference);
        let started = Instant::now();
        let before = cri.image(reference).await?;
        let how = match &before {
            Some(_) if reference == demo::NAME => "built in",
            Some(_) => "present",
            None if reference == demo::NAME => {
                import_demo(instance, cri).await?;
                "built in"
            }
            // The kubelet says ErrImageNeverPull, which is what the user asked for.
            None if image.never_pulled => continue,
            None => {
                let request = corten_v1::PullRequest { reference: reference.into(), auth: None };
                image::pull(cri, request, screen).await?;
                "pulled"
            }
        };
        let size = cri.image(reference).await?.map_or(0, |image| image.size);
        let took = before.is_none().then(|| started.elapsed());
        screen.ok("image", &format!("{reference}, {}, {how}", table::size(size)), took);
    }
    Ok(())
}

async fn import_demo(instance: &Instance, cri: &mut Cri) -> Result<()> {
    let archive = instance.demo_archive();
    let program = programs::find("corten-demo")?;
    demo::write_archive(&program, &archive)
        .with_context(|| format!("cannot write {} from {}", archive.display(), program.display()))?;
    let request = corten_v1::ImportRequest {
        path: archive.display().to_string(),
        name: demo::NAME.into(),
        pinned: false,
    };
    let imported = cri.corten.import(request).await.map_err(|s| told("import the built-in image", &s));
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    imported.map(drop)
}

/// Puts a manifest where the kubelet sees it. One that is there already is not touched: its pod goes on.
fn place(instance: &Instance, pod: &Manifest) -> Result<()> {
    let file = instance.manifests().join(pod.file_name());
    let text = pod.file_content();
    if fs::read(&file).is_ok_and(|now| now == text) {
        return Ok(());
    }
    write_whole(&file, &text)
}

/// Waits until every pod is Ready (or has ended by itself); `None` when the time is over or a manifest is refused,
/// the reasons printed.
async fn wait(
    instance: &Instance,
    wanted: &[Manifest],
    started: Instant,
    limit: Duration,
    screen: &mut Screen,
) -> Result<Option<Vec<Pod>>> {
    let mut finished: Vec<Option<Pod>> = vec![None; wanted.len()];
    loop {
        let seen = kubelet::manifests(instance).await?.items;
        let pods = kubelet::pods(instance).await?;
        let (mut open, mut refused) = (Vec::new(), Vec::new());
        for (manifest, finished) in
            wanted.iter().zip(&mut finished).filter(|(_, finished)| finished.is_none())
        {
            let seen = seen.iter().find(|file| is_of(file, manifest));
            if let Some(error) = seen.and_then(|file| file.error.as_ref()) {
                refused.push(format!("{}/{}: {error}", manifest.namespace, manifest.name));
            }
            let uid = seen.filter(|file| file.error.is_none()).and_then(|file| file.uid.as_ref());
            match pods.iter().find(|pod| Some(&pod.metadata.uid) == uid) {
                Some(pod) if pod.is_ready() || pod.status.phase == "Succeeded" => {
                    screen.ok("pod", &summary(pod), Some(started.elapsed()));
                    *finished = Some(pod.clone());
                }
                pod => open.push((manifest, pod)),
            }
        }
        if open.is_empty() {
            return Ok(finished.into_iter().collect());
        }
        let lines = open.iter().map(|(manifest, pod)| {
            let state = pod.map_or_else(|| format!("{}  starting", manifest.name), summary);
            ("pod".to_string(), state)
        });
        screen.live(&lines.collect::<Vec<_>>());
        let failed = open.iter().any(|(_, pod)| pod.is_some_and(|p| p.status.phase == "Failed"));
        if !refused.is_empty() || failed || started.elapsed() > limit {
            for reason in &refused {
                screen.fail("manifest", reason);
            }
            if refused.is_empty() {
                explain(instance, &open, started.elapsed(), screen).await;
            }
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the kubelet has read this manifest as it is now: what it says of an earlier content of the file is old news.
fn is_of(file: &status_api::Manifest, manifest: &Manifest) -> bool {
    file.file.rsplit('/').next() == Some(manifest.file_name().as_str())
        && file.content_sha256 == status_api::content_sha256(&manifest.file_content())
}

fn summary(pod: &Pod) -> String {
    format!("{}  {}  {}", pod.manifest_name(), pod.ip(), pod.readiness())
}

/// Why the pods in `open` are not Ready.
async fn explain(
    instance: &Instance,
    open: &[(&Manifest, Option<&Pod>)],
    after: Duration,
    screen: &mut Screen,
) {
    for (manifest, pod) in open {
        let Some(pod) = pod else {
            screen.fail(
                "pod",
                &format!("{}  the kubelet did not take it up in {} s", manifest.name, after.as_secs()),
            );
            continue;
        };
        screen.fail("pod", &format!("{}  after {} s", summary(pod), after.as_secs()));
        for reason in pod.reasons() {
            screen.plain(&format!("                {reason}"));
        }
        let events = kubelet::events(instance, &pod.metadata.name).await.unwrap_or_default();
        for event in &events[events.len().saturating_sub(5)..] {
            screen.plain(&format!("                event  {event}"));
        }
    }
    let command = instance.command();
    screen.plain(" it goes on trying; see");
    screen.plain(&try_next(&["status", "logs POD", "down"].map(|what| format!("{command} {what}"))));
}

fn hints(instance: &Instance, wanted: &[Manifest], ready: &[Pod]) -> Vec<String> {
    let command = instance.command();
    let mut hints = Vec::new();
    let web =
        wanted.iter().zip(ready).find_map(|(m, pod)| Some((m.ports.first()?, pod.status.pod_ip.as_ref()?)));
    if let Some((port, ip)) = web {
        hints.push(format!("curl http://{ip}:{port}"));
    }
    if let Some(pod) = wanted.first() {
        let container = pod.containers.last().filter(|_| pod.containers.len() > 1);
        hints.push(format!(
            "{command} logs {}{}",
            pod.name,
            container.map_or(String::new(), |c| format!(" -c {c}"))
        ));
    }
    hints.push(format!("{command} down"));
    hints
}

/// The hints on one line, or below each other where that would be too long to read.
fn try_next(hints: &[String]) -> String {
    let line = format!(" try:  {}", hints.join("    "));
    if line.len() <= 100 { line } else { format!(" try:  {}", hints.join("\n       ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(bridge: Option<&str>, cgroup: Option<&str>) -> Args {
        Args {
            files: vec![],
            timeout: 1,
            pod_cidr: None,
            bridge: bridge.map(Into::into),
            network: None,
            cgroup_parent: cgroup.map(Into::into),
        }
    }

    #[test]
    fn settings_are_fixed_while_the_instance_exists() {
        let chosen = settings(&args(Some("br1"), None), None, "corten").unwrap();
        assert_eq!((chosen.bridge.as_str(), chosen.pod_cidr.as_str()), ("br1", "10.88.0.0/16"));
        assert_eq!(settings(&args(None, None), Some(&chosen), "corten").unwrap(), chosen);
        assert_eq!(settings(&args(Some("br1"), None), Some(&chosen), "corten").unwrap(), chosen);
        let error = settings(&args(Some("br2"), None), Some(&chosen), "corten").unwrap_err().to_string();
        assert_eq!(
            error,
            "--bridge is br1 for this instance and cannot change to br2 while it exists; `corten down` first"
        );
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for (bridge, cgroup) in
            [(Some("a-name-of-16-byte"), None), (None, Some("/")), (None, Some("x")), (None, Some("/x/../y"))]
        {
            settings(&args(bridge, cgroup), None, "corten").unwrap_err();
        }
    }
}
