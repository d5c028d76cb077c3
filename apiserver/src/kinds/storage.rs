//! Volumes, classes and drivers.

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, made};
use super::quantity::Quantity;
use super::validate::{At, Causes, Check, Path, Rule, go, labels, names, same, scheduling, volume};
use super::{Kind, claims, common, pod_spec};
use crate::object::Object;
use crate::status::Cause;

pub static VOLUME: Kind = Kind {
    default: |object| {
        const SPEC: &[Fill] = &[
            Fill("persistentVolumeReclaimPolicy", With::Text("Retain")),
            Fill("volumeMode", With::Text("Filesystem")),
            Fill("capacity", With::By(pod_spec::amounts)),
        ];
        let spec = made(&mut object.0, "spec");
        fill(spec, SPEC);
        fill(spec, pod_spec::SHARED_SOURCES);
        fill(made(&mut object.0, "status"), &[Fill("phase", With::Text("Pending"))]);
    },
    prepare_create: |object, preparing| {
        let status = json!({"phase": "Pending", "lastPhaseTransitionTime": preparing.now});
        object.0.insert("status".to_owned(), status);
    },
    prepare_update: common::keep_status,
    prepare_subresource: |subresource, new, old, preparing| {
        common::only_status(subresource, new, old, preparing);
        if subresource == "status" {
            let (phase, before) = (new.text(&["status", "phase"]), old.text(&["status", "phase"]));
            let time = old.get(&["status", "lastPhaseTransitionTime"]).cloned();
            let given = new.get(&["status", "lastPhaseTransitionTime"]).cloned();
            let time = match (phase == before, given) {
                (true, None) => time,
                (false, given) if given.is_none() || given == time => Some(preparing.now.into()),
                _ => return,
            };
            if let Some(time) = time {
                made(&mut new.0, "status").insert("lastPhaseTransitionTime".to_owned(), time);
            }
        }
    },
    validate: |object| {
        let mut out = Causes::new();
        persistent_volume(&At::root(object).field("spec"), &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let (root, before) = (At::root(new), At::root(old));
        let (spec, before) = (root.field("spec"), before.field("spec"));
        persistent_volume(&spec, &mut out);
        let of = |spec: &At<'_>| {
            let mut map = spec.map().cloned().unwrap_or_default();
            map.retain(|key, _| SOURCES.iter().any(|(source, _)| source == key));
            Value::Object(map)
        };
        if !same(&of(&spec), &of(&before)) {
            let at = At::value_at(&Value::Null, Path::of(&["spec", "persistentvolumesource"]));
            let change = super::diff::text(&of(&before), &of(&spec));
            at.forbidden(
                format_args!("spec.persistentvolumesource is immutable after creation\n{change}"),
                &mut out,
            );
        }
        let mode = spec.field("volumeMode").shown_at(Path::of(&["volumeMode"]));
        mode.immutable(&before.field("volumeMode"), &mut out);
        if before.has("nodeAffinity") {
            let affinity = spec.field("nodeAffinity").shown_at(Path::of(&["nodeAffinity"]));
            affinity.immutable(&before.field("nodeAffinity"), &mut out);
        }
        out
    },
    ..Kind::PLAIN
};

const SOURCES: &[(&str, Check)] = &[
    ("hostPath", Check::By(volume::host_path)),
    ("gcePersistentDisk", Check::In(&[Rule("pdName", Check::Required)])),
    ("awsElasticBlockStore", Check::In(&[Rule("volumeID", Check::Required)])),
    ("glusterfs", Check::In(&[Rule("endpoints", Check::Required), Rule("path", Check::Required)])),
    ("flocker", Check::In(&[])),
    ("nfs", Check::By(volume::nfs)),
    ("rbd", Check::In(&[Rule("monitors", Check::Required), Rule("image", Check::Required)])),
    ("quobyte", Check::In(&[Rule("registry", Check::Required), Rule("volume", Check::Required)])),
    ("cephfs", Check::In(&[Rule("monitors", Check::Required)])),
    ("iscsi", Check::In(&[Rule("targetPortal", Check::Required), Rule("iqn", Check::Required)])),
    ("cinder", Check::In(&[Rule("volumeID", Check::Required)])),
    ("fc", Check::In(&[])),
    ("flexVolume", Check::In(&[Rule("driver", Check::Required)])),
    ("azureFile", Check::In(&[Rule("secretName", Check::Required), Rule("shareName", Check::Required)])),
    ("vsphereVolume", Check::In(&[Rule("volumePath", Check::Required)])),
    ("photonPersistentDisk", Check::In(&[Rule("pdID", Check::Required)])),
    ("portworxVolume", Check::In(&[Rule("volumeID", Check::Required)])),
    ("azureDisk", Check::By(volume::azure_disk)),
    (
        "scaleIO",
        Check::In(&[
            Rule("gateway", Check::Required),
            Rule("system", Check::Required),
            Rule("volumeName", Check::Required),
        ]),
    ),
    ("local", Check::In(&[Rule("path", Check::Required), Rule("path", Check::By(volume::no_backsteps))])),
    ("storageos", Check::In(&[Rule("volumeName", Check::Required)])),
    (
        "csi",
        Check::In(&[Rule("driver", Check::By(volume::csi_driver)), Rule("volumeHandle", Check::Required)]),
    ),
];

fn persistent_volume(spec: &At<'_>, out: &mut Causes) {
    let (modes, capacity) = (spec.field("accessModes"), spec.field("capacity"));
    if modes.is_empty() {
        modes.required("", out);
    }
    claims::access_modes(&modes, out);
    if capacity.is_empty() {
        capacity.required("", out);
    }
    if !capacity.has("storage") || capacity.len() > 1 {
        let shown = if capacity.is_set() { capacity.value().clone() } else { Value::Null };
        out.push(Cause::unsupported(capacity.path().to_string(), &shown, &["storage"]));
    }
    for (_, amount) in capacity.entries() {
        let Some(quantity) = Quantity::of(amount.value()) else { continue };
        if quantity.is_negative() {
            amount.invalid_value(&quantity.value().into(), "must be a valid resource quantity", out);
        }
        if !quantity.is_positive() {
            amount.invalid_value(&quantity.to_string().into(), "must be greater than zero", out);
        }
    }
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(&["Delete", "Recycle", "Retain"], out);
    }
    let affinity = spec.field("nodeAffinity");
    if affinity.is_set() {
        if affinity.has("required") {
            scheduling::node_selector(&affinity.field("required"), out);
        } else {
            affinity.field("required").required("must specify required node constraints", out);
        }
    }
    let mut found = false;
    for (name, check) in SOURCES {
        let source = spec.field(name);
        if !source.is_set() {
            continue;
        }
        if found {
            source.forbidden("may not specify more than 1 volume type", out);
            continue;
        }
        found = true;
        match check {
            Check::In(rules) => source.check(rules, out),
            Check::By(function) => function(&source, out),
            _ => {}
        }
    }
    if spec.has("local") && !affinity.is_set() {
        affinity.required("Local volume requires node affinity", out);
    }
    if !found {
        spec.required("must specify a volume type", out);
    }
    let path = spec.down(&["hostPath", "path"]).text();
    if policy.text() == "Recycle" && !path.is_empty() && path.trim_end_matches('/').is_empty() {
        policy.forbidden("may not be 'recycle' for a hostPath mount of '/'", out);
    }
    const RULES: &[Rule] = &[
        Rule("storageClassName", Check::Text(names::dns_subdomain)),
        Rule("volumeMode", Check::OneOfIfSet(&["Block", "Filesystem"])),
    ];
    spec.check(RULES, out);
    let class = spec.field("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            class.required("an empty string is disallowed", out);
        } else {
            class.names(names::dns_subdomain, out);
        }
        if !spec.has("csi") {
            spec.field("csi").required("has to be specified when using volumeAttributesClassName", out);
        }
    }
}

pub static CLASS: Kind = Kind {
    default: |object| {
        const TABLE: &[Fill] = &[
            Fill("reclaimPolicy", With::Text("Delete")),
            Fill("volumeBindingMode", With::Text("Immediate")),
        ];
        fill(&mut object.0, TABLE);
    },
    validate: |object| {
        let mut out = Causes::new();
        class(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let (root, before) = (At::root(new), At::root(old));
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            root.field(field).immutable(&before.field(field), &mut out);
        }
        out
    },
    ..Kind::PLAIN
};

fn class(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    provisioner(&root.field("provisioner"), out);
    parameters(&root.field("parameters"), out);
    let policy = root.field("reclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(&["Delete", "Retain"], out);
    }
    root.field("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"], out);
    for term in root.field("allowedTopologies").items() {
        let mut seen = Vec::new();
        for item in term.field("matchLabelExpressions").items() {
            let (key, values) = (item.field("key"), item.field("values"));
            if values.is_empty() {
                values.required("", out);
            }
            let mut among = Vec::new();
            for value in values.items() {
                if among.contains(&value.text()) {
                    value.duplicate(out);
                }
                among.push(value.text());
            }
            labels::label_name(key.text(), &key, out);
            if seen.contains(&key.text()) {
                key.duplicate(out);
            }
            seen.push(key.text());
        }
    }
}

fn provisioner(at: &At<'_>, out: &mut Causes) {
    if at.is_empty() {
        return at.required("", out);
    }
    let lower = at.text().to_lowercase();
    for detail in names::qualified(&lower) {
        at.invalid_value(&lower.as_str().into(), detail, out);
    }
}

fn parameters(at: &At<'_>, out: &mut Causes) {
    const MOST: usize = 256 * 1024;
    if at.len() > 512 {
        return at.too_long(512, out);
    }
    let mut size = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            at.invalid_value(&"".into(), "field can not be empty.", out);
        }
        size += key.len() + value.len();
    }
    if size > MOST {
        at.too_long(MOST, out);
    }
}

pub static ATTRIBUTES_CLASS: Kind = Kind {
    validate: |object| {
        let mut out = Causes::new();
        let root = At::root(object);
        provisioner(&root.field("driverName"), &mut out);
        parameters(&root.field("parameters"), &mut out);
        if root.field("parameters").is_empty() {
            root.field("parameters").required("must contain at least one key/value pair", &mut out);
        }
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let (root, before) = (At::root(new), At::root(old));
        for field in ["driverName", "parameters"] {
            if !same(root.field(field).value(), before.field(field).value()) {
                root.field(field).forbidden(format_args!("updates to {field} are forbidden."), &mut out);
            }
        }
        out
    },
    ..Kind::PLAIN
};

pub static DRIVER: Kind = Kind {
    default: |object| {
        const SPEC: &[Fill] = &[
            Fill("attachRequired", With::Flag(true)),
            Fill("podInfoOnMount", With::Flag(false)),
            Fill("storageCapacity", With::Flag(false)),
            Fill("fsGroupPolicy", With::Text("ReadWriteOnceWithFSType")),
            Fill("requiresRepublish", With::Flag(false)),
            Fill("seLinuxMount", With::Flag(false)),
        ];
        let spec = made(&mut object.0, "spec");
        fill(spec, SPEC);
        if spec.get("volumeLifecycleModes").is_none_or(super::validate::is_empty) {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
    },
    prepare_create: |object, _| {
        made(&mut object.0, "spec").remove("preventPodSchedulingIfMissing");
    },
    validate: |object| {
        let mut out = Causes::new();
        driver(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        driver(new, &mut out);
        let (root, before) = (At::root(new), At::root(old));
        let (spec, before) = (root.field("spec"), before.field("spec"));
        let attach = spec.field("attachRequired").shown_at(Path::of(&["spec", "attachedRequired"]));
        attach.immutable(&before.field("attachRequired"), &mut out);
        spec.field("volumeLifecycleModes").immutable(&before.field("volumeLifecycleModes"), &mut out);
        out
    },
    unconditional_update: false,
    ..Kind::PLAIN
};

fn driver(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    spec.field("fsGroupPolicy").one_of_if_set(&["File", "None", "ReadWriteOnceWithFSType"], out);
    let mut seen = Vec::new();
    for request in spec.field("tokenRequests").items() {
        let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
        if seen.contains(&audience.text()) {
            audience.duplicate(out);
            continue;
        }
        seen.push(audience.text());
        if seconds.is_set() && seconds.int() < 600 {
            seconds.invalid("may not specify a duration less than 10 minutes", out);
        }
        if seconds.int() > 1 << 32 {
            seconds.invalid("may not specify a duration larger than 2^32 seconds", out);
        }
    }
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.items() {
        mode.shown_at(modes.path()).one_of_if_set(&["Persistent", "Ephemeral"], out);
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.is_set() && period.int() < 10 {
        period.invalid("must be greater than or equal to 10 seconds", out);
    }
    let secrets = spec.field("serviceAccountTokenInSecrets");
    if secrets.is_set() && seen.is_empty() {
        secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified", out);
    }
}

pub static CSI_NODE: Kind = Kind {
    validate: |object| {
        let mut out = Causes::new();
        csi_node(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        csi_node(new, &mut out);
        let (root, before) = (At::root(new), At::root(old));
        let (drivers, before) = (root.down(&["spec", "drivers"]), before.down(&["spec", "drivers"]));
        let fixed = |at: &At<'_>| {
            let mut map = at.map().cloned().unwrap_or_default();
            map.remove("allocatable");
            Value::Object(map)
        };
        for driver in drivers.items() {
            let name = driver.field("name").text();
            let old = before.items().find(|one| one.field("name").text() == name);
            if old.is_some_and(|old| !same(&fixed(&old), &fixed(&driver))) {
                drivers.invalid_value(&fixed(&driver), "field is immutable", &mut out);
            }
        }
        out
    },
    ..Kind::PLAIN
};

fn csi_node(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let mut seen = Vec::new();
    for driver in root.down(&["spec", "drivers"]).items() {
        let (name, id) = (driver.field("name"), driver.field("nodeID"));
        volume::csi_driver(&name, out);
        if id.is_empty() {
            id.required("", out);
        }
        if id.len() > 256 {
            id.invalid("must be 256 characters or less", out);
        }
        driver.down(&["allocatable", "count"]).non_negative(out);
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
        let mut keys = Vec::new();
        for key in driver.field("topologyKeys").texts() {
            if key.is_empty() {
                driver.required("", out);
            }
            if keys.contains(&key) {
                driver.duplicate_value(&key.into(), out);
            }
            keys.push(key);
            labels::label_name(key, &driver, out);
        }
    }
}

pub static ATTACHMENT: Kind = Kind {
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        attachment(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        attachment(new, &mut out);
        let (spec, before) = (At::root(new).field("spec"), At::root(old).field("spec"));
        if !same(spec.value(), before.value()) {
            let source = spec.field("source");
            let name = source.field("persistentVolumeName");
            let inline = source.field("inlineVolumeSpec");
            let source = go(&[("PersistentVolumeName", name.value()), ("InlineVolumeSpec", inline.value())]);
            let (attacher, node) = (spec.field("attacher"), spec.field("nodeName"));
            let message = format!(
                "Invalid value: {{\"Attacher\":{},\"Source\":{source},\"NodeName\":{}}}: field is immutable",
                attacher.value(),
                node.value()
            );
            out.push(Cause { reason: "FieldValueInvalid", message, field: "spec".to_owned() });
        }
        out
    },
    ..Kind::PLAIN
};

fn attachment(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    volume::csi_driver(&spec.field("attacher"), out);
    let source = spec.field("source");
    let (inline, name) = (source.has("inlineVolumeSpec"), source.field("persistentVolumeName"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline, name.is_set()) {
        (false, false) => source.required(one, out),
        (true, true) => source.forbidden(one, out),
        (false, true) if name.is_empty() => name.required("must specify non empty persistentVolumeName", out),
        _ => {}
    }
    spec.field("nodeName").names(names::dns_subdomain, out);
    if !name.is_empty() {
        name.names(names::dns_subdomain, out);
    }
}

pub static CAPACITY: Kind = Kind {
    default: |object| {
        for field in ["capacity", "maximumVolumeSize"] {
            object.0.get_mut(field).into_iter().for_each(pod_spec::canonical);
        }
    },
    validate: |object| {
        let mut out = Causes::new();
        let root = At::root(object);
        labels::selector(&root.field("nodeTopology"), &mut out);
        root.field("storageClassName").names(names::dns_subdomain, &mut out);
        let capacity = root.field("capacity");
        if let Some(amount) = Quantity::of(capacity.value()).filter(|amount| amount.is_negative()) {
            let detail = "must be greater than or equal to 0";
            capacity.invalid_value(&amount.to_string().into(), detail, &mut out);
        }
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let (root, before) = (At::root(new), At::root(old));
        for field in ["nodeTopology", "storageClassName"] {
            root.field(field).immutable(&before.field(field), &mut out);
        }
        out
    },
    ..Kind::PLAIN
};
