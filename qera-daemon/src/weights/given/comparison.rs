//! Compares W~ with W, on as many columns at a time as there are idle cores.

use crate::host::cores::Cores;
use crate::weights::decode_check::{DecodeCheck, DecodeSums};
use crate::weights::given::tensor::{GivenError, GivenTensor};

/// Numbers that are decoded at a time, in whole rows.
pub(crate) const DECODED: usize = 1 << 16;

/// Some columns of W, and the result of comparing them with W~.
struct Compared<'a> {
    first: usize,
    original: &'a [f32],
    sums: Result<DecodeSums, GivenError>,
}

/// How much W~ differs from W, which is given by columns.
///
/// # Errors
/// [`GivenError`] for a number that is not finite.
pub(crate) fn compare(
    of: &GivenTensor,
    original: &[f32],
    cores: &Cores,
) -> Result<DecodeCheck, GivenError> {
    let m = of.in_features();
    let columns = (DECODED / m).max(1);
    let pieces = original.chunks(columns * m).enumerate();
    let mut pieces: Vec<Compared<'_>> = pieces
        .map(|(piece, original)| Compared {
            first: piece * columns,
            original,
            sums: Ok(DecodeSums::default()),
        })
        .collect();
    cores.spread(pieces.iter_mut().collect(), |piece| {
        let mut values = vec![0.0; piece.original.len()];
        piece.sums = of.columns(piece.first, &mut values).map(|()| {
            let mut sums = DecodeSums::default();
            let rows = piece.original.chunks(m).zip(values.chunks(m));
            for (row, (original, quantized)) in rows.enumerate() {
                sums.add_row(piece.first + row, original, quantized);
            }
            sums
        });
    });
    let mut all = DecodeSums::default();
    for piece in pieces {
        all.merge(&piece.sums?);
    }
    Ok(all.check())
}
