//! The rows of an admitted shard, every one of them checked before any is accumulated.
//!
//! The file is read, not mapped: its producer may still hold it. The rows stay as they are stored;
//! whoever needs numbers widens a piece of them.

use qera_core::dtype::{FloatDtype, keep_rows};

use crate::disk::open_file::OpenFile;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::StoredRows;
use crate::source::admission::{Admitted, Entry};
use crate::source::refusal::{Reason, Refusal};

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
    /// Kept rows of each batch, in order; none is empty.
    pub batches: Vec<usize>,
    /// Whether the batches are sequences of a [batch, seq, in_features] tensor.
    pub sequences: bool,
}

impl Batch {
    /// The rows.
    #[must_use]
    pub(crate) fn stored(&self) -> StoredRows<'_> {
        StoredRows::bytes(&self.bytes, self.dtype, self.in_features)
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
    for entry in &admitted.entries {
        let rows = rows_of(&file, entry).map_err(refuse)?;
        match sites.iter().find(|(_, known)| known.site == rows.site) {
            None => sites.push((&entry.key, rows)),
            Some((first, known)) => {
                if let Some(row) = first_difference(known, &rows) {
                    return Err(refuse(Reason::SiteDiffers {
                        first: (*first).to_owned(),
                        second: entry.key.clone(),
                        row,
                    }));
                }
            }
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

fn rows_of(file: &OpenFile, entry: &Entry) -> Result<Batch, Reason> {
    let fetch = |start, length| {
        let mut buffer = PageVec::zeroed(length);
        file.read_exact_at(&mut buffer, start)
            .map(|()| buffer)
            .map_err(|error| Reason::Read {
                key: entry.key.clone(),
                error,
            })
    };
    let rows = entry.rows;
    let mut bytes = fetch(entry.start, entry.bytes)?;
    let masked = entry.mask_start.is_some();
    let mask = entry
        .mask_start
        .map_or(Ok(PageVec::default()), |start| fetch(start, rows))?;
    let (dtype, width) = (entry.dtype, entry.in_features);
    let kept =
        keep_rows(&mut bytes, dtype, width, masked.then_some(&mask[..])).map_err(|error| {
            Reason::BadRow {
                key: entry.key.clone(),
                error,
            }
        })?;
    bytes.truncate(kept * width * dtype.size_bytes());
    let length = rows / entry.sequences.unwrap_or(1).max(1);
    let kept_of = |batch: &[u8]| batch.iter().filter(|&&m| m != 0).count();
    let mut batches: Vec<usize> = if masked {
        mask.chunks(length.max(1)).map(kept_of).collect()
    } else {
        vec![length; rows.checked_div(length).unwrap_or_default()]
    };
    batches.retain(|&rows| rows > 0);
    Ok(Batch {
        site: entry.site,
        in_features: width,
        bytes,
        dtype,
        batches,
        sequences: entry.sequences.is_some(),
    })
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
