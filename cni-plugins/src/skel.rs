//! What the runtime said: environment and stdin, read and checked before any plugin acts.
//!
//! The same checks as the Go library's skel package, which runs some of them only after the verb.

use std::io::Read;
use std::path::PathBuf;

use corten_sys::Context;
use corten_sys::netns::{NetNs, NetNsError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Result;
use crate::error::{Code, Error};
use crate::types::{self, CniResult, Version};

/// A network configuration with all its prevResult; libcni's own grow to some ten KiB.
const STDIN_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
const IFNAME_MAX_BYTES: usize = 15;

/// What is asked of the plugin.
#[derive(Debug)]
pub enum Call {
    /// No CNI_COMMAND: a person runs the program by hand.
    About,
    Version,
    Act(Box<Request>),
}

#[derive(Debug)]
pub enum Request {
    Add(Network, Attachment),
    Del(Network, Attachment),
    Check(Network, Attachment),
    Gc(Network, Vec<ValidAttachment>),
    Status(Network),
}

impl Request {
    pub fn network(&self) -> &Network {
        match self {
            Self::Add(n, _) | Self::Del(n, _) | Self::Check(n, _) | Self::Gc(n, _) | Self::Status(n) => n,
        }
    }
}

/// The configuration on stdin.
#[derive(Debug, Clone)]
pub struct Network {
    pub name: String,
    pub version: Version,
    /// Without nulls: the Go library takes them as absent.
    pub config: Value,
    /// As it came: what a delegate gets.
    pub stdin: Vec<u8>,
    /// CNI_PATH: where delegates are.
    pub path: Vec<PathBuf>,
}

/// One interface of one container.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub container_id: String,
    pub ifname: String,
    /// CNI_NETNS; may be empty on DEL.
    pub netns: String,
    pub args: Args,
    /// CORTEN_NETNS_DOOMED=1, meant for DEL: the caller destroys the namespace when this process has ended, so its
    /// interface may be left to the kernel. RTM_DELLINK of a veth waits some 17 ms for an RCU grace period.
    pub netns_doomed: bool,
}

/// An attachment that still exists, on GC.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// CNI_ARGS, the keys our plugins know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    pub ip: Option<String>,
    pub mac: Option<String>,
}

impl Network {
    /// The configuration as `T`; an error names the offending key.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.config).map_err(|error| {
            let key = self.offending_key::<T>().map(|key| format!(" key {key:?}:")).unwrap_or_default();
            Error::new(Code::Decoding, format!("network configuration {:?}:{key} {error}", self.name))
        })
    }

    /// The top-level key without which the configuration would decode.
    fn offending_key<T: DeserializeOwned>(&self) -> Option<String> {
        let object = self.config.as_object()?;
        let decodes_without = |key: &&String| {
            let mut rest = object.clone();
            rest.remove(*key);
            T::deserialize(&Value::Object(rest)).is_ok()
        };
        object.keys().find(decodes_without).cloned()
    }

    /// What the plugin before us in the chain returned, as it came.
    pub fn prev_result(&self) -> Option<&Value> {
        self.config.get("prevResult")
    }

    pub fn parsed_prev_result(&self) -> Result<Option<CniResult>> {
        self.prev_result().map(|value| types::parse(value, self.version)).transpose()
    }
}

impl Attachment {
    pub fn open_netns(&self) -> Result<NetNs> {
        Ok(NetNs::open(&self.netns)?)
    }

    /// `None`: there is no such namespace any more.
    pub fn netns_if_present(&self) -> Result<Option<NetNs>> {
        if self.netns.is_empty() {
            return Ok(None);
        }
        match NetNs::open(&self.netns) {
            Ok(netns) => Ok(Some(netns)),
            Err(NetNsError::Gone { .. } | NetNsError::NotANamespace { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads the call. `environment`: the variable's value, `None` or empty when unset.
pub fn read(environment: impl Fn(&str) -> Option<String>, stdin: impl Read) -> Result<Call> {
    let get = |name: &str| environment(name).unwrap_or_default();
    let verb = get("CNI_COMMAND");
    let required: &[&str] = match verb.as_str() {
        "" => return Ok(Call::About),
        "VERSION" => return Ok(Call::Version),
        "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
        "GC" | "STATUS" => &["CNI_PATH"],
        other => {
            let known = "ADD, DEL, CHECK, GC, STATUS and VERSION are known";
            return Err(Error::environment(format!("unknown CNI_COMMAND {other:?}")).details(known));
        }
    };
    let missing: Vec<&str> = required.iter().copied().filter(|name| get(name).is_empty()).collect();
    if !missing.is_empty() {
        let text = format!("required env variables [{}] missing", missing.join(","));
        return Err(Error::environment(text));
    }
    let network = read_network(stdin, &get("CNI_PATH"))?;
    check_verb_version(&verb, network.version)?;
    let attachment = || read_attachment(&get);
    Ok(Call::Act(Box::new(match verb.as_str() {
        "ADD" => Request::Add(network, attachment()?),
        "CHECK" => Request::Check(network, attachment()?),
        "DEL" => Request::Del(network, attachment()?),
        "GC" => {
            let valid = valid_attachments(&network.config)?;
            Request::Gc(network, valid)
        }
        _ => Request::Status(network),
    })))
}

fn read_attachment(get: &impl Fn(&str) -> String) -> Result<Attachment> {
    let attachment = Attachment {
        container_id: get("CNI_CONTAINERID"),
        ifname: get("CNI_IFNAME"),
        netns: get("CNI_NETNS"),
        args: parse_args(&get("CNI_ARGS"))?,
        netns_doomed: get("CORTEN_NETNS_DOOMED") == "1",
    };
    if !is_name(&attachment.container_id) {
        let text =
            "CNI_CONTAINERID must be of letters, digits, '_', '.' and '-' and begin with a letter or digit";
        return Err(Error::environment(text).details(attachment.container_id));
    }
    check_ifname("CNI_IFNAME", &attachment.ifname)?;
    let override_ = get("CNI_NETNS_OVERRIDE");
    if override_ != "1" && !override_.eq_ignore_ascii_case("true") {
        refuse_own_netns(&attachment.netns)?;
    }
    Ok(attachment)
}

/// A plugin told to work on its own namespace would delete the host's eth0.
fn refuse_own_netns(path: &str) -> Result<()> {
    let Ok(netns) = NetNs::open(path) else { return Ok(()) };
    if netns.is_same(&NetNs::current()?)? {
        let text = "plugin's netns and netns from CNI_NETNS should not be the same";
        return Err(Error::new(Code::InvalidNetns, text).details(path));
    }
    Ok(())
}

/// `what`: the variable or key, for the error.
pub fn check_ifname(what: &str, name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > IFNAME_MAX_BYTES {
        "is longer than 15 characters"
    } else if name == "." || name == ".." {
        "is . or .."
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0') {
        "contains '/', ':' or whitespace"
    } else {
        return Ok(());
    };
    let code = if what.starts_with("CNI_") { Code::InvalidEnvironment } else { Code::InvalidConfig };
    Err(Error::new(code, format!("interface name of {what} {problem}")).details(name))
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

fn read_network(stdin: impl Read, path: &str) -> Result<Network> {
    let mut bytes = Vec::new();
    stdin
        .take(STDIN_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .tried(|| "read network configuration".into())?;
    let decoding =
        |text: String| Error::new(Code::Decoding, format!("network configuration on stdin: {text}"));
    if bytes.len() as u64 > STDIN_LIMIT_BYTES {
        return Err(decoding("longer than 4 MiB".into()));
    }
    let config: Value = serde_json::from_slice(&bytes).map_err(|e| decoding(e.to_string()))?;
    let config = without_nulls(config);
    let Value::Object(object) = &config else { return Err(decoding("not an object".into())) };
    let text = |key: &str| match object.get(key) {
        None => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(decoding(format!("key {key:?} is not a string"))),
    };
    let name = text("name")?.to_owned();
    if name.is_empty() {
        return Err(Error::config("missing network name"));
    }
    if !is_name(&name) {
        return Err(Error::config("invalid characters found in network name").details(name));
    }
    let version = Version::parse(text("cniVersion")?)?;
    let path = std::env::split_paths(path).filter(|p| !p.as_os_str().is_empty()).collect();
    Ok(Network { name, version, config, stdin: bytes, path })
}

fn check_verb_version(verb: &str, version: Version) -> Result<()> {
    let since = match verb {
        "CHECK" => Version::V0_4_0,
        "GC" | "STATUS" => Version::V1_1_0,
        _ => return Ok(()),
    };
    if version < since {
        let text = format!("config version does not allow {verb}");
        let details =
            format!("{verb} exists since {}, the configuration says {}", since.text(), version.text());
        return Err(Error::new(Code::IncompatibleVersion, text).details(details));
    }
    Ok(())
}

/// An absent list is not an empty one: an empty list removes everything. libcni also sends the former, wrong name.
fn valid_attachments(config: &Value) -> Result<Vec<ValidAttachment>> {
    let list = config.get("cni.dev/valid-attachments").or_else(|| config.get("cni.dev/attachments"));
    let Some(list) = list else {
        return Err(Error::config("GC needs the key \"cni.dev/valid-attachments\""));
    };
    serde::Deserialize::deserialize(list)
        .map_err(|e| Error::new(Code::Decoding, format!("key \"cni.dev/valid-attachments\": {e}")))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            object.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// `IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.1.2.3`. Keys of Kubernetes runtimes come with IgnoreUnknown.
fn parse_args(text: &str) -> Result<Args> {
    let mut args = Args::default();
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::environment(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")));
        };
        match key {
            "IgnoreUnknown" => ignore_unknown = matches!(value.to_ascii_lowercase().as_str(), "1" | "true"),
            "IP" => args.ip = Some(value.to_owned()),
            "MAC" => args.mac = Some(value.to_owned()),
            other => unknown.push(other),
        }
    }
    if ignore_unknown || unknown.is_empty() {
        return Ok(args);
    }
    let remedy = "known are IP and MAC; IgnoreUnknown=1 passes over others";
    Err(Error::environment(format!("CNI_ARGS: unknown keys {unknown:?}")).details(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"cniVersion":"1.1.0","name":"net","type":"x"}"#;

    fn call(environment: &[(&str, &str)], stdin: &str) -> Result<Call> {
        let get = |name: &str| environment.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        read(get, stdin.as_bytes())
    }

    fn add_with(changes: &[(&'static str, &'static str)], stdin: &str) -> Result<Call> {
        let mut environment = vec![
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "pod-1"),
            ("CNI_NETNS", "/nonexistent"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        for (key, value) in changes {
            environment.retain(|(k, _)| k != key);
            environment.push((key, value));
        }
        call(&environment, stdin)
    }

    fn request(call: Result<Call>) -> Request {
        match call.expect("accepted") {
            Call::Act(request) => *request,
            other => panic!("no request: {other:?}"),
        }
    }

    fn an_add(changes: &[(&'static str, &'static str)], stdin: &str) -> (Network, Attachment) {
        match request(add_with(changes, stdin)) {
            Request::Add(network, attachment) => (network, attachment),
            other => panic!("no ADD: {other:?}"),
        }
    }

    #[test]
    fn a_good_call_is_read() {
        let (network, attachment) =
            an_add(&[("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.0.0.9;MAC=")], CONFIG);
        assert_eq!((network.name.as_str(), network.version), ("net", Version::V1_1_0));
        assert_eq!(attachment.args.ip.as_deref(), Some("10.0.0.9"));
        assert!(!attachment.netns_doomed);
        assert!(matches!(call(&[], ""), Ok(Call::About)));
        assert!(matches!(call(&[("CNI_COMMAND", "VERSION")], "junk"), Ok(Call::Version)));
    }

    #[test]
    fn bad_environment_is_code_4_and_names_the_variable() {
        for (changes, wanted) in [
            (&[("CNI_COMMAND", "MOVE")][..], "CNI_COMMAND"),
            (&[("CNI_NETNS", "")], "[CNI_NETNS] missing"),
            (&[("CNI_NETNS", ""), ("CNI_PATH", "")], "[CNI_NETNS,CNI_PATH] missing"),
            (&[("CNI_CONTAINERID", "../x")], "CNI_CONTAINERID"),
            (&[("CNI_IFNAME", "a/b")], "contains '/'"),
            (&[("CNI_IFNAME", "..")], "is . or .."),
            (&[("CNI_IFNAME", "sixteen-letters-")], "15 characters"),
            (&[("CNI_ARGS", "FOO=1")], "unknown keys [\"FOO\"]"),
            (&[("CNI_ARGS", "FOO")], "not KEY=VALUE"),
        ] {
            let error = add_with(changes, CONFIG).expect_err(wanted);
            assert_eq!(error.code.number(), 4, "{error}");
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn bad_configuration_has_the_codes_of_the_specification() {
        for (stdin, code, wanted) in [
            ("{", 6, "EOF"),
            ("[]", 6, "not an object"),
            (r#"{"name":1}"#, 6, "\"name\" is not a string"),
            (r#"{"cniVersion":"1.0.0"}"#, 7, "missing network name"),
            (r#"{"cniVersion":"1.0.0","name":"a b"}"#, 7, "invalid characters"),
            (r#"{"cniVersion":"9.9.9","name":"a"}"#, 1, "incompatible CNI versions"),
            (r#"{"cniVersion":"x","name":"a"}"#, 1, "incompatible CNI versions"),
        ] {
            let error = add_with(&[], stdin).expect_err(stdin);
            assert_eq!(error.code.number(), code, "{stdin}: {error}");
            assert!(error.to_string().contains(wanted), "{stdin}: {error}");
        }
        let large = format!("{{\"name\":\"{}\"}}", "x".repeat(STDIN_LIMIT_BYTES as usize));
        assert_eq!(add_with(&[], &large).expect_err("too long").code.number(), 6);
    }

    #[test]
    fn verbs_younger_than_the_configuration_are_refused() {
        let old = r#"{"cniVersion":"0.3.1","name":"net"}"#;
        for verb in ["CHECK", "GC", "STATUS"] {
            let error = add_with(&[("CNI_COMMAND", verb)], old).expect_err(verb);
            assert_eq!(error.code, Code::IncompatibleVersion);
            assert!(error.to_string().contains("config version does not allow"), "{error}");
        }
    }

    #[test]
    fn the_plugins_own_namespace_is_refused_unless_overridden() {
        let own = ("CNI_NETNS", "/proc/self/ns/net");
        let error = add_with(&[own], CONFIG).expect_err("own namespace");
        assert_eq!(error.code, Code::InvalidNetns);
        add_with(&[own, ("CNI_NETNS_OVERRIDE", "TRUE")], CONFIG).expect("overridden");
    }

    #[test]
    fn a_missing_list_of_valid_attachments_is_not_an_empty_one() {
        let gc = |extra: &str| {
            let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"net"{extra}}}"#);
            add_with(&[("CNI_COMMAND", "GC")], &stdin)
        };
        assert_eq!(gc("").expect_err("absent").code, Code::InvalidConfig);
        let empty = request(gc(r#","cni.dev/valid-attachments":[]"#));
        assert!(matches!(empty, Request::Gc(_, v) if v.is_empty()));
        let one = r#","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]"#;
        assert!(matches!(request(gc(one)), Request::Gc(_, v) if v[0].container_id == "a"));
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        #[derive(Debug, serde::Deserialize)]
        struct Config {
            #[serde(default)]
            #[allow(dead_code)]
            mtu: u32,
        }
        let stdin = r#"{"name":"net","mtu":"big","other":null}"#;
        let (network, _) = an_add(&[], stdin);
        assert_eq!(network.config.get("other"), None, "null is absent");
        let error = network.parse::<Config>().expect_err("mtu is text");
        assert_eq!(error.code, Code::Decoding);
        assert!(error.to_string().contains("key \"mtu\""), "{error}");
    }
}
