//! A layer on a device: rows in, A and B out, in one lent buffer.

use nalgebra::DMatrixViewMut;

use super::values::DeviceRows;
use super::{DeviceError, LayerMemory};
use crate::linalg::{add_scaled_narrow, narrow};
use crate::packed::packed_len;
use crate::reconstruct::{
    NarrowProblem, NarrowRoom, narrow_columns_len, narrow_workspace_len, reconstruct_narrow,
};
use crate::rows::Rows;
use crate::statistics::{
    ErrorSketch, NarrowAutocorrelation, SketchRoom, error_sketch_workspace_len,
};

/// How many rows wait until they are folded together.
pub const DEVICE_BLOCK: usize = 8;

/// One block of rows in so many is sent as rows ([`DeviceLayer::feed_sending`]).
pub const SENT_OF: u64 = 16;

/// How many rows a layer has taken, and what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceProgress {
    /// How many rows were taken since the beginning, including those that wait and those given
    /// away.
    pub rows: u64,
    /// How many rows wait for their block to be full.
    pub waiting: usize,
    /// How many rows were given away instead of being folded.
    pub given_away: u64,
}

/// The factors A and B of a solved layer, and the errors without and with them.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCorrection<'a> {
    /// The factor A by columns: k columns of m numbers.
    pub a: &'a [f32],
    /// The factor B by rows: k orthonormal rows of n numbers.
    pub b: &'a [f32],
    /// How many columns of A and rows of B are not zero, at most k.
    pub rank_used: usize,
    /// The mean squared output error without a correction, over the rows folded.
    pub error_without: f64,
    /// The mean squared output error with the correction, before its factors are rounded any
    /// further. Of a sketch, an upper bound.
    pub error_with: f64,
    /// The least error that any correction of this rank leaves: the solved one, or of a sketch a
    /// lower bound.
    pub error_least: f64,
}

/// Number of f32 that a layer with R needs: `m (m + 1) / 2 + 8 m + k (m + n)` and
/// [`narrow_columns_len`].
#[must_use]
pub const fn exact_layer_numbers(in_features: usize, out_features: usize, rank: usize) -> usize {
    packed_len(in_features)
        + DEVICE_BLOCK * in_features
        + rank * (in_features + out_features)
        + narrow_columns_len(in_features, out_features, rank)
}

/// Number of f64 that a layer with R needs: [`narrow_workspace_len`].
#[must_use]
pub const fn exact_layer_workspace(out_features: usize, rank: usize) -> usize {
    narrow_workspace_len(out_features, rank)
}

/// Number of f32 that a layer with a sketch of `kept` rows needs:
/// `kept n + 8 (m + n) + m + k (m + n)`.
#[must_use]
pub const fn sketched_layer_numbers(
    in_features: usize,
    out_features: usize,
    rank: usize,
    kept: usize,
) -> usize {
    kept * out_features + (DEVICE_BLOCK + rank) * (in_features + out_features) + in_features
}

/// Number of f64 that a layer with a sketch needs: the larger one of `k n` and
/// [`error_sketch_workspace_len`]`(kept, 8)`.
#[must_use]
pub const fn sketched_layer_workspace(out_features: usize, rank: usize, kept: usize) -> usize {
    let shrink = error_sketch_workspace_len(kept, DEVICE_BLOCK);
    if shrink > rank * out_features {
        shrink
    } else {
        rank * out_features
    }
}

/// What is gathered of the rows: R or a sketch of the output errors.
#[derive(Debug)]
enum Gathered<'b> {
    Exact(NarrowAutocorrelation<'b>),
    Sketched {
        sketch: ErrorSketch<'b>,
        /// Room for the output errors x E of a block of rows.
        errors: &'b mut [f32],
    },
}

/// One layer of M inputs and N outputs and its correction of rank K, in one lent buffer.
///
/// `F` gives E: `error(first, columns)` fills `columns` with the columns `first..` of E = W - W~, M
/// numbers each. Where W~ is made by [`crate::quantize`], that is a row of the stored W less the
/// same row quantized.
pub struct DeviceLayer<'b, F, const M: usize, const N: usize, const K: usize> {
    gathered: Gathered<'b>,
    waiting: &'b mut [f32],
    waiting_rows: usize,
    a: &'b mut [f32],
    b: &'b mut [f32],
    columns: &'b mut [f32],
    workspace: &'b mut [f64],
    error: F,
    blocks: u64,
    rows: u64,
    given_away: u64,
}

impl<F, const M: usize, const N: usize, const K: usize> core::fmt::Debug
    for DeviceLayer<'_, F, M, N, K>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceLayer")
            .field("in_features", &M)
            .field("out_features", &N)
            .field("rank", &K)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<'b, F: FnMut(usize, &mut [f32]), const M: usize, const N: usize, const K: usize>
    DeviceLayer<'b, F, M, N, K>
{
    /// Gathers R of the rows: QERA-exact itself, in `2 m (m + 1)` bytes and what the solve takes.
    ///
    /// A buffer that is too small, a layer without inputs or outputs and a rank above them do not
    /// compile.
    ///
    /// # Errors
    /// None: the sizes are checked when the program is compiled. The result has the error type of
    /// the other steps.
    pub fn exact<const NUMBERS: usize, const WIDE: usize>(
        buffer: &'b mut LayerMemory<NUMBERS, WIDE>,
        error: F,
    ) -> Result<Self, DeviceError> {
        const {
            assert!(M > 0 && N > 0, "a layer has inputs and outputs");
            assert!(K <= M && K <= N, "the rank is above inputs or outputs");
            assert!(
                NUMBERS >= exact_layer_numbers(M, N, K),
                "the buffer has too few f32: exact_layer_numbers says how many"
            );
            assert!(
                WIDE >= exact_layer_workspace(N, K),
                "the buffer has too few f64: exact_layer_workspace says how many"
            );
        }
        let (packed, rest) = buffer.numbers.split_at_mut(packed_len(M));
        let (waiting, rest) = rest.split_at_mut(DEVICE_BLOCK * M);
        let (a, rest) = rest.split_at_mut(K * M);
        let (b, columns) = rest.split_at_mut(K * N);
        Ok(Self {
            gathered: Gathered::Exact(NarrowAutocorrelation::new(packed, M)?),
            waiting,
            waiting_rows: 0,
            a,
            b,
            columns,
            workspace: &mut buffer.wide,
            error,
            blocks: 0,
            rows: 0,
            given_away: 0,
        })
    }

    /// Gathers a sketch of the output errors instead of R: KEPT rows of n numbers (l - 1 in the
    /// words of [`ErrorSketch`](crate::statistics::ErrorSketch)). E has to be the same from the
    /// first row on and is asked for once a block. Sums cannot be sent.
    ///
    /// Sizes that do not fit do not compile, as with [`exact`](Self::exact).
    ///
    /// # Errors
    /// As [`exact`](Self::exact).
    ///
    /// ```
    /// use qera_core::device::{
    ///     DeviceLayer, DeviceRows, LayerMemory, sketched_layer_numbers, sketched_layer_workspace,
    /// };
    /// const M: usize = 3; // inputs
    /// const N: usize = 2; // outputs
    /// const K: usize = 1; // rank
    /// const KEPT: usize = 2; // rows of the sketch
    /// const NUMBERS: usize = sketched_layer_numbers(M, N, K, KEPT);
    /// const WIDE: usize = sketched_layer_workspace(N, K, KEPT);
    /// let error = [0.1_f32, 0.0, -0.1, 0.0, 0.2, 0.0]; // E by columns
    /// let mut memory = LayerMemory::<NUMBERS, WIDE>::new();
    /// let mut layer = DeviceLayer::<_, M, N, K>::sketched::<KEPT, NUMBERS, WIDE>(
    ///     &mut memory,
    ///     |first, columns| columns.copy_from_slice(&error[first * M..][..columns.len()]),
    /// )?;
    /// layer.feed(DeviceRows::F32(&[1.0, 0.0, -1.0, 0.5, 1.0, 0.5]))?;
    /// // d = x E: (0.2, 0) and (0, 0.2), of which rank 1 repairs one.
    /// let correction = layer.finish()?;
    /// assert!((correction.error_without - 0.04).abs() < 1e-6);
    /// assert!((correction.error_with - 0.02).abs() < 1e-6);
    /// # Ok::<(), qera_core::device::DeviceError>(())
    /// ```
    pub fn sketched<const KEPT: usize, const NUMBERS: usize, const WIDE: usize>(
        buffer: &'b mut LayerMemory<NUMBERS, WIDE>,
        error: F,
    ) -> Result<Self, DeviceError> {
        const {
            assert!(M > 0 && N > 0, "a layer has inputs and outputs");
            assert!(K <= M && K <= N, "the rank is above inputs or outputs");
            assert!(K <= KEPT, "the rank is above the rows of the sketch");
            assert!(
                NUMBERS >= sketched_layer_numbers(M, N, K, KEPT),
                "the buffer has too few f32: sketched_layer_numbers says how many"
            );
            assert!(
                WIDE >= sketched_layer_workspace(N, K, KEPT),
                "the buffer has too few f64: sketched_layer_workspace says how many"
            );
        }
        let (state, rest) = buffer.numbers.split_at_mut(KEPT * N);
        let (waiting, rest) = rest.split_at_mut(DEVICE_BLOCK * M);
        let (errors, rest) = rest.split_at_mut(DEVICE_BLOCK * N);
        let (a, rest) = rest.split_at_mut(K * M);
        let (b, rest) = rest.split_at_mut(K * N);
        let sketch = ErrorSketch::new(state, N)?;
        Ok(Self {
            gathered: Gathered::Sketched { sketch, errors },
            waiting,
            waiting_rows: 0,
            a,
            b,
            columns: &mut rest[..M],
            workspace: &mut buffer.wide,
            error,
            blocks: 0,
            rows: 0,
            given_away: 0,
        })
    }

    /// Takes one row or many.
    ///
    /// # Errors
    /// [`DeviceError::Length`] where the values are not whole rows: nothing was taken.
    /// [`DeviceError::Row`] for the first row with a value that is not finite or too large: the
    /// rows before it were taken.
    pub fn feed(&mut self, rows: DeviceRows<'_>) -> Result<(), DeviceError> {
        self.take(rows, None)
    }

    /// Takes rows as [`feed`](Self::feed) does, for a device that also sends what it saw: the first
    /// of every sixteen blocks of [`DEVICE_BLOCK`] rows is given to `send` instead of being folded,
    /// so that the daemon has rows by which to choose the shrinkage and to judge.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    ///
    /// ```
    /// use qera_core::device::{
    ///     DEVICE_BLOCK, DeviceLayer, DeviceProgress, DeviceRows, LayerMemory, SENT_OF,
    ///     exact_layer_numbers, exact_layer_workspace,
    /// };
    ///
    /// const NUMBERS: usize = exact_layer_numbers(1, 1, 1);
    /// const WIDE: usize = exact_layer_workspace(1, 1);
    /// let mut memory = LayerMemory::<NUMBERS, WIDE>::new();
    /// let mut layer = DeviceLayer::<_, 1, 1, 1>::exact(&mut memory, |_, e| e.fill(0.5))?;
    /// let mut sent = 0;
    /// let rows = DeviceRows::F32(&[1.0; 3 * DEVICE_BLOCK]);
    /// layer.feed_sending(rows, &mut |rows| sent += rows.len())?;
    /// assert_eq!((sent, SENT_OF), (DEVICE_BLOCK, 16)); // the first block of sixteen
    /// let DeviceProgress { rows, waiting, given_away } = layer.progress();
    /// assert_eq!((rows, waiting, given_away), (24, 0, 8));
    /// # Ok::<(), qera_core::device::DeviceError>(())
    /// ```
    pub fn feed_sending(
        &mut self,
        rows: DeviceRows<'_>,
        send: &mut dyn FnMut(&Rows<'_>),
    ) -> Result<(), DeviceError> {
        self.take(rows, Some(send))
    }

    fn take(
        &mut self,
        rows: DeviceRows<'_>,
        mut send: Option<&mut dyn FnMut(&Rows<'_>)>,
    ) -> Result<(), DeviceError> {
        let values = rows.values();
        if !rows.whole() || !values.is_multiple_of(M) {
            return Err(DeviceError::Length {
                values,
                in_features: M,
            });
        }
        for row in 0..values / M {
            let place = &mut self.waiting[self.waiting_rows * M..][..M];
            rows.write(row * M, place);
            Rows::new(place, M).map_err(|shape| DeviceError::Row { row, shape })?;
            self.waiting_rows += 1;
            self.rows += 1;
            if self.waiting_rows == DEVICE_BLOCK {
                match &mut send {
                    Some(send) if self.blocks.is_multiple_of(SENT_OF) => {
                        send(
                            &Rows::new(self.waiting, M)
                                .map_err(|shape| DeviceError::Row { row, shape })?,
                        );
                        self.given_away += DEVICE_BLOCK as u64;
                        self.waiting_rows = 0;
                    }
                    _ => self.fold_waiting()?,
                }
                self.blocks += 1;
            }
        }
        Ok(())
    }

    fn fold_waiting(&mut self) -> Result<(), DeviceError> {
        let waiting = &self.waiting[..self.waiting_rows * M];
        let rows = Rows::new(waiting, M).map_err(|shape| DeviceError::Row { row: 0, shape })?;
        match &mut self.gathered {
            Gathered::Exact(autocorrelation) => autocorrelation.update(&rows)?,
            Gathered::Sketched { sketch, errors } => {
                let mut room = SketchRoom {
                    errors,
                    columns: self.columns,
                    workspace: self.workspace,
                };
                sketch
                    .update(&rows, &mut self.error, &mut room)
                    .map_err(DeviceError::Sketch)?;
            }
        }
        self.waiting_rows = 0;
        Ok(())
    }

    /// Says how far the layer is.
    #[must_use]
    pub const fn progress(&self) -> DeviceProgress {
        DeviceProgress {
            rows: self.rows,
            waiting: self.waiting_rows,
            given_away: self.given_away,
        }
    }

    /// Returns the statistics for [`ShardWriter::sums`](super::ShardWriter::sums). Rows that wait
    /// are folded first.
    ///
    /// # Errors
    /// [`DeviceError::NoSums`] where a sketch is gathered, [`DeviceError::Statistic`].
    pub fn sums(&mut self) -> Result<&mut NarrowAutocorrelation<'b>, DeviceError> {
        self.fold_waiting()?;
        match &mut self.gathered {
            Gathered::Exact(autocorrelation) => Ok(autocorrelation),
            Gathered::Sketched { .. } => Err(DeviceError::NoSums),
        }
    }

    /// Solves the layer from all rows that were folded, those that wait included. More may be fed
    /// afterwards.
    ///
    /// # Errors
    /// [`DeviceError::Solve`], [`DeviceError::Sketch`], [`DeviceError::Statistic`].
    pub fn finish(&mut self) -> Result<DeviceCorrection<'_>, DeviceError> {
        self.fold_waiting()?;
        let autocorrelation = match &self.gathered {
            Gathered::Exact(autocorrelation) => autocorrelation,
            Gathered::Sketched { sketch, .. } => {
                let wide = &mut self.workspace[..K * N];
                let factors = Factors {
                    a: self.a,
                    b: self.b,
                };
                let rank_used = factors.of_sketch(sketch, wide, self.columns, &mut self.error)?;
                let optimum = sketch.optimum(K);
                return Ok(DeviceCorrection {
                    a: self.a,
                    b: self.b,
                    rank_used,
                    error_without: sketch.totals().trace,
                    error_with: optimum.most,
                    error_least: optimum.least,
                });
            }
        };
        let problem = NarrowProblem {
            autocorrelation: autocorrelation.packed(),
            in_features: M,
            out_features: N,
        };
        let room = NarrowRoom {
            columns: self.columns,
            workspace: self.workspace,
        };
        let report = reconstruct_narrow(&problem, &mut self.error, self.a, self.b, room)
            .map_err(DeviceError::Solve)?;
        Ok(DeviceCorrection {
            a: self.a,
            b: self.b,
            rank_used: report.rank_used,
            error_without: report.error_without,
            error_with: report.error_with,
            error_least: report.error_with,
        })
    }
}

/// A by columns and B by rows.
struct Factors<'a> {
    a: &'a mut [f32],
    b: &'a mut [f32],
}

impl Factors<'_> {
    /// Writes the leading directions of a sketch as B, and A = E V with E asked for once, column by
    /// column. Returns how many directions there are. `wide` holds as many numbers as B.
    fn of_sketch(
        self,
        sketch: &ErrorSketch<'_>,
        wide: &mut [f64],
        column: &mut [f32],
        error: &mut impl FnMut(usize, &mut [f32]),
    ) -> Result<usize, DeviceError> {
        let (m, n) = (column.len(), sketch.out_features());
        let rank = wide.len() / n;
        let mut directions = DMatrixViewMut::from_slice(wide, rank, n);
        let used = sketch
            .finish(directions.as_view_mut())
            .map_err(DeviceError::Sketch)?;
        self.a.fill(0.0);
        for j in 0..n {
            error(j, column);
            let factors = self.a.chunks_exact_mut(m).zip(self.b.chunks_exact_mut(n));
            for (r, (a, b)) in factors.enumerate() {
                b[j] = narrow(directions[(r, j)]);
                add_scaled_narrow(b[j], column, a);
            }
        }
        Ok(used)
    }
}
