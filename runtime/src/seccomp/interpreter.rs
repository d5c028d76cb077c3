//! Runs a filter as the kernel would: for tests.

use corten_sys::seccomp::Instruction;

/// The action for a call. Panics where the kernel's checker would refuse the program.
pub fn run(program: &[Instruction], number: u32, arch: u32, arguments: [u64; 6]) -> u32 {
    let mut data = vec![number, arch, 0, 0];
    data.extend(arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
    let (mut a, mut at) = (0u32, 0usize);
    loop {
        let i = program[at];
        at += 1;
        let test = match i.code {
            0x20 => {
                a = data[i.operand as usize / 4];
                continue;
            }
            0x54 => {
                a &= i.operand;
                continue;
            }
            0x05 => {
                at += i.operand as usize;
                continue;
            }
            0x06 => return i.operand,
            0x15 => a == i.operand,
            0x25 => a > i.operand,
            0x35 => a >= i.operand,
            0x45 => a & i.operand != 0,
            other => panic!("no such instruction: {other:#x}"),
        };
        at += usize::from(if test { i.jump_true } else { i.jump_false });
    }
}
