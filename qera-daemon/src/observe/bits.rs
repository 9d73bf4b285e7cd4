//! Effective bits of a weight: what base and adapter cost, beside what ggml has to offer for more.

use core::fmt;

use serde::Serialize;

/// Of the layers that are corrected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BitsPerWeight {
    /// How many they are.
    pub(crate) layers: usize,
    /// Of W~, scales and all.
    pub(crate) base: f64,
    /// What was counted: `gguf`, `compressed-tensors`; `given` for what `--quantized` is stored in;
    /// `grid` where W~ is written as numbers or not at all, and would take this many bits.
    pub(crate) base_as: &'static str,
    /// Of A and B.
    pub(crate) adapter: f64,
    /// Of both.
    pub(crate) both: f64,
    /// The types of ggml that take more than the base, and as few bits as can be; none above all
    /// of them.
    pub(crate) next_to_base: Option<StockTypes>,
    /// Those that take more than both.
    pub(crate) next_to_both: Option<StockTypes>,
}

/// Types of ggml that take as many bits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StockTypes {
    /// Their names.
    pub(crate) types: Vec<&'static str>,
    /// Bits of a weight.
    pub(crate) bits: f64,
}

impl fmt::Display for BitsPerWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base,
            base_as,
            adapter,
            both,
            next_to_base,
            next_to_both,
            ..
        } = self;
        write!(
            f,
            "{base:.2} ({base_as}) + {adapter:.2} = {both:.2} bits a weight"
        )?;
        let next = [next_to_base, next_to_both].map(Option::as_ref);
        let next = match next {
            [Some(one), Some(other)] if one == other => &next[..1],
            _ => &next[..],
        };
        let mut before = "; next types of ggml: ";
        for of in next.iter().flatten() {
            write!(f, "{before}{} {:.2}", of.types.join("/"), of.bits)?;
            before = ", ";
        }
        Ok(())
    }
}
