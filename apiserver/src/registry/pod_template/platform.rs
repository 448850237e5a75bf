//! What a pod may not say for the operating system it names, and the Windows options.

use common::status::FieldErrors;

use crate::registry::checks::At;
use crate::registry::names;

const GMSA_BYTES_MAX: usize = 64 * 1024;
const DOMAIN_CHARACTERS_MAX: usize = 256;
const USER_CHARACTERS_MAX: usize = 104;
const NO_WINDOWS_OPTIONS: &str = "windows options cannot be set for a linux pod";
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";

/// Fields of the pod's security context that Windows does not have.
const POD_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const CONTAINER_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Every container, in the order in which upstream visits them.
fn containers<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|key| spec.each(key)).collect()
}

/// The rules of `spec.os.name`.
pub fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    if !spec.has("os") {
        return;
    }
    let os = spec.at("os");
    match os.text("name") {
        "" => os.required("name", "", errors),
        "linux" => {
            let contexts = containers(spec).into_iter().map(|c| c.at("securityContext"));
            for context in std::iter::once(spec.at("securityContext")).chain(contexts) {
                if context.has("windowsOptions") {
                    context.forbidden("windowsOptions", NO_WINDOWS_OPTIONS, errors);
                }
            }
        }
        "windows" => windows(spec, errors),
        name => errors.not_supported(&os.path, name, &["linux", "windows"]),
    }
}

fn windows(spec: &At<'_>, errors: &mut FieldErrors) {
    let mut forbid = |owner: &At<'_>, key: &str| owner.forbidden(key, NOT_ON_WINDOWS, errors);
    let context = spec.at("securityContext");
    for key in POD_CONTEXT.iter().filter(|key| context.has(key)) {
        forbid(&context, key);
    }
    if !context.each("sysctls").is_empty() {
        forbid(&context, "sysctls");
    }
    for key in ["hostPID", "hostIPC"] {
        if spec.flag(key) {
            forbid(spec, key);
        }
    }
    for key in ["hostUsers", "shareProcessNamespace"] {
        if spec.has(key) {
            forbid(spec, key);
        }
    }
    for context in containers(spec).iter().map(|container| container.at("securityContext")) {
        for key in CONTAINER_CONTEXT.iter().filter(|key| context.has(key)) {
            forbid(&context, key);
        }
    }
}

/// Pods of host processes: all containers or none, and in the host's network.
pub fn host_process(spec: &At<'_>, errors: &mut FieldErrors) {
    let said = |owner: &At<'_>| {
        let options = owner.at("securityContext").at("windowsOptions");
        options.has("hostProcess").then(|| options.flag("hostProcess"))
    };
    let pod = said(spec);
    let all = containers(spec);
    let mut running = 0;
    for container in &all {
        let own = said(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            errors.invalid(
                container.under("securityContext.windowsOptions.hostProcess"),
                own,
                format!("pod hostProcess value must be identical if both are specified, was {pod}"),
            );
        }
        running += usize::from(own.or(pod).unwrap_or(false));
    }
    if running == 0 {
        return;
    }
    if running != all.len() {
        errors.invalid(
            &spec.path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if !spec.flag("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(spec.under("hostNetwork"), false, detail);
    }
}

/// `windowsOptions` of a pod's or a container's security context.
pub fn windows_options(options: &At<'_>, errors: &mut FieldErrors) {
    if options.has("gmsaCredentialSpecName") {
        options.shaped("gmsaCredentialSpecName", names::dns1123_subdomain, errors);
    }
    if options.has("gmsaCredentialSpec") {
        let bytes = options.text("gmsaCredentialSpec").len();
        if bytes == 0 {
            let detail = "gmsaCredentialSpec cannot be an empty string";
            options.invalid("gmsaCredentialSpec", detail, errors);
        } else if bytes > GMSA_BYTES_MAX {
            let detail = format!("gmsaCredentialSpec size must be under {} KiB", GMSA_BYTES_MAX / 1024);
            options.invalid("gmsaCredentialSpec", detail, errors);
        }
    }
    if options.has("runAsUserName") {
        user_name(options, errors);
    }
}

/// `[DOMAIN\]USER`.
fn user_name(options: &At<'_>, errors: &mut FieldErrors) {
    let name = options.text("runAsUserName");
    let mut bad = |detail: String| options.invalid("runAsUserName", detail, errors);
    if name.is_empty() {
        return bad("runAsUserName cannot be an empty string".to_owned());
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return bad("runAsUserName cannot contain control characters".to_owned());
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return bad("runAsUserName cannot contain more than one backslash".to_owned()),
    };
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_CHARACTERS_MAX {
            bad(format!("runAsUserName's Domain length must be under {DOMAIN_CHARACTERS_MAX} characters"));
        }
        let net_bios = (1..=15).contains(&domain.chars().count())
            && !domain.contains(['\\', '/', ':', '*', '?', '<', '>', '|', '.'])
            || domain.chars().count() <= 15
                && domain.chars().next().is_some_and(|c| !"\\/:*?<>|.".contains(c))
                && !domain.contains(['\\', '/', ':', '*', '?', '<', '>', '|']);
        let dns = domain.split('.').count() > 0
            && domain.len() <= 255
            && domain.split('.').all(|part| {
                !part.is_empty()
                    && part.len() <= 63
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            });
        if !net_bios && !dns {
            bad("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        bad("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_CHARACTERS_MAX {
        bad(format!("runAsUserName's User length must not be longer than {USER_CHARACTERS_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        bad("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        bad("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        let mut errors = FieldErrors::new();
        let at = At { value: &spec, path: "spec".to_owned() };
        validate(&at, &mut errors);
        host_process(&at, &mut errors);
        windows_options(&at.at("securityContext").at("windowsOptions"), &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{spec}");
    }

    #[test]
    fn each_system_has_its_own_fields() {
        check(json!({"os": {"name": "linux"}}), &[]);
        check(
            json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}}),
            &[
                "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            ],
        );
        check(
            json!({"os": {"name": "windows"}, "hostPID": true,
            "containers": [{"securityContext": {"privileged": false}}]}),
            &[
                "spec.hostPID: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ],
        );
        check(
            json!({"os": {"name": "plan9"}}),
            &["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
        );
        check(
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [{}]}),
            &[
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
            ],
        );
        check(
            json!({"securityContext": {"windowsOptions": {"runAsUserName": "a\\b\\c"}}}),
            &[
                "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
            ],
        );
    }
}
