//! X^T X of bf16 numbers by the tiles of Intel's AMX: 32 x 32 sums of products, in f32.
//!
//! `program` is the list of tile instructions, `hardware` has it run by the CPU, `model` in plain
//! Rust, number by number as Intel's manual defines the instructions; `probe` says whether the CPU
//! can. A product of a block of 16 steps (32 rows) is 4 loads and 4 `tdpbf16ps` of 8,192
//! multiply-adds, each of which the tile unit takes 16 cycles for (Intel, Optimization Reference
//! Manual, chapter on AMX): 16 times the rate of AVX-512 f32 products.
//!
//! Numbers of more than 8 significant bits are split into bf16 parts, and every part is multiplied
//! with every other. f16 numbers have 11 bits: two parts are exact, four products leave 4 times the
//! rate of f32 ones, and two parts are no more to load than f32. (Without lower x lower the sum of
//! squares would lose up to 2^-16, which is more than constant channels may lose.) f32 numbers have
//! 24 bits: three parts, six products that matter, half as much again to pack and load, for at
//! most 2.6 times the rate: they stay f32.
//!
//! Errors: a sum is rounded where 16 products of a step are added (from 0 on, even and odd numbers
//! apart) and once for each of these blocks: over [`SUM_STEPS`] steps, which are 1,024 rows, 32
//! times at its full size, where the vector forms round 512 times.

#[cfg(target_arch = "x86_64")]
mod hardware;
mod model;
#[cfg(target_arch = "x86_64")]
pub(in super::super) mod probe;
mod program;

use qera_core::dtype::FloatDtype;

/// Channels of a product, in rows and in columns.
pub(in super::super) const CHANNELS: usize = 32;
/// Steps (pairs of numbers of a channel) of a block: shorter ones are padded with zeros.
pub(in super::super) const STEPS: usize = 16;
/// Steps that are summed in f32.
pub(in super::super) const SUM_STEPS: usize = 512;

/// Sums of a product: 32 columns for each row.
pub(in super::super) type TileSums = [f32; CHANNELS * CHANNELS];

/// How many bf16 numbers a number is the sum of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum NumberParts {
    /// The number is one bf16 number.
    One,
    /// The number is the sum of an upper and a lower bf16 number.
    Two,
}

impl NumberParts {
    /// The parts of numbers of this type; [`Kernel::multiplies_in_bf16`](super::super::Kernel) says
    /// which types are multiplied so.
    pub(in super::super) const fn of(dtype: FloatDtype) -> Self {
        match dtype {
            FloatDtype::Bf16 => Self::One,
            FloatDtype::F16 | FloatDtype::F32 => Self::Two,
        }
    }

    /// The number of parts.
    pub(in super::super) const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// A unit that runs the program: the CPU's, or one in software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum TileUnit {
    /// The CPU, where [`probe::usable`] found that it can.
    #[cfg(target_arch = "x86_64")]
    Hardware,
    /// Plain Rust: the same bits, hundreds of times as slow.
    Model,
}

/// Tiles that are configured, for as long as this thread multiplies.
#[derive(Debug)]
pub(in super::super) enum TileSession {
    #[cfg(target_arch = "x86_64")]
    Hardware(hardware::Configured),
    Model,
}

impl TileUnit {
    /// Configures the tiles of this thread.
    pub(in super::super) fn session(self) -> TileSession {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Hardware => TileSession::Hardware(hardware::Configured::new()),
            Self::Model => TileSession::Model,
        }
    }
}

impl TileSession {
    /// The sums of products of packed rows `a` and columns `b` over all their blocks: a block of
    /// `a` has for each part two tiles of 16 channels with 16 steps each, one of `b` for each part
    /// 16 steps of 32 channels.
    pub(in super::super) fn product(
        &self,
        parts: NumberParts,
        a: &[u32],
        b: &[u32],
        sums: &mut TileSums,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Hardware(tiles) => tiles.product(parts, a, b, sums),
            Self::Model => model::Registers::product(parts, a, b, sums),
        }
    }
}

/// 4-byte numbers of a block of `a`, and of one of `b`.
#[cfg(target_arch = "x86_64")]
const fn block_length(parts: NumberParts) -> usize {
    CHANNELS * STEPS * parts.count()
}
