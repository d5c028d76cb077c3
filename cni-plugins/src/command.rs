//! The command line: which plugin, and what is printed. Knows nothing of what plugins do.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::error::Error;
use crate::plugin::{self, Plugin};
use crate::skel::{self, Call};
use crate::types::Version;

/// Runs what `argv` names: a plugin by argv[0] or by the first argument, `install`, or `--help`.
pub fn run(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    let argv: Vec<String> = argv.into_iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let called = argv.first().and_then(|a| Path::new(a).file_name()).unwrap_or_default().to_string_lossy();
    if let Some(plugin) = plugin::find(&called) {
        return run_plugin(plugin);
    }
    let arguments: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
    match arguments.as_slice() {
        ["--version" | "-V"] => print(&format!("corten-cni {}", env!("CARGO_PKG_VERSION"))),
        [] | ["--help" | "-h" | "help"] => print(&help()),
        ["install"] => install(Path::new(DEFAULT_DIR)),
        ["install", "--dir", dir] => install(Path::new(dir)),
        [name] if plugin::find(name).is_some() => plugin::find(name).map_or(ExitCode::FAILURE, run_plugin),
        _ => {
            eprintln!("corten-cni: unknown arguments {arguments:?}\n\n{}", help());
            ExitCode::from(2)
        }
    }
}

const DEFAULT_DIR: &str = "/opt/cni/bin";

fn help() -> String {
    let plugins: Vec<String> = plugin::ALL.iter().map(|p| format!("  {:<12}{}", p.name, p.about)).collect();
    format!(
        "corten-cni {}: CNI plugins in one program, for specifications {} to {}.

A container runtime runs a plugin by its file name, with CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS or VERSION) and the
other CNI_ variables in the environment and the network configuration on stdin.

Usage:
  corten-cni install [--dir {DEFAULT_DIR}]   make the plugins there, as hard links to this program (or copies)
  corten-cni PLUGIN                         act as that plugin
  corten-cni --help | --version

Plugins:
{}

Try:
  echo '{{\"cniVersion\":\"1.1.0\",\"name\":\"net\",\"type\":\"bridge\"}}' | CNI_COMMAND=VERSION corten-cni bridge

Environment, beside CNI's own:
  CORTEN_NETNS_DOOMED=1     on DEL: the caller destroys the network namespace right after, so leave its interface to
                            the kernel (saves some 17 ms)
  CORTEN_CNI_EXEC_IPAM=1    run host-local from CNI_PATH even though it is built in
  CORTEN_CNI_EXEC_BRIDGE=1  the same for bridge, when flannel delegates to it
  CORTEN_CNI_ALLOWLIST=FILE the list of sysctls that tuning may write, instead of /etc/cni/tuning/allowlist.conf",
        env!("CARGO_PKG_VERSION"),
        Version::ALL[0].text(),
        Version::LATEST.text(),
        plugins.join("\n"),
    )
}

fn install(dir: &Path) -> ExitCode {
    let outcome = crate::install::install(&PathBuf::from("/proc/self/exe"), dir);
    match outcome {
        Ok(paths) => print(&paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join("\n")),
        Err(error) => {
            eprintln!("corten-cni install: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A closed stdout is no reason to fail: nobody is there to be told.
fn print(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    ExitCode::SUCCESS
}

fn run_plugin(plugin: &Plugin) -> ExitCode {
    let environment = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    let outcome = skel::read(environment, std::io::stdin().lock());
    match outcome {
        Ok(Call::About) => {
            let versions: Vec<&str> = Version::ALL.iter().map(|v| v.text()).collect();
            eprintln!("CNI plugin {} (corten {}): {}", plugin.name, env!("CARGO_PKG_VERSION"), plugin.about);
            eprintln!("CNI protocol versions supported: {}", versions.join(", "));
            ExitCode::SUCCESS
        }
        Ok(Call::Version) => print(&versions().to_string()),
        Ok(Call::Act(request)) => match plugin::act(plugin, &request) {
            Ok(Some(result)) => print(&result.to_string()),
            Ok(None) => ExitCode::SUCCESS,
            Err(error) => fail(&error, Some(request.network().version.text())),
        },
        Err(error) => fail(&error, None),
    }
}

fn versions() -> Value {
    let all: Vec<&str> = Version::ALL.iter().map(|v| v.text()).collect();
    json!({ "cniVersion": Version::LATEST.text(), "supportedVersions": all })
}

fn fail(error: &Error, version: Option<&str>) -> ExitCode {
    print(&error.to_json(version).to_string());
    ExitCode::FAILURE
}
