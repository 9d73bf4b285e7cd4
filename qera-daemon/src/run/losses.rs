//! What would be lost by going on from a damaged state: shards that it held and that cannot be
//! folded again. The user has to accept that.

use std::path::Path;

use crate::disk::identity::Identity;
use crate::disk::tried::is_failure;
use crate::error::Fatal;
use crate::source::consumed::places_of;
use crate::source::reading::content;
use crate::source::refusal::COUNTED;
use crate::source::shard::ShardHeader;
use crate::state::journal::{Journal, Record};
use crate::state::restore::{Restored, list_of};

/// Refuses to go on if shards that a damaged snapshot held would be lost, or if no snapshot has
/// some site whole. Nothing is changed.
///
/// # Errors
/// [`Fatal::StateRefused`] with what is damaged and what would be lost; [`Fatal::Io`] for a shard
/// that the disk does not give.
pub(crate) fn refuse_loss(
    state: &Path,
    restored: &Restored,
    journal: &Journal,
    watched: &Path,
) -> Result<(), Fatal> {
    if restored.damaged.is_empty() && restored.behind.is_empty() {
        return Ok(());
    }
    let from = restored.folds_again_from();
    let mut lost: Vec<&Record> = Vec::new();
    for record in journal.records().iter().filter(|r| r.number > from) {
        if !is_there(watched, record)? {
            lost.push(record);
        }
    }
    let nothing_whole = restored.begins_from_nothing();
    if lost.is_empty() && !nothing_whole {
        return Ok(());
    }
    let mut damaged: Vec<String> = restored
        .behind
        .iter()
        .map(|of| of.what.to_string())
        .collect();
    if !restored.damaged.is_empty() {
        damaged.insert(0, list_of(&restored.damaged));
    }
    let what = if nothing_whole {
        "no snapshot is whole"
    } else {
        "the newest snapshot is damaged"
    };
    Err(Fatal::StateRefused {
        path: state.to_path_buf(),
        reason: format!("{what} ({}): {}", damaged.join("; "), said(&lost, watched)),
    })
}

fn said(lost: &[&Record], watched: &Path) -> String {
    let Some(first) = lost.first() else {
        return "every shard is still there; --accept-loss folds them all again".into();
    };
    let rows: usize = lost.iter().map(|record| record.rows).sum();
    format!(
        "{} shards with {rows} rows would be lost, '{}' first: they are not in {} any more; put them \
         back, or say --accept-loss to go on without them",
        lost.len(),
        first.name,
        watched.display()
    )
}

/// Whether a shard can be read again: its file is there, or another with its content.
fn is_there(watched: &Path, record: &Record) -> Result<bool, Fatal> {
    for path in places_of(watched, &record.name) {
        match Identity::at(&path) {
            Ok(identity) if identity == record.file => return Ok(true),
            Ok(_) => {
                let header = ShardHeader::open(&path);
                let found = header.and_then(|header| content(&header));
                match found {
                    Ok(found) if found == record.content => return Ok(true),
                    Err(refusal) => refusal.if_failed(&path)?,
                    Ok(_) => {}
                }
            }
            Err(error) if is_failure(&error) => return Err(Fatal::io(&path, COUNTED)(error)),
            Err(_) => {}
        }
    }
    Ok(false)
}
