//! What runs on a device, on the slice of a real layer that the firmware holds: the f32 statistics
//! and solve against those in f64, and what a device sends against a reader of safetensors.

use qera_core::device::{
    DEVICE_BLOCK, DeviceError, DeviceLayer, DeviceRows, LayerMemory, ShardError, ShardWriter,
    exact_layer_numbers, exact_layer_workspace, sketched_layer_numbers, sketched_layer_workspace,
};
use qera_core::dtype::FloatDtype;
use qera_core::packed::{packed_len, packed_offset};
use qera_core::pseudo_random::SplitMix64;
use qera_core::quantize::Mxint;
use qera_core::reconstruct::{
    NarrowError, NarrowProblem, NarrowRoom, Problem, Statistic, narrow_columns_len,
    narrow_workspace_len, output_error, output_error_workspace_len, reconstruct_exact,
    reconstruct_narrow, reconstruct_workspace_len,
};
use qera_core::rows::Rows;
use qera_core::statistics::{Autocorrelation, NarrowAutocorrelation};
use qera_tests::matrix::Matrix;
use qera_tests::reference::{LAYERS, ReferenceLayer, from_bf16, reference_folder};
use safetensors::SafeTensors;

const M: usize = 128;
const N: usize = 128;
const K: usize = 8;
type Memory = LayerMemory<{ exact_layer_numbers(M, N, K) }, { exact_layer_workspace(N, K) }>;

/// Little-endian bf16: W, and rows.
const WEIGHT: &[u8] = include_bytes!("../../../firmware/data/weight.bin");
const ROWS: &[u8] = include_bytes!("../../../firmware/data/rows.bin");

/// E = W - W~ of MXINT3, a column at a time.
fn error_of(weight: Vec<f32>, in_features: usize) -> impl FnMut(usize, &mut [f32]) {
    let grid = Mxint::new(3, 32).unwrap();
    move |first, columns| {
        let weight = &weight[first * in_features..][..columns.len()];
        grid.quantize_dequantize(weight, in_features, columns)
            .unwrap();
        for (e, w) in columns.iter_mut().zip(weight) {
            *e = w - *e;
        }
    }
}

fn all_of(
    error: &mut impl FnMut(usize, &mut [f32]),
    in_features: usize,
    out_features: usize,
) -> Matrix {
    let mut columns = vec![0.0; in_features * out_features];
    error(0, &mut columns);
    let wide = columns.iter().map(|e| f64::from(*e)).collect();
    Matrix::from_columns(in_features, out_features, wide)
}

/// R of rows in f64.
fn wide_autocorrelation(rows: &[f32], in_features: usize) -> Vec<f64> {
    let mut packed = vec![0.0; packed_len(in_features)];
    let mut autocorrelation = Autocorrelation::new(&mut packed, in_features).unwrap();
    autocorrelation
        .update(&Rows::new(rows, in_features).unwrap())
        .unwrap();
    packed
}

/// f without a correction, the smallest that a rank leaves, and that of other factors.
struct Compared {
    without: f64,
    optimum: f64,
    found: f64,
}

fn compare(packed: &[f64], error: &Matrix, a: &[f32], b: &[f32]) -> Compared {
    let (m, n) = (error.view().nrows(), error.view().ncols());
    let rank = a.len() / m;
    let problem = Problem::new(error.view(), Statistic::Autocorrelation(packed), rank).unwrap();
    let (mut best_a, mut best_b) = (Matrix::zeros(m, rank), Matrix::zeros(rank, n));
    let report = reconstruct_exact(
        &problem,
        best_a.view_mut(),
        best_b.view_mut(),
        &mut [],
        &mut vec![0.0; reconstruct_workspace_len(m, n, rank)],
    )
    .unwrap();
    let a = Matrix::from_fn(m, rank, |i, r| f64::from(a[r * m + i]));
    let b = Matrix::from_fn(rank, n, |r, j| f64::from(b[r * n + j]));
    let mut workspace = vec![0.0; output_error_workspace_len(m)];
    Compared {
        without: report.error_without,
        optimum: report.error_with,
        found: output_error(&problem, a.view(), b.view(), &mut workspace).unwrap(),
    }
}

/// Whole real layers, and the slice: the excess over the f64 routine, and what the report says.
#[test]
fn narrow_solves_come_near_the_optimum() {
    let mut layers = vec![(from_bf16(WEIGHT), from_bf16(ROWS), M)];
    if let Some(folder) = reference_folder("narrow_solves_come_near_the_optimum") {
        layers.extend(LAYERS.map(|name| {
            let layer = ReferenceLayer::load(&folder, name);
            (layer.weight, layer.rows, layer.in_features)
        }));
    }
    for (weight, rows, m) in layers {
        let n = weight.len() / m;
        let wide = wide_autocorrelation(&rows, m);
        let packed: Vec<f32> = wide.iter().map(|r| *r as f32).collect();
        for rank in [1, 8, 32] {
            let mut error = error_of(weight.clone(), m);
            let (mut a, mut b) = (vec![0.0; rank * m], vec![0.0; rank * n]);
            let report = reconstruct_narrow(
                &NarrowProblem {
                    autocorrelation: &packed,
                    in_features: m,
                    out_features: n,
                },
                &mut error,
                &mut a,
                &mut b,
                NarrowRoom {
                    columns: &mut vec![f32::NAN; narrow_columns_len(m, n, rank)],
                    workspace: &mut vec![f64::NAN; narrow_workspace_len(n, rank)],
                },
            )
            .unwrap();
            let Compared {
                without,
                optimum,
                found,
            } = compare(&wide, &all_of(&mut error, m, n), &a, &b);
            println!(
                "{m} x {n} rank {rank}: {} cycles, optimum {:.4}, excess {:.1e}, reported {:.1e}",
                report.cycles,
                optimum / without,
                found / optimum - 1.0,
                report.error_with / found - 1.0
            );
            assert_eq!(report.rank_used, rank);
            assert!(found <= 1.001 * optimum, "{m} x {n}: {found} {optimum}");
            assert!((report.error_with - found).abs() < 1e-4 * found);
            assert!((report.error_without / without - 1.0).abs() < 1e-5);
        }
    }
}

/// Sixteen rows of a sketch in the place of R: what the firmware runs.
#[test]
fn a_sketch_on_a_device_comes_within_a_hundredth() {
    const KEPT: usize = 15;
    let mut memory = Box::<
        LayerMemory<
            { sketched_layer_numbers(M, N, K, KEPT) },
            { sketched_layer_workspace(N, K, KEPT) },
        >,
    >::default();
    let mut error = error_of(from_bf16(WEIGHT), M);
    let mut layer =
        DeviceLayer::<_, M, N, K>::sketched::<KEPT, _, _>(&mut memory, &mut error).unwrap();
    layer
        .feed(DeviceRows::Bytes(ROWS, FloatDtype::Bf16))
        .unwrap();
    assert_eq!(layer.sums().unwrap_err(), DeviceError::NoSums);
    let correction = layer.finish().unwrap();
    let (a, b) = (correction.a.to_vec(), correction.b.to_vec());
    let interval = [correction.error_least, correction.error_with];
    let without_said = correction.error_without;
    assert_eq!(correction.rank_used, K);
    let packed = wide_autocorrelation(&from_bf16(ROWS), M);
    let Compared {
        without,
        optimum,
        found,
    } = compare(&packed, &all_of(&mut error, M, N), &a, &b);
    println!(
        "excess {:.1e}, interval {interval:?} of {optimum}",
        found / optimum - 1.0
    );
    assert!(found <= 1.01 * optimum, "{found} {optimum}");
    assert!(interval[0] <= optimum && optimum <= interval[1]);
    assert!((without_said / without - 1.0).abs() < 1e-5);
}

/// A million rows fed one at a time, and in the blocks of a device, against f64: a random walk of
/// roundings, at most 2^-24 sqrt(folds / 3).
#[test]
fn a_million_rows_in_f32() {
    let m = 6;
    for block in [1, DEVICE_BLOCK] {
        let mut random = SplitMix64::new(3);
        let (mut narrow, mut wide) = (vec![0.0; packed_len(m)], vec![0.0; packed_len(m)]);
        let mut narrow = NarrowAutocorrelation::new(&mut narrow, m).unwrap();
        let mut wide = Autocorrelation::new(&mut wide, m).unwrap();
        let mut values = vec![0.0; m * block];
        for _ in 0..1_000_000 / block {
            for row in values.chunks_exact_mut(m) {
                let common = random.next_symmetric();
                for (i, x) in row.iter_mut().enumerate() {
                    let own = random.next_symmetric();
                    *x = match i {
                        0 => 1.007_812_5, // The same in every row.
                        1 => (1e4 * (own + 0.5)) as f32,
                        _ => (own + 0.5 * common + 0.1) as f32,
                    };
                }
            }
            let rows = Rows::new(&values, m).unwrap();
            narrow.update(&rows).unwrap();
            wide.update(&rows).unwrap();
        }
        let r = |i, j| wide.get(i, j).unwrap();
        let mut worst = 0.0_f64;
        for i in 0..m {
            for j in i..m {
                let found = f64::from(narrow.packed()[packed_offset(m, i) + j - i]);
                worst = worst.max((found - r(i, j)).abs() / (r(i, i) * r(j, j)).sqrt());
            }
        }
        println!("blocks of {block}: {worst:.1e}");
        let folds = 1e6 / block as f64;
        assert!(
            worst <= f64::from(f32::EPSILON) / 2.0 * (folds / 3.0).sqrt(),
            "{worst:e}"
        );
    }
}

fn layer(memory: &mut Memory) -> DeviceLayer<'_, impl FnMut(usize, &mut [f32]), M, N, K> {
    DeviceLayer::exact(memory, error_of(from_bf16(WEIGHT), M)).unwrap()
}

/// One row at a time or all at once, as bf16 or as f32: the same bits.
#[test]
fn rows_in_any_form_and_number_give_the_same_bits() {
    let rows = from_bf16(ROWS);
    let mut found = Vec::new();
    for way in 0..3 {
        let mut memory = Box::<Memory>::default();
        let mut layer = layer(&mut memory);
        match way {
            0 => layer.feed(DeviceRows::F32(&rows)).unwrap(),
            1 => layer
                .feed(DeviceRows::Bytes(ROWS, FloatDtype::Bf16))
                .unwrap(),
            _ => {
                for row in ROWS.chunks_exact(2 * M) {
                    layer
                        .feed(DeviceRows::Bytes(row, FloatDtype::Bf16))
                        .unwrap();
                }
            }
        }
        let correction = layer.finish().unwrap();
        assert!(correction.error_with < 0.25 * correction.error_without);
        let numbers = correction.a.iter().chain(correction.b);
        found.push(numbers.map(|x| x.to_bits()).collect::<Vec<_>>());
    }
    assert!(found[0] == found[1] && found[0] == found[2]);
}

/// Integers with a scale, and what is refused: nothing of a refused row counts.
#[test]
fn what_a_device_cannot_take_leaves_no_trace() {
    let mut memory = Box::<Memory>::default();
    let mut layer = layer(&mut memory);
    let short = layer.feed(DeviceRows::F32(&[0.0; 100])).unwrap_err();
    let (values, in_features) = (100, M);
    assert_eq!(
        short,
        DeviceError::Length {
            values,
            in_features
        }
    );
    let mut rows = vec![1.0; 3 * M];
    rows[2 * M + 5] = f32::NAN;
    let refused = layer.feed(DeviceRows::F32(&rows)).unwrap_err();
    assert!(
        matches!(refused, DeviceError::Row { row: 2, .. }),
        "{refused}"
    );
    assert_eq!(layer.progress().rows, 2);
    let values = [2; M];
    layer
        .feed(DeviceRows::Int8 {
            values: &values,
            scale: 0.5,
        })
        .unwrap();
    let sums = layer.sums().unwrap();
    let ones = sums
        .packed()
        .iter()
        .all(|r| r.to_bits() == 1.0_f32.to_bits());
    assert!(ones && (sums.weight() - 3.0).abs() < 1e-12);
    let problem = NarrowProblem {
        autocorrelation: &[1.0; 3],
        in_features: 2,
        out_features: 2,
    };
    let nothing = NarrowRoom {
        columns: &mut [],
        workspace: &mut [],
    };
    let refused = reconstruct_narrow(
        &problem,
        &mut |_, _| (),
        &mut [0.0; 2],
        &mut [0.0; 2],
        nothing,
    );
    assert!(matches!(
        refused,
        Err(NarrowError::Length {
            operand: "columns",
            ..
        })
    ));
}

/// The files that a stream of shards is made of: each says where it ends.
fn cut(mut line: &[u8]) -> Vec<&[u8]> {
    let mut files = Vec::new();
    while let Some((length, rest)) = line.split_first_chunk::<8>() {
        let header = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let tensors: serde_json::Value = serde_json::from_slice(&rest[..header]).unwrap();
        let ends = tensors.as_object().unwrap().values();
        let ends = ends.filter_map(|tensor| tensor["data_offsets"][1].as_u64());
        let end = 8 + header + usize::try_from(ends.max().unwrap()).unwrap();
        files.push(&line[..end]);
        line = &line[end..];
    }
    files
}

/// What is sent, read by a reader of safetensors: every sixteenth block as rows, the sums of the
/// others, in files that their number and device tell apart.
#[test]
fn shards_are_safetensors_files() {
    let mut memory = Box::<Memory>::default();
    let mut layer = layer(&mut memory);
    let (mut header, mut line) = ([0; 512], Vec::new());
    let mut writer = ShardWriter::new("q_proj", "board-1", 4, &mut header, |bytes: &[u8]| {
        line.extend_from_slice(bytes);
    })
    .unwrap();
    layer
        .feed_sending(DeviceRows::Bytes(ROWS, FloatDtype::Bf16), &mut |rows| {
            writer.rows(rows).unwrap();
        })
        .unwrap();
    writer.sums(layer.sums().unwrap()).unwrap();
    assert_eq!(
        writer.sums(layer.sums().unwrap()),
        Err(ShardError::NoRows),
        "sent already"
    );
    assert_eq!(writer.sequence(), 7);
    assert_eq!(layer.progress().given_away, 16);

    let rows = from_bf16(ROWS);
    let files = cut(&line);
    assert_eq!(files.len(), 3);
    for (file, sequence) in files.iter().zip(4..) {
        let metadata = SafeTensors::read_metadata(file).unwrap().1;
        let own = metadata.metadata().clone().unwrap();
        assert_eq!(own["device"], "board-1");
        assert_eq!(own["sequence"], sequence.to_string());
    }
    for (file, first) in files[..2].iter().zip([0, 16 * DEVICE_BLOCK]) {
        let file = SafeTensors::deserialize(file).unwrap();
        let tensor = file.tensor("q_proj").unwrap();
        assert_eq!(tensor.shape(), [DEVICE_BLOCK, M]);
        let sent = tensor.data().as_chunks::<4>().0.iter();
        let sent: Vec<f32> = sent.map(|le| f32::from_le_bytes(*le)).collect();
        assert_eq!(sent, rows[first * M..(first + DEVICE_BLOCK) * M]);
    }
    let file = SafeTensors::deserialize(files[2]).unwrap();
    let count = file.tensor("q_proj::xtx_rows").unwrap();
    assert_eq!(count.data(), 240_i64.to_le_bytes());
    let folded: Vec<f32> = rows
        .chunks_exact(DEVICE_BLOCK * M)
        .enumerate()
        .filter(|(block, _)| block % 16 != 0)
        .flat_map(|(_, block)| block.to_vec())
        .collect();
    let expected = wide_autocorrelation(&folded, M);
    let tensor = file.tensor("q_proj::xtx").unwrap();
    let sums = tensor.data().as_chunks::<4>().0.iter();
    let sums: Vec<f64> = sums.map(|le| f64::from(f32::from_le_bytes(*le))).collect();
    for i in 0..M {
        for j in i..M {
            let at = packed_offset(M, i) + j - i;
            let scale = (expected[packed_offset(M, i)] * expected[packed_offset(M, j)]).sqrt();
            assert!((sums[at] / 240.0 - expected[at]).abs() <= 1e-6 * scale);
        }
    }
}
