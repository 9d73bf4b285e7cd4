//! A site whose rows are summed on a device: when R comes down, and what becomes of the site where
//! the device fails.
//!
//! R here is whole after [`complete`](DeviceSums::complete), which whoever reads it asks for first:
//! before the statistics are saved or lent to a solver. All else of the statistics is always whole.
//! A failure of any call folds the rows that R lacks into it on the host, and the site stays there:
//! what it holds then is what a run holds whose device was gone since the last time.

use crate::calibrate::site::{FoldError, FoldTools, SiteStatistics};
use crate::host::kernels::row_weights::Extent;
use crate::host::kernels::stored::StoredRows;
use crate::host::offload::resident::{FoldedRows, Resident};
use crate::host::offload::row_sums::RowSums;
use crate::host::second_moment::SecondMoment;
use crate::host::second_moment::massive::massive_channels;
use crate::source::rows::Batch;
use qera_gpu::DeviceError;

use std::sync::Arc;

/// The device's part of a site.
#[derive(Debug)]
pub(crate) struct DeviceSums<S: RowSums> {
    /// None where the rows are summed on the host.
    device: Option<S::Device>,
    /// R there, from the first rows on.
    resident: Option<Resident<S>>,
    /// Why the site is on the host, until it is told.
    failure: Option<DeviceError>,
    /// Whether R came down with rows that were summed there.
    has_summed: bool,
}

impl<S: RowSums> DeviceSums<S> {
    /// Of a site that this device sums, or none.
    pub(crate) const fn on(device: Option<S::Device>) -> Self {
        Self {
            device,
            resident: None,
            failure: None,
            has_summed: false,
        }
    }

    /// Folds the rows of a shard in, wherever the site is.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn fold(
        &mut self,
        statistics: &mut SiteStatistics,
        batch: Batch,
        tools: &mut FoldTools<'_>,
    ) -> Result<(), FoldError> {
        let mut folded_after = None;
        statistics.fold_by(&batch, tools, |moment, rows, seen, tools| {
            if self.fold_r(moment, rows, seen, tools) {
                folded_after = Some(*seen);
                return Ok(());
            }
            moment.fold(tools.compute, rows, seen, tools.scratch)
        })?;
        if let (Some(resident), Some(seen)) = (&mut self.resident, folded_after) {
            resident.keep(FoldedRows {
                bytes: batch.bytes,
                dtype: batch.dtype,
                in_features: batch.in_features,
                weights: batch.weights,
                seen,
            });
        }
        Ok(())
    }

    /// Folds rows into R on the device; false where they are to be folded here.
    fn fold_r(
        &mut self,
        moment: &mut SecondMoment,
        rows: StoredRows<'_>,
        seen: &Extent,
        tools: &mut FoldTools<'_>,
    ) -> bool {
        if self.device.is_none() || !moment.kind().is_whole() {
            return false;
        }
        let massive = massive_channels(moment.channels(), &seen.with(&rows.extent()));
        let goes_on = |resident: &Resident<S>| resident.goes_on_with(&massive);
        if !self.resident.as_ref().is_some_and(goes_on) {
            self.complete_moment(moment, tools);
            self.resident = None;
            self.begin(moment, rows.in_features, massive);
        }
        let Some(resident) = &mut self.resident else {
            return false;
        };
        match resident.fold(rows, seen) {
            Ok(()) => true,
            Err(error) => {
                self.demote(error, moment, tools);
                false
            }
        }
    }

    /// Uploads R.
    fn begin(&mut self, moment: &SecondMoment, in_features: usize, massive: Vec<usize>) {
        let (Some(device), SecondMoment::Packed { r, .. }) = (&self.device, moment) else {
            return;
        };
        match Resident::begin(device, r, in_features, massive) {
            Ok(resident) => self.resident = Some(resident),
            Err(error) => {
                self.device = None;
                self.failure = Some(error);
            }
        }
    }

    /// Makes R whole.
    pub(crate) fn complete(&mut self, statistics: &mut SiteStatistics, tools: &mut FoldTools<'_>) {
        self.complete_moment(&mut statistics.second_moment, tools);
    }

    /// Makes R whole, and leaves the device's memory; the next rows take it again.
    pub(crate) fn leave(&mut self, statistics: &mut SiteStatistics, tools: &mut FoldTools<'_>) {
        self.complete(statistics, tools);
        self.resident = None;
    }

    /// Whether R is whole.
    pub(crate) fn is_complete(&self) -> bool {
        self.kept_bytes() == 0
    }

    fn complete_moment(&mut self, moment: &mut SecondMoment, tools: &mut FoldTools<'_>) {
        let (Some(resident), SecondMoment::Packed { r, .. }) = (&mut self.resident, &mut *moment)
        else {
            return;
        };
        match resident.fold_down(r) {
            Ok(None) => {}
            Ok(Some(fresh)) => {
                *r = Arc::new(fresh);
                self.has_summed = true;
            }
            Err(error) => self.demote(error, moment, tools),
        }
    }

    /// The host has the site from here on, with every row.
    fn demote(&mut self, error: DeviceError, moment: &mut SecondMoment, tools: &mut FoldTools<'_>) {
        self.device = None;
        self.failure = Some(error);
        if let (Some(resident), SecondMoment::Packed { r, .. }) = (self.resident.take(), moment) {
            let r = &mut **Arc::make_mut(r);
            resident.fold_again(tools.compute, r, tools.scratch);
        }
    }

    /// Bytes of the rows that R here lacks.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.resident.as_ref().map_or(0, Resident::kept_bytes)
    }

    /// Whether R came down with rows that were summed there.
    pub(crate) const fn has_summed(&self) -> bool {
        self.has_summed
    }

    /// Why the host has the site; once.
    pub(crate) const fn take_failure(&mut self) -> Option<DeviceError> {
        self.failure.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::compute::Compute;
    use crate::host::cores::Cores;
    use crate::host::kernels::rank_update::Scratch;
    use crate::host::kernels::row_weights::RowWeights;
    use crate::host::kernels::{ENTRY_ERROR, Kernel};
    use crate::host::rounding::narrow;
    use crate::host::second_moment::shares;
    use core::cell::Cell;
    use qera_core::dtype::FloatDtype;
    use qera_core::packed::packed_offset;
    use std::rc::Rc;

    const M: usize = 20;
    const ROWS: usize = 40;
    const SHARDS: usize = 6;

    /// What a device does, in this memory: R in f64. What it is asked to fold it folds when it is
    /// read, and from its Nth call on it fails.
    #[derive(Clone, Default)]
    struct Pretended {
        calls: Rc<Cell<usize>>,
        fails_at: usize,
    }

    impl Pretended {
        fn call(&self) -> Result<(), DeviceError> {
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() < self.fails_at {
                Ok(())
            } else {
                Err(DeviceError::Unsupported("this call"))
            }
        }
    }

    struct PretendedSums {
        device: Pretended,
        r: Vec<f64>,
        asked: Vec<AskedFold>,
    }

    /// Rows in f64, their weights in units, and their share of R.
    struct AskedFold {
        rows: Vec<f64>,
        weights: Vec<f64>,
        share: qera_core::statistics::BlockShare,
    }

    impl RowSums for PretendedSums {
        type Device = Pretended;

        fn begin(device: &Pretended, packed: &[f64], _: usize) -> Result<Self, DeviceError> {
            device.call()?;
            Ok(Self {
                device: device.clone(),
                r: packed.to_vec(),
                asked: Vec::new(),
            })
        }

        fn fold(&mut self, rows: StoredRows<'_>, before: f64) -> Result<(), DeviceError> {
            self.device.call()?;
            let weight = |row| rows.weight_of(row) / rows.unit();
            self.asked.push(AskedFold {
                rows: rows.widened().iter().map(|x| f64::from(*x)).collect(),
                weights: (0..rows.rows()).map(weight).collect(),
                share: shares(rows, before)(rows.rows()),
            });
            Ok(())
        }

        fn read(&mut self, packed: &mut [f64]) -> Result<(), DeviceError> {
            // Half of what is read is there when it fails.
            packed[..10].fill(-1.0);
            self.device.call()?;
            for asked in self.asked.drain(..) {
                for i in 0..M {
                    for j in i..M {
                        let rows = asked.rows.chunks_exact(M).zip(&asked.weights);
                        let sum = rows.map(|(x, w)| w * x[i] * x[j]).sum();
                        let at = packed_offset(M, i) + j - i;
                        asked.share.fold(&mut self.r[at..=at], &[sum]);
                    }
                }
            }
            packed.copy_from_slice(&self.r);
            Ok(())
        }
    }

    /// Rows of a shard: channel 3 is massive from the third on, where weights begin, too.
    fn batch(shard: usize) -> Batch {
        let number = |i: usize| {
            let size = if i % M == 3 && shard >= 2 { 900.0 } else { 1.0 };
            narrow(size * ((i as f64 * 0.731 + shard as f64).sin() + 0.3))
        };
        let bytes: Vec<u8> = (0..ROWS * M)
            .flat_map(|i| number(i).to_le_bytes())
            .collect();
        let weights = (0..ROWS).map(|row| 0.5 + (row % 3) as f32);
        Batch {
            site: 0,
            in_features: M,
            bytes: bytes.into(),
            dtype: FloatDtype::F32,
            weights: (shard >= 2).then(|| RowWeights::new(weights.collect())),
            batches: vec![ROWS],
            sequences: true,
        }
    }

    /// What a site holds after all shards, R completed behind some of them, and whether it is still
    /// on the device. From `host_from` on the device is gone by itself.
    fn folded(device: Option<Pretended>, completed: &[usize], host_from: usize) -> Folded {
        let cores = Cores::new(1);
        let (mut statistics, mut scratch) = (SiteStatistics::whole(M), Scratch::default());
        let mut sums = DeviceSums::<PretendedSums>::on(device);
        let tools = &mut FoldTools {
            compute: Compute::new(Kernel::best(), &cores),
            scratch: &mut scratch,
            layers: None,
        };
        let mut failures = 0;
        for shard in 0..SHARDS {
            if shard == host_from {
                sums.leave(&mut statistics, tools);
                sums = DeviceSums::on(None);
            }
            sums.fold(&mut statistics, batch(shard), tools).unwrap();
            if completed.contains(&shard) {
                sums.complete(&mut statistics, tools);
                assert!(sums.is_complete());
            }
            failures += usize::from(sums.take_failure().is_some());
        }
        sums.complete(&mut statistics, tools);
        failures += usize::from(sums.take_failure().is_some());
        Folded {
            statistics,
            failures,
        }
    }

    struct Folded {
        statistics: SiteStatistics,
        failures: usize,
    }

    impl Folded {
        fn r(&self) -> &[f64] {
            self.statistics.second_moment.packed().unwrap().values()
        }

        /// All but R is the host's, bit for bit; R is within what f32 sums leave.
        fn assert_like(&self, host: &Self, what: &str) {
            assert_eq!(self.statistics.rows, (SHARDS * ROWS) as u64);
            let channels = |of: &Self| of.statistics.second_moment.channels().clone();
            assert_eq!(channels(self), channels(host), "{what}");
            assert_eq!(
                self.statistics.held_out_blocks(),
                host.statistics.held_out_blocks()
            );
            let diagonal = host.statistics.diagonal();
            for i in 0..M {
                for j in i..M {
                    let at = packed_offset(M, i) + j - i;
                    let scale = (diagonal[i] * diagonal[j]).sqrt();
                    let error = (self.r()[at] - host.r()[at]).abs() / scale;
                    assert!(error <= ENTRY_ERROR, "{what}: {i} {j} {error:e}");
                }
            }
        }
    }

    fn failing(fails_at: usize) -> Option<Pretended> {
        Some(Pretended {
            fails_at,
            ..Pretended::default()
        })
    }

    /// Whichever call fails, every row is in R once, and the failure is told once.
    #[test]
    fn no_call_that_fails_loses_or_doubles_a_row() {
        let host = folded(None, &[], 0);
        for completed in [&[][..], &[1, 3], &[0, 1, 2, 3, 4, 5]] {
            let undisturbed = failing(usize::MAX);
            let whole = folded(undisturbed.clone(), completed, usize::MAX);
            assert_eq!(whole.failures, 0);
            whole.assert_like(&host, "undisturbed");
            let calls = undisturbed.unwrap().calls.get();
            assert!(calls > SHARDS + 1, "{calls} calls");
            for call in 1..=calls {
                let found = folded(failing(call), completed, usize::MAX);
                assert_eq!(found.failures, 1, "call {call}");
                found.assert_like(&host, &format!("call {call}"));
            }
        }
    }

    /// A site that was on the host from the start has the host's very bits, whenever R comes down
    /// makes no difference, and after a failure R is what it is where the device was gone since the
    /// last time.
    #[test]
    fn bits_depend_on_who_summed_which_rows() {
        let bits = |of: &Folded| of.r().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let host = bits(&folded(None, &[], 0));
        assert_eq!(host, bits(&folded(failing(1), &[1, 3], usize::MAX)));
        let whole = bits(&folded(failing(usize::MAX), &[], usize::MAX));
        let often = folded(failing(usize::MAX), &[0, 1, 2, 3, 4], usize::MAX);
        assert_eq!(whole, bits(&often));
        // Calls: begin, two folds, read, then those of the massive channel: begin, fold.
        let lost = folded(failing(6), &[1], usize::MAX);
        assert_eq!(bits(&lost), bits(&folded(failing(usize::MAX), &[], 2)));
    }
}
