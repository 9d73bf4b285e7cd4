//! Codes of 2 to 8 bits as one stream: least significant bit first, a row in whole bytes.

/// Says how many bytes the codes of a row take.
pub(super) const fn row_len(in_features: usize, element_bits: u32) -> usize {
    let bits = element_bits as usize;
    // 8 elements take `bits` bytes; so no product exceeds the result.
    in_features / 8 * bits + (in_features % 8 * bits).div_ceil(8)
}

/// Reads the lowest bits of a byte as a two's complement integer.
pub(super) const fn sign_extended(code: u8, element_bits: u32) -> i8 {
    // Shifting left and back extends the sign.
    let unused = 8 - element_bits;
    (code << unused).cast_signed() >> unused
}

/// Writes codes into bytes.
pub(super) struct Packer<'a> {
    bytes: core::slice::IterMut<'a, u8>,
    element_bits: u32,
    pending: u32,
    filled: u32,
}

impl<'a> Packer<'a> {
    pub(super) fn new(bytes: &'a mut [u8], element_bits: u32) -> Self {
        Self {
            bytes: bytes.iter_mut(),
            element_bits,
            pending: 0,
            filled: 0,
        }
    }

    /// Writes the lowest bits of `code`.
    pub(super) fn push(&mut self, code: u8) {
        let bits = u32::from(code) & ((1 << self.element_bits) - 1);
        self.pending |= bits << self.filled;
        self.filled += self.element_bits;
        if self.filled >= 8 {
            self.write_byte();
        }
    }

    pub(super) fn finish(&mut self) {
        if self.filled > 0 {
            self.write_byte();
        }
    }

    fn write_byte(&mut self) {
        if let Some(byte) = self.bytes.next() {
            *byte = self.pending.to_le_bytes()[0];
        }
        self.pending >>= 8;
        self.filled = self.filled.saturating_sub(8);
    }
}

/// Reads what [`Packer`] wrote.
pub(super) struct Unpacker<'a> {
    bytes: core::slice::Iter<'a, u8>,
    element_bits: u32,
    pending: u32,
    filled: u32,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(bytes: &'a [u8], element_bits: u32) -> Self {
        Self {
            bytes: bytes.iter(),
            element_bits,
            pending: 0,
            filled: 0,
        }
    }

    /// Returns the next code, in the lowest bits.
    pub(super) fn next(&mut self) -> u8 {
        if self.filled < self.element_bits {
            self.pending |=
                u32::from(self.bytes.next().copied().unwrap_or_default()) << self.filled;
            self.filled += 8;
        }
        let code = self.pending & ((1 << self.element_bits) - 1);
        self.pending >>= self.element_bits;
        self.filled -= self.element_bits;
        code.to_le_bytes()[0]
    }
}
