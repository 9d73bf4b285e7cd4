//! What solving one layer costs, for the plan: what exists at one time, stage by stage.
//!
//! What exists at one time is of two kinds. E, R, their packed forms and bases have pages of their
//! own, which serve the next array of their size or go back to the system: these are added up for
//! each stage, and the largest sum counts. The rest (skinny products, small matrices) comes from
//! the allocator, which keeps freed memory for the next stage: of these the largest stage counts,
//! in addition.

use crate::host::kernels::rank_update::trace_bytes;
use crate::host::output_sketch::OutputSketch;
use crate::host::second_moment::SecondMomentKind;
use crate::host::second_moment::packed::{BAND, SUMS, is_traced_in_f64};
use crate::host::subspace::cycle::{first_block, kept, nearby};
use crate::host::subspace::top::{DENSE_PANEL, is_dense, krylov_columns};
use crate::judge::evidence::GROUP_ROWS;
use crate::judge::sampled_folds::SCORED_ROWS;
use crate::judge::shared_basis::{BLENDS, BLOCKS, columns_max, shared_columns};
use crate::judge::training::FOLDS;
use crate::judge::yardstick::ROWS;

/// How many f64 copies of a small matrix exist while it is decomposed.
const DECOMPOSED: usize = 7;

/// The memory of one stage of a solve, in bytes.
struct SolveStage {
    /// Memory in pages of its own.
    pages: usize,
    /// Memory from the allocator.
    allocated: usize,
}

/// The sizes that the cost depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity {
    /// in_features.
    pub(crate) m: usize,
    /// out_features.
    pub(crate) n: usize,
    /// Rank.
    pub(crate) rank: usize,
    /// Whether products are taken with the full R (QERA-exact).
    pub(crate) full: bool,
    /// Rows of the sketch that they are taken with where it stands for R.
    pub(crate) sketch: Option<usize>,
    /// How errors are measured: with R, or with rows where only R's diagonal is gathered.
    pub(crate) second_moment: SecondMomentKind,
    /// The bytes of a row in f32, where rows are kept in fewer bits: some are widened at a time to
    /// be taken out of R.
    pub(crate) widened_bytes: usize,
    /// Rows of the window that are left out at a time.
    pub(crate) fold_rows: usize,
    /// Candidates scored in each fold.
    pub(crate) candidates: usize,
    /// Whether A and B are rounded to blocks, which turns them first.
    pub(crate) in_blocks: bool,
    /// Whether corrections of earlier solve points are scored.
    pub(crate) live: bool,
}

impl Quantity {
    /// Working memory at its peak, in bytes.
    #[must_use]
    pub(crate) fn bytes(self) -> u64 {
        let stages = [
            self.tracing(),
            self.sketching(),
            self.judging(),
            self.searching(),
            self.measuring(),
        ];
        let most = |of: fn(&SolveStage) -> usize| stages.iter().map(of).max().unwrap_or_default();
        let full = if self.full { 4 * self.m * self.m } else { 0 };
        // A sketch of every row that came, and its numbers in f64.
        let sketch = self.sketch.map_or(0, |kept| 12 * kept * self.n);
        (full + sketch + most(|s| s.pages) + most(|s| s.allocated)) as u64
    }

    /// The bytes that a refit needs beside R and E; whoever rounds holds these anyway.
    #[must_use]
    pub(crate) fn refit_bytes(self) -> usize {
        let errors = 8 * self.m * self.n;
        let beside = |s: &SolveStage| (s.pages.saturating_sub(errors)) + s.allocated;
        let stages = [self.tracing(), self.searching(), self.measuring()];
        stages.iter().map(beside).max().unwrap_or_default()
    }

    /// Operations of a refit, about: one search for V, and the measurement of f.
    #[must_use]
    pub(crate) fn refit_flops(self) -> f64 {
        self.search_flops() + 2.0 * (self.m as f64).powi(2) * self.n as f64
    }

    /// Operations of one search: nine blocks in the first cycle, two in the second.
    fn search_flops(self) -> f64 {
        (9 * first_block(self.rank) + 2 * kept(self.rank)) as f64 * self.apply_flops()
    }

    /// Operations of G times a vector.
    fn apply_flops(self) -> f64 {
        let (m, n) = (self.m as f64, self.n as f64);
        let sketch = self.sketch.map_or(0.0, |kept| 4.0 * kept as f64 * n);
        4.0 * m * n + sketch + if self.full { 2.0 * m * m } else { 0.0 }
    }

    /// E, and what shrinks into a sketch the rows that waited.
    fn sketching(self) -> SolveStage {
        let Self { m, n, .. } = self;
        let Some(kept) = self.sketch else {
            return SolveStage {
                pages: 0,
                allocated: 0,
            };
        };
        SolveStage {
            pages: 4 * m * n,
            allocated: OutputSketch::fold_bytes(m, n, kept),
        }
    }

    /// Whether rows are left out of R, or of what stands for it.
    const fn leaves_out(self) -> bool {
        self.full || self.sketch.is_some()
    }

    /// The stage of tr(R E E^T): W or E, and its packed form.
    fn tracing(self) -> SolveStage {
        let Self { m, n, .. } = self;
        let (packed, allocated) = if !self.second_moment.is_whole() {
            (0, 0)
        } else if is_traced_in_f64(m, n) {
            ((8 * m * n).max(trace_bytes(m, n)), 8 * BAND * m)
        } else {
            (trace_bytes(m, n), 0)
        };
        SolveStage {
            pages: 4 * m * n + packed,
            allocated,
        }
    }

    /// The stage of held-out errors: E twice. The folds share Q, T and R T; each adds its W, the
    /// outputs of the rows left out, and the rows that are scored. Before the folds come the
    /// candidates' Krylov basis, where there are candidates, or else the correction that was found.
    fn judging(self) -> SolveStage {
        let Self { m, n, rank, .. } = self;
        let auto = self.candidates > 1;
        let columns = columns_max(n, rank);
        let (shared, added) = if auto {
            (shared_columns(n, rank), BLENDS.len() * rank)
        } else {
            (nearby(rank).min(n), rank)
        };
        let added = added.min(n - shared);
        let both = shared + added;
        // T and R T, or T and what a sketch makes of the vectors.
        let images_of = m + self.sketch.unwrap_or(m);
        let rows = if self.leaves_out() { self.fold_rows } else { 0 };
        let outputs = 8 * rows * (both + rank);
        let scored = SCORED_ROWS * (4 * m + 8 * both) + SCORED_ROWS / 4 * 8 * (m + n);
        let fold =
            8 * shared * (n + images_of) + 8 * added * (2 * n + m + images_of) + outputs + scored;
        let decomposed = |size: usize| 8 * DECOMPOSED * size * size;
        let (pages, before) = if auto {
            let block = if columns == n { n } else { columns / BLOCKS };
            let images = 8 * block * (2 * n + 4 * m) + 8 * shared * (n + images_of);
            let krylov = 8 * columns * (n + images_of);
            (krylov, images.max(8 * m * columns) + decomposed(columns))
        } else {
            (0, 0)
        };
        let found = if auto {
            0
        } else {
            self.correction() + 8 * n * shared
        };
        let widened = if self.leaves_out() {
            self.widened_bytes
        } else {
            0
        };
        SolveStage {
            pages: 8 * m * n + pages.max(widened),
            allocated: found + before.max(fold + decomposed(both)),
        }
    }

    /// The bytes of T, R T and the factors in f64.
    const fn correction(self) -> usize {
        8 * self.rank * (3 * self.m + 2 * self.n)
    }

    /// The stage of the search for V: E twice, and G with its decomposition where it is formed,
    /// else the Krylov basis and the skinny products.
    fn searching(self) -> SolveStage {
        let Self { m, n, rank, .. } = self;
        // R in f64, a band at a time, is added up in several sums; where only its diagonal is
        // gathered there is none.
        let (sums, band) = if self.second_moment.is_whole() {
            (SUMS, BAND)
        } else {
            (0, 0)
        };
        if is_dense(n, rank) {
            let products = DENSE_PANEL * (8 * n + 8 * (sums + 3) * m);
            return SolveStage {
                pages: 8 * m * n,
                allocated: 8 * DECOMPOSED * n * n + products + 8 * band * m,
            };
        }
        let (columns, block) = (krylov_columns(n, rank), kept(rank).max(first_block(rank)));
        let precise = 8 * rank * (2 * n + (sums + 3) * m) + 8 * sums * band * m;
        SolveStage {
            pages: 8 * m * n + 8 * n * columns,
            allocated: 8 * DECOMPOSED * columns * columns + 8 * block * (5 * n + 3 * m) + precise,
        }
    }

    /// The stage of rounding and measuring: E twice; T, R T, the factors and the turned factors;
    /// then the change by rounding, times R and E. Or the outputs of some rows.
    fn measuring(self) -> SolveStage {
        let Self { m, n, rank, .. } = self;
        let turned = if self.in_blocks { 3 * m + 2 * n } else { 0 };
        let factors = self.correction() + 8 * rank * turned;
        let scored = if self.live {
            GROUP_ROWS * (4 * m + 8 * n)
        } else {
            0
        };
        let measured = if self.second_moment.is_whole() {
            8 * rank * ((6 + SUMS) * m + 4 * n) + 8 * BAND * m
        } else {
            ROWS * (12 * m + 16 * n)
        };
        SolveStage {
            pages: 8 * m * n,
            allocated: factors + measured.max(scored),
        }
    }

    /// The bytes of the vectors that the next solve starts from.
    #[must_use]
    pub(crate) const fn vector_bytes(self) -> usize {
        let columns = kept(self.rank);
        8 * self.n * if columns < self.n { columns } else { self.n }
    }

    /// Operations, about: two traces, the products of the published solve, those of the basis that
    /// all folds share, those that each of them adds, and the rows that are scored.
    #[must_use]
    pub(crate) fn flops(self) -> f64 {
        let (m, n) = (self.m as f64, self.n as f64);
        let full = if self.full { m * m } else { 0.0 };
        let apply = self.apply_flops();
        let traces = 2.0 * m * m * n;
        let solve = self.search_flops();
        let (krylov, shared, added) = if self.candidates > 1 {
            let added = BLENDS.len() * self.rank;
            let shared = shared_columns(self.n, self.rank);
            (columns_max(self.n, self.rank), shared, added)
        } else {
            (0, nearby(self.rank).min(self.n), self.rank)
        };
        let rows = 2.0 * m * FOLDS * self.fold_rows as f64;
        let rows = if self.leaves_out() { rows } else { 0.0 };
        let (krylov, shared, added) = (krylov as f64, shared as f64, added as f64);
        let begun = krylov * apply + shared * (2.0 * m * n + 2.0 * full + rows);
        let folds = begun + added * (FOLDS * apply + 2.0 * rows);
        let scored = SCORED_ROWS as f64 * 2.0 * m * (n + shared + added);
        traces + solve + folds + scored
    }
}
