//! Every grid that ggml's blocks hold is in them bit for bit, in the GGUF's order of rows.

use qera_core::dtype::FloatDtype;
use qera_core::quantize::{Grid, Int, Mxint, Q4_0};
use qera_daemon::decode_gguf_blocks;
use qera_tests::daemon::expect;
use qera_tests::gguf_model::LAYERS;

use crate::model::{assert_holds, base, daemon_with_model, nearest, rich_model, run_once};

#[test]
fn blocks_hold_each_grid() {
    let daemon = daemon_with_model(&rich_model());
    let mxint = |bits| Grid::Mxint(Mxint::new(bits, 32).unwrap());
    let int = |bits| Grid::Int(Int::new(bits, 32, FloatDtype::F16).unwrap());
    let q4_0 = [("q4-0".to_owned(), Grid::Q4_0(Q4_0))];
    let mxints = (2..=8).map(|bits| (format!("mxint{bits}"), mxint(bits)));
    let ints = (2..=8).map(|bits| (format!("int{bits}"), int(bits)));
    for (name, grid) in mxints.chain(ints).chain(q4_0) {
        let _ = std::fs::remove_dir_all(daemon.path().join("qera-out"));
        let run = run_once(&daemon, &["--quantizer", &name]);
        let (number, type_name, file_type, bits) = match &name[name.len() - 1..] {
            "0" | "2" | "3" | "4" => (2, "Q4_0", 2, "4.50"),
            "5" => (6, "Q5_0", 8, "5.50"),
            _ => (8, "Q8_0", 7, "8.50"),
        };
        let said = format!("base-gguf/model.gguf (3 layers in {type_name}, {bits} bits a weight; ");
        expect(&run, 0, &["base as GGUF written: ", &said]);
        let base = base(&daemon);
        for layer in &LAYERS {
            let tensor = base.tensor(&format!("{}.weight", layer.tensor));
            assert_eq!(tensor.type_number, number, "{name}");
            let quantized = nearest(&grid, &layer.weight(), layer.in_features);
            assert_holds(&base, layer, &quantized);
            // Decoded by the routine that every other test uses.
            let decoded = decode_gguf_blocks(number, &tensor.bytes).unwrap();
            assert_eq!(decoded, tensor.values(), "{name}");
        }
        assert_eq!(base.number("general.file_type"), file_type, "{name}");
        assert_eq!(base.number("general.quantization_version"), 2);
        let manifest = daemon.manifest("qera-out");
        let record = &manifest["gguf_base"];
        assert_eq!(record["types"][type_name], 3, "{name}: {record}");
        assert_eq!(record["whole"], serde_json::json!([]));
    }
}
