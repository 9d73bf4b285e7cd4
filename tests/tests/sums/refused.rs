//! Sums that no rows have, and parts that do not belong together: the shard is set aside by name,
//! and the rest counts.

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{K, Q, once_with, rename_in};

use super::{ShardRows, SumType, Summed, count, daemon_with, once};

/// A shard of a sum of q, changed.
struct Bad {
    name: &'static str,
    tensors: Vec<TensorToWrite>,
    said: Vec<String>,
}

/// The sum of some rows of q.
fn rows() -> Summed {
    ShardRows {
        number: 7,
        weighted: false,
    }
    .sequences(8, 0..4)
}

fn key(part: &str) -> String {
    format!("{Q}::{part}")
}

/// With another tensor in the place of that of its name, or beside the others.
fn with(tensor: TensorToWrite) -> Vec<TensorToWrite> {
    let mut tensors = rows().tensors(Q, SumType::F64);
    tensors.retain(|of| of.name != tensor.name);
    tensors.push(tensor);
    tensors
}

fn without(part: &str) -> Vec<TensorToWrite> {
    let mut tensors = rows().tensors(Q, SumType::F64);
    tensors.retain(|of| of.name != key(part));
    tensors
}

/// With another number in a part.
fn number(name: &'static str, part: &str, index: usize, value: f64, said: &[&str]) -> Bad {
    let mut values = match part {
        "xtx" => rows().xtx(),
        "abs_sum" => rows().abs_sum(0..300),
        _ => rows().batch_max(),
    };
    values[index] = value;
    let tensor = SumType::F64.tensor(&key(part), &[values.len()], &values);
    bad(name, with(tensor), said)
}

fn bad(name: &'static str, tensors: Vec<TensorToWrite>, said: &[&str]) -> Bad {
    let file = format!("shard {name}.safetensors: ");
    let said = said.iter().map(|said| (*said).to_owned());
    Bad {
        name,
        tensors,
        said: core::iter::once(file).chain(said).collect(),
    }
}

/// Places of (0, 0), (2, 2), (5, 5) and (1, 3) in the triangle of 8.
const FIRST: usize = 0;
const THIRD: usize = 15;
const SIXTH: usize = 30;
const ENTRY: usize = 10;

/// Sums of products that no rows have.
fn bad_products() -> Vec<Bad> {
    let xtx = rows().xtx();
    let product = (xtx[8] * xtx[21]).sqrt();
    let mut signs = xtx.clone();
    // All but the diagonal: row i begins i places before those of a square.
    let diagonal: Vec<usize> = (0..8).map(|i| i * 8 - i * (i.max(1) - 1) / 2).collect();
    for (place, value) in signs.iter_mut().enumerate() {
        if !diagonal.contains(&place) {
            *value *= -1.0;
        }
    }
    let negated = SumType::F64.tensor(&key("xtx"), &[signs.len()], &signs);
    vec![
        bad("x-signs", with(negated), &["is no sum of x^T x"]),
        number(
            "x-nan",
            "xtx",
            ENTRY,
            f64::NAN,
            &["q_proj::xtx': entry (1, 3) is NaN"],
        ),
        number(
            "x-inf",
            "xtx",
            THIRD,
            f64::INFINITY,
            &["sum of squares of channel 2 is inf"],
        ),
        number(
            "x-negative",
            "xtx",
            FIRST,
            -1.0,
            &["sum of squares of channel 0 is -1.0;"],
        ),
        number(
            "x-large",
            "xtx",
            ENTRY,
            1.001 * product,
            &["entry (1, 3) is", "at most"],
        ),
        number(
            "x-opposite",
            "xtx",
            ENTRY,
            -1.001 * product,
            &["entry (1, 3) is -"],
        ),
    ]
}

/// Sums and maxima of |x| that no rows have beside these products.
fn bad_magnitudes() -> Vec<Bad> {
    let (xtx, abs) = (rows().xtx(), rows().abs_sum(0..300));
    vec![
        number(
            "x-abs-nan",
            "abs_sum",
            3,
            f64::NAN,
            &["q_proj::abs_sum': NaN for channel 3"],
        ),
        number(
            "x-abs-negative",
            "abs_sum",
            3,
            -1e-9,
            &["abs_sum': -1e-9 for channel 3"],
        ),
        number(
            "x-abs-large",
            "abs_sum",
            2,
            (300.1 * xtx[THIRD]).sqrt(),
            &["for channel 2; by"],
        ),
        number(
            "x-abs-small",
            "abs_sum",
            2,
            0.99 * xtx[THIRD].sqrt(),
            &["for channel 2; by"],
        ),
        number(
            "x-max-small",
            "batch_max_mean_abs",
            5,
            0.99 * abs[5] / 300.0,
            &["for channel 5; by"],
        ),
        number(
            "x-max-large",
            "batch_max_mean_abs",
            5,
            1.01 * xtx[SIXTH].sqrt(),
            &["for channel 5; by"],
        ),
    ]
}

/// Parts of another type, shape or length, or of nothing.
fn bad_forms() -> Vec<Bad> {
    let ones = |length| vec![1.0; length];
    let tensor =
        |part: &str, length: usize| SumType::F64.tensor(&key(part), &[length], &ones(length));
    let xtx_of = |dtype| TensorToWrite {
        dtype,
        ..SumType::F32.tensor(&key("xtx"), &[36], &rows().xtx())
    };
    vec![
        bad(
            "y-short",
            with(tensor("xtx", 35)),
            &["F64 [35]; F32 or F64 [36] expected"],
        ),
        bad(
            "y-square",
            with(SumType::F64.tensor(&key("xtx"), &[6, 6], &ones(36))),
            &["q_proj"],
        ),
        bad(
            "y-type",
            with(xtx_of("I32".into())),
            &["I32 [36]; F32 or F64 [36] expected"],
        ),
        bad(
            "y-alone",
            without("xtx"),
            &["belongs to no sum of the shard"],
        ),
        bad(
            "y-abs",
            with(tensor("abs_sum", 7)),
            &["abs_sum' is F64 [7]; F32 or F64 [8]"],
        ),
        bad(
            "y-mask",
            with(TensorToWrite::u8("none::mask", &[1], &[1])),
            &["belongs to no tensor"],
        ),
        bad(
            "y-mask-of-sum",
            with(TensorToWrite::u8(&key("xtx::mask"), &[36], &[1; 36])),
            &["belongs to no tensor"],
        ),
    ]
}

/// Numbers of rows and weights that are none.
fn bad_counts() -> Vec<Bad> {
    let i64s = |value: i64, shape: &[usize]| {
        TensorToWrite::new(&key("xtx_rows"), "I64", shape, value.to_le_bytes().to_vec())
    };
    let weights = |values: &[f64]| SumType::F64.tensor(&key("xtx_weight"), &[2], values);
    vec![
        bad(
            "y-uncounted",
            without("xtx_rows"),
            &["has no", "q_proj::xtx_rows', an I64"],
        ),
        bad(
            "y-zero",
            with(i64s(0, &[1])),
            &["q_proj::xtx_rows' is 0: a sum is of 1 to 2^40"],
        ),
        bad("y-below", with(i64s(-3, &[])), &["q_proj::xtx_rows' is -3"]),
        bad(
            "y-count-type",
            with(TensorToWrite::f32(&key("xtx_rows"), &[1], &[3.0])),
            &["I64 [] or [1] expected"],
        ),
        bad(
            "y-weights",
            with(weights(&[300.0, 299.0])),
            &["sum 300.0 and the sum of squares 299.0"],
        ),
        bad(
            "y-weights-0",
            with(weights(&[0.0, 0.0])),
            &["no weights of 300 rows have these"],
        ),
    ]
}

/// Layers that read one input have one sum.
fn bad_sites() -> Vec<Bad> {
    let both = |k: Summed| [rows().tensors(Q, SumType::F64), k.tensors(K, SumType::F64)].concat();
    let other = |change: fn(&mut Summed)| {
        let mut other = rows();
        change(&mut other);
        other
    };
    let longer = other(|of| of.values.extend(vec![0.0; 8 * 75]));
    let larger = other(|of| of.values[9] += 1.0);
    let mut recounted = both(rows());
    recounted.retain(|of| of.name != format!("{K}::xtx_rows"));
    recounted.push(count(&format!("{K}::xtx_rows"), 301));
    vec![
        bad(
            "z-rows",
            both(longer),
            &["k_proj::xtx' share one input but differ in their rows: 300 and 375"],
        ),
        bad(
            "z-numbers",
            both(larger),
            &["share one input but differ in"],
        ),
        bad(
            "z-counts",
            recounted,
            &["differ in their rows: 300 and 301"],
        ),
    ]
}

#[test]
fn bad_sums_are_refused_by_name_and_the_rest_counts() {
    let good = || ShardRows::plain(4).map(|of| of.mixed(SumType::F32));
    let (daemon, clean) = (daemon_with(good()), once(good(), &[]));
    let bad: Vec<Bad> = [
        bad_products(),
        bad_magnitudes(),
        bad_forms(),
        bad_counts(),
        bad_sites(),
    ]
    .into_iter()
    .flatten()
    .collect();
    for of in &bad {
        rename_in(&daemon, of.name, &of.tensors);
    }
    let run = daemon.run(&once_with(&[]));
    expect(
        &run,
        3,
        &[&format!("4 shards folded, {} quarantined", bad.len())],
    );
    for of in &bad {
        let said: Vec<&str> = of.said.iter().map(String::as_str).collect();
        expect(&run, 3, &said);
    }
    let (ours, clean) = (daemon.adapter("qera-out"), clean.adapter("qera-out"));
    assert!(ours.bytes == clean.bytes, "a refused shard left a trace");
}

/// Both members of a site may have the same sum, and a count may be a scalar.
#[test]
fn members_of_a_site_share_their_sum() {
    let of = |keys: &'static [&'static str]| {
        once(
            ShardRows::plain(2).map(move |of| {
                let sum = |key: &&str| of.sequences(8, 1..4).tensors(key, SumType::F32);
                let mut tensors: Vec<_> = keys.iter().flat_map(sum).collect();
                for tensor in tensors.iter_mut().filter(|of| of.name.ends_with("_rows")) {
                    tensor.shape = Vec::new();
                }
                tensors.extend(of.as_rows(0..1));
                tensors
            }),
            &["--shrinkage", "0.2"],
        )
    };
    let (one, both) = (of(&[Q]), of(&[Q, K]));
    assert!(one.adapter("qera-out").bytes == both.adapter("qera-out").bytes);
}
