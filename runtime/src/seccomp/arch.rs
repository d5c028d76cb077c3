//! The architectures a filter can tell apart. x32 shares x86_64's audit number and marks its calls with a bit.

use oci_spec::runtime::Arch as OciArch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    X86_64,
    X32,
    I386,
    Aarch64,
}

/// `__X32_SYSCALL_BIT`
pub const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    pub const ALL: [Self; 4] = [Self::X86_64, Self::X32, Self::I386, Self::Aarch64];

    /// What this program was built for.
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// `None`: an architecture whose calls the kernel of an x86_64 or aarch64 machine never makes, or makes only in a
    /// mode we have no table for (32-bit ARM). Leaving it out of a filter kills a process that makes such a call.
    pub fn from_oci(arch: OciArch) -> Option<Self> {
        match arch {
            OciArch::ScmpArchNative => Some(Self::native()),
            OciArch::ScmpArchX86_64 => Some(Self::X86_64),
            OciArch::ScmpArchX32 => Some(Self::X32),
            OciArch::ScmpArchX86 => Some(Self::I386),
            OciArch::ScmpArchAarch64 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*`, what `seccomp_data.arch` holds.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// What its numbers have set in `seccomp_data.nr`.
    pub const fn bit(self) -> u32 {
        match self {
            Self::X32 => X32_BIT,
            _ => 0,
        }
    }

    /// Arguments have 64 significant bits.
    pub const fn wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }
}
