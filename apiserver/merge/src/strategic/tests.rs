use serde_json::{Value, json};

use super::*;
use crate::testing::pod;

fn patched(original: Value, patch: Value) -> Result<Value, String> {
    strategic(pod(), original, patch).map_err(|e| e.to_string())
}

fn spec(original: Value, patch: Value) -> Result<Value, String> {
    patched(json!({"spec": original}), json!({"spec": patch})).map(|mut value| value["spec"].take())
}

fn check(cases: impl IntoIterator<Item = (Value, Value, Value)>) {
    for (original, patch, expected) in cases {
        assert_eq!(spec(original.clone(), patch.clone()), Ok(expected), "{original} {patch}");
    }
}

#[test]
fn maps_are_merged_and_nulls_delete() {
    check([
        (json!({}), json!({"nodeName": "a"}), json!({"nodeName": "a"})),
        (json!({"nodeName": "a"}), json!({"nodeName": null}), json!({})),
        (json!({"nodeName": "a"}), json!({"replicas": null}), json!({"nodeName": "a"})),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"b": "2"}}),
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"a": null}}),
            json!({"nodeSelector": {}}),
        ),
        (
            json!({}),
            json!({"strategy": {"type": "x", "rollingUpdate": null}}),
            json!({"strategy": {"type": "x"}}),
        ),
        (json!({"nodeName": "a"}), json!({"nodeName": {"b": null, "c": 1}}), json!({"nodeName": {"c": 1}})),
        (json!({"raw": {"a": 1}}), json!({"raw": {"a": 2, "b": 3}}), json!({"raw": {"a": 2, "b": 3}})),
    ]);
}

#[test]
fn patch_directives_of_maps() {
    check([
        (
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$patch": "replace", "rollingUpdate": {}}}),
            json!({"strategy": {"rollingUpdate": {}}}),
        ),
        (
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$patch": "delete"}}),
            json!({"strategy": {}}),
        ),
        // Of what is not there nothing is left.
        (json!({}), json!({"strategy": {"$patch": "delete"}}), json!({})),
        (json!({"nodeName": "a"}), json!({"nodeName": {"$patch": "delete"}}), json!({})),
    ]);
    assert_eq!(
        patched(json!({"spec": {"nodeName": "a"}}), json!({"$patch": "replace", "kind": "x"})),
        Ok(json!({"kind": "x"}))
    );
    assert_eq!(
        spec(json!({"strategy": {"type": "a"}}), json!({"strategy": {"$patch": "merge", "type": "b"}})),
        Err("unknown patch type: merge in map: map[$patch:merge type:b]".to_owned())
    );
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    check([
        (
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
        (json!({"tolerations": [{"key": "a"}]}), json!({"tolerations": []}), json!({"tolerations": []})),
    ]);
    let args = spec(
        json!({"containers": [{"name": "a", "args": ["x", "y"]}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}]}),
    );
    assert_eq!(args, Ok(json!({"containers": [{"name": "a", "args": ["z"]}]})));
}

#[test]
fn lists_of_maps_are_merged_by_their_key() {
    let two = || json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
    check([
        (
            two(),
            json!({"containers": [{"name": "b", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
        ),
        (
            two(),
            json!({"containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        ),
        (
            two(),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b", "image": "2"}]}),
        ),
        (two(), json!({"containers": [{"name": "z", "$patch": "delete"}]}), two()),
        (
            two(),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        ),
        (two(), json!({"containers": [{"$patch": "replace"}]}), json!({"containers": []})),
        (
            two(),
            json!({"containers": [{"name": "a", "image": null}]}),
            json!({"containers": [{"name": "a"}, {"name": "b", "image": "2"}]}),
        ),
        (two(), json!({"containers": []}), two()),
        (
            json!({}),
            json!({"containers": [{"name": "a"}, {"name": "b", "$patch": "delete"}]}),
            json!({"containers": [{"name": "a"}]}),
        ),
        (json!({"containers": []}), json!({"containers": []}), json!({"containers": []})),
    ]);
    let conditions = patched(
        json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}}),
    );
    assert_eq!(
        conditions,
        Ok(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "reason": "x"}, {"type": "Other", "status": "False"}]}}))
    );
}

#[test]
fn nested_lists() {
    check([(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a",
            "$setElementOrder/env": [{"name": "Y"}, {"name": "Z"}],
            "env": [{"name": "Y", "value": null, "valueFrom": {"fieldPath": "p"}}, {"name": "Z", "value": "3"},
                {"name": "X", "$patch": "delete"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Y", "valueFrom": {"fieldPath": "p"}},
            {"name": "Z", "value": "3"}]}]}),
    )]);
}

/// Two ports of one number and two protocols are one to the patch: known upstream (kubernetes#39188).
#[test]
fn ports_are_merged_by_their_number_alone() {
    let ports = |ports: Value| json!({"containers": [{"name": "a", "ports": ports}]});
    check([
        (
            ports(json!([{"containerPort": 53, "protocol": "TCP"}])),
            ports(json!([{"containerPort": 53, "protocol": "UDP"}])),
            ports(json!([{"containerPort": 53, "protocol": "UDP"}])),
        ),
        (
            ports(
                json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]),
            ),
            ports(json!([{"containerPort": 53, "name": "dns"}])),
            ports(
                json!([{"containerPort": 53, "protocol": "TCP", "name": "dns"}, {"containerPort": 53, "protocol": "UDP"}]),
            ),
        ),
        (
            ports(
                json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]),
            ),
            ports(json!([{"containerPort": 53, "$patch": "delete"}])),
            ports(json!([])),
        ),
    ]);
}

#[test]
fn lists_of_primitives_are_sets() {
    for (original, patch, expected) in [
        (json!(["a", "b"]), json!({"finalizers": ["b", "c"]}), json!(["a", "b", "c"])),
        (json!(["a", "b"]), json!({"finalizers": ["c", "a"]}), json!(["c", "a", "b"])),
        (json!(["a", "b"]), json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!(["b"])),
        (
            json!(["a", "b"]),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}),
            json!(["c", "b"]),
        ),
        (json!(["a", "b", "c"]), json!({"$setElementOrder/finalizers": ["c", "a"]}), json!(["b", "c", "a"])),
        (
            json!(["a", "b"]),
            json!({"$setElementOrder/finalizers": ["b", "d", "a"], "finalizers": ["d"]}),
            json!(["b", "d", "a"]),
        ),
        (json!(["a"]), json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!([])),
    ] {
        let result = patched(json!({"metadata": {"finalizers": original}}), json!({"metadata": patch}));
        assert_eq!(result, Ok(json!({"metadata": {"finalizers": expected}})), "{original} {patch}");
    }
    let absent =
        patched(json!({"metadata": {}}), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}));
    assert_eq!(absent, Ok(json!({"metadata": {}})));
    let null = patched(
        json!({"metadata": {"finalizers": ["a"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": null}}),
    );
    assert_eq!(null, Ok(json!({"metadata": {}})));
}

#[test]
fn order_is_that_of_the_directive_and_the_servers_own_keep_their_places() {
    let names = |names: &[&str]| Value::Array(names.iter().map(|name| json!({"name": name})).collect());
    for (original, order, patch, expected) in [
        (&["a", "b", "c"][..], &["c", "b", "a"][..], &[][..], &["c", "b", "a"][..]),
        (&["a", "b", "c"], &["b", "a"], &[], &["b", "a", "c"]),
        (&["a", "s", "b"], &["a", "b", "c"], &["c"], &["a", "s", "b", "c"]),
        (&["s", "a"], &["n", "a"], &["n"], &["n", "s", "a"]),
        (&["a", "s1", "b", "s2"], &["b", "a"], &[], &["s1", "b", "a", "s2"]),
    ] {
        let mut fields = json!({"$setElementOrder/containers": names(order)});
        if !patch.is_empty() {
            fields["containers"] = names(patch);
        }
        let result = spec(json!({"containers": names(original)}), fields);
        assert_eq!(result, Ok(json!({"containers": names(expected)})), "{original:?} {order:?} {patch:?}");
    }
    assert_eq!(
        spec(
            json!({}),
            json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a"}, {"name": "b", "$patch": "delete"}]})
        ),
        Ok(json!({"containers": [{"name": "a"}]}))
    );
}

/// Seen in a run beside a stock kube-apiserver.
#[test]
fn what_is_added_takes_the_place_of_what_is_deleted() {
    check([(
        json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}],
            "containers": [{"name": "c"}, {"name": "b", "$patch": "delete"}]}),
        json!({"containers": [{"name": "a"}, {"name": "c"}]}),
    )]);
}

#[test]
fn retained_keys_change_the_member_of_a_union() {
    let volume = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    check([
        (
            volume.clone(),
            json!({"$setElementOrder/volumes": [{"name": "v"}],
                "volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": null}}),
            json!({"strategy": {"type": "Recreate"}}),
        ),
    ]);
    for bad in [json!({"$retainKeys": ["type"], "rollingUpdate": {}}), json!({"$retainKeys": "type"})] {
        assert_eq!(
            spec(json!({"strategy": {"type": "a"}}), json!({"strategy": bad})),
            Err("invalid patch format of retainKeys".to_owned())
        );
    }
}

#[test]
fn errors_in_upstreams_words() {
    let containers = || json!({"containers": [{"name": "a"}]});
    for (original, patch, message) in [
        (
            containers(),
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            containers(),
            json!({"containers": [{"$patch": "delete"}]}),
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            containers(),
            json!({"containers": [{"name": "a", "$patch": "merge"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            containers(),
            json!({"containers": [{"name": "a", "$patch": "x"}]}),
            "unknown patch type: x in map: map[$patch:x name:a]",
        ),
        (
            containers(),
            json!({"containers": ["a"]}),
            "list element types are not identical: [[map[name:a]] [a]]",
        ),
        (json!({"containers": []}), json!({"containers": [["a"]]}), "lists of lists are not supported"),
        (
            containers(),
            json!({"$setElementOrder/containers": "a"}),
            "expected a []interface {}, but received a string",
        ),
        (containers(), json!({"$setElementOrder": []}), "invalid patch format of setElementOrder list"),
        (
            containers(),
            json!({"$setElementOrder/none": []}),
            "unable to find api field in struct PodSpec for the json field \"none\"",
        ),
        (containers(), json!({"$deleteFromPrimitiveListX": []}), "invalid patch format of primitive list"),
        (
            containers(),
            json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
        (
            json!({"raw": {"a": {}}}),
            json!({"raw": {"a": {}}}),
            "unable to find api field in struct RawExtension for the json field \"a\"",
        ),
    ] {
        assert_eq!(spec(original.clone(), patch.clone()), Err(message.to_owned()), "{original} {patch}");
    }
    let class = |patch: Value| strategic(pod(), json!({}), patch).unwrap_err().class();
    assert_eq!(class(json!([])), crate::Class::BadRequest);
    assert_eq!(class(json!({"$patch": 1})), crate::Class::Internal);
}

#[test]
fn a_merge_of_huge_lists_is_not_quadratic() {
    let list = |from: usize| (from..from + 100_000).map(|i| json!(format!("f{i}"))).collect::<Vec<_>>();
    let started = std::time::Instant::now();
    let result = patched(
        json!({"metadata": {"finalizers": list(0)}}),
        json!({"metadata": {"finalizers": list(50_000), "$setElementOrder/finalizers": list(50_000)}}),
    );
    assert_eq!(result.unwrap()["metadata"]["finalizers"].as_array().unwrap().len(), 150_000);
    assert!(started.elapsed().as_secs() < 30);
}
