//! A sum over rows in a shard, judged by the header before any of its numbers is read.

use std::collections::BTreeMap;

use qera_core::packed::packed_len;
use qera_core::reconstruct::Method;
use safetensors::Dtype;

use crate::formats::safetensors::header::Claim;
use crate::source::bad_sum::BadSum;
use crate::source::shard::ShardHeader;
use crate::source::sum_names::{ABS_SUM, BATCH_MAX, XTX, XTX_ROWS, XTX_WEIGHT};

/// The most rows of a sum. More would take 10^5 years to record, and numbers of rows must not
/// overflow when they add up.
const MOST_ROWS: u64 = 1 << 40;

/// A sum that will be read.
#[derive(Debug, Clone)]
pub(crate) struct SumEntry {
    /// Module path.
    pub(crate) key: String,
    /// The site that it feeds.
    pub(crate) site: usize,
    /// Width of a row.
    pub(crate) in_features: usize,
    /// The number of its rows.
    pub(crate) rows: u64,
    /// The packed triangle.
    pub(crate) xtx: SumTensor,
    /// The sum of the weights and the sum of their squares; `None` where every row has weight 1.
    pub(crate) weight: Option<SumTensor>,
    /// The sum of |x| for each channel.
    pub(crate) abs_sum: Option<SumTensor>,
    /// The largest batch mean of |x| for each channel.
    pub(crate) batch_max: Option<SumTensor>,
}

/// A tensor of numbers, by its place in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SumTensor {
    /// Type of the numbers.
    pub(crate) dtype: SumDtype,
    /// The byte of the file at which it starts.
    pub(crate) start: u64,
    /// The number of its bytes.
    pub(crate) bytes: usize,
}

/// The types in which sums are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SumDtype {
    /// f32.
    F32,
    /// f64.
    F64,
}

impl SumDtype {
    const fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }
}

/// The tensors of a shard, by key.
#[derive(Debug)]
pub(crate) struct SumClaims<'h> {
    header: &'h ShardHeader,
    by_key: &'h BTreeMap<&'h str, &'h Claim>,
    method: Method,
}

impl<'h> SumClaims<'h> {
    /// The tensors of a header, for this method.
    pub(crate) const fn new(
        header: &'h ShardHeader,
        by_key: &'h BTreeMap<&'h str, &'h Claim>,
        method: Method,
    ) -> Self {
        Self {
            header,
            by_key,
            method,
        }
    }

    /// The sum of a module for a site.
    ///
    /// # Errors
    /// [`BadSum`] for a part that is missing or of another form.
    pub(crate) fn entry(
        &self,
        key: &str,
        site: usize,
        in_features: usize,
    ) -> Result<SumEntry, BadSum> {
        let xtx = self.tensor(key, XTX, packed_len(in_features))?;
        let weight = self.tensor(key, XTX_WEIGHT, 2)?;
        if let Some(weight) = weight.filter(|weight| weight.dtype != SumDtype::F64) {
            let found = format!("{:?} [2]", weight.dtype);
            return Err(form(key, XTX_WEIGHT, found, "F64 [2]".into()));
        }
        let entry = SumEntry {
            key: key.to_owned(),
            site,
            in_features,
            rows: self.rows(key)?,
            xtx: xtx.ok_or_else(|| BadSum::Alone {
                key: key.to_owned(),
            })?,
            weight,
            abs_sum: self.tensor(key, ABS_SUM, in_features)?,
            batch_max: self.tensor(key, BATCH_MAX, in_features)?,
        };
        match entry.missing(self.method) {
            None => Ok(entry),
            Some(missing) => Err(BadSum::Missing {
                key: key.to_owned(),
                missing,
                method: self.method.name(),
            }),
        }
    }

    /// A tensor with this many numbers; `None` where it is not there.
    fn tensor(&self, key: &str, part: &str, length: usize) -> Result<Option<SumTensor>, BadSum> {
        let Some(claim) = self.by_key.get(format!("{key}{part}").as_str()) else {
            return Ok(None);
        };
        match SumDtype::of(claim.dtype).filter(|_| claim.shape == [length]) {
            Some(dtype) => Ok(Some(SumTensor {
                dtype,
                start: claim.start,
                bytes: claim.bytes,
            })),
            None => Err(form(
                key,
                part,
                found(claim),
                format!("F32 or F64 [{length}]"),
            )),
        }
    }

    fn rows(&self, key: &str) -> Result<u64, BadSum> {
        let name = format!("{key}{XTX_ROWS}");
        let Some(claim) = self.by_key.get(name.as_str()) else {
            return Err(BadSum::Uncounted { key: key.into() });
        };
        let Some(rows) = self.header.sum_rows(&name) else {
            return Err(form(key, XTX_ROWS, found(claim), "I64 [] or [1]".into()));
        };
        match u64::try_from(rows) {
            Ok(counted) if (1..=MOST_ROWS).contains(&counted) => Ok(counted),
            _ => Err(BadSum::Count {
                key: key.into(),
                rows,
            }),
        }
    }
}

impl SumEntry {
    /// Bytes in the file, which are held until the sum is folded.
    #[must_use]
    pub(crate) fn stored_bytes(&self) -> u64 {
        let others = [self.abs_sum, self.batch_max].into_iter().flatten();
        let others: u64 = others.map(|of| of.bytes as u64).sum();
        (self.xtx.bytes as u64).saturating_add(others)
    }

    /// The ending of the tensor that this method needs and the sum lacks.
    fn missing(&self, method: Method) -> Option<&'static str> {
        if method.needs_batch_max() && self.batch_max.is_none() {
            Some(BATCH_MAX)
        } else if method.needs_mean_abs() && self.abs_sum.is_none() {
            Some(ABS_SUM)
        } else {
            None
        }
    }
}

fn found(claim: &Claim) -> String {
    format!("{} {:?}", claim.dtype, claim.shape)
}

fn form(key: &str, part: &str, found: String, expected: String) -> BadSum {
    BadSum::Form {
        key: format!("{key}{part}"),
        found,
        expected,
    }
}
