//! Checks that many kinds share, on a place in a tree: a value and the path by which errors name it.
//!
//! A rule is a line of these: `spec.at("strategy").choice("type", &["A", "B"], errors)`. Wording is upstream's.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use common::quantity::Quantity;
use common::status::{FieldError, FieldErrorKind, FieldErrors};
use ipnet::IpNet;
use serde_json::Value;

use super::core::IMMUTABLE;
use super::names;
use super::pod_template::{metadata, resources};
use super::tree::{field, flag, has, int, items, same, text};

pub const NONNEGATIVE: &str = "must be greater than or equal to 0";

/// A value and where it is.
#[derive(Debug, Clone)]
pub struct At<'a> {
    pub value: &'a Value,
    /// `spec.rules[0]`; empty for the object itself.
    pub path: String,
}

impl<'a> At<'a> {
    /// The object as a whole.
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    /// A field of it, present or not.
    pub fn at(&self, key: &str) -> At<'a> {
        At { value: field(self.value, key), path: self.under(key) }
    }

    /// The path of a field.
    pub fn under(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The items of a list field.
    pub fn each(&self, key: &str) -> Vec<At<'a>> {
        let path = self.under(key);
        let all = items(self.value, key).iter().enumerate();
        all.map(|(i, value)| At { value, path: format!("{path}[{i}]") }).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        has(self.value, key)
    }

    /// The place itself is there.
    pub fn present(&self) -> bool {
        !self.value.is_null()
    }

    pub fn text(&self, key: &str) -> &'a str {
        text(self.value, key)
    }

    pub fn int(&self, key: &str) -> Option<i64> {
        int(self.value, key)
    }

    pub fn flag(&self, key: &str) -> bool {
        flag(self.value, key)
    }

    pub fn strings(&self, key: &str) -> Vec<&'a str> {
        super::tree::strings(self.value, key)
    }

    pub fn invalid(&self, key: &str, detail: impl Into<String>, errors: &mut FieldErrors) {
        errors.invalid(self.under(key), field(self.value, key), detail);
    }

    pub fn required(&self, key: &str, detail: &str, errors: &mut FieldErrors) {
        errors.required(self.under(key), detail);
    }

    pub fn forbidden(&self, key: &str, detail: impl Into<String>, errors: &mut FieldErrors) {
        errors.forbidden(self.under(key), detail);
    }

    /// Numbers that, where present, are not negative.
    pub fn nonnegative(&self, keys: &[&str], errors: &mut FieldErrors) {
        self.at_least(keys, 0, errors);
    }

    /// Numbers that, where present, are not less.
    pub fn at_least(&self, keys: &[&str], least: i64, errors: &mut FieldErrors) {
        for key in keys {
            if let Some(value) = self.int(key).filter(|v| *v < least) {
                errors.invalid(self.under(key), value, format!("must be greater than or equal to {least}"));
            }
        }
    }

    /// A number that, where present, is in a range.
    pub fn between(&self, key: &str, least: i64, most: i64, errors: &mut FieldErrors) {
        if let Some(value) = self.int(key).filter(|v| !(least..=most).contains(v)) {
            errors.invalid(self.under(key), value, format!("must be between {least} and {most}, inclusive"));
        }
    }

    /// A text that, where present, is one of a few.
    pub fn choice(&self, key: &str, allowed: &[&str], errors: &mut FieldErrors) {
        if self.has(key) && !allowed.contains(&self.text(key)) {
            errors.not_supported(self.under(key), field(self.value, key), allowed);
        }
    }

    /// A text that must be there and be one of a few.
    pub fn required_choice(&self, key: &str, allowed: &[&str], errors: &mut FieldErrors) {
        match self.text(key) {
            "" => errors.required(self.under(key), ""),
            text if allowed.contains(&text) => {}
            text => errors.not_supported(self.under(key), text, allowed),
        }
    }

    /// A text that must not be empty; true when it is not.
    pub fn required_text(&self, key: &str, errors: &mut FieldErrors) -> bool {
        let there = !self.text(key).is_empty();
        if !there {
            errors.required(self.under(key), "");
        }
        there
    }

    /// A text in a shape.
    pub fn shaped(&self, key: &str, check: impl Fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
        let value = self.text(key);
        for message in check(value) {
            errors.invalid(self.under(key), value, message);
        }
    }

    /// A text in a shape, where it is not empty.
    pub fn shaped_if_set(&self, key: &str, check: impl Fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
        if !self.text(key).is_empty() {
            self.shaped(key, check, errors);
        }
    }

    /// A text that must be there, in a shape.
    pub fn required_shaped(&self, key: &str, check: impl Fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
        if self.required_text(key, errors) {
            self.shaped(key, check, errors);
        }
    }

    /// A label selector, where present.
    pub fn selector(&self, key: &str, errors: &mut FieldErrors) {
        if self.has(key) {
            metadata::label_selector(field(self.value, key), &self.under(key), errors);
        }
    }

    /// A field that may not differ from `old`'s.
    pub fn immutable(&self, old: &At<'_>, keys: &[&str], errors: &mut FieldErrors) {
        for key in keys {
            if !same(field(self.value, key), field(old.value, key)) {
                errors.invalid(self.under(key), field(self.value, key), IMMUTABLE);
            }
        }
    }

    /// A whole number or a percentage, not negative.
    pub fn int_or_percent(&self, key: &str, errors: &mut FieldErrors) {
        if self.has(key) {
            super::apps::int_or_percent(field(self.value, key), &self.under(key), errors);
        }
    }

    /// A percentage, where it is one, of at most a hundred.
    pub fn at_most_whole(&self, key: &str, errors: &mut FieldErrors) {
        if percent(field(self.value, key)).is_some_and(|p| p > 100) {
            self.invalid(key, "must not be greater than 100%", errors);
        }
    }

    pub fn quantity(&self, key: &str) -> Option<Quantity> {
        resources::read(field(self.value, key))
    }

    /// An amount that, where present, is not negative.
    pub fn nonnegative_quantity(&self, key: &str, errors: &mut FieldErrors) {
        if self.quantity(key).is_some_and(Quantity::is_negative) {
            self.invalid(key, NONNEGATIVE, errors);
        }
    }

    /// An amount that, where present, is more than nothing.
    pub fn positive_quantity(&self, key: &str, errors: &mut FieldErrors) {
        if self.quantity(key).is_some_and(|q| q.is_negative() || q.is_zero()) {
            self.invalid(key, "must be greater than zero", errors);
        }
    }
}

/// The number of a percentage.
pub fn percent(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// The number of an integer or percentage; zero when it is neither.
pub fn int_or_percent_value(value: &Value) -> i64 {
    percent(value).or_else(|| value.as_i64()).unwrap_or(0)
}

/// An error that shows no value (`field.OmitValueType`).
pub fn invalid_without_value(path: impl Into<String>, detail: impl Into<String>, errors: &mut FieldErrors) {
    errors.0.push(FieldError {
        kind: FieldErrorKind::Invalid,
        field: path.into(),
        value: String::new(),
        detail: detail.into(),
    });
}

/// `Required value: valid values: ["A" "B"]`.
pub fn required_of(path: impl Into<String>, allowed: &[&str], errors: &mut FieldErrors) {
    let quoted: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
    errors.required(path, format!("valid values: [{}]", quoted.join(" ")));
}

const HTTP_PATH: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";

/// `acme.io/foo` (`IsDomainPrefixedPath`).
pub fn domain_prefixed_path(at: &At<'_>, key: &str, errors: &mut FieldErrors) {
    let value = at.text(key);
    if value.is_empty() {
        errors.required(at.under(key), "");
        return;
    }
    match value.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            for message in names::dns1123_subdomain(host) {
                errors.invalid(at.under(key), host, message);
            }
            let fits = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b));
            if !fits {
                errors.invalid(
                    at.under(key),
                    rest,
                    format!("Invalid path (regex used for validation is '{HTTP_PATH}')"),
                );
            }
        }
        _ => errors.invalid(at.under(key), value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// `*.example.com`.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut out = Vec::new();
    if value.len() > 253 {
        out.push("must be no more than 253 characters".to_owned());
    }
    let rest = value.strip_prefix("*.");
    if !rest.is_some_and(common::labels::is_dns1123_subdomain) {
        out.push("a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned());
    }
    out
}

/// An address that may have zeros before its numbers, as old fields allow.
pub fn sloppy_ip(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = value.parse() {
        return Some(ip);
    }
    let parts: Vec<&str> = value.split('.').collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(digits) {
        return None;
    }
    let octets: Vec<u8> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into())
}

/// An address as `net.IP` shows it: mapped ones as IPv4.
fn shown(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

const ZEROS: &str = "must not have leading 0s";
const ZEROS_OF_RANGE: &str = "must not have leading 0s in IP or prefix length";
const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";
const MAPPED_RANGE: &str = "must not have an IPv4-mapped IPv6 address";
const BITS_BEYOND: &str = "must not have bits set beyond the prefix length";

/// What is wrong only since `StrictIPCIDRValidation`, in fields that are older.
pub const STRICT_ONLY: [&str; 5] = [ZEROS, ZEROS_OF_RANGE, MAPPED, MAPPED_RANGE, BITS_BEYOND];

/// What is wrong with an address in a field that is older than the strict rules.
pub fn legacy_ip(value: &str) -> Vec<String> {
    let Some(_) = sloppy_ip(value) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    };
    match value.parse::<IpAddr>() {
        Err(_) => vec![ZEROS.to_owned()],
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            vec![MAPPED.to_owned()]
        }
        Ok(_) => Vec::new(),
    }
}

/// What is wrong with an address in a new field.
pub fn strict_ip(value: &str) -> Vec<String> {
    let messages = legacy_ip(value);
    match value.parse::<IpAddr>() {
        Ok(ip) if messages.is_empty() && shown(ip) != value => {
            vec![format!("must be in canonical form (\"{}\")", shown(ip))]
        }
        _ => messages,
    }
}

/// An address and the length of a prefix, with zeros before their numbers or not.
fn sloppy_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = value.split_once('/')?;
    let ip = sloppy_ip(ip)?;
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let length: u8 = digits.then(|| length.parse().ok()).flatten()?;
    (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
}

/// Of a range that is one but for zeros before its numbers; `ipnet` reads over those in addresses.
fn has_leading_zeros(value: &str) -> bool {
    value.split_once('/').is_some_and(|(ip, length)| {
        ip.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'))
    })
}

/// What is wrong with a range in a field that is older than the strict rules.
pub fn legacy_cidr(value: &str) -> Vec<String> {
    const BAD: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    if sloppy_cidr(value).is_none() {
        return vec![BAD.to_owned()];
    }
    let zeros = vec![ZEROS_OF_RANGE.to_owned()];
    match IpNet::from_str(value) {
        _ if has_leading_zeros(value) => zeros,
        Err(_) => zeros,
        Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
            vec![MAPPED_RANGE.to_owned()]
        }
        Ok(net) if net.addr() != net.network() => {
            vec![BITS_BEYOND.to_owned()]
        }
        Ok(_) => Vec::new(),
    }
}

/// What is wrong with a range in a new field.
pub fn strict_cidr(value: &str) -> Vec<String> {
    let messages = legacy_cidr(value);
    match IpNet::from_str(value) {
        Ok(net) if messages.is_empty() && net.to_string() != value => {
            vec![format!("must be in canonical form (\"{net}\")")]
        }
        _ => messages,
    }
}

/// What is wrong with an address that keeps the length of its network's prefix (`10.0.0.1/24`).
pub fn interface_address(value: &str) -> Vec<String> {
    const BAD: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
    let Some((ip, length)) = sloppy_cidr(value) else { return vec![BAD.to_owned()] };
    let mapped = ip.is_ipv6() && ip.to_canonical().is_ipv4() && length > 32;
    let canonical = format!("{}/{}", shown(ip), if mapped { length.saturating_sub(96) } else { length });
    if canonical == value { Vec::new() } else { vec![format!("must be in canonical form (\"{canonical}\")")] }
}

/// What a client should know of an address that others may read otherwise (`GetWarningsForIP`).
pub fn address_advice(path: &str, value: &str) -> Option<String> {
    let ip = sloppy_ip(value)?;
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => None,
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => (v6.to_string() != value).then(|| {
            format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{v6}\")")
        }),
        _ => Some(format!("{path}: non-standard IP address {value:?} is invalid: use {:?}", shown(ip))),
    }
}

/// What a client should know of a range that others may read otherwise (`GetWarningsForCIDR`).
pub fn range_advice(path: &str, value: &str) -> Vec<String> {
    let mut out = Vec::new();
    let Some((ip, length)) = sloppy_cidr(value) else { return out };
    let Ok(net) = IpNet::new(ip, length).map(|net| net.trunc()) else { return out };
    if ip != net.addr() {
        let bits = net.max_prefix_len();
        out.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be \"{net}\" or \"{}/{bits}\"?)",
            shown(ip)
        ));
    }
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if mapped || has_leading_zeros(value) {
        out.push(format!("{path}: non-standard CIDR value {value:?} is invalid: use \"{net}\""));
    } else if out.is_empty() && ip.is_ipv6() && net.to_string() != value {
        out.push(format!(
            "{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format (\"{net}\")"
        ));
    }
    out
}

/// A range as text, without the bits beyond its prefix.
pub fn parse_cidr(value: &str) -> Option<IpNet> {
    IpNet::from_str(value).ok().map(|net| net.trunc())
}

/// Runs a kind's rules over bad objects in tests: the errors as text.
#[cfg(test)]
pub fn found(rules: super::rules::Rules, object: &Value) -> Vec<String> {
    use super::rules::KindStrategy;
    use crate::resources::Strategy;
    let mut object = object.clone();
    let strategy = KindStrategy::new(rules);
    strategy.default(&mut object);
    strategy.prepare_for_create(&mut object);
    strategy.validate(&object).0.iter().map(ToString::to_string).collect()
}

/// The errors of an update from `old` (defaulted and created first) by `change`.
#[cfg(test)]
pub fn found_on_update(
    rules: super::rules::Rules,
    old: &Value,
    change: impl FnOnce(&mut Value),
) -> Vec<String> {
    use super::rules::KindStrategy;
    use crate::resources::Strategy;
    let mut old = old.clone();
    let strategy = KindStrategy::new(rules);
    strategy.default(&mut old);
    strategy.prepare_for_create(&mut old);
    let mut new = old.clone();
    change(&mut new);
    strategy.prepare_for_update(&mut new, &old);
    strategy.validate_update(&new, &old).0.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_by_their_field() {
        assert!(legacy_ip("10.0.0.1").is_empty());
        assert_eq!(legacy_ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(legacy_ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(strict_ip("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
        assert!(legacy_cidr("10.0.0.0/8").is_empty());
        assert_eq!(legacy_cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(legacy_cidr("10.0.0.0/33").len(), 1);
        assert_eq!(legacy_cidr("010.0.0.0/8"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(legacy_cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(strict_cidr("2001:DB8::/32"), ["must be in canonical form (\"2001:db8::/32\")"]);
    }
}
