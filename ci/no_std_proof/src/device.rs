//! A layer in f32: rows in, factors and shards out.

use crate::close;
use qera_core::device::{
    DeviceError, DeviceLayer, DeviceRows, LayerMemory, ShardWriter, exact_layer_numbers,
    exact_layer_workspace, sketched_layer_numbers, sketched_layer_workspace,
};
use qera_core::reconstruct::{
    NarrowError, NarrowProblem, NarrowRoom, narrow_columns_len, narrow_workspace_len,
    reconstruct_narrow,
};
use qera_core::rows::Rows;
use qera_core::statistics::NarrowAutocorrelation;

/// The narrow solve, a layer on a device, its shards.
pub fn in_f32() -> bool {
    narrow() && layer() && sketched().unwrap_or(false) && shards()
}

/// R = diag(4, 1), E = I: the louder channel is repaired.
fn narrow() -> bool {
    solve_narrow().unwrap_or(false)
}

fn identity(first: usize, columns: &mut [f32]) {
    columns.copy_from_slice(&[1.0, 0.0, 0.0, 1.0][2 * first..][..columns.len()]);
}

fn solve_narrow() -> Result<bool, NarrowError> {
    let problem = NarrowProblem {
        autocorrelation: &[4.0, 0.0, 1.0],
        in_features: 2,
        out_features: 2,
    };
    let (mut a, mut b) = ([0.0; 2], [0.0; 2]);
    let mut columns = [0.0; narrow_columns_len(2, 2, 1)];
    let mut workspace = [0.0; narrow_workspace_len(2, 1)];
    let room = NarrowRoom {
        columns: &mut columns,
        workspace: &mut workspace,
    };
    let report = reconstruct_narrow(&problem, &mut identity, &mut a, &mut b, room)?;
    Ok(close(report.error_without, 5.0, 1e-6) && close(report.error_with, 1.0, 1e-6))
}

fn layer() -> bool {
    run_layer().unwrap_or(false)
}

fn run_layer() -> Result<bool, DeviceError> {
    type Memory = LayerMemory<{ exact_layer_numbers(2, 2, 1) }, { exact_layer_workspace(2, 1) }>;
    let mut memory: Memory = LayerMemory::new();
    let mut layer = DeviceLayer::<_, 2, 2, 1>::exact(&mut memory, identity)?;
    let rows = [2.0, 1.0, 2.0, -1.0];
    let mut sent = 0;
    for _ in 0..4 {
        // Sixteen rows, of which the first eight are given away.
        DeviceLayer::feed_sending(&mut layer, DeviceRows::F32(&rows), &mut |rows| {
            sent += rows.len();
        })?;
        DeviceLayer::feed_sending(&mut layer, DeviceRows::F32(&rows), &mut |rows| {
            sent += rows.len();
        })?;
    }
    DeviceLayer::feed(&mut layer, DeviceRows::F32(&rows))?;
    let progress = DeviceLayer::progress(&layer);
    let sums = DeviceLayer::sums(&mut layer)?;
    let ten = close(NarrowAutocorrelation::weight(sums), 10.0, 0.0);
    let correction = DeviceLayer::finish(&mut layer)?;
    Ok(ten
        && (sent, progress.rows, progress.waiting) == (8, 18, 2)
        && close(correction.error_without, 5.0, 1e-6)
        && close(correction.error_with, 1.0, 1e-6))
}

/// The same rows by a sketch of two rows: nothing is lost.
fn sketched() -> Result<bool, DeviceError> {
    type Memory =
        LayerMemory<{ sketched_layer_numbers(2, 2, 1, 2) }, { sketched_layer_workspace(2, 1, 2) }>;
    let mut memory = Memory::new();
    let mut layer = DeviceLayer::<_, 2, 2, 1>::sketched::<2, _, _>(&mut memory, identity)?;
    DeviceLayer::feed(&mut layer, DeviceRows::F32(&[2.0, 1.0, 2.0, -1.0]))?;
    let correction = DeviceLayer::finish(&mut layer)?;
    Ok(close(correction.error_without, 5.0, 1e-6) && close(correction.error_with, 1.0, 1e-5))
}

fn shards() -> bool {
    send().unwrap_or(false)
}

fn send() -> Option<bool> {
    let mut packed = [0.0; 3];
    let values = [1.0, 2.0, 3.0, -4.0];
    let rows = Rows::new(&values, 2).ok()?;
    let mut sums = NarrowAutocorrelation::new(&mut packed, 2).ok()?;
    NarrowAutocorrelation::update(&mut sums, &rows).ok()?;
    let right = NarrowAutocorrelation::sums(&sums).eq([10.0, -10.0, 20.0])
        && NarrowAutocorrelation::packed(&sums) == [5.0, -5.0, 10.0]
        && NarrowAutocorrelation::in_features(&sums) == 2;
    let (mut header, mut sent) = ([0; 256], 0);
    let mut writer = ShardWriter::new("q", "d", 7, &mut header, |bytes: &[u8]| {
        sent += bytes.len();
    })
    .ok()?;
    ShardWriter::sums(&mut writer, &mut sums).ok()?;
    ShardWriter::rows(&mut writer, &rows).ok()?;
    let numbered = ShardWriter::sequence(&writer) == 9;
    NarrowAutocorrelation::reset(&mut sums);
    let resumed = NarrowAutocorrelation::resume(&mut packed, 2, 0.0).ok()?;
    Some(right && numbered && sent % 8 == 4 && NarrowAutocorrelation::weight(&resumed) == 0.0)
}
