//! On a small table; the whole one is tried on the data that upstream publishes: `tests/roundtrip.rs`.

use std::borrow::Cow;

use corten_schema::{
    Field, Format, List, ListKind, Map, Node, Object, Patch, Rest, Type, TypeId, Types, Width, Wire,
};
use serde_json::{Value, json};

use super::*;
use crate::wire::{put_varint, write_bytes, write_message, write_varint};

const THING: u32 = 0;
const SCHEMA: u32 = 1;

fn types() -> Types {
    let mut all = vec![Type::Any, Type::Any];
    let mut add = |ty: Type| {
        all.push(ty);
        TypeId(all.len() as u32 - 1)
    };
    let text = add(Type::String(Format::Plain));
    let (int, long) = (add(Type::Integer(Width::I32)), add(Type::Integer(Width::I64)));
    let (boolean, number, bytes) = (add(Type::Bool), add(Type::Number), add(Type::Bytes));
    let (time, micro, duration) = (add(Type::Time), add(Type::MicroTime), add(Type::Duration));
    let (either, quantity, any) = (add(Type::IntOrString), add(Type::Quantity), add(Type::Any));
    let list = |item| Type::List(List { item, kind: ListKind::Atomic });
    let map = |value| Type::Map(Map { value, atomic: false });
    let (texts, longs, things) = (add(list(text)), add(list(long)), add(list(TypeId(THING))));
    let (labels, secrets, extra) = (add(map(text)), add(map(bytes)), add(map(texts)));
    let (schemas, limits) = (add(map(TypeId(SCHEMA))), add(map(quantity)));
    let field = |name: &'static str, ty, path: &[u32], keeps_zero| {
        let (&number, within) = path.split_last().expect("a number");
        let wire = Wire { number, within: Cow::Owned(within.to_vec()), keeps_zero };
        Field {
            name: name.into(),
            ty,
            required: false,
            nullable: false,
            default: None,
            patch: Patch::default(),
            wire,
            go: corten_schema::Go::default(),
        }
    };
    let object = |name: &'static str, mut fields: Vec<Field>| {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Type::Object(Object {
            name: name.into(),
            fields: fields.into(),
            rest: Rest::Unknown,
            atomic: false,
            embedded: false,
        })
    };
    all[THING as usize] = object(
        "Thing",
        vec![
            field("apiVersion", text, &[0], false),
            field("kind", text, &[0], false),
            field("name", text, &[1], true),
            field("note", text, &[2], false),
            field("replicas", int, &[3], true),
            field("generation", long, &[4], false),
            field("hostPath", text, &[5, 2, 1], true),
            field("hostType", text, &[5, 2, 3], false),
            field("medium", text, &[5, 1], true),
            field("ready", boolean, &[6], false),
            field("at", time, &[7], false),
            field("renewed", micro, &[8], false),
            field("every", duration, &[9], true),
            field("port", either, &[10], false),
            field("size", quantity, &[11], false),
            field("anything", any, &[12], false),
            field("finalizers", texts, &[13], false),
            field("ids", longs, &[14], false),
            field("parts", things, &[15], false),
            field("labels", labels, &[16], false),
            field("data", secrets, &[17], false),
            field("extra", extra, &[18], false),
            field("inner", TypeId(THING), &[19], true),
            field("limits", limits, &[20], false),
            field("schema", TypeId(SCHEMA), &[21], true),
        ],
    );
    all[SCHEMA as usize] = object(
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        vec![
            field("type", text, &[5], false),
            field("default", any, &[8], true),
            field("maximum", number, &[9], true),
            field("enum", any, &[20], false),
            field("items", any, &[24], true),
            field("properties", schemas, &[29], false),
            field("additionalProperties", any, &[30], true),
            field("dependencies", any, &[32], false),
        ],
    );
    Types { types: all.into() }
}

fn node(types: &Types) -> Node<'_> {
    Node { types, id: TypeId(THING) }
}

fn lookup<'a>(types: &'a Types) -> impl Fn(&str, &str) -> Option<Node<'a>> {
    move |api_version, kind| (api_version == "v1" && kind == "Thing").then(|| node(types))
}

fn enveloped(raw: &[u8]) -> Vec<u8> {
    envelope::write("v1", "Thing", raw)
}

fn read(raw: &[u8]) -> Result<Value, Error> {
    let types = types();
    let mut value = decode(&enveloped(raw), lookup(&types))?;
    let object = value.as_object_mut().expect("an object");
    assert_eq!(
        (object.remove("apiVersion"), object.remove("kind")),
        (Some("v1".into()), Some("Thing".into()))
    );
    Ok(value)
}

fn full() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Thing", "name": "a", "note": "b", "replicas": -3, "generation": 1_u64 << 40,
        "hostPath": "/x", "hostType": "Directory", "medium": "Memory", "ready": true,
        "at": "2008-01-01T01:01:01Z", "renewed": "2008-01-01T01:01:01.000002Z", "every": "1m30s",
        "port": "http", "size": "1Gi", "anything": {"kind": "X", "list": [1, null, "two"]},
        "finalizers": ["a", "", "c"], "ids": [0, -1, 70000], "parts": [{"name": "p"}, {"name": "", "replicas": 0}],
        "labels": {"a": "b", "empty": ""}, "data": {"k": "AAEC/w=="}, "extra": {"none": [], "two": ["x", "y"]},
        "inner": {"name": "in", "port": 80}, "limits": {"cpu": "100m"},
        "schema": {
            "default": null, "type": "object", "maximum": 5, "enum": [1, "a", {"b": []}],
            "items": [{"type": "string"}, {}],
            "properties": {"p": {"items": {"type": "integer"}, "additionalProperties": false, "maximum": 0.5}},
            "additionalProperties": {"type": "string"},
            "dependencies": {"a": ["b", "c"], "d": {"type": "null"}},
        },
    })
}

#[test]
fn every_form_comes_back_as_it_was() {
    let types = types();
    let mut value = full();
    let bytes = encode(node(&types), &value).expect("encoded");
    // Null is the absence of a value on the way out.
    value["schema"].as_object_mut().expect("an object").remove("default");
    assert_eq!(decode(&bytes, lookup(&types)).expect("decoded"), value);
}

#[test]
fn a_zero_that_was_written_stays_only_where_gos_json_has_it() {
    let mut raw = Vec::new();
    for number in [1, 2] {
        write_bytes(&mut raw, number, b"");
    }
    for number in [3, 4, 6] {
        write_varint(&mut raw, number, 0);
    }
    write_message(&mut raw, 5, |out| {
        write_bytes(out, 1, b"");
        write_message(out, 2, |out| {
            write_bytes(out, 1, b"");
            write_bytes(out, 3, b"");
        });
    });
    for empty in [7, 8, 12, 19] {
        write_bytes(&mut raw, empty, b"");
    }
    write_bytes(&mut raw, 11, b"");
    let expected = json!({"name": "", "replicas": 0, "hostPath": "", "medium": "", "inner": {}, "size": "0"});
    assert_eq!(read(&raw).expect("decoded"), expected);
}

#[test]
fn numbers_may_be_packed_or_not_and_the_last_of_a_single_field_counts() {
    let mut raw = Vec::new();
    write_varint(&mut raw, 14, 7);
    let mut packed = Vec::new();
    for id in [1, u64::MAX, 300] {
        put_varint(&mut packed, id);
    }
    write_bytes(&mut raw, 14, &packed);
    write_bytes(&mut raw, 1, b"first");
    write_bytes(&mut raw, 1, b"last");
    write_bytes(&mut raw, 2, b"note");
    write_bytes(&mut raw, 2, b"");
    write_message(&mut raw, 19, |out| write_bytes(out, 1, b"one"));
    write_message(&mut raw, 19, |out| write_bytes(out, 2, b"two"));
    let expected = json!({"ids": [7, 1, -1, 300], "name": "last", "inner": {"name": "one", "note": "two"}});
    assert_eq!(read(&raw).expect("decoded"), expected);
}

#[test]
fn unknown_fields_and_groups_are_skipped() {
    let mut raw = Vec::new();
    write_varint(&mut raw, 1000, 7);
    write_bytes(&mut raw, 1001, b"what");
    put_varint(&mut raw, 1002 << 3 | 3);
    write_bytes(&mut raw, 1, b"not this name");
    put_varint(&mut raw, 1002 << 3 | 4);
    put_varint(&mut raw, 1003 << 3 | 5);
    raw.extend_from_slice(&[1, 2, 3, 4]);
    write_bytes(&mut raw, 1, b"a");
    assert_eq!(read(&raw).expect("decoded"), json!({"name": "a"}));
}

#[test]
fn an_embedded_object_may_be_in_an_envelope_of_its_own() {
    let mut inner = Vec::new();
    write_bytes(&mut inner, 1, b"in");
    let mut raw = Vec::new();
    write_message(&mut raw, 12, |out| write_bytes(out, 1, &enveloped(&inner)));
    let expected = json!({"anything": {"apiVersion": "v1", "kind": "Thing", "name": "in"}});
    assert_eq!(read(&raw).expect("decoded"), expected);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let said = |raw: &[u8]| read(raw).expect_err("refused").to_string();
    let mut raw = Vec::new();
    write_varint(&mut raw, 1, 5);
    assert_eq!(said(&raw), "proto: name: wrong wireType = 0");
    raw.clear();
    write_message(&mut raw, 19, |out| write_bytes(out, 1, b"\xff"));
    assert_eq!(said(&raw), "proto: inner.name: the text is not UTF-8");
    raw.clear();
    write_message(&mut raw, 12, |out| write_bytes(out, 1, b"{"));
    assert!(said(&raw).starts_with("proto: anything: the embedded object is not JSON"));
    assert_eq!(said(&[0x0a, 5, b'a']), "proto: unexpected EOF");
    assert_eq!(said(&[0x00]), "proto: illegal tag 0");
    assert_eq!(said(&[0x0c]), "proto: illegal tag 12");
    assert_eq!(said(&[0x0b]), "proto: unexpected EOF");
    let overflow = [&[0x18][..], &[0xff; 9], &[0x02]].concat();
    assert_eq!(said(&overflow), "proto: integer overflow");
    // A length near 2^64 is no allocation.
    let long = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
    assert_eq!(said(&long), "proto: unexpected EOF");
    let types = types();
    let other = envelope::write("v2", "Other", b"");
    let error = decode(&other, lookup(&types)).expect_err("refused");
    assert_eq!(error.to_string(), "proto: no kind \"Other\" is registered for version \"v2\"");
    assert_eq!(decode(b"{}", lookup(&types)).expect_err("refused").problem, Problem::NoEnvelope);
}

#[test]
fn nesting_has_an_end() {
    let nested = |levels: usize| {
        (0..levels).fold(Vec::new(), |inner, _| {
            let mut outer = Vec::new();
            write_bytes(&mut outer, 19, &inner);
            outer
        })
    };
    let shallow = read(&nested(100)).expect("decoded");
    serde_json::from_slice::<Value>(&serde_json::to_vec(&shallow).expect("JSON"))
        .expect("it can be read again");
    assert_eq!(read(&nested(200)).expect_err("refused").problem, Problem::Depth(decode::MAX_DEPTH));
    let embedded = (0..50).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = Vec::new();
        write_message(&mut outer, 12, |out| write_bytes(out, 1, &enveloped(&inner)));
        outer
    });
    read(&embedded).expect("decoded");
    let json = format!("{}{}", "[".repeat(110), "]".repeat(110));
    let mut raw = Vec::new();
    write_message(&mut raw, 12, |out| write_bytes(out, 1, json.as_bytes()));
    read(&raw).expect("decoded");
    let deep = (0..20).fold(raw, |inner, _| {
        let mut outer = Vec::new();
        write_bytes(&mut outer, 19, &inner);
        outer
    });
    assert_eq!(read(&deep).expect_err("refused").problem, Problem::Depth(decode::MAX_DEPTH));
}

#[test]
fn every_cut_and_every_flipped_bit_is_a_value_or_an_error() {
    let types = types();
    let bytes = encode(node(&types), &full()).expect("encoded");
    for end in 0..bytes.len() {
        let _ = decode(&bytes[..end], lookup(&types));
    }
    let mut flipped = bytes.clone();
    let (mut values, mut errors) = (0, 0);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            flipped[at] ^= 1 << bit;
            match decode(&flipped, lookup(&types)) {
                // What is decoded can be encoded and is then the same again.
                Ok(value) => {
                    values += 1;
                    let again = encode(node(&types), &value).and_then(|bytes| decode(&bytes, lookup(&types)));
                    if let Ok(again) = again {
                        assert_eq!(without_empty(again), without_empty(value), "byte {at} bit {bit}");
                    }
                }
                Err(_) => errors += 1,
            }
            flipped[at] ^= 1 << bit;
        }
    }
    assert!(values > 100 && errors > 100, "{values} values, {errors} errors");
}

/// Lists and maps that are empty, and what is null, cannot be told from absent ones.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, without_empty(value)));
            Value::Object(
                fields
                    .filter(|(_, value)| !value.is_null() && *value != json!([]) && *value != json!({}))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_empty).collect()),
        other => other,
    }
}

#[test]
fn an_event_of_a_watch_has_its_length_in_front() {
    let object = enveloped(b"");
    let frame = watch_event("ADDED", &object);
    assert_eq!(u32::from_be_bytes(frame[..4].try_into().expect("four bytes")) as usize, frame.len() - 4);
    assert_eq!(frame[4..12], *b"\x0a\x05ADDED\x12");
    assert!(frame.ends_with(&object));
}
