//! The file of a site's statistics in a snapshot. Its bytes are a function of the journal alone,
//! unless rows were left out after convergence. What also depends on checkpoint and settings is in
//! `progress_file`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::calibrate::aside::Aside;
use crate::calibrate::blocks::BlocksRecord;
use crate::calibrate::outputs::{OutputsDamage, OutputsRecord, SiteOutputs};
use crate::calibrate::site::SiteStatistics;
use crate::calibrate::summed_part::SummedPart;
use crate::calibrate::window::Window;
use crate::error::Fatal;
use crate::host::second_moment::channels::ChannelMoments;
use crate::host::second_moment::{SecondMoment, SecondMomentKind};
use crate::state::damage::{Damage, Unread};
use crate::state::tensor_file::{Pieces, SavedTensor, TensorFile, pieces_of, write};
use crate::weights::sketched::SiteSketch;

/// The part of the statistics that is no tensor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatisticsRecord {
    key: String,
    in_features: usize,
    rows: u64,
    #[serde(default)]
    rows_skipped: u64,
    /// The sum of the weights of all rows.
    batch_weight: f64,
    /// The sum of squared weights, where rows came with weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_squares: Option<f64>,
    /// The part that came as sums, for sites that got rows and sums.
    #[serde(default, skip_serializing_if = "SummedPart::is_none")]
    summed: SummedPart,
    /// Where output errors are sketched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outputs: Option<OutputsRecord>,
    window: BlocksRecord,
}

impl StatisticsRecord {
    /// Reads the record.
    ///
    /// # Errors
    /// The bytes are no record, for the reason given.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Writes the statistics; returns the file's BLAKE3.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_statistics(
    path: &Path,
    key: &str,
    statistics: &SiteStatistics,
) -> Result<blake3::Hash, Fatal> {
    let m = statistics.in_features;
    let record = StatisticsRecord {
        key: key.into(),
        in_features: m,
        rows: statistics.rows,
        rows_skipped: statistics.rows_skipped,
        batch_weight: statistics.weight,
        weight_squares: statistics.weight_squares,
        summed: statistics.summed,
        outputs: statistics.outputs.as_ref().map(SiteOutputs::record),
        window: statistics.window.record(),
    };
    let mut tensors = vec![
        SavedTensor::f64("batch_max", &statistics.batch_max),
        SavedTensor::f64("mean_abs", &statistics.mean_abs),
    ];
    let moments = statistics.second_moment.saved().into_iter();
    tensors.extend(moments.map(|saved| SavedTensor::f64(saved.name, saved.values)));
    tensors.extend(SavedTensor::rows("window", m, || {
        statistics.window.all_rows()
    }));
    if let Some(outputs) = &statistics.outputs {
        let sketches = outputs.saved();
        tensors.extend(sketches.map(|of| SavedTensor::f32(&sketch_name(of.index), of.rows)));
        let waiting = || core::iter::once(outputs.waiting());
        tensors.extend(SavedTensor::rows(WAITING, m, waiting));
    }
    write(path, &record, &tensors)
}

/// Key of the rows that wait to be sketched.
const WAITING: &str = "waiting";

/// Key of a sketch.
fn sketch_name(index: usize) -> String {
    format!("sketch.{index}")
}

/// What a snapshot says of a site's channels, without R.
#[derive(Debug)]
pub(crate) struct SavedChannels {
    /// Rows folded.
    pub(crate) rows: u64,
    /// Sum of their weights.
    pub(crate) weight: f64,
    /// Whether rows came as sums; then the moments are not those of all rows.
    pub(crate) has_sums: bool,
    /// The mean of x, and the sum of squared deviations from it.
    pub(crate) moments: ChannelMoments,
}

/// Reads the moments of the channels alone; R is not read.
///
/// # Errors
/// The statistics cannot be read, as for [`read_statistics`].
pub(crate) fn read_channels(path: &Path, hash: &str, key: &str) -> Result<SavedChannels, Unread> {
    let mut file = TensorFile::open(path, hash, ChannelMoments::is_tensor, |_| Pieces::new())?;
    let record = file.record(StatisticsRecord::parse)?;
    if record.key != key {
        return Err(file.damage("is of another site").into());
    }
    let moments = ChannelMoments::load(record.in_features, |name, length| file.f64(name, length))?;
    Ok(SavedChannels {
        rows: record.rows,
        weight: record.batch_weight,
        has_sums: !record.summed.is_none(),
        moments,
    })
}

/// What the statistics that are read must belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedStatistics<'a> {
    /// The site's key.
    pub(crate) key: &'a str,
    /// Width of its input.
    pub(crate) in_features: usize,
    /// How much of R is gathered.
    pub(crate) second_moment: SecondMomentKind,
    /// The sketches that are asked for.
    pub(crate) sketch: Option<&'a SiteSketch>,
}

/// Reads statistics back, without rows kept aside.
///
/// # Errors
/// [`Unread::Damaged`] for a file that is not the one the index names, or of another site;
/// [`Unread::NoAnswer`].
pub(crate) fn read_statistics(
    path: &Path,
    hash: &str,
    expected: ExpectedStatistics<'_>,
) -> Result<SiteStatistics, Unread> {
    let m = expected.in_features;
    let blocks = |record: &[u8]| match StatisticsRecord::parse(record) {
        Ok(record) => pieces_of("window", m, &record.window),
        Err(_) => Pieces::new(),
    };
    let mut file = TensorFile::open(path, hash, |_| true, blocks)?;
    let record = file.record(StatisticsRecord::parse)?;
    if record.key != expected.key || record.in_features != m {
        return Err(file.damage("is of another site").into());
    }
    let window = Window::restore(m, &record.window, file.rows("window")?);
    let second_moment = SecondMoment::load(expected.second_moment, m, |name, length| {
        file.f64(name, length)
    })?;
    let outputs = expected
        .sketch
        .map(|of| read_outputs(&mut file, &record, of));
    Ok(SiteStatistics {
        in_features: m,
        second_moment,
        mean_abs: file.f64("mean_abs", m)?.to_vec(),
        batch_max: file.f64("batch_max", m)?.to_vec(),
        window: window
            .ok_or_else(|| file.damage("tensor 'window' has other rows than its blocks"))?,
        aside: Aside::new(m, 0.0),
        rows: record.rows,
        rows_skipped: record.rows_skipped,
        weight: record.batch_weight,
        weight_squares: record.weight_squares,
        summed: record.summed,
        outputs: outputs.transpose()?,
    })
}

/// Reads sketches back.
fn read_outputs(
    file: &mut TensorFile,
    record: &StatisticsRecord,
    expected: &SiteSketch,
) -> Result<SiteOutputs, Damage> {
    let Some(outputs) = &record.outputs else {
        return Err(file.damage("has no sketches"));
    };
    let waiting = file.rows(WAITING)?;
    let read = |index, length| match file.f32_of(&sketch_name(index), length) {
        Ok(numbers) => Ok(numbers),
        Err(damage) => Err(OutputsUnread::File(damage)),
    };
    let restored = SiteOutputs::restore(record.in_features, expected, outputs, waiting, read);
    restored.map_err(|unread| match unread {
        OutputsUnread::Outputs(damage) => file.damage(&damage.to_string()),
        OutputsUnread::File(damage) => damage,
    })
}

/// Why sketches are not read.
enum OutputsUnread {
    /// They are not those that are expected.
    Outputs(OutputsDamage),
    /// The file.
    File(Damage),
}

impl From<OutputsDamage> for OutputsUnread {
    fn from(damage: OutputsDamage) -> Self {
        Self::Outputs(damage)
    }
}
