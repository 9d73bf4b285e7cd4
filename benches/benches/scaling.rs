//! How time grows: of accumulation with the stream and with in_features, of a cold solve with
//! in_features, out_features and rank. CPU seconds of the process on one core, by the fastest
//! kernel that runs here; the exponent is that of the power law through the medians.
//!
//! `cargo bench -p qera-benches --bench scaling [-- FILTER]`: FILTER is a part of a series' name.
//!
//! Solves begin above 512 out_features: up to there G is decomposed densely, which is another
//! algorithm.
#![expect(clippy::print_stdout, reason = "the table is what a bench is for")]

use core::hint::black_box;

use qera_benches::cpu_time::seconds_of_repeated;
use qera_benches::data::{Noise, activations, stored_as};
use qera_benches::exponent::exponent;
use qera_benches::samples::Samples;
use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use qera_core::statistics::BlockShare;
use qera_daemon::{
    Batch, Compute, Cores, Kernel, LayerProblem, Scratch, SiteStatistics, StoredRows, fold_products,
};

/// Samples of a point: every round visits all points of a series, so that a slow minute of the
/// machine slows all.
const ROUNDS: usize = 7;
/// CPU seconds of a sample, at least.
const SECONDS: f64 = 0.05;
/// Rows of a shard, and of the rank update.
const ROWS: usize = 512;

/// What stays the same while one of in_features, out_features and rank grows.
const SIDE: usize = 1024;
const RANK: usize = 32;

/// A point of a series: x, and what is measured there.
type Point<'a> = (usize, Box<dyn FnMut() + 'a>);

/// Measures and prints a series, in time of one of the `parts(x)` that the work at x consists of.
fn series(name: &str, expected: &str, mut points: Vec<Point<'_>>, parts: impl Fn(usize) -> usize) {
    for (_, work) in &mut points {
        work();
    }
    let mut seconds = vec![Vec::new(); points.len()];
    for _ in 0..ROUNDS {
        for (seconds, (x, work)) in seconds.iter_mut().zip(&mut points) {
            seconds.push(seconds_of_repeated(SECONDS, work) / parts(*x) as f64);
        }
    }
    println!("\n{name}");
    let longest = seconds.iter().flatten().copied().fold(0.0, f64::max);
    let (unit, in_second) = if longest < 1e-3 {
        ("us", 1e6)
    } else {
        ("ms", 1e3)
    };
    let mut medians = Vec::new();
    for (seconds, (x, _)) in seconds.into_iter().zip(&points) {
        let times = Samples::new(seconds.iter().map(|s| s * in_second).collect());
        println!("  {x:>6}  {} {unit}", times.text(2));
        medians.push((*x as f64, times.median()));
    }
    println!(
        "  exponent {:.2} (expected: {expected})",
        exponent(&medians)
    );
}

fn shard(noise: &mut Noise, in_features: usize) -> Batch {
    let numbers = activations(noise, ROWS, in_features);
    Batch {
        site: 0,
        in_features,
        bytes: stored_as(&numbers, FloatDtype::Bf16).into(),
        dtype: FloatDtype::Bf16,
        weights: None,
        batches: vec![ROWS],
        sequences: true,
    }
}

/// All statistics of a site, from nothing, over 1, 10 and 100 shards of 512 rows. The window of
/// held-out rows fills in the first 4096, which is why the middle one is the dearest.
fn stream(compute: Compute<'_>) {
    let m = 512;
    let mut noise = Noise::new(1);
    let shards: Vec<_> = (0..4).map(|_| shard(&mut noise, m)).collect();
    let points = [1, 10, 100].map(|length: usize| -> Point<'_> {
        let shards = &shards;
        let mut scratch = Scratch::default();
        let work = move || {
            let mut statistics = SiteStatistics::whole(m);
            for shard in shards.iter().cycle().take(length) {
                // Shards of the right width are never refused.
                let _ = black_box(statistics.fold(shard, compute, &mut scratch));
            }
            black_box(&statistics);
        };
        (length * ROWS, Box::new(work))
    });
    series(
        "stream: time a token, bf16, m = 512, against tokens",
        "0, flat",
        points.into(),
        |tokens| tokens,
    );
}

/// X^T X of 512 rows.
fn accumulate(compute: Compute<'_>) {
    for dtype in [FloatDtype::F32, FloatDtype::Bf16] {
        let points = [512, 1024, 2048, 4096].map(|m: usize| -> Point<'_> {
            let bytes = stored_as(&Noise::new(2).numbers(ROWS * m), dtype);
            let mut packed = vec![0.0; packed_len(m)];
            let mut scratch = Scratch::default();
            let work = move || {
                let rows = StoredRows::bytes(&bytes, dtype, m);
                let share = |count| BlockShare::new(ROWS as f64, count as f64);
                fold_products(compute, rows, &mut packed, &mut scratch, share);
                black_box(&packed);
            };
            (m, Box::new(work))
        });
        let name = format!("accumulate: time of a token, {}, against m", dtype.name());
        series(&name, "2", points.into(), |_| ROWS);
    }
}

/// R of activations with a natural spectrum, E without structure.
fn solve_point<'a>(compute: Compute<'a>, x: usize, (m, n, k): (usize, usize, usize)) -> Point<'a> {
    let mut noise = Noise::new(3);
    let rows = stored_as(&activations(&mut noise, 2 * m, m), FloatDtype::F32);
    let mut r = vec![0.0; packed_len(m)];
    let mut seen = 0.0;
    let stored = StoredRows::bytes(&rows, FloatDtype::F32, m);
    fold_products(compute, stored, &mut r, &mut Scratch::default(), |count| {
        let share = BlockShare::new(seen, count as f64);
        seen += count as f64;
        share
    });
    let error = noise.numbers(m * n);
    let work = move || {
        let problem = LayerProblem {
            autocorrelation: &r,
            error: &error,
            in_features: m,
            rank: k,
        };
        let solved = problem.solve(compute, None);
        assert!(solved.is_ok(), "a solve failed: {:?}", solved.err());
        black_box(&solved);
    };
    (x, Box::new(work))
}

fn solve(compute: Compute<'_>, wants: impl Fn(&str) -> bool) {
    let sides = [576, 1024, 1536, 2048];
    if wants("solve-m") {
        let points = sides.map(|m| solve_point(compute, m, (m, SIDE, RANK)));
        let name = format!("solve-m: n = {SIDE}, k = {RANK}, against m");
        series(
            &name,
            "about 1: products cost 2 (2 m n + m^2) a column, the rest does not depend on m",
            points.into(),
            |_| 1,
        );
    }
    if wants("solve-n") {
        let points = sides.map(|n| solve_point(compute, n, (SIDE, n, RANK)));
        let name = format!("solve-n: m = {SIDE}, k = {RANK}, against n");
        series(
            &name,
            "below 1: the part in m^2 does not depend on n",
            points.into(),
            |_| 1,
        );
    }
    if wants("solve-k") {
        let points = [8, 16, 32, 64].map(|k| solve_point(compute, k, (SIDE, SIDE, k)));
        let name = format!("solve-k: m = n = {SIDE}, against k");
        series(
            &name,
            "about 1, in steps: blocks are whole vectors of 16",
            points.into(),
            |_| 1,
        );
    }
}

fn main() {
    // cargo bench says --bench.
    let filter: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let wants = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part));
    let cores = Cores::new(1);
    let _core = cores.take();
    let compute = Compute::new(Kernel::best(), &cores);
    println!(
        "Kernel {}; median (least-most) of {ROUNDS}.",
        compute.kernel.name()
    );
    if wants("stream") {
        stream(compute);
    }
    if wants("accumulate") {
        accumulate(compute);
    }
    solve(compute, wants);
}
