//! What one solve has of the device: room, R in f64, and a note of what failed.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use faer::{Mat, MatRef};
use qera_gpu::{DeviceError, DeviceOperand, DeviceR};

use crate::host::offload::accelerator::{Accelerator, Reserved};
use crate::host::offload::placement::SolvedWidths;

/// The device, lent to a solve.
#[derive(Debug)]
pub(crate) struct LentDevice<'a> {
    pub(crate) accelerator: &'a Accelerator,
    /// Room for all that is uploaded for the solve.
    _room: Reserved<'a>,
    r: Option<LentR<'a>>,
    /// Whether a product came from there.
    answered: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// R in f64 on the device, and where the same lies here.
#[derive(Debug)]
struct LentR<'a> {
    packed: &'a [f64],
    there: DeviceR,
    trust: Trust,
}

/// Whether something on the device still answers.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    lost: AtomicBool,
}

impl<'a> LentDevice<'a> {
    /// The device for layers of these widths and this R, the upper triangle by rows; `None` where
    /// they are to be solved on the host.
    pub(crate) fn of(
        accelerator: &'a Accelerator,
        widths: SolvedWidths,
        packed: Option<&'a [f64]>,
    ) -> Option<Self> {
        if !widths.is_worth(accelerator.least) || accelerator.offload.is_lost() {
            return None;
        }
        Self::any(accelerator, widths, packed)
    }

    /// The same, worth it or not.
    pub(crate) fn any(
        accelerator: &'a Accelerator,
        widths: SolvedWidths,
        packed: Option<&'a [f64]>,
    ) -> Option<Self> {
        let room = accelerator.reserve(widths.bytes())?;
        let mut lent = Self {
            accelerator,
            _room: room,
            r: None,
            answered: AtomicBool::new(false),
            failures: Mutex::default(),
        };
        lent.r = packed.and_then(|packed| {
            let there = DeviceR::new(&accelerator.offload, packed, widths.in_features);
            Some(LentR {
                packed,
                there: lent.noted("R", there)?,
                trust: Trust::default(),
            })
        });
        Some(lent)
    }

    /// R X in f64 for X (m x b), where R is this one: m x b.
    pub(crate) fn r_times(&self, packed: &[f64], x: MatRef<'_, f64>) -> Option<Mat<f64>> {
        let r = self.r_of(packed)?;
        let (m, b) = (x.nrows(), x.ncols());
        // There it is X^T R.
        let mut product = vec![0.0; m * b];
        let times = || r.there.times(&contiguous(x.transpose()), b, &mut product);
        self.ask(&r.trust, "R", times)?;
        Some(Mat::from_fn(m, b, |i, j| product[i * b + j]))
    }

    /// R / `scale` in f32, made there, where R is this one.
    pub(crate) fn r_scaled(&self, packed: &[f64], scale: f64) -> Option<DeviceOperand> {
        let r = self.r_of(packed)?;
        self.ask(&r.trust, "R", || r.there.scaled(scale))
    }

    /// tr(R P P^T) for P (m x n, by columns), where R is this one: off the diagonal by f32
    /// products.
    pub(crate) fn r_trace(&self, packed: &[f64], p: &[f32]) -> Option<f64> {
        let r = self.r_of(packed)?;
        self.ask(&r.trust, "R", || r.there.trace_with(p))
    }

    /// R on the device, where it is the one that lies here: it is borrowed as long as this lives,
    /// so that nothing else can lie there.
    fn r_of(&self, packed: &[f64]) -> Option<&LentR<'a>> {
        let r = self.r.as_ref()?;
        core::ptr::eq(r.packed, packed).then_some(r)
    }

    /// Asks the device; `None` when it fails, and from then on.
    pub(crate) fn ask<T>(
        &self,
        trust: &Trust,
        of: &'static str,
        call: impl FnOnce() -> Result<T, DeviceError>,
    ) -> Option<T> {
        if trust.lost.load(Ordering::Relaxed) {
            return None;
        }
        let answer = self.noted(of, call());
        match answer {
            Some(_) => self.answered.store(true, Ordering::Relaxed),
            None => trust.lost.store(true, Ordering::Relaxed),
        }
        answer
    }

    /// What came of a call; a failure is noted.
    pub(crate) fn noted<T>(&self, of: &'static str, came: Result<T, DeviceError>) -> Option<T> {
        match came {
            Ok(value) => Some(value),
            Err(error) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(format!("products with {of}: {error}"));
                None
            }
        }
    }

    /// Whether all that was asked of the device came from there.
    pub(crate) fn served(&self) -> bool {
        let failures = self.failures.lock();
        let failures = failures.unwrap_or_else(PoisonError::into_inner);
        self.answered.load(Ordering::Relaxed) && failures.is_empty()
    }

    /// What failed, each time in words; the host has computed the same.
    pub(crate) fn failures(self) -> Vec<String> {
        let failures = self.failures.into_inner();
        failures.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The columns of a matrix, one after the other.
pub(crate) fn contiguous(x: MatRef<'_, f64>) -> Vec<f64> {
    let columns = x.col_iter();
    columns.flat_map(|column| column.iter().copied()).collect()
}
