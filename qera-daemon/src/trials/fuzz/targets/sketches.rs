//! A site's statistics in a snapshot, where output errors are sketched: the sketch of each layer,
//! and rows that wait with their weights. And `sites.json` of such a state.

use std::sync::LazyLock;

use qera_core::dtype::FloatDtype;
use serde_json::{Value, json};

use super::tensors::{is_read_back, make, on_file};
use crate::calibrate::blocks::SavedRows;
use crate::calibrate::outputs::{OutputsDamage, SiteOutputs};
use crate::calibrate::site::SiteStatistics;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::row_weights::RowWeights;
use crate::host::kernels::stored::StoredRows;
use crate::host::second_moment::SecondMomentKind;
use crate::state::statistics_file::{ExpectedStatistics, write_statistics};
use crate::trials::fuzz::Target;
use crate::trials::fuzz::seeds::{SEEDS, TensorSeed};
use crate::weights::sketched::{SiteSketch, SketchedLayer};

pub(super) const SKETCHES: Target = Target {
    name: "sketches",
    make: |draw| make(&SEED, draw),
    read: |bytes| {
        let sketch = sketch();
        let expected = ExpectedStatistics {
            key: KEY,
            in_features: M,
            second_moment: SecondMomentKind::Diagonal,
            sketch: Some(&sketch),
        };
        is_read_back(bytes, expected)
    },
};

/// The site's key.
const KEY: &str = "model.layers.0.self_attn.q_proj";
/// Width of its input.
const M: usize = 4;
/// Rows of each sketch.
const KEPT: usize = 2;
/// The layers, by name and number of outputs.
const LAYERS: [(&str, usize); 2] = [("k", 2), ("q", 3)];

fn sketch() -> SiteSketch {
    let layers = LAYERS.map(|(name, out_features)| SketchedLayer {
        name: name.into(),
        out_features,
    });
    SiteSketch {
        kept: KEPT,
        layers: layers.into(),
    }
}

/// `sites.json` where the first input is sketched.
pub(super) fn sketched_sites() -> Value {
    let mut sites = SEEDS.sites.clone();
    sites["version"] = 6.into();
    sites["sketch"] = json!({"rows": KEPT + 1, "checkpoint": "0123", "quantizer": "mxint3/4", "quantized": "4567"});
    sites["sites"][0]["sketched"] = json!(LAYERS.map(|(name, _)| name));
    sites
}

/// A file as the daemon writes it.
static SEED: LazyLock<TensorSeed> = LazyLock::new(|| {
    let of = |name: &str, is_lost: bool| json!({"name": name, "weight": 300.0, "trace": 9.5, "shrunk": 0.25, "is_lost": is_lost});
    let waiting = json!({"rows": 3, "dtype": "bf16", "weighted": true});
    let layers = [of("k", false), of("q", true)];
    let record = json!({"kept": KEPT, "layers": layers, "waiting": waiting});
    let record = serde_json::from_value(record).unwrap();
    let (bytes, weights) = ([0x3f; 2 * 3 * M], RowWeights::new(vec![0.5, 1.0, 2.0]));
    let rows = StoredRows::bytes(&bytes, FloatDtype::Bf16, M).weighted(Some(&weights));
    let rows = SavedRows::of(core::iter::once(rows));
    let numbers = |index: usize, length: usize| {
        let number = |i: usize| (i as f32 - 1.5) * (1.0 + index as f32);
        Ok::<PageVec<f32>, OutputsDamage>((0..length).map(number).collect::<Vec<_>>().into())
    };
    let outputs = SiteOutputs::restore(M, &sketch(), &record, rows, numbers).unwrap();
    let statistics = SiteStatistics {
        outputs: Some(outputs),
        ..SiteStatistics::new(M, SecondMomentKind::Diagonal, 0.0)
    };
    on_file(&[], |path, _| {
        write_statistics(path, KEY, &statistics).unwrap();
        TensorSeed::of(&std::fs::read(path).unwrap())
    })
});
