//! Named formats: `format.dns1123Label().validate(name)`.

use super::none;
use crate::apiextensions::validation::formats;
use crate::cel::machine::{Machine, Result};
use crate::cel::value::Val;
use crate::registry::names;

pub(super) const DECLARATIONS: &[&str] = &[
    "format.named: (string) -> optional_type(kubernetes.NamedFormat)",
    "validate: kubernetes.NamedFormat.(string) -> optional_type(list(string))",
    "format.dns1123Label: () -> kubernetes.NamedFormat",
    "format.dns1123Subdomain: () -> kubernetes.NamedFormat",
    "format.dns1035Label: () -> kubernetes.NamedFormat",
    "format.qualifiedName: () -> kubernetes.NamedFormat",
    "format.dns1123LabelPrefix: () -> kubernetes.NamedFormat",
    "format.dns1123SubdomainPrefix: () -> kubernetes.NamedFormat",
    "format.dns1035LabelPrefix: () -> kubernetes.NamedFormat",
    "format.labelValue: () -> kubernetes.NamedFormat",
    "format.uri: () -> kubernetes.NamedFormat",
    "format.uuid: () -> kubernetes.NamedFormat",
    "format.byte: () -> kubernetes.NamedFormat",
    "format.date: () -> kubernetes.NamedFormat",
    "format.datetime: () -> kubernetes.NamedFormat",
];

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("named", [Val::Str(text)]) => {
            Ok(Val::Optional(format_named(text).map(|f| Box::new(Val::Format(f)))))
        }
        (name, []) => format_named(name).map_or_else(none, |f| Ok(Val::Format(f))),
        _ => none(),
    }
}

pub(super) fn method<'a>(
    machine: &mut Machine<'a>,
    format: &str,
    name: &str,
    args: &[Val<'a>],
) -> Result<'a> {
    let ("validate", [Val::Str(text)]) = (name, args) else { return none() };
    machine.pay(text.len())?;
    let errors = format_errors(format, text);
    let list = || Box::new(Val::list(errors.iter().map(Val::str).collect()));
    Ok(Val::Optional((!errors.is_empty()).then(list)))
}

fn format_named(name: &str) -> Option<&'static str> {
    const NAMES: &[&str] = &[
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime",
    ];
    NAMES.iter().find(|known| **known == name).copied()
}

/// What is wrong with a text of a named format.
fn format_errors(format: &str, text: &str) -> Vec<String> {
    // A prefix may end in what a whole name may not.
    let whole = |text: &str| text.strip_suffix('-').map_or_else(|| text.to_owned(), |t| format!("{t}a"));
    let kind = |format: &str| {
        if formats::matches(format, text) { Vec::new() } else { vec![format!("invalid {format}")] }
    };
    match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "dns1123LabelPrefix" => names::dns1123_label(&whole(text)),
        "dns1123SubdomainPrefix" => names::dns1123_subdomain(&whole(text)),
        "dns1035LabelPrefix" => names::dns1035_label(&whole(text)),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        other => kind(other),
    }
}
