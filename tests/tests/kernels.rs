//! The matrix kernels in every form that this CPU has, against the same products in f64.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a step that fails fails the test; rows are made f32; the errors found are for a report"
)]

use half::{bf16, f16};
use qera_core::dtype::{FloatDtype, MAGNITUDE_MAX};
use qera_core::packed::{packed_len, packed_offset};
use qera_core::statistics::BlockShare;
use qera_daemon::{
    Compute, Cores, ENTRY_ERROR, Kernel, KernelError, SUM_ROWS, Scratch, Stored, fold_products,
    products, products_f64, trace_products,
};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::uniform;

const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];
/// No multiple of any tile, one less and one more than a task.
const WIDTHS: [usize; 9] = [1, 2, 5, 47, 48, 49, 97, 193, 577];
/// Odd numbers for pairs of rows; on both sides of what is summed in f32 and of a block.
const ROWS: [usize; 7] = [1, 2, 3, 511, 513, 1025, 2049];
/// The smallest normal f32: products below it may be lost.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// Rows as a shard holds them, and what they are.
struct Encoded {
    bytes: Vec<u8>,
    dtype: FloatDtype,
    m: usize,
    wide: Vec<f64>,
}

impl Encoded {
    fn new(values: &[f32], m: usize, dtype: FloatDtype) -> Self {
        let bytes = values.iter().flat_map(|&x| match dtype {
            FloatDtype::F32 => x.to_le_bytes().to_vec(),
            FloatDtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            FloatDtype::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        });
        Self {
            bytes: bytes.collect(),
            dtype,
            m,
            wide: values.iter().map(|x| f64::from(dtype.round(*x))).collect(),
        }
    }

    fn stored(&self) -> Stored<'_> {
        Stored::Bytes(&self.bytes, self.dtype)
    }

    fn rows(&self) -> usize {
        self.wide.len() / self.m
    }

    /// X^T X in f64, whose own error is a millionth of what is allowed.
    fn sums(&self) -> Matrix {
        let x = Matrix::from_columns(self.m, self.rows(), self.wide.clone());
        &x * &x.transpose()
    }

    /// Largest |x| of each channel.
    fn peaks(&self) -> Vec<f64> {
        let mut peaks = vec![0.0_f64; self.m];
        for row in self.wide.chunks(self.m) {
            for (peak, x) in peaks.iter_mut().zip(row) {
                *peak = peak.max(x.abs());
            }
        }
        peaks
    }
}

/// Rows of one text: a common part, massive channels, exact zeros of both signs.
fn activations(rows: usize, m: usize) -> Vec<f32> {
    let noise = uniform(m, rows, (rows * 1000 + m) as u64);
    let common = uniform(rows, 1, 3);
    let value = |row: usize, channel: usize| {
        let x = noise[(channel, row)] + 0.5 * common[(row, 0)] + 0.1;
        match (channel + row) % 17 {
            0 => 0.0,
            1 => -0.0,
            _ if channel % 29 == 4 => 1e4 * x,
            _ => x,
        }
    };
    (0..rows)
        .flat_map(|row| (0..m).map(move |channel| value(row, channel) as f32))
        .collect()
}

/// The means of several shards folded one after the other.
fn fold(host: Compute<'_>, shards: &[Stored<'_>], m: usize) -> Vec<f64> {
    let mut packed = vec![0.0; packed_len(m)];
    let mut scratch = Scratch::default();
    let mut seen = 0;
    for shard in shards {
        let before = seen;
        fold_products(host, (*shard, m), &mut packed, &mut scratch, |count| {
            let share = BlockShare::new(f64::from(seen), count as f64);
            seen += u32::try_from(count).unwrap();
            share
        });
        assert_eq!((seen - before) as usize, shard.rows(m), "each row once");
    }
    packed
}

/// The largest |found - sum / rows| over sqrt(R_ii R_jj), beyond what underflows.
fn entry_error(found: &[f64], shards: &[&Encoded]) -> f64 {
    let m = shards[0].m;
    let rows: usize = shards.iter().map(|s| s.rows()).sum();
    let mut sums = Matrix::zeros(m, m);
    let mut peaks = vec![0.0_f64; m];
    for shard in shards {
        sums = &sums + &shard.sums();
        peaks
            .iter_mut()
            .zip(shard.peaks())
            .for_each(|(peak, other)| *peak = peak.max(other));
    }
    let mean = sums.scale(1.0 / rows as f64);
    let mut worst = 0.0_f64;
    for i in 0..m {
        for j in i..m {
            let value = found[packed_offset(m, i) + j - i];
            assert!(value.is_finite(), "R[{i}, {j}] is {value}");
            // A product below the smallest normal number, or (bf16) one whose factor is below it.
            let (x, y) = (peaks[i], peaks[j]);
            let lost = SMALLEST + x.min(SMALLEST) * y + x * y.min(SMALLEST);
            let error = ((value - mean[(i, j)]).abs() - lost).max(0.0);
            let scale = (mean[(i, i)] * mean[(j, j)]).sqrt();
            if error > 0.0 {
                worst = worst.max(error / scale);
            }
        }
    }
    worst
}

fn with_host<T>(kernel: Kernel, threads: usize, work: impl FnOnce(Compute<'_>) -> T) -> T {
    let cores = Cores::new(threads);
    let _core = cores.take();
    work(Compute {
        kernel,
        cores: &cores,
    })
}

fn same_bytes(left: &[f64], right: &[f64]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(l, r)| l.to_bits() == r.to_bits())
}

/// Every form is within the bound of the exact products, and so within twice the bound of every other.
fn every_shape(dtype: FloatDtype) {
    let mut worst = 0.0_f64;
    for m in WIDTHS {
        for rows in ROWS {
            let encoded = Encoded::new(&activations(rows, m), m, dtype);
            for kernel in Kernel::available() {
                let found = with_host(kernel, 2, |host| fold(host, &[encoded.stored()], m));
                let error = entry_error(&found, &[&encoded]);
                let name = kernel.name();
                assert!(
                    error <= ENTRY_ERROR,
                    "{name} {dtype}: {rows} rows of {m}: {error:e}"
                );
                worst = worst.max(error);
            }
        }
    }
    println!("{dtype}: worst error of an entry {worst:e}");
}

#[test]
fn every_shape_of_f32_rows() {
    every_shape(FloatDtype::F32);
}

#[test]
fn every_shape_of_f16_rows() {
    every_shape(FloatDtype::F16);
}

#[test]
fn every_shape_of_bf16_rows() {
    every_shape(FloatDtype::Bf16);
}

/// Shards of different length and size, folded one after the other, are the mean over all rows.
#[test]
fn shards_are_folded_as_one_mean() {
    for dtype in DTYPES {
        for m in [5, 97, 193] {
            let shards: Vec<Encoded> = [511, 1, 1025, 2, 2049]
                .into_iter()
                .map(|rows| {
                    let size = if rows % 4 == 1 { 30.0 } else { 1.0 };
                    let values = activations(rows, m);
                    let values: Vec<f32> = values.iter().map(|x| x * size / 16.0).collect();
                    Encoded::new(&values, m, dtype)
                })
                .collect();
            let stored: Vec<Stored<'_>> = shards.iter().map(Encoded::stored).collect();
            let all: Vec<&Encoded> = shards.iter().collect();
            for kernel in Kernel::available() {
                let found = with_host(kernel, 2, |host| fold(host, &stored, m));
                let error = entry_error(&found, &all);
                assert!(
                    error <= ENTRY_ERROR,
                    "{} {dtype} {m}: {error:e}",
                    kernel.name()
                );
            }
        }
    }
}

/// Sums of the largest numbers that are let in stay finite; the smallest ones may be lost, and nothing else.
#[test]
fn the_largest_and_the_smallest_numbers() {
    let (m, rows) = (49, 4097);
    let tiny = f32::from_bits(0x0003_0000);
    let sign = |i: usize| if i.is_multiple_of(3) { -1.0 } else { 1.0 };
    let largest: Vec<f32> = (0..m * rows).map(|i| sign(i) * MAGNITUDE_MAX).collect();
    let of_one_sign = vec![MAGNITUDE_MAX; m * rows];
    // Subnormal channels among normal ones, and beside massive ones.
    let smallest: Vec<f32> = (0..m * rows)
        .map(|i| match (i % m) % 4 {
            0 => sign(i) * tiny,
            1 => sign(i) * 1e4,
            2 => tiny * (i % 5) as f32 + if i.is_multiple_of(2) { 1.0 } else { 0.0 },
            _ => sign(i + 1),
        })
        .collect();
    let zeros: Vec<f32> = (0..m * rows).map(|i| sign(i) * 0.0).collect();
    for values in [&largest, &of_one_sign, &smallest, &zeros] {
        for dtype in [FloatDtype::F32, FloatDtype::Bf16] {
            let encoded = Encoded::new(values, m, dtype);
            for kernel in Kernel::available() {
                let found = with_host(kernel, 1, |host| fold(host, &[encoded.stored()], m));
                let error = entry_error(&found, &[&encoded]);
                let name = kernel.name();
                assert!(error <= ENTRY_ERROR, "{name} {dtype}: {error:e}");
            }
        }
    }
}

/// What is the same in every row may be rounded the same way in every step. Then half a last place is lost at each addition,
/// half of the additions having the last place of the whole sum, a quarter half of that: SUM_ROWS / 3 2^-24 together.
#[test]
fn constant_channels() {
    let (m, rows) = (128, 2049);
    let allowed = (SUM_ROWS as f64 / 3.0 + 2.0) * f64::from(f32::EPSILON) / 2.0;
    let values: Vec<f32> = (0..m * rows)
        .map(|i| 1.0 + (i % m) as f32 / 128.0)
        .collect();
    for dtype in DTYPES {
        let encoded = Encoded::new(&values, m, dtype);
        for kernel in Kernel::available() {
            let found = with_host(kernel, 1, |host| fold(host, &[encoded.stored()], m));
            let error = entry_error(&found, &[&encoded]);
            let name = kernel.name();
            assert!(error <= allowed, "{name} {dtype}: {error:e}");
        }
    }
}

/// Rows that were decoded give the bytes of rows as they came, also where they are multiplied in bf16.
#[test]
fn decoded_rows_give_the_same_bytes() {
    let (m, rows) = (97, 1537);
    for dtype in DTYPES {
        let encoded = Encoded::new(&activations(rows, m), m, dtype);
        let numbers: Vec<f32> = encoded.wide.iter().map(|x| *x as f32).collect();
        for kernel in Kernel::available() {
            with_host(kernel, 2, |host| {
                let as_bytes = fold(host, &[encoded.stored()], m);
                let decoded = fold(host, &[Stored::Floats(&numbers)], m);
                assert!(same_bytes(&as_bytes, &decoded), "{} {dtype}", kernel.name());
            });
        }
    }
}

/// No bit depends on the number of cores, nor on whether the caller has one.
#[test]
fn any_number_of_cores_gives_the_same_bytes() {
    let (m, rows) = (577, 1537);
    let vectors = uniform(49, m, 5).to_faer();
    for dtype in DTYPES {
        let encoded = Encoded::new(&activations(rows, m), m, dtype);
        let numbers: Vec<f32> = encoded.wide.iter().map(|x| *x as f32).collect();
        for kernel in Kernel::available() {
            let all = |host: Compute<'_>| {
                let mut found = fold(host, &[encoded.stored()], m);
                let columns = (&numbers[..], m);
                found.push(trace_products(
                    host,
                    columns,
                    &found,
                    &mut Scratch::default(),
                ));
                let skinny = products(host, vectors.as_ref(), columns);
                found.extend(skinny.col_iter().flat_map(|c| c.iter().copied()));
                let skinny = products_f64(host, vectors.as_ref(), columns);
                found.extend(skinny.col_iter().flat_map(|c| c.iter().copied()));
                found
            };
            let one = with_host(kernel, 1, all);
            for threads in [2, 3] {
                assert!(same_bytes(&one, &with_host(kernel, threads, all)));
                // The caller holds none: one thread more computes.
                let cores = &Cores::new(threads);
                assert!(same_bytes(&one, &all(Compute { kernel, cores })));
            }
            let busy = &Cores::new(2);
            let _both = (busy.take(), busy.take());
            assert!(same_bytes(
                &one,
                &all(Compute {
                    kernel,
                    cores: busy
                })
            ));
        }
    }
}

/// R = X^T X / rows with channels of different size, packed, in f64.
fn autocorrelation(m: usize, rows: usize) -> (Matrix, Vec<f64>) {
    let encoded = Encoded::new(&activations(rows, m), m, FloatDtype::F32);
    let r = encoded.sums().scale(1.0 / rows as f64);
    let packed = qera_tests::spectra::packed(&r);
    (r, packed)
}

/// tr(R P P^T) of matrices as large as those that come here, and of odd ones.
#[test]
fn traces_of_products() {
    // Where there are few terms their rounding does not average out.
    for (m, n, allowed) in [
        (1, 1, 1e-15),
        (5, 700, 1e-7),
        (97, 513, 1e-8),
        (193, 1025, 1e-8),
        (577, 900, 1e-8),
        (700, 577, 1e-8),
    ] {
        let (r, packed) = autocorrelation(m, m + 3);
        let p = uniform(m, n, 9);
        let values: Vec<f32> = p.as_slice().iter().map(|x| *x as f32 * 0.01).collect();
        let wide = Matrix::from_columns(m, n, values.iter().map(|x| f64::from(*x)).collect());
        let expected = (&(&wide.transpose() * &r) * &wide).trace();
        for kernel in Kernel::available() {
            let found = with_host(kernel, 2, |host| {
                trace_products(host, (&values, m), &packed, &mut Scratch::default())
            });
            let error = (found / expected - 1.0).abs();
            let name = kernel.name();
            println!("{name} {m} x {n}: {error:e}");
            assert!(error <= allowed, "{name} {m} x {n}: {error:e}");
        }
    }
}

/// A few vectors times the columns of a matrix: depths and columns on both sides of every block.
#[test]
fn products_with_a_few_vectors() {
    for b in [1, 15, 16, 17, 33, 48, 49, 100] {
        for (depth, n) in [
            (1, 1),
            (3, 7),
            (97, 49),
            (511, 193),
            (769, 5),
            (1025, 97),
            (2049, 33),
        ] {
            let x = uniform(b, depth, 1 + b as u64).to_faer();
            let columns: Vec<f32> = activations(n, depth);
            let wide = Matrix::from_columns(
                depth,
                n,
                columns.iter().map(|value| f64::from(*value)).collect(),
            );
            let exact = &x * wide.to_faer();
            let (lengths, sizes) = (
                |i: usize| x.row(i).norm_l2(),
                |j: usize| wide.to_faer().col(j).norm_l2(),
            );
            let lengths: Vec<f64> = (0..b).map(lengths).collect();
            let sizes: Vec<f64> = (0..n).map(sizes).collect();
            let bound = |i: usize, j: usize| lengths[i] * sizes[j];
            for kernel in Kernel::available() {
                let columns = (&columns[..], depth);
                for (in_f64, tolerance) in [(false, 1e-6), (true, 1e-15)] {
                    let of = |threads| {
                        with_host(kernel, threads, |host| {
                            let form = if in_f64 { products_f64 } else { products };
                            form(host, x.as_ref(), columns)
                        })
                    };
                    let found = of(1);
                    assert_eq!((found.nrows(), found.ncols()), (b, n));
                    let name = kernel.name();
                    assert!(of(3) == found, "{name}: as many bytes as cores");
                    let relative = |i, j| (found[(i, j)] - exact[(i, j)]).abs() / bound(i, j);
                    for (i, j) in (0..n).flat_map(|j| (0..b).map(move |i| (i, j))) {
                        let allowed = tolerance * bound(i, j);
                        assert!(
                            (found[(i, j)] - exact[(i, j)]).abs() <= allowed,
                            "{name}, f64 {in_f64}: {b} vectors, {depth} x {n}: {:e}",
                            relative(i, j)
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn kernels_by_name() {
    assert_eq!(Kernel::named("auto").unwrap(), Kernel::best());
    let available = Kernel::available();
    assert_eq!(available.last(), Some(&Kernel::best()));
    assert_eq!(available[0].name(), "portable", "whatever the CPU");
    for name in ["", "AVX2", "avx", "best", "portable "] {
        let refused = Kernel::named(name).unwrap_err();
        assert_eq!(refused, KernelError::Unknown(name.into()));
        assert_eq!(
            refused.to_string(),
            format!("'{name}' is no kernel: auto, portable, avx2, avx512, avx512-bf16")
        );
    }
    let here: Vec<&str> = available.iter().map(|kernel| kernel.name()).collect();
    for name in ["portable", "avx2", "avx512", "avx512-bf16"] {
        match Kernel::named(name) {
            Ok(kernel) => assert!(available.contains(&kernel) && kernel.name() == name),
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
    // What a CPU without the instructions is told.
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
