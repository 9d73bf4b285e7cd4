//! The rows of a shard that was read whole and checked. They stay in the form in which they are
//! stored; whoever needs numbers widens a piece of them.

use std::collections::HashMap;

use qera_core::dtype::FloatDtype;

use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::row_weights::RowWeights;
use crate::host::kernels::stored::StoredRows;
use crate::source::refusal::Reason;
use crate::source::sums::SummedRows;

/// The rows of one site in one shard.
#[derive(Debug)]
pub struct Batch {
    /// The site that the rows feed.
    pub site: usize,
    /// Width of a row.
    pub in_features: usize,
    /// The bytes of the rows, little-endian and row-major, without padding rows.
    pub bytes: PageVec<u8>,
    /// Type of the numbers.
    pub dtype: FloatDtype,
    /// A weight for each row, where they are not all 1.
    pub weights: Option<RowWeights>,
    /// The number of kept rows in each batch, in order, without empty batches.
    pub batches: Vec<usize>,
    /// Whether the batches are sequences of a [batch, seq, in_features] tensor.
    pub sequences: bool,
}

impl Batch {
    /// The rows.
    #[must_use]
    pub(crate) fn stored(&self) -> StoredRows<'_> {
        let rows = StoredRows::bytes(&self.bytes, self.dtype, self.in_features);
        rows.weighted(self.weights.as_ref())
    }

    /// The number of rows.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.stored().rows()
    }

    /// Copies of these rows for another site.
    #[must_use]
    pub(crate) fn for_site(&self, site: usize) -> Self {
        Self {
            site,
            in_features: self.in_features,
            bytes: self.bytes.clone(),
            dtype: self.dtype,
            weights: self.weights.clone(),
            batches: self.batches.clone(),
            sequences: self.sequences,
        }
    }
}

/// A shard that was read and checked.
#[derive(Debug)]
pub(crate) struct Shard {
    /// File name.
    pub(crate) name: String,
    /// The rows of each site that the shard has rows for.
    pub(crate) sites: Vec<Batch>,
    /// The sums of each site that the shard has a sum for; the rows of these sums are not among the
    /// rows above.
    pub(crate) sums: Vec<SummedRows>,
    /// Rows kept for the site that has most, those in sums included: what a person calls the tokens
    /// of the shard.
    pub(crate) rows: usize,
}

impl Shard {
    /// A shard of this name.
    #[must_use]
    pub(crate) fn new(name: &str, sites: Vec<Batch>, sums: Vec<SummedRows>) -> Self {
        Self {
            name: name.to_owned(),
            rows: most_rows(&sites, &sums),
            sites,
            sums,
        }
    }
}

/// The number of rows of the site that has most.
fn most_rows(rows: &[Batch], sums: &[SummedRows]) -> usize {
    let rows = rows.iter().map(|of| (of.site, of.rows()));
    let summed = |of: &SummedRows| usize::try_from(of.rows()).unwrap_or(usize::MAX);
    let mut by_site: HashMap<usize, usize> = HashMap::new();
    for (site, count) in rows.chain(sums.iter().map(|of| (of.site, summed(of)))) {
        let all = by_site.entry(site).or_default();
        *all = all.saturating_add(count);
    }
    by_site.into_values().max().unwrap_or_default()
}

/// Checks that two layers of a site have the same rows and weights.
///
/// # Errors
/// [`Reason`] with the first row in which they differ.
pub(crate) fn check_same(
    first: &str,
    known: &Batch,
    second: &str,
    rows: &Batch,
) -> Result<(), Reason> {
    let (first, second) = (first.to_owned(), second.to_owned());
    if let Some(row) = first_difference(known, rows) {
        return Err(Reason::SiteDiffers { first, second, row });
    }
    let (known, rows) = (known.stored(), rows.stored());
    let weighs_other = |row: &usize| {
        known
            .weight_of(*row)
            .total_cmp(&rows.weight_of(*row))
            .is_ne()
    };
    if known.weights == rows.weights {
        return Ok(());
    }
    match (0..known.rows()).find(weighs_other) {
        None => Ok(()),
        Some(row) => Err(Reason::SiteWeightsDiffer { first, second, row }),
    }
}

/// The first row in which two members of a site differ (0 and -0 do not).
fn first_difference(a: &Batch, b: &Batch) -> Option<usize> {
    let width = a.in_features;
    if a.dtype == b.dtype && a.bytes == b.bytes {
        return None;
    }
    let (mut left, mut right) = (vec![0.0; width], vec![0.0; width]);
    let rows = a.rows().min(b.rows());
    let row = (0..rows).position(|row| {
        let numbers = row * width..(row + 1) * width;
        a.stored().widen(numbers.clone(), &mut left);
        b.stored().widen(numbers, &mut right);
        left.iter().zip(&right).any(|(x, y)| (x - y).abs() > 0.0)
    });
    row.or_else(|| (a.rows() != b.rows()).then_some(rows))
}
