//! Some rows of a weight that is served.

/// The beginnings of some rows of a weight.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Length of the whole rows.
    pub(crate) in_features: usize,
    /// Numbers of each row.
    pub(crate) width: usize,
    /// The numbers.
    pub(crate) values: Vec<f32>,
}
