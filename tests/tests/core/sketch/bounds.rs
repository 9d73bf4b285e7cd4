//! What a sketch may lose, whole, in parts, weighted and resumed.

use qera_tests::matrix::Matrix;
use qera_tests::spectra::Spectrum;

use super::{ROUNDING, Sketched, Stream, eigenvalues};

/// 0 <= G - S^T S <= Delta I, and l Delta <= tr(G) - |S|^2; tr(G) is exact.
fn assert_bounds(stream: &Stream, sketched: &Sketched, l: usize) {
    let (g, n, totals) = (stream.g(), stream.n(), sketched.totals);
    let moment = sketched.moment(n);
    let lost = eigenvalues(&(&g - &moment));
    let slack = ROUNDING * g.trace();
    assert!((totals.trace - g.trace()).abs() <= slack, "{totals:?}");
    assert!(lost[n - 1] >= -slack, "{:e}", lost[n - 1]);
    assert!(lost[0] <= totals.shrunk + slack, "{:e} {totals:?}", lost[0]);
    let all_lost = g.trace() - moment.trace();
    assert!(l as f64 * totals.shrunk <= all_lost + slack, "{totals:?}");
    // A bound that held only because it is loose would hold for any sketch.
    assert!(totals.shrunk <= all_lost + slack);
}

#[test]
fn nothing_beyond_the_bounds_is_lost() {
    for kind in Spectrum::SEMI_DEFINITE {
        let stream = Stream::new(210, 24, 30, 24, kind);
        for l in [2, 8, 17, 40] {
            for block in [1, 16, 300] {
                let sketched = stream.sketch(l, block, 0, 210);
                assert_bounds(&stream, &sketched, l);
                let exact = sketched.totals.weight - 210.0;
                assert!(exact.abs() < f64::EPSILON);
            }
        }
    }
}

/// The sketch of the same blocks, by singular value decompositions in f64.
fn oracle(stream: &Stream, l: usize, block: usize) -> (Matrix, f64) {
    let (n, count) = (stream.n(), stream.x.nrows());
    let d = &stream.x * &stream.error;
    let (mut rows, mut shrunk) = (Vec::<Vec<f64>>::new(), 0.0);
    for first in (0..count).step_by(block) {
        let end = count.min(first + block);
        rows.extend((first..end).map(|i| (0..n).map(|j| d[(i, j)]).collect()));
        let stack = Matrix::from_fn(rows.len(), n, |i, j| rows[i][j]).to_faer();
        let svd = stack.thin_svd().unwrap();
        let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let delta = values.get(l - 1).map_or(0.0, |s| s * s);
        shrunk += delta;
        rows.clear();
        for (i, s) in values.iter().take(l - 1).enumerate() {
            let scale = (s * s - delta).max(0.0).sqrt();
            rows.push((0..n).map(|j| scale * svd.V()[(j, i)]).collect());
        }
    }
    let s = Matrix::from_fn(rows.len(), n, |i, j| rows[i][j] / (count as f64).sqrt());
    ((&s.transpose() * &s).symmetrised(), shrunk / count as f64)
}

#[test]
fn it_is_frequent_directions() {
    for kind in Spectrum::SEMI_DEFINITE {
        let stream = Stream::new(150, 20, 26, 20, kind);
        for l in [3, 9, 21] {
            let sketched = stream.sketch(l, 12, 0, 150);
            let (moment, shrunk) = oracle(&stream, l, 12);
            let trace = stream.g().trace();
            let gap = (&sketched.moment(26) - &moment).norm();
            assert!(
                gap <= ROUNDING * trace,
                "{kind:?} {l}: {gap:e} of {trace:e}"
            );
            let gap = (sketched.totals.shrunk - shrunk).abs();
            assert!(gap <= ROUNDING * trace, "{kind:?} {l}: Delta {gap:e}");
        }
    }
}

#[test]
fn parts_merge_within_the_bounds_of_the_whole() {
    let stream = Stream::new(300, 24, 30, 24, Spectrum::PowerLaw);
    let mut merged = stream.sketch(10, 16, 0, 90);
    merged.merge(&stream.sketch(14, 16, 90, 150), 30);
    let before = merged.clone();
    // A sketch that has seen no row changes nothing.
    merged.merge(&stream.sketch(5, 16, 0, 0), 30);
    assert_eq!(merged, before);
    merged.merge(&stream.sketch(10, 7, 240, 60), 30);
    assert_bounds(&stream, &merged, 10);
    assert!((merged.totals.weight - 300.0).abs() < 1e-9);
    let mut first = stream.sketch(10, 16, 0, 0);
    first.merge(&before, 30);
    let gap = (&first.moment(30) - &before.moment(30)).norm();
    assert!(gap <= ROUNDING * stream.g().trace());
}

/// As many rows as G has directions lose nothing, whatever the stream.
#[test]
fn few_directions_are_kept_whole() {
    let stream = Stream::new(400, 24, 40, 5, Spectrum::Flat);
    let sketched = stream.sketch(7, 16, 0, 400);
    let g = stream.g();
    let gap = (&sketched.moment(40) - &g).norm();
    assert!(gap <= ROUNDING * g.trace(), "{gap:e}");
    assert!(sketched.totals.shrunk <= ROUNDING * g.trace());
}

#[test]
fn a_weight_repeats_its_row_and_a_common_factor_does_nothing() {
    let mut stream = Stream::new(60, 12, 18, 12, Spectrum::PowerLaw);
    for (i, weight) in stream.weights.iter_mut().enumerate() {
        *weight = [1.0, 0.0, 3.0, 0.25][i % 4];
    }
    let weighted = stream.sketch(8, 16, 0, 60);
    assert_bounds(&stream, &weighted, 8);
    stream.weights.iter_mut().for_each(|w| *w *= 1024.0);
    let scaled = stream.sketch(8, 16, 0, 60);
    assert_eq!(scaled.rows, weighted.rows);
    assert_eq!(
        [scaled.totals.trace, scaled.totals.shrunk].map(f64::to_bits),
        [weighted.totals.trace, weighted.totals.shrunk].map(f64::to_bits)
    );
    // Rows without weight are as if they had not come.
    stream.weights.fill(0.0);
    let mut same = weighted.clone();
    same.go_on(&stream, 16, 0, 60).unwrap();
    assert_eq!(same, weighted);
}

#[test]
fn resuming_at_a_block_changes_no_bit() {
    let stream = Stream::new(96, 12, 18, 12, Spectrum::Graded);
    let whole = stream.sketch(6, 16, 0, 96);
    let mut parts = stream.sketch(6, 16, 0, 32);
    parts.go_on(&stream, 16, 32, 64).unwrap();
    assert_eq!(parts, whole);
}
