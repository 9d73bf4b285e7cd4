//! The host's matrix kernels: X^T X of many rows into a packed triangle (`rank_update`), and a few
//! vectors times a large matrix (`products`). Both cut their result into tiles that the loops of
//! `micro` sum in registers, in f32 over about [`SUM_ROWS`] terms; everything longer is summed in
//! f64.
//!
//! Why not a library's matrix product: it would leave X^T X in an f32 matrix of in_features
//! squared, to be read again and folded, has no bf16 products, and packs R and E anew for every few
//! vectors. Here the fold happens while the tile is in the first-level cache, bf16 rows are
//! multiplied as they came (products exact, twice the rate), and R and E are read as they lie in
//! memory.
//!
//! Which form runs is decided once, by what the CPU has ([`Kernel::best`]) or by name (`--kernel`).
//! The forms differ in the order of f32 sums, and bf16 products take numbers below 2^-126 for 0:
//! entries of X^T X are within [`ENTRY_ERROR`] of sqrt(R_ii R_jj) of the exact ones in every form.
//! Tiles, blocks and the tasks handed to cores are cut by sizes alone, so that no bit depends on
//! the number of threads.

pub(crate) mod micro;
pub(crate) mod page_vec;
pub(crate) mod pages;
pub(crate) mod panel;
pub(crate) mod products;
pub(crate) mod rank_update;
pub(crate) mod row_weights;
pub(crate) mod stored;

/// Terms summed in f32 before the sum goes to f64; `products` sums half as many again rather than
/// leave a short piece.
pub const SUM_ROWS: usize = 512;

/// Bound of the error of an entry of X^T X, relative to sqrt(R_ii R_jj): f32 sums of [`SUM_ROWS`]
/// products whose roundings average out. Of channels that are the same in every row all may go one
/// way: up to SUM_ROWS / 3 2^-24, which is 1e-5.
pub const ENTRY_ERROR: f64 = 3e-6;

/// A form of the kernels that this CPU can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// Size of a tile of X^T X.
#[derive(Debug, Clone, Copy)]
struct TileShape {
    lanes: usize,
    columns: usize,
}

/// A kernel that cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Not a name of a kernel.
    #[error("'{0}' is no kernel: auto, portable, avx2, avx512, avx512-bf16")]
    Unknown(String),
    /// A kernel for another CPU.
    #[error("kernel '{name}' needs a CPU with {needs}; this one runs: {here}")]
    Missing {
        /// Its name.
        name: String,
        /// What it needs.
        needs: &'static str,
        /// The names of those that run here.
        here: String,
    },
}

impl Kernel {
    /// Every kernel that this CPU can run, the fastest last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self(Form::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self(Form::Avx2));
                if is_x86_feature_detected!("avx512f") {
                    found.push(Self(Form::Avx512));
                    if is_x86_feature_detected!("avx512bf16") {
                        found.push(Self(Form::Avx512Bf16));
                    }
                }
            }
        }
        found
    }

    /// The fastest that this CPU can run.
    #[must_use]
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self(Form::Portable))
    }

    /// By its name, or the best for `auto`.
    ///
    /// # Errors
    /// [`KernelError`] for a name that is none, or one whose instructions this CPU lacks.
    pub fn named(name: &str) -> Result<Self, KernelError> {
        let needs = match name {
            "auto" => return Ok(Self::best()),
            "portable" => "nothing",
            "avx2" => "AVX2 and FMA",
            "avx512" => "AVX-512F",
            "avx512-bf16" => "AVX-512F and AVX512-BF16",
            _ => return Err(KernelError::Unknown(name.into())),
        };
        let here = Self::available();
        let names = || here.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ");
        here.iter()
            .copied()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| KernelError::Missing {
                name: name.into(),
                needs,
                here: names(),
            })
    }

    /// Its name, as `--kernel` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Form::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Form::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Whether bf16 rows are multiplied without being widened.
    #[must_use]
    pub const fn multiplies_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.0, Form::Avx512Bf16);
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Lanes and columns of a tile of X^T X.
    const fn tile(self) -> TileShape {
        let (lanes, columns) = match self.0 {
            Form::Portable => (micro::portable::LANES, micro::portable::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => (16, micro::avx2::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 | Form::Avx512Bf16 => (48, micro::COLUMNS),
        };
        TileShape { lanes, columns }
    }

    /// Adds a tile's sums to f64 ones.
    fn add(self, tile: &[f32], sums: &mut [f64]) {
        match self.0 {
            Form::Portable => micro::add(tile, sums),
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => micro::avx2::add(tile, sums),
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 | Form::Avx512Bf16 => micro::avx512::add(tile, sums),
        }
    }

    /// Lanes of a vector.
    const fn vector(self) -> usize {
        match self.0 {
            Form::Portable => micro::portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Form::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 | Form::Avx512Bf16 => 16,
        }
    }
}
