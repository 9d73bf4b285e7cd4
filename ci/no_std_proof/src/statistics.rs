//! Every statistic: update, merge, resume, results.

use crate::golden::{M, R, X};
use crate::{all_close, close};
use nalgebra::{DMatrixView, DMatrixViewMut};
use qera_core::rows::Rows;
use qera_core::statistics::{
    Autocorrelation, BatchMaxMeanAbs, BlockMeans, BlockShare, MeanAbs, Moments, SecondMoment,
    student_t_quantile,
};

const DIAGONAL: [f64; M] = [1.25, 2.0, 2.25, 3.65];
/// sqrt(s^2 / B) of the block means below: sqrt(2 / 3 / 4).
const ERROR_OF_MEAN: f64 = 0.408_248_290_463_863;

/// The first two and the last three of the golden rows.
fn batches() -> Option<[Rows<'static>; 2]> {
    static ROWS: [f32; 20] = X;
    let (first, second) = ROWS.split_at(2 * M);
    Some([Rows::new(first, M).ok()?, Rows::new(second, M).ok()?])
}

pub fn autocorrelation() -> bool {
    accumulate_autocorrelation().unwrap_or(false)
}

fn accumulate_autocorrelation() -> Option<bool> {
    let [first, second] = batches()?;
    let (mut ours, mut other) = ([1.0; 10], [1.0; 10]);
    let mut state = Autocorrelation::new(&mut ours, M).ok()?;
    Autocorrelation::update(&mut state, &first).ok()?;
    // The other batch as a block's sums, for a host.
    let mut sums = [0.0_f32; M * M];
    for row in Rows::iter(&second) {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum += row.values[at % M] * row.values[at / M];
        }
    }
    let mut block = Autocorrelation::new(&mut other, M).ok()?;
    Autocorrelation::fold_block(&mut block, DMatrixView::from_slice(&sums, M, M), 3.0).ok()?;
    Autocorrelation::merge(
        &mut state,
        Autocorrelation::packed(&block),
        Autocorrelation::weight(&block),
    )
    .ok()?;
    let (mut full, mut diagonal) = ([0.0; M * M], [0.0; M]);
    Autocorrelation::write_full(&state, DMatrixViewMut::from_slice(&mut full, M, M)).ok()?;
    Autocorrelation::diagonal(&state, &mut diagonal).ok()?;
    let found = Autocorrelation::get(&state, 3, 1)?;
    let right = Autocorrelation::weight(&state) == 5.0
        && Autocorrelation::in_features(&state) == M
        && all_close(Autocorrelation::packed(&state), &R, 1e-14)
        && all_close(&diagonal, &DIAGONAL, 1e-14)
        && close(found, 0.2, 1e-14)
        && close(full[1 + 3 * M], full[3 + M], 0.0);
    Autocorrelation::go_on(&mut ours, M, 5.0).ok()?;
    let mut means = [1.0, 0.0];
    let share = BlockShare::new(2.0, 2.0);
    BlockShare::fold(&share, &mut means, &[10.0, -10.0]);
    let right = right && means == [3.0, -2.5];
    let right = right && BlockShare::kept(&share) == 0.5 && BlockShare::per_sum(&share) == 0.25;
    let resumed = Autocorrelation::resume(&mut ours, M, 5.0).ok()?;
    Some(right && all_close(Autocorrelation::packed(&resumed), &R, 1e-14))
}

pub fn means() -> bool {
    accumulate_means().unwrap_or(false)
}

fn accumulate_means() -> Option<bool> {
    let [first, second] = batches()?;
    let (mut ours, mut other) = ([1.0; M], [1.0; M]);
    let mut squares = SecondMoment::new(&mut ours).ok()?;
    let mut more = SecondMoment::new(&mut other).ok()?;
    SecondMoment::update(&mut squares, &first).ok()?;
    SecondMoment::update(&mut more, &second).ok()?;
    SecondMoment::merge(&mut squares, &more).ok()?;
    let mut right = SecondMoment::weight(&squares) == 5.0
        && all_close(SecondMoment::values(&squares), &DIAGONAL, 1e-14)
        && SecondMoment::dead_channels(&squares).count == 0;
    let mut dead = [0.0, 2.0];
    let resumed = SecondMoment::resume(&mut dead, 3.0).ok()?;
    right &= SecondMoment::dead_channels(&resumed).first.as_slice() == [0];

    let (mut ours, mut other) = ([1.0; M], [1.0; M]);
    let mut sizes = MeanAbs::new(&mut ours).ok()?;
    let mut more = MeanAbs::new(&mut other).ok()?;
    MeanAbs::update(&mut sizes, &first).ok()?;
    MeanAbs::update(&mut more, &second).ok()?;
    MeanAbs::merge(&mut sizes, &more).ok()?;
    right &= MeanAbs::weight(&sizes) == 5.0
        && all_close(MeanAbs::values(&sizes), &[0.9, 1.2, 1.1, 1.3], 1e-14);
    let resumed = MeanAbs::resume(&mut ours, 5.0).ok()?;
    Some(right && MeanAbs::weight(&resumed) == 5.0)
}

pub fn batch_maxima() -> bool {
    accumulate_batch_maxima().unwrap_or(false)
}

fn accumulate_batch_maxima() -> Option<bool> {
    let [first, second] = batches()?;
    let (mut ours, mut other, mut scratch, mut scale) = ([1.0; M], [1.0; M], [0.0; M], [0.0; M]);
    let mut state = BatchMaxMeanAbs::new(&mut ours).ok()?;
    let mut more = BatchMaxMeanAbs::new(&mut other).ok()?;
    BatchMaxMeanAbs::update_batch(&mut state, &first, &mut scratch).ok()?;
    BatchMaxMeanAbs::update_batch(&mut more, &second, &mut scratch).ok()?;
    BatchMaxMeanAbs::merge(&mut state, &more).ok()?;
    BatchMaxMeanAbs::finish_scale(&state, &mut scale).ok()?;
    let right = BatchMaxMeanAbs::weight(&state) == 5.0
        && all_close(
            BatchMaxMeanAbs::values(&state),
            &[1.0, 1.5, 1.5, 5.5 / 3.0],
            1e-14,
        )
        && all_close(
            &scale,
            &[0.738_548_9, 1.107_823_4, 1.107_823_4, 1.354_006_4],
            1e-7,
        );
    let mut one = [0.0; M];
    let mut batch = MeanAbs::new(&mut one).ok()?;
    MeanAbs::update(&mut batch, &first).ok()?;
    BatchMaxMeanAbs::take_batch(&mut more, &batch).ok()?;
    let right = right && BatchMaxMeanAbs::weight(&more) == 5.0;
    let resumed = BatchMaxMeanAbs::resume(&mut ours, 5.0).ok()?;
    Some(right && BatchMaxMeanAbs::weight(&resumed) == 5.0)
}

pub fn moments() -> bool {
    accumulate_moments().unwrap_or(false)
}

fn accumulate_moments() -> Option<bool> {
    let (first, second) = (
        Rows::new(&[1.0e9, 1.0e9 + 128.0], 1).ok()?,
        Rows::new(&[1.0e9 + 256.0], 1).ok()?,
    );
    let (mut mean, mut m2, mut other_mean, mut other_m2) = ([1.0], [1.0], [1.0], [1.0]);
    let mut state = Moments::new(&mut mean, &mut m2).ok()?;
    let mut more = Moments::new(&mut other_mean, &mut other_m2).ok()?;
    Moments::update(&mut state, &first).ok()?;
    Moments::update(&mut more, &second).ok()?;
    Moments::merge(&mut state, &more).ok()?;
    let (mut population, mut sample) = ([0.0], [0.0]);
    let right = Moments::population_variance(&state, &mut population).ok()?
        && Moments::sample_variance(&state, &mut sample).ok()?
        && Moments::weight(&state) == 3.0
        && all_close(Moments::mean(&state), &[1.0e9 + 128.0], 1e-15)
        && all_close(Moments::m2(&state), &[32_768.0], 1e-9)
        && close(sample[0], 16_384.0, 1e-9)
        && close(population[0], 32_768.0 / 3.0, 1e-9);
    let resumed = Moments::resume(&mut mean, &mut m2, 3.0).ok()?;
    Some(right && Moments::weight(&resumed) == 3.0)
}

pub fn block_means() -> bool {
    let (mut blocks, mut more) = (BlockMeans::new(), BlockMeans::new());
    let pushed = BlockMeans::push(&mut blocks, 4.0)
        && BlockMeans::push(&mut blocks, 5.0)
        && BlockMeans::push(&mut more, 6.0)
        && BlockMeans::push(&mut more, 5.0);
    BlockMeans::merge(&mut blocks, &more);
    let saved = (
        BlockMeans::count(&blocks),
        BlockMeans::mean(&blocks),
        BlockMeans::m2(&blocks),
    );
    let Some(interval) = BlockMeans::interval(&blocks, 0.95) else {
        return false;
    };
    pushed
        && BlockMeans::resume(saved.0, saved.1, saved.2) == Some(blocks)
        && close(interval.mean, 5.0, 1e-15)
        && close(
            interval.half_width,
            3.182_446_305_284 * ERROR_OF_MEAN,
            1e-12,
        )
        && BlockMeans::variance(&blocks).is_some_and(|variance| close(variance, 2.0 / 3.0, 1e-15))
        && close(student_t_quantile(0.975, 7.0), 2.364_624_251_592_784, 1e-12)
}
