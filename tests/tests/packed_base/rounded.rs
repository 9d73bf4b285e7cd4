//! W~ that was rounded under what was seen is in the packed base as it is frozen.

use qera_tests::daemon::expect;

use crate::folder::BaseFolder;
use crate::model::{LAYERS, daemon_with_block, run_both, run_once};

#[test]
fn it_holds_the_frozen_weights_and_is_enough_alone() {
    let daemon = daemon_with_block();
    let out = daemon.path().join("qera-out");
    expect(
        &run_both(&daemon, &["--rounding", "projected"]),
        0,
        &["7 layers corrected"],
    );
    let packed = BaseFolder::open(&out.join("base-compressed-tensors"));
    let numbers = BaseFolder::open(&out.join("base"));
    let nearest = daemon_with_block();
    expect(&run_both(&nearest, &[]), 0, &[]);
    let nearest = BaseFolder::open(&nearest.path().join("qera-out/base"));
    let mut differ = 0;
    for layer in &LAYERS {
        let (module, found) = (layer.module(), packed.weight(&layer.module()));
        assert!(
            packed.packs(&module) && found == numbers.weight(&module),
            "{module}"
        );
        differ += usize::from(found != nearest.weight(&module));
    }
    assert_eq!(differ, LAYERS.len());
    assert_eq!(packed.record["rounded"], numbers.record["rounded"]);
    let verdict = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    assert_eq!(verdict.code, 0, "{}", verdict.output);

    // Alone, for W~ is nowhere else; the next run finds it there.
    let alone = daemon_with_block();
    let options = ["--rounding", "projected", "--emit-base=compressed-tensors"];
    expect(&run_once(&alone, &options), 0, &["packed base written"]);
    assert!(!alone.path().join("qera-out/base").exists());
    expect(&run_once(&alone, &options), 0, &["nothing new"]);
    let same = BaseFolder::open(&alone.path().join("qera-out/base-compressed-tensors"));
    assert_eq!(same.tensors, packed.tensors);
    // The base's W~ is not made again beside it.
    let state = alone.path().join("qera-out/state/rounded");
    std::fs::remove_dir_all(state).unwrap();
    let refused = run_once(&alone, &options);
    assert_eq!(refused.code, 4, "{}", refused.log);
    assert!(
        refused.log.contains("base-compressed-tensors"),
        "{}",
        refused.log
    );
}
