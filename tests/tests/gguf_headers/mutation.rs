//! Files that were damaged, by a number.

use qera_core::pseudo_random::SplitMix64;

/// Numbers that lengths, counts and offsets are replaced by.
const EXTREMES: [u64; 16] = [
    0,
    1,
    2,
    7,
    31,
    1 << 16,
    (1 << 18) + 1,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// Draws numbers below others.
struct Draw(SplitMix64);

impl Draw {
    /// Draws one of `0..end`; 0 where the range is empty.
    fn below(&mut self, end: usize) -> usize {
        let drawn = usize::try_from(self.0.next_bits() >> 1).unwrap();
        drawn.checked_rem(end).unwrap_or(0)
    }
}

/// The `number`th damaged form of a file; pieces of `other` are put into it.
pub(crate) fn mutated(file: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    let mut draw = Draw(SplitMix64::new(number));
    let mut bytes = file.to_vec();
    for _ in 0..=draw.below(3) {
        mutate(&mut bytes, other, &mut draw);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], draw: &mut Draw) {
    let at = draw.below(bytes.len());
    let end = at + draw.below((bytes.len() - at).min(64));
    match draw.below(8) {
        0 => {
            for _ in 0..=draw.below(8) {
                let at = draw.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << draw.below(8);
                }
            }
        }
        1..=3 => {
            let width = [4, 8][draw.below(2)];
            let extreme = EXTREMES[draw.below(EXTREMES.len())].to_le_bytes();
            if let Some(number) = bytes.get_mut(at..at + width) {
                number.copy_from_slice(&extreme[..width]);
            }
        }
        4 => bytes.truncate(at),
        5 => {
            bytes.drain(at..end);
        }
        6 => {
            let again = bytes[at..end].to_vec();
            let to = draw.below(bytes.len());
            bytes.splice(to..to, again);
        }
        _ => {
            let from = draw.below(other.len());
            let piece = &other[from..from + draw.below((other.len() - from).min(64))];
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}
