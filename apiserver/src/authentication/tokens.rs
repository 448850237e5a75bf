//! All kinds of bearer token, in upstream's order.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::service_account::{self, Verifier};
use super::token_file::TokenFile;
use super::{Authentication, AuthenticationError, TokenAuthenticator, bootstrap_token};
use crate::resources::Registry;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Static tokens, service account tokens, bootstrap tokens.
pub struct Tokens {
    pub registry: Arc<Registry>,
    pub file: Option<TokenFile>,
    pub service_accounts: Option<Verifier>,
    /// `--service-account-lookup`: what a token is bound to must still exist.
    pub lookup: bool,
    pub bootstrap: bool,
    pub api_audiences: Vec<String>,
}

impl Tokens {
    /// Tokens without audiences of their own are good for the server itself.
    fn own_audiences(&self, wanted: &[String]) -> Result<Vec<String>, AuthenticationError> {
        if wanted.is_empty() {
            return Ok(self.api_audiences.clone());
        }
        let held: Vec<String> = wanted.iter().filter(|a| self.api_audiences.contains(a)).cloned().collect();
        if held.is_empty() {
            return Err(AuthenticationError(format!(
                "token audiences {:?} is invalid for the target audiences {wanted:?}",
                self.api_audiences
            )));
        }
        Ok(held)
    }
}

#[async_trait]
impl TokenAuthenticator for Tokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authentication>, AuthenticationError> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let now = Timestamp::now();
        if let Some(user) = self.file.as_ref().and_then(|file| file.user(token)) {
            let audiences = self.own_audiences(audiences)?;
            return Ok(Some(Authentication { user: user.clone(), audiences }));
        }
        if let Some(verifier) = &self.service_accounts
            && let Some(verified) = verifier
                .verify(token, audiences, now)
                .map_err(|error| AuthenticationError(error.to_string()))?
        {
            if self.lookup {
                service_account::validator::validate(&verified.claims, &self.registry, now).await?;
            }
            let user = service_account::user_of(&verified.claims);
            return Ok(Some(Authentication { user, audiences: verified.audiences }));
        }
        if self.bootstrap
            && let Some(user) = bootstrap_token::authenticate(&self.registry, token, now)
        {
            return Ok(Some(Authentication { user, audiences: self.own_audiences(audiences)? }));
        }
        Ok(None)
    }
}
