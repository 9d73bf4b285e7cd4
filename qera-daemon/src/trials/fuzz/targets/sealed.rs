//! Files of sealed lines: the journal, the index of a snapshot, the sites.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{changed, dressed};
use crate::state::SitesRecord;
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
    make: |draw| dressed(&SEEDS.sites, draw, sealed),
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

/// The shards that count by another reading of the lines, and the number of the last: none where a
/// line is damaged that is not the last one.
fn counted(bytes: &[u8]) -> Option<Vec<Record>> {
    let mut shards: Vec<Record> = Vec::new();
    let mut lost = BTreeSet::new();
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let (rest, whole) = lines.split_last().unwrap();
    for (index, line) in whole.iter().enumerate() {
        let is_last = index + 1 == whole.len() && rest.is_empty();
        let read = read_line(line).and_then(|value| {
            let [(kind, value)] = &value.as_object()?.iter().collect::<Vec<_>>()[..] else {
                return None;
            };
            match kind.as_str() {
                "lost" => {
                    lost.insert(value.as_u64()?);
                    Some(())
                }
                "shard" => {
                    let record: Record = serde_json::from_value((*value).clone()).ok()?;
                    let follows = record.number == shards.len() as u64 + 1;
                    follows.then(|| shards.push(record))
                }
                _ => None,
            }
        });
        if read.is_none() {
            if is_last {
                break;
            }
            return None;
        }
    }
    shards.retain(|record| !lost.contains(&record.number));
    Some(shards)
}

fn read_line(line: &[u8]) -> Option<Value> {
    let tab = line.iter().rposition(|byte| *byte == b'\t')?;
    let (json, checksum) = (&line[..tab], &line[tab + 1..]);
    let expected = blake3::hash(json).to_hex();
    let is_whole = expected.as_bytes()[..16] == *checksum;
    is_whole.then(|| serde_json::from_slice(json).ok())?
}

fn read_journal(bytes: &[u8]) -> bool {
    let Ok(lines) = Lines::parse(bytes) else {
        assert_eq!(counted(bytes), None);
        return false;
    };
    assert_eq!(Some(&lines.records), counted(bytes).as_ref());
    assert!(lines.whole <= bytes.len());
    assert!(
        lines
            .records
            .iter()
            .all(|record| record.number <= lines.last)
    );
    // What a crash cut off is dropped, and nothing else.
    let whole = Lines::parse(&bytes[..lines.whole]).unwrap();
    assert_eq!(whole, lines);
    true
}
