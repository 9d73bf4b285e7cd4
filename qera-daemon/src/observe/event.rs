//! The events of a run: everything that it says is one of these.

use std::fmt;

use serde::Serialize;

use crate::observe::command_events::CommandPrinted;
use crate::observe::core_time_event::CoreTimeSpent;
use crate::observe::imatrix_events::{ImatrixRead, ImatrixWritten, LayerStoodIn};
use crate::observe::ingest_events::IngestEnded;
use crate::observe::layer_events::{LayerConverged, LayerCorrected, LayerReopened, SiteClosed};
use crate::observe::notify_events::{CanaryTried, GenerationServed, NotifyFailed};
use crate::observe::rounding_events::{LayerRounded, SiteGathering, UnroundedLayers};
use crate::observe::run_events::{
    AllLayersConverged, BaseWritten, FoldedShard, GenerationPublished, GenerationRejected,
    GgufBaseWritten, PackedBaseWritten, RunStarted, StateRestored,
};
use crate::observe::sketch_events::LayerSketched;
use crate::observe::waiting::WaitingForConvergence;

/// An event.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// A run, or `solve`, begins.
    Started(RunStarted<'a>),
    /// A shard was folded in.
    ShardFolded(FoldedShard<'a>),
    /// The shards that came are folded, and it is told what that took.
    Ingest(IngestEnded),
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
        /// How many rows the shard had.
        rows: usize,
        /// What was found in the shard's place.
        reason: String,
    },
    /// The run continues from a state.
    Restored(StateRestored),
    /// The folder is watched.
    Watching {
        /// Folder.
        folder: String,
    },
    /// A signal came.
    Stopping,
    /// The current generation holds everything already.
    NothingNew {
        /// Number of shards in the generation.
        shards: usize,
    },
    /// Statistics were gathered, and nothing is solved because there is no checkpoint.
    Gathered {
        /// Folder.
        state: String,
        /// Number of shards in the statistics.
        shards: usize,
    },
    /// A layer has converged, or has not any more.
    Converged(LayerConverged<'a>),
    /// All layers of a site have converged, and rows are left out from here on.
    Closed(SiteClosed<'a>),
    /// A layer that had converged has drifted, and all rows of its site are folded again.
    Reopened(LayerReopened<'a>),
    /// Every layer whose input has rows has converged.
    AllConverged(AllLayersConverged),
    /// Everything that came is folded and published, and layers have not converged.
    Waiting(WaitingForConvergence),
    /// Something that is worth knowing, and not wrong.
    Warning {
        /// The site, layer or file that it is about.
        subject: &'a str,
        /// The warning.
        message: String,
    },
    /// A site waits for more rows before its layers are rounded.
    Gathering(SiteGathering<'a>),
    /// Nothing is published, because layers wait for more rows before they are rounded.
    Unrounded(UnroundedLayers<'a>),
    /// W~ of a layer is made, and will not change.
    Rounded(LayerRounded<'a>),
    /// An imatrix was read.
    ImatrixRead(ImatrixRead<'a>),
    /// A state's statistics were written as an imatrix.
    ImatrixWritten(ImatrixWritten),
    /// A layer has a correction from an imatrix, until one from rows is there.
    Imatrix(LayerStoodIn<'a>),
    /// A layer got its correction.
    LayerSolved(LayerCorrected<'a>),
    /// The same, from a sketch of its output errors.
    LayerSketched(LayerSketched<'a>),
    /// W~ is in place as a checkpoint.
    BaseWritten(BaseWritten),
    /// W~ is in place as packed weights.
    PackedBaseWritten(PackedBaseWritten),
    /// W~ is in place as a GGUF.
    GgufBaseWritten(GgufBaseWritten),
    /// A generation is in place.
    Published(GenerationPublished),
    /// A generation did not pass its check.
    Rejected(GenerationRejected),
    /// The user's command printed something.
    CommandPrinted(CommandPrinted),
    /// A server serves a generation.
    Served(GenerationServed<'a>),
    /// What the answer of a canary showed.
    Canary(CanaryTried<'a>),
    /// A server does not serve what it should.
    NotifyFailed(NotifyFailed<'a>),
    /// What the CPU time went into, at the end of a run or of `solve`.
    CoreTime(CoreTimeSpent),
    /// The run failed.
    Failed {
        /// The reason.
        message: String,
    },
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(started) => started.fmt(f),
            Self::ShardFolded(folded) => folded.fmt(f),
            Self::Ingest(ended) => ended.fmt(f),
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
            Self::Restored(restored) => restored.fmt(f),
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
            Self::Converged(converged) => converged.fmt(f),
            Self::Closed(closed) => closed.fmt(f),
            Self::Reopened(reopened) => reopened.fmt(f),
            Self::AllConverged(converged) => converged.fmt(f),
            Self::Waiting(waiting) => waiting.fmt(f),
            Self::Warning { subject, message } => write!(f, "warning: {subject}: {message}"),
            Self::Gathering(gathering) => gathering.fmt(f),
            Self::Unrounded(unrounded) => unrounded.fmt(f),
            Self::Rounded(rounded) => rounded.fmt(f),
            Self::ImatrixRead(read) => read.fmt(f),
            Self::ImatrixWritten(written) => written.fmt(f),
            Self::Imatrix(stood_in) => stood_in.fmt(f),
            Self::LayerSolved(corrected) => corrected.fmt(f),
            Self::LayerSketched(sketched) => sketched.fmt(f),
            Self::BaseWritten(written) => written.fmt(f),
            Self::PackedBaseWritten(written) => written.fmt(f),
            Self::GgufBaseWritten(written) => written.fmt(f),
            Self::Published(published) => published.fmt(f),
            Self::Rejected(rejected) => rejected.fmt(f),
            Self::CommandPrinted(printed) => printed.fmt(f),
            Self::Served(served) => served.fmt(f),
            Self::Canary(tried) => tried.fmt(f),
            Self::NotifyFailed(failed) => failed.fmt(f),
            Self::CoreTime(spent) => spent.fmt(f),
            Self::Failed { message } => write!(f, "error: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::bits::{BitsPerWeight, StockTypes};
    use crate::observe::layer_events::ErrorRise;
    use crate::observe::run_events::WorstLayer;

    #[track_caller]
    fn check(event: &Event<'_>, text: &str, json: &str) {
        assert_eq!(event.to_string(), text);
        assert_eq!(serde_json::to_string(event).unwrap(), json);
    }

    #[test]
    fn a_run_is_told() {
        let started = Event::Started(RunStarted {
            checkpoint: "model".into(),
            quantized: None,
            packing: None,
            layers: 4,
            sites: 2,
            shards: 3,
            method: "exact",
            threads: 2,
            planned_bytes: 1 << 20,
            budget_bytes: 1 << 30,
            device: "the CPU".into(),
        });
        check(
            &started,
            "model: 4 layers on 2 sites, 3 shards; method exact, 2 threads, memory 1.0 MiB of 1.0 GiB; the CPU",
            r#"{"event":"started","checkpoint":"model","layers":4,"sites":2,"shards":3,"method":"exact","threads":2,"planned_bytes":1048576,"budget_bytes":1073741824,"device":"the CPU"}"#,
        );
        let restored = |again, progress| {
            Event::Restored(StateRestored {
                state: "state".into(),
                shards: 5,
                again,
                progress,
            })
        };
        check(
            &restored(0, true),
            "continuing from state: 5 shards",
            r#"{"event":"restored","state":"state","shards":5,"again":0,"progress":true}"#,
        );
        check(
            &restored(2, false),
            "continuing from state: 5 shards, 2 more are folded again; evidence begins anew with these settings",
            r#"{"event":"restored","state":"state","shards":5,"again":2,"progress":false}"#,
        );
        check(
            &Event::Watching {
                folder: "in".into(),
            },
            "watching in",
            r#"{"event":"watching","folder":"in"}"#,
        );
    }

    #[test]
    fn the_end_of_a_run_is_told() {
        check(
            &Event::Stopping,
            "stopping: what is in hand is finished, saved and published; a second signal ends at once",
            r#"{"event":"stopping"}"#,
        );
        check(
            &Event::NothingNew { shards: 5 },
            "nothing new: the current generation holds all 5 shards",
            r#"{"event":"nothing-new","shards":5}"#,
        );
        let gathered = Event::Gathered {
            state: "state".into(),
            shards: 5,
        };
        check(
            &gathered,
            "state holds the statistics of 5 shards",
            r#"{"event":"gathered","state":"state","shards":5}"#,
        );
        let all = |starved| Event::AllConverged(AllLayersConverged { layers: 4, starved });
        check(
            &all(0),
            "all 4 layers that have rows have converged",
            r#"{"event":"all-converged","layers":4,"starved":0}"#,
        );
        check(
            &all(1),
            "all 4 layers that have rows have converged; 1 are starved and stay without correction",
            r#"{"event":"all-converged","layers":4,"starved":1}"#,
        );
        let warning = Event::Warning {
            subject: "state",
            message: "damaged".into(),
        };
        check(
            &warning,
            "warning: state: damaged",
            r#"{"event":"warning","subject":"state","message":"damaged"}"#,
        );
        let failed = Event::Failed {
            message: "no".into(),
        };
        check(&failed, "error: no", r#"{"event":"failed","message":"no"}"#);
    }

    #[test]
    fn shards_are_told() {
        let folded = |ignored_keys| {
            Event::ShardFolded(FoldedShard {
                shard: "a",
                rows: 7,
                ignored_keys,
            })
        };
        check(
            &folded(0),
            "folded a: 7 rows",
            r#"{"event":"shard-folded","shard":"a","rows":7,"ignored_keys":0}"#,
        );
        check(
            &folded(2),
            "folded a: 7 rows; 2 keys of modules not selected ignored",
            r#"{"event":"shard-folded","shard":"a","rows":7,"ignored_keys":2}"#,
        );
        let quarantined = Event::ShardQuarantined {
            message: "a: torn".into(),
        };
        check(
            &quarantined,
            "quarantined: a: torn",
            r#"{"event":"shard-quarantined","message":"a: torn"}"#,
        );
        check(
            &Event::Duplicate { shard: "a" },
            "duplicate a: its content was folded before",
            r#"{"event":"duplicate","shard":"a"}"#,
        );
        let lost = Event::ShardLost {
            shard: "a",
            rows: 7,
            reason: "gone".into(),
        };
        check(
            &lost,
            "lost a: 7 rows that were not saved yet (gone); put it back to count it",
            r#"{"event":"shard-lost","shard":"a","rows":7,"reason":"gone"}"#,
        );
    }

    #[test]
    fn generations_are_told() {
        let published = |uncorrected, waiting, unread, bits_per_weight| {
            Event::Published(GenerationPublished {
                generation: 3,
                path: "out/3".into(),
                solved: 4,
                uncorrected,
                imatrix: 0,
                starved: 1,
                waiting,
                failed: 0,
                shards: 5,
                quarantined: 2,
                unread,
                rank: 8,
                bits_per_weight,
            })
        };
        check(
            &published(0, 0, 0, None),
            "published generation 3: out/3 (4 layers corrected, 1 starved, adapter rank 8; 5 shards folded, 2 quarantined)",
            r#"{"event":"published","generation":3,"path":"out/3","solved":4,"uncorrected":0,"starved":1,"waiting":0,"shards":5,"quarantined":2,"unread":0,"rank":8}"#,
        );
        check(
            &published(3, 6, 7, None),
            "published generation 3: out/3 (4 layers corrected, 3 solved without correction, 1 starved, adapter rank 8; 5 shards folded, 2 quarantined, 6 layers waiting for rows, 7 left unread)",
            r#"{"event":"published","generation":3,"path":"out/3","solved":4,"uncorrected":3,"starved":1,"waiting":6,"shards":5,"quarantined":2,"unread":7,"rank":8}"#,
        );
        let next = |types: &[&'static str], bits| StockTypes {
            types: types.to_vec(),
            bits,
        };
        let (above_base, above_both) = (next(&["Q4_1"], 5.0), next(&["Q5_0", "Q5_K"], 5.5));
        let bits = |both, next_to_both| BitsPerWeight {
            layers: 4,
            base: 4.5,
            base_as: "gguf",
            adapter: 0.75,
            both,
            next_to_base: Some(above_base.clone()),
            next_to_both,
        };
        check(
            &published(0, 0, 0, Some(bits(5.25, Some(above_both)))),
            "published generation 3: out/3 (4 layers corrected, 1 starved, adapter rank 8; 5 shards folded, 2 quarantined); 4.50 (gguf) + 0.75 = 5.25 bits a weight; next types of ggml: Q4_1 5.00, Q5_0/Q5_K 5.50",
            r#"{"event":"published","generation":3,"path":"out/3","solved":4,"uncorrected":0,"starved":1,"waiting":0,"shards":5,"quarantined":2,"unread":0,"rank":8,"bits_per_weight":{"layers":4,"base":4.5,"base_as":"gguf","adapter":0.75,"both":5.25,"next_to_base":{"types":["Q4_1"],"bits":5.0},"next_to_both":{"types":["Q5_0","Q5_K"],"bits":5.5}}}"#,
        );
        let same = bits(4.75, Some(above_base.clone())).to_string();
        assert!(
            same.ends_with("bits a weight; next types of ggml: Q4_1 5.00"),
            "{same}"
        );
        let none = bits(36.0, None).to_string();
        assert!(none.ends_with("; next types of ggml: Q4_1 5.00"), "{none}");
    }

    #[test]
    fn what_a_packed_base_takes_is_told() {
        let written = |bits, runs_on_cpus| {
            Event::PackedBaseWritten(PackedBaseWritten {
                path: "out/packed".into(),
                bits,
                group_size: 32,
                layers: 7,
                whole: 2,
                bits_per_weight: 4.5,
                bits_per_parameter: 6.25,
                bytes: 1000,
                runs_on_cpus,
            })
        };
        check(
            &written(4, true),
            "packed base written: out/packed (7 layers of 4 bits in groups of 32, 4.50 bits a weight, 2 layers whole; 1000 bytes, 6.25 bits a parameter)",
            r#"{"event":"packed-base-written","path":"out/packed","bits":4,"group_size":32,"layers":7,"whole":2,"bits_per_weight":4.5,"bits_per_parameter":6.25,"bytes":1000,"runs_on_cpus":true}"#,
        );
        let wide = written(8, false).to_string();
        assert!(
            wide.ends_with("on GPUs only: it has no CPU kernel for 8 bits"),
            "{wide}"
        );
    }

    #[test]
    fn what_a_gguf_takes_is_told() {
        check(
            &Event::GgufBaseWritten(GgufBaseWritten {
                path: "out/model.gguf".into(),
                types: std::collections::BTreeMap::from([("BF16".into(), 1), ("Q4_0".into(), 6)]),
                bits_per_weight: 4.75,
                bits_per_parameter: 6.25,
                bytes: 1000,
            }),
            "base as GGUF written: out/model.gguf (1 layers in BF16, 6 layers in Q4_0, 4.75 bits a weight; 1000 bytes, 6.25 bits a parameter)",
            r#"{"event":"gguf-base-written","path":"out/model.gguf","types":{"BF16":1,"Q4_0":6},"bits_per_weight":4.75,"bits_per_parameter":6.25,"bytes":1000}"#,
        );
    }

    #[test]
    fn what_a_base_is_worth_alone_is_told() {
        let written = |nearest| {
            Event::BaseWritten(BaseWritten {
                path: "out/base".into(),
                rounding: "projected",
                layers: 4,
                alone: 0.25,
                nearest,
                corrected: 0.125,
                worst: WorstLayer {
                    layer: "h.0".into(),
                    badness: 1.5,
                },
                has_too_few_bits: nearest.is_some(),
            })
        };
        let end = "; at 3 bits and fewer no base is usable without its adapter";
        check(
            &written(Some(0.5)),
            &format!(
                "base written: out/base (rounding projected; error 2.50e-1 without adapter, 5.00e-1 of nearest rounding without adapter, 1.25e-1 with it, geometric means of 4 layers; worst without adapter: h.0, 1.50 times nearest's){end}"
            ),
            r#"{"event":"base-written","path":"out/base","rounding":"projected","layers":4,"alone":0.25,"nearest":0.5,"corrected":0.125,"worst":{"layer":"h.0","badness":1.5}}"#,
        );
        check(
            &written(None),
            "base written: out/base (rounding projected; error 2.50e-1 without adapter, 1.25e-1 with it, geometric means of 4 layers; worst without adapter: h.0, 1.50e0)",
            r#"{"event":"base-written","path":"out/base","rounding":"projected","layers":4,"alone":0.25,"nearest":null,"corrected":0.125,"worst":{"layer":"h.0","badness":1.5}}"#,
        );
    }

    #[test]
    fn a_generation_that_does_not_pass_is_told() {
        let rejected = |more| {
            Event::Rejected(GenerationRejected {
                generation: 3,
                problems: vec!["a: b".into(), "c".into()],
                more,
            })
        };
        check(
            &rejected(0),
            "generation 3 is not published: 2 problems in its files; a: b; c",
            r#"{"event":"rejected","generation":3,"problems":["a: b","c"],"more":0}"#,
        );
        check(
            &rejected(5),
            "generation 3 is not published: 7 problems in its files; a: b; c; and 5 more",
            r#"{"event":"rejected","generation":3,"problems":["a: b","c"],"more":5}"#,
        );
    }

    #[test]
    fn layers_are_told() {
        let converged = |converged, gain_upper| {
            Event::Converged(LayerConverged {
                layer: "q",
                converged,
                rows: 9,
                gain_upper,
            })
        };
        check(
            &converged(true, Some(0.0123)),
            "q: converged at 9 rows (gain of the last ones at most 0.0123)",
            r#"{"event":"converged","layer":"q","converged":true,"rows":9,"gain_upper":0.0123}"#,
        );
        check(
            &converged(true, None),
            "q: converged at 9 rows",
            r#"{"event":"converged","layer":"q","converged":true,"rows":9,"gain_upper":null}"#,
        );
        check(
            &converged(false, Some(0.0123)),
            "q: no longer converged at 9 rows",
            r#"{"event":"converged","layer":"q","converged":false,"rows":9,"gain_upper":0.0123}"#,
        );
    }

    #[test]
    fn sites_are_told() {
        let closed = |share| {
            Event::Closed(SiteClosed {
                site: "q",
                rows: 9,
                share,
            })
        };
        check(
            &closed(0.0625),
            "q: closed at 9 rows, one block of 16 is folded from here on",
            r#"{"event":"closed","site":"q","rows":9,"share":0.0625}"#,
        );
        check(
            &closed(0.0),
            "q: closed at 9 rows, none is folded from here on",
            r#"{"event":"closed","site":"q","rows":9,"share":0.0}"#,
        );
        let reopened = |error, gain_lower| {
            Event::Reopened(LayerReopened {
                layer: "q",
                rows: 9,
                error,
                gain_lower,
            })
        };
        check(
            &reopened(
                Some(ErrorRise {
                    before: 0.25,
                    now: 0.5,
                }),
                None,
            ),
            "q: drift at 9 rows: error on new rows rose from x0.250 to x0.500 of the uncorrected; site re-opened, all of its rows are folded again",
            r#"{"event":"reopened","layer":"q","rows":9,"error":[0.25,0.5],"gain_lower":null}"#,
        );
        check(
            &reopened(None, Some(0.25)),
            "q: drift at 9 rows: the latest solve gained at least 0.2500; site re-opened, all of its rows are folded again",
            r#"{"event":"reopened","layer":"q","rows":9,"error":null,"gain_lower":0.25}"#,
        );
    }
}
