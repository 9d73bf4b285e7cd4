//! Reads a shard whole in one pass: its bytes go by once, and each piece is hashed and checked
//! while it is in the cache. Every row is checked before any is accumulated.
//!
//! Masks and weights are read ahead, a few bytes for each row, because they say which rows have to
//! be sound, and most writers put them behind the rows. The parts beside a sum over rows, some
//! numbers for each channel, are read ahead as well. The file's length, inode and time before and
//! after show that all of this belongs to one content.

use std::io::Error as IoError;

use qera_core::dtype::{DecodeError, keep_rows};

use crate::disk::clock::{now, since};
use crate::disk::open_file::OpenFile;
use crate::host::core_time::{WorkKind, doing};
use crate::host::kernels::page_vec::PageVec;
use crate::source::admission::{Admitted, Entry};
use crate::source::counted::Counted;
use crate::source::first_of_sites::FirstOfSites;
use crate::source::pass::{PIECE_BYTES, Pass, PassCost, WholePass};
use crate::source::refusal::{Reason, Refusal};
use crate::source::rows::{Batch, Shard, check_same};
use crate::source::shard::ShardHeader;
use crate::source::sum_entry::SumEntry;
use crate::source::sums::{SummedRows, check_same_sum, read_sum};

/// A shard that was read to its end.
#[derive(Debug)]
pub(crate) struct WholeShard {
    /// BLAKE3 of its content, in hexadecimal.
    pub(crate) content: String,
    /// Its rows, every one of them checked; or what is wrong with the first bad one.
    pub(crate) rows: Result<Shard, Refusal>,
    /// The cost of reading it.
    pub(crate) cost: PassCost,
}

/// What was collected from a shard.
struct Collected<'a> {
    rows: FirstOfSites<'a, Batch>,
    sums: FirstOfSites<'a, SummedRows>,
}

/// A tensor that is read, for each site that it feeds. It feeds several where it was not known that
/// their inputs are the same.
enum ShardTensor<'a> {
    Rows(&'a [Entry]),
    Sums(&'a [SumEntry]),
}

impl ShardTensor<'_> {
    /// The byte of the file at which it starts.
    fn start(&self) -> u64 {
        match self {
            Self::Rows(entries) => entries.first().map_or(0, |entry| entry.start),
            Self::Sums(entries) => entries.first().map_or(0, |entry| entry.xtx.start),
        }
    }
}

/// Reads and checks a shard.
///
/// # Errors
/// [`Refusal`] for a file that cannot be read, or was replaced. Nothing is known of its content
/// then.
pub(crate) fn read(admitted: &Admitted) -> Result<WholeShard, Refusal> {
    let refuse = |reason| Refusal {
        shard: admitted.name.clone(),
        reason,
    };
    let failed = |e: IoError| refuse(Reason::Header(e.into()));
    let file = OpenFile::open(&admitted.path).map_err(failed)?;
    let same = || file.identity().map(|now| now == admitted.identity);
    if !same().map_err(failed)? {
        return Err(refuse(Reason::Changed));
    }
    let mut pass = Pass::new(&file);
    let collected = collect(&mut pass, &file, admitted);
    let whole = match &collected {
        Err(unread) if unread.io_error().is_some() => None,
        // This goes for a refused shard as well, because the content may be one that came before.
        _ => Some(pass.end(admitted.identity.bytes)),
    };
    // If the file was rewritten in place meanwhile, its rows are not those of the content that was
    // hashed.
    if !same().map_err(failed)? {
        return Err(refuse(Reason::Changed));
    }
    let collected = collected.map_err(refuse);
    let Some(whole) = whole else {
        return Err(collected.err().unwrap_or_else(|| refuse(Reason::Changed)));
    };
    let WholePass { content, cost } = whole.map_err(failed)?;
    Ok(WholeShard {
        content,
        rows: collected.map(|of| Shard::new(&admitted.name, of.rows.items(), of.sums.items())),
        cost,
    })
}

/// BLAKE3 of the file whose header was read, in hexadecimal.
///
/// # Errors
/// [`Refusal`] for a file that cannot be read, or was replaced.
pub(crate) fn content(header: &ShardHeader) -> Result<String, Refusal> {
    let refuse = |reason| Refusal {
        shard: header.name.clone(),
        reason,
    };
    let failed = |e: IoError| refuse(Reason::Header(e.into()));
    let file = OpenFile::open(&header.path).map_err(failed)?;
    let same = || file.identity().map(|now| now == header.identity());
    if !same().map_err(failed)? {
        return Err(refuse(Reason::Changed));
    }
    let pass = Pass::new(&file).end(header.identity().bytes);
    if !same().map_err(failed)? {
        return Err(refuse(Reason::Changed));
    }
    pass.map(|pass| pass.content).map_err(failed)
}

/// Reads a site's rows of a shard that was read whole before, from the first tensor that feeds the
/// site; `None` where no tensor does.
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
    let failed = |e: IoError| refuse(Reason::Header(e.into()));
    let file = OpenFile::open(&admitted.path).map_err(failed)?;
    let counted = Counted::read(&file, entry).map_err(refuse)?;
    let mut pass = Pass::unhashed(&file, entry.start);
    let rows = rows_of(&mut pass, entry, counted);
    if file.identity().map_err(failed)? != admitted.identity {
        return Err(refuse(Reason::Changed));
    }
    rows.map(Some).map_err(refuse)
}

/// Every tensor that feeds a site, in the order of the file.
fn collect<'a>(
    pass: &mut Pass<'_>,
    file: &OpenFile,
    admitted: &'a Admitted,
) -> Result<Collected<'a>, Reason> {
    let rows = admitted.entries.chunk_by(|a, b| a.key == b.key);
    let sums = admitted.sums.chunk_by(|a, b| a.key == b.key);
    let mut tensors: Vec<ShardTensor<'a>> = rows
        .map(ShardTensor::Rows)
        .chain(sums.map(ShardTensor::Sums))
        .collect();
    tensors.sort_by_key(ShardTensor::start);
    let mut collected = Collected {
        rows: FirstOfSites::new(),
        sums: FirstOfSites::new(),
    };
    for tensor in tensors {
        match tensor {
            ShardTensor::Rows(entries) => collected.take_rows(pass, file, entries)?,
            ShardTensor::Sums(entries) => collected.take_sum(pass, file, entries)?,
        }
    }
    Ok(collected)
}

impl<'a> Collected<'a> {
    fn take_rows(
        &mut self,
        pass: &mut Pass<'_>,
        file: &OpenFile,
        sites: &'a [Entry],
    ) -> Result<(), Reason> {
        let [first, others @ ..] = sites else {
            return Ok(());
        };
        let counted = Counted::read(file, first)?;
        let unread = |error| Reason::Read {
            key: first.key.clone(),
            error,
        };
        pass.pass_to(first.start).map_err(unread)?;
        let rows = rows_of(pass, first, counted)?;
        let copies: Vec<Batch> = others.iter().map(|of| rows.for_site(of.site)).collect();
        let begun = now();
        doing(WorkKind::Check, || {
            core::iter::once(rows).chain(copies).try_for_each(|rows| {
                let key = &first.key;
                let check = |of: &str, known: &_, rows: &_| check_same(of, known, key, rows);
                self.rows.take(rows.site, key, rows, check)
            })
        })?;
        pass.checked(since(begun));
        Ok(())
    }

    fn take_sum(
        &mut self,
        pass: &mut Pass<'_>,
        file: &OpenFile,
        sites: &'a [SumEntry],
    ) -> Result<(), Reason> {
        let [first, others @ ..] = sites else {
            return Ok(());
        };
        let sum = read_sum(pass, file, first)?;
        let copies: Vec<SummedRows> = others.iter().map(|of| sum.for_site(of.site)).collect();
        let begun = now();
        doing(WorkKind::Check, || {
            core::iter::once(sum).chain(copies).try_for_each(|sum| {
                let key = &first.key;
                let check = |of: &str, known: &_, sum: &_| check_same_sum(of, known, key, sum);
                self.sums.take(sum.site, key, sum, check)
            })
        })?;
        pass.checked(since(begun));
        Ok(())
    }
}

/// Reads and checks a tensor's rows, a piece at a time. A piece is read to the place where the kept
/// rows before it end, so that dropped rows leave no gap.
fn rows_of(pass: &mut Pass<'_>, entry: &Entry, counted: Counted) -> Result<Batch, Reason> {
    let (dtype, width, rows) = (entry.dtype, entry.in_features, entry.rows);
    let row_bytes = width * dtype.size_bytes();
    let at_once = (PIECE_BYTES / row_bytes.max(1)).max(1);
    let mut bytes = PageVec::zeroed(entry.bytes);
    let mut kept = 0;
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        let piece = &mut bytes[kept..kept + count * row_bytes];
        pass.take(piece).map_err(|error| Reason::Read {
            key: entry.key.clone(),
            error,
        })?;
        let begun = now();
        let mask = counted
            .mask
            .as_ref()
            .map(|mask| &mask[first..first + count]);
        let sound = doing(WorkKind::Check, || keep_rows(piece, dtype, width, mask));
        let sound = sound.map_err(|error| Reason::BadRow {
            key: entry.key.clone(),
            error: after(first, error),
        })?;
        kept += sound * row_bytes;
        pass.checked(since(begun));
    }
    bytes.truncate(kept);
    let length = rows / entry.sequences.unwrap_or(1).max(1);
    Ok(Batch {
        site: entry.site,
        in_features: width,
        bytes,
        dtype,
        batches: counted.batches(rows, length),
        weights: counted.weights,
        sequences: entry.sequences.is_some(),
    })
}

/// The error of a piece, counted by the tensor's rows.
const fn after(before: usize, error: DecodeError) -> DecodeError {
    match error {
        DecodeError::NonFinite { row, column, value } => DecodeError::NonFinite {
            row: before + row,
            column,
            value,
        },
        DecodeError::ProductOverflow { row, column, value } => DecodeError::ProductOverflow {
            row: before + row,
            column,
            value,
        },
        other => other,
    }
}
