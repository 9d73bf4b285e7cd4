//! Circles in a graph, each as the way round it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who uses whom.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// A shortest circle through every node that stands on one and not on one before; the first node is
/// not repeated.
pub(crate) fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for node in graph.keys() {
        if !found.iter().any(|circle| circle.contains(node))
            && let Some(circle) = circle_through(graph, node)
        {
            found.push(circle);
        }
    }
    found
}

fn circle_through(graph: &Graph, start: &String) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&String, &String> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(node) = waiting.pop_front() {
        for next in graph.get(node).into_iter().flatten() {
            if next == start {
                let mut circle = vec![node.clone()];
                while let Some(before) = came_from.get(circle.last().unwrap()) {
                    circle.push((*before).clone());
                }
                circle.reverse();
                return Some(circle);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, node);
                waiting.push_back(next);
            }
        }
    }
    None
}

#[test]
fn a_circle_is_found_and_a_diamond_is_none() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            let targets = graph.entry((*from).to_owned()).or_default();
            targets.insert((*to).to_owned());
        }
        graph
    };
    let diamond = graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]);
    assert!(circles(&diamond).is_empty());
    let two = graph(&[
        ("a", "b"),
        ("b", "c"),
        ("c", "b"),
        ("c", "d"),
        ("d", "e"),
        ("e", "d"),
    ]);
    assert_eq!(circles(&two), [["b", "c"], ["d", "e"]]);
    assert_eq!(circles(&graph(&[("a", "a")])), [["a"]]);
}
