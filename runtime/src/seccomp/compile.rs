//! From verdicts to a BPF program: a binary tree over call numbers, so that no call passes more than about eight
//! comparisons (a linear filter of 300 calls costs four times as much to load; reference figure 0.32 against 0.08 ms).

use std::collections::{BTreeMap, BTreeSet};

use corten_sys::seccomp::Instruction;
use oci_spec::runtime::LinuxSeccomp;

use super::SeccompError;
use super::arch::{Arch, X32_BIT};
use super::program::{Label, Program, Test};
use super::rules::{self, Comparison, Condition, Return, Verdict, Verdicts};

const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn low_word(index: u32) -> u32 {
    16 + 8 * index
}
const fn high_word(index: u32) -> u32 {
    low_word(index) + 4
}

const ENOSYS: Return = rules::ERRNO | libc::ENOSYS as u32;
/// A call of an architecture that is not in the profile, as libseccomp answers it.
const FOREIGN: Return = rules::KILL_THREAD;

/// Compile for the architectures of the profile and `native`.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Vec<Instruction>, SeccompError> {
    compile_with(profile, native, true)
}

/// `tail`: calls that are newer than any the profile names answer ENOSYS instead of the default action, so that a C
/// library falls back to older ones instead of failing (runc's patchbpf).
pub(super) fn compile_with(
    profile: &LinuxSeccomp,
    native: Arch,
    tail: bool,
) -> Result<Vec<Instruction>, SeccompError> {
    let listed = profile.architectures().iter().flatten().filter_map(|arch| Arch::from_oci(*arch));
    let arches: BTreeSet<Arch> = listed.chain([native]).collect();
    let default = rules::default_action(profile)?;
    let mut sections = BTreeMap::new();
    for arch in &arches {
        let newest = if tail { rules::newest_known(profile, *arch) } else { None };
        sections.insert(
            *arch,
            Section { verdicts: rules::verdicts(profile, *arch)?, newest, default, arch: *arch },
        );
    }
    Ok(assemble(&sections))
}

struct Section {
    verdicts: Verdicts,
    newest: Option<u32>,
    default: Return,
    arch: Arch,
}

fn assemble(sections: &BTreeMap<Arch, Section>) -> Vec<Instruction> {
    let mut program = Program::default();
    let foreign = program.ret(FOREIGN);
    let mut start = foreign;
    for arch in [Arch::Aarch64, Arch::I386] {
        if let Some(section) = sections.get(&arch) {
            let tree = section.emit(&mut program);
            let body = program.load(NUMBER, tree);
            start = program.jump(Test::Equal, arch.audit(), body, start);
        }
    }
    if let Some(body) = emit_x86_64(sections, &mut program) {
        let body = program.load(NUMBER, body);
        start = program.jump(Test::Equal, Arch::X86_64.audit(), body, start);
    }
    program.load(ARCH, start);
    program.finish()
}

fn emit_x86_64(sections: &BTreeMap<Arch, Section>, program: &mut Program) -> Option<Label> {
    match (sections.get(&Arch::X86_64), sections.get(&Arch::X32)) {
        (None, None) => None,
        (Some(wide), Some(narrow)) => {
            let narrow = narrow.emit(program);
            let wide = wide.emit(program);
            Some(program.jump(Test::AtLeast, X32_BIT, narrow, wide))
        }
        (Some(wide), None) => {
            // x32 calls are foreign then; with an ENOSYS tail they are unknown ones. A tracer cancels a call by
            // making its number -1, which is no x32 call.
            let x32 = program.ret(if wide.newest.is_some() { ENOSYS } else { FOREIGN });
            let cancelled = program.ret(if wide.newest.is_some() { ENOSYS } else { wide.default });
            let x32 = program.jump(Test::Equal, u32::MAX, cancelled, x32);
            let wide = wide.emit(program);
            Some(program.jump(Test::AtLeast, X32_BIT, x32, wide))
        }
        (None, Some(narrow)) => {
            let foreign = program.ret(FOREIGN);
            let narrow = narrow.emit(program);
            Some(program.jump(Test::AtLeast, X32_BIT, narrow, foreign))
        }
    }
}

/// Calls from `first` up to the next span's first share a verdict.
struct Span<'a> {
    first: u32,
    verdict: Option<&'a Verdict>,
}

impl Section {
    fn emit(&self, program: &mut Program) -> Label {
        let spans = self.spans();
        let mut written = BTreeMap::new();
        let tree = self.tree(program, &spans, &mut written);
        match self.newest {
            Some(newest) => {
                let enosys = program.ret(ENOSYS);
                program.jump(Test::Greater, newest | self.arch.bit(), enosys, tree)
            }
            None => tree,
        }
    }

    fn spans(&self) -> Vec<Span<'_>> {
        let mut spans = vec![Span { first: 0, verdict: None }];
        let mut next = 0;
        for (number, verdict) in &self.verdicts {
            if *number != next {
                push(&mut spans, next, None);
            }
            push(&mut spans, *number, Some(verdict));
            next = number + 1;
        }
        push(&mut spans, next, None);
        spans
    }

    fn tree<'a>(
        &'a self,
        program: &mut Program,
        spans: &[Span<'a>],
        written: &mut BTreeMap<Option<&'a Verdict>, Label>,
    ) -> Label {
        let [only] = spans else {
            let (left, right) = spans.split_at(spans.len() / 2);
            let above = self.tree(program, right, written);
            let below = self.tree(program, left, written);
            return program.jump(Test::AtLeast, right[0].first, above, below);
        };
        // A verdict is written once; a return that has got too far away is written again by the jump to it.
        if let Some(label) = written.get(&only.verdict) {
            return *label;
        }
        let label = match only.verdict {
            None => program.ret(self.default),
            Some(Verdict::Always(action)) => program.ret(*action),
            Some(Verdict::First(rules)) => {
                let otherwise = program.ret(self.default);
                rules.iter().rev().fold(otherwise, |otherwise, rule| {
                    let action = program.ret(rule.action);
                    let all = rule.conditions.iter().rev();
                    all.fold(action, |then, condition| self.condition(program, *condition, then, otherwise))
                })
            }
        };
        written.insert(only.verdict, label);
        label
    }

    /// Go on at `yes` or `no`. A 64-bit argument is compared by halves, the upper one first.
    fn condition(&self, program: &mut Program, condition: Condition, yes: Label, no: Label) -> Label {
        let Condition { index, comparison } = condition;
        let mut number = Compare { program, index, wide: self.arch.wide() };
        match comparison {
            Comparison::Equal(value) => number.equal(u64::MAX, value, yes, no),
            Comparison::NotEqual(value) => number.equal(u64::MAX, value, no, yes),
            Comparison::MaskedEqual { mask, value } => number.equal(mask, value & mask, yes, no),
            Comparison::AtLeast(value) => number.order(Test::AtLeast, value, yes, no),
            Comparison::Greater(value) => number.order(Test::Greater, value, yes, no),
            Comparison::Below(value) => number.order(Test::AtLeast, value, no, yes),
            Comparison::AtMost(value) => number.order(Test::Greater, value, no, yes),
        }
    }
}

fn push<'a>(spans: &mut Vec<Span<'a>>, first: u32, verdict: Option<&'a Verdict>) {
    if let Some(last) = spans.last_mut().filter(|last| last.first == first) {
        last.verdict = verdict;
    } else if spans.last().is_none_or(|last| last.verdict != verdict) {
        spans.push(Span { first, verdict });
    }
}

struct Compare<'a> {
    program: &'a mut Program,
    index: u32,
    wide: bool,
}

impl Compare<'_> {
    fn equal(&mut self, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        let low = self.word(low_word(self.index), mask as u32, value as u32, yes, no);
        if self.wide {
            self.word(high_word(self.index), (mask >> 32) as u32, (value >> 32) as u32, low, no)
        } else {
            low
        }
    }

    fn word(&mut self, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        if mask == 0 {
            return yes;
        }
        let test = self.program.jump(Test::Equal, value, yes, no);
        let masked = if mask == u32::MAX { test } else { self.program.and(mask, test) };
        self.program.load(offset, masked)
    }

    fn order(&mut self, test: Test, value: u64, yes: Label, no: Label) -> Label {
        let low = self.program.jump(test, value as u32, yes, no);
        let low = self.program.load(low_word(self.index), low);
        if !self.wide {
            return low;
        }
        let high = (value >> 32) as u32;
        let equal = self.program.jump(Test::Equal, high, low, no);
        let above = self.program.jump(Test::Greater, high, yes, equal);
        self.program.load(high_word(self.index), above)
    }
}
