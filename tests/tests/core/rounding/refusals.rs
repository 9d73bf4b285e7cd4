//! What is refused before anything is written.

use qera_core::linalg::{Shape, ShapeMismatch, WorkspaceTooSmall};
use qera_core::quantize::round::{
    MetricOptions, RoundError, ScaleSearch, damped_metric, descent, feedback, nearest,
    projected_metric, projected_metric_workspace_len,
};
use qera_core::quantize::{Grid, GridError, Mxint};
use qera_tests::matrix::Matrix;

use super::NONE;

fn grid() -> Grid {
    Grid::Mxint(Mxint::new(3, 2).unwrap())
}

/// What both take: a matrix, a weight, room for values and levels, and a workspace.
struct Lent {
    matrix: Matrix,
    weight: Vec<f32>,
    values: usize,
    levels: usize,
    workspace: usize,
}

fn sound() -> Lent {
    Lent {
        matrix: Matrix::identity(3),
        weight: vec![1.0; 6],
        values: 6,
        levels: 4,
        workspace: 6,
    }
}

/// The refusals of feedback and descent, which are the same but for the operand's name.
fn refused(lent: &Lent) -> [RoundError; 2] {
    let (mut values, mut levels) = (vec![0.5; lent.values], vec![NONE; lent.levels]);
    let mut workspace = vec![0.0; lent.workspace];
    let matrix = lent.matrix.view();
    let by_descent = descent(
        matrix,
        &grid(),
        &lent.weight,
        &mut values,
        &levels,
        &mut workspace,
    );
    workspace.truncate(lent.workspace.saturating_sub(1)); // m + 2 is one less than 2 m.
    let by_feedback = feedback(
        matrix,
        &grid(),
        ScaleSearch::All,
        &lent.weight,
        &mut values,
        &mut levels,
        &mut workspace,
    );
    [by_feedback.unwrap_err(), by_descent.unwrap_err()]
}

#[test]
fn lengths_and_shapes() {
    let length = |needed, lent| RoundError::Grid(GridError::OutputLength { needed, lent });
    let cases = [
        (
            Lent {
                values: 5,
                ..sound()
            },
            length(6, 5),
        ),
        (
            Lent {
                levels: 3,
                ..sound()
            },
            length(4, 3),
        ),
        (
            Lent {
                weight: vec![1.0; 7],
                ..sound()
            },
            RoundError::Grid(GridError::Length {
                values: 7,
                in_features: 3,
            }),
        ),
        (
            Lent {
                matrix: Matrix::zeros(0, 0),
                ..sound()
            },
            RoundError::Grid(GridError::Length {
                values: 6,
                in_features: 0,
            }),
        ),
    ];
    for (lent, expected) in cases {
        assert_eq!(refused(&lent), [expected; 2]);
    }
    let shape = |rows, columns| Shape { rows, columns };
    let mismatch = |operand| {
        RoundError::Shape(ShapeMismatch {
            operand,
            expected: shape(3, 3),
            got: shape(3, 2),
        })
    };
    let lent = Lent {
        matrix: Matrix::zeros(3, 2),
        ..sound()
    };
    assert_eq!(refused(&lent), [mismatch("factor"), mismatch("metric")]);
    let short = |needed, lent| RoundError::Workspace(WorkspaceTooSmall { needed, lent });
    let lent = Lent {
        workspace: 5,
        ..sound()
    };
    assert_eq!(refused(&lent), [short(5, 4), short(6, 5)]);
}

#[test]
fn numbers() {
    for bad in [f64::NAN, f64::INFINITY] {
        for (place, index) in [((2, 1), 5), ((1, 1), 4)] {
            let mut lent = sound();
            lent.matrix[place] = bad;
            let named = |operand| RoundError::NonFinite { operand, index };
            assert_eq!(refused(&lent), [named("factor"), named("metric")]);
        }
    }
    for bad in [0.0, -2.0] {
        let mut lent = sound();
        lent.matrix[(1, 1)] = bad;
        assert_eq!(
            refused(&lent),
            [RoundError::Diagonal {
                index: 1,
                value: bad
            }; 2]
        );
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let mut lent = sound();
        lent.weight[4] = bad;
        let named = GridError::NonFinite {
            index: 4,
            row: 1,
            column: 1,
        };
        assert_eq!(refused(&lent), [RoundError::Grid(named); 2]);
    }
    // A value that is none is descent's alone: feedback writes it.
    let (weight, mut values) = ([1.0; 3], [0.5, f32::NAN, 0.5]);
    let found = descent(
        Matrix::identity(3).view(),
        &grid(),
        &weight,
        &mut values,
        &[NONE; 2],
        &mut [0.0; 6],
    );
    let named = GridError::NonFinite {
        index: 1,
        row: 0,
        column: 1,
    };
    assert_eq!(found, Err(RoundError::Grid(named)));
}

#[test]
fn of_nearest() {
    let mut levels = [NONE; 4];
    let mut round = |weight: &[f32], m, values: &mut [f32], levels_lent: usize| {
        nearest(&grid(), weight, m, values, &mut levels[..levels_lent])
    };
    let length = |needed, lent| Err(GridError::OutputLength { needed, lent });
    assert_eq!(round(&[1.0; 6], 3, &mut [0.0; 5], 4), length(6, 5));
    assert_eq!(round(&[1.0; 6], 3, &mut [0.0; 6], 3), length(4, 3));
    let rows = |values, in_features| {
        Err(GridError::Length {
            values,
            in_features,
        })
    };
    assert_eq!(round(&[1.0; 6], 0, &mut [0.0; 6], 4), rows(6, 0));
    assert_eq!(round(&[1.0; 7], 3, &mut [0.0; 7], 4), rows(7, 3));
    let named = GridError::NonFinite {
        index: 5,
        row: 1,
        column: 2,
    };
    let weight = [1.0, 1.0, 1.0, 1.0, 1.0, f32::NAN];
    assert_eq!(round(&weight, 3, &mut [0.0; 6], 4), Err(named));
}

fn metrics(
    r: &[f64],
    a: &Matrix,
    options: &MetricOptions,
    workspace: usize,
) -> [Option<RoundError>; 2] {
    let mut metric = Matrix::zeros(2, 2);
    let damped = damped_metric(r, options, metric.view_mut());
    let mut workspace = vec![0.0; workspace];
    let projected = projected_metric(r, a.view(), options, metric.view_mut(), &mut workspace);
    [damped.err(), projected.err()]
}

#[test]
fn of_metrics() {
    let (r, a, options) = (
        [1.0, 0.5, 1.0],
        Matrix::identity(2),
        MetricOptions::default(),
    );
    let needed = projected_metric_workspace_len(2, 2);
    assert_eq!(needed, 2 * 2 + 2 + 2 * 4 + 4 * 2);
    assert_eq!(metrics(&r, &a, &options, needed), [None; 2]);
    let short = WorkspaceTooSmall {
        needed,
        lent: needed - 1,
    };
    let found = metrics(&r, &a, &options, needed - 1);
    assert_eq!(found, [None, Some(RoundError::Workspace(short))]);
    let both = |r: &[f64], options: &MetricOptions| {
        let [damped, projected] = metrics(r, &a, options, needed);
        // Compared as text, because some have NaN, which equals nothing.
        assert_eq!(format!("{damped:?}"), format!("{projected:?}"));
        damped.unwrap()
    };
    let mismatch = both(&[1.0, 0.5], &options).to_string();
    assert_eq!(mismatch, "`autocorrelation` must be 3 x 1, but is 2 x 1");
    let named = |index| RoundError::NonFinite {
        operand: "autocorrelation",
        index,
    };
    assert_eq!(both(&[1.0, f64::NAN, 1.0], &options), named(1));
    let negative = RoundError::Diagonal {
        index: 1,
        value: -1.0,
    };
    assert_eq!(both(&[1.0, 0.5, -1.0], &options), negative);
    for value in [-0.1, 1.1, f64::NAN] {
        let is_named = |options: MetricOptions, name| {
            let found = both(&r, &options);
            matches!(found, RoundError::Option { option, .. } if option == name)
        };
        assert!(is_named(
            MetricOptions {
                shrinkage: value,
                ..options
            },
            "shrinkage"
        ));
        assert!(is_named(
            MetricOptions {
                base_share: value,
                ..options
            },
            "base_share"
        ));
        let damping = if value > 1.0 { f64::INFINITY } else { value };
        assert!(is_named(MetricOptions { damping, ..options }, "damping"));
    }
}

#[test]
fn of_the_factors() {
    let (r, options) = ([1.0, 0.5, 1.0], MetricOptions::default());
    let needed = projected_metric_workspace_len(2, 2);
    let mut bad = Matrix::identity(2);
    bad[(0, 1)] = f64::INFINITY;
    let found = metrics(&r, &bad, &options, needed);
    assert_eq!(
        found[1],
        Some(RoundError::NonFinite {
            operand: "a",
            index: 2
        })
    );
    let found = metrics(&r, &Matrix::zeros(3, 2), &options, needed);
    let shape = found[1].unwrap().to_string();
    assert_eq!(shape, "`a` must be 2 x 2, but is 3 x 2");
    let error = RoundError::Diagonal {
        index: 1,
        value: -1.0,
    };
    assert_eq!(
        error.to_string(),
        "diagonal element 1 is -1e0, not positive"
    );
}
