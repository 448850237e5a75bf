//! Writers, watchers and readers that do as their seed says, and note everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ledger::{GetNote, Ledger, ListNote, Session, WriteNote};
use super::{Api, Change, Content, Key, ListAsk, Refusal, Scope, Told, Verdict, WatchAsk, Written};

/// How much of what.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// How long writers write.
    pub duration: Duration,
    pub writers: usize,
    pub watchers: usize,
    pub readers: usize,
    pub namespaces: Vec<String>,
    pub names: usize,
    /// Longest pause between two writes of a writer.
    pub write_pause: Duration,
    /// Writes that a writer does now and then without any pause: enough to leave slow watchers behind.
    pub burst: usize,
    /// Longest wait for everybody to have been told everything, once faults have ended.
    pub patience: Duration,
}

/// Per key the revision of its last write, once there are no more.
type Ends = Option<HashMap<Key, u64>>;

struct Shared {
    plan: Plan,
    api: Vec<Arc<dyn Api>>,
    ledger: Ledger,
    tokens: AtomicU64,
    over: AtomicBool,
    ends: watch::Sender<Ends>,
}

/// Runs the plan against the servers, which are of one store. `calm` is called when writers have stopped and
/// must end all faults: from there everybody must come to the same end.
///
/// # Errors
/// When that end is not reached in time.
pub async fn run(
    plan: Plan,
    api: Vec<Arc<dyn Api>>,
    calm: impl AsyncFnOnce(),
) -> Result<super::ledger::Notes, String> {
    let shared = Arc::new(Shared {
        plan: plan.clone(),
        api,
        ledger: Ledger::default(),
        tokens: AtomicU64::new(0),
        over: AtomicBool::new(false),
        ends: watch::Sender::new(None),
    });
    let mut seeds = StdRng::seed_from_u64(plan.seed);
    let mut work = Vec::new();
    for _ in 0..plan.writers {
        work.push(tokio::spawn(write(shared.clone(), seeds.random())));
    }
    for _ in 0..plan.readers {
        work.push(tokio::spawn(read(shared.clone(), seeds.random())));
    }
    let watchers: Vec<_> =
        (0..plan.watchers).map(|_| tokio::spawn(follow(shared.clone(), seeds.random()))).collect();
    sleep(plan.duration).await;
    shared.over.store(true, Ordering::SeqCst);
    for task in work {
        timeout(plan.patience, task)
            .await
            .map_err(|_| "a writer or reader hangs")?
            .map_err(|e| e.to_string())?;
    }
    calm().await;
    timeout(plan.patience, touch_all(&shared))
        .await
        .map_err(|_| "writes do not work again after the faults")?;
    for task in watchers {
        timeout(plan.patience, task)
            .await
            .map_err(|_| "a watcher never came to the end")?
            .map_err(|e| e.to_string())?;
    }
    let last = ListAsk::default();
    timeout(plan.patience, async {
        while !list(&shared, &shared.api[0], last.clone(), &mut StdRng::seed_from_u64(0)).await {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .map_err(|_| "lists do not work again after the faults")?;
    let shared = Arc::into_inner(shared).ok_or("somebody still works")?;
    Ok(shared.ledger.into_notes())
}

impl Shared {
    fn keys(&self) -> Vec<Key> {
        let names = |namespace: &String| {
            let namespace = namespace.clone();
            (0..self.plan.names).map(move |n| Key { namespace: namespace.clone(), name: format!("k{n}") })
        };
        self.plan.namespaces.iter().flat_map(names).collect()
    }

    fn key(&self, rng: &mut StdRng) -> Key {
        let keys = self.keys();
        keys[rng.random_range(0..keys.len())].clone()
    }

    fn scope(&self, rng: &mut StdRng) -> Scope {
        let mut scope = Scope::default();
        if rng.random_bool(0.4) {
            let at = rng.random_range(0..self.plan.namespaces.len());
            scope.namespace = Some(self.plan.namespaces[at].clone());
        }
        if rng.random_bool(0.3) {
            scope.app = Some(if rng.random_bool(0.5) { "x" } else { "y" }.into());
        }
        if rng.random_bool(0.2) {
            scope.name = Some(self.key(rng).name);
        }
        scope
    }

    fn server(&self, rng: &mut StdRng) -> Arc<dyn Api> {
        self.api[rng.random_range(0..self.api.len())].clone()
    }

    async fn change(&self, api: &Arc<dyn Api>, key: &Key, change: Change, app: &str) -> Written {
        let token = format!("t{}", self.tokens.fetch_add(1, Ordering::Relaxed));
        let content = Content { token, app: app.to_owned() };
        let written = api.write(key, change, &content).await;
        let Written { base, verdict } = written;
        self.ledger.wrote(WriteNote { key: key.clone(), change, content, base, verdict });
        written
    }

    fn refused(&self, refusal: Refusal) {
        self.ledger.note(|notes| match refusal {
            Refusal::Wrong(why) => notes.wrong.push(why),
            Refusal::Expired(_) | Refusal::Unavailable(_) => notes.unanswered += 1,
        });
    }
}

async fn write(shared: Arc<Shared>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut burst = 0;
    while !shared.over.load(Ordering::SeqCst) {
        let (api, key) = (shared.server(&mut rng), shared.key(&mut rng));
        let app = if rng.random_bool(0.5) { "x" } else { "y" };
        let change = match rng.random_range(0..10) {
            0..2 => Change::Create,
            2..6 => Change::Replace,
            6 => Change::Delete,
            conditional => match get(&shared, &api, &key, conditional == 9).await {
                // Mostly what is there; sometimes what surely is not, which must be refused.
                Some(seen) if conditional == 7 => Change::DeleteAt(seen),
                Some(seen) if rng.random_bool(0.1) => Change::ReplaceAt(seen - 1),
                Some(seen) => Change::ReplaceAt(seen),
                None => Change::Create,
            },
        };
        shared.change(&api, &key, change, app).await;
        if burst > 0 {
            burst -= 1;
            continue;
        }
        if shared.plan.burst > 0 && rng.random_bool(0.002) {
            burst = shared.plan.burst;
        }
        let pause = shared.plan.write_pause.as_micros() as u64;
        sleep(Duration::from_micros(rng.random_range(0..=pause))).await;
    }
}

/// The revision of what was found.
async fn get(shared: &Shared, api: &Arc<dyn Api>, key: &Key, cached: bool) -> Option<u64> {
    let floor = if cached { 0 } else { shared.ledger.floor() };
    match api.get(key, cached).await {
        Ok(found) => {
            let revision = found.as_ref().map(|shown| shown.revision);
            shared.ledger.note(|notes| notes.gets.push(GetNote { key: key.clone(), floor, found }));
            revision
        }
        Err(refusal) => {
            shared.refused(refusal);
            None
        }
    }
}

async fn read(shared: Arc<Shared>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    // Revisions to come back to.
    let mut known: Vec<u64> = Vec::new();
    while !shared.over.load(Ordering::SeqCst) {
        let api = shared.server(&mut rng);
        if rng.random_bool(0.3) {
            let key = shared.key(&mut rng);
            known.extend(get(&shared, &api, &key, rng.random_bool(0.3)).await);
        } else {
            let mut ask = ListAsk { scope: shared.scope(&mut rng), ..ListAsk::default() };
            let past = (!known.is_empty()).then(|| known[rng.random_range(0..known.len())]);
            match rng.random_range(0..5) {
                0 => ask.revision = Some(0),
                1 => ask.revision = past,
                2 => (ask.revision, ask.exact) = (past, past.is_some()),
                _ => {}
            }
            if rng.random_bool(0.4) {
                ask.limit = rng.random_range(1..5);
            }
            list(&shared, &api, ask, &mut rng).await;
            known.push(shared.ledger.floor().max(1));
        }
        if known.len() > 100 {
            known.drain(..50);
        }
        sleep(Duration::from_micros(rng.random_range(0..4000))).await;
    }
}

/// All pages of a list, from any server. True when it came to its end.
async fn list(shared: &Shared, api: &Arc<dyn Api>, mut ask: ListAsk, rng: &mut StdRng) -> bool {
    // Not older than what is known, or than what was asked for.
    let floor = ask.revision.unwrap_or_else(|| shared.ledger.floor());
    // A limit makes a revision exact, too.
    let exact = ask.revision.filter(|revision| *revision > 0 && (ask.exact || ask.limit > 0));
    let mut list = ListNote { scope: ask.scope.clone(), floor, pages: Vec::new(), complete: false };
    let mut inconsistent = false;
    let mut api = api.clone();
    loop {
        match api.list(&ask).await {
            Ok(page) => {
                if exact.is_some_and(|exact| list.pages.is_empty() && page.revision != exact) {
                    let why = format!("asked for exactly {exact:?}, got {}", page.revision);
                    shared.refused(Refusal::Wrong(why));
                }
                ask.continue_token = page.continue_token.clone();
                list.pages.push((page, std::mem::take(&mut inconsistent)));
                if ask.continue_token.is_empty() {
                    list.complete = true;
                    break;
                }
                (ask.revision, ask.exact) = (None, false);
            }
            Err(Refusal::Expired(token)) if !token.is_empty() => {
                (ask.continue_token, inconsistent) = (token, true);
            }
            Err(refusal) => {
                shared.refused(refusal);
                break;
            }
        }
        if rng.random_bool(0.3) {
            sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        }
        api = shared.server(rng);
    }
    let complete = list.complete;
    shared.ledger.note(|notes| notes.lists.push(list));
    complete
}

/// One client: lists (or streams the state), watches, is disconnected, resumes, lists again when it must.
async fn follow(shared: Arc<Shared>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let scope = shared.scope(&mut rng);
    // Some do not take in what they are told for a while.
    let slow = rng.random_bool(0.25);
    loop {
        let mut session = begin(&shared, &scope, &mut rng).await;
        let ended = stay(&shared, &mut session, slow, &mut rng).await;
        if ended {
            session.until = last_of(&shared, &scope).unwrap_or(0);
        }
        shared.ledger.note(|notes| notes.sessions.push(session));
        if ended {
            return;
        }
        sleep(Duration::from_millis(rng.random_range(0..20))).await;
    }
}

async fn begin(shared: &Shared, scope: &Scope, rng: &mut StdRng) -> Session {
    let session =
        |after, floor| Session { scope: scope.clone(), after, floor, told: Vec::new(), until: 0, resumed: 0 };
    if rng.random_bool(0.4) {
        return session(None, shared.ledger.floor());
    }
    loop {
        let cached = rng.random_bool(0.3);
        let ask = ListAsk { scope: scope.clone(), revision: cached.then_some(0), ..ListAsk::default() };
        let floor = if cached { 0 } else { shared.ledger.floor() };
        match shared.server(rng).list(&ask).await {
            Ok(page) => {
                let after = page.revision;
                let pages = vec![(page, false)];
                let list = ListNote { scope: scope.clone(), floor, pages, complete: true };
                shared.ledger.note(|notes| notes.lists.push(list));
                return session(Some(after), 0);
            }
            Err(refusal) => {
                shared.refused(refusal);
                sleep(Duration::from_millis(rng.random_range(1..50))).await;
            }
        }
    }
}

/// Watches and resumes. True when it was told all there is; false when it must begin anew.
async fn stay(shared: &Shared, session: &mut Session, slow: bool, rng: &mut StdRng) -> bool {
    let mut reached = session.after;
    loop {
        let ask = WatchAsk {
            scope: session.scope.clone(),
            revision: reached,
            initial_events: reached.is_none(),
            seconds: rng.random_range(3..6),
        };
        match shared.server(rng).watch(&ask).await {
            Ok(stream) => {
                let leave = Instant::now() + Duration::from_millis(rng.random_range(1..4000));
                if let Some(ended) = take_in(shared, session, stream, &mut reached, leave, slow, rng).await {
                    return ended;
                }
            }
            Err(Refusal::Expired(_)) => return false,
            Err(refusal) => {
                shared.refused(refusal);
                sleep(Duration::from_millis(rng.random_range(1..50))).await;
            }
        }
        if reached.is_none() {
            // Cut off in the middle of the state: all of it again, and not older than what is known by now.
            session.told.clear();
            session.floor = shared.ledger.floor();
        } else {
            session.resumed += 1;
        }
    }
}

/// One stream. `Some`: the session is over, and whether it came to the end.
async fn take_in(
    shared: &Shared,
    session: &mut Session,
    mut stream: super::Watching,
    reached: &mut Option<u64>,
    leave: Instant,
    slow: bool,
    rng: &mut StdRng,
) -> Option<bool> {
    let mut ends = shared.ends.subscribe();
    loop {
        if let (Some(reached), Some(last)) = (*reached, last_of(shared, &session.scope))
            && reached >= last
        {
            return Some(true);
        }
        let finishing = ends.borrow_and_update().is_some();
        if slow && !finishing && rng.random_bool(0.01) {
            sleep(Duration::from_millis(rng.random_range(0..300))).await;
        }
        let told = tokio::select! {
            told = stream.next() => told,
            () = sleep_until(leave), if !finishing => return None,
            _ = ends.changed() => continue,
        };
        match told {
            None => return None,
            Some(Told::Expired) => return Some(false),
            Some(Told::Failed(_)) => {
                shared.ledger.note(|notes| notes.unanswered += 1);
                return None;
            }
            Some(told) => {
                match &told {
                    Told::Bookmark { revision, initial_events_end } => {
                        if *initial_events_end || reached.is_some() {
                            *reached = Some(*revision);
                        }
                    }
                    Told::Added(shown) | Told::Modified(shown) | Told::Deleted(shown) => {
                        if let Some(reached) = reached {
                            *reached = shown.revision;
                        }
                    }
                    Told::Expired | Told::Failed(_) => {}
                }
                session.told.push(told);
            }
        }
    }
}

/// The revision that a watcher of this scope must come to, once it is known.
fn last_of(shared: &Shared, scope: &Scope) -> Option<u64> {
    let ends = shared.ends.borrow();
    ends.as_ref()?.iter().filter(|(key, _)| scope.places(key)).map(|(_, revision)| *revision).max()
}

/// Writes every object twice, so that every watcher of whatever selection is told of each at the end.
async fn touch_all(shared: &Shared) {
    let mut last = HashMap::new();
    for app in ["x", "y"] {
        for key in shared.keys() {
            let mut change = Change::Replace;
            loop {
                let written = shared.change(&shared.api[0], &key, change, app).await;
                match written.verdict {
                    Verdict::Acknowledged(revision) => {
                        last.insert(key.clone(), revision);
                        break;
                    }
                    Verdict::Refused => {
                        change = if change == Change::Replace { Change::Create } else { Change::Replace };
                    }
                    Verdict::Done | Verdict::Unknown => sleep(Duration::from_millis(50)).await,
                }
            }
        }
    }
    shared.ends.send_replace(Some(last));
}
