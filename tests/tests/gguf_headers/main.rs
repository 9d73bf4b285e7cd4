//! Headers of GGUF and both layouts of an imatrix are distrusted: whatever is done to a sound file,
//! reading it ends with what it holds or why it is refused, and takes no more memory than the file
//! and 64 MiB.
//!
//! The sound files are not our own: `tests/gguf/headers/make.py` writes them with other people's
//! software.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod counted;
mod mutation;

use counted::peak_of;
use mutation::mutated;
use qera_daemon::LlamaFile;
use qera_tests::tier::cases;

const FILES: [(&str, &[u8]); 4] = [
    (
        "model.gguf",
        include_bytes!("../../gguf/headers/model.gguf"),
    ),
    (
        "imatrix.gguf",
        include_bytes!("../../gguf/headers/imatrix.gguf"),
    ),
    (
        "imatrix.dat",
        include_bytes!("../../gguf/headers/imatrix.dat"),
    ),
    (
        "adapter.gguf",
        include_bytes!("../../gguf/headers/adapter.gguf"),
    ),
];
/// What may be allocated beyond as many bytes as the file has.
const MEMORY_MAX: usize = 64 << 20;

/// Everything that is read from the bytes, as JSON.
fn said(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_str(&LlamaFile::read(bytes).to_string()).unwrap()
}

#[test]
fn the_files_are_sound() {
    let read = |index: usize| said(FILES[index].1);
    assert_eq!(read(0)["header"]["tensors"].as_array().unwrap().len(), 5);
    let refused = read(0)["imatrix"]["refused"].to_string();
    assert!(refused.contains("general.type is 'model'"), "{refused}");
    for (index, unit) in [(1, "rows"), (2, "chunks")] {
        let imatrix = &read(index)["imatrix"];
        assert_eq!(imatrix["counts_are"], unit, "{imatrix}");
        assert_eq!(imatrix["weights"].as_array().unwrap().len(), 2);
        assert_eq!(imatrix["weights"][0]["mean_squares"][0][1], 4.0);
    }
    let adapter = &read(3)["adapter"];
    assert_eq!(adapter["architecture"], "llama");
    assert_eq!(adapter["scale_of_rank_4"], 2.0);
    assert!(adapter["problems"].as_array().unwrap().is_empty());
    for (tensor, rank, last) in [
        ("blk.0.attn_q.weight", 2, 63.0 / 8.0 - 1.0),
        ("blk.1.ffn_up.weight", 32, 1023.0 / 8.0 - 1.0),
    ] {
        let pair = &adapter["pairs"][tensor];
        let shape =
            |of: &str| [&pair[of]["rows"], &pair[of]["columns"]].map(|n| n.as_u64().unwrap());
        assert_eq!(
            (shape("a"), shape("b")),
            ([rank, 32], [3, rank]),
            "{tensor}"
        );
        let found = pair["a"]["values"].as_array().unwrap().last().unwrap();
        assert!(
            (found.as_f64().unwrap() / last - 1.0).abs() < 1e-2,
            "{tensor}: {found}"
        );
    }
    let model = &read(0)["adapter"];
    assert_eq!(model["problems"].as_array().unwrap().len(), 6, "{model}");
    let refused = read(2)["header"]["refused"].to_string();
    assert!(refused.contains("does not begin with"), "{refused}");
}

#[test]
fn no_mutation_panics_or_takes_memory_that_is_not_there() {
    let mutations: u64 = cases(100_000, 10_000_000);
    let [mut accepted, mut refused] = [0_u64; 2];
    for number in 0..mutations {
        let index = usize::try_from(number).unwrap() % FILES.len();
        let (name, file) = FILES[index];
        let (_, other) = FILES[(index + 1) % FILES.len()];
        let bytes = mutated(file, other, number);
        let read = || peak_of(|| drop(LlamaFile::read(&bytes))).peak;
        let peak = std::panic::catch_unwind(read)
            .unwrap_or_else(|_| panic!("mutation {number} of {name} panics"));
        let most = bytes.len() + MEMORY_MAX;
        assert!(
            peak <= most,
            "mutation {number} of {name}: {peak} bytes, at most {most}"
        );
        // Messages are valid text, whatever the names were.
        if number.is_multiple_of(16) {
            match said(&bytes) {
                said if said["header"]["refused"].is_null() => accepted += 1,
                said if said["imatrix"]["refused"].is_null() => accepted += 1,
                _ => refused += 1,
            }
        }
    }
    // Mutations that break nothing, or everything, would test nothing.
    for part in [accepted, refused] {
        assert!(
            part * 16 > mutations / 20,
            "{accepted} accepted, {refused} refused"
        );
    }
}

/// As many tensors as are read, of names as short as they can be.
#[test]
fn the_longest_header_takes_no_more_than_the_file_and_64_mib() {
    const TENSORS: u32 = 1 << 18;
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(u64::from(TENSORS).to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    for tensor in 0..TENSORS {
        let name = format!("{tensor:x}");
        bytes.extend((name.len() as u64).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((u64::from(tensor) * 32).to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32) + 32 * TENSORS as usize, 0);
    let measured = peak_of(|| LlamaFile::read(&bytes));
    assert!(
        measured.peak <= bytes.len() + MEMORY_MAX,
        "{}",
        measured.peak
    );
    // It was read, not refused.
    assert!(measured.peak > 80 * TENSORS as usize, "{}", measured.peak);
}
