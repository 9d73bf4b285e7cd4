//! MXINT in packed form: a stream of code bits, and a byte for each shared exponent.
//!
//! Codes are two's complement integers of w bits, never the most negative one; element c of a row
//! takes its bits from c w on, least significant first, and every row starts at a whole byte.
//! Shared exponents are E8M0 bytes, e + 127, one a block, rows one after the other. Decoding gives
//! the quantized numbers, except that -0 becomes 0. Average size: w + 8 / block_size bits an
//! element.
//!
//! Cost: one pass; the codes of a row are written or read as one stream of bits. Error: none beyond
//! the quantization. Source: OCP Microscaling Formats v1.0, 5.2 (E8M0); the order of the bits is
//! this crate's.

use super::super::bit_stream::{Packer, Unpacker, row_len, sign_extended};
use super::super::blocks::{check_length, check_rows, non_finite};
use super::super::error::GridError;
use super::super::levels::Levels;
use super::{Mxint, shared_exponent_field};

impl Mxint {
    /// Says how many bytes the codes of a weight take: every row its own whole bytes.
    ///
    /// ```
    /// # use qera_core::quantize::Mxint;
    /// assert_eq!(Mxint::new(3, 32)?.codes_len(2, 33), 2 * 13); // 33 x 3 bits are 12.4 bytes
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    #[must_use]
    pub const fn codes_len(&self, out_features: usize, in_features: usize) -> usize {
        out_features.saturating_mul(row_len(in_features, self.element_bits))
    }

    /// Says how many bytes the shared exponents of a weight take: one a block.
    ///
    /// ```
    /// # use qera_core::quantize::Mxint;
    /// assert_eq!(Mxint::new(3, 32)?.exponents_len(2, 33), 2 * 2);
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    #[must_use]
    pub const fn exponents_len(&self, out_features: usize, in_features: usize) -> usize {
        out_features.saturating_mul(in_features.div_ceil(self.block_size))
    }

    /// Quantizes a weight to its packed form.
    ///
    /// # Shapes
    /// `weight` is `[out_features, in_features]`, row-major; `codes` holds
    /// [`codes_len`](Self::codes_len) bytes and `exponents` [`exponents_len`](Self::exponents_len).
    ///
    /// # Errors
    /// As [`quantize_dequantize`](Self::quantize_dequantize).
    ///
    /// ```
    /// use qera_core::quantize::Mxint;
    /// let (mut codes, mut exponents, mut out) = ([0; 2], [0; 1], [0.0; 4]);
    /// let mxint4 = Mxint::new(4, 4)?;
    /// mxint4.encode(&[0.1, -0.25, 0.3, 0.9], 4, &mut codes, &mut exponents)?;
    /// assert_eq!((codes, exponents), ([0xe1, 0x72], [126])); // 1, -2, 2, 7 times 2^(126 - 127 - 2)
    /// mxint4.decode(&codes, &exponents, 4, &mut out)?;
    /// assert_eq!(out, [0.125, -0.25, 0.25, 0.875]);
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    pub fn encode(
        &self,
        weight: &[f32],
        in_features: usize,
        codes: &mut [u8],
        exponents: &mut [u8],
    ) -> Result<(), GridError> {
        self.check_packed(weight.len(), in_features, codes, exponents)?;
        let code_rows = codes.chunks_exact_mut(self.codes_len(1, in_features));
        let exponent_rows = exponents.chunks_exact_mut(self.exponents_len(1, in_features));
        let rows = weight
            .chunks_exact(in_features)
            .zip(code_rows.zip(exponent_rows));
        for (row, (values, (codes, exponents))) in rows.enumerate() {
            let mut packer = Packer::new(codes, self.element_bits);
            for (block, exponent) in values.chunks(self.block_size).zip(exponents) {
                let Some(exponent_field) = shared_exponent_field(block) else {
                    return Err(non_finite(row, values));
                };
                *exponent = exponent_field;
                let scale = self.scale(exponent_field);
                for &x in block {
                    packer.push(scale.code(x).cast_unsigned());
                }
            }
            packer.finish();
        }
        Ok(())
    }

    /// Writes the numbers that a packed form stands for.
    ///
    /// # Shapes
    /// `out` is `[out_features, in_features]`, row-major; `codes` and `exponents` as
    /// [`encode`](Self::encode) fills them.
    ///
    /// # Errors
    /// [`GridError::Length`], [`GridError::OutputLength`] (of `codes` or `exponents`, for this
    /// `out`), and for bytes that `encode` never writes: [`GridError::Code`] for the most negative
    /// code, [`GridError::SharedExponent`] for 255, which is E8M0's NaN. `out` then holds
    /// unspecified numbers.
    pub fn decode(
        &self,
        codes: &[u8],
        exponents: &[u8],
        in_features: usize,
        out: &mut [f32],
    ) -> Result<(), GridError> {
        self.check_packed(out.len(), in_features, codes, exponents)?;
        let code_rows = codes.chunks_exact(self.codes_len(1, in_features));
        let exponent_rows = exponents.chunks_exact(self.exponents_len(1, in_features));
        let rows = out
            .chunks_exact_mut(in_features)
            .zip(code_rows.zip(exponent_rows));
        for (row, (values, (codes, exponents))) in rows.enumerate() {
            let mut unpacker = Unpacker::new(codes, self.element_bits);
            for (block, (values, &exponent)) in values
                .chunks_mut(self.block_size)
                .zip(exponents)
                .enumerate()
            {
                if exponent == u8::MAX {
                    return Err(GridError::SharedExponent { row, block });
                }
                let [first, second] = self.scale(exponent).from_integer;
                for (place, value) in values.iter_mut().enumerate() {
                    let code = sign_extended(unpacker.next(), self.element_bits);
                    if code < -self.largest_code() {
                        return Err(GridError::Code {
                            row,
                            column: block * self.block_size + place,
                        });
                    }
                    *value = f32::from(code) * first * second;
                }
            }
        }
        Ok(())
    }

    /// Refuses values that are not whole rows, and codes or exponents whose number does not fit the
    /// values.
    fn check_packed(
        &self,
        values: usize,
        in_features: usize,
        codes: &[u8],
        exponents: &[u8],
    ) -> Result<(), GridError> {
        check_rows(values, in_features)?;
        let out_features = values / in_features;
        check_length(self.codes_len(out_features, in_features), codes.len())?;
        check_length(
            self.exponents_len(out_features, in_features),
            exponents.len(),
        )
    }

    /// Writes the shared exponent of these levels, or returns `false` if no block has such levels.
    pub(in super::super) fn write_exponent(&self, levels: &Levels, exponent: &mut [u8]) -> bool {
        let shared = libm::ilogbf(levels.step).saturating_add(self.element_bits.cast_signed() - 2);
        let field = u8::try_from(shared.saturating_add(127)).unwrap_or(u8::MAX);
        exponent.fill(field);
        self.read_exponent(exponent) == Some(*levels)
    }

    /// Returns the levels of a shared exponent, or `None` for the NaN of E8M0.
    pub(in super::super) fn read_exponent(&self, exponent: &[u8]) -> Option<Levels> {
        let field = exponent.first().filter(|&&field| field < u8::MAX)?;
        Some(self.levels(*field))
    }
}
