//! A problem whose every step is known: 5 rows of 4 features, a weight of 3 x 4, executed with the
//! reference code.

/// in_features.
pub const M: usize = 4;
/// out_features.
pub const N: usize = 3;

/// The inputs, row by row.
pub const X: [f32; 20] = [
    1.0, 2.0, 0.0, -1.0, 0.5, -1.0, 3.0, 0.0, 2.0, 0.0, 1.0, 1.0, -1.0, 1.0, 0.5, 4.0, 0.0, -2.0,
    1.0, 0.5,
];

/// The weight, `[out_features, in_features]`, row by row.
pub const WEIGHT: [f32; 12] = [
    0.9, -0.31, 0.07, 0.52, -0.44, 0.6, 0.23, -0.11, 0.18, -0.05, 0.8, -0.63,
];

/// Its mxint2 form, blocks of 4.
pub const QUANTIZED: [f32; 12] = [
    0.5, -0.5, 0.0, 0.5, -0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, -0.5,
];

/// The autocorrelation of the inputs, packed.
pub const R: [f64; 10] = [1.25, 0.1, 0.6, -0.6, 2.0, -0.9, 0.2, 2.25, 0.7, 3.65];

/// Singular values of R^(1/2) E.
pub const SINGULAR: [f64; 3] = [0.790_688_838_4, 0.418_003_889_2, 0.106_882_668_9];

/// f without a correction, and with the best of rank 1, and with that of the diagonal, and of the
/// identity.
pub const ERRORS: [f64; 4] = [
    0.811_339_999_8,
    0.186_151_160_6,
    0.193_870_589_1,
    0.205_132_546_7,
];

/// W - W~ as the column-major m x n matrix that the row-major weight is.
pub fn error() -> [f64; 12] {
    core::array::from_fn(|at| f64::from(WEIGHT[at]) - f64::from(QUANTIZED[at]))
}
