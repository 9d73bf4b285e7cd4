//! The innermost loops of `neon` against the same sums in f64, as a small program for the emulator:
//! whole tiles, half ones, and every number of steps that is left over.

mod micro;

use micro::{TILE_MAX, neon};

const COLUMNS: usize = 8;

/// Numbers in [-1/2, 1/2) by Knuth's linear congruence.
struct Numbers(u64);

impl Numbers {
    fn of(&mut self, count: usize) -> Vec<f64> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
            f64::from((self.0 >> 40) as u32) / f64::from(1_u32 << 24) - 0.5
        };
        (0..count).map(|_| next()).collect()
    }
}

fn narrow(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|x| *x as f32).collect()
}

/// Holds sums, as many as lanes for each column, against those of `a`, step by step, and columns.
fn check(what: &str, a: &[f64], columns: &[Vec<f64>], sums: &[f64], tolerance: f64) {
    let steps = columns[0].len();
    let lanes = a.len() / steps;
    for (column, sums) in columns.iter().zip(sums.chunks_exact(lanes)) {
        for (lane, found) in sums.iter().enumerate() {
            let terms = column.iter().zip(a.chunks_exact(lanes));
            let exact: f64 = terms.map(|(b, a)| a[lane] * b).sum();
            assert!(
                (found - exact).abs() <= tolerance * (steps as f64).sqrt(),
                "{what}, {steps} steps of {lanes} lanes: {found} for {exact}"
            );
        }
    }
}

fn widen(tile: &[f32]) -> Vec<f64> {
    tile.iter().map(|x| f64::from(*x)).collect()
}

fn main() {
    let mut numbers = Numbers(1);
    for steps in [1, 2, 3, 4, 5, 6, 7, 8, 511, 512, 513] {
        let columns: Vec<Vec<f64>> = (0..COLUMNS).map(|_| numbers.of(steps)).collect();
        let short: Vec<Vec<f32>> = columns.iter().map(|column| narrow(column)).collect();
        let lent = || core::array::from_fn(|c: usize| short[c].as_slice());
        let (mut tile, mut wide) = ([0.0; TILE_MAX], [0.0; TILE_MAX]);

        let a = numbers.of(neon::LANES * steps);
        let packed: Vec<f32> = (0..COLUMNS * steps)
            .map(|i| short[i % COLUMNS][i / COLUMNS])
            .collect();
        neon::packed(&narrow(&a), &packed, &mut tile);
        check("packed", &a, &columns, &widen(&tile), 1e-6);
        for vectors in [1, 2] {
            let a = numbers.of(4 * vectors * steps);
            neon::columns(vectors, &narrow(&a), lent(), &mut tile);
            check("columns", &a, &columns, &widen(&tile), 1e-6);
            let a = numbers.of(2 * vectors * steps);
            neon::columns_f64(vectors, &a, lent(), &mut wide);
            check("columns_f64", &a, &columns, &wide, 1e-15);
        }
    }
    println!("loops: every sum is right");
}
