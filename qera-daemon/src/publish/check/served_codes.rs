//! A weight of a packed base, decoded.

use qera_core::dtype::decode_weights;
use safetensors::Dtype;

use crate::formats::compressed_tensors::scheme::{PACKED, PackShape, SCALE, ZERO_POINT};
use crate::formats::compressed_tensors::words::unpack_row;
use crate::formats::safetensors::header::float_dtype;
use crate::publish::packed_base::record::PackedRecord;
use crate::weights::checkpoint::{Checkpoint, Tensor};

/// The packed tensors of a module.
#[derive(Debug)]
pub(crate) struct ServedCodes<'a> {
    /// The weight's shape.
    pub(crate) shape: PackShape,
    bits: u32,
    group_size: usize,
    codes: &'a [u8],
    scales: Vec<f32>,
    zero_points: Option<&'a [u8]>,
}

impl<'a> ServedCodes<'a> {
    /// The tensors of a module; `None` where some are missing, or differ from what the record says.
    #[must_use]
    pub(crate) fn of(
        checkpoint: &'a Checkpoint,
        record: &PackedRecord,
        module: &str,
    ) -> Option<Self> {
        let tensor = |part: &str| checkpoint.tensors.get(&format!("{module}.{part}"));
        let (packed, scale) = (tensor(PACKED)?, tensor(SCALE)?);
        let (bits, group_size) = (record.bits, record.group_size);
        let words = packed_words(packed)?;
        let shape = PackShape {
            in_features: words.columns * 32 / bits as usize,
            out_features: words.rows,
        };
        let groups = shape.in_features / group_size;
        let mut scales = vec![0.0; words.rows * groups];
        let stored = checkpoint.bytes(scale);
        decode_weights(stored, float_dtype(scale.dtype)?, &mut scales).ok()?;
        let zero_points = match record.zero_points {
            true => Some(checkpoint.bytes(tensor(ZERO_POINT)?)),
            false => None,
        };
        let fits = scale.shape == [words.rows, groups]
            && zero_points.is_none_or(|of| of.len() == words.rows / 8 * groups * 4);
        fits.then(|| Self {
            shape,
            bits,
            group_size,
            codes: checkpoint.bytes(packed),
            scales,
            zero_points,
        })
    }

    /// Decodes the first numbers of a row.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let width = self.codes.len() / self.shape.out_features;
        let groups = self.shape.in_features / self.group_size;
        let mut codes = vec![0; out.len()];
        unpack_row(&self.codes[row * width..][..width], self.bits, &mut codes);
        for (group, of_group) in out.chunks_mut(self.group_size).enumerate() {
            let scale = self.scales[row * groups + group];
            let zero = self.zero_point(row, group, groups);
            let codes = &codes[group * self.group_size..];
            for (value, code) in of_group.iter_mut().zip(codes) {
                *value = (f32::from(*code) - zero) * scale;
            }
        }
    }

    /// The code that stands for 0.
    fn zero_point(&self, row: usize, group: usize, groups: usize) -> f32 {
        let Some(words) = self.zero_points else {
            return if self.bits == 4 { 8.0 } else { 128.0 };
        };
        let mut of_rows = [0; 8];
        unpack_row(
            &words[(row / 8 * groups + group) * 4..][..4],
            4,
            &mut of_rows,
        );
        f32::from(of_rows[row % 8])
    }
}

/// How many rows there are, and how many words each takes.
struct PackedRows {
    rows: usize,
    columns: usize,
}

fn packed_words(tensor: &Tensor) -> Option<PackedRows> {
    match tensor.shape[..] {
        [rows, columns] if tensor.dtype == Dtype::I32 => Some(PackedRows { rows, columns }),
        _ => None,
    }
}
