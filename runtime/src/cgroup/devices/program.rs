//! The BPF program that decides about devices on cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! It is given `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, where `access_type` is the
//! access in its upper and the kind in its lower half, and returns 1 to allow.

use super::{Access, Devices, Kind, Policy};

/// One eBPF instruction in the kernel's layout (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    pub dst: u8,
    pub src: u8,
    pub offset: i16,
    pub immediate: i32,
}

impl Instruction {
    pub fn to_bytes(self) -> [u8; 8] {
        let [o0, o1] = self.offset.to_ne_bytes();
        let [i0, i1, i2, i3] = self.immediate.to_ne_bytes();
        [self.code, self.src << 4 | self.dst, o0, o1, i0, i1, i2, i3]
    }
}

const LOAD_WORD: u8 = 0x61;
const AND32: u8 = 0x54;
const SHIFT_RIGHT32: u8 = 0x74;
const MOVE32_REGISTER: u8 = 0xbc;
const MOVE32: u8 = 0xb4;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
/// The context is not needed once its fields are loaded.
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, dst, src, offset, immediate }
}

/// The program's bytes, as bpf(2) takes them.
pub fn generate(policy: &Policy) -> Vec<u8> {
    instructions(policy).into_iter().flat_map(Instruction::to_bytes).collect()
}

fn instructions(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(AND32, KIND, 0, 0, 0xffff),
        op(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        op(SHIFT_RIGHT32, ACCESS, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for (devices, access) in &policy.exceptions {
        program.extend(exception(*devices, *access, policy.allow));
    }
    program.extend(answer(policy.allow));
    program
}

fn answer(allow: bool) -> [Instruction; 2] {
    [op(MOVE32, RESULT, 0, 0, i32::from(allow)), op(EXIT, 0, 0, 0, 0)]
}

/// A block that answers if the exception applies, and falls to the next block if not.
fn exception(devices: Devices, access: Access, default: bool) -> Vec<Instruction> {
    let kind = match devices.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let mut block = vec![op(JUMP_NOT_EQUAL, KIND, 0, 0, kind)];
    if access != Access::ALL {
        block.push(op(MOVE32_REGISTER, SCRATCH, ACCESS, 0, 0));
        block.push(op(AND32, SCRATCH, 0, 0, i32::from(access.bits())));
        block.push(if default {
            // Denied access: one letter in common is enough to deny.
            op(JUMP_EQUAL, SCRATCH, 0, 0, 0)
        } else {
            // Allowed access: all that is asked for must be in it.
            op(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0, 0)
        });
    }
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        // A jump compares 64 bits with the sign-extended immediate; device numbers have 20 bits at most.
        block.extend(number.map(|number| op(JUMP_NOT_EQUAL, register, 0, 0, number as i32)));
    }
    block.extend(answer(!default));
    let end = block.len();
    for (at, instruction) in block.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER | JUMP_EQUAL) {
            instruction.offset = (end - at - 1) as i16;
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::super::target;
    use super::*;

    /// Just enough of eBPF to run the programs made here.
    fn run(program: &[Instruction], kind: u32, access: Access, major: u32, minor: u32) -> bool {
        let context = [u32::from(access.bits()) << 16 | kind, major, minor];
        let mut registers = [0u64; 6];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (dst, src) = (usize::from(i.dst), usize::from(i.src));
            let immediate = i64::from(i.immediate) as u64;
            at += 1;
            let jump = match i.code {
                LOAD_WORD => {
                    registers[dst] = u64::from(context[i.offset as usize / 4]);
                    false
                }
                AND32 => {
                    registers[dst] &= immediate & 0xffff_ffff;
                    false
                }
                SHIFT_RIGHT32 => {
                    registers[dst] >>= immediate;
                    false
                }
                MOVE32_REGISTER => {
                    registers[dst] = registers[src];
                    false
                }
                MOVE32 => {
                    registers[dst] = immediate & 0xffff_ffff;
                    false
                }
                JUMP_NOT_EQUAL => registers[dst] != immediate,
                JUMP_NOT_EQUAL_REGISTER => registers[dst] != registers[src],
                JUMP_EQUAL => registers[dst] == immediate,
                EXIT => return registers[0] == 1,
                other => panic!("no such instruction: {other:#x}"),
            };
            if jump {
                at += i.offset as usize;
            }
        }
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;

    #[test]
    fn the_default_devices() {
        let program = instructions(&target(&[]).unwrap());
        for (kind, access, major, minor, allowed) in [
            (CHAR, Access::READ, 1, 3, true),
            (CHAR, Access::ALL, 1, 3, true),
            (CHAR, Access::READ.with(Access::WRITE), 136, 77, true),
            (CHAR, Access::MKNOD, 10, 229, true),
            (CHAR, Access::READ, 10, 229, false),
            (CHAR, Access::MKNOD.with(Access::READ), 10, 229, false),
            (BLOCK, Access::MKNOD, 8, 0, true),
            (BLOCK, Access::READ, 8, 0, false),
            (BLOCK, Access::READ, 1, 3, false),
            (CHAR, Access::READ, 1, 1, false),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), allowed, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn all_but_one_access() {
        let mut policy = Policy::ALLOW_ALL;
        policy.exceptions.insert(Devices { kind: Kind::Block, major: Some(8), minor: None }, Access::WRITE);
        let program = instructions(&policy);
        assert!(run(&program, BLOCK, Access::READ, 8, 1));
        assert!(!run(&program, BLOCK, Access::READ.with(Access::WRITE), 8, 1));
        assert!(run(&program, BLOCK, Access::WRITE, 9, 1));
        assert!(run(&instructions(&Policy::ALLOW_ALL), CHAR, Access::ALL, 9, 9));
        assert!(!run(&instructions(&Policy::DENY_ALL), CHAR, Access::MKNOD, 9, 9));
    }
}
