//! What opening a device says on this machine, and beside driver libraries that are missing, broken
//! or not enough.
//!
//! Such a library has a few C functions, is compiled here and found through `LD_LIBRARY_PATH` by a
//! child process: it shows that what is missing is named, not that any GPU works.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use qera_gpu::{DRIVER_FUNCTIONS, Device, Offload, OffloadOptions, Reason};
use std::path::{Path, PathBuf};
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

/// A folder for the libraries of a child.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Compiles `source` as libcuda.so in a folder of its own, every other function of the driver as
/// one that fails, and returns what a child that loads it prints.
fn opening_with_driver(name: &str, source: &str) -> String {
    let is_missing = |function: &&&str| !source.contains(&format!(" {function}("));
    let others = DRIVER_FUNCTIONS.iter().filter(is_missing);
    let others = others.map(|function| format!("int {function}() {{ return 999; }}\n"));
    opening_with_only(name, &others.chain([source.to_owned()]).collect::<String>())
}

/// The same with these functions alone.
fn opening_with_only(name: &str, source: &str) -> String {
    let folder = folder(name);
    let file = folder.join("driver.c");
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(folder.join("libcuda.so"))
        .arg(&file)
        .status()
        .unwrap();
    assert!(compiled.success());
    opening_in(&folder)
}

/// What a child prints that finds its libraries in this folder.
fn opening_in(folder: &Path) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "opening_on_this_machine_does_not_panic",
            "--nocapture",
        ])
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{text}{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    text.lines()
        .find_map(|line| line.split_once("opening: "))
        .unwrap()
        .1
        .to_owned()
}

#[cfg(target_os = "linux")]
mod stand_in {
    use super::{folder, opening_in, opening_with_driver, opening_with_only};

    const NAMES: &str = "int cuGetErrorName(int code, const char **name) { *name = \"CUDA_ERROR_NO_DEVICE\"; return 0; }\n";

    #[test]
    fn library_without_functions() {
        let text = opening_with_only("empty", "int nothing;\n");
        let said = "the CUDA driver library cannot be used: libcuda.so has no ";
        assert!(text.starts_with(said), "{text}");
    }

    /// A file that is there and no library: what the loader says of it is shown.
    #[test]
    fn library_that_cannot_be_loaded() {
        let folder = folder("no_library");
        std::fs::write(folder.join("libcuda.so"), "no library").unwrap();
        let text = opening_in(&folder);
        let said = "the CUDA driver library cannot be used: ";
        assert!(text.starts_with(said), "{text}");
        let why = text.trim_start_matches(said);
        assert!(
            why.contains("libcuda.so: ") && !why.contains("No such"),
            "{text}"
        );
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
        let source = "int cuInit(unsigned flags) { return 999; }\n";
        let text = opening_with_driver("no_names", source);
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
        let library = folder("device").join("libcublas.so.12");
        std::fs::write(&library, "no library").unwrap();
        let text = of("device", 9);
        let said = "no cuBLAS library could be used (tried libcublas.so.12, libcublas.so): ";
        // Where there is another, a context is asked for next.
        let why = text.strip_prefix(said);
        assert!(
            why.is_none_or(|why| why.contains("libcublas.so.12: ")),
            "{text}"
        );
        assert!(
            why.is_some() || text.starts_with("cuDevicePrimaryCtxRetain "),
            "{text}"
        );
        std::fs::remove_file(&library).unwrap();
        let text = of("device", 9);
        // Where there is a cuBLAS, a context is asked for next.
        let missing = [
            "no cuBLAS library could be used (tried libcublas.so.12, libcublas.so)",
            "cuDevicePrimaryCtxRetain failed ",
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
