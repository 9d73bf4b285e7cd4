//! Effective bits of a weight: the cost of base and adapter, beside ggml's next larger types.

use core::fmt;

use serde::Serialize;

/// Effective bits of a weight, over the layers that are corrected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BitsPerWeight {
    /// The number of these layers.
    pub(crate) layers: usize,
    /// Bits of W~, scales included.
    pub(crate) base: f64,
    /// The form of W~ that was counted: `gguf`, `compressed-tensors`; `given` for a given W~;
    /// `grid` where W~ is written as numbers or not at all, and would take this many bits.
    pub(crate) base_as: &'static str,
    /// Bits of A and B.
    pub(crate) adapter: f64,
    /// Bits of both.
    pub(crate) both: f64,
    /// The smallest of ggml's types that take more than the base; `None` where there are none.
    pub(crate) next_to_base: Option<StockTypes>,
    /// The smallest of ggml's types that take more than base and adapter.
    pub(crate) next_to_both: Option<StockTypes>,
}

/// Types of ggml that take the same number of bits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StockTypes {
    /// The names of the types.
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
