//! A published adapter, copied to where it can be broken.

use std::fs;
use std::path::{Path, PathBuf};

use qera_tests::copied_folder::copy_folder;
use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::output_folder::unseal;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{daemon_with_shards, once_with};
use safetensors::SafeTensors;
use serde_json::Value;

use super::BINARY;

/// A daemon's folder with a base, a generation, and a copy of it in `adapter`.
pub(crate) fn published(more: &[&str]) -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    let options = [&["--emit-base"], more].concat();
    expect(&daemon.run(&once_with(&options)), 0, &["generation 1"]);
    copy_adapter(&daemon);
    daemon
}

/// Copies the current generation to `adapter`, whatever was there.
pub(crate) fn copy_adapter(daemon: &TestDaemon) {
    copy_folder(
        &daemon.path().join("qera-out/current"),
        &daemon.path().join("adapter"),
    );
}

/// Changes a JSON file of the copy.
pub(crate) fn change_json(daemon: &TestDaemon, file: &str, change: impl FnOnce(&mut Value)) {
    let path = daemon.path().join(file);
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
}

/// Changes the tensors of a safetensors file.
pub(crate) fn change_tensors(path: &Path, change: impl FnOnce(&mut Vec<TensorToWrite>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    let stored = names.iter().map(|name| {
        let tensor = file.tensor(name).unwrap();
        let dtype = tensor.dtype().to_string();
        TensorToWrite::new(name, &dtype, tensor.shape(), tensor.data().to_vec())
    });
    let mut tensors = stored.collect();
    change(&mut tensors);
    write_safetensors(path, &tensors, &[]);
}

/// Path of the copy's tensors.
pub(crate) fn tensors_path(daemon: &TestDaemon) -> PathBuf {
    daemon.path().join("adapter/adapter_model.safetensors")
}

/// The name of a factor's tensor.
pub(crate) fn factor(module: &str, factor: char) -> String {
    format!("base_model.model.{module}.lora_{factor}.weight")
}

/// The tensor of this name.
pub(crate) fn tensor<'t>(tensors: &'t mut [TensorToWrite], name: &str) -> &'t mut TensorToWrite {
    let found = tensors.iter_mut().find(|tensor| tensor.name == name);
    found.unwrap_or_else(|| panic!("no tensor {name}"))
}

/// `verify` of the copy, on the base that it names, and more; what is asked is what its files say,
/// not whether they are those that were written.
pub(crate) fn verify(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    unseal(&daemon.path().join("adapter"));
    daemon.run(&[&["verify", "--adapter", "adapter"], more].concat())
}

/// Asserts that the copy fails with these problems and no other; each is a part of its line.
pub(crate) fn expect_problems(run: &EndedRun, said: &[&str]) {
    let problems = run.output.lines().filter(|l| l.starts_with("problem: "));
    let problems: Vec<_> = problems.collect();
    assert_eq!(run.code, 1, "{}{}", run.output, run.log);
    assert_eq!(problems.len(), said.len(), "{said:?}\n{}", run.output);
    for words in said {
        let named = problems.iter().any(|line| line.contains(words));
        assert!(named, "'{words}' is not in:\n{}", run.output);
    }
}

/// Asserts that the copy passes, and what is said of it.
pub(crate) fn expect_holds(run: &EndedRun, said: &[&str]) {
    assert_eq!(run.code, 0, "{}{}", run.output, run.log);
    assert!(!run.output.contains("problem"), "{}", run.output);
    for words in ["holds: "].iter().chain(said) {
        assert!(run.output.contains(words), "'{words}': {}", run.output);
    }
}
