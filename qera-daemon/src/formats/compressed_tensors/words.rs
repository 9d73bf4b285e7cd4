//! Packs codes into little-endian words of 32 bits, and unpacks them. A code has 4 or 8 bits, so
//! that none lies in two bytes, and the codes of a row fill whole words.

/// Packs the codes of a row, lowest bits first.
#[must_use]
pub(crate) fn pack_row(codes: &[u8], bits: u32) -> Vec<u8> {
    let in_a_byte = (u8::BITS / bits) as usize;
    let byte = |codes: &[u8]| {
        let places = codes.iter().zip((0..).step_by(bits as usize));
        places.fold(0, |byte, (code, place): (&u8, u32)| byte | code << place)
    };
    codes.chunks(in_a_byte).map(byte).collect()
}

/// Unpacks the first codes of a row, as many as `codes` holds.
pub(crate) fn unpack_row(bytes: &[u8], bits: u32, codes: &mut [u8]) {
    let in_a_byte = (u8::BITS / bits) as usize;
    for (codes, byte) in codes.chunks_mut(in_a_byte).zip(bytes) {
        for (code, place) in codes.iter_mut().zip((0..).step_by(bits as usize)) {
            *code = byte >> place & u8::MAX >> (u8::BITS - bits);
        }
    }
}

/// Packs numbers of 4 bits, [rows, columns], along the rows: a word holds eight rows of a column.
#[must_use]
pub(crate) fn pack_columns(numbers: &[u8], columns: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len() / 2);
    for rows in numbers.chunks(8 * columns) {
        for column in 0..columns {
            let of_column: Vec<u8> = rows.iter().skip(column).step_by(columns).copied().collect();
            bytes.extend(pack_row(&of_column, 4));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for bits in [4, 8] {
            let codes: Vec<u8> = (0..32_u8)
                .map(|i| i.wrapping_mul(37) >> (8 - bits))
                .collect();
            let bytes = pack_row(&codes, bits);
            assert_eq!(bytes.len(), 32 * bits as usize / 8);
            let mut back = [0; 32];
            unpack_row(&bytes, bits, &mut back);
            assert_eq!(back[..], codes);
        }
        assert_eq!(pack_row(&[1, 2, 3, 15], 4), [0x21, 0xf3]);
    }

    #[test]
    fn eight_rows_of_a_column_are_a_word() {
        // [16, 2]: the first column counts up, the second is all sevens.
        let numbers: Vec<u8> = (0..16).flat_map(|row| [row, 7]).collect();
        let words = pack_columns(&numbers, 2);
        assert_eq!(words[..4], [0x10, 0x32, 0x54, 0x76]);
        assert_eq!(words[4..8], [0x77; 4]);
        assert_eq!(words[8..12], [0x98, 0xba, 0xdc, 0xfe]);
    }
}
