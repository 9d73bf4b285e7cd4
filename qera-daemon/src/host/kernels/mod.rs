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
//! Which form runs is decided once, by the table in `auto` ([`Kernel::best`]) or by name
//! (`--kernel`): a form is what numbers are multiplied by, and what pairs of bf16 rows are. The
//! forms differ in the order of f32 sums, and bf16 products take numbers below 2^-126 for 0:
//! entries of X^T X are within [`ENTRY_ERROR`] of sqrt(R_ii R_jj) of the exact ones in every form.
//! Tiles, blocks and the tasks handed to cores are cut by sizes alone, so that no bit depends on
//! the number of threads.

mod auto;
pub(crate) mod micro;
pub(crate) mod names;
pub(crate) mod pack;
pub(crate) mod packed_block;
pub(crate) mod page_vec;
pub(crate) mod pages;
pub(crate) mod panel;
pub(crate) mod products;
pub(crate) mod rank_update;
pub(crate) mod row_weights;
pub(crate) mod stored;
pub(crate) mod tile_block;

use qera_core::dtype::FloatDtype;

use crate::host::kernels::micro::amx::TileUnit;

/// Terms summed in f32 before the sum goes to f64; `products` sums half as many again rather than
/// leave a short piece.
pub const SUM_ROWS: usize = 512;

/// Bound of the error of an entry of X^T X, relative to sqrt(R_ii R_jj): f32 sums of [`SUM_ROWS`]
/// products whose roundings average out. Of channels that are the same in every row all may go one
/// way: up to SUM_ROWS / 3 2^-24, which is 1e-5.
pub const ENTRY_ERROR: f64 = 3e-6;

/// A form of the kernels that this CPU can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    vectors: Vectors,
    pairs: Option<PairProducts>,
}

/// The vectors in which f32 and f64 numbers are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vectors {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// The instructions that multiply pairs of bf16 numbers without widening them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PairProducts {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    Amx(TileUnit),
}

/// Size of a tile of X^T X.
#[derive(Debug, Clone, Copy)]
struct TileShape {
    lanes: usize,
    columns: usize,
}

/// Why a kernel cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Not a name of a kernel.
    #[error(
        "'{0}' is no kernel: auto, portable, avx2, avx512, avx512-bf16, amx-bf16, amx-bf16-model, neon"
    )]
    Unknown(String),
    /// A kernel for another CPU.
    #[error("kernel '{name}' needs a CPU with {needs}; this one runs: {here}")]
    Missing {
        /// The name of the kernel.
        name: String,
        /// The CPU features that it needs.
        needs: &'static str,
        /// The names of those that run here.
        here: String,
    },
    /// The CPU has the instructions, and they are not to be used.
    #[error("kernel '{name}' cannot run here: {why}")]
    Refused {
        /// The name of the kernel.
        name: String,
        /// Why it cannot run.
        why: String,
    },
}

impl Kernel {
    const PORTABLE: Self = Self {
        vectors: Vectors::Portable,
        pairs: None,
    };
    #[cfg(target_arch = "aarch64")]
    const NEON: Self = Self {
        vectors: Vectors::Neon,
        pairs: None,
    };

    /// Every kernel of instructions that this CPU can run, `portable` first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self::PORTABLE];
        found.extend(auto::here());
        found
    }

    /// The kernel that `auto` chooses on this CPU.
    #[must_use]
    pub fn best() -> Self {
        auto::best()
    }

    /// Why `auto` does without an instruction that it would use on this CPU.
    #[must_use]
    pub(crate) fn done_without() -> Option<String> {
        auto::tile_refusal().map(|why| format!("without AMX: {why}"))
    }

    /// The tile program by its model, beside the widest vectors of this CPU.
    fn modelled() -> Self {
        Self {
            vectors: Self::best().vectors,
            pairs: Some(PairProducts::Amx(TileUnit::Model)),
        }
    }

    /// By its name, or the best for `auto`.
    ///
    /// # Errors
    /// [`KernelError`] for a name that is none, or one whose instructions this CPU lacks or the
    /// operating system does not give.
    pub fn named(name: &str) -> Result<Self, KernelError> {
        let needs = match name {
            "auto" => return Ok(Self::best()),
            "portable" => "nothing",
            "avx2" => "AVX2 and FMA",
            "avx512" => "AVX-512F",
            "avx512-bf16" => "AVX-512F and AVX512-BF16",
            "amx-bf16" => "AVX-512F, AMX-TILE and AMX-BF16",
            "neon" => "64-bit ARM",
            "amx-bf16-model" => return Ok(Self::modelled()),
            _ => return Err(KernelError::Unknown(name.into())),
        };
        if let ("amx-bf16", Some(why)) = (name, auto::tile_refusal()) {
            return Err(KernelError::Refused {
                name: name.into(),
                why,
            });
        }
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

    /// The kernel's name as `--kernel` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.pairs {
            #[cfg(target_arch = "x86_64")]
            Some(PairProducts::Avx512Bf16) => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Some(PairProducts::Amx(TileUnit::Hardware)) => "amx-bf16",
            Some(PairProducts::Amx(TileUnit::Model)) => "amx-bf16-model",
            None => self.vectors.name(),
        }
    }

    /// The name of what multiplies rows of this type without weights: this kernel's, or that of the
    /// one that it is built on. Rows with weights are multiplied as f32 ones.
    #[must_use]
    pub const fn name_for(self, dtype: FloatDtype) -> &'static str {
        if self.multiplies_in_bf16(dtype) {
            self.name()
        } else {
            self.vectors.name()
        }
    }

    /// Whether rows of this type are multiplied in bf16, as they are or as sums of two.
    #[must_use]
    pub const fn multiplies_in_bf16(self, dtype: FloatDtype) -> bool {
        match dtype {
            FloatDtype::Bf16 => self.pairs.is_some(),
            FloatDtype::F16 => matches!(self.pairs, Some(PairProducts::Amx(_))),
            FloatDtype::F32 => false,
        }
    }

    /// Lanes and columns of a tile of X^T X.
    const fn tile(self) -> TileShape {
        let (lanes, columns) = match self.vectors {
            Vectors::Portable => (micro::portable::LANES, micro::portable::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => (16, micro::avx2::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => (48, micro::COLUMNS),
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon => (micro::neon::LANES, micro::neon::COLUMNS),
        };
        TileShape { lanes, columns }
    }

    /// Adds a tile's sums to f64 ones.
    fn add(self, tile: &[f32], sums: &mut [f64]) {
        match self.vectors {
            Vectors::Portable => micro::add(tile, sums),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => micro::avx2::add(tile, sums),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => micro::avx512::add(tile, sums),
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon => micro::add(tile, sums),
        }
    }

    /// Lanes of a vector.
    const fn vector(self) -> usize {
        match self.vectors {
            Vectors::Portable => micro::portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => 16,
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon => 4,
        }
    }
}

impl Vectors {
    const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }
}
