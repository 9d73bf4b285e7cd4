//! The table of docs/options.md is what the options' one list says (`settings/options.rs`).
//!
//! `QERA_WRITE_DOCS=1 cargo test --release -p qera-tests --test rules options` writes it.

use std::collections::BTreeMap;

use crate::sources::{assert_none, root};
use crate::syntax::{Parsed, made_up, parsed};

const PAGE: &str = "docs/options.md";
const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->";

/// One row of the table.
struct Row {
    option: String,
    meaning: String,
    default: String,
}

/// What the list says of `Options`, in its order.
fn rows(list: &Parsed) -> Vec<Row> {
    let values = value_lists(&list.file);
    let options = list.file.items.iter().find_map(|item| match item {
        syn::Item::Struct(item) if item.ident == "Options" => Some(item),
        _ => None,
    });
    let fields = options.unwrap().fields.iter();
    fields.map(|field| row(field, &values)).collect()
}

/// The arrays of texts that name an option's values.
fn value_lists(file: &syn::File) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for item in &file.items {
        if let syn::Item::Const(item) = item
            && let syn::Expr::Array(array) = &*item.expr
        {
            let texts = array.elems.iter().filter_map(text_of).collect();
            found.insert(item.ident.to_string(), texts);
        }
    }
    found
}

fn text_of(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

fn row(field: &syn::Field, values: &BTreeMap<String, Vec<String>>) -> Row {
    let name = field.ident.as_ref().unwrap().to_string().replace('_', "-");
    let doc = doc(&field.attrs);
    let (meaning, default) = without_default(&doc);
    let arg = argument(&field.attrs);
    let is_switch = arg.contains("\"BOOL\"");
    let value = arg.split("value_name = \"").nth(1);
    let value = value.and_then(|rest| rest.split('"').next());
    let listed = values.iter().find(|(list, _)| {
        arg.contains("PossibleValuesParser") && arg.contains(&format!("({list})"))
    });
    let meaning = match listed {
        Some((_, texts)) => format!("{meaning}. One of {}", code(texts)),
        None => meaning,
    };
    let option = match value {
        Some(value) if !is_switch => format!("--{name} {value}"),
        _ => format!("--{name}"),
    };
    let none = if is_switch { "off" } else { "none" };
    Row {
        option: option.replace('|', "\\|"),
        meaning: meaning.replace('|', "\\|"),
        default: default.unwrap_or_else(|| none.to_owned()),
    }
}

fn code(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| format!("`{text}`")).collect();
    texts.join(", ")
}

/// The documentation as one line.
fn doc(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        pair.path.is_ident("doc").then(|| text_of(&pair.value))?
    });
    let lines: Vec<_> = lines.map(|line| line.trim().to_owned()).collect();
    lines.join(" ")
}

/// The text of `#[arg(..)]`, without the blanks between tokens that depend on its layout.
fn argument(attributes: &[syn::Attribute]) -> String {
    let arg = attributes
        .iter()
        .find_map(|attribute| match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("arg") => Some(list.tokens.to_string()),
            _ => None,
        });
    let arg = arg.unwrap_or_default();
    arg.replace("( ", "(").replace(" )", ")").replace(" (", "(")
}

/// `meaning [default: X]. More` as `meaning. More` and X.
fn without_default(doc: &str) -> (String, Option<String>) {
    let Some((before, rest)) = doc.split_once(" [default: ") else {
        return (doc.to_owned(), None);
    };
    let (default, after) = rest.split_once(']').unwrap();
    (format!("{before}{after}"), Some(default.to_owned()))
}

fn table(rows: &[Row]) -> String {
    let mut text = "| option | meaning | default |\n|---|---|---|\n".to_owned();
    for row in rows {
        let Row {
            option,
            meaning,
            default,
        } = row;
        text += &format!("| `{option}` | {meaning} | {default} |\n");
    }
    text
}

/// The page's table replaced by another one.
fn with_table(page: &str, table: &str) -> String {
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    format!("{before}{BEGIN}{table}{END}{after}")
}

fn lines_that_differ(page: &str, wanted: &str) -> Vec<String> {
    let missing = wanted.lines().filter(|line| !page.contains(line));
    let findings = missing.map(|line| format!("the page lacks: {line}"));
    let too_many = page.lines().filter(|line| !wanted.contains(line));
    findings
        .chain(too_many.map(|line| format!("not in the list: {line}")))
        .collect()
}

#[test]
fn the_options_page_is_the_one_list_of_options() {
    let list = parsed("qera-daemon/src/settings");
    let list = list.iter().find(|file| file.path.ends_with("/options.rs"));
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let wanted = with_table(&page, &table(&rows(list.unwrap())));
    if std::env::var_os("QERA_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    let rule = "QERA_WRITE_DOCS=1 writes docs/options.md anew";
    assert_none(rule, &lines_that_differ(&page, &wanted));
    assert_eq!(page, wanted, "{rule}: another order");
}

#[test]
fn an_option_is_a_row() {
    let list = made_up(&[(
        "options.rs",
        r#"const FORMS: [&str; 2] = ["a", "b"];
        struct Options {
            /// How often
            /// [default: 3]. Of export: never
            #[arg(long, value_name = "auto|N")]
            how_often: Option<u32>,
            /// Only once
            #[arg(long, num_args = 0..=1, value_name = "BOOL")]
            once: Option<bool>,
            /// The form [default: a]
            #[arg(long, value_parser = PossibleValuesParser::new(FORMS))]
            form: Option<String>,
        }"#,
    )]);
    let table = table(&rows(&list[0]));
    let rows = [
        "| `--how-often auto\\|N` | How often. Of export: never | 3 |",
        "| `--once` | Only once | off |",
        "| `--form` | The form. One of `a`, `b` | a |",
    ];
    let found: Vec<_> = table.lines().skip(2).collect();
    assert_eq!(found, rows);

    let page = format!("text\n{BEGIN}| old |\n{END}\nmore\n");
    let wanted = with_table(&page, &table);
    assert!(wanted.starts_with("text\n") && wanted.ends_with("\nmore\n"));
    assert_eq!(lines_that_differ(&page, &wanted).len(), 6);
    assert!(lines_that_differ(&wanted, &wanted).is_empty());
}
