//! The probe on this machine, and on stand-in driver libraries that are missing, broken or fine.
//!
//! A stand-in is a shared library of a few C functions, compiled here and found through
//! `LD_LIBRARY_PATH` by a child process: it shows that the probe's logic holds, not that any GPU
//! works.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use qera_gpu::{Device, Probe, Reason, probe};
use std::path::Path;
use std::process::Command;

/// Asks for the probe of this machine; in a child process it is also what prints it.
#[test]
fn probe_of_this_machine_does_not_panic() {
    let found = probe();
    println!("probe: {found}");
    assert_eq!(probe(), found, "asking again gives the same answer");
    match found {
        Probe::Available(device) => assert!(!device.name.is_empty() && device.memory_bytes > 0),
        Probe::Unavailable(Reason::Library { searched }) => {
            assert!(
                searched.iter().any(|name| name == "libcuda.so.1"),
                "the name that driver packages install"
            );
        }
        Probe::Unavailable(reason) => assert!(!reason.to_string().is_empty()),
    }
}

/// Compiles `source` as libcuda.so in a folder of its own and returns what a child that loads it
/// prints.
fn probe_with_driver(name: &str, source: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("driver.c");
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(folder.join("libcuda.so"))
        .arg(&file)
        .status()
        .unwrap();
    assert!(compiled.success());
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "probe_of_this_machine_does_not_panic",
            "--nocapture",
        ])
        .env("LD_LIBRARY_PATH", &folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(
        child.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    text.lines()
        .find_map(|line| line.split_once("probe: "))
        .unwrap()
        .1
        .to_owned()
}

#[cfg(target_os = "linux")]
mod stand_in {
    use super::probe_with_driver;

    const NAMES: &str = "int cuGetErrorName(int code, const char **name) { *name = \"CUDA_ERROR_NO_DEVICE\"; return 0; }\n";

    #[test]
    fn library_without_functions() {
        let text = probe_with_driver("empty", "int nothing;\n");
        assert!(
            text.starts_with("no CUDA device is used: the CUDA driver library cannot be used: "),
            "{text}"
        );
        assert!(text.contains("cuInit"), "{text}");
    }

    #[test]
    fn driver_that_does_not_start() {
        let text = probe_with_driver(
            "no_start",
            &format!("{NAMES}int cuInit(unsigned flags) {{ return 100; }}\n"),
        );
        assert_eq!(
            text,
            "no CUDA device is used: cuInit failed with CUDA error 100 (CUDA_ERROR_NO_DEVICE)"
        );
    }

    #[test]
    fn driver_that_cannot_name_its_error() {
        let text = probe_with_driver("no_names", "int cuInit(unsigned flags) { return 999; }\n");
        assert_eq!(
            text,
            "no CUDA device is used: cuInit failed with CUDA error 999"
        );
    }

    #[test]
    fn driver_without_devices() {
        let source = "int cuInit(unsigned flags) { return 0; }\nint cuDeviceGetCount(int *count) { *count = 0; return 0; }\n";
        assert_eq!(
            probe_with_driver("no_devices", source),
            "no CUDA device is used: the CUDA driver lists no device"
        );
    }

    #[test]
    fn driver_with_a_device() {
        let source = r#"
            #include <string.h>
            int cuInit(unsigned flags) { return 0; }
            int cuDeviceGetCount(int *count) { *count = 2; return 0; }
            int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
            int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stand-in", length); return 0; }
            int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 3UL << 30; return device == 40 ? 0 : 1; }
            int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
        "#;
        assert_eq!(
            probe_with_driver("device", source),
            "Stand-in (3072 MiB, compute capability 9.0) is present but not used: this version solves on the host"
        );
    }
}

#[test]
fn reasons_name_the_problem() {
    let library = Reason::Library {
        searched: vec!["libcuda.so".to_owned(), "libcuda.so.1".to_owned()],
    };
    assert_eq!(
        library.to_string(),
        "no CUDA driver library found (tried libcuda.so and 1 more)"
    );
    let device = Device {
        name: "X".to_owned(),
        memory_bytes: 1 << 20,
        compute_capability: (8, 6),
        device_count: 1,
    };
    assert_eq!(device.to_string(), "X (1 MiB, compute capability 8.6)");
}
