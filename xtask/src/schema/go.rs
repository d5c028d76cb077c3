//! The structures of upstream's Go packages, as far as their fields' tags tell what JSON and protobuf make of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{project, run};

/// A field as it is written: `Name []v1.Type` with its tags.
#[derive(Debug, Clone)]
pub struct Field {
    /// Go's name; that of its type where it is embedded.
    pub name: String,
    /// As in the source.
    pub ty: String,
    /// Of the JSON tag; empty: none.
    pub json: String,
    pub inline: bool,
    pub omit_empty: bool,
    pub omit_zero: bool,
    /// 0: none.
    pub number: u32,
}

#[derive(Debug, Clone)]
pub enum Type {
    Struct(Vec<Field>),
    /// What it is another name of: `string`, `[]string`.
    Named(String),
}

/// A package's types by name, and its imports by the names they have in it.
#[derive(Debug, Default)]
pub struct Package {
    pub types: BTreeMap<String, Type>,
    pub imports: BTreeMap<String, String>,
}

/// Where the module that lies under `k8s.io/NAME` is, in the version that the tools are built from.
pub fn module(name: &str) -> Result<String> {
    let go = run::find("go").context("Go is not installed: install Go 1.26 (https://go.dev/dl)")?;
    let dir = project::root().join("test-vm/tools/kubernetes");
    let module = format!("k8s.io/{name}");
    run::output(Command::new(&go).current_dir(&dir).args(["mod", "download", &module]))?;
    let found =
        run::output(Command::new(&go).current_dir(&dir).args(["list", "-m", "-f", "{{.Dir}}", &module]))?;
    Ok(found.trim().to_owned())
}

impl Package {
    pub fn read(dir: &Path) -> Result<Self> {
        let mut package = Self::default();
        let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let written = path.extension().is_some_and(|extension| extension == "go")
                && !name.ends_with("_test.go")
                && !name.starts_with("zz_")
                && !name.starts_with("generated");
            if written {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                package.add(&text);
            }
        }
        Ok(package)
    }

    fn add(&mut self, text: &str) {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("import (") {
                for line in lines.by_ref().take_while(|line| !line.starts_with(')')) {
                    self.import(line);
                }
            } else if let Some(line) = line.strip_prefix("import ") {
                self.import(line);
            } else if let Some(declared) = line.strip_prefix("type ") {
                let (name, ty) = declared.split_once(' ').unwrap_or((declared, ""));
                let ty = ty.split("//").next().unwrap_or_default().trim();
                if ty == "struct {" {
                    let body = lines.by_ref().take_while(|line| !line.starts_with('}'));
                    let fields = body.filter_map(field).collect();
                    self.types.insert(name.to_owned(), Type::Struct(fields));
                } else if !ty.ends_with('{') && !ty.is_empty() {
                    let ty = ty.trim_start_matches("= ");
                    self.types.insert(name.to_owned(), Type::Named(ty.to_owned()));
                }
            }
        }
    }

    fn import(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { return };
        let path = second.filter(|word| word.starts_with('"')).unwrap_or(first).trim_matches('"').to_owned();
        let own = path.rsplit('/').next().unwrap_or_default().to_owned();
        let name = if first.starts_with('"') { own } else { first.to_owned() };
        self.imports.insert(name, path);
    }
}

/// A field with a JSON tag.
fn field(line: &str) -> Option<Field> {
    let line = line.trim();
    if line.starts_with("//") {
        return None;
    }
    let (declared, tags) = line.split_once('`')?;
    let tags = tags.split('`').next()?;
    let json = tag(tags, "json")?;
    let mut words = declared.split_whitespace();
    let (first, second) = (words.next()?, words.next());
    let ty = second.unwrap_or(first).to_owned();
    let name = match second {
        Some(_) => first.to_owned(),
        None => first.trim_start_matches('*').rsplit('.').next()?.to_owned(),
    };
    let mut options = json.split(',');
    let key = options.next()?.to_owned();
    if key == "-" {
        return None;
    }
    let options: Vec<&str> = options.collect();
    let number =
        tag(tags, "protobuf").and_then(|tag| tag.split(',').nth(1)?.parse().ok()).unwrap_or_default();
    Some(Field {
        name,
        ty,
        inline: options.contains(&"inline") || key.is_empty(),
        omit_empty: options.contains(&"omitempty"),
        omit_zero: options.contains(&"omitzero"),
        json: key,
        number,
    })
}

/// The value of `KEY:"VALUE"`.
fn tag<'a>(tags: &'a str, key: &str) -> Option<&'a str> {
    let at = tags.find(&format!("{key}:\""))? + key.len() + 2;
    tags[at..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_their_tags() {
        let mut package = Package::default();
        package.add(
            "import (\n\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"\n\t\"k8s.io/apimachinery/pkg/types\"\n)\n\
             type Protocol string\n\
             // Volume is text.\ntype Volume struct {\n\t// Name `json:\"no\"`\n\tName string `json:\"name\" protobuf:\"bytes,1,opt,name=name\"`\n\
             \tVolumeSource `json:\",inline\" protobuf:\"bytes,2,opt,name=volumeSource\"`\n\
             \tAt *metav1.Time `json:\"at,omitempty\" protobuf:\"bytes,3,opt,name=at\"`\n\tSkipped int `json:\"-\"`\n}\n",
        );
        assert_eq!(package.imports["metav1"], "k8s.io/apimachinery/pkg/apis/meta/v1");
        assert_eq!(package.imports["types"], "k8s.io/apimachinery/pkg/types");
        assert!(matches!(&package.types["Protocol"], Type::Named(ty) if ty == "string"));
        let Type::Struct(fields) = &package.types["Volume"] else { panic!("a structure") };
        let read: Vec<_> =
            fields.iter().map(|field| (field.name.as_str(), field.inline, field.number)).collect();
        assert_eq!(read, [("Name", false, 1), ("VolumeSource", true, 2), ("At", false, 3)]);
    }
}
