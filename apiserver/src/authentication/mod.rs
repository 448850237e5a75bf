//! Who asks. Turns certificates and bearer tokens into a [`UserInfo`]; decides nothing about what that user may
//! do (`authorization`) and writes nothing.
//!
//! Answers to `k8s.io/apiserver/pkg/authentication` and `pkg/kubeapiserver/authenticator` upstream. The order is
//! upstream's: front proxy headers, client certificate, then bearer tokens (static file, service accounts,
//! bootstrap), then anonymous. A credential that is presented and wrong is a 401, never anonymous.

pub mod bootstrap_token;
mod request;
pub mod request_header;
pub mod service_account;
pub mod token_file;
mod tokens;
pub mod x509;

use async_trait::async_trait;

pub use request::{Credentials, RequestAuthenticator};
pub use tokens::Tokens;

use crate::request::UserInfo;

/// The group of everyone who authenticated.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// The group of everyone who did not.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
/// The user of a request without credentials.
pub const ANONYMOUS_USER: &str = "system:anonymous";

/// Why a credential was refused. The text goes to TokenReview's `status.error` and to the log, never to the
/// client of a plain request (which sees only `Unauthorized`).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

/// A credential that held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    pub user: UserInfo,
    /// The audiences the credential was valid for, among those asked for; empty when it is bound to none.
    pub audiences: Vec<String>,
}

/// Bearer tokens to users; what TokenReview asks.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// `audiences` empty means the server's own. `Ok(None)`: not a token of a kind known here.
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authentication>, AuthenticationError>;
}
