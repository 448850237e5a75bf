//! Node selectors, compiled. A term that cannot be read matches nothing, as upstream treats it here.

use common::labels::{Requirement, Selector};
use k8s_openapi::api::core::v1 as core;

use super::Node;

/// Terms are alternatives.
#[derive(Debug, Clone, Default)]
pub struct NodeSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    labels: Selector,
    /// `metadata.name` in or not in one name.
    fields: Vec<(bool, Vec<String>)>,
}

#[derive(Debug, Clone)]
pub struct PreferredTerm {
    pub weight: i64,
    selector: NodeSelector,
}

/// `nodeSelector` and the required node affinity of a pod.
#[derive(Debug, Clone, Default)]
pub struct RequiredNodeAffinity {
    pub node_selector: Option<Selector>,
    pub affinity: Option<NodeSelector>,
}

impl RequiredNodeAffinity {
    pub fn matches(&self, node: &Node) -> bool {
        self.node_selector.as_ref().is_none_or(|s| s.matches(node.labels.as_ref()))
            && self.affinity.as_ref().is_none_or(|a| a.matches(node))
    }

    pub fn is_empty(&self) -> bool {
        self.node_selector.is_none() && self.affinity.is_none()
    }
}

impl NodeSelector {
    pub fn new(selector: &core::NodeSelector) -> Self {
        Self { terms: selector.node_selector_terms.iter().filter_map(Term::new).collect() }
    }

    pub fn matches(&self, node: &Node) -> bool {
        self.terms.iter().any(|term| term.matches(node))
    }

    /// The nodes the selector can match at all, when every term names some: `Some` and empty is a conflict.
    pub fn node_names(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for term in &self.terms {
            let mut named = term.fields.iter().filter(|(is_in, _)| *is_in).map(|(_, names)| names);
            let first = named.next()?.clone();
            all.extend(named.fold(first, |acc, next| acc.into_iter().filter(|n| next.contains(n)).collect()));
        }
        (!self.terms.is_empty()).then_some(all)
    }
}

impl PreferredTerm {
    pub fn new(term: &core::PreferredSchedulingTerm) -> Self {
        let terms = Term::new(&term.preference).into_iter().collect();
        Self { weight: i64::from(term.weight), selector: NodeSelector { terms } }
    }

    pub fn matches(&self, node: &Node) -> bool {
        self.weight != 0 && self.selector.matches(node)
    }
}

impl Term {
    /// None for an empty or unreadable term: it matches nothing.
    fn new(term: &core::NodeSelectorTerm) -> Option<Self> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let mut labels = Selector::everything();
        for expression in expressions {
            labels.requirements.push(requirement(expression)?);
        }
        let fields = fields.iter().map(field).collect::<Option<Vec<_>>>()?;
        Some(Self { labels, fields })
    }

    fn matches(&self, node: &Node) -> bool {
        self.labels.matches(node.labels.as_ref())
            && self.fields.iter().all(|(is_in, names)| names.iter().any(|n| **n == *node.name) == *is_in)
    }
}

fn field(expression: &core::NodeSelectorRequirement) -> Option<(bool, Vec<String>)> {
    if expression.key != "metadata.name" {
        return None;
    }
    let values = expression.values.clone().unwrap_or_default();
    match expression.operator.as_str() {
        "In" => Some((true, values)),
        "NotIn" => Some((false, values)),
        _ => None,
    }
}

fn requirement(expression: &core::NodeSelectorRequirement) -> Option<Requirement> {
    let key = expression.key.clone();
    let values = expression.values.clone().unwrap_or_default();
    let number = || values.first().and_then(|v| v.parse().ok());
    Some(match expression.operator.as_str() {
        "In" if !values.is_empty() => Requirement::In(key, values.into_iter().collect()),
        "NotIn" if !values.is_empty() => Requirement::NotIn(key, values.into_iter().collect()),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::DoesNotExist(key),
        "Gt" => Requirement::GreaterThan(key, number()?),
        "Lt" => Requirement::LessThan(key, number()?),
        _ => return None,
    })
}
