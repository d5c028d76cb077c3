//! Pods stay a while on a node that is not ready or cannot be reached.
//! Source: kubernetes `plugin/pkg/admission/defaulttolerationseconds`.

use std::future::ready;

use serde_json::{Value, json};

use super::{Context, Plugin, pods};
use crate::hooks::{Operation, Review};

pub const PLUGIN: Plugin = Plugin {
    name: "DefaultTolerationSeconds",
    on_by_default: true,
    resources: &[("", "pods")],
    mutate: Some(|context, review| {
        mutate(context, review);
        Box::pin(ready(Ok(())))
    }),
    validate: None,
};

fn mutate(context: &Context, review: &mut Review) {
    if review.operation == Operation::Delete || !review.subresource.is_empty() {
        return;
    }
    let Some(pod) = &mut review.object else { return };
    let spec = pods::spec_mut(pod);
    let wanted = [
        ("node.kubernetes.io/not-ready", context.settings.not_ready_toleration),
        ("node.kubernetes.io/unreachable", context.settings.unreachable_toleration),
    ];
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let missing = wanted.map(|(key, _)| {
        let mut all = spec.get("tolerations").and_then(Value::as_array).into_iter().flatten();
        !all.any(|toleration| {
            let of = text(toleration, "key");
            (of == key || of.is_empty()) && matches!(&*text(toleration, "effect"), "NoExecute" | "")
        })
    });
    for ((key, seconds), missing) in wanted.into_iter().zip(missing) {
        if missing {
            let toleration = json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
            });
            pods::push(spec, "tolerations", toleration);
        }
    }
}
