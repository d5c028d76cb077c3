//! Pod manifests as the user gives them → one file per Pod in the kubelet's directory. What a Pod may say is the
//! kubelet's to judge; here is only what is needed to name and split.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The example that `corten up` runs.
pub const HELLO: &str = include_str!("../../examples/hello.yaml");

/// One Pod of a manifest.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    pub namespace: String,
    pub name: String,
    pub images: Vec<Image>,
    /// Ports of its containers, for the hint what to try.
    pub ports: Vec<u16>,
    pub containers: Vec<String>,
    pub document: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    pub reference: String,
    pub never_pulled: bool,
}

impl Manifest {
    /// Name of its file in the manifest directory.
    pub fn file_name(&self) -> String {
        format!("{}_{}.json", self.namespace, self.name)
    }

    /// Content of that file.
    pub fn file_content(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.document).expect("what was parsed as JSON can be written as JSON")
    }
}

/// Every Pod of a YAML stream or JSON document; `from` names it in errors.
pub fn parse(text: &str, from: &str) -> Result<Vec<Manifest>> {
    let mut pods = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value =
            Value::deserialize(document).with_context(|| format!("{from} is neither YAML nor JSON"))?;
        if !value.is_null() {
            pods.push(manifest(value).with_context(|| format!("{from}, document {}", pods.len() + 1))?);
        }
    }
    if pods.is_empty() {
        bail!("{from} holds no Pod");
    }
    Ok(pods)
}

pub fn read(file: &Path) -> Result<Vec<Manifest>> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    parse(&text, &file.display().to_string())
}

fn manifest(document: Value) -> Result<Manifest> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    match (text("/apiVersion"), text("/kind")) {
        (Some("v1"), Some("Pod")) => {}
        (version, kind) => bail!(
            "apiVersion {}, kind {}: only v1 Pod can be run without an apiserver",
            version.unwrap_or("(none)"),
            kind.unwrap_or("(none)")
        ),
    }
    let name = text("/metadata/name").context("metadata.name is missing")?;
    let namespace = text("/metadata/namespace").unwrap_or("default");
    for (field, value) in [("name", name), ("namespace", namespace)] {
        if value.is_empty()
            || value.starts_with('.')
            || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        {
            bail!("metadata.{field} {value:?} is no DNS name");
        }
    }
    let containers = |list: &str| document.pointer(list).and_then(Value::as_array).into_iter().flatten();
    let images =
        containers("/spec/initContainers").chain(containers("/spec/containers")).filter_map(|container| {
            let reference = container["image"].as_str()?.to_string();
            Some(Image { reference, never_pulled: container["imagePullPolicy"] == "Never" })
        });
    let mut distinct: Vec<Image> = Vec::new();
    for image in images {
        if !distinct.iter().any(|known| known.reference == image.reference) {
            distinct.push(image);
        }
    }
    let ports = containers("/spec/containers").flat_map(|c| c["ports"].as_array().into_iter().flatten());
    Ok(Manifest {
        namespace: namespace.into(),
        name: name.into(),
        images: distinct,
        ports: ports.filter_map(|p| p["containerPort"].as_u64()).filter_map(|p| p.try_into().ok()).collect(),
        containers: containers("/spec/containers")
            .filter_map(|c| c["name"].as_str())
            .map(Into::into)
            .collect(),
        document,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_example_is_a_server_and_a_client() {
        let pods = parse(HELLO, "hello").unwrap();
        assert_eq!(pods.len(), 1);
        let hello = &pods[0];
        assert_eq!((hello.namespace.as_str(), hello.name.as_str()), ("default", "hello"));
        assert_eq!(
            (hello.ports.as_slice(), hello.containers.as_slice()),
            (&[8080][..], &["server".into(), "client".into()][..])
        );
        assert_eq!(hello.images, [Image { reference: "corten.local/demo:0.1".into(), never_pulled: false }]);
    }

    #[test]
    fn a_stream_of_pods_is_split_and_empty_documents_do_not_count() {
        let pod = |name: &str| {
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x}}\nspec: {{}}\n")
        };
        let pods = parse(&format!("---\n{}---\n{}---\n", pod("a"), pod("b")), "f").unwrap();
        assert_eq!(pods.iter().map(Manifest::file_name).collect::<Vec<_>>(), ["x_a.json", "x_b.json"]);
    }

    #[test]
    fn what_is_no_pod_is_refused_by_name() {
        for (text, why) in [
            ("apiVersion: apps/v1\nkind: Deployment", "kind Deployment: only v1 Pod"),
            ("apiVersion: v1\nkind: Pod", "metadata.name is missing"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: ../x}", "is no DNS name"),
            ("# nothing", "holds no Pod"),
            ("a: [", "neither YAML nor JSON"),
        ] {
            let error = format!("{:#}", parse(text, "f.yaml").unwrap_err());
            assert!(error.starts_with("f.yaml") && error.contains(why), "{error}");
        }
    }
}
