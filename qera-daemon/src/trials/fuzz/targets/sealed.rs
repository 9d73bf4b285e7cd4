//! Files of sealed lines: the journal, the index of a snapshot, the sites.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::sketches::sketched_sites;
use super::{changed, dressed};
use crate::state::SitesRecord;
use crate::state::briefs::{self, Brief};
use crate::state::journal::{Lines, Record};
use crate::state::seal::seal;
use crate::state::snapshot::Index;
use crate::trials::draw::Draw;
use crate::trials::fuzz::Target;
use crate::trials::fuzz::mutation::{mutate_bytes, mutate_lines, times};
use crate::trials::fuzz::seeds::SEEDS;

pub(super) const JOURNAL: Target = Target {
    name: "journal",
    make: make_journal,
    read: read_journal,
};
pub(super) const BRIEFS: Target = Target {
    name: "briefs",
    make: make_briefs,
    read: |bytes| {
        let read = briefs::parse(bytes);
        if let Ok(briefs) = &read {
            assert_eq!(briefs::to_bytes(briefs), bytes);
        }
        read.is_ok()
    },
};
pub(super) const INDEX: Target = Target {
    name: "index",
    make: |draw| dressed(&SEEDS.index, draw, sealed),
    read: |bytes| {
        let read = Index::parse(bytes).ok();
        let again = |bytes: &[u8]| Index::parse(bytes).ok();
        read.is_some_and(|index| reads_back(&index, again))
    },
};
pub(super) const SITES: Target = Target {
    name: "sites",
    make: |draw| {
        let sites = match draw.once_in(2) {
            true => sketched_sites(),
            false => SEEDS.sites.clone(),
        };
        dressed(&sites, draw, sealed)
    },
    read: |bytes| {
        let read = SitesRecord::parse(bytes).ok();
        let again = |bytes: &[u8]| SitesRecord::parse(bytes).ok();
        read.is_some_and(|sites| reads_back(&sites, again))
    },
};

fn sealed(value: &Value) -> Vec<u8> {
    seal(value).into_bytes()
}

/// What was accepted is written, and what is read then is written the same.
fn reads_back<T: Serialize>(value: &T, parse: impl Fn(&[u8]) -> Option<T>) -> bool {
    let written = seal(value);
    let again = parse(written.as_bytes()).unwrap();
    assert_eq!(seal(&again), written);
    true
}

fn make_journal(draw: &mut Draw) -> Vec<u8> {
    let mut lines: Vec<Value> = Vec::new();
    for number in 1..=draw.below(6) {
        let mut line = SEEDS.journal[number % SEEDS.journal.len()].clone();
        line["shard"]["number"] = number.into();
        if draw.once_in(6) {
            line = serde_json::json!({ "lost": draw.below(number + 2) });
        }
        lines.push(line);
    }
    if draw.once_in(2) && !lines.is_empty() {
        let one = draw.below(lines.len());
        lines[one] = changed(&lines[one], draw);
    }
    if draw.once_in(4) {
        mutate_lines(&mut lines, draw);
    }
    let text: String = lines.iter().map(|line| seal(line) + "\n").collect();
    let mut bytes = text.into_bytes();
    if draw.once_in(4) {
        let other = bytes.clone();
        for _ in 0..times(draw) {
            mutate_bytes(&mut bytes, &other, draw);
        }
    }
    bytes
}

/// The shards that count by another reading of the lines, up to one that is damaged.
fn counted(bytes: &[u8]) -> Vec<Record> {
    let mut shards: Vec<Record> = Vec::new();
    let mut last = 0;
    let mut lost = BTreeSet::new();
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let (_, whole) = lines.split_last().unwrap();
    for line in whole {
        let read = read_line(line).and_then(|value| {
            let [(kind, value)] = &value.as_object()?.iter().collect::<Vec<_>>()[..] else {
                return None;
            };
            match kind.as_str() {
                "lost" => {
                    let number = value.as_u64()?;
                    // The line of the shard itself was taken out.
                    last += u64::from(number == last + 1);
                    lost.insert(number);
                    Some(())
                }
                "shard" => {
                    let record: Record = serde_json::from_value((*value).clone()).ok()?;
                    let counts = |of: &&Record| !lost.contains(&of.number);
                    let mut before = shards.iter().filter(counts);
                    let is_new = before.all(|of| of.content != record.content);
                    let follows = record.number == last + 1 && is_new;
                    follows.then(|| {
                        last = record.number;
                        shards.push(record);
                    })
                }
                _ => None,
            }
        });
        if read.is_none() {
            break;
        }
    }
    shards.retain(|record| !lost.contains(&record.number));
    shards
}

fn read_line(line: &[u8]) -> Option<Value> {
    let tab = line.iter().rposition(|byte| *byte == b'\t')?;
    let (json, checksum) = (&line[..tab], &line[tab + 1..]);
    let expected = blake3::hash(json).to_hex();
    let is_whole = expected.as_bytes()[..16] == *checksum;
    is_whole.then(|| serde_json::from_slice(json).ok())?
}

fn make_briefs(draw: &mut Draw) -> Vec<u8> {
    let shards = (0..draw.below(4)).map(|_| {
        let number = draw.bits().to_le_bytes();
        let content = blake3::hash(&number).to_hex();
        let full_precision = *draw.of(&[None, Some(false), Some(true)]);
        let brief = Brief::of(&content, draw.bits(), draw.below(9), full_precision);
        if draw.once_in(4) {
            Brief::LOST
        } else {
            brief.unwrap()
        }
    });
    let mut bytes = briefs::to_bytes(&shards.collect::<Vec<_>>());
    let other = bytes.clone();
    for _ in 0..draw.below(3) {
        mutate_bytes(&mut bytes, &other, draw);
    }
    if !draw.once_in(4)
        && let Some((whole, seal)) = bytes.split_last_chunk_mut::<32>()
    {
        *seal = *blake3::hash(whole).as_bytes();
    }
    bytes
}

fn read_journal(bytes: &[u8]) -> bool {
    let lines = Lines::parse(bytes, 0);
    assert_eq!(lines.records, counted(bytes));
    assert!(lines.whole <= bytes.len());
    assert!(
        lines
            .records
            .iter()
            .all(|record| record.number <= lines.last)
    );
    // What follows the first line that is not whole is dropped, and nothing else.
    let whole = Lines::parse(&bytes[..lines.whole], 0);
    assert_eq!(whole, lines);
    lines.whole == bytes.len()
}
