//! Which pod and which container a user means. Pure.

use anyhow::{Result, bail};

/// A pod as the user may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub namespace: String,
    /// Full name: of a static pod, its manifest's name, `-`, the node's.
    pub name: String,
    pub node: String,
}

impl Candidate {
    fn short(&self) -> &str {
        self.name.strip_suffix(self.node.as_str()).and_then(|n| n.strip_suffix('-')).unwrap_or(&self.name)
    }
}

/// The index of the pod called `wanted`: `NAME` or `NAMESPACE/NAME`, with or without the node's suffix.
pub fn pod(wanted: &str, pods: &[Candidate]) -> Result<usize> {
    let (namespace, name) = wanted.split_once('/').map_or((None, wanted), |(ns, name)| (Some(ns), name));
    let fits = |pod: &Candidate| {
        namespace.is_none_or(|ns| ns == pod.namespace) && (pod.short() == name || pod.name == name)
    };
    let found: Vec<usize> = (0..pods.len()).filter(|index| fits(&pods[*index])).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] if pods.is_empty() => bail!("no pod {wanted:?}: there are no pods"),
        [] => bail!("no pod {wanted:?}; there are: {}", list(pods.iter())),
        several => bail!(
            "{wanted:?} is {} pods: {}; say which by NAMESPACE/NAME",
            several.len(),
            list(several.iter().map(|index| &pods[*index]))
        ),
    }
}

/// The container called `wanted`, or the first when none is said.
pub fn container<'a>(pod: &str, wanted: Option<&str>, containers: &'a [String]) -> Result<&'a str> {
    let found = match wanted {
        None => containers.first(),
        Some(wanted) => containers.iter().find(|name| *name == wanted),
    };
    match (found, wanted) {
        (Some(name), _) => Ok(name),
        (None, None) => bail!("pod {pod} has no container yet"),
        (None, Some(wanted)) => {
            bail!("pod {pod} has no container {wanted:?}; it has: {}", containers.join(", "))
        }
    }
}

fn list<'a>(pods: impl Iterator<Item = &'a Candidate>) -> String {
    pods.map(|pod| format!("{}/{}", pod.namespace, pod.short())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Vec<Candidate> {
        let pod = |namespace: &str, name: &str| Candidate {
            namespace: namespace.into(),
            name: name.into(),
            node: "n1".into(),
        };
        vec![pod("default", "hello-n1"), pod("default", "web-n1"), pod("other", "web-n1")]
    }

    #[test]
    fn a_pod_is_found_by_either_name() {
        for (wanted, index) in [("hello", 0), ("hello-n1", 0), ("default/web", 1), ("other/web-n1", 2)] {
            assert_eq!(pod(wanted, &pods()).unwrap(), index, "{wanted}");
        }
    }

    #[test]
    fn none_and_several_name_what_there_is() {
        let error = |wanted| pod(wanted, &pods()).unwrap_err().to_string();
        assert_eq!(error("x"), r#"no pod "x"; there are: default/hello, default/web, other/web"#);
        assert_eq!(error("web"), r#""web" is 2 pods: default/web, other/web; say which by NAMESPACE/NAME"#);
        assert_eq!(pod("x", &[]).unwrap_err().to_string(), r#"no pod "x": there are no pods"#);
    }

    #[test]
    fn the_first_container_is_meant_when_none_is_said() {
        let containers = ["server".to_string(), "client".to_string()];
        assert_eq!(container("hello", None, &containers).unwrap(), "server");
        assert_eq!(container("hello", Some("client"), &containers).unwrap(), "client");
        let error = container("hello", Some("x"), &containers).unwrap_err().to_string();
        assert_eq!(error, r#"pod hello has no container "x"; it has: server, client"#);
    }
}
