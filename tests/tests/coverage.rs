//! The interval of the held-out error covers: on a long real stream, the true error of a frozen correction lies in its
//! 95 % interval in 90 to 99 % of windows.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::Path;

use qera_core::quantize::Mxint;
use qera_daemon::{Aside, Stored, WrittenCorrection, score};
use qera_tests::daemon::{TestDaemon, expect, output_error};
use qera_tests::live::{fixture_model, fixture_run};
use qera_tests::model::{FixtureModel, calibration_tokens};
use qera_tests::reference::from_bf16;
use safetensors::SafeTensors;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Blocks of one window.
const WINDOW: usize = 12;
/// Sequences of the stream, all newer than the correction.
const SEQUENCES: usize = 1200;

#[test]
fn intervals_cover_the_true_error() {
    // The correction is frozen after the committed shards, the first 32 sequences of the stream.
    let daemon = TestDaemon::new(BINARY);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let activations = root.join("fixtures/activations").display().to_string();
    let model = fixture_model();
    let once = [&["--once"][..], &fixture_run(&activations, &model)].concat();
    expect(&daemon.run(&once), 0, &[]);
    let adapter = daemon.adapter("qera-out");
    let bytes = fs::read(Path::new(&model).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();

    let forward = FixtureModel::load();
    let stream: Vec<_> = calibration_tokens()[32..32 + SEQUENCES]
        .iter()
        .map(|tokens| forward.inputs(tokens))
        .collect();
    let (mut covered, mut windows) = (0, 0);
    for (index, (module, m, _)) in stream[0].iter().enumerate() {
        let tensor = file.tensor(&format!("{module}.weight")).unwrap();
        let error = quantization_error(&from_bf16(tensor.data()), *m);
        let (a, b, rank) = adapter.factors(module);
        let correction = WrittenCorrection {
            rank,
            lora_a: a.clone(),
            lora_b: b.clone(),
        };
        // The truth, by independent code: every row of the stream.
        let rows: Vec<f32> = stream.iter().flat_map(|s| &s[index].2).copied().collect();
        let truth = output_error(&rows, &error, *m, Some((&a, &b, rank)));

        let mut aside = Aside::new(*m, 1.0 / 16.0);
        for window in stream.chunks_exact(WINDOW) {
            window
                .iter()
                .for_each(|s| aside.offer(Stored::Floats(&s[index].2)));
            let blocks = aside.take(false);
            let evidence = score(0, &blocks, (&error, *m), core::slice::from_ref(&correction));
            let evidence = evidence.unwrap();
            assert_eq!(evidence.blocks, WINDOW as u64);
            let off = (evidence.error - truth).abs();
            covered += usize::from(off <= evidence.half_width.unwrap());
            windows += 1;
        }
    }
    assert_eq!(windows, 16 * SEQUENCES / WINDOW);
    let share = covered as f64 / windows as f64;
    println!("{covered} of {windows} intervals hold the true error: {share:.3}");
    assert!((0.90..=0.99).contains(&share), "{covered} of {windows}");
}

fn quantization_error(weight: &[f32], m: usize) -> Vec<f32> {
    let mut quantized = vec![0.0; weight.len()];
    let quantizer = Mxint::new(3, 32).unwrap();
    quantizer
        .quantize_dequantize(weight, m, &mut quantized)
        .unwrap();
    weight.iter().zip(&quantized).map(|(w, q)| w - q).collect()
}
