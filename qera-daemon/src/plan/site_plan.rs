//! What one site needs from its first row to the end.

use qera_core::dtype::FloatDtype;
use serde::Serialize;

use crate::calibrate::aside::{ScoredLayer, rows_kept, scored_share};
use crate::calibrate::row_room::BlockSize;
use crate::host::kernels::rank_update::scratch_bytes;
use crate::host::operand::PIECE_ROWS;
use crate::judge::schedule::longest_wait;
use crate::plan::planned_run::{PlannedRun, Start};
use crate::plan::sum::sum;
use crate::source::admission::Entry;
use crate::weights::sites::Site;

/// The memory and work of one site.
#[derive(Debug, Serialize)]
pub(crate) struct SitePlan {
    /// The site's first layer.
    pub(crate) name: String,
    /// The width of its input.
    pub(crate) in_features: usize,
    /// Number of rows that will be folded, including those of sums.
    pub(crate) rows: u64,
    /// How many of the rows to fold come as sums.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) summed_rows: u64,
    /// Bytes of R, or of the sketches in its place and the rows that wait for them, and of the
    /// statistics of single channels.
    pub(crate) statistics_bytes: u64,
    /// Bytes of held-out rows.
    pub(crate) window_bytes: u64,
    /// Bytes of rows that a live run keeps aside to score corrections.
    pub(crate) aside_bytes: u64,
    /// Bytes of both, however many rows come.
    pub(crate) rows_bound_bytes: u64,
    /// Bytes that a worker keeps once it has folded rows of it into R.
    #[serde(skip)]
    pub(crate) scratch_bytes: u64,
    /// Bytes needed while its rows are folded into sketches, and given back then.
    #[serde(skip)]
    pub(crate) sketching_bytes: u64,
    /// Bytes of a row in f32 while some are widened; 0 where rows are kept in f32.
    #[serde(skip)]
    pub(crate) widened_bytes: usize,
    /// Number of held-out rows that are taken out of R at a time.
    #[serde(skip)]
    pub(crate) fold_rows: usize,
    /// An upper bound of `fold_rows`, however many shards come.
    #[serde(skip)]
    pub(crate) fold_rows_bound: usize,
    /// Operations of folding its rows.
    #[serde(skip)]
    pub(crate) accumulate_flops: f64,
}

impl SitePlan {
    /// The plan of the site with this index.
    #[must_use]
    pub(crate) fn new(run: &PlannedRun<'_>, index: usize) -> Self {
        let site = &run.sites.sites[index];
        // Several keys of one site in a shard count once.
        let shards = run.shards.iter().chain(run.held);
        let entries: Vec<&Entry> = shards.clone().filter_map(|s| s.entry_of(index)).collect();
        let new = run.shards.iter().filter_map(|s| s.entry_of(index));
        let sums = run.shards.iter().filter_map(|s| s.sum_of(index));
        let announced = Announced {
            run,
            site,
            rows: sum(new.map(|entry| entry.rows as u64)),
            entries: &entries,
            has_sums: shards.clone().any(|s| s.sum_of(index).is_some()),
        };
        let summed_rows = sum(sums.clone().map(|entry| entry.rows));
        let (m, rows) = (site.in_features, announced.rows);
        let number = announced.kept_number_bytes();
        let (window, aside) = (announced.window(number), announced.aside(number));
        let kept_bytes = |rows: usize| (rows * number * m) as u64;
        let bound_bytes = |number: usize| {
            let (window, aside) = (announced.window(number), announced.aside(number));
            ((window.most + aside.most) * number * m) as u64
        };
        let kind = site.second_moment;
        Self {
            name: site.name.clone(),
            in_features: m,
            rows: rows.saturating_add(summed_rows),
            summed_rows,
            // Beside the second moment: mean |x|, its maximum over batches, and a mean that is
            // being formed.
            statistics_bytes: kind.bytes(m) + 8 * 3 * m as u64 + announced.sketch_bytes(number),
            window_bytes: kept_bytes(window.rows),
            aside_bytes: kept_bytes(aside.rows),
            rows_bound_bytes: announced
                .bound_number_bytes()
                .into_iter()
                .map(bound_bytes)
                .max()
                .unwrap_or_default(),
            scratch_bytes: match kind.is_whole() && !announced.is_none() {
                true => announced.scratch_bytes(),
                false => 0,
            },
            sketching_bytes: match &site.sketch {
                Some(sketch) if !announced.is_none() => sketch.fold_bytes(m),
                _ => 0,
            },
            widened_bytes: if number < size_of::<f32>() && !announced.is_none() {
                let block = announced.block(number).rows;
                block.min(PIECE_ROWS) * size_of::<f32>() * m
            } else {
                0
            },
            fold_rows: announced.fold_rows(number),
            fold_rows_bound: announced.fold_rows_bound(number),
            accumulate_flops: if kind.is_whole() {
                // Folding a sum is two operations for each entry of R, as folding a row is.
                (rows as f64 + sums.count() as f64) * (m as f64).powi(2)
            } else {
                rows as f64 * site.sketch.as_ref().map_or(0.0, |of| of.row_flops(m))
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The numbers of rows that a site keeps.
struct KeptRowCount {
    /// How many rows the shards that are there hold.
    rows: usize,
    /// However many such shards come.
    most: usize,
}

/// What the headers of the shards that are there say about a site.
struct Announced<'a> {
    run: &'a PlannedRun<'a>,
    site: &'a Site,
    /// Number of rows that will be folded as rows.
    rows: u64,
    /// Whether other rows come as sums.
    has_sums: bool,
    /// The entries of these shards, and of those that were folded before.
    entries: &'a [&'a Entry],
}

impl Announced<'_> {
    /// Whether no other rows will come: some shards are there, and the run does not go on.
    fn is_all(&self) -> bool {
        let any = self.has_sums || !self.entries.is_empty();
        any && self.run.start == Start::Anew
    }

    /// Sketches, and rows that wait for them.
    fn sketch_bytes(&self, number_bytes: usize) -> u64 {
        let sketch = self.site.sketch.as_ref();
        sketch.map_or(0, |of| of.bytes(self.site.in_features, number_bytes))
    }

    /// Whether no row will ever come.
    fn is_none(&self) -> bool {
        self.run.start == Start::Never
    }

    /// The largest blocks that the rows are cut into.
    fn block(&self, number_bytes: usize) -> BlockSize {
        let room = self.run.room;
        let blocks = self.entries.iter();
        let blocks = blocks.map(|e| room.block_size(e.rows, e.sequences, number_bytes));
        blocks.max().unwrap_or(BlockSize {
            rows: 1,
            waiting: room.joined_rows(number_bytes, false),
        })
    }

    /// Bytes of a number as it is kept. Rows stay in the type in which they come; those of several
    /// types are joined as f32.
    fn kept_number_bytes(&self) -> usize {
        let mut dtypes = self.entries.iter().map(|entry| entry.dtype);
        match dtypes.next() {
            Some(first) if self.is_all() && dtypes.all(|dtype| dtype == first) => {
                first.size_bytes()
            }
            _ => size_of::<f32>(),
        }
    }

    /// The same, however many shards come: those of a live run may have another type.
    fn bound_number_bytes(&self) -> [usize; 2] {
        let number = self.kept_number_bytes();
        if self.run.solving.is_live() {
            [number, size_of::<f32>()]
        } else {
            [number; 2]
        }
    }

    fn window(&self, number_bytes: usize) -> KeptRowCount {
        if self.is_none() {
            return KeptRowCount { rows: 0, most: 0 };
        }
        let block = self.block(number_bytes);
        let most = self.run.room.window_rows(number_bytes);
        let most = most / block.rows * block.rows + block.waiting;
        let rows = if self.is_all() {
            most.min(usize::try_from(self.rows).unwrap_or(usize::MAX))
        } else {
            most
        };
        KeptRowCount {
            rows,
            // A live run may get more rows.
            most: if self.run.solving.is_live() {
                most
            } else {
                rows
            },
        }
    }

    /// How many rows of the window are taken out of R at a time: all of them where they are few of
    /// those that came, otherwise a fold, whose borders are those of blocks.
    fn fold_rows(&self, number_bytes: usize) -> usize {
        let window = self.window(number_bytes).rows;
        if 4 * window as u64 <= self.rows {
            return window;
        }
        window.min(window / 4 + self.block(number_bytes).rows / 2)
    }

    /// The same, however many shards come: the rows of the window are then few.
    fn fold_rows_bound(&self, number_bytes: usize) -> usize {
        if !self.run.solving.is_live() {
            return self.fold_rows(number_bytes);
        }
        let numbers = self.bound_number_bytes().into_iter();
        let most = numbers.map(|number| self.window(number).most).max();
        most.unwrap_or_default()
    }

    fn aside(&self, number_bytes: usize) -> KeptRowCount {
        if !self.run.solving.is_live() {
            return KeptRowCount { rows: 0, most: 0 };
        }
        let m = self.site.in_features;
        let layers = self.site.layers.iter().map(|&l| &self.run.layers[l]);
        let share = scored_share(m, layers.map(ScoredLayer::of));
        let wait = longest_wait(m, self.entries.iter().map(|e| e.rows as u64));
        let room = self.run.room;
        let kept = room.aside_rows(number_bytes);
        // A closed site's rows wait there until there are enough for a block.
        let most = if self.run.settings.convergence.closes_sites() {
            kept + room.joined_rows(number_bytes, false)
        } else {
            kept
        };
        KeptRowCount {
            rows: if self.is_all() {
                rows_kept(wait, self.block(number_bytes).rows, share).min(kept)
            } else {
                most
            },
            most,
        }
    }

    /// The most bytes of packed rows while they are folded.
    fn scratch_bytes(&self) -> u64 {
        let (m, kernel) = (self.site.in_features, self.run.settings.compute.kernel);
        let bytes = |entry: &&Entry| {
            let dtype = match entry.is_weighted() {
                true => FloatDtype::F32,
                false => entry.dtype,
            };
            scratch_bytes(kernel, m, entry.rows, dtype)
        };
        let most = self.entries.iter().map(bytes).max();
        let unknown = || match self.is_all() {
            true => 0, // Sums alone.
            false => scratch_bytes(kernel, m, usize::MAX, FloatDtype::F32),
        };
        most.unwrap_or_else(unknown) as u64
    }
}
