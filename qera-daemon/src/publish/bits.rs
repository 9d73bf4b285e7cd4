//! Effective bits of a weight over the layers that are corrected: of W~ as it is stored, of A and B
//! as they are written, and of both together, beside ggml's types that take more.

use qera_core::quantize::Grid;

use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::container::Container;
use crate::host::factor_type::FactorType;
use crate::observe::bits::{BitsPerWeight, StockTypes};
use crate::publish::bases::BaseRecords;
use crate::publish::gguf_base::layout::GgufLayout;
use crate::publish::gguf_base::record::GgufRecord;
use crate::publish::layers::{AdapterLayer, PublishedLayers};
use crate::publish::packed_base::layout::PackedLayout;
use crate::settings::Settings;
use crate::settings::publish::{AdapterForm, BaseForm};
use crate::weights::Weights;
use crate::weights::given::given_layers::GivenLayers;
use crate::weights::layers::Layer;

/// The form of W~ whose bits are counted.
#[derive(Debug)]
enum CountedBase<'a> {
    /// The W~ that the user gave, as it is stored.
    Given(&'a GivenLayers),
    /// A GGUF file, with the type of each layer's blocks.
    Gguf(Vec<Container>),
    /// A packed base, of which the layout says which layers are packed.
    CompressedTensors(PackedLayout),
    /// Codes and scales of the grid, where W~ is written as numbers or not written at all.
    Grid(Grid),
}

/// Sums over layers of numbers and their bits.
#[derive(Debug, Default)]
struct BitSums {
    layers: usize,
    weights: f64,
    base: f64,
    adapter: f64,
}

impl BitSums {
    /// Adds a layer whose factors have this rank, padded to what their type holds.
    fn add(&mut self, layer: &Layer, base: f64, rank: usize, dtype: FactorType) {
        self.layers += 1;
        self.weights += numbers_of(layer);
        self.base += base;
        let factors = dtype.padded_rank(rank) * (layer.in_features + layer.out_features);
        self.adapter += factors as f64 * dtype.bits();
    }

    fn bits(&self, base: &CountedBase<'_>) -> Option<BitsPerWeight> {
        let of = |bits: f64| bits / self.weights;
        let both = of(self.base + self.adapter);
        (self.layers > 0).then(|| BitsPerWeight {
            layers: self.layers,
            base: of(self.base),
            base_as: base.name(),
            adapter: of(self.adapter),
            both,
            next_to_base: next_stock(of(self.base)),
            next_to_both: next_stock(both),
        })
    }
}

/// The bits a weight of a generation with its base; `None` where no layer is corrected.
#[must_use]
pub(crate) fn bits_of(of: &PublishedLayers<'_>, bases: BaseRecords<'_>) -> Option<BitsPerWeight> {
    let weights = of.weights;
    let base = CountedBase::of_records(weights, bases);
    let mut sums = BitSums::default();
    for corrected in of.solved().filter(|of| of.solution.is_corrected()) {
        let AdapterLayer { index, layer, .. } = corrected;
        let bits = base.bits(weights, index);
        let rank = of.largest_rank_of(&corrected);
        sums.add(layer, bits, rank, of.dtype(index));
    }
    sums.bits(&base)
}

/// The bits of a run that corrects every layer with the asked rank.
#[must_use]
pub(crate) fn planned_bits(weights: &Weights, settings: &Settings) -> Option<BitsPerWeight> {
    let base = CountedBase::of_settings(weights, settings);
    let ranks = weights.layers().iter().map(|layer| layer.rank);
    let largest = ranks.max().unwrap_or_default();
    let mut sums = BitSums::default();
    for (index, layer) in weights.layers().iter().enumerate() {
        let has_one_rank = settings.publish.formats.contains(&AdapterForm::Mlx);
        let rank = match settings.publish.ragged && !has_one_rank {
            true => layer.rank,
            false => largest,
        };
        let dtype = settings.solve.factor_dtype.for_width(layer.in_features);
        sums.add(layer, base.bits(weights, index), rank, dtype);
    }
    let corrects = settings.solve.method.corrects();
    sums.bits(&base).filter(|_| corrects)
}

impl<'a> CountedBase<'a> {
    /// The form of W~ that serves the adapter, by the records of the bases.
    fn of_records(weights: &'a Weights, bases: BaseRecords<'_>) -> Self {
        if let Some(gguf) = bases.gguf {
            return Self::Gguf(containers(weights, gguf));
        }
        Self::of_forms(weights, bases.packed.is_some())
    }

    /// The form of W~ that will serve the adapter, by the settings.
    fn of_settings(weights: &'a Weights, settings: &Settings) -> Self {
        let writes = |form| settings.publish.writes(form);
        let layout = || GgufLayout::new(weights).ok();
        if let Some(layout) = layout().filter(|_| writes(BaseForm::Gguf)) {
            let layers = 0..weights.layers().len();
            return Self::Gguf(layers.map(|layer| layout.container(layer)).collect());
        }
        Self::of_forms(weights, writes(BaseForm::CompressedTensors))
    }

    fn of_forms(weights: &'a Weights, is_packed: bool) -> Self {
        if let Some(given) = weights.given() {
            return Self::Given(given);
        }
        let packed = is_packed.then(|| PackedLayout::new(weights).ok()).flatten();
        packed.map_or(Self::Grid(*weights.grid()), Self::CompressedTensors)
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Given(_) => "given",
            Self::Gguf(_) => BaseForm::Gguf.name(),
            Self::CompressedTensors(_) => BaseForm::CompressedTensors.name(),
            Self::Grid(_) => "grid",
        }
    }

    /// Bits of a layer's W~.
    fn bits(&self, weights: &Weights, index: usize) -> f64 {
        let layer = &weights.layers()[index];
        match self {
            Self::Given(given) => 8.0 * given.layers[index].tensor.stored_bytes() as f64,
            Self::Gguf(containers) => numbers_of(layer) * containers[index].block_type().bits(),
            Self::CompressedTensors(layout) => 8.0 * layout.bytes_of(weights, index) as f64,
            Self::Grid(grid) => {
                let (n, m) = (layer.out_features, layer.in_features);
                8.0 * (grid.codes_len(n, m) + grid.scales_len(n, m)) as f64
            }
        }
    }
}

fn numbers_of(layer: &Layer) -> f64 {
    layer.in_features as f64 * layer.out_features as f64
}

/// The type of each layer, from what is known of the file.
fn containers(weights: &Weights, record: &GgufRecord) -> Vec<Container> {
    let is_whole = |layer: &Layer| record.whole.iter().any(|of| of.layer == layer.name);
    let layers = weights.layers().iter();
    let each = layers.map(|layer| {
        let blocks = Container::blocks_of(weights.grid(), layer.in_features);
        blocks
            .ok()
            .filter(|_| !is_whole(layer))
            .unwrap_or(Container::Bf16)
    });
    each.collect()
}

/// The smallest of ggml's types that take more than this many bits.
fn next_stock(bits: f64) -> Option<StockTypes> {
    let larger = || BlockType::ALL.into_iter().filter(|of| of.bits() > bits);
    let next = larger().map(BlockType::bits).min_by(f64::total_cmp)?;
    let types = larger().filter(|of| of.bits().total_cmp(&next).is_eq());
    Some(StockTypes {
        types: types.map(BlockType::name).collect(),
        bits: next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_types_are_those_that_take_a_little_more() {
        let next = |bits: f64| {
            let found = next_stock(bits)?;
            Some(format!("{} {}", found.types.join(" "), found.bits))
        };
        for (bits, expected) in [
            (0.0, "Q1_0 1.125"),
            (3.25, "Q3_K IQ3_S 3.4375"),
            // Neither the type itself counts, nor another that takes as much.
            (4.5, "Q4_1 5"),
            (5.38, "Q5_0 Q5_K 5.5"),
            (8.5, "F16 BF16 16"),
            (16.0, "F32 32"),
        ] {
            assert_eq!(next(bits).as_deref(), Some(expected), "{bits}");
        }
        assert_eq!(next(32.0), None);
    }
}
