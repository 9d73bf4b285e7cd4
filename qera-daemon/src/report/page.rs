//! The report as a page of HTML that needs neither network nor scripts.
//!
//! The template is `templates/report.html`. It escapes every text except drawings, which escape
//! their own texts.

use askama::Template;

use crate::observe::reporter::printable;
use crate::report::drawing::{
    Bar, Beam, BeamPart, DrawingError, INKS, Ink, bars, beams, ink, layers_in_a_bar,
};
use crate::report::figures::{count, percent, percent_or_none};
use crate::report::folder::ReportedFolder;
use crate::report::generation::{
    ErrorKind, ReportedBits, ReportedGeneration, ReportedLayer, ReportedTensors, mean,
};
use crate::report::history::{HistoryPoint, drawn};
use crate::report::kinds::{ReportedKind, block, in_order, kinds, mean_errors};
use crate::report::rows::{GenerationRow, KindRow, LayerRow};
use crate::report::standing::ReportedState;

/// The most kinds that are drawn, layers that are listed, and groups of tensors. So the page stays
/// below 1 MB for any model, and it says what is left out.
const DRAWN_MAX: usize = 16;
const LISTED_MAX: usize = 1_500;
const TENSORS_MAX: usize = 200;

/// The content of the page.
#[derive(Debug, Template)]
#[template(path = "report.html")]
struct Page {
    number: u64,
    made: String,
    version: String,
    cards: Vec<Card>,
    inks: [Ink; 6],
    kinds: Vec<KindView>,
    kinds_not_drawn: usize,
    is_rounded: bool,
    history: Option<String>,
    generations: Vec<GenerationRow>,
    left_out: Vec<String>,
    bits: Option<BitsView>,
    state: Vec<String>,
    layers: Vec<LayerRow>,
    layers_not_listed: usize,
    passed_over: Vec<TensorsRow>,
    tensors_not_listed: usize,
    quarantined_shards: usize,
    quarantined: Vec<String>,
}

/// A figure at the top of the page.
#[derive(Debug)]
struct Card {
    name: &'static str,
    value: String,
    note: String,
}

/// A kind of layers, with its chart if it is drawn.
#[derive(Debug)]
struct KindView {
    row: KindRow,
    chart: Option<String>,
    note: String,
}

/// Bits of a weight.
#[derive(Debug)]
struct BitsView {
    chart: String,
    said: String,
}

/// Tensors that are not corrected.
#[derive(Debug)]
struct TensorsRow {
    tensors: String,
    count: usize,
    share: String,
    why: String,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// A chart cannot be drawn.
    #[error("a chart cannot be drawn: {0}")]
    Drawing(#[from] DrawingError),
    /// The page cannot be filled in.
    #[error("the page cannot be filled in: {0}")]
    Template(#[from] askama::Error),
}

/// The page on a folder's current generation.
///
/// # Errors
/// [`PageError`], which would be a defect.
pub(crate) fn page(
    folder: &ReportedFolder,
    state: Option<&ReportedState>,
) -> Result<String, PageError> {
    let of = &folder.current;
    let kinds = kinds(&of.layers);
    let history: Vec<_> = folder
        .generations()
        .into_iter()
        .map(HistoryPoint::new)
        .collect();
    let page = Page {
        number: of.generation.unwrap_or_default(),
        made: made(of),
        version: printable(&of.qera_version),
        cards: cards(of),
        inks: INKS,
        kinds_not_drawn: kinds.len().saturating_sub(DRAWN_MAX),
        is_rounded: of.layers.iter().any(|of| of.rounded_to_nearest().is_some()),
        kinds: kind_views(&kinds)?,
        history: drawn(&history)?,
        generations: history.iter().map(GenerationRow::new).collect(),
        left_out: (folder.left_out.iter())
            .map(|of| format!("Generation {} is not shown: {}.", of.number, of.why))
            .collect(),
        bits: of.bits_per_weight.as_ref().map(bits_view).transpose()?,
        state: state.map(ReportedState::said).unwrap_or_default(),
        layers: listed(of, state),
        layers_not_listed: of.layers.len().saturating_sub(LISTED_MAX),
        passed_over: passed_over(of),
        tensors_not_listed: of.passed_over.len().saturating_sub(TENSORS_MAX),
        quarantined_shards: of.inputs.quarantined_shards,
        quarantined: of
            .inputs
            .quarantined
            .iter()
            .map(|why| printable(why))
            .collect(),
    };
    Ok(page.render()?)
}

/// A sentence on how the generation was made.
fn made(of: &ReportedGeneration) -> String {
    let rounded = match &of.settings.rounding {
        Some(choice) => format!(" with --rounding {}", choice.name),
        None => String::new(),
    };
    let read = match &of.quantized {
        Some(given) => format!(", read from {}", given.path),
        None => String::new(),
    };
    let rows = match of.inputs.full_precision_model {
        Some(true) => " of the full-precision model",
        Some(false) => " of the quantized model",
        None => "",
    };
    let last = match of.inputs.drained {
        true => "Every layer was solved from all of these shards.",
        false => "More shards may come.",
    };
    printable(&format!(
        "Method {}, weights in {}{rounded}{read}; rows{rows} from {} shards; the \
         adapter as {}. {last}",
        of.settings.method,
        of.quantizers(),
        count(of.inputs.shards as u64),
        of.forms.join(", "),
    ))
}

/// The figures at the top of the page.
fn cards(of: &ReportedGeneration) -> Vec<Card> {
    let card = |name, value, note: &str| Card {
        name,
        value,
        note: note.into(),
    };
    let layers = || of.layers.iter();
    let mut cards = vec![card(
        "layers corrected",
        format!("{} of {}", of.corrected(), of.layers.len()),
        "",
    )];
    if let Some(errors) = mean_errors(layers()) {
        let name = match errors.kind {
            ErrorKind::Output => "mean error",
            ErrorKind::Window => "mean window error",
            ErrorKind::Diagonal => "mean diagonal error",
        };
        let value = format!("{} → {}", percent(errors.without), percent(errors.with));
        let note = "of the output's power, the quantized model alone and with its adapter";
        cards.push(card(name, value, note));
    }
    if let Some(nearest) = mean(layers().filter_map(ReportedLayer::rounded_to_nearest)) {
        let note = "mean error of the quantized model alone, had it been rounded to nearest";
        cards.push(card("rounded to nearest", percent(nearest), note));
    }
    let held_out = layers().filter_map(ReportedLayer::held_out);
    if let Some(left) = mean(held_out.map(|share| share.left)) {
        let note = "of the error, on rows that weights and correction have not seen";
        cards.push(card("left on held-out rows", percent(left), note));
    }
    if let Some(bits) = &of.bits_per_weight {
        let note = format!(
            "a weight: {:.2} and {:.2} of the adapter",
            bits.base, bits.adapter
        );
        cards.push(card("bits", format!("{:.2}", bits.both), &note));
    }
    cards.push(card(
        "rows",
        count(of.rows()),
        "of the layer input that had most",
    ));
    cards
}

fn kind_views(kinds: &[ReportedKind<'_>]) -> Result<Vec<KindView>, PageError> {
    let view = |(index, kind): (usize, &ReportedKind<'_>)| {
        let is_drawn = index < DRAWN_MAX && kind.relative().is_some();
        let mut notes = Vec::new();
        match kind.relative().map(|errors| errors.kind) {
            Some(ErrorKind::Diagonal) => notes
                .push("an imatrix's diagonal error, which is no error of the output".to_owned()),
            Some(ErrorKind::Window) => {
                notes.push("on the rows of the window, because a sketch stood for R".to_owned())
            }
            Some(ErrorKind::Output) | None => {}
        }
        let in_a_bar = layers_in_a_bar(kind.layers.len());
        if in_a_bar > 1 {
            notes.push(format!("each bar is the mean of {in_a_bar} layers"));
        }
        Ok(KindView {
            row: KindRow::new(kind),
            chart: is_drawn.then(|| bars(&kind_bars(kind))).transpose()?,
            note: notes.join("; "),
        })
    };
    kinds.iter().enumerate().map(view).collect()
}

fn kind_bars(kind: &ReportedKind<'_>) -> Vec<Bar> {
    let bar = |layer: &&ReportedLayer| {
        let errors = layer.relative();
        Bar {
            label: block(&layer.name).unwrap_or_default().into(),
            without: errors.map_or(0.0, |of| of.without),
            with: errors.map_or(0.0, |of| of.with),
            held_out: layer.held_out(),
            nearest: layer.rounded_to_nearest(),
        }
    };
    kind.layers.iter().map(bar).collect()
}

fn bits_view(of: &ReportedBits) -> Result<BitsView, DrawingError> {
    let part = |bits, name| BeamPart {
        bits,
        ink: ink(name),
    };
    let beam = |label: &str, parts| Beam {
        label: label.into(),
        parts,
    };
    let (base, adapter) = (part(of.base, "without"), part(of.adapter, "with"));
    let mut all = vec![
        beam("alone", vec![base]),
        beam("with adapter", vec![base, adapter]),
    ];
    let mut said = Vec::new();
    let mut next = vec![&of.next_to_base, &of.next_to_both];
    next.dedup();
    for types in next.into_iter().flatten() {
        let first = types.types.first().cloned().unwrap_or_default();
        all.push(beam(&printable(&first), vec![part(types.bits, "line")]));
        said.push(format!("{} ({:.2})", types.types.join(", "), types.bits));
    }
    let next = match said.is_empty() {
        true => String::new(),
        false => format!(" ggml's next larger types: {}.", said.join("; ")),
    };
    Ok(BitsView {
        chart: beams(&all)?,
        said: printable(&format!(
            "{:.2} bits a weight ({}) and {:.2} of the adapter are {:.2}.{next}",
            of.base, of.base_as, of.adapter, of.both
        )),
    })
}

/// The layers in order; if there are too many, those with the largest errors.
fn listed(of: &ReportedGeneration, state: Option<&ReportedState>) -> Vec<LayerRow> {
    let mut layers = in_order(&of.layers);
    if layers.len() > LISTED_MAX {
        let error = |of: &ReportedLayer| of.relative().map_or(f64::INFINITY, |of| of.with);
        layers.sort_by(|left, right| error(right).total_cmp(&error(left)));
        layers.truncate(LISTED_MAX);
    }
    let rows = layers.into_iter().map(|layer| LayerRow::new(layer, state));
    rows.collect()
}

fn passed_over(of: &ReportedGeneration) -> Vec<TensorsRow> {
    let row = |of: &ReportedTensors| TensorsRow {
        tensors: printable(&of.tensors),
        count: of.count,
        share: percent_or_none(Some(of.share)),
        why: printable(&of.why),
    };
    of.passed_over.iter().take(TENSORS_MAX).map(row).collect()
}
