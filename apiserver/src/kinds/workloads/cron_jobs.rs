//! CronJobs, and the syntax of their schedules (that of the library which upstream uses).

use super::super::fill::{Fields, Fill, With, fill, made};
use super::super::validate::{At, Causes, Check, Rule};
use super::super::{Kind, common};
use super::jobs;
use crate::object::Object;

pub static KIND: Kind = Kind {
    default,
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        let root = At::root(object);
        spec(&root.field("spec"), None, &mut out);
        if object.name().len() > 52 {
            root.down(&["metadata", "name"]).invalid("must be no more than 52 characters", &mut out);
        }
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        spec(&At::root(new).field("spec"), Some(&At::root(old).field("spec")), &mut out);
        out
    },
    warn: |object| {
        let mut out = Vec::new();
        super::name_warning(object, &mut out);
        jobs::spec_warnings(&At::root(object).down(&["spec", "jobTemplate", "spec"]), &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

const DEFAULTS: &[Fill] = &[
    Fill("concurrencyPolicy", With::Text("Allow")),
    Fill("suspend", With::Flag(false)),
    Fill("successfulJobsHistoryLimit", With::Int(3)),
    Fill("failedJobsHistoryLimit", With::Int(1)),
    Fill(
        "jobTemplate",
        With::Made(&[
            Fill("metadata", With::Object),
            Fill("spec", With::Made(&[])),
            Fill("spec", With::By(jobs::template_defaults)),
        ]),
    ),
];

fn default(object: &mut Object) {
    fill(made(&mut object.0, "spec"), DEFAULTS);
    super::super::fill::or_insert(&mut object.0, "status", Fields::new());
}

fn spec(spec: &At<'_>, old: Option<&At<'_>>, out: &mut Causes) {
    let (when, zone) = (spec.field("schedule"), spec.field("timeZone"));
    if when.is_empty() {
        when.required("", out);
    } else {
        let zone_before = old.is_some_and(|old| old.field("schedule").text().contains("TZ"));
        schedule(&when, zone_before, zone.is_set(), out);
    }
    spec.check(&[Rule("startingDeadlineSeconds", Check::NonNegative)], out);
    if old.is_none_or(|old| old.field("timeZone").value() != zone.value()) {
        time_zone(&zone, out);
    }
    spec.check(&[Rule("concurrencyPolicy", Check::OneOf(&["Allow", "Forbid", "Replace"]))], out);
    let job = spec.down(&["jobTemplate", "spec"]);
    jobs::unselected_spec(&job, out);
    if job.has("selector") {
        job.field("selector").invalid("`selector` will be auto-generated", out);
    }
    if job.field("manualSelector").flag() {
        job.field("manualSelector").unsupported(&["nil", "false"], out);
    }
    const LIMITS: &[Rule] = &[
        Rule("successfulJobsHistoryLimit", Check::NonNegative),
        Rule("failedJobsHistoryLimit", Check::NonNegative),
    ];
    spec.check(LIMITS, out);
}

fn schedule(at: &At<'_>, zone_before: bool, has_zone: bool, out: &mut Causes) {
    if let Err(why) = parse(at.text()) {
        at.invalid(why, out);
    }
    if at.text().contains("TZ") {
        if !zone_before {
            at.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead", out);
        } else if has_zone {
            at.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule", out);
        }
    }
}

fn time_zone(at: &At<'_>, out: &mut Causes) {
    if !at.is_set() {
        return;
    }
    let text = at.text();
    if text.is_empty() {
        return at.invalid("timeZone must be nil or non-empty string", out);
    }
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    let bad = |part: &str| {
        matches!(part, "." | ".." | "") || part.starts_with('-') || part.len() > 14 || !part.bytes().all(is)
    };
    if text.split('/').any(bad) {
        return at.invalid(format_args!("unknown time zone {text}"), out);
    }
    if text.eq_ignore_ascii_case("local") {
        at.invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            out,
        );
    }
}

type Names = &'static [&'static str];
/// Name, least, most, and names of numbers.
const PARTS: [(u32, u32, Names); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

fn parse(text: &str) -> Result<(), String> {
    let text = if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        text.split_once(' ').map_or("", |(_, rest)| rest).trim()
    } else {
        text
    };
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(PARTS).try_for_each(|(field, part)| {
        field.split(',').filter(|one| !one.is_empty()).try_for_each(|one| range(one, part))
    })
}

fn descriptor(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 7] =
        ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if let Some(duration) = text.strip_prefix("@every ") {
        let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
        let fine = !duration.is_empty()
            && duration.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '-' || c == '+')
            && duration.ends_with(|c: char| c.is_ascii_alphabetic())
            && duration
                .split(|c: char| c.is_ascii_digit() || c == '.' || c == '-' || c == '+')
                .all(|unit| unit.is_empty() || units.contains(&unit));
        if fine || duration == "0" {
            return Ok(());
        }
        return Err(format!("failed to parse duration {text}: time: invalid duration \"{duration}\""));
    }
    if KNOWN.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) }
}

fn range(text: &str, (least, most, names): (u32, u32, Names)) -> Result<(), String> {
    let by_slash: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = by_slash[0].split('-').collect();
    let number = |text: &str| -> Result<i64, String> {
        if let Some(at) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(i64::try_from(at).unwrap_or(0) + i64::from(least));
        }
        whole(text)
    };
    let (start, mut end) = match *ends {
        ["*" | "?", ..] => (i64::from(least), i64::from(most)),
        [one] => (number(one)?, number(one)?),
        [start, end] => (number(start)?, number(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match *by_slash {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = i64::from(most);
            }
            whole(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < i64::from(least) {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > i64::from(most) {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn whole(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number),
        Err(_) => {
            Err(format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for good in [
            "* * * * *",
            "*/5 0-12 1,15 jan-mar MON",
            "@daily",
            "@every 1h30m",
            "0 0 ? * 0",
            "CRON_TZ=UTC 0 0 * * *",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
    }
}
