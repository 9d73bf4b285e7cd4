//! What is done to a sound file: to its bytes, to its lines, to its JSON.

use serde_json::{Map, Number, Value, json};

use crate::trials::draw::Draw;

/// Numbers that lengths, counts and offsets are replaced by.
const EXTREMES: [u64; 16] = [
    0,
    1,
    2,
    7,
    31,
    1 << 16,
    (1 << 18) + 1,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 53,
    i64::MAX as u64,
    1 << 62,
    u64::MAX - 31,
    u64::MAX,
];
/// Numbers that are no counts.
const ODD_NUMBERS: [f64; 8] = [-1.0, -0.0, 0.5, 1e-320, 1e308, -1e308, 3.5e38, -9.3e18];
/// Texts that stand in the place of others.
const ODD_TEXTS: [&str; 14] = [
    "",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "\u{0}",
    "\u{1b}[31m",
    "\u{feff}é",
    "F64",
    "U8",
    "nan",
    "1e999",
    "{}",
    "*",
];

/// How many changes are made: mostly one or two, sometimes none.
pub(crate) fn times(draw: &mut Draw) -> usize {
    [0, 1, 1, 1, 2, 2, 3, 6][draw.below(8)]
}

/// Changes bytes; pieces of `other` are put into them.
pub(crate) fn mutate_bytes(bytes: &mut Vec<u8>, other: &[u8], draw: &mut Draw) {
    let at = draw.below(bytes.len());
    let end = at + draw.below((bytes.len() - at).min(64));
    match draw.below(8) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << draw.below(8);
            }
        }
        2 | 3 => {
            let width = [1, 4, 8][draw.below(3)];
            let extreme = draw.of(&EXTREMES).to_le_bytes();
            if let Some(number) = bytes.get_mut(at..at + width) {
                number.copy_from_slice(&extreme[..width]);
            }
        }
        4 => bytes.truncate(at),
        5 => {
            bytes.drain(at..end);
        }
        6 => {
            let again = bytes[at..end].to_vec();
            let to = draw.below(bytes.len());
            bytes.splice(to..to, again);
        }
        _ => {
            let from = draw.below(other.len());
            let piece = &other[from..from + draw.below((other.len() - from).min(64))];
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}

/// Changes the order or number of lines.
pub(crate) fn mutate_lines<T: Clone>(lines: &mut Vec<T>, draw: &mut Draw) {
    if lines.is_empty() {
        return;
    }
    let (one, other) = (draw.below(lines.len()), draw.below(lines.len()));
    match draw.below(4) {
        0 => lines.swap(one, other),
        1 => drop(lines.remove(one)),
        2 => lines.insert(one, lines[other].clone()),
        _ => lines.truncate(one),
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// The value at a place of the tree, counted from the root.
fn at<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| at(item, place)),
        Value::Object(map) => map.values_mut().find_map(|item| at(item, place)),
        _ => None,
    }
}

/// Changes a value somewhere in a tree of values.
pub(crate) fn mutate_json(root: &mut Value, draw: &mut Draw) {
    let size = size(root);
    // Not the root: what is no object at all is told at once.
    let mut place = draw.below(size - 1) + usize::from(size > 1);
    let elsewhere = draw.below(size);
    let other = draw
        .once_in(8)
        .then(|| at(root, &mut elsewhere.clone()).cloned());
    let Some(value) = at(root, &mut place) else {
        return;
    };
    if let Some(Some(other)) = other {
        *value = other;
        return;
    }
    match value {
        Value::Array(items) => mutate_lines(items, draw),
        Value::Object(map) => mutate_map(map, draw),
        Value::Number(number) => *number = mutated_number(number, draw),
        Value::String(text) => mutate_text(text, draw),
        Value::Bool(_) | Value::Null => *value = any_value(draw),
    }
    if draw.once_in(16)
        && let Some(value) = at(root, &mut place.clone())
    {
        *value = any_value(draw);
    }
}

fn any_value(draw: &mut Draw) -> Value {
    match draw.below(7) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(*draw.of(&EXTREMES)),
        3 => json!(*draw.of(&ODD_NUMBERS)),
        4 => json!(*draw.of(&ODD_TEXTS)),
        5 => json!([]),
        _ => json!({}),
    }
}

fn mutated_number(number: &Number, draw: &mut Draw) -> Number {
    let near = number.as_u64().map(|of| match draw.below(4) {
        0 => of.wrapping_add(1),
        1 => of.wrapping_sub(1),
        2 => of.wrapping_mul(2),
        _ => of / 2,
    });
    match (draw.below(4), near) {
        (0 | 1, Some(near)) => near.into(),
        (3, _) => Number::from_f64(*draw.of(&ODD_NUMBERS)).unwrap(),
        _ => (*draw.of(&EXTREMES)).into(),
    }
}

fn mutate_text(text: &mut String, draw: &mut Draw) {
    if draw.once_in(3) {
        *text = (*draw.of(&ODD_TEXTS)).to_owned();
        return;
    }
    let mut chars: Vec<char> = text.chars().collect();
    mutate_lines(&mut chars, draw);
    if draw.once_in(4) {
        chars.push(*draw.of(&['\n', '\u{0}', '"', '.', '9', 'é', '/']));
    }
    *text = chars.into_iter().collect();
}

fn mutate_map(map: &mut Map<String, Value>, draw: &mut Draw) {
    let keys: Vec<_> = map.keys().cloned().collect();
    if keys.is_empty() {
        map.insert((*draw.of(&ODD_TEXTS)).to_owned(), any_value(draw));
        return;
    }
    let key = draw.of(&keys).clone();
    match draw.below(4) {
        0 => drop(map.remove(&key)),
        1 => {
            let value = map[&key].clone();
            let mut renamed = key;
            mutate_text(&mut renamed, draw);
            map.insert(renamed, value);
        }
        2 => {
            let value = map[draw.of(&keys)].clone();
            map.insert(key, value);
        }
        _ => {
            map.insert(key, any_value(draw));
        }
    }
}
