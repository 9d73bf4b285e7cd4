//! What comes of sums is what comes of their rows.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::fixture::{fixture_run, fixture_shards};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::tier;
use safetensors::SafeTensors;

use super::{
    BINARY, ShardRows, SumType, Summed, WIDTHS, assert_near, number, once, rows_of_file,
    state_version, statistics,
};

/// How far an entry of R may be off, of sqrt(R_ii R_jj): docs/numbers.md.
const ENTRY: f64 = 3e-6;

/// Options of runs that are compared.
const COMPARED: [&[&str]; 4] = [
    &["--method", "exact", "--shrinkage", "0.2"],
    &["--method", "approx"],
    &["--method", "lqer"],
    &["--method", "lqer-mean"],
];

/// A shard of the fixture, of each tensor the first sequence as rows and three as a sum.
fn write_mixed(path: &std::path::Path, to: &std::path::Path, dtype: SumType) {
    let mut tensors = Vec::new();
    for of in rows_of_file(path) {
        let [sequences, length, width] = of.shape[..] else {
            panic!("{:?}", of.shape);
        };
        let first = &of.bytes[..2 * length * width];
        tensors.push(TensorToWrite::new(
            &of.key,
            "BF16",
            &[1, length, width],
            first.to_vec(),
        ));
        assert_eq!(of.values.len(), sequences * length * width);
        let summed = Summed {
            width,
            length,
            values: of.values[length * width..].to_vec(),
            weights: None,
        };
        tensors.extend(summed.tensors(&of.key, dtype));
    }
    let bytes = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(key, value)| Metadata::new(key, value))
        .collect();
    write_safetensors(to, &tensors, &metadata);
}

fn fixture(more: &[&str], write: impl Fn(&std::path::Path, &std::path::Path)) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    for (number, shard) in fixture_shards().iter().enumerate() {
        write(
            shard,
            &daemon.watched().join(format!("s{number}.safetensors")),
        );
    }
    let more = [&["--once"], more].concat();
    let run = daemon.run(&fixture_run(
        "activations".as_ref(),
        tier::cases(1, 4),
        &more,
    ));
    expect(&run, 0, &["8 shards folded"]);
    daemon
}

/// Same R within the bound, same mean magnitudes, and errors that are as near.
#[test]
fn sums_of_real_rows_are_those_rows() {
    let more = ["--shrinkage", "0"];
    let rows = fixture(&more, |from, to| {
        fs::copy(from, to).unwrap();
    });
    for dtype in [SumType::F32, SumType::F64] {
        let sums = fixture(&more, |from, to| write_mixed(from, to, dtype));
        assert_eq!((state_version(&rows), state_version(&sums)), (3, 5));
        let of = |daemon| statistics(daemon, "autocorrelation");
        for (ours, theirs) in of(&sums).iter().zip(&of(&rows)) {
            assert_entries(ours, theirs);
        }
        let exact = if dtype == SumType::F64 { 1e-12 } else { 1e-6 };
        for name in ["mean_abs", "batch_max"] {
            let both = [&sums, &rows].map(|of| statistics(of, name).concat());
            for (ours, theirs) in both[0].iter().zip(&both[1]) {
                assert_near(*ours, *theirs, exact, name);
            }
        }
        let [ours, theirs] = [&sums, &rows].map(mean_squares);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_near(*ours, *theirs, exact, "E[x^2]");
        }
        let adapters = [&sums, &rows].map(|of| of.adapter("qera-out"));
        for (ours, theirs) in adapters[0].layers().iter().zip(adapters[1].layers()) {
            assert_eq!(ours["rows"], theirs["rows"]);
            for field in ["/error/without", "/error/with", "/error/rounded"] {
                let [ours, theirs] = [ours, theirs].map(|l| l.pointer(field).unwrap().as_f64());
                assert_near(ours.unwrap(), theirs.unwrap(), 1e-4, field);
            }
            assert!(ours["held_out_error"]["mean"].as_f64().unwrap() > 0.0);
        }
    }
}

/// mean^2 + M2 / N of each channel of each site.
fn mean_squares(daemon: &TestDaemon) -> Vec<f64> {
    let (mean, m2) = (statistics(daemon, "mean"), statistics(daemon, "m2"));
    let pairs = mean.concat().into_iter().zip(m2.concat());
    pairs.map(|(mean, m2)| mean * mean + m2 / 4096.0).collect()
}

/// Two packed triangles.
fn assert_entries(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    let m = (2 * ours.len()).isqrt();
    let offset = |i: usize| i * (2 * m + 1 - i) / 2;
    let diagonal: Vec<f64> = (0..m).map(|i| theirs[offset(i)]).collect();
    let mut largest = 0.0_f64;
    for i in 0..m {
        for j in i..m {
            let at = offset(i) + j - i;
            let scale = (diagonal[i] * diagonal[j]).sqrt();
            let error = (ours[at] - theirs[at]).abs() / scale.max(f64::MIN_POSITIVE);
            largest = largest.max(error);
        }
    }
    assert!(largest <= ENTRY && largest > 0.0, "{largest:e}");
}

/// Rows and sums of one key in one shard both count; weights of summed rows count as those of rows.
#[test]
fn both_ways_in_one_shard_count_together() {
    for weighted in [false, true] {
        let shards = || ShardRows::plain(4).map(move |of| ShardRows { weighted, ..of });
        for more in COMPARED {
            let rows = once(shards().map(|of| of.as_rows(0..4)), more);
            let sums = once(shards().map(|of| of.mixed(SumType::F64)), more);
            for (layer, _) in WIDTHS {
                let adapters = [&sums, &rows].map(|of| of.adapter("qera-out"));
                let [ours, theirs] = adapters.map(|of| of.layer(layer)["rows"].clone());
                assert_eq!((&ours, &theirs), (&1200.into(), &1200.into()));
                // Without R errors are those of the rows held, which are fewer beside sums.
                if more[1] == "exact" {
                    for field in ["/error/without", "/error/with"] {
                        let [ours, theirs] = [&sums, &rows].map(|of| number(of, layer, field));
                        assert_near(ours, theirs, 3e-5, &format!("{more:?} {layer} {field}"));
                    }
                }
            }
            for name in ["mean_abs", "batch_max"] {
                let both = [&sums, &rows].map(|of| statistics(of, name).concat());
                for (ours, theirs) in both[0].iter().zip(&both[1]) {
                    assert_near(*ours, *theirs, 1e-12, name);
                }
            }
        }
    }
}

/// A correction by a diagonal method is the same from sums and from rows.
#[test]
fn diagonal_methods_find_the_same_correction() {
    for method in ["approx", "lqer", "lqer-mean"] {
        let more = ["--method", method, "--dtype", "f32"];
        let rows = once(ShardRows::plain(4).map(|of| of.as_rows(0..4)), &more);
        let sums = once(ShardRows::plain(4).map(|of| of.mixed(SumType::F64)), &more);
        for (layer, width) in WIDTHS {
            let [ours, theirs] = [&sums, &rows].map(|of| {
                let factors = of.adapter("qera-out").factors(layer);
                product(&factors.lora_a, &factors.lora_b, width)
            });
            let difference = (&ours - &theirs).norm_l2();
            assert!(
                difference <= 1e-5 * theirs.norm_l2(),
                "{method}: {difference:e}"
            );
        }
    }
}

/// A B of rank 2.
fn product(a: &[f32], b: &[f32], width: usize) -> faer::Mat<f64> {
    let rank = a.len() / width;
    let outputs = b.len() / rank;
    faer::Mat::from_fn(width, outputs, |i, j| {
        (0..rank)
            .map(|k| f64::from(a[k * width + i]) * f64::from(b[j * rank + k]))
            .sum()
    })
}
