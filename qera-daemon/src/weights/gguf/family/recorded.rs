//! Tests the table against what llama.cpp's converter made of small checkpoints: the names and row
//! orders that `tests/gguf/names/test_rows.py` found and keeps in `rows.json`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::settings::name_map::NameMap;
use crate::weights::gguf::family::table::LISTED;
use crate::weights::gguf::family::{Family, WEIGHT};
use crate::weights::gguf::rows::{HeadCounts, RowOrder};

const ROWS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/gguf/names/rows.json"
));

/// A layer as it was recorded.
struct RecordedLayer<'r> {
    module: &'r str,
    tensor: &'r str,
    rows: usize,
    /// For each stored row, which row of the module it is.
    order: Vec<usize>,
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn layers(record: &Value) -> Vec<RecordedLayer<'_>> {
    let all = record["layers"].as_object().unwrap().iter();
    let recorded = all.map(|(module, of)| {
        let rows = number(&of["rows"]);
        let order = of["order"].as_array();
        RecordedLayer {
            module,
            tensor: of["tensor"].as_str().unwrap(),
            rows,
            order: order.map_or_else(|| (0..rows).collect(), |of| of.iter().map(number).collect()),
        }
    });
    recorded.collect()
}

fn heads(record: &Value) -> HeadCounts {
    let architecture = record["architecture"].as_str().unwrap();
    HeadCounts::of(architecture, |key| {
        let name = key.rsplit('.').next().unwrap();
        Some(vec![record["heads"].get(name)?.as_u64().unwrap()])
    })
}

#[test]
fn every_layer_has_the_tensor_and_the_rows_that_the_converter_gave_it() {
    let records: Vec<Value> = serde_json::from_str(ROWS).unwrap();
    let mut met = BTreeSet::new();
    for record in &records {
        let (checkpoint, model_type) = (&record["checkpoint"], &record["model_type"]);
        let model_type = model_type.as_str().unwrap();
        let family = Family::of_model_type(model_type).unwrap();
        assert_eq!(
            record["architecture"],
            family.architecture(),
            "{checkpoint}"
        );
        for of in layers(record) {
            let (module, tensor) = (of.module, of.tensor);
            let said = format!("{checkpoint}: {module}");
            // The checkpoint was saved by a class with a head, or by the base class.
            let rules =
                [family.class().unwrap().prefix(), ""].map(|prefix| family.map_rules_under(prefix));
            let mut maps = rules.into_iter().map(|rules| NameMap::new(true, rules));
            assert!(maps.any(|map| map.apply(tensor) == module), "{said}");
            if !tensor.starts_with("blk.") {
                assert!(of.order.iter().copied().eq(0..of.rows), "{said}");
                continue;
            }
            let found = family.tensor_of(module).unwrap();
            assert_eq!((found.tensor.as_str(), found.block), (tensor, 0), "{said}");
            let order = RowOrder::new(found.rows, &heads(record), 0, of.rows).unwrap();
            for (stored, &row) in of.order.iter().enumerate() {
                assert_eq!(order.stored(row), stored, "{said}: row {row}");
            }
            met.insert((model_type, tensor.to_owned()));
        }
    }
    for family in LISTED {
        for model_type in family.model_types {
            for of in family.layers {
                let tensor = format!("blk.0.{}{WEIGHT}", of.tensor);
                assert!(met.contains(&(*model_type, tensor)), "{model_type}: {of:?}");
            }
        }
    }
}
