//! Whether one rule covers one request (`rbac.RuleAllows` upstream).

use crate::authorization::{Attributes, PolicyRule};

const ALL: &str = "*";

pub fn rules_allow(attributes: &Attributes, rules: &[PolicyRule]) -> bool {
    rules.iter().any(|rule| rule_allows(attributes, rule))
}

pub fn rule_allows(attributes: &Attributes, rule: &PolicyRule) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|item| item == ALL || item == wanted);
    if !has(&rule.verbs, &attributes.verb) {
        return false;
    }
    if !attributes.is_resource {
        return rule.non_resource_urls.iter().any(|url| url_matches(url, &attributes.path));
    }
    has(&rule.api_groups, &attributes.group)
        && rule.resources.iter().any(|r| resource_matches(r, &attributes.resource, &attributes.subresource))
        && (rule.resource_names.is_empty() || rule.resource_names.contains(&attributes.name))
}

/// `pods`, `pods/log`, `*`, or `*/scale`; `pods` does not cover `pods/log`.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some((r, s)) => s == subresource && (r == ALL || r == resource),
        None => false,
    }
}

/// Exact, or a prefix when the rule ends in `*`.
fn url_matches(rule: &str, path: &str) -> bool {
    rule == path || (rule.ends_with(ALL) && path.starts_with(rule.trim_end_matches('*')))
}
