//! Weights that are none: the shard is set aside by name, and the rest counts.

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{K, LIVE_OPTIONS, Q, once_with, rename_in, sine_values};

use super::{Rows, daemon_with, once, weights_of};

const ROWS: usize = 30;

/// A shard of q with these weights, and more beside.
struct Bad {
    name: &'static str,
    tensors: Vec<TensorToWrite>,
    said: &'static [&'static str],
}

fn with(weights: TensorToWrite) -> Vec<TensorToWrite> {
    let rows = sine_values(ROWS * 8, 0.3);
    vec![TensorToWrite::f32(Q, &[2, 15, 8], &rows), weights]
}

fn of(name: &'static str, row: usize, value: f32, said: &'static [&'static str]) -> Bad {
    let mut weights = [1.0; ROWS];
    weights[row] = value;
    let tensors = with(weights_of(Q, &[2, 15], &weights));
    Bad {
        name,
        tensors,
        said,
    }
}

/// No row can have such a weight.
fn bad_numbers() -> [Bad; 3] {
    [
        of(
            "x-nan",
            17,
            f32::NAN,
            &[
                "shard x-nan.safetensors: weights 'model.layers.0.self_attn.q_proj::weight': weight NaN of row 17",
            ],
        ),
        of(
            "x-infinite",
            0,
            f32::INFINITY,
            &["x-infinite.safetensors", "weight inf of row 0"],
        ),
        of(
            "x-negative",
            29,
            -0.5,
            &[
                "x-negative.safetensors",
                "weight -0.5 of row 29; a weight is finite and not negative",
            ],
        ),
    ]
}

/// Weights that do not fit what they are beside.
fn bad_headers() -> [Bad; 6] {
    let key = format!("{Q}::weight");
    let ones = [1.0; ROWS];
    // A mask of the weights, and weights of the mask.
    let [masked, weighted] = ["weight::mask", "mask::weight"].map(|of| format!("{Q}::{of}"));
    let masked = TensorToWrite::u8(&masked, &[2, 15], &[1; ROWS]);
    let weighted = TensorToWrite::f32(&weighted, &[2, 15], &ones);
    let mask = TensorToWrite::u8(&format!("{Q}::mask"), &[2, 15], &[1; ROWS]);
    [
        Bad {
            name: "x-shape",
            tensors: with(weights_of(Q, &[ROWS], &ones)),
            said: &[
                "x-shape.safetensors",
                "q_proj::weight' have shape [30]; [2, 15] expected",
            ],
        },
        Bad {
            name: "x-dtype",
            tensors: with(TensorToWrite::bf16(&key, &[2, 15], &ones)),
            said: &[
                "x-dtype.safetensors",
                "q_proj::weight' has dtype BF16; F32 expected",
            ],
        },
        Bad {
            name: "x-alone",
            tensors: vec![weights_of(Q, &[2, 15], &ones)],
            said: &[
                "x-alone.safetensors",
                "q_proj::weight' belong to no tensor of the shard",
            ],
        },
        Bad {
            name: "x-both",
            tensors: [with(weights_of(Q, &[2, 15], &ones)), vec![mask.clone()]].concat(),
            said: &[
                "x-both.safetensors",
                "has a mask and weights: leave the mask out",
            ],
        },
        Bad {
            name: "x-masked-weights",
            tensors: [with(weights_of(Q, &[2, 15], &ones)), vec![masked]].concat(),
            said: &[
                "x-masked-weights.safetensors",
                "q_proj::weight::mask' is a mask or weights of what is itself",
            ],
        },
        Bad {
            name: "x-weighted-mask",
            tensors: [with(mask), vec![weighted]].concat(),
            said: &[
                "x-weighted-mask.safetensors",
                "q_proj::mask::weight' is a mask or weights of what is itself",
            ],
        },
    ]
}

/// Layers that read one input have one weight for each of its rows.
fn bad_sites() -> [Bad; 2] {
    let [q, k] =
        [Q, K].map(|key| TensorToWrite::f32(key, &[2, 15, 8], &sine_values(ROWS * 8, 0.3)));
    let mut other = [2.0; ROWS];
    other[4] = 0.5;
    [
        Bad {
            name: "x-site",
            tensors: vec![
                q.clone(),
                weights_of(Q, &[2, 15], &[2.0; ROWS]),
                k.clone(),
                weights_of(K, &[2, 15], &other),
            ],
            said: &[
                "x-site.safetensors",
                "k_proj",
                "different weights, first row 4",
            ],
        },
        Bad {
            name: "x-one-of-site",
            tensors: vec![q, weights_of(Q, &[2, 15], &[2.0; ROWS]), k],
            said: &[
                "x-one-of-site.safetensors",
                "different weights, first row 0",
            ],
        },
    ]
}

#[test]
fn bad_weights_are_refused_by_name_and_the_rest_counts() {
    let good = || Rows::four().map(|rows| rows.weighted(&[0.5, 2.0, 1.0]));
    let (daemon, clean) = (daemon_with(good()), once(good(), &[]));
    let bad = bad_numbers().into_iter().chain(bad_headers());
    let bad: Vec<Bad> = bad.chain(bad_sites()).collect();
    for of in &bad {
        rename_in(&daemon, of.name, &of.tensors);
    }
    let run = daemon.run(&once_with(&[]));
    expect(&run, 3, &["4 shards folded, 11 quarantined"]);
    for of in &bad {
        expect(&run, 3, of.said);
    }
    let (ours, clean) = (daemon.adapter("qera-out"), clean.adapter("qera-out"));
    assert!(ours.bytes == clean.bytes, "a refused shard left a trace");
}

/// Both members of a site may have the same weights; `plan` reads headers alone.
#[test]
fn members_of_a_site_share_their_weights() {
    let weights = weights_of(Q, &[30], &[0.5; ROWS]);
    let [q, k] = [Q, K].map(|key| TensorToWrite::f32(key, &[30, 8], &sine_values(ROWS * 8, 0.3)));
    let other = weights_of(K, &[30], &[0.5; ROWS]);
    let both = daemon_with([vec![q.clone(), weights.clone(), k, other]].into_iter());
    let plan = [&LIVE_OPTIONS[..], &["plan", "--once"]].concat();
    expect(&both.run(&plan), 0, &[]);
    expect(&both.run(&once_with(&[])), 0, &["1 shards folded"]);
    let one = once([vec![q, weights]].into_iter(), &[]);
    assert!(both.adapter("qera-out").bytes == one.adapter("qera-out").bytes);
}
