//! What each layer's W~ is stored in. Grid and width decide that before anything is rounded, and
//! the scales once it is.

use std::collections::BTreeMap;
use std::io::sink;

use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::formats::gguf::block_type::{BlockType, stored_size};
use crate::formats::gguf::container::{Container, NotInBlocks, bf16_holds};
use crate::formats::gguf::writer::{
    GgufTensorPlan, GgufWriteError, GgufWriter, MetadataBytes, MetadataValue,
};
use crate::publish::gguf_base::blocks::not_held;
use crate::publish::packed_base::layout::WholeLayer;
use crate::weights::Weights;
use crate::weights::gguf::source::{GgufSource, SourceTensor};

/// The key with which ggml's tools say how they quantized a file.
const FILE_TYPE: &str = "general.file_type";
const VERSION: &str = "general.quantization_version";
/// ggml's version of how blocks are made (`GGML_QNT_VERSION`).
const VERSION_WRITTEN: u32 = 2;

/// The type of blocks that each layer's W~ is stored in.
#[derive(Debug, Clone)]
pub(crate) struct GgufLayout {
    layers: Vec<LayerPlace>,
}

/// The type of blocks that one layer's W~ is stored in.
#[derive(Debug, Clone, Copy)]
struct LayerPlace {
    container: Container,
    /// Why it is stored as numbers, where it is.
    reason: Option<NotInBlocks>,
}

/// The sizes of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GgufFigures {
    /// Number of layers in each of ggml's types.
    pub(crate) types: BTreeMap<String, usize>,
    /// Bits of each weight of these layers, with the scales.
    pub(crate) bits_per_weight: f64,
    /// Bits of each number of the whole model.
    pub(crate) bits_per_parameter: f64,
    /// Bytes of all tensors.
    pub(crate) bytes: u64,
}

impl GgufLayout {
    /// The layout of these layers, as far as grids and widths decide it.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for a checkpoint that is no GGUF, a tensor of it that cannot be copied, and
    /// a layer that no type holds, by its name.
    pub(crate) fn new(weights: &Weights) -> Result<Self, Fatal> {
        let source = source_of(weights)?;
        if let Some(tensor) = source.tensors.iter().find(|of| of.bytes.is_none()) {
            let SourceTensor {
                name,
                file,
                type_number,
                ..
            } = tensor;
            let why =
                BlockType::of(*type_number).map_or_else(|e| e.to_string(), |of| of.to_string());
            return Err(refuse(
                weights,
                &format!(
                    "{}: tensor '{name}' cannot be copied: {why}",
                    file.display()
                ),
            ));
        }
        let grid = weights.grid();
        let places = weights.layers().iter().map(|layer| {
            match Container::blocks_of(grid, layer.in_features) {
                Ok(container) => Ok(LayerPlace {
                    container,
                    reason: None,
                }),
                Err(reason) => as_numbers(weights, &layer.name, reason),
            }
        });
        let layout = Self {
            layers: places.collect::<Result<_, _>>()?,
        };
        // Names and lengths that a reader would refuse come from the checkpoint.
        let plans = layout.plans(weights, &source);
        let written = GgufWriter::begin_with(sink(), &layout.metadata(weights, &source), &plans);
        match written.map(drop) {
            Err(GgufWriteError::Plan(error)) => Err(refuse(
                weights,
                &format!("{}: {error}", weights.path().display()),
            )),
            _ => Ok(layout),
        }
    }

    /// The layout once W~ is made: a layer with a scale outside of f16's range is stored as
    /// numbers.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for a layer that no type holds, by its name; as for
    /// [`Weights::with_codes`].
    pub(crate) fn with_scales(&self, weights: &Weights) -> Result<Self, Fatal> {
        let places = self.layers.iter().enumerate().map(|(layer, place)| {
            if place.container == Container::Bf16 {
                return Ok(*place);
            }
            match not_held(weights, layer)? {
                Some(reason) => as_numbers(weights, &weights.layers()[layer].name, reason),
                None => Ok(*place),
            }
        });
        Ok(Self {
            layers: places.collect::<Result<_, Fatal>>()?,
        })
    }

    /// The type of blocks that a layer's W~ is stored in.
    #[must_use]
    pub(crate) fn container(&self, layer: usize) -> Container {
        self.layers[layer].container
    }

    /// Layers that are stored as numbers, with the reason.
    #[must_use]
    pub(crate) fn whole(&self, weights: &Weights) -> Vec<WholeLayer> {
        let places = weights.layers().iter().zip(&self.layers);
        let whole = places.filter_map(|(layer, place)| {
            Some(WholeLayer {
                layer: layer.name.clone(),
                reason: place.reason?.to_string(),
            })
        });
        whole.collect()
    }

    /// The tensors of the file.
    #[must_use]
    pub(crate) fn plans(&self, weights: &Weights, source: &GgufSource<'_>) -> Vec<GgufTensorPlan> {
        let plan = |tensor: &SourceTensor<'_>| GgufTensorPlan {
            name: tensor.name.clone(),
            ne: tensor.ne.clone(),
            type_number: self.type_number(weights, tensor),
        };
        source.tensors.iter().map(plan).collect()
    }

    fn type_number(&self, weights: &Weights, tensor: &SourceTensor<'_>) -> u32 {
        let layer = tensor.known.and_then(|of| weights.layer_of(of.name));
        layer.map_or(tensor.type_number, |layer| {
            self.container(layer).block_type().number()
        })
    }

    /// Keys and values of the file: the checkpoint's, and the key with which ggml's tools say in
    /// which type most of the weights are.
    #[must_use]
    pub(crate) fn metadata(&self, weights: &Weights, source: &GgufSource<'_>) -> MetadataBytes {
        let said = [
            (FILE_TYPE, self.file_type(weights)),
            (VERSION, VERSION_WRITTEN),
        ];
        let mut metadata = MetadataBytes::default();
        for entry in &source.metadata {
            match said.iter().find(|(key, _)| *key == entry.key) {
                Some((key, value)) => metadata.put(key, &MetadataValue::U32(*value)),
                None => metadata.copy(entry),
            }
        }
        for (key, value) in said {
            if source.metadata.iter().all(|entry| entry.key != key) {
                metadata.put(key, &MetadataValue::U32(value));
            }
        }
        metadata
    }

    fn file_type(&self, weights: &Weights) -> u32 {
        let mut numbers: BTreeMap<Container, usize> = BTreeMap::new();
        for (layer, place) in weights.layers().iter().zip(&self.layers) {
            *numbers.entry(place.container).or_default() += layer.in_features * layer.out_features;
        }
        let most = numbers.into_iter().max_by_key(|(_, numbers)| *numbers);
        most.map_or(Container::Bf16, |(container, _)| container)
            .file_type()
    }

    /// The sizes of the file.
    ///
    /// # Errors
    /// The figures cannot be computed, as for [`new`](Self::new).
    pub(crate) fn figures(&self, weights: &Weights) -> Result<GgufFigures, Fatal> {
        let source = source_of(weights)?;
        let (mut all, mut of_layers) = (Taken::default(), Taken::default());
        let mut types: BTreeMap<String, usize> = BTreeMap::new();
        for tensor in &source.tensors {
            let type_number = self.type_number(weights, tensor);
            let taken = Taken::of(&tensor.ne, type_number);
            all.add(taken);
            if let Some(layer) = tensor.known.and_then(|of| weights.layer_of(of.name)) {
                of_layers.add(taken);
                let name = self.container(layer).block_type().name();
                *types.entry(name.into()).or_default() += 1;
            }
        }
        Ok(GgufFigures {
            types,
            bits_per_weight: of_layers.bits(),
            bits_per_parameter: all.bits(),
            bytes: all.bytes,
        })
    }
}

/// A count of numbers, and their bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    numbers: u64,
    bytes: u64,
}

impl Taken {
    fn of(ne: &[usize], type_number: u32) -> Self {
        let numbers = ne.iter().map(|&n| n as u64).product();
        let bytes = stored_size(type_number)
            .map_or(0, |size| numbers / size.len as u64 * size.bytes as u64);
        Self { numbers, bytes }
    }

    const fn add(&mut self, other: Self) {
        self.numbers += other.numbers;
        self.bytes += other.bytes;
    }

    fn bits(self) -> f64 {
        8.0 * self.bytes as f64 / self.numbers.max(1) as f64
    }
}

/// The GGUF that is copied: the checkpoint.
///
/// # Errors
/// [`Fatal::Usage`] where the checkpoint is none.
pub(crate) fn source_of(weights: &Weights) -> Result<GgufSource<'_>, Fatal> {
    GgufSource::of(weights.checkpoint()).ok_or_else(|| {
        let path = weights.path().display();
        refuse(weights, &format!("the checkpoint {path} is no GGUF"))
    })
}

fn as_numbers(weights: &Weights, layer: &str, reason: NotInBlocks) -> Result<LayerPlace, Fatal> {
    if bf16_holds(weights.grid()) {
        return Ok(LayerPlace {
            container: Container::Bf16,
            reason: Some(reason),
        });
    }
    Err(refuse(
        weights,
        &format!(
            "layer '{layer}' is quantized by {}: {reason}, and bf16 does not hold its numbers exactly; \
         choose another --quantizer, or --exclude it",
            weights.format()
        ),
    ))
}

fn refuse(weights: &Weights, reason: &str) -> Fatal {
    let rounding = weights.rounding();
    // Otherwise nobody asked for this form.
    let why = match rounding.uses_rows() {
        true => format!(" (--rounding {} has to write W~)", rounding.name()),
        false => String::new(),
    };
    Fatal::Usage(format!("--emit-base=gguf{why}: {reason}"))
}
