//! The choice of the shrinkage and what it reports of held-out rows, against an oracle that solves
//! every fold densely in f64 from the other rows alone.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a step that fails fails the test; rows and weights are made f32"
)]

mod known_site;

use qera_daemon::{ChoiceOrigin, HeldOut, Kernel, SHRINKAGES};
use qera_tests::precision::{HELD_OUT, HELD_OUT_CHOSEN};

use known_site::{FoundChoice, KnownSite, OracleErrors, SEQUENCE};

/// A fixed shrinkage: the held-out means are the oracle's.
fn check_fixed(site: &KnownSite, folds: &[&[usize]], step: usize) {
    for kernel in Kernel::available() {
        for shrinkage in ["0", "0.3", "1"] {
            let FoundChoice {
                shrinkage: a,
                origin,
                held_out,
                ..
            } = site.found(kernel, shrinkage);
            assert_eq!(origin, ChoiceOrigin::Given);
            for (found, oracle) in held_out.iter().zip(site.oracles(a, folds, step)) {
                let name = format!("a = {a}, {}", kernel.name());
                assert_same(&name, found, &oracle, HELD_OUT);
            }
        }
    }
}

/// The shrinkage is chosen as the oracle's means say.
fn check_chosen(site: &KnownSite, folds: &[&[usize]], step: usize) {
    let all: Vec<Vec<OracleErrors>> = SHRINKAGES
        .iter()
        .map(|a| site.oracles(*a, folds, step))
        .collect();
    let expected = one_standard_error(&all);
    for kernel in Kernel::available() {
        let FoundChoice {
            shrinkage: a,
            origin,
            held_out,
            ..
        } = site.found(kernel, "auto");
        assert_eq!(origin, ChoiceOrigin::HeldOut);
        assert!(
            (a - SHRINKAGES[expected]).abs() < 1e-9,
            "{}: {a} is not {}",
            kernel.name(),
            SHRINKAGES[expected]
        );
        for (found, oracle) in held_out.iter().zip(&all[expected]) {
            let name = format!("auto, {}", kernel.name());
            assert_same(&name, found, oracle, HELD_OUT_CHOSEN);
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn assert_same(name: &str, found: &HeldOut, oracle: &OracleErrors, most: f64) {
    let (with, without) = (mean(&oracle.with), mean(&oracle.without));
    assert_eq!(found.blocks as usize, oracle.with.len());
    let error = (found.mean / with - 1.0).abs();
    assert!(error <= most, "{name}: {} is not {with}", found.mean);
    assert!(
        (found.mean_without / without - 1.0).abs() <= 1e-6,
        "{name}: {} without is not {without}",
        found.mean_without
    );
}

/// The largest candidate whose mean over blocks, relative to no correction and over the layers, is
/// within one standard error of the best. The example must be clear: none may be near the limit.
fn one_standard_error(all: &[Vec<OracleErrors>]) -> usize {
    let blocks = all[0][0].with.len();
    let relative: Vec<Vec<f64>> = all
        .iter()
        .map(|layers| {
            let ratios = |b: usize| layers.iter().map(move |l| l.with[b] / l.without[b]);
            (0..blocks)
                .map(|b| ratios(b).sum::<f64>() / layers.len() as f64)
                .collect()
        })
        .collect();
    let means: Vec<f64> = relative.iter().map(|values| mean(values)).collect();
    let best = (0..means.len())
        .min_by(|i, j| means[*i].total_cmp(&means[*j]))
        .unwrap();
    let squares = relative[best].iter().map(|x| (x - means[best]).powi(2));
    let variance = squares.sum::<f64>() / (blocks - 1) as f64;
    let limit = means[best] + (variance / blocks as f64).sqrt();
    for mean in &means {
        assert!((mean / limit - 1.0).abs() > HELD_OUT, "{means:?} {limit}");
    }
    means.iter().rposition(|mean| *mean <= limit).unwrap()
}

/// Eight sequences, all of them in the window: four folds of two, every row scored.
const FOLDS: [&[usize]; 4] = [&[0, 1], &[2, 3], &[4, 5], &[6, 7]];

/// Small n: the candidates are compared in the whole space.
#[test]
fn a_fixed_shrinkage_in_the_whole_space() {
    check_fixed(&KnownSite::new(96, &[150], 8, 8), &FOLDS, 1);
}

#[test]
fn a_fixed_shrinkage_in_a_krylov_space() {
    check_fixed(&KnownSite::new(200, &[300], 8, 8), &FOLDS, 1);
    check_fixed(&KnownSite::new(120, &[200, 310], 20, 8), &FOLDS, 1);
}

#[test]
fn auto_in_the_whole_space() {
    check_chosen(&KnownSite::new(150, &[130], 8, 8), &FOLDS, 1);
    check_chosen(&KnownSite::new(180, &[140, 120], 12, 8), &FOLDS, 1);
}

#[test]
fn auto_in_a_krylov_space() {
    check_chosen(&KnownSite::new(200, &[300], 8, 8), &FOLDS, 1);
    check_chosen(&KnownSite::new(320, &[200, 290], 8, 8), &FOLDS, 1);
}

/// The window is less than a quarter of the rows: one fold, of whose blocks eight rows are scored.
#[test]
fn a_long_stream_is_one_fold() {
    let site = KnownSite::new(40, &[48, 44], 4, 260);
    let FoundChoice { held_out, kept, .. } = site.found(Kernel::best(), "0");
    assert_eq!(kept.len() * SEQUENCE, 4096);
    assert_eq!(held_out[0].rows_tested, 512);
    assert_eq!(held_out[0].rows_solved, 260 * 64 - 4096);
    check_fixed(&site, &[&kept], 8);
    check_chosen(&site, &[&kept], 8);
}
