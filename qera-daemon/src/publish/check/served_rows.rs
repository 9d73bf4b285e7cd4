//! Sampled rows of a weight that is served.

/// The first numbers of some rows of a weight.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The full length of a row, in_features.
    pub(crate) in_features: usize,
    /// How many numbers of each row are here.
    pub(crate) width: usize,
    /// The numbers, row after row.
    pub(crate) values: Vec<f32>,
}
