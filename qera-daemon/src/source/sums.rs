//! The sums over rows of an admitted shard. Each is read whole, and every number of it is checked
//! before any is folded.
//!
//! A sum S = sum w x^T x of rows obeys inequalities (Cauchy-Schwarz, over the rows and over the
//! channels): S_ii >= 0, |S_ij| <= sqrt(S_ii S_jj), and sum w |x_i| <= sqrt(W S_ii) with W = sum w.
//! The largest batch mean of |x_i| is at least the mean. Where every row has weight 1 it is at most
//! the sum and at most sqrt(S_ii), and S_ii is at most the square of sum |x_i|. Each holds within
//! [`ROUNDING`], because sums of f32 products over many rows of a constant channel are off by 1e-5.
//! A square below the smallest f32 may have become 0 in each row.

use qera_core::dtype::MAGNITUDE_MAX;

use crate::disk::clock::{now, since};
use crate::disk::open_file::OpenFile;
use crate::host::core_time::{WorkKind, doing};
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::row_weights::Extent;
use crate::host::second_moment::summed::PackedSum;
use crate::source::bad_sum::BadSum;
use crate::source::definite::negative_value;
use crate::source::pass::{PIECE_BYTES, Pass};
use crate::source::refusal::Reason;
use crate::source::sum_entry::{SumDtype, SumEntry, SumTensor};
use crate::source::sum_names::{ABS_SUM, BATCH_MAX, XTX, XTX_WEIGHT};

/// The relative tolerance of these inequalities.
const ROUNDING: f64 = 1e-4;
/// The number of numbers that are checked at a time.
const PIECE: usize = 512;

/// A sum over rows of one site.
#[derive(Debug)]
pub(crate) struct SummedRows {
    /// The site that it feeds.
    pub(crate) site: usize,
    /// Width of a row.
    pub(crate) in_features: usize,
    /// The rows that it is over, and their weight.
    pub(crate) extent: Extent,
    /// The packed triangle, as the shard stores it.
    bytes: PageVec<u8>,
    dtype: SumDtype,
    /// The sum of |x| for each channel.
    pub(crate) abs_sum: Option<Vec<f64>>,
    /// The largest batch mean of |x| for each channel.
    pub(crate) batch_max: Option<Vec<f64>>,
}

impl SummedRows {
    /// The sum of x^T x.
    pub(crate) fn xtx(&self) -> PackedSum<'_> {
        match self.dtype {
            SumDtype::F32 => PackedSum::f32(&self.bytes, self.in_features),
            SumDtype::F64 => PackedSum::f64(&self.bytes, self.in_features),
        }
    }

    /// The number of rows.
    pub(crate) const fn rows(&self) -> u64 {
        self.extent.rows
    }

    /// A copy of this sum for another site.
    #[must_use]
    pub(crate) fn for_site(&self, site: usize) -> Self {
        Self {
            site,
            bytes: self.bytes.clone(),
            abs_sum: self.abs_sum.clone(),
            batch_max: self.batch_max.clone(),
            ..*self
        }
    }
}

/// Checks that two modules of a site have the same sum.
///
/// # Errors
/// [`BadSum`] with what differs.
pub(crate) fn check_same_sum(
    first: &str,
    known: &SummedRows,
    second: &str,
    sum: &SummedRows,
) -> Result<(), BadSum> {
    match difference(known, sum) {
        None => Ok(()),
        Some(what) => Err(BadSum::Differ {
            first: first.to_owned(),
            second: second.to_owned(),
            what,
        }),
    }
}

/// Reads and checks a sum. The triangle is read when the pass comes to it; the parts beside it,
/// some numbers for each channel, are read ahead.
///
/// # Errors
/// [`Reason`] where it cannot be read, or where no rows can have such a sum.
pub(crate) fn read_sum(
    pass: &mut Pass<'_>,
    file: &OpenFile,
    entry: &SumEntry,
) -> Result<SummedRows, Reason> {
    let unread = |part: &str, error| Reason::Read {
        key: format!("{}{part}", entry.key),
        error,
    };
    let numbers = |part: &str, tensor: Option<SumTensor>| {
        let numbers = tensor.map(|of| {
            let mut bytes = vec![0; of.bytes];
            let read = file.read_exact_at(&mut bytes, of.start);
            read.map(|()| widened(&bytes, of.dtype))
                .map_err(|error| unread(part, error))
        });
        numbers.transpose()
    };
    let extent = match numbers(XTX_WEIGHT, entry.weight)?.as_deref() {
        Some(&[weight, squares]) => Extent {
            weight,
            squares: Some(squares),
            ..Extent::rows(entry.rows)
        },
        _ => Extent::rows(entry.rows),
    };
    let (abs_sum, batch_max) = (
        numbers(ABS_SUM, entry.abs_sum)?,
        numbers(BATCH_MAX, entry.batch_max)?,
    );
    let bytes = triangle(pass, entry.xtx).map_err(|error| unread(XTX, error))?;
    let sum = SummedRows {
        site: entry.site,
        in_features: entry.in_features,
        extent,
        bytes,
        dtype: entry.xtx.dtype,
        abs_sum,
        batch_max,
    };
    let begun = now();
    doing(WorkKind::Check, || Checked::new(&entry.key, &sum)?.check())?;
    pass.checked(since(begun));
    Ok(sum)
}

/// Reads the bytes of a packed triangle, a piece at a time.
fn triangle(pass: &mut Pass<'_>, tensor: SumTensor) -> std::io::Result<PageVec<u8>> {
    pass.pass_to(tensor.start)?;
    let mut bytes = PageVec::zeroed(tensor.bytes);
    for piece in bytes.chunks_mut(PIECE_BYTES) {
        pass.take(piece)?;
    }
    Ok(bytes)
}

fn widened(bytes: &[u8], dtype: SumDtype) -> Vec<f64> {
    match dtype {
        SumDtype::F32 => {
            let numbers = bytes.as_chunks().0.iter();
            numbers.map(|le| f32::from_le_bytes(*le).into()).collect()
        }
        SumDtype::F64 => {
            let numbers = bytes.as_chunks().0.iter();
            numbers.map(|le| f64::from_le_bytes(*le)).collect()
        }
    }
}

/// The part in which two sums differ.
fn difference(a: &SummedRows, b: &SummedRows) -> Option<String> {
    if a.extent != b.extent {
        return Some(format!(
            "their rows: {} and {}, or the weights of these",
            a.extent.rows, b.extent.rows
        ));
    }
    if a.abs_sum != b.abs_sum || a.batch_max != b.batch_max {
        return Some(format!("{ABS_SUM} or {BATCH_MAX}"));
    }
    if a.dtype == b.dtype && a.bytes == b.bytes {
        return None;
    }
    let (left, right) = (a.xtx(), b.xtx());
    let [mut x, mut y] = [[0.0; PIECE]; 2];
    for first in (0..left.count()).step_by(PIECE) {
        let length = PIECE.min(left.count() - first);
        left.widen(first, &mut x[..length]);
        right.widen(first, &mut y[..length]);
        let differ = |(x, y): (&f64, &f64)| (x - y).abs() > 0.0;
        let pairs = x[..length].iter().zip(&y[..length]);
        if let Some(at) = pairs.map(differ).position(|differs| differs) {
            return Some(format!("number {}", first + at));
        }
    }
    None
}

/// A sum that is being checked.
struct Checked<'a> {
    key: &'a str,
    sum: &'a SummedRows,
    /// sqrt(S_ii + what underflow may have lost).
    roots: Vec<f64>,
}

impl<'a> Checked<'a> {
    /// Checks the diagonal and the weights, by which the rest is judged.
    fn new(key: &'a str, sum: &'a SummedRows) -> Result<Self, BadSum> {
        check_weights(key, &sum.extent)?;
        let most = sum.extent.weight * f64::from(MAGNITUDE_MAX).powi(2) * (1.0 + ROUNDING);
        let lost = lost(&sum.extent);
        let mut roots = sum.xtx().diagonal();
        for (channel, square) in roots.iter_mut().enumerate() {
            if !(0.0..=most).contains(square) {
                return Err(BadSum::Square {
                    key: key.to_owned(),
                    channel,
                    value: *square,
                    most,
                });
            }
            *square = (*square + lost).sqrt();
        }
        Ok(Self { key, sum, roots })
    }

    fn check(&self) -> Result<(), BadSum> {
        (0..self.roots.len()).try_for_each(|i| self.check_row(i))?;
        self.check_definite()?;
        self.check_abs()?;
        self.check_batch_max()
    }

    fn check_definite(&self) -> Result<(), BadSum> {
        match negative_value(&self.sum.xtx(), &self.roots) {
            None => Ok(()),
            Some(value) => Err(BadSum::Indefinite {
                key: self.key.to_owned(),
                value,
            }),
        }
    }

    /// Checks row i of the triangle.
    fn check_row(&self, i: usize) -> Result<(), BadSum> {
        let (xtx, mut piece) = (self.sum.xtx(), [0.0; PIECE]);
        let (start, root) = (xtx.row(i).start, self.roots[i] * (1.0 + ROUNDING));
        for first in (i..self.roots.len()).step_by(PIECE) {
            let roots = &self.roots[first..(first + PIECE).min(self.roots.len())];
            let values = &mut piece[..roots.len()];
            xtx.widen(start + first - i, values);
            let pairs = || values.iter().zip(roots);
            // Without an early exit, so that it vectorises; NaN is not within anything.
            let within = pairs().map(|(value, other)| value.abs() <= root * other);
            if within.fold(true, |all, one| all & one) {
                continue;
            }
            let mut places = pairs().enumerate();
            let bad = places.find(|(_, (value, other))| {
                let within = value.abs() <= root * **other;
                !within
            });
            if let Some((at, (&value, other))) = bad {
                return Err(self.bad_entry(i, first + at, value, self.roots[i] * other));
            }
        }
        Ok(())
    }

    fn bad_entry(&self, row: usize, column: usize, value: f64, most: f64) -> BadSum {
        let key = self.key.to_owned();
        if value.is_finite() {
            BadSum::Product {
                key,
                row,
                column,
                value,
                most,
            }
        } else {
            BadSum::NotFinite {
                key,
                row,
                column,
                value,
            }
        }
    }

    fn check_abs(&self) -> Result<(), BadSum> {
        let Extent {
            weight, squares, ..
        } = self.sum.extent;
        let roots = self.roots.iter();
        let bounds = roots.map(|root| Bounds {
            // The root allows for underflow, and so may be this much too large.
            least: match squares {
                None => root - lost(&self.sum.extent).sqrt(),
                Some(_) => 0.0,
            },
            most: root * weight.sqrt(),
        });
        self.check_channels(ABS_SUM, self.sum.abs_sum.as_deref(), bounds)
    }

    fn check_batch_max(&self) -> Result<(), BadSum> {
        let Extent {
            weight, squares, ..
        } = self.sum.extent;
        let abs_sum = self.sum.abs_sum.as_deref();
        let bounds = self.roots.iter().enumerate().map(|(channel, root)| {
            let abs_sum = abs_sum.map(|sums| sums[channel]);
            Bounds {
                least: abs_sum.unwrap_or_default() / weight,
                most: match squares {
                    None => abs_sum.unwrap_or(f64::INFINITY).min(*root),
                    Some(_) => f64::from(MAGNITUDE_MAX),
                },
            }
        });
        self.check_channels(BATCH_MAX, self.sum.batch_max.as_deref(), bounds)
    }

    fn check_channels(
        &self,
        part: &str,
        values: Option<&[f64]>,
        bounds: impl Iterator<Item = Bounds>,
    ) -> Result<(), BadSum> {
        let values = values.unwrap_or_default();
        for (channel, (&value, Bounds { least, most })) in values.iter().zip(bounds).enumerate() {
            let within = least * (1.0 - ROUNDING)..=most * (1.0 + ROUNDING);
            // Negative values are refused, whatever the rounding.
            if value < 0.0 || !within.contains(&value) {
                return Err(BadSum::Channel {
                    key: format!("{}{part}", self.key),
                    channel,
                    value,
                    least: least.max(0.0),
                    most,
                });
            }
        }
        Ok(())
    }
}

/// How much underflow of products may have taken from a sum of squares.
fn lost(of: &Extent) -> f64 {
    of.weight.max(of.rows as f64) * f64::from(f32::MIN_POSITIVE)
}

/// The bounds of a channel's statistic.
struct Bounds {
    least: f64,
    most: f64,
}

/// Checks that rows can have weights with this sum and this sum of squares: for n rows (sum w)^2 /
/// n <= sum w^2 <= (sum w)^2.
fn check_weights(key: &str, of: &Extent) -> Result<(), BadSum> {
    let Some(squares) = of.squares else {
        return Ok(());
    };
    let (rows, sum) = (of.rows, of.weight);
    let square = sum * sum;
    let most = square * (1.0 + ROUNDING);
    let least = square / rows as f64 * (1.0 - ROUNDING);
    let are_weights = sum > 0.0 && square.is_finite() && (least..=most).contains(&squares);
    if are_weights && squares > 0.0 {
        return Ok(());
    }
    Err(BadSum::Weights {
        key: key.to_owned(),
        sum,
        squares,
        rows,
    })
}

#[cfg(test)]
impl SummedRows {
    /// A sum in f64 that is not checked.
    pub(crate) fn taken(in_features: usize, extent: Extent, xtx: &[f64]) -> Self {
        let bytes: Vec<u8> = xtx.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self {
            site: 0,
            in_features,
            extent,
            bytes: bytes.into(),
            dtype: SumDtype::F64,
            abs_sum: None,
            batch_max: None,
        }
    }
}
