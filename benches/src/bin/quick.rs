use qera_core::dtype::FloatDtype;
use qera_core::statistics::Autocorrelation;
use qera_daemon::cores::Cores;
use qera_daemon::kernels::*;
use std::time::Instant;
fn main() {
    let m: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let threads: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let rows = 2048;
    let x: Vec<f32> = (0..rows * m).map(|i| half::bf16::from_f32(((i as f32) * 0.37).sin() * 3.0).to_f32()).collect();
    let bytes: Vec<u8> = x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    let f32b: Vec<u8> = x.iter().flat_map(|x| (x + 1e-4f32).to_le_bytes()).collect();
    let cores = Cores::new(threads);
    let _c = cores.take();
    for k in Kernel::available() {
        for (name, stored) in [("bf16", Stored::Bytes(&bytes, FloatDtype::Bf16)), ("f32", Stored::Bytes(&f32b, FloatDtype::F32))] {
            let mut packed = vec![0.0; m * (m + 1) / 2];
            let mut scratch = Scratch::default();
            let mut best = f64::MAX;
            for _ in 0..if k.name()=="portable" {1} else {5} {
                let mut r = Autocorrelation::new(&mut packed, m).unwrap();
                let t = Instant::now();
                let mut weight = 0.0;
                let mut shares = vec![];
                for _ in 0..2 { weight += 1.0; let _ = weight; }
                shares.push(r.begin_block(2048.0).unwrap());
                let s = shares[0];
                fold_products(k, &cores, (stored, m), r.packed_mut(), &mut scratch, |_| s);
                best = best.min(t.elapsed().as_secs_f64());
            }
            println!("{} {name}: {:.1} ms, {:.1} GF/s", k.name(), best * 1e3, rows as f64 * (m * m) as f64 / best / 1e9);
        }
        let v = faer::Mat::from_fn(48, m, |i, j| ((i * 7 + j) as f64).sin());
        let mat: Vec<f32> = (0..m * m).map(|i| (i as f32 * 0.11).cos()).collect();
        for b in [16, 32, 48] {
            let mut best = f64::MAX;
            for _ in 0..if k.name()=="portable" {1} else {7} {
                let t = Instant::now();
                let p = products(k, &cores, v.as_ref().subrows(0, b), (&mat, m));
                best = best.min(t.elapsed().as_secs_f64());
                std::hint::black_box(p);
            }
            println!("{} products b={b}: {:.2} ms, {:.1} GF/s", k.name(), best * 1e3, 2.0 * (b * m * m) as f64 / best / 1e9);
        }
    }
}
