//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fill::{Fill, With, fill, has, made, text};
use super::validate::{At, Causes, Path, names, same};
use super::{Kind, common};
use crate::object::Object;

const MOST: usize = 1024 * 1024;

pub static CONFIG_MAP: Kind = Kind {
    validate: |object| {
        let mut out = Causes::new();
        config_map(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        immutable(new, old, &["data", "binaryData"], &mut out);
        config_map(new, &mut out);
        out
    },
    ..Kind::PLAIN
};

pub static SECRET: Kind = Kind {
    default: |object| {
        take_string_data(object);
        fill(&mut object.0, &[Fill("type", With::Text("Opaque"))]);
    },
    validate: |object| {
        let mut out = Causes::new();
        secret(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        At::root(new).field("type").immutable(&At::root(old).field("type"), &mut out);
        immutable(new, old, &["data"], &mut out);
        secret(new, &mut out);
        out
    },
    warn: |object| {
        let lacks = |key: &str, what: &str| {
            let pem = object.get(&["data", key]).and_then(Value::as_str).unwrap_or_default();
            let pem = STANDARD.decode(pem).unwrap_or_default();
            let found = String::from_utf8_lossy(&pem).contains("-----BEGIN ");
            (!found).then(|| vec![format!("tls: failed to find any PEM data in {what} input")])
        };
        if text(&object.0, "type") != "kubernetes.io/tls" {
            return Vec::new();
        }
        lacks("tls.crt", "certificate").or_else(|| lacks("tls.key", "key")).unwrap_or_default()
    },
    field: |object, label| (label == "type").then(|| common::selected(object, &["type"])).flatten(),
    ..Kind::PLAIN
};

/// `stringData` is a way to write `data` and is never read.
fn take_string_data(object: &mut Object) {
    let Some(Value::Object(texts)) = object.0.remove("stringData") else { return };
    if texts.is_empty() {
        return;
    }
    let data = made(&mut object.0, "data");
    for (key, value) in texts {
        let value = value.as_str().unwrap_or_default();
        data.insert(key, STANDARD.encode(value).into());
    }
}

fn immutable(new: &Object, old: &Object, fields: &[&'static str], out: &mut Causes) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    let is = |object: &Object| object.get(&["immutable"]) == Some(&Value::Bool(true));
    if !is(old) {
        return;
    }
    let (root, before) = (At::root(new), At::root(old));
    if !is(new) {
        root.field("immutable").forbidden(DETAIL, out);
    }
    for field in fields {
        if !same(root.field(field).value(), before.field(field).value()) {
            root.field(field).forbidden(DETAIL, out);
        }
    }
}

fn key(key: &str, at: &At<'_>, out: &mut Causes) {
    for detail in names::config_key(key) {
        at.invalid_value(&key.into(), detail, out);
    }
}

/// How many bytes Base64 stands for.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn config_map(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let (data, binary) = (root.field("data"), root.field("binaryData"));
    let mut size = 0;
    for (name, value) in data.entries() {
        key(name, &value, out);
        if binary.has(name) {
            value.invalid_value(&name.into(), "duplicate of key present in binaryData", out);
        }
        size += value.len();
    }
    for (name, value) in binary.entries() {
        key(name, &value, out);
        size += decoded_len(value.text());
    }
    if size > MOST {
        At::value_at(&Value::Null, Path::of(&[""])).too_long(MOST, out);
    }
}

/// What a Secret of a type must have.
const NEEDS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

fn secret(object: &Object, out: &mut Causes) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let root = At::root(object);
    let data = root.field("data");
    let mut size = 0;
    for (name, value) in data.entries() {
        key(name, &value, out);
        size += decoded_len(value.text());
    }
    if size > MOST {
        data.too_long(MOST, out);
    }
    let kind = text(&object.0, "type");
    match kind {
        "kubernetes.io/service-account-token" => {
            let account = root.down(&["metadata", "annotations"]).key(ACCOUNT);
            if account.is_empty() {
                account.required("", out);
            }
        }
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            data.key("username").required("", out);
            data.key("password").required("", out);
        }
        _ => {}
    }
    let needs = NEEDS.iter().find(|(one, _)| *one == kind).map_or(&[][..], |(_, needs)| needs);
    for name in needs {
        let value = data.key(name);
        if !has(data.map().unwrap_or(&serde_json::Map::new()), name)
            || kind.ends_with("ssh-auth") && value.is_empty()
        {
            value.required("", out);
        } else if name.starts_with(".docker") {
            docker_config(&value, out);
        }
    }
}

fn docker_config(at: &At<'_>, out: &mut Causes) {
    let bytes = STANDARD.decode(at.text()).unwrap_or_default();
    let redacted = "<secret contents redacted>".into();
    let detail = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let kind = match other {
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Bool(_) => "bool",
                _ => "array",
            };
            format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
        }
        Err(why) if why.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(why) => {
            let at = why.column().saturating_sub(1);
            let byte = bytes.get(at).copied().unwrap_or(b'?');
            format!("invalid character '{}' looking for beginning of value", char::from(byte))
        }
    };
    at.invalid_value(&redacted, detail, out);
}
