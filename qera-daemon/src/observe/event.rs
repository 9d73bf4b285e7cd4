//! What a run says: one closed list of events.

use std::fmt;

use serde::Serialize;

use crate::settings::memory_budget::format_bytes;

/// Something worth saying.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// The run begins.
    Started {
        /// Checkpoint path.
        checkpoint: String,
        /// Selected layers.
        layers: usize,
        /// Their distinct inputs.
        sites: usize,
        /// Shards whose headers fit.
        shards: usize,
        /// Method name.
        method: &'a str,
        /// Threads of each compute stage.
        threads: usize,
        /// Planned peak.
        planned_bytes: u64,
        /// Budget.
        budget_bytes: u64,
        /// Which device computes, and why.
        device: String,
    },
    /// A shard was folded in.
    ShardFolded {
        /// File name.
        shard: &'a str,
        /// Rows of its first site.
        rows: usize,
        /// Known keys that are not selected.
        ignored_keys: usize,
    },
    /// A shard was set aside.
    ShardQuarantined {
        /// File name and reason.
        message: String,
    },
    /// A shard's content had come before.
    Duplicate {
        /// File name.
        shard: &'a str,
    },
    /// A shard of the journal was gone before a snapshot held it.
    ShardLost {
        /// File name.
        shard: &'a str,
        /// Its rows.
        rows: usize,
        /// What was found in its place.
        reason: String,
    },
    /// The run continues from a state.
    Restored {
        /// Folder.
        state: String,
        /// Shards in its statistics.
        shards: usize,
        /// Shards of the journal that are folded again.
        again: usize,
        /// Whether corrections and evidence of the solve points are continued too.
        progress: bool,
    },
    /// The folder is watched.
    Watching {
        /// Folder.
        folder: String,
    },
    /// A signal came.
    Stopping,
    /// There is nothing that the current generation does not hold.
    NothingNew {
        /// Shards in it.
        shards: usize,
    },
    /// Statistics are gathered, and nothing is solved: there is no checkpoint.
    Gathered {
        /// Folder.
        state: String,
        /// Shards in its statistics.
        shards: usize,
    },
    /// A layer has converged, or has not any more.
    Converged {
        /// Module path.
        layer: &'a str,
        /// Which of the two.
        converged: bool,
        /// Rows folded.
        rows: u64,
        /// Upper limit of what half as many rows again gained.
        gain_upper: Option<f64>,
    },
    /// All layers of a site have converged, and rows are left out from here on.
    Closed {
        /// Module path of the first of them.
        site: &'a str,
        /// Rows that came.
        rows: u64,
        /// Share of the rows that is folded.
        share: f64,
    },
    /// A layer that had converged has drifted, and all rows of its site are folded again.
    Reopened {
        /// Module path.
        layer: &'a str,
        /// Rows that came.
        rows: u64,
        /// Error relative to no correction when it was closed and on new rows, where it rose.
        error: Option<(f64, f64)>,
        /// Lower limit of the latest solve's gain, where that is the reason.
        gain_lower: Option<f64>,
    },
    /// Every layer that is fed has converged.
    AllConverged {
        /// Layers that are fed.
        layers: usize,
        /// Layers that are not.
        starved: usize,
    },
    /// Worth knowing, not wrong.
    Warning {
        /// Site, layer or file.
        subject: &'a str,
        /// What.
        message: String,
    },
    /// A layer has its correction.
    LayerSolved {
        /// Module path.
        layer: &'a str,
        /// Rank used.
        rank: usize,
        /// Output error relative to the output, without correction.
        error_without: f64,
        /// The same with the correction as written.
        error_with: f64,
        /// Held-out error with the correction, relative to without.
        held_out_ratio: Option<f64>,
        /// Shrinkage of R, for QERA-exact.
        shrinkage: Option<f64>,
    },
    /// A generation is in place.
    Published {
        /// Number.
        generation: u64,
        /// Folder.
        path: String,
        /// Layers with a correction.
        solved: usize,
        /// Layers whose site has seen no row.
        starved: usize,
        /// Layers whose site has too few rows to be solved.
        waiting: usize,
        /// Shards folded.
        shards: usize,
        /// Shards set aside.
        quarantined: usize,
        /// Shards that a signal left unread.
        unread: usize,
        /// Rank of the adapter.
        rank: usize,
    },
    /// The run ends without having done its work.
    Failed {
        /// Why.
        message: String,
    },
}

impl fmt::Display for Event<'_> {
    #[expect(clippy::too_many_lines, reason = "one arm an event")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started {
                checkpoint,
                layers,
                sites,
                shards,
                method,
                threads,
                planned_bytes,
                budget_bytes,
                device,
            } => write!(
                f,
                "{checkpoint}: {layers} layers on {sites} sites, {shards} shards; method {method}, {threads} threads, memory {} of {}; {device}",
                format_bytes(*planned_bytes),
                format_bytes(*budget_bytes)
            ),
            Self::ShardFolded {
                shard,
                rows,
                ignored_keys: 0,
            } => write!(f, "folded {shard}: {rows} rows"),
            Self::ShardFolded {
                shard,
                rows,
                ignored_keys,
            } => {
                write!(
                    f,
                    "folded {shard}: {rows} rows; {ignored_keys} keys of modules not selected ignored"
                )
            }
            Self::ShardQuarantined { message } => write!(f, "quarantined: {message}"),
            Self::Duplicate { shard } => {
                write!(f, "duplicate {shard}: its content was folded before")
            }
            Self::ShardLost {
                shard,
                rows,
                reason,
            } => write!(
                f,
                "lost {shard}: {rows} rows that were not saved yet ({reason}); put it back to count it"
            ),
            Self::Restored {
                state,
                shards,
                again,
                progress,
            } => {
                write!(f, "continuing from {state}: {shards} shards")?;
                if *again > 0 {
                    write!(f, ", {again} more are folded again")?;
                }
                if !progress {
                    write!(f, "; evidence begins anew with these settings")?;
                }
                Ok(())
            }
            Self::Watching { folder } => write!(f, "watching {folder}"),
            Self::Stopping => f.write_str(
                "stopping: what is in hand is finished, saved and published; a second signal ends at once",
            ),
            Self::NothingNew { shards } => write!(
                f,
                "nothing new: the current generation holds all {shards} shards"
            ),
            Self::Gathered { state, shards } => {
                write!(f, "{state} holds the statistics of {shards} shards")
            }
            Self::Converged {
                layer,
                converged: true,
                rows,
                gain_upper,
            } => {
                write!(f, "{layer}: converged at {rows} rows")?;
                match gain_upper {
                    Some(upper) => write!(f, " (gain of the last ones at most {upper:.4})"),
                    None => Ok(()),
                }
            }
            Self::Converged { layer, rows, .. } => {
                write!(f, "{layer}: no longer converged at {rows} rows")
            }
            Self::Closed { site, rows, share } => {
                write!(f, "{site}: closed at {rows} rows, ")?;
                if *share > 0.0 {
                    write!(f, "one block of {:.0} is folded from here on", 1.0 / share)
                } else {
                    f.write_str("none is folded from here on")
                }
            }
            Self::Reopened {
                layer,
                rows,
                error,
                gain_lower,
            } => {
                write!(f, "{layer}: drift at {rows} rows")?;
                if let Some((before, now)) = error {
                    write!(
                        f,
                        ": error on new rows rose from x{before:.3} to x{now:.3} of the uncorrected"
                    )?;
                }
                if let Some(lower) = gain_lower {
                    write!(f, ": the latest solve gained at least {lower:.4}")?;
                }
                f.write_str("; site re-opened, all of its rows are folded again")
            }
            Self::AllConverged { layers, starved } => {
                write!(f, "all {layers} layers that are fed have converged")?;
                if *starved > 0 {
                    write!(f, "; {starved} are starved and stay without correction")?;
                }
                Ok(())
            }
            Self::Warning { subject, message } => write!(f, "warning: {subject}: {message}"),
            Self::LayerSolved {
                layer,
                rank,
                error_without,
                error_with,
                held_out_ratio,
                shrinkage,
            } => {
                write!(
                    f,
                    "{layer}: error {error_without:.3e} -> {error_with:.3e} (rank {rank}"
                )?;
                if let Some(a) = shrinkage {
                    write!(f, ", shrinkage {a:.2}")?;
                }
                if let Some(ratio) = held_out_ratio {
                    write!(f, ", held-out x{ratio:.3}")?;
                }
                write!(f, ")")
            }
            Self::Published {
                generation,
                path,
                solved,
                starved,
                waiting,
                shards,
                quarantined,
                unread,
                rank,
            } => {
                write!(
                    f,
                    "published generation {generation}: {path} ({solved} layers corrected, {starved} starved, adapter rank {rank}; {shards} shards folded, {quarantined} quarantined"
                )?;
                if *waiting > 0 {
                    write!(f, ", {waiting} layers waiting for rows")?;
                }
                if *unread > 0 {
                    write!(f, ", {unread} left unread")?;
                }
                write!(f, ")")
            }
            Self::Failed { message } => write!(f, "error: {message}"),
        }
    }
}
