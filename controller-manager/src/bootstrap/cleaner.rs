//! Deletes bootstrap tokens when their time is over.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::token::{Life, life};
use crate::controller::{
    Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_conflict, is_not_found,
};
use crate::daemon::Context;
use crate::views::BootstrapToken;

struct Cleaner {
    rest: Rest,
    tokens: Informer<BootstrapToken>,
}

/// Registers the handlers and starts the worker. Each token sets its own timer; nothing polls.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("token_cleaner");
    let tokens = context.informers.of::<BootstrapToken>();
    {
        let queue = queue.clone();
        tokens.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(change.object().key());
            }
        });
    }
    let controller = Arc::new(Cleaner { rest: context.rest.clone(), tokens });
    context.run(queue, controller, 1);
}

#[async_trait]
impl Reconcile for Cleaner {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(token) = self.tokens.store().get(key) else { return Ok(Outcome::Done) };
        match life(&token, Timestamp::now()) {
            Life::Unlimited => return Ok(Outcome::Done),
            Life::For(left) => return Ok(Outcome::RequeueAfter(left)),
            Life::Over => {}
        }
        tracing::info!(token = %key, "deleting an expired bootstrap token");
        match self.rest.delete::<BootstrapToken>(token.namespace(), token.name(), token.uid(), None).await {
            // Gone, or another by the same name.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(Outcome::Done),
            Err(error) => Err(Error::api("delete an expired bootstrap token")(error)),
            Ok(()) => Ok(Outcome::Done),
        }
    }
}
