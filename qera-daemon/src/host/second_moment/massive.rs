//! Massive channels: channels so large that the f32 products of the others vanish beside theirs.
//!
//! An f32 sum leaves an error of 1e-7 of sqrt(R_ii R_jj) in R_ij (1e-5 where a channel holds one
//! value in every row). But what a correction leaves of massive channels is as small as what it
//! leaves of the others: where channels are constant, or follow each other, their R is of rank one,
//! the first vector of the correction takes all of it, and the rest of f is 1e-7 of tr(R E E^T) or
//! less. So the rows of R of massive channels are summed in f64 ([`MassiveRows`]), c m numbers in
//! the place of m^2. Beyond a spread that f32 products with R cannot follow, the site is solved in
//! f64.
//!
//! Which channels are massive is a function of moments alone, so that nothing of it is saved.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use qera_core::packed::packed_offset;
use qera_core::statistics::BlockShare;

use crate::host::kernels::row_weights::Extent;
use crate::host::kernels::stored::StoredRows;
use crate::host::second_moment::channels::ChannelMoments;

/// A channel is massive if its E[x^2] is this many times the mean of the other channels'.
const MASSIVE: f64 = 1024.0;
/// The same for a channel that hardly varies. Its rounding errors all have one sign, so that they
/// show a hundred times earlier.
const MASSIVE_CONSTANT: f64 = 4.0;
/// A channel hardly varies if its squared mean is this many times its variance, over at least this
/// many rows. Few rows are alike by chance, and then rounding errors do not add up to much.
const CONSTANT: f64 = 100.0;
const CONSTANT_ROWS: f64 = 64.0;
/// With a spread of this size or more, f32 products with R are not enough for a solve: at 1e6 their
/// excess is 1e-8, at 1e8 they find nothing of the rest.
const IN_F64: f64 = (1 << 18) as f64;
/// The relative error of R_ii: of a constant channel by f32 sums whose rounding errors all have one
/// sign, of a massive channel by some thousands of f64 folds.
pub(crate) const ERROR_CONSTANT: f64 = 1e-5;
pub(crate) const ERROR_F64: f64 = 3e-15;
/// The most channels that are massive, and the most of all channels. Where more of them are large,
/// that is what is ordinary there.
const MOST: usize = 64;
const SHARE_MOST: usize = 8;
/// Rows widened to f64 at a time.
const ROWS: usize = 64;

/// E[x^2] of a channel, and the value by which the channel is judged.
#[derive(Debug, Clone, Copy)]
struct Weighed {
    channel: usize,
    square: f64,
    weighed: f64,
}

/// The indices of the massive channels, given the moments of all over these rows.
pub(crate) fn massive_channels(moments: &ChannelMoments, over: &Extent) -> Vec<usize> {
    let channels = moments.mean.iter().zip(&moments.m2).enumerate();
    let weighed = channels.map(|(channel, (mean, m2))| {
        let square = mean * mean + m2 / over.weight;
        let weight = if is_constant(*mean, *m2, over) {
            MASSIVE / MASSIVE_CONSTANT
        } else {
            1.0
        };
        Weighed {
            channel,
            square,
            weighed: weight * square,
        }
    });
    select(weighed.collect(), MASSIVE)
}

/// The massive channels of an R with this diagonal.
pub(crate) fn massive_of(diagonal: &[f64]) -> Vec<usize> {
    select(as_they_are(diagonal), MASSIVE)
}

/// Whether f32 products cannot follow an R with this diagonal.
pub(crate) fn needs_f64(diagonal: &[f64]) -> bool {
    !select(as_they_are(diagonal), IN_F64).is_empty()
}

fn as_they_are(diagonal: &[f64]) -> Vec<Weighed> {
    let channels = diagonal.iter().enumerate();
    let weighed = channels.map(|(channel, square)| Weighed {
        channel,
        square: *square,
        weighed: *square,
    });
    weighed.collect()
}

/// Whether a channel hardly varies.
fn is_constant(mean: f64, m2: f64, over: &Extent) -> bool {
    over.effective_rows() >= CONSTANT_ROWS && mean * mean * over.weight > CONSTANT * m2
}

/// The absolute uncertainty of each R_ii, about an upper bound, in an R gathered from channels with
/// these moments over these rows; 0 where rounding errors average out. `summed` is the relative
/// uncertainty that rows which came as sums add.
pub(crate) fn entry_errors(moments: &ChannelMoments, over: &Extent, summed: f64) -> Vec<f64> {
    let massive = massive_channels(moments, over);
    let channels = moments.mean.iter().zip(&moments.m2).enumerate();
    let errors = channels.map(|(channel, (mean, m2))| {
        let relative = if massive.binary_search(&channel).is_ok() {
            ERROR_F64 + summed
        } else if is_constant(*mean, *m2, over) {
            ERROR_CONSTANT
        } else {
            0.0
        };
        relative * (mean * mean + m2 / over.weight)
    });
    errors.collect()
}

/// The largest set of channels that are each at least `factor` times the mean of the channels
/// outside of it.
fn select(mut all: Vec<Weighed>, factor: f64) -> Vec<usize> {
    let most = MOST.min(all.len() / SHARE_MOST);
    if most == 0 {
        return Vec::new();
    }
    let larger = |a: &Weighed, b: &Weighed| {
        let by_size = b.weighed.total_cmp(&a.weighed);
        by_size.then(a.channel.cmp(&b.channel))
    };
    all.select_nth_unstable_by(most, larger);
    all[..most].sort_by(larger);
    let mut others: f64 = all[most..].iter().map(|c| c.square).sum();
    let mut count = most;
    while count > 0 {
        let (least, rest) = (all[count - 1], (all.len() - count) as f64);
        // Beside zeros no channel is massive.
        if others > 0.0 && least.weighed * rest >= factor * others {
            break;
        }
        others += least.square;
        count -= 1;
    }
    let mut found: Vec<usize> = all[..count].iter().map(|c| c.channel).collect();
    found.sort_unstable();
    found
}

/// The rows of R that belong to massive channels, while a shard is folded.
#[derive(Debug)]
pub(crate) struct MassiveRows {
    channels: Vec<usize>,
    /// These rows of R before the shard: in_features numbers for each channel.
    means: Vec<f64>,
}

impl MassiveRows {
    /// Copies these rows of the packed R, before the shard is folded.
    pub(crate) fn before(channels: Vec<usize>, packed: &[f64], m: usize) -> Self {
        let rows = channels.iter();
        let means = rows.flat_map(|&i| (0..m).map(move |j| packed[at(m, i, j)]));
        Self {
            means: means.collect(),
            channels,
        }
    }

    /// Whose rows they are.
    pub(crate) fn channels(&self) -> &[usize] {
        &self.channels
    }

    /// Replaces what f32 products made of these rows by their exact means.
    pub(crate) fn fold(mut self, rows: StoredRows<'_>, share: BlockShare, packed: &mut [f64]) {
        self.take(rows, share);
        self.put(packed);
    }

    /// Folds a shard into them.
    pub(crate) fn take(&mut self, rows: StoredRows<'_>, share: BlockShare) {
        let m = rows.in_features;
        let sums = self.sums(rows);
        for (means, sums) in self.means.chunks_exact_mut(m).zip(sums.col_iter()) {
            for (mean, sum) in means.iter_mut().zip(sums.iter()) {
                share.fold(core::slice::from_mut(mean), &[*sum]);
            }
        }
    }

    /// Puts them in the place of what f32 products made of them.
    pub(crate) fn put(&self, packed: &mut [f64]) {
        let count = self.channels.len().max(1);
        let m = self.means.len() / count;
        for (&i, means) in self.channels.iter().zip(self.means.chunks_exact(m.max(1))) {
            for (j, mean) in means.iter().enumerate() {
                packed[at(m, i, j)] = *mean;
            }
        }
    }

    /// X^T X_M in f64, of rows with weights X^T W X_M in their units: in_features x channels.
    fn sums(&self, rows: StoredRows<'_>) -> Mat<f64> {
        let m = rows.in_features;
        let mut sums = Mat::zeros(m, self.channels.len());
        let (mut narrow, mut wide) = (vec![0.0; ROWS * m], vec![0.0; ROWS * m]);
        for first in (0..rows.rows()).step_by(ROWS) {
            let count = ROWS.min(rows.rows() - first);
            let narrow = &mut narrow[..count * m];
            rows.widen(first * m..(first + count) * m, narrow);
            let numbers = narrow.iter().map(|x| f64::from(*x));
            wide.iter_mut().zip(numbers).for_each(|(to, x)| *to = x);
            let x = MatRef::from_row_major_slice(&wide[..count * m], count, m);
            let unit = rows.unit();
            let massive = Mat::from_fn(count, self.channels.len(), |row, c| {
                rows.weight_of(first + row) / unit * x[(row, self.channels[c])]
            });
            matmul(
                sums.as_mut(),
                Accum::Add,
                x.transpose(),
                massive.as_ref(),
                1.0,
                Par::Seq,
            );
        }
        sums
    }
}

/// The index at which R_ij is stored.
fn at(m: usize, i: usize, j: usize) -> usize {
    let (first, second) = (i.min(j), i.max(j));
    packed_offset(m, first) + second - first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::kernels::page_vec::PageVec;
    use core::ops::Range;
    use qera_core::packed::packed_len;

    /// E[x^2] of 64 channels, 1 but for some.
    fn squares(large: Range<usize>, square: f64) -> Vec<f64> {
        let mut squares = vec![1.0; 64];
        squares[large].fill(square);
        squares
    }

    #[test]
    fn massive_is_a_thousand_times_the_others() {
        assert!(massive_of(&squares(3..4, 1023.0)).is_empty());
        let mut two = squares(3..4, 1025.0);
        two[40] = 1e8;
        assert_eq!(massive_of(&two), [3, 40]);
        assert!(needs_f64(&two) && !needs_f64(&squares(3..4, 1e5)));
        // An eighth of all channels at most, and not beside nothing.
        assert!(massive_of(&squares(0..9, 1e6)).is_empty());
        assert_eq!(massive_of(&squares(1..9, 1e6)), [1, 2, 3, 4, 5, 6, 7, 8]);
        let mut alone = vec![0.0; 64];
        alone[5] = 1.0;
        assert!(massive_of(&alone).is_empty());
        assert!(massive_of(&[]).is_empty() && massive_of(&[1e9]).is_empty());
        assert!(massive_of(&squares(1..2, f64::NAN)).is_empty());
    }

    #[test]
    fn constant_channels_are_massive_earlier() {
        let (rows, over) = (100.0, Extent::rows(100));
        let mut moments = ChannelMoments::new(64);
        moments.m2.fill(rows);
        (moments.mean[7], moments.m2[7]) = (2.1, 0.04 * rows);
        (moments.mean[9], moments.m2[9]) = (2.1, 0.05 * rows);
        (moments.mean[11], moments.m2[11]) = (1.9, 0.0);
        assert_eq!(massive_channels(&moments, &over), [7]);
        // Few rows are alike by chance, and so are many of which few weigh something.
        assert!(massive_channels(&moments, &Extent::rows(63)).is_empty());
        let uneven = Extent {
            squares: Some(rows * rows / 63.0),
            ..over
        };
        assert!(massive_channels(&moments, &uneven).is_empty());
        let errors = entry_errors(&moments, &over, 0.0);
        assert!(errors[7] < 1e-13 && errors[11] > 1e-5 && errors[9].abs() < 1e-300);
    }

    /// What f32 products made of a massive channel's row is replaced by the exact mean, and nothing
    /// else is touched.
    #[test]
    fn rows_of_massive_channels_are_exact_means() {
        let (m, seen) = (5, 3.0);
        let before: PageVec<f64> = (0..packed_len(m))
            .map(|i| i as f64)
            .collect::<Vec<_>>()
            .into();
        let rows: Vec<f32> = (0..70 * m)
            .map(|i| if i % m == 2 { 1e4 } else { i as f32 })
            .collect();
        let massive = MassiveRows::before(vec![2, 4], &before, m);
        let mut packed = vec![-1.0; packed_len(m)];
        let share = BlockShare::new(seen, 70.0);
        massive.fold(StoredRows::floats(&rows, m), share, &mut packed);
        for i in 0..m {
            for j in i..m {
                let value = packed[at(m, i, j)];
                if ![2, 4].contains(&i) && ![2, 4].contains(&j) {
                    assert_eq!(value.to_bits(), (-1.0_f64).to_bits());
                    continue;
                }
                let products = rows.chunks(m).map(|x| f64::from(x[i]) * f64::from(x[j]));
                let expected = (seen * before[at(m, i, j)] + products.sum::<f64>()) / (seen + 70.0);
                assert!((value / expected - 1.0).abs() < 1e-14, "{i} {j}");
            }
        }
    }
}
