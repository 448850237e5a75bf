//! Declarations of functions, written in the notation that errors print: `name: target.(arguments) -> result`.
//!
//! A letter alone is a type parameter. The tables stand with the functions, in the rooms of [`super::library`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::types::Type;

/// One way to call a function.
#[derive(Debug, PartialEq, Eq)]
pub struct Overload {
    pub member: bool,
    /// The target first, when it is a member.
    pub args: Vec<Type>,
    pub result: Type,
    /// The letters in it.
    pub parameters: Vec<Arc<str>>,
}

/// Functions by name.
#[derive(Debug, Clone, Default)]
pub struct Functions(BTreeMap<&'static str, Vec<Arc<Overload>>>);

impl Functions {
    /// Adds declarations.
    ///
    /// # Panics
    /// When one is not written in the notation: the tables are part of the program.
    pub fn declare(&mut self, lines: &[&'static str]) {
        for line in lines {
            let (name, overload) = read(line).expect("a declaration is name: (types) -> type");
            self.0.entry(name).or_default().push(Arc::new(overload));
        }
    }

    pub fn overloads(&self, name: &str) -> Option<(&'static str, &[Arc<Overload>])> {
        self.0.get_key_value(name).map(|(name, overloads)| (*name, overloads.as_slice()))
    }
}

fn read(line: &'static str) -> Option<(&'static str, Overload)> {
    let (name, signature) = line.split_once(": ")?;
    let (call, result) = signature.rsplit_once(" -> ")?;
    let inside = call.strip_suffix(')')?;
    // The list of arguments opens at the last parenthesis that nothing before the end closes.
    let mut depth = 0;
    let open = inside.char_indices().rev().find_map(|(at, c)| {
        match c {
            ')' => depth += 1,
            '(' if depth == 0 => return Some(at),
            '(' => depth -= 1,
            _ => {}
        }
        None
    })?;
    let target = inside.get(..open)?;
    let mut args = Vec::new();
    if !target.is_empty() {
        args.push(of(target.strip_suffix('.')?)?);
    }
    for text in split(inside.get(open + 1..)?) {
        args.push(of(text)?);
    }
    let result = of(result)?;
    let mut parameters = Vec::new();
    args.iter().chain([&result]).for_each(|ty| letters(ty, &mut parameters));
    Some((name, Overload { member: !target.is_empty(), args, result, parameters }))
}

/// At the commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        out.push(text[from..].trim());
    }
    out
}

fn of(text: &str) -> Option<Type> {
    let Some((name, rest)) = text.split_once('(') else { return Some(Type::named(text)) };
    let inner = split(rest.strip_suffix(')')?);
    Some(match (name, inner.as_slice()) {
        ("list", [a]) => Type::list(of(a)?),
        ("map", [k, v]) => Type::map(of(k)?, of(v)?),
        ("optional_type", [a]) => Type::optional(of(a)?),
        ("type", [a]) => Type::Type(Some(Arc::new(of(a)?))),
        _ => return None,
    })
}

fn letters(ty: &Type, out: &mut Vec<Arc<str>>) {
    if let Type::Param(name) = ty
        && !out.contains(name)
    {
        out.push(name.clone());
    }
    ty.parameters().into_iter().for_each(|inner| letters(inner, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_reads_as_it_prints() {
        let (name, member) =
            read("or: optional_type(V).(optional_type(V)) -> optional_type(V)").expect("fits");
        assert_eq!((name, member.member, member.args.len()), ("or", true, 2));
        assert_eq!(member.parameters, ["V".into()]);
        let (name, global) = read("_?_:_: (bool, A, A) -> A").expect("fits");
        assert_eq!((name, global.member, global.args.len()), ("_?_:_", false, 3));
        let (_, none) = read("optional.none: () -> optional_type(V)").expect("fits");
        assert!(none.args.is_empty() && !none.member);
        let (_, dotted) = read("containsIP: net.CIDR.(net.IP) -> bool").expect("fits");
        assert_eq!(dotted.args[0], Type::Opaque("net.CIDR".into()));
        assert!(read("broken").is_none());
    }
}
