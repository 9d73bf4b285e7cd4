//! Rounding that knows the statistics: W to W~ under a metric H, all output columns side by side.
//!
//! `metric` makes H and its factor from what stands for R and from A; `start` finds the A to begin
//! with; `lanes` is a panel of output columns, as many as the kernels take at once; `feedback`
//! rounds, `descent` improves what was rounded. The same arithmetic stands in `qera-core`
//! (`quantize/round/`) in f64, without heap or threads, and is the check of this one.

pub(crate) mod descent;
pub(crate) mod feedback;
pub(crate) mod lanes;
pub(crate) mod metric;
pub(crate) mod start;

#[cfg(test)]
mod tests {
    use super::descent::descend;
    use super::feedback::feedback;
    use super::lanes::RoundedColumns;
    use super::metric::SiteMetric;
    use crate::host::column_major::ColumnMajor;
    use crate::host::compute::Compute;
    use crate::host::cores::Cores;
    use crate::host::factors::inner;
    use crate::host::kernels::Kernel;
    use crate::host::rounding::narrow;
    use crate::host::second_moment::packed::PackedR;
    use crate::host::solve_error::SolveError;
    use faer::{Mat, MatRef};
    use nalgebra::{DMatrixView, DMatrixViewMut};
    use qera_core::dtype::FloatDtype;
    use qera_core::linalg::cholesky;
    use qera_core::pseudo_random::SplitMix64;
    use qera_core::quantize::round as core_round;
    use qera_core::quantize::{Grid, Int, Levels, Mxint, Q4_0};

    const M: usize = 104;
    const N: usize = 70;
    const K: usize = 5;
    const SHRINKAGE: f64 = 0.2;
    const BASE_SHARE: f64 = 0.05;
    const NONE: Levels = Levels {
        step: 1.0,
        lowest: 0.0,
        highest: 0.0,
    };

    /// R of correlated rows with one strong channel, its upper triangle by rows.
    fn autocorrelation(sequence: &mut SplitMix64) -> Vec<f64> {
        let rows = 3 * M;
        let common = Mat::from_fn(rows, 9, |_, _| sequence.next_symmetric());
        let mix = Mat::from_fn(9, M, |_, j| {
            sequence.next_symmetric() * if j == 7 { 20.0 } else { 1.0 }
        });
        let own = Mat::from_fn(rows, M, |_, _| 0.3 * sequence.next_symmetric());
        let x = common * mix + own;
        let r = x.transpose() * &x;
        let pairs = (0..M).flat_map(|i| (i..M).map(move |j| (i, j)));
        pairs.map(|(i, j)| r[(i, j)] / rows as f64).collect()
    }

    /// W~ and its levels.
    #[derive(Clone, PartialEq)]
    struct Made {
        values: Vec<f32>,
        levels: Vec<Levels>,
    }

    impl Made {
        fn lend(&mut self) -> RoundedColumns<'_> {
            RoundedColumns {
                values: &mut self.values,
                levels: &mut self.levels,
            }
        }

        /// Sum of e^T H e over the columns.
        fn objective(&self, h: &[f64], weight: &[f32]) -> f64 {
            let error = |i: usize, j: usize| {
                let at = j * M + i;
                f64::from(weight[at]) - f64::from(self.values[at])
            };
            let error = Mat::from_fn(M, N, error);
            let image = MatRef::from_column_major_slice(h, M, M) * &error;
            inner(&image, &error)
        }
    }

    /// The core's forms, in f64: H, W~ by feedback, and after a round of descent.
    struct Expected {
        h: Vec<f64>,
        fed_back: Made,
        descended: Made,
    }

    fn expected(r: &[f64], a: &Mat<f64>, weight: &[f32], grid: Grid) -> Expected {
        let options = core_round::MetricOptions {
            shrinkage: SHRINKAGE,
            base_share: BASE_SHARE,
            ..core_round::MetricOptions::default()
        };
        let mut h = vec![0.0; M * M];
        let a: Vec<f64> = a.col_iter().flat_map(|c| c.iter().copied()).collect();
        let mut workspace = vec![0.0; core_round::projected_metric_workspace_len(M, K)];
        let out = DMatrixViewMut::from_slice(&mut h, M, M);
        let a = DMatrixView::from_slice(&a, M, K);
        core_round::projected_metric(r, a, &options, out, &mut workspace).unwrap();
        let mut factor = h.clone();
        cholesky(DMatrixViewMut::from_slice(&mut factor, M, M)).unwrap();
        let blocks = M.div_ceil(grid.block_size());
        let mut fed_back = Made {
            values: vec![0.0; M * N],
            levels: vec![NONE; N * blocks],
        };
        let factor = DMatrixView::from_slice(&factor, M, M);
        let mut workspace = vec![0.0; core_round::feedback_workspace_len(M, grid.block_size())];
        let (values, levels) = (&mut fed_back.values, &mut fed_back.levels);
        core_round::feedback(
            factor,
            &grid,
            core_round::ScaleSearch::All,
            weight,
            values,
            levels,
            &mut workspace,
        )
        .unwrap();
        let mut descended = fed_back.clone();
        let metric = DMatrixView::from_slice(&h, M, M);
        let mut workspace = vec![0.0; core_round::descent_workspace_len(M)];
        let (values, levels) = (&mut descended.values, &descended.levels);
        core_round::descent(metric, &grid, weight, values, levels, &mut workspace).unwrap();
        Expected {
            h,
            fed_back,
            descended,
        }
    }

    /// The forms of every kernel and the core's agree in what they leave of the objective.
    #[test]
    fn host_and_core_round_alike() {
        let mut sequence = SplitMix64::new(7);
        let r = autocorrelation(&mut sequence);
        let a = Mat::from_fn(M, K, |_, _| sequence.next_symmetric());
        let weight: Vec<f32> = (0..M * N)
            .map(|_| narrow(0.1 * (sequence.next_symmetric() + sequence.next_symmetric())))
            .collect();
        let grids = [
            Grid::Mxint(Mxint::new(3, 32).unwrap()),
            Grid::Int(Int::new(4, 32, FloatDtype::F16).unwrap()),
            Grid::Int(
                Int::new(3, 64, FloatDtype::Bf16)
                    .unwrap()
                    .with_zero_points(),
            ),
            Grid::Q4_0(Q4_0),
        ];
        for (kernel, grid) in Kernel::available()
            .into_iter()
            .flat_map(|kernel| grids.map(|grid| (kernel, grid)))
        {
            let expected = expected(&r, &a, &weight, grid);
            let cores = Cores::new(2);
            let compute = Compute::new(kernel, &cores);
            let metric = SiteMetric::new(PackedR::new(&r, M), SHRINKAGE);
            let ra = PackedR::new(&r, M).times(compute, a.as_ref());
            let absorbed = metric
                .absorbed(a.as_ref(), ra.as_ref(), BASE_SHARE)
                .unwrap();
            let mut made = expected.fed_back.clone();
            made.values.fill(0.0);
            made.levels.fill(NONE);
            let columns = ColumnMajor::new(&weight, M);
            let factor = metric.factor(&absorbed).unwrap();
            feedback(compute, &factor, columns, grid, made.lend());
            let case = format!("{grid}, {}", kernel.name());
            let agree = |made: &Made, of: &Made, step: &str| {
                let [ours, core] = [made, of].map(|of| of.objective(&expected.h, &weight));
                assert!(
                    (ours / core - 1.0).abs() < 1e-6,
                    "{case} {step}: {ours} {core}"
                );
            };
            agree(&made, &expected.fed_back, "feedback");
            let before = made.clone();
            let moved = descend(compute, &metric.full(&absorbed), columns, grid, made.lend());
            assert!(moved > 0 && made != before, "{case}");
            agree(&made, &expected.descended, "descent");
            let [from, to] = [&before, &made].map(|of| of.objective(&expected.h, &weight));
            assert!(to < from, "{case}: {from} {to}");
        }
    }

    /// Without rows H = I: where a block keeps the levels of nearest rounding, W~ is nearest.
    #[test]
    fn without_rows_nothing_is_fed_back() {
        let mut sequence = SplitMix64::new(8);
        let weight: Vec<f32> = (0..M * N)
            .map(|_| narrow(sequence.next_symmetric()))
            .collect();
        let zeros = vec![0.0; M * (M + 1) / 2];
        let metric = SiteMetric::new(PackedR::new(&zeros, M), SHRINKAGE);
        let factor = metric.factor(&metric.nothing_absorbed()).unwrap();
        let grid = Grid::Mxint(Mxint::new(8, 32).unwrap());
        let mut made = Made {
            values: vec![0.0; M * N],
            levels: vec![NONE; N * M.div_ceil(32)],
        };
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        feedback(
            compute,
            &factor,
            ColumnMajor::new(&weight, M),
            grid,
            made.lend(),
        );
        let mut nearest = vec![0.0; M * N];
        grid.quantize_dequantize(&weight, M, &mut nearest).unwrap();
        let blocks = |values: &[f32]| -> Vec<Vec<f32>> {
            let rows = values.chunks_exact(M).map(|row| row.chunks(32));
            rows.flat_map(|blocks| blocks.map(<[f32]>::to_vec))
                .collect()
        };
        let all = blocks(&weight).into_iter().zip(blocks(&made.values));
        let mut same = 0;
        for ((weight, found), (nearest, levels)) in
            all.zip(blocks(&nearest).into_iter().zip(&made.levels))
        {
            if grid.candidates(&weight).first() == *levels {
                same += 1;
                assert!(
                    found
                        .iter()
                        .zip(&nearest)
                        .all(|(x, y)| (x - y).abs() == 0.0)
                );
            }
        }
        assert!(same > made.levels.len() / 2, "{same}");
    }

    #[test]
    fn an_r_that_overflowed_has_no_factor() {
        let mut sequence = SplitMix64::new(10);
        for broken in [f64::INFINITY, f64::NAN] {
            let mut r = autocorrelation(&mut sequence);
            r[0] = broken;
            let metric = SiteMetric::new(PackedR::new(&r, M), SHRINKAGE);
            let refused = metric.factor(&metric.nothing_absorbed()).map(|_| ());
            assert_eq!(refused, Err(SolveError::NotPositive), "{broken}");
        }
    }

    /// Rounding may leave R with a negative direction, larger than lambda: H has a factor all the
    /// same.
    #[test]
    fn an_r_with_a_negative_direction_has_a_factor() {
        let mut sequence = SplitMix64::new(10);
        let mut r = autocorrelation(&mut sequence);
        // R_01, far above what two channels can have in common.
        r[1] = 3.0 * r[0].max(r[M]);
        let metric = SiteMetric::new(PackedR::new(&r, M), 0.0);
        let factor = metric.factor(&metric.nothing_absorbed()).unwrap();
        assert!(factor.pivots.iter().all(|pivot| *pivot > 0.0));
    }

    /// Columns of A that say the same, and one that says nothing, absorb what one of them does.
    #[test]
    fn columns_that_repeat_absorb_nothing_more() {
        let mut sequence = SplitMix64::new(9);
        let r = autocorrelation(&mut sequence);
        let packed = PackedR::new(&r, M);
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        let one = Mat::from_fn(M, 1, |_, _| sequence.next_symmetric());
        let thrice = Mat::from_fn(M, 3, |i, j| one[(i, 0)] * [1.0, -1e4, 0.0][j]);
        let metric = SiteMetric::new(packed, SHRINKAGE);
        let [once, again] = [&one, &thrice].map(|a| {
            let ra = packed.times(compute, a.as_ref());
            let absorbed = metric.absorbed(a.as_ref(), ra.as_ref(), BASE_SHARE);
            metric.full(&absorbed.unwrap())
        });
        for k in 0..M {
            let largest = once.column(k)[k];
            for (x, y) in once.column(k).iter().zip(again.column(k)) {
                assert!((x - y).abs() <= 1e-6 * largest, "{k}: {x} {y}");
            }
        }
    }
}
