//! One step of a differential run: JSON lines in, JSON lines out.
use corten_merge::managed::{Ignored, Write};
use serde_json::{Value, json};

fn main() {
    for line in std::io::stdin().lines() {
        let step: Value = serde_json::from_str(&line.unwrap()).unwrap();
        println!("{}", run(&step));
    }
}

fn run(step: &Value) -> Value {
    let text = |k: &str| step[k].as_str().unwrap_or_default();
    let api_version = text("apiVersion");
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let table = corten_schema::builtin();
    let node = table.kind(group, version, text("kind")).expect("kind");
    let resource = table.resources.iter().find(|r| r.group == group && r.kind == text("kind")).unwrap();
    let ignored = Ignored::of(
        group,
        text("kind"),
        text("subresource"),
        resource.subresource("status").is_some(),
        false,
    );
    let write = Write {
        node,
        api_version,
        kind: text("kind"),
        subresource: text("subresource"),
        manager: text("manager"),
        now: "2026-01-01T00:00:00Z",
        is_custom: false,
        ignored: &ignored,
        versions: &(),
    };
    let live = step.get("live").filter(|l| !l.is_null());
    match text("op") {
        "update" => {
            let mut new = step["new"].clone();
            drop_empty(&mut new);
            corten_schema::check::check(node, &mut new);
            corten_schema::defaults::apply(node, &mut new);
            write.update(live, &mut new);
            json!({"ok": new})
        }
        "smp" => match corten_merge::strategic(node, live.unwrap().clone(), step["patch"].clone()) {
            Err(e) => json!({"err": e.to_string()}),
            Ok(mut new) => {
                drop_empty(&mut new);
                corten_schema::check::check(node, &mut new);
                corten_schema::defaults::apply(node, &mut new);
                write.update(live, &mut new);
                json!({"ok": new})
            }
        },
        "json" => match corten_merge::JsonPatch::parse(step["patch"].clone())
            .map_err(|e| e.to_string())
            .and_then(|p| p.apply(live.unwrap().clone()).map_err(|e| e.to_string()))
        {
            Err(e) => json!({"err": e}),
            Ok(mut new) => {
                drop_empty(&mut new);
                corten_schema::check::check(node, &mut new);
                corten_schema::defaults::apply(node, &mut new);
                write.update(live, &mut new);
                json!({"ok": new})
            }
        },
        "merge" => match corten_merge::merge_patch(live.unwrap().clone(), step["patch"].clone()) {
            Err(e) => json!({"err": e.to_string()}),
            Ok(mut new) => {
                drop_empty(&mut new);
                corten_schema::check::check(node, &mut new);
                corten_schema::defaults::apply(node, &mut new);
                write.update(live, &mut new);
                json!({"ok": new})
            }
        },
        "apply" => match write.apply(live, &step["patch"], step["force"] == true) {
            Err(e) => json!({"err": e.to_string()}),
            Ok(applied) => {
                let mut new = applied.object;
                drop_empty(&mut new);
                corten_schema::check::check(node, &mut new);
                corten_schema::defaults::apply(node, &mut new);
                json!({"ok": new})
            }
        },
        _ => panic!("op"),
    }
}

fn drop_empty(v: &mut Value) {
    match v {
        Value::Object(m) => {
            for v in m.values_mut() {
                drop_empty(v);
            }
            m.retain(|k, v| {
                !([
                    "labels",
                    "annotations",
                    "nodeSelector",
                    "env",
                    "ports",
                    "finalizers",
                    "args",
                    "limits",
                    "tolerations",
                ]
                .contains(&k.as_str())
                    && (v == &json!({}) || v == &json!([])))
            });
        }
        Value::Array(a) => a.iter_mut().for_each(drop_empty),
        _ => {}
    }
}
