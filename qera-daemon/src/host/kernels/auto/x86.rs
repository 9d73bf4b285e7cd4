//! The rows of x86-64: what CPUID says of the CPU, and whether the operating system agrees.

use core::arch::x86_64::{__cpuid, __cpuid_count};

use crate::host::kernels::micro::amx::TileUnit;
use crate::host::kernels::micro::amx::probe::{self, TileRefusal};
use crate::host::kernels::{Kernel, PairProducts, Vectors};

/// Every kernel of instructions that this CPU can run.
pub(super) fn here() -> Vec<Kernel> {
    let has = Cpu::here().has;
    let mut found = Vec::new();
    let mut add = |is_here: bool, vectors, pairs| {
        if is_here {
            found.push(Kernel { vectors, pairs });
        }
    };
    add(has.avx2, Vectors::Avx2, None);
    add(has.avx512, Vectors::Avx512, None);
    add(
        has.avx512_bf16,
        Vectors::Avx512,
        Some(PairProducts::Avx512Bf16),
    );
    if let Some(Ok(unit)) = has.tile_unit() {
        add(true, Vectors::Avx512, Some(PairProducts::Amx(unit)));
    }
    found
}

/// The kernel that the table names for this CPU.
pub(super) fn best() -> Kernel {
    Cpu::here().best()
}

/// Why AMX is not to be used, where the CPU has it.
pub(super) fn tile_refusal() -> Option<TileRefusal> {
    Cpu::here().has.tile_unit()?.err()
}

/// Who made the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
    Other,
}

/// Instructions that kernels are made of, where CPU and operating system have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Instructions {
    /// AVX2 and FMA.
    avx2: bool,
    /// AVX-512F, beside AVX2.
    avx512: bool,
    /// AVX512-BF16, beside AVX-512F.
    avx512_bf16: bool,
    /// AMX-TILE and AMX-BF16, beside AVX-512F; whether they may be used is another question.
    amx_bf16: bool,
}

impl Instructions {
    /// What multiplies by AMX, where the CPU has it. The operating system is asked once.
    fn tile_unit(self) -> Option<Result<TileUnit, TileRefusal>> {
        self.amx_bf16.then(probe::usable)
    }
}

/// The facts about a CPU that decide which row of the table applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cpu {
    vendor: Vendor,
    family: u32,
    has: Instructions,
}

impl Cpu {
    /// The one that runs this.
    fn here() -> Self {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2 && is_x86_feature_detected!("avx512f");
        let name = __cpuid(0);
        // Leaf 7, EDX: AMX-BF16 and AMX-TILE.
        let amx_bf16 = name.eax >= 7 && {
            const BOTH: u32 = 1 << 22 | 1 << 24;
            __cpuid_count(7, 0).edx & BOTH == BOTH
        };
        Self {
            vendor: Vendor::named([name.ebx, name.edx, name.ecx]),
            family: family(__cpuid(1).eax),
            has: Instructions {
                avx2,
                avx512,
                avx512_bf16: avx512 && is_x86_feature_detected!("avx512bf16"),
                amx_bf16: avx512 && amx_bf16,
            },
        }
    }

    /// The kernel that the table names, if the operating system allows it.
    fn best(self) -> Kernel {
        let unit = match self.vendor {
            Vendor::Intel => self.has.tile_unit(),
            _ => None,
        };
        self.row(unit.and_then(Result::ok))
    }

    /// The row of the table, with the tiles that may be used.
    const fn row(self, tiles: Option<TileUnit>) -> Kernel {
        let has = self.has;
        let vectors = if has.avx512 {
            Vectors::Avx512
        } else if has.avx2 {
            Vectors::Avx2
        } else {
            Vectors::Portable
        };
        let pairs = match self.vendor {
            Vendor::Intel => match tiles {
                Some(unit) if has.amx_bf16 => Some(PairProducts::Amx(unit)),
                _ => None,
            },
            Vendor::Amd if has.avx512_bf16 && matches!(self.family, 25 | 26) => {
                Some(PairProducts::Avx512Bf16)
            }
            _ => None,
        };
        Kernel { vectors, pairs }
    }
}

impl Vendor {
    /// The vendor, from the twelve characters of CPUID leaf 0 in the order EBX, EDX, ECX.
    fn named(registers: [u32; 3]) -> Self {
        match registers.map(u32::to_le_bytes).as_flattened() {
            b"GenuineIntel" => Self::Intel,
            b"AuthenticAMD" => Self::Amd,
            _ => Self::Other,
        }
    }
}

/// The family in EAX of CPUID leaf 1: where the base family says 15 the extended one is added.
const fn family(signature: u32) -> u32 {
    let base = signature >> 8 & 0xf;
    if base == 15 {
        base + (signature >> 20 & 0xff)
    } else {
        base
    }
}

#[cfg(test)]
mod tests {
    use qera_core::dtype::FloatDtype;

    use super::*;

    const ALL: Instructions = Instructions {
        avx2: true,
        avx512: true,
        avx512_bf16: true,
        amx_bf16: true,
    };

    fn row(vendor: Vendor, signature: u32, has: Instructions, tiles: Option<TileUnit>) -> Kernel {
        let cpu = Cpu {
            vendor,
            family: family(signature),
            has,
        };
        cpu.row(tiles)
    }

    /// What CPUs say of themselves in leaf 1, and what is right for them.
    #[test]
    fn every_row_of_the_table() {
        let without_amx = Instructions {
            amx_bf16: false,
            ..ALL
        };
        let avx512 = Instructions {
            avx512_bf16: false,
            ..without_amx
        };
        let avx2 = Instructions {
            avx512: false,
            ..avx512
        };
        let none = Instructions::default();
        for (what, vendor, signature, has, expected) in [
            (
                "Zen 5",
                Vendor::Amd,
                0x00b0_0f21,
                without_amx,
                "avx512-bf16",
            ),
            (
                "Zen 4",
                Vendor::Amd,
                0x00a1_0f11,
                without_amx,
                "avx512-bf16",
            ),
            ("Zen 3", Vendor::Amd, 0x00a2_0f12, avx2, "avx2"),
            ("Zen 2", Vendor::Amd, 0x0083_0f10, avx2, "avx2"),
            ("an AMD to come", Vendor::Amd, 0x00c0_0f00, ALL, "avx512"),
            (
                "Sapphire Rapids",
                Vendor::Intel,
                0x0008_06f8,
                ALL,
                "amx-bf16",
            ),
            (
                "Granite Rapids",
                Vendor::Intel,
                0x000a_06d1,
                ALL,
                "amx-bf16",
            ),
            (
                "Cooper Lake",
                Vendor::Intel,
                0x0005_065b,
                without_amx,
                "avx512",
            ),
            ("Ice Lake", Vendor::Intel, 0x0006_06a6, avx512, "avx512"),
            ("Alder Lake", Vendor::Intel, 0x0009_0672, avx2, "avx2"),
            ("Westmere", Vendor::Intel, 0x0002_06c2, none, "portable"),
            ("of others", Vendor::Other, 0x00a1_0f11, ALL, "avx512"),
            ("of others", Vendor::Other, 0x0007_0650, avx2, "avx2"),
        ] {
            let found = row(vendor, signature, has, Some(TileUnit::Hardware));
            assert_eq!(found.name(), expected, "{what}");
        }
        // Without permission for tiles.
        let found = row(Vendor::Intel, 0x0008_06f8, ALL, None);
        assert_eq!(found.name(), "avx512");
    }

    /// What is multiplied by what in the row of AMX.
    #[test]
    fn amx_multiplies_what_is_short() {
        let kernel = row(Vendor::Intel, 0x0008_06f8, ALL, Some(TileUnit::Hardware));
        assert_eq!(kernel.name_for(FloatDtype::Bf16), "amx-bf16");
        assert_eq!(kernel.name_for(FloatDtype::F16), "amx-bf16");
        assert_eq!(kernel.name_for(FloatDtype::F32), "avx512");
    }

    #[test]
    fn vendors_and_families_as_cpuid_says_them() {
        let registers = |name: &[u8; 12]| {
            let words = name.as_chunks::<4>().0;
            [0, 1, 2].map(|i: usize| u32::from_le_bytes(words[i]))
        };
        assert_eq!(Vendor::named(registers(b"GenuineIntel")), Vendor::Intel);
        assert_eq!(Vendor::named(registers(b"AuthenticAMD")), Vendor::Amd);
        assert_eq!(Vendor::named(registers(b"HygonGenuine")), Vendor::Other);
        let families = [0x00b0_0f21, 0x00a1_0f11, 0x0008_06f8].map(family);
        assert_eq!(families, [26, 25, 6]);
    }
}
