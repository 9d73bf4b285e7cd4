//! What a few vectors are multiplied by, and how they get there and back.

use crate::device::blas::Product;
use crate::device::memory::Span;
use crate::device::stream::Stream;
use crate::error::{DeviceError, check_length};
use crate::offload::SolveLane;
use core::ops::Range;

/// Columns of a matrix that are made in f64 at a time.
const WIDE_COLUMNS: usize = 256;

/// The sizes of B, depth x n by columns, and whether it is multiplied by as it lies or transposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor {
    pub(crate) depth: usize,
    pub(crate) n: usize,
    pub(crate) transposed: bool,
}

/// `count` vectors, by columns (count x their numbers), and where what comes of them goes.
pub(crate) struct Vectors<'a> {
    pub(crate) count: usize,
    pub(crate) x: &'a [f64],
    pub(crate) out: &'a mut [f64],
}

impl Factor {
    /// Numbers of a vector that is multiplied.
    const fn taken(&self) -> usize {
        if self.transposed { self.n } else { self.depth }
    }

    /// Numbers of a product.
    const fn given(&self) -> usize {
        if self.transposed { self.depth } else { self.n }
    }

    /// Holds vectors against the sizes; false where the products are known without multiplying.
    fn check(&self, vectors: &mut Vectors<'_>) -> Result<bool, DeviceError> {
        let (x, out) = (vectors.x.len(), vectors.out.len());
        let numbers = |of: usize| vectors.count.saturating_mul(of);
        check_length("vectors to multiply", x, numbers(self.taken()))?;
        check_length("products", out, numbers(self.given()))?;
        vectors.out.fill(0.0);
        Ok(x > 0 && out > 0)
    }
}

impl SolveLane {
    /// Multiplies by B in f32: narrowed, uploaded, multiplied, downloaded, widened.
    pub(crate) fn multiply_f32(
        &mut self,
        factor: Factor,
        b: Span<'_, f32>,
        mut vectors: Vectors<'_>,
    ) -> Result<(), DeviceError> {
        if !factor.check(&mut vectors)? {
            return Ok(());
        }
        let narrow: Vec<f32> = vectors.x.iter().map(|x| narrow(*x)).collect();
        let mut products = vec![0.0_f32; vectors.out.len()];
        let Self { lane, x, y, .. } = self;
        let (x, y) = (
            x.of(lane.context(), narrow.len())?,
            y.of(lane.context(), products.len())?,
        );
        lane.stream.upload(x, &narrow)?;
        lane.blas.multiply(&Product {
            m: vectors.count,
            n: factor.given(),
            depth: factor.taken(),
            a: x,
            a_stride: vectors.count,
            b,
            b_stride: factor.depth,
            b_transposed: factor.transposed,
            c: y,
            add: false,
        })?;
        lane.stream.download(y, &mut products)?;
        let pairs = vectors.out.iter_mut().zip(&products);
        pairs.for_each(|(to, from)| *to = f64::from(*from));
        Ok(())
    }

    /// Multiplies by B in f64, of which `make` asks for some columns at a time.
    pub(crate) fn multiply_f64(
        &mut self,
        factor: Factor,
        make: impl Fn(&Stream, Range<usize>, Span<'_, f64>) -> Result<(), DeviceError>,
        mut vectors: Vectors<'_>,
    ) -> Result<(), DeviceError> {
        if !factor.check(&mut vectors)? {
            return Ok(());
        }
        let Factor {
            depth,
            n,
            transposed,
        } = factor;
        let Self {
            lane,
            x_wide,
            y_wide,
            columns,
            ..
        } = self;
        let count = vectors.count;
        let x = x_wide.of(lane.context(), vectors.x.len())?;
        let products = y_wide.of(lane.context(), vectors.out.len())?;
        let wide = columns.of(lane.context(), depth * WIDE_COLUMNS.min(n))?;
        lane.stream.upload(x, vectors.x)?;
        for range in pieces(n) {
            let b = wide.part(0, depth * range.len())?;
            let (first, numbers) = (count * range.start, count * range.len());
            // Of the vectors where B is transposed, else of the products.
            let (a, c) = if transposed {
                (x.part(first, numbers)?, products)
            } else {
                (x, products.part(first, numbers)?)
            };
            let add = transposed && range.start > 0;
            let (n, depth, b_stride) = if transposed {
                (depth, range.len(), depth)
            } else {
                (range.len(), depth, depth)
            };
            make(&lane.stream, range, b)?;
            lane.blas.multiply(&Product {
                m: count,
                n,
                depth,
                a,
                a_stride: count,
                b,
                b_stride,
                b_transposed: transposed,
                c,
                add,
            })?;
        }
        lane.stream.download(products, vectors.out)
    }
}

/// Cuts columns into those that are made at a time.
pub(crate) fn pieces(n: usize) -> impl Iterator<Item = Range<usize>> {
    let firsts = (0..n).step_by(WIDE_COLUMNS);
    firsts.map(move |first| first..(first + WIDE_COLUMNS).min(n))
}

/// The nearest f32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
const fn narrow(value: f64) -> f32 {
    value as f32
}
