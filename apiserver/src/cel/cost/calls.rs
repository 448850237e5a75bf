//! What calls cost, and how large their results are (`CostEstimator` of `apiserver/pkg/cel/library`).

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators as op};
use cel::parser::Expression;

use super::{CHARACTER, Entry, Estimate, LIST, OBJECT, PATTERN_CHARACTER, Size, factor};
use crate::cel::declarations::Overload;
use crate::cel::syntax::RESULT;
use crate::cel::types::Type;

/// A decision of the authorizer.
const CHECK: u64 = 350_000;
/// The pattern of a named format.
const FORMAT_PATTERN: f64 = 128.0;
/// The name of a format.
const FORMAT_MAX: u64 = 64;
/// Bytes of an address.
const ADDRESS_MAX: u64 = 16;

/// A cost without that of the arguments, and the size of the result where it is known.
type Call = (u64, Option<Size>);

impl Estimate<'_> {
    pub(super) fn call(&mut self, e: &Expression, call: &CallExpr) -> u64 {
        if let ("dyn", [arg]) = (call.func_name.as_str(), call.args.as_slice()) {
            let cost = self.cost(arg).saturating_add(1);
            self.copy(e, arg);
            return cost;
        }
        let costs: Vec<u64> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let target = call.target.as_deref();
        let on_target = target.map_or(0, |target| self.cost(target));
        let (mut most, mut size) = (0, None);
        for overload in self.facts.overloads(e).to_vec() {
            let (cost, made) = self.overload(e, call, &overload, &costs);
            most = most.max(cost);
            size = match (size, made) {
                (Some(before), Some(made)) => Some(Size::union(before, made)),
                (before, made) => made.or(before),
            };
            if let (op::INDEX, [of, _]) = (call.func_name.as_str(), call.args.as_slice()) {
                let step = match overload.args.first() {
                    Some(Type::List(_)) => Some("@items"),
                    Some(Type::Map(..)) => Some("@values"),
                    _ => None,
                };
                if let Some(step) = step {
                    size = self.entry(of).map(|entry| entry.value);
                    let path = self.path_with(of, step);
                    self.paths.insert(e.id, path);
                }
            }
            if size.is_none() {
                size = self.size(e);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(e.id, size);
        }
        on_target.saturating_add(most)
    }

    fn overload(&mut self, e: &Expression, call: &CallExpr, overload: &Overload, costs: &[u64]) -> Call {
        let sum = costs.iter().fold(0_u64, |sum, cost| sum.saturating_add(*cost));
        match (call.func_name.as_str(), costs) {
            (op::LOGICAL_AND | op::LOGICAL_OR, _) => return (sum, None),
            (op::CONDITIONAL, [condition, yes, no]) => {
                let cost = condition.saturating_add(*yes.max(no));
                let size = self.size_or_unknown(&call.args[1]).union(self.size_or_unknown(&call.args[2]));
                self.joined(e, &call.args[1], &call.args[2]);
                return (cost, Some(size));
            }
            _ => {}
        }
        let known = self.library(call, overload).or_else(|| self.standard(e, call, overload));
        let (cost, size) = known.unwrap_or((1, None));
        (cost.saturating_add(sum), size)
    }

    /// What is in either of two.
    fn joined(&mut self, e: &Expression, a: &Expression, b: &Expression) {
        if let (Some(a), Some(b)) = (self.entry(a), self.entry(b)) {
            let (key, value) = (a.key.union(b.key), a.value.union(b.value));
            self.entries.insert(e.id, Entry { is_list: a.is_list, key, value });
        }
    }

    /// Size of an element of a list, when it is one.
    fn element(&mut self, list: &Expression) -> Option<(Type, Size)> {
        let of = (*self.facts.of(list).parameters().first()?).clone();
        let path = self.path(list);
        let own = path.first().is_some_and(|first| first.as_ref() != RESULT);
        let size = own.then(|| (self.size_of)(&self.path_with(list, "@items"))).flatten();
        Some((of, size.unwrap_or(Size::UNKNOWN)))
    }

    fn library(&mut self, call: &CallExpr, overload: &Overload) -> Option<Call> {
        let target = call.target.as_deref();
        let args = call.args.as_slice();
        let over = |size: Size, each: f64| factor(size.max, each);
        let fixed = |cost: u64| Some((cost, None));
        match (call.func_name.as_str(), target, args) {
            ("check", ..) => fixed(CHECK),
            (
                "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name"
                | "allowed" | "reason" | "error" | "errored",
                ..,
            ) => fixed(1),
            ("fieldSelector" | "labelSelector", _, [selector]) => {
                let size = self.size_or_unknown(selector);
                let requirements = factor(over(size, 0.5), (LIST + OBJECT) as f64);
                fixed(LIST.saturating_add(over(size, CHARACTER)).saturating_add(requirements))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                let size = self.size_or_unknown(target);
                match self.element(target) {
                    Some((of, element)) => {
                        let text = matches!(of, Type::Str | Type::Bytes);
                        let each = if text { over(element, CHARACTER).saturating_add(1) } else { 1 };
                        fixed(size.max.saturating_mul(each))
                    }
                    None => fixed(over(size, CHARACTER)),
                }
            }
            ("url" | "jsonpatch.escapeKey", _, [text]) => {
                let size = self.size_or_unknown(text);
                Some((over(size, CHARACTER), Some(size)))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => {
                let size = self.size_or_unknown(target);
                Some((over(size, CHARACTER), Some(size)))
            }
            ("replace", Some(target), [from, to, ..]) => {
                let size = self.size_or_unknown(target);
                let (from, to) = (self.size_or_unknown(from), self.size_or_unknown(to));
                Some((over(size, 2.0 * CHARACTER), Some(replaced(size, from, to))))
            }
            ("split", Some(target), rest) => {
                let size = self.size_or_unknown(target);
                let limit = match rest.get(1).map(|limit| &limit.expr) {
                    Some(Expr::Literal(LiteralValue::Int(n))) => {
                        u64::try_from(*n.inner()).unwrap_or(u64::MAX)
                    }
                    _ => size.max,
                };
                Some((over(size, 2.0 * CHARACTER), Some(Size::at_most(limit))))
            }
            ("join", Some(target), rest) => {
                let list = self.size_or_unknown(target);
                let element = self.element(target).map_or(Size::fixed(0), |(_, size)| size);
                let mut size = list.multiply(element);
                if let [by, ..] = rest {
                    let gaps = Size { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                    size = size.add(self.size_or_unknown(by).multiply(gaps));
                }
                Some((over(size, CHARACTER), Some(size)))
            }
            ("find" | "findAll", Some(target), [pattern, ..]) => {
                let size = self.size_or_unknown(target);
                Some((self.pattern(size, pattern), Some(Size::at_most(size.max))))
            }
            ("ip", _, []) => fixed(1),
            (
                "ip" | "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver",
                _,
                [text, ..],
            ) => fixed(over(self.size_or_unknown(text), CHARACTER)),
            ("ip.isCanonical", _, [text]) => fixed(over(self.size_or_unknown(text), 2.0 * CHARACTER)),
            (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "format.named"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                ..,
            ) => fixed(1),
            ("containsIP" | "containsCIDR", _, [other]) => {
                let mut cost = factor(2 * ADDRESS_MAX, CHARACTER);
                if call.func_name == "containsCIDR" {
                    cost += factor(ADDRESS_MAX, CHARACTER) + 1;
                }
                if overload.args.get(1) == Some(&Type::Str) {
                    cost = cost.saturating_add(over(self.size_or_unknown(other), CHARACTER));
                }
                fixed(cost)
            }
            ("validate", _, [text]) => {
                let characters = over(self.size_or_unknown(text), CHARACTER);
                fixed(factor(characters, FORMAT_PATTERN * PATTERN_CHARACTER))
            }
            (op::EQUALS, _, [a, b]) => self.equality(a, b).map(|cost| (cost, None)),
            _ => None,
        }
    }

    /// Of values that are compared at once.
    fn equality(&mut self, a: &Expression, b: &Expression) -> Option<u64> {
        let ty = self.facts.of(a);
        if ty != self.facts.of(b) {
            return None;
        }
        match ty {
            Type::Opaque(_) => Some(1),
            Type::Object(name) => match name.as_ref() {
                "kubernetes.Quantity" | "kubernetes.Semver" => Some(1),
                name if name.starts_with("kubernetes.authorization.") => Some(1),
                "kubernetes.NamedFormat" => Some(factor(FORMAT_MAX, CHARACTER)),
                "kubernetes.URL" => {
                    let size = self.size(b).map_or(1, |size| size.max);
                    Some(factor(size, CHARACTER))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn pattern(&mut self, text: Size, pattern: &Expression) -> u64 {
        let pattern = factor(self.size_or_unknown(pattern).max, PATTERN_CHARACTER);
        factor(text.max.saturating_add(1), CHARACTER).saturating_mul(pattern)
    }

    fn standard(&mut self, e: &Expression, call: &CallExpr, overload: &Overload) -> Option<Call> {
        let over = |size: Size| factor(size.max, CHARACTER);
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            ("format", Some(target), _) => Some((over(self.size_or_unknown(target)), None)),
            ("bytes", None, [arg]) if overload.args == [Type::Str] => {
                let size = self.size_or_unknown(arg);
                Some((over(size), Some(Size { min: size.min, max: size.max.saturating_mul(4) })))
            }
            ("string", None, [arg]) if overload.args == [Type::Bytes] => {
                let size = self.size_or_unknown(arg);
                Some((over(size), Some(Size { min: size.min / 4, max: size.max })))
            }
            ("strings.quote", None, [arg]) => {
                let size = self.size_or_unknown(arg);
                let quoted = Size {
                    min: size.min.saturating_add(2),
                    max: size.max.saturating_mul(2).saturating_add(2),
                };
                Some((over(size), Some(quoted)))
            }
            ("startsWith" | "endsWith", Some(_), [part]) => Some((over(self.size_or_unknown(part)), None)),
            (op::IN, None, [_, list]) if matches!(overload.args.get(1), Some(Type::List(_))) => {
                Some((self.size_or_unknown(list).max, None))
            }
            ("matches", Some(target), [pattern]) => {
                let size = self.size_or_unknown(target);
                Some((self.pattern(size, pattern), None))
            }
            ("contains", Some(target), [part]) => {
                let cost = over(self.size_or_unknown(target));
                Some((cost.saturating_mul(over(self.size_or_unknown(part))), None))
            }
            (op::ADD, None, [a, b]) if matches!(overload.result, Type::Str | Type::Bytes | Type::List(_)) => {
                let size = self.size_or_unknown(a).add(self.size_or_unknown(b));
                self.joined(e, a, b);
                let cost = if matches!(overload.result, Type::List(_)) { 1 } else { over(size) };
                Some((cost, Some(size)))
            }
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, None, [a, b])
                if matches!(overload.args.first(), Some(Type::Str | Type::Bytes)) =>
            {
                Some((self.shorter(a, b), None))
            }
            (op::EQUALS | op::NOT_EQUALS, None, [a, b]) => Some((self.shorter(a, b), None)),
            _ => None,
        }
    }

    fn shorter(&mut self, a: &Expression, b: &Expression) -> u64 {
        factor(self.size_or_unknown(a).max.min(self.size_or_unknown(b).max), CHARACTER)
    }
}

/// The size of a text after a replacement.
fn replaced(size: Size, from: Size, to: Size) -> Size {
    let (times, kept) = if from.min == 0 {
        (size.max.saturating_add(1), size.max)
    } else if to.max <= from.min {
        (0, size.max)
    } else {
        (size.max.div_ceil(from.min), 0)
    };
    let (times_min, kept_min) = if from.max == 0 {
        (size.min.saturating_add(1), size.min)
    } else if from.max <= to.min {
        (0, size.min)
    } else {
        (size.min.div_ceil(from.max), 0)
    };
    let times = Size { min: times_min, max: times };
    times.multiply(to).add(Size { min: kept_min, max: kept })
}
