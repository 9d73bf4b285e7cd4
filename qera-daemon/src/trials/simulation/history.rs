//! A history: some deeds of users, a run in trouble, and so on; then a run without trouble, which
//! has to leave what the model says.

use core::fmt::Write as _;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::disk::simulated::{Cut, Disk, Image, Trouble};
use crate::error::Fatal;
use crate::exit::Exit;
use crate::publish::generation_files::damaged_files;
use crate::state::briefs::{self, Brief};
use crate::state::journal::Lines;
use crate::trials::draw::Draw;
use crate::trials::simulation::model::Model;
use crate::trials::simulation::one_run::{Ended, OneRun};
use crate::trials::simulation::oracle::{Asked, Left, undisturbed};
use crate::trials::simulation::tally::Tally;
use crate::trials::simulation::world::World;

/// Calls of a run about: troubles are drawn among them.
const CALLS: usize = 600;
/// About how many calls a live run makes.
const LIVE_CALLS: usize = 2000;

/// Calls of a live run's start about, which does not wait for room.
const STARTED: u64 = 400;

/// A series of runs and deeds on one disk, and what was found wrong.
pub(super) struct History {
    number: u64,
    world: &'static World,
    image: Image,
    draw: Draw,
    model: Model,
    /// The settings that do not change between the history's runs.
    fixed: &'static str,
    told: String,
    /// What all runs have logged.
    log: String,
    tally: Tally,
    wrong: Vec<String>,
    trace: blake3::Hasher,
}

/// A history that is over.
pub(super) struct Told {
    /// The counts of the history.
    pub(super) tally: Tally,
    /// The history in words, to look at when something broke.
    pub(super) told: String,
    /// What its runs said.
    pub(super) log: String,
    /// What is wrong with the history.
    pub(super) wrong: Vec<String>,
    /// BLAKE3 of all calls and of what is left.
    pub(super) trace: String,
}

/// W~ is rounded to the nearest levels, and made anew by each run,
const NEAREST: &str = "";
/// or is written as well,
const WITH_BASE: &str = "emit-base = \"hf\"\n";
/// or is made once, from what was seen then.
const FROZEN: &str = "rounding = \"feedback\"\nround-after = 64\n";

/// What a run can do with the shards that it has taken in.
const CONSUMES: [&str; 3] = ["keep", "delete", "move"];

/// Options of a run that may change from one to the next.
#[derive(Debug)]
struct Changing {
    consume: &'static str,
    rank: usize,
    is_live: bool,
}

impl History {
    /// The history of this number.
    pub(super) fn run(number: u64) -> Told {
        let mut draw = Draw::new(number);
        let world = World::of(number);
        let mut history = Self {
            number,
            world,
            image: world.folder(&[]),
            fixed: *draw.of(&[NEAREST, NEAREST, WITH_BASE, FROZEN]),
            draw,
            model: Model::of(world),
            told: String::new(),
            log: String::new(),
            tally: Tally {
                cases: 1,
                ..Tally::default()
            },
            wrong: Vec::new(),
            trace: blake3::Hasher::new(),
        };
        let _ = writeln!(history.told, "  {} {:?}", world.name, history.fixed);
        for _ in 0..=history.draw.below(3) {
            history.deeds();
            history.run_in_trouble();
        }
        history.deeds();
        history.end();
        Disk::unmount(&history.name());
        history.image.digest(&mut history.trace);
        let Self {
            told, wrong, log, ..
        } = history;
        let wrong = wrong.into_iter();
        Told {
            tally: history.tally,
            wrong: wrong
                .map(|what| format!("history {number}: {what}\n{told}{log}"))
                .collect(),
            told,
            log,
            trace: history.trace.finalize().to_hex().to_string(),
        }
    }

    fn name(&self) -> String {
        format!("history-{}", self.number)
    }

    fn deeds(&mut self) {
        for _ in 0..1 + self.draw.below(3) {
            let deed = self.model.act(&mut self.image, &mut self.draw);
            let _ = writeln!(self.told, "  {deed}");
        }
    }

    fn trouble(&mut self, is_live: bool) -> Trouble {
        let calls = if is_live { LIVE_CALLS } else { CALLS };
        let draw = &mut self.draw;
        let at = 1 + draw.below(calls) as u64;
        match draw.below(10) {
            0 => Trouble::None,
            1 => Trouble::Full {
                at,
                lasts: Duration::from_secs(1 + draw.below(60) as u64),
            },
            2 | 3 => Trouble::Fail {
                at,
                times: *draw.of(&[1, 3, 1 << 40]),
                errno: *draw.of(&[5, 13, 28]),
            },
            _ => Trouble::Cut { at },
        }
    }

    fn changing(&mut self) -> Changing {
        let rank = 1 + self.draw.below(2);
        Changing {
            consume: CONSUMES[self.draw.below(CONSUMES.len())],
            // What is frozen was made for a rank.
            rank: if self.fixed == FROZEN { 2 } else { rank },
            is_live: self.draw.once_in(3),
        }
    }

    /// The run with these options; of those that `--once` does not know, none.
    fn planned(&mut self, changing: &Changing) -> OneRun {
        let Changing {
            consume,
            rank,
            is_live,
        } = changing;
        let fixed = match self.fixed {
            FROZEN if !is_live => "rounding = \"feedback\"\n",
            fixed => fixed,
        };
        let of_world = self.world.options;
        let more = format!(
            "{of_world}{fixed}consume = \"{consume}\"\nrank = {rank}\nkeep-generations = 3"
        );
        let seed = self.draw.bits();
        if !is_live {
            return OneRun::to_the_end(seed, &more);
        }
        let draw = &mut self.draw;
        let count = draw.below(4);
        let pause = || Duration::from_millis(100 + draw.below(5000) as u64);
        OneRun::live(
            seed,
            &more,
            core::iter::repeat_with(pause).take(count).collect(),
        )
    }

    /// Runs on the disk, with this trouble; says how it ended, and whether it was cut off.
    fn run_on(&mut self, changing: &Changing, trouble: Trouble) -> Ran {
        let run = self.planned(changing);
        let image = core::mem::take(&mut self.image);
        let disk = Disk::mount(&self.name(), image, trouble);
        self.tally.runs += 1;
        let mut draw = Draw::new(self.draw.bits());
        let began_on = self.model.lying();
        let model = &mut self.model;
        let ended = run.on(&disk, |image| model.act(image, &mut draw));
        self.image = disk.image();
        self.model.see(&self.image);
        self.trace.update(disk.trace().as_bytes());
        let said = match &ended.ended {
            Some(Ok(exit)) => format!("{exit:?}"),
            Some(Err(fatal)) => fatal.to_string(),
            None => "a panic".into(),
        };
        let (calls, deeds) = (disk.calls(), ended.deeds.join(", "));
        let _ = writeln!(
            self.told,
            "  {changing:?}, {trouble:?}: {said} after {calls} calls [{deeds}]"
        );
        let _ = write!(self.log, "    {changing:?}\n{}", ended.log);
        if matches!(&ended.ended, None | Some(Err(Fatal::Panicked { .. }))) {
            self.wrong.push("it panics".into());
        }
        let is_past = is_past(trouble, &disk, &ended);
        if is_past && changing.is_live && matches!(&ended.ended, Some(Err(Fatal::Io { .. }))) {
            self.wrong.push("a live run does not wait for room".into());
        }
        if ended.is_stuck {
            self.wrong.push("its threads wait for each other".into());
        }
        let is_done = !disk.is_cut() && matches!(ended.ended, Some(Ok(Exit::Done)));
        if is_done && (is_past || !changing.is_live) {
            self.model.ended_well(&began_on);
        }
        Ran {
            ended: ended.ended,
            began_on,
            is_cut: disk.is_cut(),
            disk,
        }
    }

    fn run_in_trouble(&mut self) {
        let changing = self.changing();
        let trouble = self.trouble(changing.is_live);
        let Ran { is_cut, .. } = self.run_on(&changing, trouble);
        self.tally.kills += u64::from(is_cut);
        self.tally.faults += u64::from(matches!(trouble, Trouble::Fail { .. }));
        // Also one that had ended before: what it said that it did is done.
        let cut = *self.draw.of(&[Cut::Kill, Cut::Power]);
        let _ = writeln!(self.told, "  {cut:?}");
        let image = core::mem::take(&mut self.image);
        self.image = image.after(cut, &mut self.draw);
        // What was consumed may be back.
        self.model.see(&self.image);
        let disk = Disk::mount(&self.name(), self.image.clone(), Trouble::None);
        self.check_published(&disk);
    }

    /// Checks what a reader that follows `current` finds at any time.
    fn check_published(&mut self, disk: &Disk) {
        let current = disk.root().join("out/current");
        let Some(target) = crate::disk::presence::target_of(&current).unwrap() else {
            return;
        };
        let number = target
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        match number.map(|number| damaged_files(&current, number)) {
            Some(Ok(damaged)) if damaged.is_empty() => {}
            found => self.wrong.push(format!("current is {target:?}: {found:?}")),
        }
    }

    fn end(&mut self) {
        let changing = Changing {
            is_live: false,
            ..self.changing()
        };
        let Ran {
            ended,
            disk,
            began_on,
            ..
        } = self.run_on(&changing, Trouble::None);
        match ended {
            Some(Ok(Exit::Done | Exit::Quarantined)) => {
                // Whole shards beside one that is refused count all the same.
                self.model.ended_well(&began_on);
                self.check_published(&disk);
                self.check_counted(changing.rank);
            }
            // There was never a shard.
            Some(Err(Fatal::NothingUsable { .. })) if self.model.must.is_empty() => {}
            other => self.wrong.push(format!("the last run ends with {other:?}")),
        }
    }

    fn check_counted(&mut self, rank: usize) {
        let journal = self.image.get("out/state/journal").unwrap();
        let briefs = self.image.get("out/state/shards");
        let briefs = briefs.map_or_else(Vec::new, |bytes| briefs::parse(&bytes).unwrap());
        let records = Lines::parse(&journal, briefs.len() as u64).records;
        let briefs = briefs.iter().filter(|of| of.counts());
        let contents = briefs.map(Brief::content_hex);
        let contents = contents.chain(records.into_iter().map(|of| of.content));
        let order: Option<Vec<_>> = contents.map(|of| self.world.shard_of(&of)).collect();
        let Some(order) = order else {
            self.wrong.push("the journal names what never came".into());
            return;
        };
        let counted: BTreeSet<_> = order.iter().copied().collect();
        self.tally.double += (order.len() - counted.len()) as u64;
        self.tally.lost += self.model.must.difference(&counted).count() as u64;
        if !self.model.must.is_subset(&counted) || !counted.is_subset(&self.model.may) {
            let must = &self.model.must;
            self.wrong
                .push(format!("{counted:?} count, {must:?} have to"));
        }
        self.check_rows(order.len());
        if order.len() != counted.len() {
            self.wrong.push(format!("counted twice: {order:?}"));
            return;
        }
        let asked = Asked {
            world: self.world.name,
            shards: order.clone(),
            rank,
        };
        let expected = undisturbed(self.world, &asked);
        let Some(left) = Left::of(&self.image) else {
            self.wrong.push("there is no generation".into());
            return;
        };
        if left.statistics != expected.statistics {
            self.wrong.push(format!(
                "other statistics than an undisturbed run's on {order:?}"
            ));
        }
        if self.fixed != FROZEN && left.adapter != expected.adapter {
            self.wrong.push(format!(
                "another adapter than an undisturbed run's on {order:?}"
            ));
        }
    }

    /// The manifest says the rows of so many shards for each layer.
    fn check_rows(&mut self, shards: usize) {
        let manifest = self.image.get("out/current/qera_manifest.json");
        let manifest: Value =
            serde_json::from_slice(&manifest.unwrap_or_default()).unwrap_or_default();
        let expected = (self.world.rows * shards) as u64;
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        if layers.len() != self.world.layers || manifest["inputs"]["shards"] != shards {
            self.wrong
                .push(format!("the manifest is not of {shards} shards"));
        }
        for layer in layers {
            let rows = layer["rows"].as_u64().unwrap_or_default();
            self.tally.lost += u64::from(rows < expected);
            self.tally.double += u64::from(rows > expected);
            if rows != expected {
                self.wrong
                    .push(format!("{rows} rows, not {expected}: {layer}"));
            }
        }
    }
}

/// Whether a live run that had begun had time to get over its trouble before it was told to end.
fn is_past(trouble: Trouble, disk: &Disk, ended: &Ended) -> bool {
    match trouble {
        Trouble::None => true,
        Trouble::Full { at, lasts } => {
            let times = disk.full_since().zip(ended.told);
            at > STARTED && times.is_none_or(|(since, told)| since + lasts < told)
        }
        // A run that fails at its start ends, and has promised nothing.
        Trouble::Fail { .. } | Trouble::Cut { .. } | Trouble::CutAtSync { .. } => false,
    }
}

/// The result of a run; `None` for a panic.
type Ending = Option<Result<Exit, Fatal>>;

/// A run that ended.
struct Ran {
    ended: Ending,
    is_cut: bool,
    disk: Arc<Disk>,
    /// What the folder held when it began.
    began_on: BTreeMap<String, Option<usize>>,
}
