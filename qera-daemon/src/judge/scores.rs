//! Errors on held-out blocks, and the rule that chooses by them (docs/design/mathematics.md,
//! "Shrinkage"): the largest a whose mean error, relative to no correction and averaged over the
//! site's layers, is within one standard error (over blocks) of the smallest. The plain minimum
//! picks too little shrinkage, because neighbouring rows come from one text.

use qera_core::statistics::BlockMeans;

const CONFIDENCE: f64 = 0.95;

/// Held-out error of one layer: solved without some blocks, tested on them, before A and B are
/// rounded. Where the shrinkage was chosen, the same blocks chose it among nine values, so the mean
/// is slightly optimistic. Null for `lqer`: a maximum over batches cannot leave a batch out.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct HeldOut {
    /// Fewest rows that a tested correction was solved from.
    pub rows_solved: u64,
    /// Rows that were tested on.
    pub rows_tested: u64,
    /// Blocks that the mean is over.
    pub blocks: u64,
    /// Mean over blocks of the output error per row with the correction.
    pub mean: f64,
    /// Half-width of its 95 % Student-t interval; null below two blocks.
    pub(crate) half_width: Option<f64>,
    /// Mean over blocks of the output error per row without correction.
    pub mean_without: f64,
}

/// Counts of the rows behind a held-out error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsHeldOut {
    /// Fewest rows that a correction is solved from.
    pub(crate) solved: u64,
    /// Rows that are scored, of all blocks together.
    pub(crate) tested: u64,
}

impl HeldOut {
    /// The held-out error from the mean errors of blocks, with and without correction; `None` where
    /// there are no blocks.
    pub(crate) fn of(with: &[f64], without: &[f64], rows: RowsHeldOut) -> Option<Self> {
        if with.is_empty() {
            return None;
        }
        let with = block_means(with.iter().copied());
        let interval = with.interval(CONFIDENCE);
        Some(Self {
            rows_solved: rows.solved,
            rows_tested: rows.tested,
            blocks: with.count(),
            mean: with.mean(),
            half_width: interval.map(|interval| interval.half_width),
            mean_without: block_means(without.iter().copied()).mean(),
        })
    }
}

/// Mean errors per row of some blocks, for one layer.
#[derive(Debug)]
pub(crate) struct BlockErrors {
    /// With correction: `[candidate][block]`.
    pub(crate) with: Vec<Vec<f64>>,
    /// Without correction: `[block]`.
    pub(crate) without: Vec<f64>,
}

impl BlockErrors {
    /// Errors of no block yet.
    pub(crate) fn new(candidates: usize) -> Self {
        Self {
            with: vec![Vec::new(); candidates],
            without: Vec::new(),
        }
    }

    pub(crate) fn are_finite(&self) -> bool {
        let mut all = self.with.iter().flatten().chain(&self.without);
        all.all(|e| e.is_finite())
    }
}

/// Errors per layer, candidate and block.
pub(crate) struct Scores {
    /// With correction: `[layer][candidate][block]`.
    with: Vec<Vec<Vec<f64>>>,
    /// Without correction: `[layer][block]`.
    without: Vec<Vec<f64>>,
    candidates: usize,
    rows: RowsHeldOut,
}

impl Scores {
    /// Scores of no layer yet.
    pub(crate) fn new(layers: usize, candidates: usize, rows: RowsHeldOut) -> Self {
        Self {
            with: vec![vec![Vec::new(); candidates]; layers],
            without: vec![Vec::new(); layers],
            candidates,
            rows,
        }
    }

    /// Enters the errors of a layer.
    pub(crate) fn enter(&mut self, layer: usize, errors: BlockErrors) {
        let BlockErrors { with, without } = errors;
        (self.with[layer], self.without[layer]) = (with, without);
    }

    /// The held-out error of a layer with the correction of this candidate.
    pub(crate) fn held_out(&self, layer: usize, candidate: usize) -> Option<HeldOut> {
        let (with, without) = (&self.with[layer][candidate], &self.without[layer]);
        HeldOut::of(with, without, self.rows)
    }

    /// The error of each block relative to no correction, averaged over the layers.
    fn relative(&self, candidate: usize) -> BlockMeans {
        let ratio = |with: f64, without: f64| if without > 0.0 { with / without } else { 0.0 };
        let scored = || (0..self.with.len()).filter(|&l| !self.without[l].is_empty());
        let blocks = scored().next().map_or(0, |l| self.without[l].len());
        block_means((0..blocks).map(|block| {
            let sum: f64 = scored()
                .map(|l| ratio(self.with[l][candidate][block], self.without[l][block]))
                .sum();
            sum / scored().count() as f64
        }))
    }
}

fn block_means(values: impl Iterator<Item = f64>) -> BlockMeans {
    let mut means = BlockMeans::new();
    for value in values {
        means.push(value);
    }
    means
}

/// The largest candidate within one standard error of the best one.
pub(crate) fn one_standard_error(scores: &Scores) -> usize {
    let means: Vec<BlockMeans> = (0..scores.candidates).map(|c| scores.relative(c)).collect();
    let Some(best) = means.iter().min_by(|a, b| a.mean().total_cmp(&b.mean())) else {
        return 0;
    };
    let standard_error = (best.variance().unwrap_or_default() / best.count() as f64).sqrt();
    means
        .iter()
        .rposition(|m| m.mean() <= best.mean() + standard_error)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(with: Vec<Vec<f64>>) -> Scores {
        let blocks = with[0].len();
        let candidates = with.len();
        Scores {
            with: vec![with],
            without: vec![vec![2.0; blocks]],
            candidates,
            rows: RowsHeldOut {
                solved: 1,
                tested: 1,
            },
        }
    }

    /// Relative to no correction the means are .5, .545 and .55, and the best one has standard
    /// error .0456.
    #[test]
    fn the_largest_within_one_standard_error() {
        let best = vec![0.8, 0.9, 1.1, 1.2]; // relative .4 .45 .55 .6
        let near = vec![1.09; 4]; // relative .545
        let far = vec![1.10; 4]; // relative .55
        assert_eq!(
            one_standard_error(&scores(vec![best.clone(), near.clone(), far.clone()])),
            1
        );
        assert_eq!(
            one_standard_error(&scores(vec![best, far, near])),
            2,
            "not only the neighbours"
        );
    }

    #[test]
    fn layers_count_alike_whatever_their_size() {
        let mut two = scores(vec![vec![1.0, 1.0], vec![1.5, 1.5]]);
        two.with.push(vec![vec![300.0, 300.0], vec![100.0, 100.0]]);
        two.without.push(vec![400.0, 400.0]);
        let relative = |two: &Scores, c| two.relative(c).mean();
        assert!((relative(&two, 0) - (0.5 + 0.75) / 2.0).abs() < 1e-15);
        assert!((relative(&two, 1) - (0.75 + 0.25) / 2.0).abs() < 1e-15);
        // A layer that cannot be scored does not count, be it the first or another.
        two.enter(0, BlockErrors::new(2));
        assert!((relative(&two, 0) - 0.75).abs() < 1e-15);
        assert!(two.held_out(0, 0).is_none() && two.held_out(1, 0).is_some());
    }
}
