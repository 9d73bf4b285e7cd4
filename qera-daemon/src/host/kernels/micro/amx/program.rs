//! The tile program: what the CPU runs and what the model interprets, from one list.
//!
//! A product takes 32 channels in rows (A) and 32 in columns (B), two tiles each, and sums 32 x 32
//! products over all steps in tiles 0 to 3. Offsets are in bytes. A block of 16 steps is 2 KiB of
//! A, one tile after the other, and 2 KiB of B, whose rows are both tiles side by side. Numbers
//! that were split have a block of the upper parts and then one of the lower parts.

/// Bytes from row to row of a tile of A.
pub(super) const A_STRIDE: usize = 64;
/// Bytes from row to row of a tile of B, and of the sums.
pub(super) const B_STRIDE: usize = 128;

/// Gives a part of the program to the macro `$to`, an instruction in each pair of parentheses.
macro_rules! program {
    (begin, $to:ident) => {
        $to! { (zero 0) (zero 1) (zero 2) (zero 3) }
    };
    // One block of 16 steps.
    (whole, $to:ident) => {
        $to! {
            (load 4 a 0) (load 6 b 0) (load 7 b 64) (load 5 a 1024)
            (dot 0 4 6) (dot 1 4 7) (dot 2 5 6) (dot 3 5 7)
        }
    };
    // One block of 16 steps of split numbers: upper x upper, upper x lower, lower x lower,
    // lower x upper, so that each load serves two of them.
    (split, $to:ident) => {
        $to! {
            (load 4 a 0) (load 6 b 0) (load 7 b 64) (load 5 a 1024)
            (dot 0 4 6) (dot 1 4 7) (dot 2 5 6) (dot 3 5 7)
            (load 6 b 2048) (load 7 b 2112)
            (dot 0 4 6) (dot 1 4 7) (dot 2 5 6) (dot 3 5 7)
            (load 4 a 2048) (load 5 a 3072)
            (dot 0 4 6) (dot 1 4 7) (dot 2 5 6) (dot 3 5 7)
            (load 6 b 0) (load 7 b 64)
            (dot 0 4 6) (dot 1 4 7) (dot 2 5 6) (dot 3 5 7)
        }
    };
    (end, $to:ident) => {
        $to! { (store 0 0) (store 1 64) (store 2 2048) (store 3 2112) }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use program;

/// An instruction, for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TileInstruction {
    /// All numbers of a tile become 0.
    Zero(usize),
    /// Loads a tile of A from an offset.
    LoadA(usize, usize),
    /// Loads a tile of B from an offset.
    LoadB(usize, usize),
    /// `tdpbf16ps`: the sums, A and B.
    Dot(usize, usize, usize),
    /// Stores a tile of sums at an offset.
    Store(usize, usize),
}

/// A part of the program as a list.
macro_rules! listed {
    ($(($($instruction:tt)+))*) => { &[$(listed!(@ $($instruction)+)),*] };
    (@ zero $tile:literal) => { TileInstruction::Zero($tile) };
    (@ load $tile:literal a $offset:literal) => { TileInstruction::LoadA($tile, $offset) };
    (@ load $tile:literal b $offset:literal) => { TileInstruction::LoadB($tile, $offset) };
    (@ dot $sums:literal $a:literal $b:literal) => { TileInstruction::Dot($sums, $a, $b) };
    (@ store $tile:literal $offset:literal) => { TileInstruction::Store($tile, $offset) };
}

pub(super) const BEGIN: &[TileInstruction] = program!(begin, listed);
pub(super) const WHOLE: &[TileInstruction] = program!(whole, listed);
pub(super) const SPLIT: &[TileInstruction] = program!(split, listed);
pub(super) const END: &[TileInstruction] = program!(end, listed);
