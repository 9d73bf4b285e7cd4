//! Formats, values, levels and bytes that are refused.

use qera_core::dtype::FloatDtype;
use qera_core::quantize::{Grid, GridError, Int, Levels, Mxint, Q4_0};

fn int(bits: u32) -> Int {
    Int::new(bits, 32, FloatDtype::F16).unwrap()
}

#[test]
fn formats() {
    for element_bits in [1, 9] {
        let refused = Int::new(element_bits, 32, FloatDtype::F16);
        assert_eq!(refused, Err(GridError::ElementBits { element_bits }));
    }
    for block_size in [0, 16, 33, 256] {
        let refused = Int::new(4, block_size, FloatDtype::F16);
        assert_eq!(refused, Err(GridError::IntBlockSize { block_size }));
    }
    let error = GridError::IntBlockSize { block_size: 16 };
    assert_eq!(error.to_string(), "block_size 16 is not 32, 64 or 128");
}

#[test]
fn weights_that_are_not_finite() {
    for grid in [Grid::Int(int(4)), Grid::Q4_0(Q4_0)] {
        let mut weight = [1.0; 70];
        weight[67] = f32::NAN;
        weight[69] = f32::INFINITY;
        let expected = GridError::NonFinite {
            index: 67,
            row: 1,
            column: 32,
        };
        let refused = grid.quantize_dequantize(&weight, 35, &mut [0.0; 70]);
        assert_eq!(refused, Err(expected));
        assert!(matches!(
            grid.quantize_dequantize(&weight, 33, &mut [0.0; 70]),
            Err(GridError::Length {
                values: 70,
                in_features: 33
            })
        ));
        assert!(matches!(
            grid.quantize_dequantize(&weight, 35, &mut [0.0; 69]),
            Err(GridError::OutputLength {
                needed: 70,
                lent: 69
            })
        ));
    }
}

#[test]
fn lengths_of_packed_forms() {
    let mxint = Grid::Mxint(Mxint::new(3, 32).unwrap());
    let grids = [
        (mxint, 13, 2),
        (Grid::Int(int(3)), 13, 4),
        (Grid::Int(int(3).with_zero_points()), 13, 6),
        (Grid::Q4_0(Q4_0), 36, 0),
    ];
    for (grid, codes, scales) in grids {
        assert_eq!(
            (grid.codes_len(2, 33), grid.scales_len(2, 33)),
            (2 * codes, 2 * scales)
        );
        assert_eq!(grid.codes_len(usize::MAX, 33), usize::MAX);
        let levels = [grid.candidates(&[1.0]).first(); 4];
        let values = [0.0; 66];
        let (mut code_bytes, mut scale_bytes) = (vec![0; 2 * codes], vec![0; 2 * scales]);
        let encode = |levels: &[Levels], in_features, codes: &mut [u8], scales: &mut [u8]| {
            grid.encode(&values, levels, in_features, codes, scales)
        };
        let short = |needed, lent| Err(GridError::OutputLength { needed, lent });
        assert_eq!(
            encode(&levels, 33, &mut code_bytes, &mut scale_bytes),
            Ok(())
        );
        assert_eq!(
            encode(&levels[..3], 33, &mut code_bytes, &mut scale_bytes),
            short(4, 3)
        );
        let bytes = 2 * codes;
        assert_eq!(
            encode(&levels, 33, &mut code_bytes[1..], &mut scale_bytes),
            short(bytes, bytes - 1)
        );
        let more = vec![0; 2 * scales + 1];
        assert_eq!(
            encode(&levels, 33, &mut code_bytes, &mut more.clone()),
            short(2 * scales, 2 * scales + 1)
        );
        assert!(matches!(
            encode(&levels, 35, &mut code_bytes, &mut scale_bytes),
            Err(GridError::Length { .. })
        ));
        assert_eq!(
            grid.decode(&code_bytes, &more, 33, &mut [0.0; 66]),
            short(2 * scales, 2 * scales + 1)
        );
        assert_eq!(
            grid.levels_of(&code_bytes, &more, 33, &mut levels.clone()),
            short(2 * scales, 2 * scales + 1)
        );
        let refused = grid.levels_of(&code_bytes, &scale_bytes, 33, &mut [levels[0]; 3]);
        assert_eq!(
            refused,
            Err(GridError::Length {
                values: 3,
                in_features: 2
            })
        );
        let refused = grid.levels_of(&code_bytes, &scale_bytes, 0, &mut [levels[0]; 3]);
        assert_eq!(
            refused,
            Err(GridError::Length {
                values: 3,
                in_features: 0
            })
        );
    }
}

/// Levels of another format, and values between levels.
#[test]
fn what_lies_on_another_grid() {
    let mxint = Grid::Mxint(Mxint::new(4, 32).unwrap());
    let symmetric = Grid::Int(int(4));
    let offset = Grid::Int(int(4).with_zero_points());
    let q4_0 = Grid::Q4_0(Q4_0);
    for grid in [mxint, symmetric, offset, q4_0] {
        let own = grid.candidates(&[1.0, -0.5]).first();
        let (mut codes, mut scales) = (
            vec![0; grid.codes_len(2, 33)],
            vec![0; grid.scales_len(2, 33)],
        );
        let mut encode = |values: &[f32], levels: Levels| {
            let levels = [own, own, own, levels];
            grid.encode(values, &levels, 33, &mut codes, &mut scales)
        };
        let mut values = [0.0; 66];
        for (step, lowest, highest) in [
            (0.0, own.lowest, own.highest),
            (f32::NAN, own.lowest, own.highest),
            (f32::INFINITY, own.lowest, own.highest),
            (1.000_1, own.lowest, own.highest), // No power of two, and more bits than f16 has.
            (own.step, own.lowest - 1.0, own.highest),
            (own.step, own.lowest, own.highest - 1.0),
            (own.step, 0.5, 15.5),
            (own.step, -300.0, -285.0),
        ] {
            let refused = encode(
                &values,
                Levels {
                    step,
                    lowest,
                    highest,
                },
            );
            assert_eq!(
                refused,
                Err(GridError::Levels { row: 1, block: 1 }),
                "{grid} {step} {lowest} {highest}"
            );
        }
        for bad in [own.step / 2.0, own.step * 16.0, f32::NAN, f32::INFINITY] {
            values[65] = bad;
            let refused = encode(&values, own);
            assert_eq!(
                refused,
                Err(GridError::OffGrid { row: 1, column: 32 }),
                "{grid} {bad}"
            );
        }
    }
    // A negative scale is one of Q4_0 only.
    let negative = Levels {
        step: -0.5,
        lowest: -8.0,
        highest: 7.0,
    };
    assert_eq!(
        q4_0.encode(&[-3.5], &[negative], 1, &mut [0; 18], &mut []),
        Ok(())
    );
    let refused = symmetric.encode(&[-3.5], &[negative], 1, &mut [0; 1], &mut [0; 2]);
    assert_eq!(refused, Err(GridError::Levels { row: 0, block: 0 }));
}

#[test]
fn bytes_that_are_never_written() {
    let scale = Err(GridError::Scale { row: 1, block: 0 });
    let decode = |grid: Grid, codes: &[u8], scales: &[u8]| {
        let mut levels = [grid.candidates(&[1.0]).first(); 2];
        let read = grid.levels_of(codes, scales, 1, &mut levels);
        let decoded = grid.decode(codes, scales, 1, &mut [0.0; 2]);
        assert_eq!(read, decoded);
        decoded
    };
    let offset = Grid::Int(int(4).with_zero_points());
    // 0, infinity, NaN, -1; a zero point beyond the codes.
    for bits in [0x0000_u16, 0x7c00, 0x7e00, 0xbc00] {
        let [low, high] = bits.to_le_bytes();
        assert_eq!(
            decode(Grid::Int(int(4)), &[0, 0], &[0, 0x3c, low, high]),
            scale,
            "{bits:x}"
        );
        assert_eq!(
            decode(offset, &[0, 0], &[0, 0x3c, 8, low, high, 8]),
            scale,
            "{bits:x}"
        );
    }
    assert_eq!(decode(offset, &[0, 0], &[0, 0x3c, 8, 0, 0x3c, 15]), Ok(()));
    assert_eq!(decode(offset, &[0, 0], &[0, 0x3c, 8, 0, 0x3c, 16]), scale);
    let mut blocks = [0; 36];
    assert_eq!(decode(Grid::Q4_0(Q4_0), &blocks, &[]), Ok(()));
    blocks[19] = 0x7c;
    assert_eq!(decode(Grid::Q4_0(Q4_0), &blocks, &[]), scale);
    let mxint = Grid::Mxint(Mxint::new(4, 32).unwrap());
    let refused = Err(GridError::SharedExponent { row: 1, block: 0 });
    assert_eq!(decode(mxint, &[0, 0], &[127, 255]), refused);
    let refused = mxint.decode(&[0, 8], &[127, 127], 1, &mut [0.0; 2]);
    assert_eq!(refused, Err(GridError::Code { row: 1, column: 0 }));
}
