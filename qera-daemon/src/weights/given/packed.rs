//! W~ of a layer in a folder of packed weights, under the checkpoint's own names: packed, or as
//! floats where the folder leaves the weight as it was.

use core::fmt;
use std::path::Path;
use std::sync::Arc;

use qera_core::dtype::FloatDtype;
use safetensors::Dtype;

use crate::error::Fatal;
use crate::formats::packed::config::{GptqConfig, PackingConfig};
use crate::formats::packed::error::PackedError;
use crate::formats::packed::part::PackedPart;
use crate::formats::packed::scheme::{Bits, CodeLayout, InputGroups, Scheme, ZeroReading};
use crate::formats::packed::weight::{PackedParts, PackedWeight, Widths};
use crate::formats::safetensors::header::float_dtype;
use crate::weights::checkpoint::{Tensor, refuse};
use crate::weights::given::floats::{FloatError, FloatWeight};
use crate::weights::given::placed::Placed;
use crate::weights::layers::{Layer, tensor_of};
use crate::weights::packed::PackedFolder;
use crate::weights::passed_over::Why;

/// The share of ||W||^2 that may lie where scales are 0, so that W~ is zero there.
const MOST_MUTED: f64 = 1e-4;

/// W~ of one layer.
#[derive(Debug, Clone)]
pub(crate) struct PackedTensor {
    /// The name of the tensor that holds its codes, or its floats.
    pub(crate) name: String,
    module: String,
    folder: Arc<PackedFolder>,
    widths: Widths,
    stored: Stored,
}

#[derive(Debug, Clone, Copy)]
enum Stored {
    Packed(Scheme),
    Floats { dtype: FloatDtype, transposed: bool },
}

/// A group whose scale is 0 although W is not.
#[derive(Debug)]
pub(crate) struct MutedGroup {
    output: usize,
    group: usize,
    share: f64,
}

impl PackedTensor {
    /// Finds W~ of a layer.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file, tensor and layer: a tensor that is missing, or of another
    /// type or shape; inputs of no group; a packed weight that the configuration does not name.
    pub(crate) fn find(folder: &Arc<PackedFolder>, layer: &Layer) -> Result<Placed<Self>, Fatal> {
        let tensors = &folder.checkpoint.tensors;
        let codes = codes_of(&layer.name, &folder.config);
        let (name, tensor) = match (tensors.get(&codes), tensors.get(&tensor_of(&layer.name))) {
            (Some(tensor), _) => (codes, tensor),
            (None, Some(tensor)) => (tensor_of(&layer.name), tensor),
            (None, None) => return Ok(Placed::LeftOut(Why::NotInFolder)),
        };
        let refuse = |reason: String| {
            let reason = format!("tensor '{name}' of the layer '{}': {reason}", layer.name);
            refuse(folder.checkpoint.file_of(tensor), reason)
        };
        let widths = Widths {
            inputs: layer.in_features,
            outputs: layer.out_features,
        };
        let stored = match name == tensor_of(&layer.name) {
            true => floats(tensor, layer),
            false => scheme_of(folder, layer, tensor).map(Stored::Packed),
        };
        let stored = stored.map_err(|e| refuse(e.to_string()))?;
        let found = Self {
            name: name.clone(),
            module: layer.name.clone(),
            folder: Arc::clone(folder),
            widths,
            stored,
        };
        found.weight().map_err(|e| refuse(e.to_string()))?;
        Ok(Placed::Here(found))
    }

    /// The weight's widths.
    #[must_use]
    pub(crate) const fn widths(&self) -> Widths {
        self.widths
    }

    /// The number of bytes of its tensors.
    #[must_use]
    pub(crate) fn stored_bytes(&self) -> usize {
        let names: &[&'static str] = match self.stored {
            Stored::Floats { .. } => &["weight"],
            Stored::Packed(scheme) => tensors_of(scheme.layout),
        };
        let parts = names.iter().filter_map(|name| self.part(name));
        parts.map(|part| part.bytes.len()).sum()
    }

    /// The file that holds its codes.
    #[must_use]
    pub(crate) fn file(&self) -> &Path {
        let checkpoint = &self.folder.checkpoint;
        let tensor = checkpoint.tensors.get(&self.name);
        tensor.map_or(&checkpoint.path, |tensor| checkpoint.file_of(tensor))
    }

    /// The format in words: `int4/128/f16/zero-points`, `bf16`.
    #[must_use]
    pub(crate) fn stored_in(&self) -> String {
        match self.stored {
            Stored::Floats { dtype, .. } => dtype.name().to_owned(),
            Stored::Packed(scheme) => {
                let scales = self.part("scales").or_else(|| self.part("weight_scale"));
                scheme.described(scales.map_or(Dtype::F32, |scales| scales.dtype))
            }
        }
    }

    /// The largest relative error that the format explains: about twice what rounding to nearest
    /// leaves of SmolLM2's weights and of Student-t ones of 4 degrees, whichever is worse
    /// (symmetric, 4 bits: groups of 32 .13, of 64 .16, of 128 .19, all inputs .44; 8 bits .007,
    /// .009, .011, .027). Rounding with feedback leaves up to a third more.
    #[must_use]
    pub(crate) const fn most_left(&self) -> f64 {
        match self.stored {
            // The checkpoint may itself be rounded to bf16.
            Stored::Floats { .. } => 8e-3,
            Stored::Packed(scheme) => match (scheme.bits, scheme.grouping) {
                (Bits::Eight, InputGroups::Size(_)) => 0.03,
                (Bits::Eight, InputGroups::Channel) => 0.06,
                (Bits::Four, InputGroups::Size(..=64)) => 0.3,
                (Bits::Four, InputGroups::Size(_)) => 0.4,
                (Bits::Four, InputGroups::Channel) => 0.8,
            },
        }
    }

    /// How its zero points are read, where there are two readings.
    #[must_use]
    pub(crate) const fn zero_points(&self) -> Option<ZeroReading> {
        match self.stored {
            Stored::Packed(Scheme {
                layout: CodeLayout::Gptq { zeros, .. },
                ..
            }) => Some(zeros),
            _ => None,
        }
    }

    /// The same weight with the other reading of zero points; `None` where there is only one.
    #[must_use]
    pub(crate) fn read_otherwise(&self) -> Option<Self> {
        let Stored::Packed(
            scheme @ Scheme {
                layout: CodeLayout::Gptq { zeros, ordered },
                ..
            },
        ) = self.stored
        else {
            return None;
        };
        let layout = CodeLayout::Gptq {
            zeros: zeros.other(),
            ordered,
        };
        Some(Self {
            stored: Stored::Packed(Scheme { layout, ..scheme }),
            ..self.clone()
        })
    }

    /// Reads columns of W~ from `first` on, as many as `values` holds.
    ///
    /// # Errors
    /// [`PackedError`] for a scale or a number that is NaN or infinite.
    pub(crate) fn columns(&self, first: usize, values: &mut [f32]) -> Result<(), PackedError> {
        match (self.stored, self.weight()?) {
            (Stored::Packed(_), Some(weight)) => weight.columns(first, values),
            (Stored::Floats { dtype, transposed }, _) => {
                self.float_columns(first, values, dtype, transposed)
            }
            // A packed weight is one.
            (Stored::Packed(_), None) => Ok(()),
        }
    }

    /// The first group whose scale is 0 although W (given by columns) is not, if such groups hold
    /// more than a negligible share of W.
    #[must_use]
    pub(crate) fn muted(&self, original: &[f32]) -> Option<MutedGroup> {
        let weight = self.weight().ok()??;
        let groups = weight.groups();
        let is_zero = |at: usize| weight.scale(at / groups, at % groups) == 0.0;
        let mut places = 0..self.widths.outputs * groups;
        // There is hardly ever such a group.
        places.find(|at| is_zero(*at))?;
        let (mut all, mut lost, mut first) = (0.0, 0.0, None);
        let columns = original.chunks_exact(self.widths.inputs);
        for (output, column) in columns.enumerate() {
            for (w, &group) in column.iter().zip(weight.group_of()) {
                let square = f64::from(*w) * f64::from(*w);
                all += square;
                if square > 0.0 && is_zero(output * groups + group) {
                    lost += square;
                    first.get_or_insert((output, group));
                }
            }
        }
        let (output, group) = first.filter(|_| lost > MOST_MUTED * all)?;
        Some(MutedGroup {
            output,
            group,
            share: lost / all,
        })
    }

    /// The packed weight, checked; `None` for floats.
    fn weight(&self) -> Result<Option<PackedWeight<'_>>, PackedError> {
        let Stored::Packed(scheme) = self.stored else {
            return Ok(None);
        };
        let of = |name| self.part(name);
        let names = tensors_of(scheme.layout);
        let codes = of(names[0]).ok_or(PackedError::Missing {
            part: names[0],
            why: "it was there before",
        })?;
        let parts = PackedParts {
            codes,
            scales: of(names[1]),
            zeros: of(names[2]),
            groups: of(names[3]),
            said_shape: of("weight_shape"),
        };
        PackedWeight::new(scheme, self.widths, parts).map(Some)
    }

    fn part(&self, name: &'static str) -> Option<PackedPart<'_>> {
        let checkpoint = &self.folder.checkpoint;
        let tensor = checkpoint.tensors.get(&format!("{}.{name}", self.module))?;
        Some(PackedPart {
            name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
            bytes: checkpoint.bytes(tensor),
        })
    }

    fn float_columns(
        &self,
        first: usize,
        values: &mut [f32],
        dtype: FloatDtype,
        transposed: bool,
    ) -> Result<(), PackedError> {
        let floats = FloatWeight {
            bytes: self.part("weight").map_or(&[][..], |part| part.bytes),
            dtype,
            inputs: self.widths.inputs,
            outputs: self.widths.outputs,
            transposed,
        };
        floats
            .columns(first, values)
            .map_err(|FloatError { output, error }| PackedError::Float {
                output,
                error: error.to_string(),
            })
    }
}

/// The names of a packed weight's tensors: codes, scales, zero points, groups.
const fn tensors_of(layout: CodeLayout) -> &'static [&'static str; 4] {
    match layout {
        CodeLayout::CompressedTensors { .. } => &[
            "weight_packed",
            "weight_scale",
            "weight_zero_point",
            "weight_g_idx",
        ],
        CodeLayout::Gptq { .. } | CodeLayout::Awq { .. } => {
            &["qweight", "scales", "qzeros", "g_idx"]
        }
    }
}

impl fmt::Display for MutedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            output,
            group,
            share,
        } = self;
        write!(
            f,
            "the scale of output {output}, group {group} is 0, and the weight is not: such groups \
             hold {:.2} % of its square sum",
            100.0 * share
        )
    }
}

/// The name of the tensor that holds a layer's codes.
fn codes_of(module: &str, config: &PackingConfig) -> String {
    let part = match config {
        PackingConfig::CompressedTensors(_) => "weight_packed",
        PackingConfig::Gptq(_) | PackingConfig::Awq(_) => "qweight",
    };
    format!("{module}.{part}")
}

/// A weight that is not packed: floats, in the checkpoint's shape.
fn floats(tensor: &Tensor, layer: &Layer) -> Result<Stored, PackedError> {
    let (m, n) = (layer.in_features, layer.out_features);
    let part = PackedPart {
        name: "weight",
        dtype: tensor.dtype,
        shape: &tensor.shape,
        bytes: &[],
    };
    let dtype = float_dtype(tensor.dtype);
    let dtype = dtype.ok_or_else(|| part.type_error("F32, F16 or BF16"))?;
    let expected = if layer.transposed { [m, n] } else { [n, m] };
    part.has(
        expected,
        "the checkpoint's weight has it, this is another model",
    )?;
    Ok(Stored::Floats {
        dtype,
        transposed: layer.transposed,
    })
}

/// How a packed weight is packed.
fn scheme_of(folder: &PackedFolder, layer: &Layer, codes: &Tensor) -> Result<Scheme, PackedError> {
    match &folder.config {
        PackingConfig::CompressedTensors(targets) => {
            let scheme = targets.scheme_of(&layer.name);
            scheme.ok_or(PackedError::NotTargeted)
        }
        PackingConfig::Gptq(GptqConfig {
            scheme,
            dynamic: false,
        })
        | PackingConfig::Awq(scheme) => Ok(*scheme),
        PackingConfig::Gptq(GptqConfig { scheme, .. }) => {
            let tensors = &folder.checkpoint.tensors;
            let scales = tensors.get(&format!("{}.scales", layer.name));
            shaped(*scheme, layer.in_features, codes, scales)
        }
    }
}

/// The scheme of a weight whose bits and groups follow from its tensors' shapes.
fn shaped(
    scheme: Scheme,
    inputs: usize,
    codes: &Tensor,
    scales: Option<&Tensor>,
) -> Result<Scheme, PackedError> {
    let words = codes.shape.first().copied().unwrap_or_default();
    let mut read = [Bits::Four, Bits::Eight].into_iter();
    let bits = read.find(|bits| words.checked_mul(bits.per_word()) == Some(inputs));
    let groups = scales.and_then(|of| of.shape.first().copied());
    let grouping = match groups {
        Some(groups) if groups > 1 => InputGroups::Size(inputs.div_ceil(groups)),
        _ => InputGroups::Channel,
    };
    Ok(Scheme {
        bits: bits.ok_or(PackedError::Words { words, inputs })?,
        grouping,
        ..scheme
    })
}
