//! Where a registry's content is fetched from: `CERTS_DIR/HOST/hosts.toml` in containerd's format.
//! Source: containerd docs/hosts.md. Unknown keys are refused by name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::error::RegistryError;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Searched in order; the first that has something to say about a registry decides alone.
    pub certs_dirs: Vec<PathBuf>,
}

/// One place that answers for a registry, tried in the order of the file; the registry itself is last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `https` or `http`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// Starts with a slash, ends without: `/v2`, or what `override_path` says.
    pub path: String,
    pub pull: bool,
    pub resolve: bool,
    pub connection: Connection,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The registry itself, not a mirror: only it sees the credentials that were given for it.
    pub origin: bool,
}

/// What makes two connections different.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    pub ca: Vec<PathBuf>,
    /// Certificate and key; without key both are in one file.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    pub skip_verify: bool,
    pub dial_timeout: Duration,
}

impl Default for Connection {
    fn default() -> Self {
        Self { ca: Vec::new(), client: Vec::new(), skip_verify: false, dial_timeout: DIAL_TIMEOUT }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
    header: Option<toml::Table>,
    host: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    One(String),
    Many(Vec<Pair>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Joined(String),
    Split([String; 2]),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Section {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
    header: Option<toml::Table>,
}

impl RegistryConfig {
    /// The hosts for `registry` (`docker.io`, `localhost:5000`).
    pub fn hosts(&self, registry: &str) -> Result<Vec<Host>, RegistryError> {
        for directory in &self.certs_dirs {
            for name in directory_names(registry) {
                let path = directory.join(name).join("hosts.toml");
                match std::fs::read_to_string(&path) {
                    Ok(text) => {
                        let parent = path.parent().unwrap_or(directory);
                        return parse(&text, parent, registry)
                            .map_err(|problem| RegistryError::Config { path: path.clone(), problem });
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                        ) => {}
                    Err(error) => return Err(RegistryError::Config { path, problem: error.to_string() }),
                }
            }
        }
        Ok(origins(registry))
    }
}

/// containerd looks for `host_port_`, `host:port` and `_default`.
fn directory_names(registry: &str) -> Vec<String> {
    let with_port = registry.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let mut names: Vec<_> = with_port.map(|(host, port)| format!("{host}_{port}_")).into_iter().collect();
    names.extend([registry.to_owned(), "_default".to_owned()]);
    names
}

/// The registry itself, without configuration. One on this machine may speak plain HTTP.
fn origins(registry: &str) -> Vec<Host> {
    let https = Host {
        scheme: "https".to_owned(),
        authority: if registry == "docker.io" { "registry-1.docker.io" } else { registry }.to_owned(),
        path: "/v2".to_owned(),
        pull: true,
        resolve: true,
        connection: Connection::default(),
        headers: Vec::new(),
        origin: true,
    };
    if is_loopback(registry) {
        let http = Host { scheme: "http".to_owned(), ..https.clone() };
        return vec![https, http];
    }
    vec![https]
}

fn is_loopback(registry: &str) -> bool {
    let host = registry
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_else(|| registry.split(':').next().unwrap_or_default());
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Pure: the file's text and place in, hosts out.
fn parse(text: &str, directory: &Path, registry: &str) -> Result<Vec<Host>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut hosts = Vec::new();
    for (url, section) in file.host.unwrap_or_default() {
        let section: Section = section.try_into().map_err(|error| format!("[host.\"{url}\"]: {error}"))?;
        hosts.push(
            host(&url, section, directory, registry)
                .map_err(|problem| format!("[host.\"{url}\"]: {problem}"))?,
        );
    }
    let section = Section {
        capabilities: file.capabilities,
        ca: file.ca,
        client: file.client,
        skip_verify: file.skip_verify,
        override_path: file.override_path,
        dial_timeout: file.dial_timeout,
        header: file.header,
    };
    let defaults = origins(registry);
    let urls = match &file.server {
        Some(server) => vec![server.clone()],
        None => defaults.iter().map(|host| format!("{}://{}", host.scheme, host.authority)).collect(),
    };
    for url in urls {
        let section = Section { ..clone_section(&section) };
        let server =
            host(&url, section, directory, registry).map_err(|problem| format!("server: {problem}"))?;
        hosts.push(Host { origin: true, ..server });
    }
    Ok(hosts)
}

fn clone_section(section: &Section) -> Section {
    let many = |files: &OneOrMany| match files {
        OneOrMany::One(one) => OneOrMany::One(one.clone()),
        OneOrMany::Many(many) => OneOrMany::Many(many.clone()),
    };
    let pair = |pair: &Pair| match pair {
        Pair::Joined(file) => Pair::Joined(file.clone()),
        Pair::Split(files) => Pair::Split(files.clone()),
    };
    Section {
        capabilities: section.capabilities.clone(),
        ca: section.ca.as_ref().map(many),
        client: section.client.as_ref().map(|client| match client {
            Client::One(one) => Client::One(one.clone()),
            Client::Many(pairs) => Client::Many(pairs.iter().map(pair).collect()),
        }),
        header: section.header.clone(),
        dial_timeout: section.dial_timeout.clone(),
        ..*section
    }
}

fn host(url: &str, section: Section, directory: &Path, registry: &str) -> Result<Host, String> {
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let uri: hyper::Uri = url.parse().map_err(|error| format!("URL {url}: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or_default().to_owned();
    if scheme != "https" && scheme != "http" {
        return Err(format!("URL {url}: want https:// or http://"));
    }
    let authority = uri.authority().ok_or_else(|| format!("URL {url}: no host"))?.to_string();
    if authority.contains('@') || uri.query().is_some() {
        return Err(format!("URL {url}: want neither user nor query"));
    }
    let mut path = uri.path().trim_end_matches('/').to_owned();
    if !section.override_path.unwrap_or(false) && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    let capabilities =
        section.capabilities.unwrap_or_else(|| ["pull", "resolve", "push"].map(Into::into).into());
    if let Some(unknown) =
        capabilities.iter().find(|c| !matches!(c.as_str(), "pull" | "resolve" | "push" | "referrers"))
    {
        return Err(format!("capability {unknown:?} is none of pull, resolve, push, referrers"));
    }
    let place = |file: String| directory.join(file);
    let ca = match section.ca {
        None => Vec::new(),
        Some(OneOrMany::One(file)) => vec![place(file)],
        Some(OneOrMany::Many(files)) => files.into_iter().map(place).collect(),
    };
    let client = match section.client {
        None => Vec::new(),
        Some(Client::One(file)) => vec![(place(file), None)],
        Some(Client::Many(pairs)) => pairs
            .into_iter()
            .map(|pair| match pair {
                Pair::Joined(file) => (place(file), None),
                Pair::Split([certificate, key]) => {
                    (place(certificate), Some(place(key)).filter(|key| *key != directory))
                }
            })
            .collect(),
    };
    let origin_name = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    Ok(Host {
        origin: authority == origin_name,
        scheme,
        authority,
        path,
        pull: capabilities.iter().any(|c| c == "pull"),
        resolve: capabilities.iter().any(|c| c == "resolve"),
        connection: Connection {
            ca,
            client,
            skip_verify: section.skip_verify.unwrap_or(false),
            dial_timeout: section.dial_timeout.map_or(Ok(DIAL_TIMEOUT), |text| duration(&text))?,
        },
        headers: headers(section.header.unwrap_or_default())?,
    })
}

fn headers(table: toml::Table) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (name, value) in table {
        let values = match value {
            toml::Value::String(one) => vec![one],
            other => other
                .try_into::<Vec<String>>()
                .map_err(|_| format!("header {name}: want a string or a list of them"))?,
        };
        let key: HeaderName = name.parse().map_err(|_| format!("header name {name:?} is not valid"))?;
        for value in values {
            let value =
                HeaderValue::from_str(&value).map_err(|_| format!("header {name}: value is not valid"))?;
            headers.push((key.clone(), value));
        }
    }
    Ok(headers)
}

/// Go's durations, one unit: `500ms`, `3s`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..split].parse::<u32>().ok();
    let unit = match &text[split..] {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_mins(1)),
        _ => None,
    };
    number
        .zip(unit)
        .map(|(number, unit)| unit * number)
        .ok_or_else(|| format!("dial_timeout {text:?}: want 500ms, 3s or 1m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(hosts: &[Host]) -> Vec<String> {
        hosts.iter().map(|host| format!("{}://{}{}", host.scheme, host.authority, host.path)).collect()
    }

    #[test]
    fn without_a_file_the_registry_itself_is_asked() {
        let config = RegistryConfig::default();
        assert_eq!(urls(&config.hosts("docker.io").unwrap()), ["https://registry-1.docker.io/v2"]);
        assert_eq!(urls(&config.hosts("quay.io").unwrap()), ["https://quay.io/v2"]);
        for local in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(
                urls(&config.hosts(local).unwrap()),
                [format!("https://{local}/v2"), format!("http://{local}/v2")]
            );
        }
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
        let text = r#"
            server = "https://real.example"
            skip_verify = true
            [host."http://z.example:5000"]
              capabilities = ["pull", "resolve"]
            [host."https://a.example/mirror/docker"]
              capabilities = ["pull"]
              ca = "ca.pem"
              client = [["c.pem", "k.pem"], ["both.pem", ""]]
              dial_timeout = "500ms"
              [host."https://a.example/mirror/docker".header]
                x-one = "1"
                x-two = ["2", "3"]
            [host."m.example/as/is"]
              override_path = true
        "#;
        let hosts = parse(text, Path::new("/c/docker.io"), "docker.io").unwrap();
        let want = [
            "http://z.example:5000/v2",
            "https://a.example/mirror/docker/v2",
            "https://m.example/as/is",
            "https://real.example/v2",
        ];
        assert_eq!(urls(&hosts), want);
        assert!(hosts[0].resolve && !hosts[1].resolve && hosts[2].resolve);
        assert!(!hosts[0].origin && hosts[3].origin);
        assert_eq!(hosts[1].connection.ca, [PathBuf::from("/c/docker.io/ca.pem")]);
        assert_eq!(hosts[1].connection.client.len(), 2);
        assert_eq!(hosts[1].connection.client[1].1, None);
        assert_eq!(hosts[1].connection.dial_timeout, Duration::from_millis(500));
        assert_eq!(hosts[1].headers.len(), 3);
        assert!(hosts[3].connection.skip_verify && !hosts[0].connection.skip_verify);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let cases = [
            ("[host.\"http://x\"]\ncapabilites = []", "capabilites"),
            ("mirror = 1", "mirror"),
            ("[host.\"ftp://x\"]", "ftp://x"),
            ("[host.\"http://x\"]\ncapabilities = [\"fly\"]", "fly"),
            ("[host.\"http://x\"]\ndial_timeout = \"soon\"", "soon"),
            ("server = ", "expected"),
        ];
        for (text, word) in cases {
            let problem = parse(text, Path::new("/"), "docker.io").unwrap_err();
            assert!(problem.contains(word), "{problem} does not name {word}");
        }
    }

    #[test]
    fn directories_are_looked_up_as_containerd_does() {
        assert_eq!(directory_names("localhost:5000"), ["localhost_5000_", "localhost:5000", "_default"]);
        assert_eq!(directory_names("docker.io"), ["docker.io", "_default"]);
        let top = tempfile::tempdir().unwrap();
        let (ours, theirs) = (top.path().join("a"), top.path().join("b"));
        for (directory, host) in [(&ours, "h_1_"), (&theirs, "docker.io"), (&theirs, "_default")] {
            std::fs::create_dir_all(directory.join(host)).unwrap();
            std::fs::write(
                directory.join(host).join("hosts.toml"),
                format!("[host.\"http://{host}.example\"]"),
            )
            .unwrap();
        }
        let config = RegistryConfig { certs_dirs: vec![ours, theirs] };
        for (registry, first) in
            [("h:1", "h_1_.example"), ("docker.io", "docker.io.example"), ("quay.io", "_default.example")]
        {
            assert_eq!(config.hosts(registry).unwrap()[0].authority, first);
        }
    }
}
