//! The tile instructions in plain Rust, as Intel's manual defines them (Software Developer's
//! Manual, volume 2, TILELOADD, TDPBF16PS, TILESTORED): the oracle of the hardware, and what runs
//! the program where there is none.
//!
//! `tdpbf16ps` sums the even and the odd numbers of the pairs apart, each by fused multiply-adds
//! from 0 on, adds the two, and adds that to the tile. Every step rounds to nearest, ties to even,
//! takes subnormal numbers for 0 and makes a subnormal result 0; no exception is raised.

use super::program::{A_STRIDE, B_STRIDE, BEGIN, END, SPLIT, TileInstruction, WHOLE};
use super::{NumberParts, STEPS, TileSums};

/// Rows of a tile.
const ROWS: usize = 16;
/// 4-byte numbers of a row of a tile.
const WORDS: usize = 16;

type TileRegister = [[u32; WORDS]; ROWS];

/// The eight tiles.
#[derive(Debug)]
pub(super) struct Registers([TileRegister; 8]);

impl Registers {
    /// Runs the program over all blocks of `a` and `b`.
    pub(super) fn product(parts: NumberParts, a: &[u32], b: &[u32], sums: &mut TileSums) {
        let mut registers = Self([[[0; WORDS]; ROWS]; 8]);
        let (step, length) = match parts {
            NumberParts::One => (WHOLE, 2 * STEPS * WORDS),
            NumberParts::Two => (SPLIT, 4 * STEPS * WORDS),
        };
        registers.run(BEGIN, a, b, sums);
        for (a, b) in a.chunks_exact(length).zip(b.chunks_exact(length)) {
            registers.run(step, a, b, sums);
        }
        registers.run(END, a, b, sums);
    }

    fn run(&mut self, program: &[TileInstruction], a: &[u32], b: &[u32], sums: &mut TileSums) {
        for instruction in program {
            match *instruction {
                TileInstruction::Zero(tile) => self.0[tile] = [[0; WORDS]; ROWS],
                TileInstruction::LoadA(tile, offset) => self.load(tile, a, offset, A_STRIDE),
                TileInstruction::LoadB(tile, offset) => self.load(tile, b, offset, B_STRIDE),
                TileInstruction::Dot(sums, a, b) => self.dot(sums, a, b),
                TileInstruction::Store(tile, offset) => {
                    for (row, words) in self.0[tile].iter().enumerate() {
                        let at = (offset + row * B_STRIDE) / 4;
                        for (sum, bits) in sums[at..at + WORDS].iter_mut().zip(words) {
                            *sum = f32::from_bits(*bits);
                        }
                    }
                }
            }
        }
    }

    fn load(&mut self, tile: usize, from: &[u32], offset: usize, stride: usize) {
        for (row, words) in self.0[tile].iter_mut().enumerate() {
            let at = (offset + row * stride) / 4;
            words.copy_from_slice(&from[at..at + WORDS]);
        }
    }

    fn dot(&mut self, sums: usize, a: usize, b: usize) {
        let (a, b) = (self.0[a], self.0[b]);
        let b = b.map(|row| [RowOfB::new(row.map(low)), RowOfB::new(row.map(high))]);
        for (sums, a) in self.0[sums].iter_mut().zip(a) {
            let [mut even, mut odd] = [[0.0; WORDS]; 2];
            for (pair, [lows, highs]) in a.into_iter().zip(&b) {
                lows.multiply_add(&mut even, low(pair));
                highs.multiply_add(&mut odd, high(pair));
            }
            for ((sum, even), odd) in sums.iter_mut().zip(even).zip(odd) {
                let both = flushed(even + odd);
                *sum = flushed(f32::from_bits(*sum) + both).to_bits();
            }
        }
    }
}

/// The even number of a pair.
fn low(pair: u32) -> f32 {
    flushed(f32::from_bits(pair << 16))
}

/// The odd one.
fn high(pair: u32) -> f32 {
    flushed(f32::from_bits(pair & 0xffff_0000))
}

/// Bits of the exponent.
const EXPONENT: u32 = 0x7f80_0000;

/// 0 in the place of a subnormal number.
fn flushed(x: f32) -> f32 {
    let bits = x.to_bits();
    let kept = if bits & EXPONENT == 0 { 1 << 31 } else { !0 };
    f32::from_bits(bits & kept)
}

/// Numbers of a row of B, and how large they are.
struct RowOfB {
    numbers: [f32; WORDS],
    /// The least but 0, and the largest.
    least: f32,
    largest: f32,
}

impl RowOfB {
    fn new(numbers: [f32; WORDS]) -> Self {
        let sizes = numbers.map(f32::abs).into_iter();
        Self {
            numbers,
            least: sizes.clone().filter(|y| *y > 0.0).fold(f32::MAX, f32::min),
            largest: sizes.fold(0.0, f32::max),
        }
    }

    /// Adds the products with x to each sum, rounded once.
    fn multiply_add(&self, sums: &mut [f32; WORDS], x: f32) {
        // The product of two bf16 numbers has 16 bits: where it is a normal f32 number it is exact,
        // and so is 0.
        let is_exact = x.abs() * self.least >= f32::MIN_POSITIVE || x == 0.0;
        if is_exact && (x * self.largest).is_finite() {
            for (sum, y) in sums.iter_mut().zip(&self.numbers) {
                *sum = flushed(*sum + x * y);
            }
        } else {
            for (sum, y) in sums.iter_mut().zip(&self.numbers) {
                *sum = fused(x, *y, *sum);
            }
        }
    }
}

/// x y + sum, rounded once, also where the product is below the smallest normal number.
fn fused(x: f32, y: f32, sum: f32) -> f32 {
    // A result is subnormal if it is so rounded to 24 bits: the largest of these is 2^-126 -
    // 2^-150, and what lies half way to 2^-126 or beyond becomes that.
    const HALF_WAY: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);
    let exact = f64::from(x) * f64::from(y) + f64::from(sum);
    let rounded = x.mul_add(y, sum);
    if exact.abs() < HALF_WAY {
        0.0_f32.copysign(rounded)
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// The sum of the products of the pairs of a channel in rows with those of one in columns: bits
    /// of an f32.
    fn sum(a: &[[f32; 2]], b: &[[f32; 2]]) -> u32 {
        let pair = |[even, odd]: [f32; 2]| {
            let bits = |x| u32::from(bf16::from_f32(x).to_bits());
            bits(even) | bits(odd) << 16
        };
        let mut packed = [[0; 2 * STEPS * WORDS]; 2];
        for (step, (a, b)) in a.iter().zip(b).enumerate() {
            packed[0][step] = pair(*a);
            packed[1][step * 2 * WORDS] = pair(*b);
        }
        let mut sums = [f32::NAN; 4 * ROWS * WORDS];
        Registers::product(NumberParts::One, &packed[0], &packed[1], &mut sums);
        assert!(
            sums[1..].iter().all(|sum| sum.to_bits() == 0),
            "no other channel"
        );
        sums[0].to_bits()
    }

    /// 2^24 + 1 is no f32 number: ones that meet 2^24 one by one are lost, a sum of them is not.
    #[test]
    fn even_and_odd_numbers_are_summed_apart() {
        let large = 16_777_216.0;
        let ones = [[1.0, 1.0]; STEPS];
        let mut first_even = ones;
        first_even[0] = [large, 1.0];
        assert_eq!(sum(&first_even, &ones), (large + 16.0_f32).to_bits());
        let mut last_even = ones;
        last_even[15] = [large, 1.0];
        // 15 + 2^24 is rounded to the even 2^24 + 16, and 16 more are added.
        assert_eq!(sum(&last_even, &ones), (large + 32.0_f32).to_bits());
    }

    #[test]
    fn what_is_below_the_smallest_normal_number_is_zero() {
        let smallest = f32::MIN_POSITIVE;
        for (x, y, expected) in [
            (smallest, 1.0, smallest),
            (smallest, 0.5, 0.0_f32),
            (smallest / 2.0, 4.0, 0.0),
            (1e-30, 1e-30, 0.0),
        ] {
            let found = sum(&[[x, 0.0]], &[[y, 0.0]]);
            assert_eq!(found, expected.to_bits(), "{x:e} {y:e}");
        }
        // 2^-126 + 2^-127, and 2^-126 less 2^-127: rounded once, from the exact product.
        let half = [[smallest, 0.0], [smallest, 0.0]];
        let more = sum(&half, &[[1.0, 0.0], [0.5, 0.0]]);
        assert_eq!(more, (smallest * 1.5).to_bits());
        assert_eq!(sum(&half, &[[1.0, 0.0], [-0.5, 0.0]]), 0);
    }
}
