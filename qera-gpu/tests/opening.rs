//! What opening a device says on this machine, and beside driver libraries that are missing, broken
//! or not enough.
//!
//! Such a library has a few C functions, is compiled here and found through `LD_LIBRARY_PATH` by a
//! child process: it shows that what is missing is named, not that any GPU works.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use qera_gpu::{Device, Offload, OffloadOptions, Reason};
use std::path::Path;
use std::process::Command;

/// Opens the first device of this machine, twice; in a child process it is also what prints why
/// there is none.
#[test]
fn opening_on_this_machine_does_not_panic() {
    let open = || Offload::open(&OffloadOptions::default());
    match (open(), open()) {
        (Ok(offload), Ok(_)) => {
            let device = offload.device();
            assert!(!device.name.is_empty() && device.memory_bytes > 0);
        }
        (Err(reason), Err(again)) => {
            println!("opening: {reason}");
            assert_eq!(reason, again);
            if let Reason::Library { searched } = reason {
                assert!(
                    searched.iter().any(|name| name == "libcuda.so.1"),
                    "the name that driver packages install"
                );
            }
        }
        (one, other) => panic!("{one:?} {other:?}"),
    }
}

/// Compiles `source` as libcuda.so in a folder of its own and returns what a child that loads it
/// prints.
fn opening_with_driver(name: &str, source: &str) -> String {
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
            "opening_on_this_machine_does_not_panic",
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
        .find_map(|line| line.split_once("opening: "))
        .unwrap()
        .1
        .to_owned()
}

#[cfg(target_os = "linux")]
mod stand_in {
    use super::opening_with_driver;

    const NAMES: &str = "int cuGetErrorName(int code, const char **name) { *name = \"CUDA_ERROR_NO_DEVICE\"; return 0; }\n";

    #[test]
    fn library_without_functions() {
        let text = opening_with_driver("empty", "int nothing;\n");
        assert!(
            text.starts_with("the CUDA driver library cannot be used: "),
            "{text}"
        );
        assert!(text.contains("cuInit"), "{text}");
    }

    #[test]
    fn driver_that_does_not_start() {
        let text = opening_with_driver(
            "no_start",
            &format!("{NAMES}int cuInit(unsigned flags) {{ return 100; }}\n"),
        );
        assert_eq!(
            text,
            "cuInit failed with CUDA error 100 (CUDA_ERROR_NO_DEVICE)"
        );
    }

    #[test]
    fn driver_that_cannot_name_its_error() {
        let text = opening_with_driver("no_names", "int cuInit(unsigned flags) { return 999; }\n");
        assert_eq!(text, "cuInit failed with CUDA error 999");
    }

    #[test]
    fn driver_without_devices() {
        let source = "int cuInit(unsigned flags) { return 0; }\nint cuDeviceGetCount(int *count) { *count = 0; return 0; }\n";
        assert_eq!(
            opening_with_driver("no_devices", source),
            "the CUDA driver lists no device"
        );
    }

    #[test]
    fn a_device_without_all_that_is_needed() {
        let source = r#"
            #include <string.h>
            int cuInit(unsigned flags) { return 0; }
            int cuDeviceGetCount(int *count) { *count = 2; return 0; }
            int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
            int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stand-in", length); return 0; }
            int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 3UL << 30; return device == 40 ? 0 : 1; }
            int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? MAJOR : 0; return 0; }
        "#;
        let of = |name: &str, major: u32| {
            opening_with_driver(name, &format!("#define MAJOR {major}\n{source}"))
        };
        assert_eq!(
            of("old", 7),
            "the device has compute capability 7.0, and 8.0 is needed"
        );
        let text = of("device", 9);
        // Where there is a cuBLAS, a context is asked for next.
        let missing = [
            "no cuBLAS library could be used (tried libcublas.so.12, libcublas.so)",
            "a CUDA library cannot be used: ",
        ];
        assert!(missing.iter().any(|of| text.starts_with(of)), "{text}");
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
