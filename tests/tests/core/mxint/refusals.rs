//! Weights, formats, lengths and packed bytes that are refused.

use qera_core::quantize::{GridError, Mxint};

#[test]
fn non_finite_weights_are_refused_by_index() {
    let format = Mxint::new(4, 2).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let weight = [1.0, 2.0, 3.0, 4.0, 5.0, bad, bad, 8.0];
        let expected = Err(GridError::NonFinite {
            index: 5,
            row: 1,
            column: 1,
        });
        assert_eq!(
            format.quantize_dequantize(&weight, 4, &mut [0.0; 8]),
            expected
        );
        assert_eq!(
            format.encode(&weight, 4, &mut [0; 4], &mut [0; 4]),
            expected
        );
    }
}

#[test]
fn wrong_formats_and_lengths_are_refused() {
    assert_eq!(
        Mxint::new(1, 32),
        Err(GridError::ElementBits { element_bits: 1 })
    );
    assert_eq!(
        Mxint::new(9, 32),
        Err(GridError::ElementBits { element_bits: 9 })
    );
    assert_eq!(Mxint::new(4, 0), Err(GridError::BlockSize));
    let format = Mxint::new(3, 4).unwrap();
    let weight = [1.0; 10];
    let not_rows = |in_features| {
        Err(GridError::Length {
            values: 10,
            in_features,
        })
    };
    assert_eq!(
        format.quantize_dequantize(&weight, 3, &mut [0.0; 10]),
        not_rows(3)
    );
    assert_eq!(
        format.quantize_dequantize(&weight, 0, &mut [0.0; 10]),
        not_rows(0)
    );
    let short = |needed, lent| Err(GridError::OutputLength { needed, lent });
    assert_eq!(
        format.quantize_dequantize(&weight, 5, &mut [0.0; 9]),
        short(10, 9)
    );
    // 5 codes of 3 bits take 2 bytes a row; 5 elements make 2 blocks.
    assert_eq!((format.codes_len(2, 5), format.exponents_len(2, 5)), (4, 4));
    assert_eq!(
        format.encode(&weight, 5, &mut [0; 3], &mut [0; 4]),
        short(4, 3)
    );
    assert_eq!(
        format.encode(&weight, 5, &mut [0; 4], &mut [0; 5]),
        short(4, 5)
    );
    assert_eq!(
        format.decode(&[0; 4], &[0; 3], 5, &mut [0.0; 10]),
        short(4, 3)
    );
    assert_eq!(
        format.decode(&[0; 5], &[0; 4], 5, &mut [0.0; 10]),
        short(4, 5)
    );
}

/// Bytes that `encode` never writes stand for no weight.
#[test]
fn foreign_packed_bytes_are_refused() {
    let format = Mxint::new(4, 2).unwrap();
    let decode =
        |codes: [u8; 2], exponents: [u8; 2]| format.decode(&codes, &exponents, 4, &mut [0.0; 4]);
    assert_eq!(decode([0x97, 0x79], [127, 127]), Ok(()));
    assert_eq!(
        decode([0x97, 0x78], [127, 127]),
        Err(GridError::Code { row: 0, column: 2 })
    );
    assert_eq!(
        decode([0x97, 0x79], [127, 255]),
        Err(GridError::SharedExponent { row: 0, block: 1 })
    );
}
