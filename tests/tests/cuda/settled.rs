//! What a state holds, compared with what it holds without a device.

use std::path::Path;

use qera_daemon::ENTRY_ERROR;
use qera_tests::output_folder::{SnapshotFile, statistics_files};
use safetensors::SafeTensors;

/// The only tensor that a device has a part in.
const R: &str = "autocorrelation";

/// Asserts that two states hold the same of every site: all but R bit for bit, and R within what
/// f32 sums leave.
pub(crate) fn assert_same_statistics(found: &Path, expected: &Path, what: &str) {
    let [found, expected] = [found, expected].map(statistics_files);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.name, expected.name, "{what}");
        assert_same_site(found, expected, what);
    }
}

fn assert_same_site(found: &SnapshotFile, expected: &SnapshotFile, what: &str) {
    let [a, b] = [found, expected].map(|file| SafeTensors::deserialize(&file.bytes).unwrap());
    let mut names = a.names();
    names.sort_unstable();
    let mut others = b.names();
    others.sort_unstable();
    assert_eq!(names, others, "{what}");
    for name in names {
        let [a, b] = [&a, &b].map(|file| file.tensor(name).unwrap());
        if name == R {
            assert_near(a.data(), b.data(), &format!("{what}: {}", found.name));
        } else {
            assert!(a.data() == b.data(), "{what}: {} of {}", name, found.name);
        }
    }
}

/// Two packed triangles.
fn assert_near(found: &[u8], expected: &[u8], what: &str) {
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        let (numbers, _) = bytes.as_chunks::<8>();
        numbers.iter().map(|le| f64::from_le_bytes(*le)).collect()
    };
    let [found, expected] = [found, expected].map(numbers);
    assert_eq!(found.len(), expected.len(), "{what}");
    let m = (1..).find(|m| m * (m + 1) / 2 >= found.len()).unwrap();
    let mut diagonal = Vec::new();
    let mut at = 0;
    for i in 0..m {
        diagonal.push(expected[at]);
        at += m - i;
    }
    let mut at = 0;
    for i in 0..m {
        for j in i..m {
            let error = (found[at] - expected[at]).abs();
            let scale = (diagonal[i] * diagonal[j]).sqrt();
            assert!(
                error <= ENTRY_ERROR * scale,
                "{what}: {i} {j} {error:e} of {scale:e}"
            );
            at += 1;
        }
    }
}
