//! A new node takes no pods before it is ready. Source: kubernetes `plugin/pkg/admission/nodetaint`.

use std::future::ready;

use serde_json::json;

use super::{Plugin, pods};
use crate::hooks::{Operation, Review};

pub const PLUGIN: Plugin = Plugin {
    name: "TaintNodesByCondition",
    on_by_default: true,
    resources: &[("", "nodes")],
    mutate: Some(|_, review| {
        mutate(review);
        Box::pin(ready(Ok(())))
    }),
    validate: None,
};

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

fn mutate(review: &mut Review) {
    let (Operation::Create, "") = (review.operation, &*review.subresource) else { return };
    let Some(node) = &mut review.object else { return };
    let spec = pods::spec_mut(node);
    if pods::items_mut(spec, "taints").all(|taint| taint["key"] != KEY || taint["effect"] != EFFECT) {
        pods::push(spec, "taints", json!({ "key": KEY, "effect": EFFECT }));
    }
}
