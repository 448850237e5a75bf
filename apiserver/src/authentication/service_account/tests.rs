use jiff::Timestamp;

use super::*;

fn pki() -> (tempdir::Dir, Signer) {
    let dir = tempdir::Dir::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let path = dir.path().join("sa.key");
    std::fs::write(&path, key.serialize_pem()).expect("written");
    let signer = Signer::load("https://kubernetes.default.svc", &path).expect("a signer");
    (dir, signer)
}

mod tempdir {
    use std::path::{Path, PathBuf};

    pub struct Dir(PathBuf);

    impl Dir {
        pub fn new() -> Self {
            let path = std::env::temp_dir().join(format!("pintle-sa-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir_all(&path).expect("created");
            Self(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn claims(now: Timestamp) -> Claims {
    let bindings = Bindings {
        namespace: "default".into(),
        service_account: ObjectRef::new("builder", "u1"),
        pod: Some(ObjectRef::new("web", "u2")),
        node: Some(ObjectRef::new("n1", "u3")),
        secret: None,
    };
    Claims::new(bindings, vec!["api".into()], now, 600, 0)
}

#[test]
fn a_signed_token_verifies_until_it_expires() {
    let (_dir, signer) = pki();
    let now = Timestamp::from_second(1_700_000_000).expect("in range");
    let token = signer.sign(&claims(now)).expect("signed");
    let verifier = Verifier::new(vec![signer.issuer().into()], vec![signer.public_key()], vec!["api".into()]);
    let verified = verifier.verify(&token, &[], now).expect("holds").expect("ours");
    let user = user_of(&verified.claims);
    assert_eq!(user.name, "system:serviceaccount:default:builder");
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["u3"]);
    let later = Timestamp::from_second(1_700_000_000 + 700).expect("in range");
    assert_eq!(verifier.verify(&token, &[], later), Err(VerifyError::Expired));
    let other = verifier.verify(&token, &["vault".into()], now);
    assert!(matches!(other, Err(VerifyError::Audience { .. })));
}

#[test]
fn a_changed_or_foreign_token_does_not_verify() {
    let (_dir, signer) = pki();
    let (_other_dir, other) = pki();
    let now = Timestamp::from_second(1_700_000_000).expect("in range");
    let token = signer.sign(&claims(now)).expect("signed");
    let verifier = Verifier::new(vec![signer.issuer().into()], vec![other.public_key()], vec!["api".into()]);
    assert_eq!(verifier.verify(&token, &[], now), Err(VerifyError::UnknownKey));
    let foreign = Verifier::new(vec!["https://elsewhere".into()], vec![], vec![]);
    assert_eq!(foreign.verify(&token, &[], now), Ok(None));
    assert_eq!(verifier.verify("not.a.jwt", &[], now), Ok(None));
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[1] = "e30";
    assert_eq!(verifier.verify(&parts.join("."), &[], now), Ok(None));
}

#[test]
fn key_documents_name_the_signing_key() {
    let (_dir, signer) = pki();
    let documents = OpenIdDocuments::new(signer.issuer(), "https://h/openid/v1/jwks", &[signer.public_key()])
        .expect("an https issuer");
    let jwks: serde_json::Value = serde_json::from_slice(&documents.jwks).expect("json");
    assert_eq!(jwks["keys"][0]["kty"], "EC");
    assert_eq!(jwks["keys"][0]["kid"], signer.public_key().id.as_str());
    assert_eq!(jwks["keys"][0]["x"].as_str().map(str::len), Some(43));
}
