//! Which grids `pack-quantized` holds, the tensors of a layer, and the words of config.json.

use core::fmt;

use qera_core::dtype::FloatDtype;
use qera_core::quantize::Grid;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::formats::safetensors::header::dtype_name;
use crate::formats::safetensors::writer::TensorPlan;

/// Name of the format.
pub(crate) const FORMAT: &str = "pack-quantized";
/// The endings of the names of a module's tensors.
pub(crate) const PACKED: &str = "weight_packed";
pub(crate) const SCALE: &str = "weight_scale";
pub(crate) const SHAPE: &str = "weight_shape";
pub(crate) const ZERO_POINT: &str = "weight_zero_point";

/// The widths of codes and sizes of groups for which engines have kernels. The format itself allows
/// more.
const BITS: [u32; 2] = [4, 8];
const GROUPS: [usize; 3] = [32, 64, 128];
/// in_features and out_features must be multiples of this (vLLM's CPU kernel; kernels for GPUs pad
/// as they need).
const MULTIPLE: usize = 32;
const WORD: usize = 32;

/// How weights of one grid are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackScheme {
    /// Bits of a code.
    pub(crate) bits: u32,
    /// How many neighbours along in_features share a scale.
    pub(crate) group_size: usize,
    /// The type of scales, which holds those of the grid.
    pub(crate) scale_dtype: FloatDtype,
    /// Whether scales are powers of two, so that a code times its scale is a number of bf16.
    pub(crate) powers_of_two: bool,
    /// Whether each group also has a zero point.
    pub(crate) zero_points: bool,
}

/// Why a grid cannot be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemeError {
    /// No engine has a kernel for codes of this width.
    Bits(u32),
    /// No engine has a kernel for groups of this size.
    GroupSize(usize),
    /// No engine has a kernel for zero points of 8 bits.
    ZeroPoints,
    /// The scales of Q4_0 may be negative; it is served from a GGUF.
    Q4_0,
}

/// A weight's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackShape {
    /// in_features m.
    pub(crate) in_features: usize,
    /// out_features n.
    pub(crate) out_features: usize,
}

impl PackScheme {
    /// The scheme for a grid.
    ///
    /// # Errors
    /// [`SchemeError`] for a grid that no engine serves in this form.
    pub(crate) fn of(grid: &Grid) -> Result<Self, SchemeError> {
        let scheme = match grid {
            Grid::Mxint(mxint) => Self {
                bits: mxint.element_bits(),
                group_size: mxint.block_size(),
                // Scales are powers of two within f32's range, and their product with a code of 7
                // bits and a sign is a number of bf16, too.
                scale_dtype: FloatDtype::Bf16,
                powers_of_two: true,
                zero_points: false,
            },
            Grid::Int(int) => Self {
                bits: int.element_bits(),
                group_size: int.block_size(),
                scale_dtype: int.scale_dtype(),
                powers_of_two: false,
                zero_points: int.has_zero_points(),
            },
            Grid::Q4_0(_) => return Err(SchemeError::Q4_0),
        };
        if !BITS.contains(&scheme.bits) {
            return Err(SchemeError::Bits(scheme.bits));
        }
        if !GROUPS.contains(&scheme.group_size) {
            return Err(SchemeError::GroupSize(scheme.group_size));
        }
        if scheme.zero_points && scheme.bits == 8 {
            return Err(SchemeError::ZeroPoints);
        }
        Ok(scheme)
    }

    /// Whether engines have a kernel for a weight of this shape.
    #[must_use]
    pub(crate) const fn holds(&self, shape: PackShape) -> bool {
        let PackShape {
            in_features,
            out_features,
        } = shape;
        in_features.is_multiple_of(self.group_size)
            && in_features.is_multiple_of(MULTIPLE)
            && out_features.is_multiple_of(MULTIPLE)
    }

    /// Whether vLLM has a kernel for this scheme on CPUs.
    #[must_use]
    pub(crate) const fn runs_on_cpus(&self) -> bool {
        self.bits == 4
    }

    /// What is added to a code so that it is not negative; `None` with zero points, where codes
    /// begin at 0.
    #[must_use]
    pub(crate) fn offset(&self) -> Option<f32> {
        (!self.zero_points).then_some(if self.bits == 4 { 8.0 } else { 128.0 })
    }

    /// The tensors of a module, in the order in which they are written.
    #[must_use]
    pub(crate) fn plans(&self, module: &str, shape: PackShape) -> Vec<TensorPlan> {
        let PackShape {
            in_features: m,
            out_features: n,
        } = shape;
        let plan = |part: &str, dtype, shape: Vec<usize>| TensorPlan {
            name: format!("{module}.{part}"),
            dtype,
            shape,
        };
        let (bits, groups) = (self.bits as usize, m / self.group_size);
        let scale = dtype_name(self.scale_dtype);
        let mut plans = vec![
            plan(PACKED, Dtype::I32, vec![n, m * bits / WORD]),
            plan(SCALE, scale, vec![n, groups]),
            plan(SHAPE, Dtype::I64, vec![2]),
        ];
        if self.zero_points {
            plans.push(plan(ZERO_POINT, Dtype::I32, vec![n * bits / WORD, groups]));
        }
        plans
    }

    /// The `quantization_config` of config.json: every linear layer is packed, except those in
    /// `ignore`.
    #[must_use]
    pub(crate) fn config(&self, ignore: &[String]) -> Value {
        let codes = CodeWords {
            bits: self.bits,
            group_size: self.group_size,
            zero_points: self.zero_points,
        };
        codes.config(ignore)
    }
}

/// How config.json describes the codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeWords {
    /// Bits of a code.
    pub(crate) bits: u32,
    /// How many neighbours along in_features share a scale.
    pub(crate) group_size: usize,
    /// Whether each group also has a zero point.
    pub(crate) zero_points: bool,
}

impl CodeWords {
    /// Returns the configuration, as [`PackScheme::config`] does.
    #[must_use]
    pub(crate) fn config(&self, ignore: &[String]) -> Value {
        json!({
            "quant_method": "compressed-tensors",
            "format": FORMAT,
            "quantization_status": "compressed",
            "kv_cache_scheme": null,
            "ignore": ignore,
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "input_activations": null,
                    "output_activations": null,
                    "weights": {
                        "num_bits": self.bits,
                        "type": "int",
                        "symmetric": !self.zero_points,
                        "strategy": "group",
                        "group_size": self.group_size,
                        "dynamic": false,
                        "actorder": null,
                    },
                },
            },
        })
    }
}

impl fmt::Display for SchemeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits(bits) => write!(
                f,
                "engines have no kernel for {FORMAT} weights of {bits} bits, only of 4 and of 8"
            ),
            Self::GroupSize(size) => write!(
                f,
                "engines have no kernel for {FORMAT} weights in groups of {size}, only of 32, 64 and 128 (--block-size)"
            ),
            Self::ZeroPoints => write!(
                f,
                "engines have no kernel for {FORMAT} weights of 8 bits with zero points"
            ),
            Self::Q4_0 => f.write_str(
                "its scales may be negative, which no kernel was written for; int4 has the same levels",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qera_core::quantize::{Int, Mxint, Q4_0};

    fn mxint(bits: u32, block_size: usize) -> Result<PackScheme, SchemeError> {
        PackScheme::of(&Grid::Mxint(Mxint::new(bits, block_size).unwrap()))
    }

    #[test]
    fn grids_without_a_kernel_are_told_by_what_is_missing() {
        for bits in [2, 3, 5, 6, 7] {
            assert_eq!(mxint(bits, 32), Err(SchemeError::Bits(bits)));
        }
        assert_eq!(mxint(4, 16), Err(SchemeError::GroupSize(16)));
        assert_eq!(PackScheme::of(&Grid::Q4_0(Q4_0)), Err(SchemeError::Q4_0));
        let int = |bits| Int::new(bits, 64, FloatDtype::F16).unwrap();
        let packed = PackScheme::of(&Grid::Int(int(4).with_zero_points())).unwrap();
        assert!(packed.zero_points && packed.runs_on_cpus());
        assert_eq!(packed.offset(), None);
        let wide = PackScheme::of(&Grid::Int(int(8).with_zero_points()));
        assert_eq!(wide, Err(SchemeError::ZeroPoints));
        let wide = PackScheme::of(&Grid::Int(int(8))).unwrap();
        assert!(!wide.runs_on_cpus());
        assert_eq!(wide.scale_dtype, FloatDtype::F16);
    }

    #[test]
    fn shapes_without_a_kernel_are_told() {
        let scheme = mxint(4, 64).unwrap();
        let holds = |in_features, out_features| {
            scheme.holds(PackShape {
                in_features,
                out_features,
            })
        };
        assert!(holds(576, 32) && holds(64, 1536));
        assert!(!holds(96, 32) && !holds(64, 48) && !holds(60, 32));
    }

    #[test]
    fn plans_are_as_large_as_the_format_says() {
        let shape = PackShape {
            in_features: 128,
            out_features: 64,
        };
        let plans = mxint(4, 32).unwrap().plans("a.b", shape);
        let said: Vec<_> = plans.iter().map(|p| (&*p.name, &p.shape[..])).collect();
        assert_eq!(
            said,
            [
                ("a.b.weight_packed", &[64, 16][..]),
                ("a.b.weight_scale", &[64, 4]),
                ("a.b.weight_shape", &[2]),
            ]
        );
        let wide = mxint(8, 32).unwrap().plans("a.b", shape);
        assert_eq!(wide[0].shape, [64, 32]);
    }
}
