//! A kernel by its name.

use qera_daemon::{Kernel, KernelError};

#[test]
fn kernels_by_name() {
    assert_eq!(Kernel::named("auto").unwrap(), Kernel::best());
    let available = Kernel::available();
    assert!(available.contains(&Kernel::best()));
    assert_eq!(available[0].name(), "portable", "whatever the CPU");
    for name in ["", "AVX2", "avx", "best", "portable "] {
        let refused = Kernel::named(name).unwrap_err();
        assert_eq!(refused, KernelError::Unknown(name.into()));
        assert_eq!(
            refused.to_string(),
            format!(
                "'{name}' is no kernel: auto, portable, avx2, avx512, avx512-bf16, amx-bf16, amx-bf16-model, neon"
            )
        );
    }
    let here: Vec<&str> = available.iter().map(|kernel| kernel.name()).collect();
    for name in [
        "portable",
        "avx2",
        "avx512",
        "avx512-bf16",
        "amx-bf16",
        "neon",
    ] {
        match Kernel::named(name) {
            Ok(kernel) => assert!(available.contains(&kernel) && kernel.name() == name),
            Err(KernelError::Refused { why, .. }) => {
                assert!(name == "amx-bf16" && !here.contains(&name), "{why}");
            }
            Err(refused) => {
                assert!(!here.contains(&name));
                let message = refused.to_string();
                let expected = format!("kernel '{name}' needs a CPU with ");
                assert!(message.starts_with(&expected), "{message}");
                let ending = format!("; this one runs: {}", here.join(", "));
                assert!(message.ends_with(&ending), "{message}");
            }
        }
    }
    let model = Kernel::named("amx-bf16-model").unwrap();
    assert_eq!(model.name(), "amx-bf16-model", "whatever the CPU");
    assert!(!available.contains(&model), "a model is never chosen");
    // The message for a CPU without the instructions.
    let missing = KernelError::Missing {
        name: "avx512".into(),
        needs: "AVX-512F",
        here: "portable, avx2".into(),
    };
    assert_eq!(
        missing.to_string(),
        "kernel 'avx512' needs a CPU with AVX-512F; this one runs: portable, avx2"
    );
}
