//! Config maps, secrets and service accounts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::status::FieldErrors;
use serde_json::Value;

use super::key_pair;
use crate::object::Object;
use crate::registry::names;
use crate::registry::rules::Rules;
use crate::registry::tree::{
    annotation, default_zero, entries, field, flag, has, map_mut, remove, same, text,
};

pub const CONFIG_MAP: Rules = Rules {
    validate: validate_config_map,
    validate_update: |new, old, errors| immutable(new, old, &["data", "binaryData"], errors),
    ..Rules::PLAIN
};

pub const SECRET: Rules = Rules {
    default: default_secret,
    validate: validate_secret,
    warnings: |secret, _| certificate_advice(secret).into_iter().collect(),
    prepare_update: |new, old| {
        if text(new, "type").is_empty() {
            super::super::tree::carry(new, old, "type");
        }
    },
    validate_update: |new, old, errors| {
        super::immutable(new, old, &["type"], errors);
        immutable(new, old, &["data"], errors);
    },
    ..Rules::PLAIN
};

pub const SERVICE_ACCOUNT: Rules =
    Rules { warnings: crate::registry::advice::of_service_account, ..Rules::PLAIN };

/// The limit on all values together (`MaxSecretSize`).
const BYTES_MAX: usize = 1024 * 1024;

fn immutable(new: &Object, old: &Object, keys: &[&str], errors: &mut FieldErrors) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for key in keys {
        if !same(field(new, key), field(old, key)) {
            errors.forbidden(*key, "field is immutable when `immutable` is set");
        }
    }
}

fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    STANDARD.decode(text).map_or(text.len(), |b| b.len())
}

fn validate_config_map(object: &Object, errors: &mut FieldErrors) {
    let mut total = 0;
    for (key, value) in entries(object, "data") {
        for message in names::config_map_key(key) {
            errors.invalid(format!("data[{key}]"), key, message);
        }
        if has(field(object, "binaryData"), key) {
            errors.invalid(format!("data[{key}]"), key, "duplicate of key present in binaryData");
        }
        total += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(object, "binaryData") {
        for message in names::config_map_key(key) {
            errors.invalid(format!("binaryData[{key}]"), key, message);
        }
        total += decoded_len(value);
    }
    if total > BYTES_MAX {
        errors.too_long("", BYTES_MAX);
    }
}

fn default_secret(secret: &mut Object) {
    default_zero(secret, "type", "Opaque");
    if let Some(plain) =
        remove(secret, "stringData").as_ref().and_then(Value::as_object).filter(|m| !m.is_empty())
        && let Some(data) = map_mut(secret, "data")
    {
        for (key, value) in plain {
            data.insert(key.clone(), Value::String(STANDARD.encode(value.as_str().unwrap_or(""))));
        }
    }
}

fn validate_secret(secret: &Object, errors: &mut FieldErrors) {
    let data = field(secret, "data");
    let mut total = 0;
    for (key, value) in data.as_object().into_iter().flatten() {
        for message in names::config_map_key(key) {
            errors.invalid(format!("data[{key}]"), key, message);
        }
        total += decoded_len(value);
    }
    if total > BYTES_MAX {
        errors.too_long("data", BYTES_MAX);
    }
    let mut need = |key: &str| {
        if !has(data, key) {
            errors.required(format!("data[{key}]"), "");
        }
    };
    match text(secret, "type") {
        "kubernetes.io/dockercfg" => {
            need(".dockercfg");
            json_value(data, ".dockercfg", errors);
        }
        "kubernetes.io/dockerconfigjson" => {
            need(".dockerconfigjson");
            json_value(data, ".dockerconfigjson", errors);
        }
        "kubernetes.io/basic-auth" if !has(data, "username") && !has(data, "password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            errors.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/service-account-token"
            if annotation(secret, "kubernetes.io/service-account.name").unwrap_or("").is_empty() =>
        {
            errors.required("metadata.annotations[kubernetes.io/service-account.name]", "");
        }
        _ => {}
    }
}

fn json_value(data: &Value, key: &str, errors: &mut FieldErrors) {
    let Some(bytes) = field(data, key).as_str().and_then(|t| STANDARD.decode(t).ok()) else { return };
    // Go reads null as an empty map.
    if let Err(error) = serde_json::from_slice::<Option<serde_json::Map<String, Value>>>(&bytes) {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        errors.invalid(format!("data[{key}]"), "<secret contents redacted>", why);
    }
}

/// Whether the key of a TLS secret is that of its certificate.
fn certificate_advice(secret: &Object) -> Option<String> {
    if text(secret, "type") != "kubernetes.io/tls" {
        return None;
    }
    let bytes = |key: &str| STANDARD.decode(text(field(secret, "data"), key)).unwrap_or_default();
    key_pair::problem(&bytes("tls.crt"), &bytes("tls.key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_is_merged() {
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        default_secret(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eQ==", "b": "eg=="}}));
    }

    #[test]
    fn contents_are_those_of_the_type() {
        let check = |kind: &str, data: Value, expected: &[&str]| {
            let secret = json!({"type": format!("kubernetes.io/{kind}"), "data": data});
            assert_eq!(crate::registry::checks::found(SECRET, &secret), expected);
        };
        check("ssh-auth", json!({"ssh-privatekey": "eA=="}), &[]);
        check("ssh-auth", json!({"ssh-privatekey": ""}), &["data[ssh-privatekey]: Required value"]);
        check("ssh-auth", json!({}), &["data[ssh-privatekey]: Required value"]);
        check("dockercfg", json!({".dockercfg": STANDARD.encode("null")}), &[]);
        check("dockercfg", json!({".dockercfg": STANDARD.encode("{}")}), &[]);
        check(
            "dockerconfigjson",
            json!({".dockerconfigjson": ""}),
            &[
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input",
            ],
        );
    }

    #[test]
    fn a_certificate_with_the_key_of_another_is_commented() {
        let of = |kind: &str| {
            let secret = json!({"type": kind, "data": {"tls.crt": "eA==", "tls.key": "eA=="}});
            (SECRET.warnings)(&secret, None)
        };
        assert_eq!(of("kubernetes.io/tls"), ["tls: failed to find any PEM data in certificate input"]);
        assert!(of("Opaque").is_empty());
    }

    #[test]
    fn an_immutable_map_stays() {
        let mut errors = FieldErrors::new();
        let old = json!({"immutable": true, "data": {"a": "b"}});
        (CONFIG_MAP.validate_update)(&json!({"immutable": true, "data": {"a": "c"}}), &old, &mut errors);
        assert_eq!(errors.0[0].to_string(), "data: Forbidden: field is immutable when `immutable` is set");
    }
}
