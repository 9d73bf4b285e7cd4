//! Whether this process can multiply by AMX: the CPU has it, the operating system saves its tiles
//! and gives permission, and a small product has the sums that it should.

use std::io;
use std::sync::OnceLock;

use super::{CHANNELS, NumberParts, STEPS, TileSums, TileUnit, block_length};

/// Why AMX is not used on a CPU that has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super::super) enum TileRefusal {
    /// Tiles of another size than any CPU had when this was written.
    #[error("its tiles are not eight of 16 rows of 64 bytes")]
    OtherTiles,
    /// `arch_prctl` said no.
    #[error("the operating system gives no permission for tiles (ARCH_REQ_XCOMP_PERM: {0})")]
    NoPermission(String),
    /// A sum of the trial product.
    #[error(
        "its trial product is wrong: {found} in the place of {expected} in row {row}, column {column}"
    )]
    WrongSum {
        /// The sum that the unit gave.
        found: String,
        /// The sum that is right, exactly.
        expected: String,
        /// The row of the sum.
        row: usize,
        /// The column of the sum.
        column: usize,
    },
}

/// What multiplies by AMX here. Permission is asked for once in a process, and the trial is made
/// once. Called where CPUID has AMX-TILE and AMX-BF16.
///
/// # Errors
/// [`TileRefusal`].
pub(in super::super::super) fn usable() -> Result<TileUnit, TileRefusal> {
    static ANSWER: OnceLock<Result<TileUnit, TileRefusal>> = OnceLock::new();
    ANSWER
        .get_or_init(|| {
            let unit = permitted()?;
            tried(unit)?;
            Ok(unit)
        })
        .clone()
}

#[cfg(target_os = "linux")]
fn permitted() -> Result<TileUnit, TileRefusal> {
    use core::arch::x86_64::__cpuid_count;
    // Linux, arch/x86/include/uapi/asm/prctl.h; the component of the tiles' data.
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // Leaf 0x1d, palette 1: bytes of all tiles and of one; bytes of a row, names; rows.
    let palette = __cpuid_count(0x1d, 1);
    if palette.eax != 1024 << 16 | 8192 || palette.ebx != 8 << 16 | 64 || palette.ecx & 0xffff != 16
    {
        return Err(TileRefusal::OtherTiles);
    }
    // SAFETY: the call takes two numbers and touches no memory of the process.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    if answer == 0 {
        Ok(TileUnit::Hardware)
    } else {
        let error = io::Error::last_os_error();
        Err(TileRefusal::NoPermission(error.to_string()))
    }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> Result<TileUnit, TileRefusal> {
    let error = io::Error::from(io::ErrorKind::Unsupported);
    Err(TileRefusal::NoPermission(error.to_string()))
}

/// A number of the trial: small and whole, so that sums are exact in any order.
fn number(channel: usize, step: usize, part: usize) -> i16 {
    let mixed = (channel * 7 + step * 5 + part * 3 + channel * step) % 15;
    i16::try_from(mixed).unwrap_or_default() - 7
}

/// Two numbers of the trial as a pair of bf16.
fn pair(numbers: [i16; 2]) -> u32 {
    let [low, high] = numbers.map(|x| f32::from(x).to_bits());
    low >> 16 | high
}

/// Multiplies two blocks, whole and split, and looks at every sum.
fn tried(unit: TileUnit) -> Result<(), TileRefusal> {
    const BLOCKS: usize = 2;
    let tiles = unit.session();
    for parts in [NumberParts::One, NumberParts::Two] {
        let count = parts.count();
        // Of a channel at a step of all blocks, in a part: rows of `a` are other channels than
        // columns of `b`.
        let at = |channel, step, part| [0, 1].map(|odd| number(channel, 2 * step + odd, part));
        let length = block_length(parts);
        let mut a = vec![0; BLOCKS * length];
        let mut b = vec![0; BLOCKS * length];
        for step in 0..BLOCKS * STEPS {
            let (block, step_of_block) = (step / STEPS, step % STEPS);
            for part in 0..count {
                let from = block * length + part * CHANNELS * STEPS;
                for channel in 0..CHANNELS {
                    a[from + channel * STEPS + step_of_block] = pair(at(channel, step, part));
                    b[from + step_of_block * CHANNELS + channel] =
                        pair(at(channel + CHANNELS, step, part));
                }
            }
        }
        let mut sums: TileSums = [f32::NAN; CHANNELS * CHANNELS];
        tiles.product(parts, &a, &b, &mut sums);
        for row in 0..CHANNELS {
            for column in 0..CHANNELS {
                // The sum over parts is the number that was split.
                let whole = |channel, step| {
                    let parts = (0..count).map(|part| at(channel, step, part));
                    parts.fold([0; 2], |[x, y], [low, high]| {
                        [x + i32::from(low), y + i32::from(high)]
                    })
                };
                let terms = (0..BLOCKS * STEPS).map(|step| {
                    let [x, y] = whole(row, step);
                    let [u, v] = whole(column + CHANNELS, step);
                    x * u + y * v
                });
                let (found, expected) = (sums[row * CHANNELS + column], terms.sum::<i32>());
                if f64::from(found).to_bits() != f64::from(expected).to_bits() {
                    return Err(TileRefusal::WrongSum {
                        found: found.to_string(),
                        expected: expected.to_string(),
                        row,
                        column,
                    });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_stands_the_trial() {
        assert_eq!(tried(TileUnit::Model), Ok(()));
    }
}
