//! The form of the script and of the list of explained differences.

use anyhow::{Context, Result};
use regex_lite::Regex;

/// One line of shell; a backslash at its end joins the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The last `# title` before it.
    pub section: String,
    pub line: String,
}

/// Steps that may differ, and why.
pub struct Explanation {
    pub of: Regex,
    pub why: String,
}

pub fn steps(text: &str) -> Vec<Step> {
    let joined = text.replace("\\\n", " ");
    let mut section = String::new();
    let mut steps = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix('#') {
            Some(title) => title.trim().clone_into(&mut section),
            None => steps.push(Step { section: section.clone(), line: line.to_owned() }),
        }
    }
    steps
}

/// Lines of `regular expression of the command :: reason`.
pub fn explanations(text: &str) -> Result<Vec<Explanation>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let parse = |line: &str| {
        let (of, why) = line.split_once(" :: ").with_context(|| format!("no ` :: ` in: {line}"))?;
        let of = Regex::new(of.trim()).with_context(|| format!("no regular expression: {of}"))?;
        Ok(Explanation { of, why: why.trim().to_owned() })
    };
    lines.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_belong_to_their_section() {
        let steps = steps("# first\n\nkubectl get \\\n  pods\n# second\nkubectl version\n");
        let got: Vec<_> = steps.iter().map(|step| (&*step.section, &*step.line)).collect();
        assert_eq!(got, [("first", "kubectl get    pods"), ("second", "kubectl version")]);
    }

    #[test]
    fn an_explanation_without_a_reason_is_refused() {
        assert!(explanations("kubectl version").is_err());
        assert_eq!(explanations("# no\n^kubectl version :: because").expect("good").len(), 1);
    }
}
