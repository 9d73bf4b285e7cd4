//! Which device is opened, and how much of it.

use crate::device;
use crate::inputs::rows;
use qera_core::dtype::FloatDtype;
use qera_gpu::{
    DeviceError, DeviceMemory, DeviceOperand, DeviceR, DeviceRows, Offload, OffloadOptions,
    PIECE_ROWS, PieceShare, Reason, Triangle, pinned_bytes, shared_bytes,
};
use std::sync::Arc;

#[test]
fn a_device_says_what_it_is() {
    let offload = device();
    assert!(!offload.device().name.is_empty());
    let libraries = offload.libraries();
    assert!(libraries[0].starts_with("CUDA driver 1"), "{libraries:?}");
    assert!(libraries[1].starts_with("cuBLAS 1"), "{libraries:?}");
    assert_eq!(libraries.len(), 2, "{libraries:?}");
    assert!(!offload.is_lost());
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let options = OffloadOptions {
        ordinal: 4096,
        ..OffloadOptions::default()
    };
    let reason = Offload::open(&options).unwrap_err();
    assert!(
        matches!(reason, Reason::Ordinal { ordinal: 4096, .. }),
        "{reason}"
    );
}

#[test]
fn memory_is_bounded_and_given_back() {
    let options = OffloadOptions {
        memory: DeviceMemory::Bytes(100 << 20),
        ..OffloadOptions::default()
    };
    let offload = Arc::new(Offload::open(&options).unwrap());
    let left = offload.memory_left();
    assert!(left < 100 << 20 && left > 10 << 20, "{left}");
    let r = vec![0.0; 500 * 501 / 2];
    let one = DeviceR::new(&offload, &r, 500).unwrap();
    assert_eq!(offload.memory_left(), left - DeviceR::device_bytes(500));
    drop(one);
    assert_eq!(offload.memory_left(), left);
    let large = vec![0.0_f32; 40 << 20];
    let error = DeviceOperand::new(&offload, &large, 1 << 20).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    assert!(
        !offload.is_lost(),
        "want of memory is the caller's, not the device's"
    );
    assert_eq!(offload.memory_left(), left);
}

/// With less than is needed it is not opened, and the figures are told.
#[test]
fn too_little_memory_is_said_with_figures() {
    let options = OffloadOptions {
        memory: DeviceMemory::Bytes(70 << 20),
        needed_bytes: 113 << 20,
        ..OffloadOptions::default()
    };
    let said = Offload::open(&options).unwrap_err().to_string();
    let begins = "too little device memory: 70 MiB may be used, of ";
    assert!(said.starts_with(begins), "{said}");
    assert!(
        said.ends_with(" MiB that are free, and 113 MiB are needed"),
        "{said}"
    );
}

/// Wider rows take the place of the room for narrower ones: no more is taken than the widest need.
#[test]
fn wider_rows_need_no_room_beside_narrower_ones() {
    let widths = [300, 500, 1000];
    let sums = 512 * 4 * 1000;
    let triangles = widths.map(Triangle::device_bytes);
    let bytes = shared_bytes(0) + triangles.iter().sum::<u64>() + pinned_bytes(1000) + sums;
    let options = OffloadOptions {
        memory: DeviceMemory::Bytes(bytes + (256 << 10)),
        ..OffloadOptions::default()
    };
    let offload = Arc::new(Offload::open(&options).unwrap());
    let mut kept = Vec::new();
    for m in widths {
        let packed = vec![0.0; m * (m + 1) / 2];
        let mut triangle = Triangle::new(&offload, &packed, m).unwrap();
        let (bytes, _) = rows(1, 2 * PIECE_ROWS * m, FloatDtype::F32);
        let stored = DeviceRows {
            bytes: &bytes,
            dtype: FloatDtype::F32,
            in_features: m,
            weights: None,
        };
        let share = PieceShare {
            rows: PIECE_ROWS,
            kept: 1.0,
            per_sum: 1.0,
        };
        triangle.fold(stored, &[share; 2]).unwrap();
        kept.push(triangle);
    }
}
