use corten_schema::Types;
use serde_json::{Value, json};

use super::*;
use crate::testing::{meta, node, types};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn deployment() -> Node<'static> {
    static TYPES: std::sync::OnceLock<&'static Types> = std::sync::OnceLock::new();
    node(TYPES.get_or_init(|| {
        let container = json!({"object": {
            "name": "string", "image": "string",
            "args": {"list": "string"},
            "env": {"list": {"object": {"name": "string", "value": "string"}}, "keys": ["name"]},
            "ports": {"list": {"object": {"containerPort": "int", "name": "string",
                "protocol": {"is": "string", "default": "TCP"}}}, "keys": ["containerPort", "protocol"]},
            "resources": {"is": {"object": {"limits": {"map": "quantity"}}}, "default": {}}
        }});
        let mut metadata = meta();
        metadata = json!({"is": metadata, "default": {}});
        types(&json!({"object": {
            "apiVersion": "string", "kind": "string", "metadata": metadata,
            "spec": {"is": {"object": {
                "replicas": "int", "paused": "bool",
                "selector": {"object": {"matchLabels": {"map": "string"}}, "atomic": true},
                "template": {"is": {"object": {
                    "metadata": {"is": meta(), "default": {}},
                    "spec": {"is": {"object": {"containers": {"list": container, "keys": ["name"]},
                        "nodeSelector": {"map": "string", "atomic": true}}}, "default": {}}
                }}, "default": {}}
            }}, "default": {}},
            "status": {"is": {"object": {"replicas": "int",
                "conditions": {"list": {"object": {"type": "string", "status": "string"}}, "keys": ["type"]}}},
                "default": {}}
        }}))
    }))
}

fn write<'a>(manager: &'a str, now: &'a str) -> Write<'a> {
    static IGNORED: std::sync::OnceLock<Ignored> = std::sync::OnceLock::new();
    Write {
        node: deployment(),
        api_version: "apps/v1",
        kind: "Deployment",
        subresource: "",
        manager,
        now,
        is_custom: false,
        ignored: IGNORED.get_or_init(|| Ignored::of("apps", "Deployment", "", true, false)),
        versions: &(),
    }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn containers(containers: Value) -> Value {
    config(json!({"template": {"spec": {"containers": containers}}}))
}

/// As the server then has it: without nulls.
/// Tests speak of objects as values.
trait InValues {
    fn updated(&self, live: Option<&Value>, new: &mut Value);
    fn applied(&self, live: Option<&Value>, config: &Value, force: bool)
    -> Result<(Value, bool), ApplyError>;
}

impl InValues for Write<'_> {
    fn updated(&self, live: Option<&Value>, new: &mut Value) {
        if let Value::Object(new) = new {
            self.update(live.and_then(Value::as_object), new);
        }
    }

    fn applied(
        &self,
        live: Option<&Value>,
        config: &Value,
        force: bool,
    ) -> Result<(Value, bool), ApplyError> {
        let config = config.as_object().cloned().unwrap_or_default();
        let applied = self.apply(live.and_then(Value::as_object), &config, force)?;
        Ok((Value::Object(applied.object), applied.changed))
    }
}

fn apply(manager: &str, live: Option<&Value>, config: &Value) -> Value {
    let mut object = write(manager, NOW).applied(live, config, false).unwrap().0;
    drop_nulls(&mut object);
    object
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

fn refused(manager: &str, live: &Value, config: &Value) -> String {
    write(manager, NOW).applied(Some(live), config, false).unwrap_err().to_string()
}

fn updated(manager: &str, live: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = live.clone();
    change(&mut new);
    write(manager, LATER).updated(Some(live), &mut new);
    new
}

/// The fields of a manager.
fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

#[test]
fn a_creator_owns_what_it_said_and_not_the_structs_around_it() {
    let mut new = config(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80}]}]}}}));
    new["status"] = json!({"replicas": 3});
    write("kubectl-create", NOW).updated(None, &mut new);
    assert_eq!(
        new["metadata"]["managedFields"],
        json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": NOW,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                    "f:spec": {"f:containers": {".": {}, "k:{\"name\":\"c\"}": {
                        ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}}])
    );
}

#[test]
fn an_applier_owns_what_it_applies() {
    let object = apply("me", None, &containers(json!([{"name": "c", "image": "i"}])));
    assert_eq!(
        fields(&object, "me"),
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}})
    );
    assert_eq!(object["metadata"]["managedFields"][0]["time"], NOW);
}

#[test]
fn apply_is_idempotent_and_keeps_its_time() {
    let config = containers(json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]));
    let once = apply("me", None, &config);
    let twice = write("me", LATER).applied(Some(&once), &config, false).unwrap();
    assert_eq!(twice.0, once);
    assert!(!twice.1);
}

#[test]
fn disjoint_appliers_commute() {
    let (a, b) = (config(json!({"replicas": 2})), containers(json!([{"name": "c", "image": "i"}])));
    let left = apply("b", Some(&apply("a", None, &a)), &b);
    let right = apply("a", Some(&apply("b", None, &b)), &a);
    assert_eq!(left, right);
}

#[test]
fn what_is_not_applied_any_more_goes_unless_another_owns_it() {
    let first =
        apply("me", None, &containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])));
    let shared = apply("other", Some(&first), &containers(json!([{"name": "b", "image": "2"}])));
    let less = apply("me", Some(&shared), &containers(json!([{"name": "c", "image": "3"}])));
    let names: Vec<_> = less["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["b", "c"]);
    let mut none = config(json!({}));
    none.as_object_mut().unwrap().remove("spec");
    let nothing = apply("me", Some(&less), &none);
    assert_eq!(nothing["spec"]["template"]["spec"]["containers"], json!([{"name": "b", "image": "2"}]));
    assert_eq!(fields(&nothing, "me"), Value::Null);
}

#[test]
fn what_an_updater_added_stays() {
    let applied = apply("me", None, &config(json!({"replicas": 2, "paused": true})));
    let updated =
        updated("controller", &applied, |object| object["spec"]["selector"] = json!({"matchLabels": {}}));
    let again = apply("me", Some(&updated), &config(json!({"replicas": 2})));
    assert_eq!(again["spec"], json!({"replicas": 2, "selector": {"matchLabels": {}}}));
}

#[test]
fn conflicts_in_upstreams_words() {
    let applied = apply("me", None, &config(json!({"replicas": 1})));
    let object = updated("hpa", &applied, |object| object["spec"]["replicas"] = json!(5));
    assert_eq!(fields(&object, "me"), Value::Null);
    assert_eq!(fields(&object, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        refused("me", &object, &config(json!({"replicas": 1}))),
        "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas"
    );
    // Who agrees owns it too.
    let agreed = apply("me", Some(&object), &config(json!({"replicas": 5})));
    assert_eq!(fields(&agreed, "me"), fields(&agreed, "hpa"));
    assert_eq!(
        refused("third", &agreed, &config(json!({"replicas": 7}))),
        "Apply failed with 2 conflicts: conflicts with \"hpa\" using apps/v1:\n- .spec.replicas\nconflicts with \"me\":\n- .spec.replicas"
    );
    let ApplyError::Conflicts(conflicts) =
        write("third", NOW).applied(Some(&agreed), &config(json!({"replicas": 7})), false).unwrap_err()
    else {
        panic!("no conflicts");
    };
    assert_eq!(conflicts.0[0].message(), "conflict with \"hpa\" using apps/v1");
    assert_eq!(conflicts.0[0].path.to_string(), ".spec.replicas");

    let forced = write("third", NOW).applied(Some(&agreed), &config(json!({"replicas": 7})), true).unwrap().0;
    assert_eq!(forced["spec"]["replicas"], 7);
    assert_eq!((fields(&forced, "hpa"), fields(&forced, "me")), (Value::Null, Value::Null));
}

#[test]
fn an_item_of_a_list_is_named_by_its_keys_in_conflicts() {
    let one = containers(json!([{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]));
    let two = containers(json!([{"name": "c", "ports": [{"containerPort": 80, "name": "web"}]}]));
    assert_eq!(
        refused("b", &apply("a", None, &one), &two),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].name"
    );
}

#[test]
fn atomic_values_are_owned_as_one() {
    let selector = |labels: Value| config(json!({"selector": {"matchLabels": labels}}));
    let object = apply("a", None, &selector(json!({"x": "1"})));
    assert_eq!(fields(&object, "a"), json!({"f:spec": {"f:selector": {}}}));
    assert!(
        refused("b", &object, &selector(json!({"y": "1"}))).ends_with("conflict with \"a\": .spec.selector")
    );
    let forced = write("b", NOW).applied(Some(&object), &selector(json!({"y": "1"})), true).unwrap().0;
    assert_eq!(forced["spec"]["selector"], json!({"matchLabels": {"y": "1"}}));
}

#[test]
fn sets_are_owned_by_their_values() {
    let with = |finalizers: Value| {
        let mut config = config(json!({}));
        config["metadata"]["finalizers"] = finalizers;
        config
    };
    let object = apply("b", Some(&apply("a", None, &with(json!(["x/1"])))), &with(json!(["x/2"])));
    assert_eq!(object["metadata"]["finalizers"], json!(["x/1", "x/2"]));
    let less = apply("a", Some(&object), &with(json!([])));
    assert_eq!(less["metadata"]["finalizers"], json!(["x/2"]));
}

#[test]
fn merged_lists_keep_the_order_of_who_applies() {
    let list = |names: &[&str]| containers(names.iter().map(|name| json!({"name": name})).collect());
    let order = |object: &Value| {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<String>()
    };
    for (live, applied, expected) in [
        ("abc", "cba", "cba"),
        ("abc", "d", "abcd"),
        ("abc", "cd", "abcd"),
        ("abc", "bxa", "bcxa"),
        ("ab", "xyb", "axyb"),
        ("abcd", "ca", "bcda"),
    ] {
        let names = |text: &'static str| text.split("").filter(|t| !t.is_empty()).collect::<Vec<_>>();
        let object = apply("b", Some(&apply("a", None, &list(&names(live)))), &list(&names(applied)));
        assert_eq!(order(&object), expected, "{applied} over {live}");
    }
}

#[test]
fn an_object_that_nobody_tracked_is_taken_over_as_before_first_apply() {
    let mut live = config(json!({"replicas": 1}));
    live["metadata"]["uid"] = "u".into();
    let same = updated("x", &live, |object| object["spec"]["paused"] = json!(true));
    assert_eq!(same["metadata"].get("managedFields"), None);
    let applied = apply("me", Some(&live), &config(json!({"paused": true})));
    assert_eq!(fields(&applied, "before-first-apply"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        refused("me", &live, &config(json!({"replicas": 2}))),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let mut live = config(json!({"replicas": 1, "paused": false}));
    let said = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"annotations": {}, "name": "web"}, "spec": {"replicas": 1}});
    live["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": said.to_string()});
    write("kubectl-client-side-apply", NOW).updated(None, &mut live);
    live["metadata"]["uid"] = "u".into();

    assert!(
        refused("other", &live, &config(json!({"replicas": 2}))).contains("\"kubectl-client-side-apply\"")
    );
    let applied = apply("kubectl", Some(&live), &config(json!({"replicas": 2})));
    assert_eq!(applied["spec"]["replicas"], 2);
    assert_eq!(
        applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"web\"},\"spec\":{\"replicas\":2}}\n"
    );
    // What client-side apply did not say is a conflict still.
    assert!(
        refused("kubectl", &live, &config(json!({"replicas": 2, "paused": true})))
            .ends_with(": .spec.paused")
    );
}

#[test]
fn an_update_that_changes_nothing_changes_no_manager() {
    let applied = apply("me", None, &config(json!({"replicas": 1})));
    let same = updated("x", &applied, |object| object["metadata"]["resourceVersion"] = "7".into());
    assert_eq!(same["metadata"]["managedFields"], applied["metadata"]["managedFields"]);
    let forgot = updated("x", &applied, |object| {
        object["metadata"].as_object_mut().unwrap().remove("managedFields");
    });
    assert_eq!(forgot, applied);
}

#[test]
fn clients_may_edit_and_reset_managed_fields() {
    let applied = apply("me", None, &config(json!({"replicas": 1})));
    for reset in [json!([]), json!([{}])] {
        let none = updated("x", &applied, |object| object["metadata"]["managedFields"] = reset);
        assert_eq!(none, without_managers(&applied));
    }
    let renamed =
        updated("x", &applied, |object| object["metadata"]["managedFields"][0]["manager"] = "you".into());
    assert_eq!(fields(&renamed, "you"), fields(&applied, "me"));
    for garbage in [
        json!([{"manager": "x"}]),
        json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"zz": 1}}]),
    ] {
        let kept = updated("x", &applied, |object| object["metadata"]["managedFields"] = garbage);
        assert_eq!(kept, applied);
    }
}

#[test]
fn the_status_is_owned_through_its_subresource_only() {
    let live = apply("me", None, &config(json!({"replicas": 1})));
    let both = |object: &mut Value| {
        object["spec"]["paused"] = json!(true);
        object["status"] = json!({"replicas": 1, "conditions": [{"type": "A", "status": "True"}]});
    };
    assert_eq!(fields(&updated("x", &live, both), "x"), json!({"f:spec": {"f:paused": {}}}));
    let ignored = Ignored::of("apps", "Deployment", "status", true, false);
    let mut new = live.clone();
    both(&mut new);
    Write { subresource: "status", ignored: &ignored, ..write("controller", LATER) }
        .updated(Some(&live), &mut new);
    assert_eq!(
        fields(&new, "controller"),
        json!({"f:status": {".": {}, "f:replicas": {}, "f:conditions": {".": {},
            "k:{\"type\":\"A\"}": {".": {}, "f:type": {}, "f:status": {}}}}})
    );
    assert_eq!(new["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn resize_owns_resources_alone() {
    let ignored = Ignored::of("", "Pod", "resize", true, false);
    let mut set = Set::from_fields_v1(&json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:nodeName": {},
        "f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}, "f:resources": {"f:limits": {"f:cpu": {}}}}}}}))
    .unwrap();
    ignored.filter(&mut set);
    assert_eq!(
        set.to_fields_v1(),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:resources": {"f:limits": {"f:cpu": {}}}}}}})
    );
}

#[test]
fn ten_updaters_are_kept_and_older_ones_put_together() {
    let mut object = apply("applier", None, &config(json!({"paused": true})));
    for index in 0..14 {
        let mut new = object.clone();
        new["metadata"]["labels"][format!("l{index}")] = "x".into();
        let now = format!("2026-01-01T00:00:{index:02}Z");
        write(&format!("m{index:02}"), &now).updated(Some(&object), &mut new);
        object = new;
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let managers: Vec<_> = entries.iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(
        managers,
        ["applier", "ancient-changes", "m05", "m06", "m07", "m08", "m09", "m10", "m11", "m12", "m13"]
    );
    let ancient = fields(&object, "ancient-changes");
    assert_eq!(ancient["f:metadata"]["f:labels"].as_object().unwrap().len(), 6);
}

#[test]
fn wrong_configurations_are_refused() {
    for (config, message) in [
        (
            config(json!({"replicsa": 1})),
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.replicsa: field not declared in schema",
        ),
        (
            config(json!({"replicas": "1"})),
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            containers(json!([{"name": "a"}, {"name": "a"}])),
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            containers(json!([{"image": "a"}])),
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (json!({"apiVersion": "v1", "kind": "Pod"}), "invalid object type: /v1, Kind=Pod"),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
    ] {
        assert_eq!(write("me", NOW).applied(None, &config, false).unwrap_err().to_string(), message);
    }
}

#[test]
fn custom_resources_without_a_schema() {
    let types = types(
        &json!({"object": {"apiVersion": "string", "kind": "string", "metadata": meta()}, "kept": true}),
    );
    let custom = |manager| Write {
        node: node(types),
        is_custom: true,
        api_version: "x.io/v1",
        kind: "Foo",
        ignored: &Ignored::Nothing,
        ..write(manager, NOW)
    };
    let config = |spec: Value| json!({"apiVersion": "x.io/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": spec});
    let object = custom("a")
        .applied(None, &config(json!({"m": {"x": 1, "y": 2}, "l": [1, {"a": 1}]})), false)
        .unwrap()
        .0;
    assert_eq!(
        fields(&object, "a"),
        json!({"f:spec": {".": {}, "f:l": {}, "f:m": {".": {}, "f:x": {}, "f:y": {}}}})
    );
    let less = custom("a").applied(Some(&object), &config(json!({"m": {"x": 1}})), false).unwrap().0;
    assert_eq!(less["spec"], json!({"m": {"x": 1}}));
    let mut created = config(json!({"m": {"x": 1}}));
    custom("c").updated(None, &mut created);
    assert_eq!(fields(&created, "c"), json!({"f:spec": {".": {}, "f:m": {".": {}, "f:x": {}}}}));
    // A scalar that becomes a map.
    let mut changed = created.clone();
    changed["spec"]["m"] = json!("x");
    custom("d").updated(Some(&created), &mut changed);
    assert_eq!(fields(&changed, "d"), json!({"f:spec": {"f:m": {}}}));
}

struct Renamed;

/// v1's `replicas` is v2's `count`.
impl Versions for Renamed {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        static TYPES: std::sync::OnceLock<&'static Types> = std::sync::OnceLock::new();
        (api_version == "apps/v2").then(|| {
            node(TYPES.get_or_init(|| {
                types(&json!({"object": {"apiVersion": "string", "kind": "string", "metadata": meta(),
                    "spec": {"object": {"count": "int", "paused": "bool"}}}}))
            }))
        })
    }

    fn convert(&self, object: &Map<String, Value>, api_version: &str) -> Option<Map<String, Value>> {
        let (from, to) = match api_version {
            "apps/v2" => ("replicas", "count"),
            "apps/v1" => ("count", "replicas"),
            _ => return None,
        };
        let mut object = object.clone();
        object.insert("apiVersion".to_owned(), api_version.into());
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.to_owned(), value);
        }
        Some(object)
    }
}

#[test]
fn managers_of_other_versions_are_told_in_their_own_fields() {
    let v1 = |manager| Write { versions: &Renamed, ..write(manager, NOW) };
    let in_v2 = json!([{"manager": "two", "operation": "Update", "apiVersion": "apps/v2", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:count": {}, "f:paused": {}}}},
        {"manager": "gone", "operation": "Update", "apiVersion": "apps/v0", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:x": {}}}}]);
    let mut live = config(json!({"replicas": 1, "paused": true}));
    live["metadata"]["managedFields"] = in_v2;
    let error = v1("one").applied(Some(&live), &config(json!({"replicas": 2})), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"two\" using apps/v2: .spec.count"
    );
    let object = v1("one").applied(Some(&live), &config(json!({"replicas": 2})), true).unwrap().0;
    assert_eq!(fields(&object, "two"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields(&object, "gone"), Value::Null);

    // What was applied in v2 and is not in v1 any more goes.
    let mut live = config(json!({"replicas": 1, "paused": true}));
    live["metadata"]["managedFields"] = json!([{"manager": "one", "operation": "Apply", "apiVersion": "apps/v2",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:count": {}, "f:paused": {}}}}]);
    let object = v1("one").applied(Some(&live), &config(json!({"paused": true})), false).unwrap().0;
    assert_eq!(object["spec"], json!({"paused": true}));
}

#[test]
fn granular_sets_of_what_is_atomic_now_become_one() {
    let mut live = config(json!({"selector": {"matchLabels": {"a": "b"}}}));
    live["metadata"]["managedFields"] = json!([{"manager": "old", "operation": "Update", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:selector": {"f:matchLabels": {"f:a": {}}}}}}]);
    let object = updated("x", &live, |object| object["spec"]["paused"] = json!(true));
    assert_eq!(fields(&object, "old"), json!({"f:spec": {"f:selector": {}}}));
}

#[test]
fn items_that_are_there_twice_are_owned_as_one() {
    let mut live =
        containers(json!([{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]));
    write("x", NOW).updated(None, &mut live);
    assert_eq!(
        fields(&live, "x")["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:env"],
        json!({".": {}, "k:{\"name\":\"A\"}": {}})
    );
    let env = |value: &str| containers(json!([{"name": "c", "env": [{"name": "A", "value": value}]}]));
    let applied = write("me", NOW).applied(Some(&live), &env("3"), true).unwrap().0;
    assert_eq!(
        applied["spec"]["template"]["spec"]["containers"][0]["env"],
        json!([{"name": "A", "value": "3"}])
    );
}

#[test]
fn times_alone_are_no_change() {
    let old = apply("me", None, &config(json!({"replicas": 1})));
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = LATER.into();
    let mut other = new.clone();
    other["spec"]["replicas"] = json!(2);
    let changed = other.clone();
    for new in [&mut new, &mut other] {
        keep_times(old.as_object().unwrap(), new.as_object_mut().unwrap());
    }
    assert_eq!((new, other), (old, changed));
}

#[test]
fn replicas_are_managed_through_a_scale_too() {
    let object = apply("me", None, &config(json!({"replicas": 1, "paused": true})));
    let parent = object["metadata"].get("managedFields");
    let replicas = |version: &str| (version == "apps/v1").then_some(".spec.replicas");
    let mut scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {}, "spec": {"replicas": 1}});
    scale["metadata"]["managedFields"] = replicas_to_scale(parent, replicas).unwrap().unwrap();
    assert_eq!(fields(&scale, "me"), json!({"f:spec": {"f:replicas": {}}}));

    let types = types(&json!({"object": {"apiVersion": "string", "kind": "string", "metadata": meta(),
        "spec": {"object": {"replicas": "int"}}}}));
    let mut new = scale.clone();
    new["spec"]["replicas"] = json!(3);
    Write {
        node: node(types),
        api_version: "autoscaling/v1",
        kind: "Scale",
        ignored: &Ignored::Nothing,
        ..write("hpa", LATER)
    }
    .updated(Some(&scale), &mut new);
    let back =
        replicas_from_scale(parent, new["metadata"].get("managedFields"), "apps/v1", replicas).unwrap();
    let object = json!({"metadata": {"managedFields": back}});
    assert_eq!(fields(&object, "me"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields(&object, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn hostile_documents_are_errors_and_no_panics() {
    let deep = (0..100).fold(json!(1), |inner, _| json!({"a": [inner]}));
    let odd = [
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[1]]),
        json!([{"name": null}]),
        deep,
    ];
    for a in &odd {
        for b in &odd {
            for live in
                [config(a.clone()), containers(a.clone()), json!({"metadata": a, "spec": b}), a.clone()]
            {
                for new in [config(b.clone()), containers(b.clone()), json!({"metadata": b}), b.clone()] {
                    let mut updated = new.clone();
                    write("x", NOW).updated(Some(&live), &mut updated);
                    let mut updated = new.clone();
                    write("x", NOW).updated(None, &mut updated);
                    let _ = write("kubectl", NOW).applied(Some(&live), &new, true);
                    let _ = crate::strategic(deployment(), live.clone(), new.clone());
                    let _ = crate::merge_patch(live.clone(), new.clone());
                }
            }
        }
    }
}
