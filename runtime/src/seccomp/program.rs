//! A classic BPF program, written from its end to its beginning: what a jump leads to exists already, so every offset
//! is known when the jump is written.

use corten_sys::seccomp::Instruction;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54;
const ALWAYS: u16 = 0x05;
const RETURN: u16 = 0x06;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    Equal = 0x15,
    Greater = 0x25,
    AtLeast = 0x35,
}

/// An instruction that is written already, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

#[derive(Debug, Default)]
pub struct Program {
    reversed: Vec<Instruction>,
}

impl Program {
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    pub fn ret(&mut self, action: u32) -> Label {
        self.push(RETURN, 0, 0, action)
    }

    /// Load the word at `offset` of `struct seccomp_data`, then go on at `next`.
    pub fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(LOAD, 0, 0, offset)
    }

    pub fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(AND, 0, 0, mask)
    }

    pub fn jump(&mut self, test: Test, operand: u32, if_true: Label, if_false: Label) -> Label {
        if if_true == if_false {
            return if_true;
        }
        let (mut if_true, mut if_false) = (if_true, if_false);
        // Conditional jumps reach 255 instructions: what lies farther gets an unconditional one in between. Making one
        // moves the other target away by one more, hence the room left for it.
        if self.distance(if_true) > 254 {
            if_true = self.relay(if_true);
        }
        if self.distance(if_false) > 255 {
            if_false = self.relay(if_false);
        }
        let (jump_true, jump_false) = (self.distance(if_true) as u8, self.distance(if_false) as u8);
        self.push(test as u16, jump_true, jump_false, operand)
    }

    fn relay(&mut self, target: Label) -> Label {
        let target_instruction = self.reversed[target.0];
        if target_instruction.code == RETURN {
            return self.ret(target_instruction.operand);
        }
        let distance = self.distance(target) as u32;
        self.push(ALWAYS, 0, 0, distance)
    }

    /// What is written next runs into the instruction written last; lead it on if that is not `next`.
    fn fall_to(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.relay(next);
        }
    }

    /// How many instructions an instruction written now would skip to get to `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target.0
    }

    fn push(&mut self, code: u16, jump_true: u8, jump_false: u8, operand: u32) -> Label {
        self.reversed.push(Instruction { code, jump_true, jump_false, operand });
        Label(self.reversed.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpreter::run;
    use super::*;

    #[test]
    fn far_targets_are_reached() {
        let mut program = Program::default();
        let far_a = program.ret(1);
        let far_b = program.load(4, far_a);
        let mut last = program.ret(9);
        for number in 1000..1600 {
            let miss = last;
            let hit = program.ret(number);
            last = program.jump(Test::Equal, number, hit, miss);
        }
        let start = program.jump(Test::Greater, 5000, far_b, last);
        program.load(0, start);
        let program = program.finish();
        for (number, action) in [(6000, 1), (1000, 1000), (1599, 1599), (3, 9)] {
            assert_eq!(run(&program, number, 0, [0; 6]), action, "{number}");
        }
    }
}
