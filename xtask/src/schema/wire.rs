//! Where fields lie in protobuf: out of the tags in upstream's types.go, which alone tell pointers from values.
//!
//! A line of the facts is `type`, or two spaces and `field path [zero]`; a path has the numbers of the messages around
//! the field that JSON does not have, outermost first, then its own: `hostPath 2.1`. `zero`: JSON has the field even
//! when it is zero or empty.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Upstream's packages: Go's import path, where it lies in its module, the prefix of its types in OpenAPI.
const PACKAGES: [(&str, &str, &str); 4] = [
    ("k8s.io/apimachinery", "pkg/apis/meta", "io.k8s.apimachinery.pkg.apis.meta"),
    (
        "k8s.io/apiextensions-apiserver",
        "pkg/apis/apiextensions",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    ),
    ("k8s.io/kube-aggregator", "pkg/apis/apiregistration", "io.k8s.kube-aggregator.pkg.apis.apiregistration"),
    ("k8s.io/api", "", "io.k8s.api"),
];

#[derive(Debug, PartialEq, Eq)]
enum Member {
    Field {
        name: String,
        number: u32,
        keeps_zero: bool,
    },
    /// Embedded: its members are the outer's in JSON, and a message in protobuf.
    Embedded {
        ty: String,
        number: u32,
    },
}

type Structs = BTreeMap<String, Vec<Member>>;

/// The facts of all stable versions. `module`: where a Go module lies.
pub fn facts(module: impl Fn(&str) -> Result<std::path::PathBuf>) -> Result<String> {
    let mut text = String::new();
    for (name, within, prefix) in PACKAGES {
        let dir = module(name)?.join(within);
        let groups = if within.is_empty() { dirs(&dir)? } else { vec![String::new()] };
        for group in groups {
            let group_dir = dir.join(&group);
            for version in dirs(&group_dir)?.into_iter().filter(|version| is_stable(version)) {
                let separator = if group.is_empty() { "" } else { "." };
                let package = format!("{prefix}{separator}{group}.{version}");
                write_package(&mut text, &package, &structs_in(&group_dir.join(version))?);
            }
        }
    }
    Ok(text)
}

fn is_stable(version: &str) -> bool {
    version.strip_prefix('v').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn dirs(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn structs_in(dir: &Path) -> Result<Structs> {
    let mut structs = Structs::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_source = path.extension().is_some_and(|extension| extension == "go");
        if is_source
            && !name.starts_with("generated.")
            && !name.starts_with("zz_")
            && !name.ends_with("_test.go")
        {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            parse(&text, &mut structs);
        }
    }
    Ok(structs)
}

fn parse(text: &str, structs: &mut Structs) {
    let mut open: Option<(String, Vec<Member>)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {")) {
            open = Some((name.to_owned(), Vec::new()));
        } else if line == "}" {
            structs.extend(open.take());
        } else if let Some((_, members)) = &mut open {
            members.extend(member(line));
        }
    }
}

fn member(line: &str) -> Option<Member> {
    let (declared, tags) = line.trim().split_once('`')?;
    if declared.starts_with("//") {
        return None;
    }
    let tag = |name: &str| {
        let (_, rest) = tags.split_once(&format!("{name}:\""))?;
        rest.split('"').next()
    };
    let number = tag("protobuf")?.split(',').nth(1)?.parse().ok()?;
    let mut json = tag("json")?.split(',');
    let name = json.next()?.to_owned();
    let words: Vec<&str> = declared.split_whitespace().collect();
    match (words.as_slice(), name.as_str()) {
        ([ty], "") => Some(Member::Embedded { ty: (*ty).to_owned(), number }),
        (_, "" | "-") => None,
        _ => {
            let omitted = json.any(|option| matches!(option, "omitempty" | "omitzero"));
            let keeps_zero = words.get(1)?.starts_with('*') || !omitted;
            Some(Member::Field { name, number, keeps_zero })
        }
    }
}

fn write_package(text: &mut String, package: &str, structs: &Structs) {
    for name in structs.keys() {
        let mut lines = String::new();
        write_members(&mut lines, structs, name, "");
        if !lines.is_empty() {
            let _ = write!(text, "{package}.{name}\n{lines}");
        }
    }
}

fn write_members(lines: &mut String, structs: &Structs, name: &str, within: &str) {
    for member in structs.get(name).into_iter().flatten() {
        match member {
            Member::Field { name, number, keeps_zero } => {
                let zero = if *keeps_zero { " zero" } else { "" };
                let _ = writeln!(lines, "  {name} {within}{number}{zero}");
            }
            Member::Embedded { ty, number } => {
                write_members(lines, structs, ty, &format!("{within}{number}."));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_embedded_structs_have_the_path_of_both_and_pointers_keep_their_zero() {
        let source = "type Volume struct {\n\
            \t// name: `json:\"no\" protobuf:\"bytes,9\"`\n\
            \tName string `json:\"name\" protobuf:\"bytes,1,opt,name=name\"`\n\
            \tVolumeSource `json:\",inline\" protobuf:\"bytes,2,opt,name=volumeSource\"`\n\
            \tmetav1.TypeMeta `json:\",inline\"`\n}\n\
            type VolumeSource struct {\n\
            \tHostPath *HostPath `json:\"hostPath,omitempty\" protobuf:\"bytes,1,opt,name=hostPath\"`\n\
            \tKind string `json:\"kind,omitempty\" protobuf:\"bytes,3,opt,name=kind\"`\n}\n";
        let mut structs = Structs::new();
        parse(source, &mut structs);
        let mut text = String::new();
        write_package(&mut text, "io.k8s.api.core.v1", &structs);
        let expected = "io.k8s.api.core.v1.Volume\n  name 1 zero\n  hostPath 2.1 zero\n  kind 2.3\n\
            io.k8s.api.core.v1.VolumeSource\n  hostPath 1 zero\n  kind 3\n";
        assert_eq!(text, expected);
    }
}
