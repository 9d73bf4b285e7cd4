//! The tile program, run by the CPU: one piece of assembly for a whole product, so that nothing
//! but it has numbers in tiles.

use core::arch::asm;
use core::marker::PhantomData;

use super::program::{A_STRIDE, B_STRIDE, program};
use super::{NumberParts, TileSums, block_length};

/// A part of the program as text.
macro_rules! assembled {
    ($(($($instruction:tt)+))*) => { concat!($(assembled!(@ $($instruction)+), "\n"),*) };
    (@ zero $tile:literal) => { concat!("tilezero tmm", $tile) };
    (@ load $tile:literal a $offset:literal) => {
        concat!("tileloadd tmm", $tile, ", [{a} + {a_stride} + ", $offset, "]")
    };
    (@ load $tile:literal b $offset:literal) => {
        concat!("tileloadd tmm", $tile, ", [{b} + {b_stride} + ", $offset, "]")
    };
    (@ dot $sums:literal $a:literal $b:literal) => {
        concat!("tdpbf16ps tmm", $sums, ", tmm", $a, ", tmm", $b)
    };
    (@ store $tile:literal $offset:literal) => {
        concat!("tilestored [{sums} + {b_stride} + ", $offset, "], tmm", $tile)
    };
}

/// Runs the program with `$step` for each block.
macro_rules! run {
    ($step:ident, $a:expr, $b:expr, $blocks:expr, $length:expr, $sums:expr) => {
        asm!(
            program!(begin, assembled),
            "2:",
            program!($step, assembled),
            "add {a}, {length}",
            "add {b}, {length}",
            "dec {blocks}",
            "jnz 2b",
            program!(end, assembled),
            a = inout(reg) $a => _,
            b = inout(reg) $b => _,
            blocks = inout(reg) $blocks => _,
            length = in(reg) $length,
            a_stride = in(reg) A_STRIDE,
            b_stride = in(reg) B_STRIDE,
            sums = in(reg) $sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfiguration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_rows: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: TileConfiguration = TileConfiguration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_rows: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tiles of this thread, configured until this is dropped. It stays on its thread.
#[derive(Debug)]
pub(in super::super::super) struct Configured(PhantomData<*const ()>);

impl Configured {
    /// Called where AMX was found, and permission given, only: through
    /// [`TileUnit::Hardware`](super::TileUnit), which [`probe`](super::probe) gives out.
    pub(super) fn new() -> Self {
        // SAFETY: the CPU has AMX and the process the permission to use it; the instruction reads
        // the 64 bytes behind the pointer, and changes nothing but the tiles, in which nobody has
        // numbers.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const CONFIGURATION,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self(PhantomData)
    }

    /// See [`TileSession::product`](super::TileSession::product).
    pub(super) fn product(&self, parts: NumberParts, a: &[u32], b: &[u32], sums: &mut TileSums) {
        let length = block_length(parts);
        let blocks = (a.len() / length).min(b.len() / length);
        if blocks == 0 {
            sums.fill(0.0);
            return;
        }
        let (a, b, sums, length) = (a.as_ptr(), b.as_ptr(), sums.as_mut_ptr(), 4 * length);
        match parts {
            // SAFETY: the tiles of this thread are configured as 16 rows of 64 bytes for as long as
            // `self` is. Loads are of the blocks that both slices have, `length` bytes each: of `a`
            // 16 rows A_STRIDE apart from 0 and 1024 on, of `b` B_STRIDE apart from 0 and 64 on.
            // Stores are of 16 rows B_STRIDE apart from 0, 64, 2048 and 2112 on: all of the sums.
            NumberParts::One => unsafe { run!(whole, a, b, blocks, length, sums) },
            // SAFETY: the same, and from 2048 bytes on the same again, in blocks twice as long.
            NumberParts::Two => unsafe { run!(split, a, b, blocks, length, sums) },
        }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: as for `ldtilecfg`; the tiles go back to their first state, which lets the
        // operating system save less and the core rest deeper.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}
