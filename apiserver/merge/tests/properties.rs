//! What holds for any objects: tried on random Deployments.

use corten_merge::fields::Set;
use corten_merge::managed::{ApplyError, Ignored, Write};
use corten_schema::{Node, Type, builtin};
use serde_json::{Map, Value, json};

const ROUNDS: u64 = 300;

/// The same numbers each time: a failure's seed is in its message.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    fn map(&mut self, prefix: &str) -> Value {
        // Not none: an empty map is a leaf, and owned as one.
        let count = 1 + self.below(2);
        Value::Object(
            (0..count).map(|_| (format!("{prefix}{}", self.below(4)), json!(self.of(&["1", "2"])))).collect(),
        )
    }

    /// Items with keys of their own each.
    fn items(&mut self, names: &[&str], key: &str, mut make: impl FnMut(&mut Self) -> Value) -> Value {
        let mut left: Vec<&str> = names.to_vec();
        let mut items = Vec::new();
        for _ in 0..=self.below(names.len() as u64) {
            let name = left.remove(self.below(left.len() as u64) as usize);
            let mut item = make(self);
            item[key] = json!(name);
            items.push(item);
        }
        Value::Array(items)
    }

    fn containers(&mut self) -> Value {
        self.items(&["a", "b", "c", "d"], "name", |random| {
            let mut container = json!({"image": random.of(&["i:1", "i:2"])});
            if random.one_in(2) {
                container["env"] =
                    random.items(&["X", "Y", "Z"], "name", |random| json!({"value": random.of(&["1", "2"])}));
            }
            if random.one_in(3) {
                container["args"] = json!([random.of(&["x", "y"]), "z"]);
            }
            if random.one_in(3) {
                container["resources"] = json!({"limits": {"cpu": random.of(&["1", "2"])}});
            }
            container
        })
    }

    /// Of everything that is not the other's.
    fn config(&mut self, prefix: &str, containers: bool) -> Value {
        let mut config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        config["metadata"]["labels"] = self.map(prefix);
        if containers {
            config["spec"]["template"]["spec"]["containers"] = self.containers();
        } else {
            config["spec"]["replicas"] = json!(self.below(4));
            config["spec"]["selector"] = json!({"matchLabels": self.map(prefix)});
        }
        config
    }
}

fn node() -> Node<'static> {
    builtin().kind("apps", "v1", "Deployment").expect("it is built in")
}

fn apply(manager: &str, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApplyError> {
    let ignored = Ignored::of("apps", "Deployment", "", true, false);
    let write = Write {
        node: node(),
        api_version: "apps/v1",
        kind: "Deployment",
        subresource: "",
        manager,
        now: "2026-01-01T00:00:00Z",
        is_custom: false,
        ignored: &ignored,
        versions: &(),
    };
    let config = config.as_object().expect("an object");
    let mut object = Value::Object(write.apply(live.and_then(Value::as_object), config, force)?.object);
    corten_schema::check::check(node(), &mut object);
    Ok(object)
}

#[test]
fn apply_is_idempotent() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let (first, second) = (random.config("a", true), random.config("a", true));
        let base = apply("other", None, &first, false).unwrap();
        let once = apply("me", Some(&base), &second, true).unwrap();
        let twice = apply("me", Some(&once), &second, false).unwrap();
        assert_eq!(once, twice, "seed {seed}");
    }
}

#[test]
fn appliers_of_different_fields_commute() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let (a, b) = (random.config("a", true), random.config("b", false));
        let both = |first: (&str, &Value), second: (&str, &Value)| {
            let object = apply(first.0, None, first.1, false).unwrap();
            apply(second.0, Some(&object), second.1, false).unwrap()
        };
        assert_eq!(both(("a", &a), ("b", &b)), both(("b", &b), ("a", &a)), "seed {seed}");
    }
}

#[test]
fn who_stops_applying_leaves_nothing_behind() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let (a, b) = (random.config("a", true), random.config("b", false));
        let object = apply("a", None, &a, false).unwrap();
        let both = apply("b", Some(&object), &b, false).unwrap();
        let nothing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        let mut left = apply("b", Some(&both), &nothing, false).unwrap();
        let mut object = object;
        drop_empty(&mut left);
        drop_empty(&mut object);
        assert_eq!(left, object, "seed {seed}");
    }
}

/// What is left of an object that lost all its fields is of no account here.
fn drop_empty(value: &mut Value) {
    if let Value::Object(map) = value {
        map.remove("managedFields");
        map.values_mut().for_each(drop_empty);
        map.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
}

#[test]
fn encoding_a_decoded_set_gives_it_back() {
    for seed in 0..ROUNDS {
        let object = apply("me", None, &Random(seed).config("a", true), false).unwrap();
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let set = Set::from_fields_v1(&entry["fieldsV1"]).unwrap();
            assert_eq!(set.to_fields_v1(), entry["fieldsV1"], "seed {seed}");
        }
    }
}

#[test]
fn the_patch_of_a_difference_makes_the_difference() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let (old, new) = (random.config("a", true), random.config("a", true));
        let patch = difference(node(), old.as_object().unwrap(), new.as_object().unwrap());
        let patched = corten_merge::strategic(node(), old.clone(), Value::Object(patch.clone()));
        assert_eq!(patched.as_ref(), Ok(&new), "seed {seed}: {old} {}", Value::Object(patch));
    }
}

/// As kubectl computes it.
fn difference(node: Node<'_>, old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch: Map<String, Value> =
        old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        let child = node.child(key);
        let merge_key =
            node.field(key).filter(|field| field.patch.merge).and_then(|field| field.patch.key.clone());
        match (old.get(key), value, merge_key, child) {
            (Some(same), value, ..) if same == value => {}
            (Some(Value::Object(old)), Value::Object(new), _, Some(child)) => {
                patch.insert(key.clone(), Value::Object(difference(child, old, new)));
            }
            (Some(Value::Array(old)), Value::Array(new), Some(merge_key), Some(child)) if !old.is_empty() => {
                let Type::List(list) = child.ty() else { panic!("{key} is a list") };
                let (items, order) = differences(child.at(list.item), &merge_key, old, new);
                patch.insert(key.clone(), items.into());
                patch.insert(format!("$setElementOrder/{key}"), order.into());
            }
            _ => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    patch
}

fn differences(item: Node<'_>, key: &str, old: &[Value], new: &[Value]) -> (Vec<Value>, Vec<Value>) {
    let find = |list: &[Value], name: &Value| list.iter().find(|item| &item[key] == name).cloned();
    let changed = new.iter().filter_map(|value| match find(old, &value[key]) {
        Some(same) if same == *value => None,
        Some(before) => {
            let mut patch = difference(item, before.as_object()?, value.as_object()?);
            patch.insert(key.to_owned(), value[key].clone());
            Some(Value::Object(patch))
        }
        None => Some(value.clone()),
    });
    let gone = old.iter().filter(|value| find(new, &value[key]).is_none());
    let gone = gone.map(|value| json!({key: value[key], "$patch": "delete"}));
    let order = new.iter().map(|value| json!({key: value[key]})).collect();
    (changed.chain(gone).collect(), order)
}
