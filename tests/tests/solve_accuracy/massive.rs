//! Channels that hold one massive value in every row (attention sinks). The first vector of a
//! correction takes all of them; what is left of f is 1e-7 of tr(R E E^T) and less, which f32
//! products of such rows do not show.

use crate::blocks::write_config;
use faer::{Mat, MatRef, Side};
use qera_core::dtype::FloatDtype;
use qera_daemon::{
    Batch, Compute, Cores, Kernel, Scratch, SiteProblem, SiteStatistics, SolvedLayer,
};
use qera_tests::layer_input::{Input, Population};
use qera_tests::precision::{SOLVE_COLD, SOLVE_WRITTEN};
use qera_tests::quantization::quantization_error;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::spectra::uniform;
use qera_tests::tier;

const NAME: &str = "model.layers.0.self_attn.q_proj";
const M: usize = 192;
const MASSIVE: usize = 6;
const RANK: usize = 8;
const SEQUENCE: usize = 64;
const SEQUENCES: usize = 72;
/// f read off R: beside bf16 rows, whose f32 sums lose 2e-6 of every channel, massive or not.
const READ_OFF: [(FloatDtype, f64); 2] = [(FloatDtype::F32, SOLVE_COLD), (FloatDtype::Bf16, 5e-6)];

/// The optimum under R itself, written in full.
const EXACT: &str = "shrinkage = \"0\"\ndtype = \"f32\"\n";

/// A site with six constant channels, and one layer.
struct SinkSite {
    folder: tempfile::TempDir,
    n: usize,
    dtype: FloatDtype,
    rows: Vec<f32>,
    error: Mat<f64>,
}

/// f of the best correction, and of the one that was found.
struct FoundErrors {
    best: f64,
    written: f64,
    solved: SolvedLayer,
}

impl SinkSite {
    fn new(n: usize, amplitude: f64, dtype: FloatDtype) -> Self {
        let count = SEQUENCE * SEQUENCES;
        let own = Population::new(Input::Natural, M).rows(count, 5);
        let size = own.norm_l2() / ((M * count) as f64).sqrt();
        let every = M / MASSIVE;
        let value = |channel: usize, row: usize| {
            if channel % every == 5 {
                let sign = if channel.is_multiple_of(2) { 1.0 } else { -1.0 };
                // No round numbers: their sums would be exact.
                sign * amplitude * (1.0 + 0.37 * (channel as f64).sin())
            } else {
                own[(channel, row)] / size
            }
        };
        let at = (0..count).flat_map(|row| (0..M).map(move |channel| (channel, row)));
        let rows = at.map(|(channel, row)| dtype.round(value(channel, row) as f32));
        let weight = uniform(M, n, 1);
        let weight: Vec<f32> = weight.as_slice().iter().map(|x| *x as f32 * 0.1).collect();
        let folder = tempfile::tempdir().unwrap();
        let tensor = TensorToWrite::f32(&format!("{NAME}.weight"), &[n, M], &weight);
        write_safetensors(&folder.path().join("model.safetensors"), &[tensor], &[]);
        write_config(folder.path(), 8, 8);
        let error = quantization_error(&weight, M, 3, 32);
        Self {
            folder,
            n,
            dtype,
            rows: rows.collect(),
            error: Mat::from_fn(M, n, |i, j| f64::from(error[j * M + i])),
        }
    }

    fn x(&self) -> Mat<f64> {
        let at = |row: usize, channel: usize| f64::from(self.rows[row * M + channel]);
        Mat::from_fn(self.rows.len() / M, M, at)
    }

    /// Mean over the rows of |x (E - A B)|^2.
    fn f(&self, a: MatRef<'_, f64>, b_transposed: MatRef<'_, f64>) -> f64 {
        let p = &self.error - a * b_transposed.transpose();
        let y = self.x() * &p;
        y.squared_norm_l2() / y.nrows() as f64
    }

    /// By the eigenvectors of the outputs' products, dense and in f64: their own error only counts
    /// squared.
    fn optimum(&self) -> f64 {
        let y = self.x() * &self.error;
        let eigen = (y.transpose() * &y)
            .self_adjoint_eigen(Side::Lower)
            .unwrap();
        let vectors = eigen.U().reverse_cols();
        let v = vectors.subcols(0, RANK);
        self.f((&self.error * v).as_ref(), v)
    }

    /// The statistics, from shards of a few sequences.
    fn statistics(&self, compute: Compute<'_>) -> SiteStatistics {
        let mut statistics = SiteStatistics::whole(M);
        for rows in self.rows.chunks(M * SEQUENCE * 16) {
            let encode = |x: &f32| match self.dtype {
                FloatDtype::F32 => x.to_le_bytes().to_vec(),
                FloatDtype::F16 => half::f16::from_f32(*x).to_le_bytes().to_vec(),
                FloatDtype::Bf16 => half::bf16::from_f32(*x).to_le_bytes().to_vec(),
            };
            let shard = Batch {
                site: 0,
                in_features: M,
                bytes: rows.iter().flat_map(encode).collect::<Vec<_>>().into(),
                dtype: self.dtype,
                weights: None,
                batches: vec![SEQUENCE; rows.len() / M / SEQUENCE],
                sequences: true,
            };
            let mut scratch = Scratch::default();
            statistics.fold(&shard, compute, &mut scratch).unwrap();
        }
        statistics
    }

    fn solved(&self, kernel: Kernel, threads: usize, more: &str) -> SolvedLayer {
        let cores = Cores::new(threads);
        let _core = cores.take();
        let compute = Compute::new(kernel, &cores);
        let options = format!("method = \"exact\"\nquantizer = \"mxint3\"\nrank = {RANK}\n{more}");
        let problem = SiteProblem {
            checkpoint: self.folder.path(),
            options: &options,
            statistics: &self.statistics(compute),
        };
        problem.solve(compute).unwrap().remove(0)
    }

    fn found(&self, kernel: Kernel, more: &str) -> FoundErrors {
        let solved = self.solved(kernel, 2, more);
        let k = solved.lora_b.len() / self.n;
        let a = Mat::from_fn(M, k, |i, j| f64::from(solved.lora_a[j * M + i]));
        let b = Mat::from_fn(self.n, k, |i, j| f64::from(solved.lora_b[i * k + j]));
        FoundErrors {
            best: self.optimum(),
            written: self.f(a.as_ref(), b.as_ref()),
            solved,
        }
    }
}

/// n by which G is formed, and one by which it is not.
const OUTPUTS: [usize; 2] = [160, 640];

#[test]
fn up_to_ten_thousand_nothing_is_lost() {
    let amplitudes = [1e4, 300.0, 20.0];
    for n in OUTPUTS {
        for (dtype, allowed) in READ_OFF {
            for amplitude in tier::cases(&amplitudes[..1], &amplitudes) {
                let site = SinkSite::new(n, *amplitude, dtype);
                for kernel in [Kernel::named("portable").unwrap(), Kernel::best()] {
                    let name = format!("{n} outputs, {dtype}, {amplitude:e}, {}", kernel.name());
                    let FoundErrors {
                        best,
                        written,
                        solved,
                    } = site.found(kernel, EXACT);
                    let excess = written / best - 1.0;
                    let reported = solved.error_with / best - 1.0;
                    println!("{name}: written {excess:.1e}, reported {reported:.1e}");
                    assert!(excess.abs() < SOLVE_WRITTEN, "{name}: written {excess:e}");
                    // A correction so near the optimum says that the unrounded one is, too.
                    assert!(excess < SOLVE_COLD, "{name}: {excess:e}");
                    assert!(reported.abs() < allowed, "{name}: reported {reported:e}");
                    assert_eq!(solved.uncertainty, None, "{name}");
                }
            }
        }
    }
}

/// What f64 itself does not show any more is said, and is true.
#[test]
fn beyond_that_what_is_lost_is_said() {
    for n in OUTPUTS {
        let site = SinkSite::new(n, 1e6, FloatDtype::F32);
        let FoundErrors {
            best,
            written,
            solved,
        } = site.found(Kernel::best(), EXACT);
        let told = solved.uncertainty.unwrap();
        let off = (solved.error_with / best - 1.0).abs();
        println!("{n} outputs: off by {off:.1e}, told {told:.1e}");
        assert!(off < told && told < 1e-2, "{n} outputs: {off:e} {told:e}");
        // A and B in f32 are what costs most.
        assert!(
            written / best - 1.0 < 1e-3,
            "{n} outputs: {}",
            written / best
        );
    }
}

/// What rounding loses is held against what the other channels lose without correction, not against
/// the massive ones, which would excuse a second time as much error as there is.
#[test]
fn massive_channels_excuse_no_rounding() {
    let site = SinkSite::new(OUTPUTS[0], 1e4, FloatDtype::F32);
    let in_f16 = "shrinkage = \"0\"\ndtype = \"f16\"\n";
    let FoundErrors { best, written, .. } = site.found(Kernel::best(), in_f16);
    assert!(written / best < 1.001, "{}", written / best);
}

/// Where blocks would lose more than 0.1 % of f, a wider type is taken.
#[test]
fn blocks_of_codes_give_way_where_they_lose_too_much() {
    let in_blocks = "shrinkage = \"0\"\ndtype = \"q8_0\"\nformat = \"gguf\"\n";
    let of_rank_one = format!("{in_blocks}rank-for = [\"*=1\"]\n");
    for (amplitude, expected) in [(300.0, "q8_0"), (1e4, "f32")] {
        let site = SinkSite::new(OUTPUTS[0], amplitude, FloatDtype::F32);
        let found = site.found(Kernel::best(), in_blocks);
        let excess = found.written / found.best - 1.0;
        let one = site.solved(Kernel::best(), 2, &of_rank_one);
        println!(
            "{amplitude:e}: {} {excess:.1e}, of rank 1 {}",
            found.solved.dtype, one.dtype
        );
        assert!(excess < 1e-3, "{amplitude:e}: {excess:e}");
        assert_eq!(one.rank_used, 1);
        for solved in [&found.solved, &one] {
            assert_eq!(solved.dtype, expected, "{amplitude:e}");
        }
    }
}

/// The rows left out of R are as massive: held out they show the same f, and no shrinkage, which
/// would take the massive channels for six instead of one.
#[test]
fn held_out_rows_are_judged_as_well() {
    let site = SinkSite::new(OUTPUTS[1], 1e4, FloatDtype::F32);
    let solved = site.solved(Kernel::best(), 2, "dtype = \"f32\"\n");
    let (held_out, choice) = (solved.held_out.unwrap(), solved.choice.unwrap());
    println!("{choice:?}, {} of {}", held_out.mean, solved.error_with);
    assert!(choice.shrinkage.abs() < 1e-12, "{choice:?}");
    let ratio = held_out.mean / solved.error_with;
    assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
}

#[test]
fn bytes_of_massive_sites_do_not_depend_on_cores() {
    let site = SinkSite::new(OUTPUTS[1], 1e4, FloatDtype::Bf16);
    let [one, two] = [1, 2].map(|threads| site.solved(Kernel::best(), threads, ""));
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&one.lora_a), bits(&two.lora_a));
    assert_eq!(bits(&one.lora_b), bits(&two.lora_b));
    assert_eq!(one.error_with.to_bits(), two.error_with.to_bits());
}
