//! Whether a FlowSchema is about a request.

use super::objects::{NonResourceRule, PolicyRule, ResourceRule, Subject};
use crate::request::{RequestInfo, UserInfo};

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// True when one of the rules is about the request.
pub fn matches(rules: &[PolicyRule], info: &RequestInfo, user: &UserInfo) -> bool {
    rules.iter().any(|rule| {
        rule.subjects.iter().any(|subject| is_subject(subject, user))
            && if info.is_resource {
                rule.resource_rules.iter().any(|rule| is_resource(rule, info))
            } else {
                rule.non_resource_rules.iter().any(|rule| is_path(rule, info))
            }
    })
}

fn is_subject(subject: &Subject, user: &UserInfo) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|u| u.name == "*" || u.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|g| g.name == "*" || user.in_group(&g.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|account| {
            user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':')).is_some_and(
                |(namespace, name)| {
                    namespace == account.namespace && (account.name == "*" || account.name == name)
                },
            )
        }),
        _ => false,
    }
}

fn is_resource(rule: &ResourceRule, info: &RequestInfo) -> bool {
    holds(&rule.verbs, &info.verb)
        && holds_resource(&rule.resources, &info.resource, &info.subresource)
        && holds(&rule.api_groups, &info.group)
        && if info.namespace.is_empty() {
            rule.cluster_scope
        } else {
            holds(&rule.namespaces, &info.namespace)
        }
}

fn is_path(rule: &NonResourceRule, info: &RequestInfo) -> bool {
    holds(&rule.verbs, &info.verb)
        && rule.urls.iter().any(|url| {
            if url == "*" || *url == info.path {
                return true;
            }
            let prefix = url.strip_suffix('*').unwrap_or(url);
            let rest = info.path.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.ends_with('/') || rest.starts_with('/'))
        })
}

/// `*` stands for all only when it stands alone, which validation sees to.
fn is_all(list: &[String]) -> bool {
    matches!(list, [only] if only == "*")
}

fn holds(list: &[String], value: &str) -> bool {
    is_all(list) || list.iter().any(|item| item == value)
}

fn holds_resource(list: &[String], resource: &str, subresource: &str) -> bool {
    is_all(list)
        || list.iter().any(|item| {
            if subresource.is_empty() {
                return item == resource;
            }
            item.split_once('/').is_some_and(|(r, s)| r == resource && s == subresource)
        })
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::filters::request_info;

    fn check(rule: Value, user: &str, groups: &[&str], method: &Method, path: &str) -> bool {
        let rule: PolicyRule = serde_json::from_value(rule).unwrap();
        let user = UserInfo {
            name: user.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..Default::default()
        };
        matches(&[rule], &request_info::parse(method, path, "").unwrap(), &user)
    }

    #[test]
    fn subjects() {
        let on = |subject: Value| {
            json!({"subjects": [subject], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"],
                "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]})
        };
        let path = "/api/v1/namespaces/a/pods";
        let account = |ns: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": ns, "name": name}});
        let sa = "system:serviceaccount:kube-system:job";
        for (subject, user, expected) in [
            (json!({"kind": "User", "user": {"name": "jane"}}), "jane", true),
            (json!({"kind": "User", "user": {"name": "jane"}}), "joe", false),
            (json!({"kind": "User", "user": {"name": "*"}}), "joe", true),
            (json!({"kind": "Group", "group": {"name": "g"}}), "joe", true),
            (json!({"kind": "Group", "group": {"name": "h"}}), "joe", false),
            (account("kube-system", "*"), sa, true),
            (account("kube-system", "job"), sa, true),
            (account("kube", "*"), sa, false),
            (account("kube-system", "other"), sa, false),
            (json!({"kind": "User"}), "jane", false),
        ] {
            assert_eq!(
                check(on(subject.clone()), user, &["g"], &Method::GET, path),
                expected,
                "{subject} {user}"
            );
        }
    }

    #[test]
    fn resources_and_paths() {
        let anyone = json!([{"kind": "Group", "group": {"name": "*"}}]);
        let rule = |resources: Value, namespaces: Value, cluster: bool| {
            json!({"subjects": anyone, "resourceRules": [{"verbs": ["get", "list"], "apiGroups": [""],
                "resources": resources, "namespaces": namespaces, "clusterScope": cluster}]})
        };
        let pod = "/api/v1/namespaces/a/pods/p";
        assert!(check(rule(json!(["pods"]), json!(["a"]), false), "u", &[], &Method::GET, pod));
        assert!(!check(rule(json!(["pods"]), json!(["b"]), false), "u", &[], &Method::GET, pod));
        assert!(!check(rule(json!(["pods"]), json!(["*"]), true), "u", &[], &Method::PUT, pod));
        assert!(!check(rule(json!(["pods"]), json!(["*"]), false), "u", &[], &Method::GET, "/api/v1/pods"));
        let status = "/api/v1/namespaces/a/pods/p/status";
        assert!(!check(rule(json!(["pods"]), json!(["*"]), true), "u", &[], &Method::GET, status));
        assert!(check(rule(json!(["pods/status"]), json!(["*"]), true), "u", &[], &Method::GET, status));
        let path = |url: &str| json!({"subjects": anyone, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]});
        for (url, asked, expected) in [
            ("*", "/metrics", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", true),
            ("/healthz", "/healthzy", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/livez", "/readyz", false),
        ] {
            assert_eq!(check(path(url), "u", &[], &Method::GET, asked), expected, "{url} {asked}");
        }
    }
}
