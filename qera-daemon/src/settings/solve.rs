//! Settings of a solve: method, shrinkage, type of A and B.

use qera_core::reconstruct::Method;

use crate::error::Fatal;
use crate::host::factor_type::FactorType;
use crate::settings::options::{FACTOR_DTYPES, METHODS, Options};
use crate::settings::parse::one_of;
use crate::settings::statistics::Statistics;

/// How A and B are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SolveSettings {
    /// The method by which C is computed.
    pub(crate) method: Method,
    /// The shrinkage of R toward its diagonal.
    pub(crate) shrinkage: Shrinkage,
    /// Type of A and B.
    pub(crate) factor_dtype: FactorType,
    /// What is gathered; none where nothing was said.
    pub(crate) statistics: Option<Statistics>,
}

/// `--shrinkage`: R_a = (1 - a) R + a diag(R).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shrinkage {
    /// Chosen on held-out blocks.
    Auto,
    /// A given number; 0 is QERA-exact as in the paper, 1 is QERA-approx.
    Fixed(f64),
}

impl SolveSettings {
    /// Checks the options of this part.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn resolve(options: &Options) -> Result<Self, Fatal> {
        let dtype = one_of("dtype", options.dtype.as_deref(), &FACTOR_DTYPES)?;
        let method = one_of("method", options.method.as_deref(), &METHODS)?;
        Ok(Self {
            method: Method::parse(method)
                .ok_or_else(|| Fatal::Usage(format!("--method: unknown value '{method}'")))?,
            shrinkage: shrinkage(options.shrinkage.as_deref().unwrap_or_default())?,
            factor_dtype: FactorType::named(dtype)
                .ok_or_else(|| Fatal::Usage(format!("--dtype: unknown value '{dtype}'")))?,
            // What else was asked for decides whether it can be had.
            statistics: None,
        })
    }
}

fn shrinkage(text: &str) -> Result<Shrinkage, Fatal> {
    if text == "auto" {
        return Ok(Shrinkage::Auto);
    }
    match text.parse::<f64>() {
        Ok(a) if (0.0..=1.0).contains(&a) => Ok(Shrinkage::Fixed(a)),
        _ => Err(Fatal::Usage(format!(
            "--shrinkage: '{text}' is neither auto nor a number from 0 to 1"
        ))),
    }
}
