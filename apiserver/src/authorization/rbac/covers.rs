//! Whether some rules grant at least what others grant (`validation.Covers` upstream): for escalation checks
//! and for the reconciliation of the default roles.

use crate::authorization::PolicyRule;

/// What of `wanted` is not granted by `owned`, broken down to one verb and one resource each. Empty: covered.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(break_down)
        .filter(|single| !owned.iter().any(|owner| covers(owner, single)))
        .collect()
}

fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let single = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Default::default()
                };
                if rule.resource_names.is_empty() {
                    out.push(single);
                } else {
                    out.extend(
                        rule.resource_names
                            .iter()
                            .map(|name| PolicyRule { resource_names: one(name), ..single.clone() }),
                    );
                }
            }
        }
        out.extend(rule.non_resource_urls.iter().map(|url| PolicyRule {
            verbs: one(verb),
            non_resource_urls: one(url),
            ..Default::default()
        }));
    }
    out
}

fn covers(owner: &PolicyRule, single: &PolicyRule) -> bool {
    let all = |set: &[String], wanted: &[String]| {
        set.iter().any(|item| item == "*") || wanted.iter().all(|item| set.contains(item))
    };
    let resources = all(&owner.resources, &single.resources)
        || single.resources.iter().all(|path| {
            owner.resources.contains(path)
                || path.split_once('/').is_some_and(|(_, sub)| owner.resources.contains(&format!("*/{sub}")))
        });
    let urls = single.non_resource_urls.iter().all(|url| {
        owner
            .non_resource_urls
            .iter()
            .any(|own| own == url || (own.ends_with('*') && url.starts_with(own.trim_end_matches('*'))))
    });
    let names = owner.resource_names.is_empty()
        || (!single.resource_names.is_empty()
            && single.resource_names.iter().all(|name| owner.resource_names.contains(name)));
    all(&owner.verbs, &single.verbs)
        && all(&owner.api_groups, &single.api_groups)
        && resources
        && urls
        && names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        PolicyRule {
            verbs: list(verbs),
            api_groups: list(&[""]),
            resources: list(resources),
            resource_names: list(names),
            ..Default::default()
        }
    }

    #[test]
    fn rules_are_compared_piece_by_piece() {
        let owned = [rule(&["get", "list"], &["pods"], &[]), rule(&["*"], &["*/scale"], &[])];
        assert!(uncovered(&owned, &[rule(&["get"], &["pods"], &["a"])]).is_empty());
        assert!(uncovered(&owned, &[rule(&["update"], &["deployments/scale"], &[])]).is_empty());
        let missing = uncovered(&owned, &[rule(&["get", "delete"], &["pods", "nodes"], &[])]);
        assert_eq!(
            missing,
            [
                rule(&["get"], &["nodes"], &[]),
                rule(&["delete"], &["pods"], &[]),
                rule(&["delete"], &["nodes"], &[])
            ]
        );
        let named = [rule(&["get"], &["pods"], &["a"])];
        assert_eq!(uncovered(&named, &[rule(&["get"], &["pods"], &[])]).len(), 1);
    }
}
