//! The rows of an admitted shard, decoded to f32 and checked, before any of them is accumulated.
//!
//! The file is read, not mapped: its producer may still hold it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use qera_core::dtype::decode_rows;

use crate::tensor_file::Identity;

use super::{Admitted, Entry, Reason, Refusal};

/// The decoded rows of one site in one shard.
#[derive(Debug)]
pub struct SiteRows {
    /// Site that they feed.
    pub site: usize,
    /// Width of a row.
    pub in_features: usize,
    /// Row-major; padding rows are already gone.
    pub values: Vec<f32>,
    /// Kept rows of each batch, in order; none is empty.
    pub batches: Vec<usize>,
    /// Whether the batches are sequences of a [batch, seq, in_features] tensor.
    pub sequences: bool,
}

/// A decoded shard.
#[derive(Debug)]
pub struct Shard {
    /// File name.
    pub name: String,
    /// One entry for each site that the shard feeds.
    pub sites: Vec<SiteRows>,
    /// Rows kept of the site that has most: what a person calls the tokens of the shard.
    pub rows: usize,
}

/// Reads and decodes every tensor of the shard.
///
/// # Errors
/// [`Refusal`] for the first tensor that cannot be read or has a bad row, and when two layers of one
/// site differ. Nothing was accumulated then.
pub fn read(admitted: &Admitted) -> Result<Shard, Refusal> {
    let refuse = |reason| Refusal {
        shard: admitted.name.clone(),
        reason,
    };
    let file = File::open(&admitted.path).map_err(|e| refuse(Reason::Header(e.into())))?;
    let identity = Identity::of(&file).map_err(|e| refuse(Reason::Header(e.into())))?;
    if identity != admitted.identity {
        return Err(refuse(Reason::Changed));
    }
    let mut sites: Vec<(&str, SiteRows)> = Vec::new();
    let mut raw = Vec::new();
    for entry in &admitted.entries {
        let rows = decode(&file, entry, &mut raw).map_err(refuse)?;
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
    let after = Identity::of(&file).map_err(|e| refuse(Reason::Header(e.into())))?;
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

fn decode(file: &File, entry: &Entry, raw: &mut Vec<u8>) -> Result<SiteRows, Reason> {
    let fetch = |buffer: &mut Vec<u8>, start, length| {
        buffer.resize(length, 0);
        file.read_exact_at(buffer, start)
            .map_err(|error| Reason::Read {
                key: entry.key.clone(),
                error,
            })
    };
    fetch(raw, entry.start, entry.bytes)?;
    let rows = entry.rows;
    let mut mask = Vec::new();
    if let Some(start) = entry.mask_start {
        fetch(&mut mask, start, rows)?;
    }
    let mut values = vec![0.0; rows * entry.in_features];
    let masked = entry.mask_start.is_some();
    let kept = decode_rows(
        raw,
        entry.dtype,
        entry.in_features,
        masked.then_some(&mask),
        &mut values,
    )
    .map_err(|error| Reason::BadRow {
        key: entry.key.clone(),
        error,
    })?;
    values.truncate(kept * entry.in_features);
    let length = rows / entry.sequences.unwrap_or(1).max(1);
    let kept_of = |batch: &[u8]| batch.iter().filter(|&&m| m != 0).count();
    let mut batches: Vec<usize> = if masked {
        mask.chunks(length.max(1)).map(kept_of).collect()
    } else {
        vec![length; rows.checked_div(length).unwrap_or_default()]
    };
    batches.retain(|&rows| rows > 0);
    Ok(SiteRows {
        site: entry.site,
        in_features: entry.in_features,
        values,
        batches,
        sequences: entry.sequences.is_some(),
    })
}

/// The first row in which two members of a site differ (0 and -0 do not).
fn first_difference(a: &SiteRows, b: &SiteRows) -> Option<usize> {
    let width = a.in_features;
    let differ = |(x, y): (&[f32], &[f32])| x.iter().zip(y).any(|(x, y)| (x - y).abs() > 0.0);
    let row = a
        .values
        .chunks(width)
        .zip(b.values.chunks(width))
        .position(differ);
    let lengths_differ = a.values.len() != b.values.len();
    row.or_else(|| lengths_differ.then(|| a.values.len().min(b.values.len()) / width))
}
