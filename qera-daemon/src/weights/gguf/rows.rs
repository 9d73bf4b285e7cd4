//! Maps the rows of a Hugging Face weight to the rows of a GGUF's tensor. Rows are those of the
//! form [out_features, in_features]: one for each column of W.
//!
//! Converters move the rows of two kinds of weights. llama.cpp rotates neighbours (x0, x1), and
//! Transformers rotates the halves of a head (x0, x_d/2); for that, the rows of each head of q and
//! k are interleaved. A fused projection with a head's q, k and v beside each other is sorted into
//! all of q, all of k, all of v. All other rows stay where they are.

use serde::{Deserialize, Serialize};

use crate::formats::model_config::ModelConfig;

/// The rule by which the family's converter orders a layer's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowRule {
    /// Rows are in the order of the Hugging Face weight.
    AsTheyLie,
    /// Within each head, the rows of the second half go between those of the first.
    RopePairs(Heads),
    /// The groups of a fused projection (some heads of q, one of k, one of v) are separated into
    /// all of q, all of k, all of v.
    FusedByGroups,
}

/// Which number of heads a projection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heads {
    /// The number of heads of q.
    Query,
    /// The number of heads of k and v.
    Key,
}

/// The numbers of heads in each block of a GGUF's model, from its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadCounts {
    query: HeadCount,
    key: HeadCount,
}

/// A number of heads: one for all blocks, or one for each block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeadCount {
    /// Where the number is stated: in the metadata, or in config.json.
    place: &'static str,
    /// The key there.
    key: String,
    /// The numbers; empty where they are not stated.
    counts: Vec<u64>,
}

/// The order of a Hugging Face weight's rows in the GGUF's tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RowOrder {
    /// Rows keep their order.
    #[default]
    AsTheyLie,
    /// Within heads of this size, the second half goes between the first.
    RopePairs {
        /// Rows of a head.
        head: usize,
    },
    /// Groups of q, k and v, separated.
    FusedByGroups {
        /// Rows of a head.
        head: usize,
        /// Heads of q in a group.
        queries: usize,
        /// Groups, and so heads of k.
        groups: usize,
    },
}

/// Why a tensor's row order is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    /// The number of heads is not stated.
    #[error(
        "the order of its rows depends on the number of heads, and {place} has no '{key}' \
         that is a number or an array of numbers"
    )]
    NoHeadCount {
        /// Where it should be: the metadata, or config.json.
        place: &'static str,
        /// The key that is missing.
        key: String,
    },
    /// An array in the metadata has no element for the block.
    #[error(
        "the order of its rows depends on the number of heads, and the metadata's '{key}' has \
         {given} elements, none for block {block}"
    )]
    NoSuchBlock {
        /// The metadata's key.
        key: String,
        /// The tensor's block.
        block: usize,
        /// The array's length.
        given: usize,
    },
    /// The number of heads of q is no multiple of that of k.
    #[error(
        "'{query_key}' is {query} and '{key_key}' is {key} for block {block}: heads of q do not \
         come in groups, so the order of its rows is not known"
    )]
    Groups {
        /// The metadata's key of heads of q.
        query_key: String,
        /// Heads of q.
        query: u64,
        /// The metadata's key of heads of k.
        key_key: String,
        /// Heads of k.
        key: u64,
        /// The tensor's block.
        block: usize,
    },
    /// The tensor's rows cannot be divided equally among the heads.
    #[error(
        "its {rows} rows are not {heads} heads of equal, even length, as '{key}' says for block \
         {block}: the order of its rows is not known"
    )]
    Rows {
        /// The number of the tensor's rows.
        rows: usize,
        /// The number of heads.
        heads: u64,
        /// The metadata's key.
        key: String,
        /// The tensor's block.
        block: usize,
    },
}

impl HeadCounts {
    /// The numbers of heads from the metadata of a GGUF of this architecture. `read` gives the
    /// number of a key, or the elements of its array. Nothing is refused here, because most layers
    /// do not need the numbers.
    pub(crate) fn of(architecture: &str, mut read: impl FnMut(&str) -> Option<Vec<u64>>) -> Self {
        let mut count = |name: &str| {
            let key = format!("{architecture}.attention.{name}");
            let counts = read(&key).unwrap_or_default();
            let place = "the metadata";
            HeadCount { place, key, counts }
        };
        let (query, key) = (count("head_count"), count("head_count_kv"));
        // Where the key is absent, every head of q has its own k.
        let key = if key.counts.is_empty() {
            query.clone()
        } else {
            key
        };
        Self { query, key }
    }

    /// The numbers of heads from the configuration of a Hugging Face model, as converters take
    /// them. Where the file says nothing, the class's default is known only for kinds in which each
    /// head of q has its own k.
    #[must_use]
    pub(crate) fn of_config(config: &ModelConfig, model_type: &str) -> Self {
        let number = |keys: &[&str]| config.number(model_type, keys);
        let query = number(&["num_attention_heads", "n_head", "n_heads"]);
        let said = number(&["num_key_value_heads", "num_kv_heads", "n_head_kv"]);
        let key = match model_type {
            "mistral" | "mixtral" => said,
            "falcon" => {
                let flag = |key| config.flag(model_type, key);
                let shares = flag("multi_query").unwrap_or(true)
                    && !flag("new_decoder_architecture").unwrap_or(false);
                if shares { Some(1) } else { said.or(query) }
            }
            _ => said.or(query),
        };
        let count = |key: &str, count: Option<u64>| HeadCount {
            place: "config.json",
            key: key.to_owned(),
            counts: count.into_iter().collect(),
        };
        Self {
            query: count("num_attention_heads", query),
            key: count("num_key_value_heads", key),
        }
    }

    /// The numbers in words, for a fingerprint.
    #[must_use]
    pub(crate) fn described(&self) -> String {
        format!("{:?} {:?}", self.query.counts, self.key.counts)
    }
}

impl HeadCount {
    fn at(&self, block: usize) -> Result<u64, RowError> {
        match self.counts[..] {
            [] => Err(RowError::NoHeadCount {
                place: self.place,
                key: self.key.clone(),
            }),
            [same] => Ok(same),
            ref each => each
                .get(block)
                .copied()
                .ok_or_else(|| RowError::NoSuchBlock {
                    key: self.key.clone(),
                    block,
                    given: each.len(),
                }),
        }
    }

    /// How many rows each of `heads` heads has, when they share `rows` rows.
    fn rows_of_head(&self, rows: usize, heads: u64, block: usize) -> Result<usize, RowError> {
        let refused = || RowError::Rows {
            rows,
            heads,
            key: self.key.clone(),
            block,
        };
        let count = usize::try_from(heads).map_err(|_| refused())?;
        match rows.checked_rem(count) {
            Some(0) if rows > 0 => Ok(rows / count),
            _ => Err(refused()),
        }
    }
}

impl RowOrder {
    /// The order of a tensor with this many rows in a block.
    ///
    /// # Errors
    /// [`RowError`] where the numbers of heads are not stated, or do not fit the rows.
    pub(crate) fn new(
        rule: RowRule,
        heads: &HeadCounts,
        block: usize,
        rows: usize,
    ) -> Result<Self, RowError> {
        match rule {
            RowRule::AsTheyLie => Ok(Self::AsTheyLie),
            RowRule::RopePairs(of) => {
                let count = match of {
                    Heads::Query => &heads.query,
                    Heads::Key => &heads.key,
                };
                let number = count.at(block)?;
                let head = count.rows_of_head(rows, number, block)?;
                if head % 2 != 0 {
                    return Err(RowError::Rows {
                        rows,
                        heads: number,
                        key: count.key.clone(),
                        block,
                    });
                }
                Ok(Self::RopePairs { head })
            }
            RowRule::FusedByGroups => Self::fused(heads, block, rows),
        }
    }

    fn fused(heads: &HeadCounts, block: usize, rows: usize) -> Result<Self, RowError> {
        let (query, key) = (heads.query.at(block)?, heads.key.at(block)?);
        let groups = || RowError::Groups {
            query_key: heads.query.key.clone(),
            query,
            key_key: heads.key.key.clone(),
            key,
            block,
        };
        if query.checked_rem(key) != Some(0) {
            return Err(groups());
        }
        let all = key
            .checked_mul(2)
            .and_then(|both| both.checked_add(query))
            .ok_or_else(groups)?;
        let head = heads.query.rows_of_head(rows, all, block)?;
        let count = |of: u64| usize::try_from(of).map_err(|_| groups());
        Ok(Self::FusedByGroups {
            head,
            queries: count(query / key)?,
            groups: count(key)?,
        })
    }

    /// The Hugging Face weight's rows, `rows` in all, in the order of the GGUF.
    #[must_use]
    pub(crate) fn as_stored(self, rows: usize) -> Vec<usize> {
        let mut found = vec![0; rows];
        for row in 0..rows {
            found[self.stored(row)] = row;
        }
        found
    }

    /// Whether this order is possible for this many rows; a file can name one that is not.
    #[must_use]
    pub(crate) fn is_of(self, rows: usize) -> bool {
        let whole = |piece: Option<usize>| {
            let rest = piece.and_then(|piece| rows.checked_rem(piece));
            rest == Some(0)
        };
        match self {
            Self::AsTheyLie => true,
            Self::RopePairs { head } => head % 2 == 0 && whole(Some(head)),
            Self::FusedByGroups {
                head,
                queries,
                groups,
            } => {
                let of_group = queries.checked_add(2).and_then(|of| of.checked_mul(head));
                of_group.and_then(|of| of.checked_mul(groups)) == Some(rows) && whole(of_group)
            }
        }
    }

    /// Whether all rows stay where they are.
    #[must_use]
    pub(crate) fn moves_nothing(&self) -> bool {
        *self == Self::AsTheyLie
    }

    /// The row of the GGUF's tensor that holds this row of the Hugging Face weight.
    #[must_use]
    pub(crate) const fn stored(self, row: usize) -> usize {
        match self {
            Self::AsTheyLie => row,
            Self::RopePairs { head } => {
                let (first, within, half) = (row / head * head, row % head, head / 2);
                first + 2 * (within % half) + within / half
            }
            Self::FusedByGroups {
                head,
                queries,
                groups,
            } => {
                let (group, within) = (
                    row / ((queries + 2) * head),
                    row % ((queries + 2) * head) / head,
                );
                let place = if within < queries {
                    group * queries + within
                } else {
                    queries * groups + (within - queries) * groups + group
                };
                place * head + row % head
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(query: &[u64], key: &[u64]) -> HeadCounts {
        HeadCounts::of("llama", |name| match name {
            "llama.attention.head_count" => Some(query.to_vec()),
            "llama.attention.head_count_kv" if !key.is_empty() => Some(key.to_vec()),
            _ => None,
        })
    }

    /// Hugging Face's rows in the order of the GGUF's.
    fn hugging_face_rows(order: RowOrder, rows: usize) -> Vec<usize> {
        let mut found = vec![usize::MAX; rows];
        for row in 0..rows {
            let stored = order.stored(row);
            assert_eq!(found[stored], usize::MAX, "two rows at {stored}: {order:?}");
            found[stored] = row;
        }
        assert_eq!(order.as_stored(rows), found);
        found
    }

    #[test]
    fn halves_of_a_head_are_interleaved() {
        let heads = counts(&[2], &[1]);
        let query = RowRule::RopePairs(Heads::Query);
        let order = RowOrder::new(query, &heads, 0, 8).unwrap();
        assert_eq!(hugging_face_rows(order, 8), [0, 2, 1, 3, 4, 6, 5, 7]);
        let key = RowRule::RopePairs(Heads::Key);
        let order = RowOrder::new(key, &heads, 0, 6).unwrap();
        assert_eq!(hugging_face_rows(order, 6), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn groups_are_taken_apart() {
        let order = |query, key, rows| {
            let heads = counts(&[query], &[key]);
            RowOrder::new(RowRule::FusedByGroups, &heads, 0, rows).unwrap()
        };
        // Two groups of q q k v, with heads of one row.
        let rows = hugging_face_rows(order(4, 2, 8), 8);
        assert_eq!(rows, [0, 1, 4, 5, 2, 6, 3, 7]);
        // Every head has its own k and v; heads have two rows.
        let rows = hugging_face_rows(order(2, 2, 12), 12);
        assert_eq!(rows, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        // There is one k and v for all heads, so that nothing moves.
        let rows = hugging_face_rows(order(3, 1, 10), 10);
        assert_eq!(rows, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn every_order_is_one_to_one() {
        for (query, key, head) in [(1, 1, 2), (4, 2, 6), (8, 8, 4), (9, 3, 64), (6, 1, 10)] {
            let heads = counts(&[query], &[key]);
            let rows = |count: u64| usize::try_from(count).unwrap() * head;
            for (rule, rows) in [
                (RowRule::AsTheyLie, 7),
                (RowRule::RopePairs(Heads::Query), rows(query)),
                (RowRule::RopePairs(Heads::Key), rows(key)),
                (RowRule::FusedByGroups, rows(query + 2 * key)),
            ] {
                let order = RowOrder::new(rule, &heads, 0, rows).unwrap();
                let back = hugging_face_rows(order, rows);
                assert!((0..rows).all(|row| back[order.stored(row)] == row));
            }
        }
    }

    #[test]
    fn an_array_has_a_number_for_each_block_and_no_key_heads_are_as_many() {
        let key = RowRule::RopePairs(Heads::Key);
        let heads = counts(&[8], &[4, 2]);
        let head = |block| RowOrder::new(key, &heads, block, 16);
        assert_eq!(head(0), Ok(RowOrder::RopePairs { head: 4 }));
        assert_eq!(head(1), Ok(RowOrder::RopePairs { head: 8 }));
        let said = head(2).unwrap_err().to_string();
        assert!(
            said.contains("'llama.attention.head_count_kv' has 2 elements"),
            "{said}"
        );
        assert!(said.contains("block 2"), "{said}");
        let same = RowOrder::new(key, &counts(&[4], &[]), 0, 16);
        assert_eq!(same, Ok(RowOrder::RopePairs { head: 4 }));
    }

    #[test]
    fn what_is_not_known_is_refused_by_the_name_of_its_key() {
        let query = RowRule::RopePairs(Heads::Query);
        let said = |rule, query: &[u64], key: &[u64], rows| {
            let order = RowOrder::new(rule, &counts(query, key), 3, rows);
            order.unwrap_err().to_string()
        };
        let absent = said(query, &[], &[], 8);
        assert!(
            absent.contains("no 'llama.attention.head_count' "),
            "{absent}"
        );
        assert!(said(RowRule::FusedByGroups, &[], &[2], 8).contains("head_count' "));
        for heads in [0, 3, 8, u64::MAX] {
            let text = said(query, &[heads], &[], 8);
            assert!(
                text.contains(&format!("8 rows are not {heads} heads")),
                "{text}"
            );
            assert!(text.contains("'llama.attention.head_count'"), "{text}");
            assert!(text.contains("block 3"), "{text}");
        }
        for key in [0, 3, u64::MAX] {
            let text = said(RowRule::FusedByGroups, &[4], &[key], 24);
            assert!(
                text.contains(&format!("head_count_kv' is {key} ")),
                "{text}"
            );
        }
        assert!(said(RowRule::FusedByGroups, &[u64::MAX], &[u64::MAX], 9).contains("groups"));
        assert!(said(RowRule::FusedByGroups, &[4], &[2], 9).contains("9 rows are not 8 heads"));
        assert!(said(query, &[1], &[], 0).contains("0 rows"));
        // An order from a manifest is checked against the rows that there are.
        let pairs = |head| RowOrder::RopePairs { head };
        let fused = |head, queries, groups| RowOrder::FusedByGroups {
            head,
            queries,
            groups,
        };
        for (order, rows, is) in [
            (pairs(4), 8, true),
            (pairs(3), 6, false),
            (pairs(4), 6, false),
            (pairs(0), 8, false),
            (fused(2, 1, 2), 12, true),
            (fused(2, 1, 2), 24, false),
            (fused(0, 1, 2), 0, false),
            (fused(2, usize::MAX, 2), 8, false),
            (fused(usize::MAX, 2, 2), 8, false),
            (RowOrder::AsTheyLie, 7, true),
        ] {
            assert_eq!(order.is_of(rows), is, "{order:?} {rows}");
        }
        // Where nothing moves, no number of heads is needed.
        let nothing = counts(&[], &[]);
        let order = RowOrder::new(RowRule::AsTheyLie, &nothing, 0, 7);
        assert_eq!(order, Ok(RowOrder::AsTheyLie));
    }

    #[test]
    fn a_configuration_says_the_heads_or_is_named() {
        let order = |text: &str, model_type: &str, rule, rows| {
            let config = ModelConfig::parse(text.as_bytes()).unwrap();
            let heads = HeadCounts::of_config(&config, model_type);
            RowOrder::new(rule, &heads, 0, rows)
        };
        let (query, key) = (
            RowRule::RopePairs(Heads::Query),
            RowRule::RopePairs(Heads::Key),
        );
        let llama = r#"{"model_type":"llama","num_attention_heads":4,"num_key_value_heads":2}"#;
        let pairs = |head| Ok(RowOrder::RopePairs { head });
        assert_eq!(order(llama, "llama", query, 16), pairs(4));
        assert_eq!(order(llama, "llama", key, 16), pairs(8));
        let whole = r#"{"model_type":"llava","num_attention_heads":2,
            "text_config":{"model_type":"mistral","num_attention_heads":4}}"#;
        assert_eq!(order(whole, "mistral", query, 16), pairs(4));
        // Mistral's class has another default for the number of heads of k, which converters do not
        // know either.
        let said = order(whole, "mistral", key, 16).unwrap_err().to_string();
        assert!(
            said.contains("config.json has no 'num_key_value_heads'"),
            "{said}"
        );
        let said = order("{}", "llama", query, 16).unwrap_err().to_string();
        assert!(
            said.contains("config.json has no 'num_attention_heads'"),
            "{said}"
        );
        let fused = |text: &str, rows| order(text, "falcon", RowRule::FusedByGroups, rows);
        let groups = |queries, groups| {
            Ok(RowOrder::FusedByGroups {
                head: 2,
                queries,
                groups,
            })
        };
        for (more, rows, expected) in [
            ("", 12, groups(4, 1)),
            (r#","num_kv_heads":2,"multi_query":true"#, 12, groups(4, 1)),
            (r#","multi_query":false"#, 24, groups(1, 4)),
            (
                r#","num_kv_heads":2,"new_decoder_architecture":true"#,
                16,
                groups(2, 2),
            ),
        ] {
            let text = format!(r#"{{"model_type":"falcon","num_attention_heads":4{more}}}"#);
            assert_eq!(fused(&text, rows), expected, "{text}");
        }
    }
}
