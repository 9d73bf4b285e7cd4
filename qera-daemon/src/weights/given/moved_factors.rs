//! Detects that W~ is W times a factor for each input or output. AWQ, SmoothQuant and the like move
//! such factors from a layer into the one before it. W~ is then right where it is served, and W -
//! W~ is no error: correcting it would undo what the other layer expects.
//!
//! Rounding errors are independent of W. Factors can explain a share of 1/n of their square sum if
//! there is one factor for each input of n outputs, and of 1/m if there is one for each output of m
//! inputs.

use core::fmt;

use crate::host::cores::Cores;
use crate::weights::given::comparison::DECODED;
use crate::weights::given::tensor::{GivenError, GivenTensor};

/// Columns that one thread sums.
const COLUMNS: usize = 128;
/// The share of the error that factors may explain, beside the share that they explain of any
/// error.
const MOST: f64 = 0.1;
/// How many times the share that they explain of any error on average factors may explain.
const BY_CHANCE: f64 = 4.0;
/// With a smaller relative error than this there is nothing to explain.
const NEAR: f64 = 1e-3;
/// With a larger relative error than this, after the factors are taken off, W~ is something else.
const FAR: f64 = 0.5;

/// The finding that W~ is W times factors.
#[derive(Debug)]
pub(crate) struct MovedFactors {
    /// What the factors are of: inputs or outputs.
    of: &'static str,
    least: f64,
    most: f64,
    /// The share of the error that they explain.
    share: f64,
}

/// Square sums over a whole weight.
#[derive(Debug, Clone, Copy)]
struct Squares {
    /// The square sum of W - W~.
    difference: f64,
    /// The square sum of W.
    weight: f64,
}

/// Sums of products for one input or output.
#[derive(Debug, Clone, Copy, Default)]
struct Products {
    ww: f64,
    wq: f64,
}

impl Products {
    fn add(&mut self, w: f32, q: f32) {
        let (w, q) = (f64::from(w), f64::from(q));
        self.ww += w * w;
        self.wq += w * q;
    }

    /// How much of the error the factor explains.
    fn gain(&self) -> f64 {
        match self.ww > 0.0 {
            true => (self.wq - self.ww) * (self.wq - self.ww) / self.ww,
            false => 0.0,
        }
    }
}

struct Summed<'a> {
    first: usize,
    original: &'a [f32],
    inputs: Vec<Products>,
    outputs: Vec<Products>,
    /// The square sum of the difference.
    squares: f64,
    error: Option<GivenError>,
}

impl MovedFactors {
    /// Finds factors between W, given by columns, and W~; `None` where the two do not differ by
    /// factors.
    ///
    /// # Errors
    /// [`GivenError`] for a number that is not finite.
    pub(crate) fn find(
        of: &GivenTensor,
        original: &[f32],
        cores: &Cores,
    ) -> Result<Option<Self>, GivenError> {
        let m = of.in_features();
        let pieces = original.chunks(COLUMNS * m).enumerate();
        let mut pieces: Vec<Summed<'_>> = pieces
            .map(|(piece, original)| Summed {
                first: piece * COLUMNS,
                original,
                inputs: vec![Products::default(); m],
                outputs: Vec::new(),
                squares: 0.0,
                error: None,
            })
            .collect();
        cores.spread(pieces.iter_mut().collect(), |piece| {
            piece.error = piece.sum(of).err();
        });
        let mut inputs = vec![Products::default(); m];
        let (mut outputs, mut squares) = (Vec::new(), 0.0);
        for piece in pieces {
            if let Some(error) = piece.error {
                return Err(error);
            }
            for (all, own) in inputs.iter_mut().zip(piece.inputs) {
                all.ww += own.ww;
                all.wq += own.wq;
            }
            outputs.extend(piece.outputs);
            squares += piece.squares;
        }
        let weight: f64 = outputs.iter().map(|of| of.ww).sum();
        if squares <= NEAR * NEAR * weight {
            return Ok(None);
        }
        let squares = Squares {
            difference: squares,
            weight,
        };
        let of_inputs = Self::of("inputs", &inputs, squares, outputs.len());
        let of_outputs = Self::of("outputs", &outputs, squares, m);
        Ok(of_inputs.or(of_outputs))
    }

    fn of(of: &'static str, sums: &[Products], squares: Squares, terms: usize) -> Option<Self> {
        let Squares { difference, weight } = squares;
        let gain = sums.iter().map(Products::gain).sum::<f64>();
        let share = gain / difference;
        let factors = sums.iter().filter(|of| of.ww > 0.0);
        let factors = factors.map(|of| of.wq / of.ww);
        let found = Self {
            of,
            least: factors.clone().fold(f64::INFINITY, f64::min),
            most: factors.fold(f64::NEG_INFINITY, f64::max),
            share,
        };
        let is_it = share > MOST + BY_CHANCE / terms as f64;
        (is_it && difference - gain <= FAR * FAR * weight).then_some(found)
    }
}

impl Summed<'_> {
    fn sum(&mut self, of: &GivenTensor) -> Result<(), GivenError> {
        let m = of.in_features();
        let columns = (DECODED / m).clamp(1, COLUMNS);
        let mut values = vec![0.0; columns * m];
        for (strip, original) in self.original.chunks(columns * m).enumerate() {
            let values = &mut values[..original.len()];
            of.columns(self.first + strip * columns, values)?;
            for (original, quantized) in original.chunks(m).zip(values.chunks(m)) {
                let mut own = Products::default();
                for ((w, q), input) in original.iter().zip(quantized).zip(&mut self.inputs) {
                    input.add(*w, *q);
                    own.add(*w, *q);
                    let difference = f64::from(*w) - f64::from(*q);
                    self.squares += difference * difference;
                }
                self.outputs.push(own);
            }
        }
        Ok(())
    }
}

impl fmt::Display for MovedFactors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            of,
            least,
            most,
            share,
        } = self;
        write!(
            f,
            "its {of} are those of the checkpoint times factors from {least:.2} to {most:.2}, which \
             are {:.0} % of what the two differ by: AWQ, SmoothQuant and the like move factors from \
             one layer into the one before, and a correction would undo it; give the checkpoint in \
             which they are moved, in full precision",
            100.0 * share
        )
    }
}
