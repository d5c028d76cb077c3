//! Takes out of an output what two servers cannot have in common.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::Outcome;

/// In this order.
const RULES: &[(&str, &str)] = &[
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000", "<time>"),
    (r#""?resourceVersion"?: ?"?\d+"?"#, "resourceVersion: <revision>"),
    (r"Resource Version: +\d+", "Resource Version: <revision>"),
    (r"https://127\.0\.0\.1:\d+", "<server>"),
    (r"127\.0\.0\.1:\d+", "<server>"),
    (r"eyJ[A-Za-z0-9_.-]+", "<token>"),
    (r"-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----(\\n)?", "<certificate>"),
    (r"\b10\.(9[6-9]|10\d|11[01])\.\d+\.\d+", "<cluster ip>"),
    (r"\b3[0-2]\d{3}\b", "<node port>"),
    (r"\bgen-[a-z0-9]{5}\b", "gen-<random>"),
    (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-<random>"),
    (r"(?m)\b\d+(ms|s|m|h|d)(\d+(s|m|h))?([ \t])", "<age>$4"),
    (r"(?m)\b\d+(ms|s|m|h|d)(\d+(s|m|h))?( ago)?$", "<age>"),
    (r"<invalid>", "<age>"),
    (r"/[^ ]*/home/", "<home>/"),
    (r"[ \t]+", " "),
    (r"(?m) $", ""),
];

static COMPILED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    RULES.iter().map(|(rule, with)| (Regex::new(rule).expect("a regular expression"), *with)).collect()
});

pub fn outcome(outcome: Outcome) -> Outcome {
    Outcome { code: outcome.code, stdout: text(&outcome.stdout), stderr: text(&outcome.stderr) }
}

fn text(text: &str) -> String {
    COMPILED.iter().fold(text.to_owned(), |text, (rule, with)| rule.replace_all(&text, *with).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_two_servers_have_in_common_is_taken_out() {
        let got = text("NAME   READY   AGE\na      1/1     12s\nb      0/1     3m2s\n");
        assert_eq!(got, "NAME READY AGE\na 1/1 <age>\nb 0/1 <age>\n");
        assert_eq!(text("\"resourceVersion\": \"17\","), "resourceVersion: <revision>,");
        assert_eq!(text("uid: 0c9e1b52-7d4c-4a1c-9b7e-0a1b2c3d4e5f"), "uid: <uid>");
        assert_eq!(text("replicas: 3"), "replicas: 3");
    }
}
