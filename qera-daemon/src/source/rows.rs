//! The rows of an admitted shard, every one of them checked before any is accumulated.
//!
//! The file is read, not mapped: its producer may still hold it. The rows stay as they are stored;
//! whoever needs numbers widens a piece of them.

use std::collections::HashMap;

use qera_core::dtype::{FloatDtype, keep_rows};

use crate::disk::open_file::OpenFile;
use crate::host::core_time::{WorkKind, doing};
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::row_weights::RowWeights;
use crate::host::kernels::stored::StoredRows;
use crate::source::admission::{Admitted, Counting, Entry};
use crate::source::refusal::{Reason, Refusal};
use crate::source::shard::{MASK, WEIGHT};

/// The rows of one site in one shard.
#[derive(Debug)]
pub struct Batch {
    /// Site that they feed.
    pub site: usize,
    /// Width of a row.
    pub in_features: usize,
    /// Row-major, little-endian; padding rows are already gone.
    pub bytes: PageVec<u8>,
    /// Type of the numbers.
    pub dtype: FloatDtype,
    /// A weight for each row, where they are not all 1.
    pub weights: Option<RowWeights>,
    /// Kept rows of each batch, in order; none is empty.
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

    /// How many.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.stored().rows()
    }
}

/// A shard that was read and checked.
#[derive(Debug)]
pub(crate) struct Shard {
    /// File name.
    pub(crate) name: String,
    /// One entry for each site that the shard feeds.
    pub(crate) sites: Vec<Batch>,
    /// Rows kept of the site that has most: what a person calls the tokens of the shard.
    pub(crate) rows: usize,
}

/// Reads and checks every tensor of the shard.
///
/// # Errors
/// [`Refusal`] for the first tensor that cannot be read or has a bad row, and when two layers of
/// one site differ. Nothing was accumulated then.
pub(crate) fn read(admitted: &Admitted) -> Result<Shard, Refusal> {
    let refuse = |reason| Refusal {
        shard: admitted.name.clone(),
        reason,
    };
    let file = OpenFile::open(&admitted.path).map_err(|e| refuse(Reason::Header(e.into())))?;
    let identity = file
        .identity()
        .map_err(|e| refuse(Reason::Header(e.into())))?;
    if identity != admitted.identity {
        return Err(refuse(Reason::Changed));
    }
    let mut sites: Vec<(&str, Batch)> = Vec::new();
    let mut by_site: HashMap<usize, usize> = HashMap::new();
    for entry in &admitted.entries {
        let rows = rows_of(&file, entry).map_err(refuse)?;
        match by_site.get(&rows.site).map(|&at| &sites[at]) {
            None => {
                by_site.insert(rows.site, sites.len());
                sites.push((&entry.key, rows));
            }
            Some((first, known)) => doing(WorkKind::Check, || {
                check_same(first, known, &entry.key, &rows).map_err(refuse)
            })?,
        }
    }
    // Rewritten in place meanwhile, its rows are not those of the content that was hashed.
    let after = file
        .identity()
        .map_err(|e| refuse(Reason::Header(e.into())))?;
    if after != admitted.identity {
        return Err(refuse(Reason::Changed));
    }
    let sites: Vec<_> = sites.into_iter().map(|(_, rows)| rows).collect();
    let rows = sites
        .iter()
        .map(|s| s.batches.iter().sum())
        .max()
        .unwrap_or_default();
    Ok(Shard {
        name: admitted.name.clone(),
        sites,
        rows,
    })
}

/// Reads the rows of one site of a shard that was read whole before, by the first tensor that feeds
/// it; none where none does.
///
/// # Errors
/// [`Refusal`] as for [`read`].
pub(crate) fn read_site(admitted: &Admitted, site: usize) -> Result<Option<Batch>, Refusal> {
    let refuse = |reason| Refusal {
        shard: admitted.name.clone(),
        reason,
    };
    let Some(entry) = admitted.entry_of(site) else {
        return Ok(None);
    };
    let failed = |e: std::io::Error| refuse(Reason::Header(e.into()));
    let file = OpenFile::open(&admitted.path).map_err(failed)?;
    let same = |file: &OpenFile| file.identity().map(|now| now == admitted.identity);
    let rows = rows_of(&file, entry);
    if !same(&file).map_err(failed)? {
        return Err(refuse(Reason::Changed));
    }
    rows.map(Some).map_err(refuse)
}

fn rows_of(file: &OpenFile, entry: &Entry) -> Result<Batch, Reason> {
    let fetch = |start, length| {
        doing(WorkKind::Read, || {
            let mut buffer = PageVec::zeroed(length);
            file.read_exact_at(&mut buffer, start)
                .map(|()| buffer)
                .map_err(|error| Reason::Read {
                    key: entry.key.clone(),
                    error,
                })
        })
    };
    let rows = entry.rows;
    let mut bytes = fetch(entry.start, entry.bytes)?;
    let Counted { mask, weights } = match entry.counting {
        Counting::EveryRow => Counted::default(),
        Counting::Mask(start) => {
            let mask = fetch(start, rows)?;
            if let Some(row) = mask.iter().position(|&value| value > 1) {
                let key = format!("{}{MASK}", entry.key);
                let value = mask[row];
                return Err(Reason::BadMask { key, row, value });
            }
            let mask = Some(mask);
            Counted {
                mask,
                weights: None,
            }
        }
        Counting::Weights(start) => {
            let numbers = fetch(start, rows * size_of::<f32>())?;
            counted_by(&numbers).map_err(|bad| Reason::BadWeight {
                key: format!("{}{WEIGHT}", entry.key),
                row: bad.row,
                value: bad.value,
            })?
        }
    };
    let mask = mask.as_deref();
    let (dtype, width) = (entry.dtype, entry.in_features);
    let kept = doing(WorkKind::Check, || {
        keep_rows(&mut bytes, dtype, width, mask).map_err(|error| Reason::BadRow {
            key: entry.key.clone(),
            error,
        })
    })?;
    bytes.truncate(kept * width * dtype.size_bytes());
    let length = rows / entry.sequences.unwrap_or(1).max(1);
    let kept_of = |batch: &[u8]| batch.iter().filter(|&&m| m != 0).count();
    let mut batches: Vec<usize> = match mask {
        Some(mask) => mask.chunks(length.max(1)).map(kept_of).collect(),
        None => vec![length; rows.checked_div(length).unwrap_or_default()],
    };
    batches.retain(|&rows| rows > 0);
    Ok(Batch {
        site: entry.site,
        in_features: width,
        bytes,
        dtype,
        weights,
        batches,
        sequences: entry.sequences.is_some(),
    })
}

/// Which rows count, and how much.
#[derive(Default)]
struct Counted {
    /// 0 for a row that does not; `None` where every row does.
    mask: Option<PageVec<u8>>,
    /// Of those that count; `None` where each has weight 1.
    weights: Option<RowWeights>,
}

/// A weight that no row can have.
struct RefusedWeight {
    row: usize,
    value: f32,
}

/// What little-endian f32 weights say. A row of weight 0 is left out as a masked one is; weights of
/// 0 and 1 alone are a mask.
fn counted_by(bytes: &[u8]) -> Result<Counted, RefusedWeight> {
    let weights = bytes.as_chunks::<4>().0.iter();
    let mut weights: Vec<f32> = weights.map(|le| f32::from_le_bytes(*le)).collect();
    let refused = |w: &f32| !w.is_finite() || *w < 0.0;
    if let Some(row) = weights.iter().position(refused) {
        let value = weights[row];
        return Err(RefusedWeight { row, value });
    }
    let counts: Vec<u8> = weights.iter().map(|w| u8::from(*w > 0.0)).collect();
    weights.retain(|w| *w > 0.0);
    let all_alike = weights.iter().all(|w| w.to_bits() == 1.0_f32.to_bits());
    Ok(Counted {
        mask: Some(counts.into()),
        weights: (!all_alike).then(|| RowWeights::new(weights)),
    })
}

/// Whether two members of a site have the same rows and weights.
fn check_same(first: &str, known: &Batch, second: &str, rows: &Batch) -> Result<(), Reason> {
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
