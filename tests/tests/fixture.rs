//! The committed fixture is what its list of hashes says, and within the sizes promised.

use std::path::Path;
use std::process::Command;

#[test]
fn hashes_and_sizes_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    let size = |part: &str| -> u64 {
        let files = std::fs::read_dir(folder.join(part)).unwrap();
        files
            .map(|f| f.unwrap().metadata().unwrap().len())
            .inspect(|bytes| assert!(*bytes <= 4 << 20, "{part}"))
            .sum()
    };
    assert!(size("model") <= 6_000_000);
    assert!(size("activations") <= 24_000_000);
    let listed = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    for part in ["model", "activations"] {
        for file in std::fs::read_dir(folder.join(part)).unwrap() {
            let name = format!("{part}/{}", file.unwrap().file_name().to_string_lossy());
            assert!(
                listed.lines().any(|l| l.ends_with(&name)),
                "{name} has no hash"
            );
        }
    }
}
