use std::time::Duration;

use super::super::metrics::FlowControlMetrics;
use super::*;

const PATIENCE: Duration = Duration::from_secs(3);
const QUEUE: Kind = Kind::Queue { queues: 8, hand: 2, length_max: 3 };

fn flow() -> Arc<FlowMetrics> {
    let inflight = prometheus::IntGaugeVec::new(prometheus::Opts::new("x", "x"), &["request_kind"]).unwrap();
    Arc::new(FlowControlMetrics::new(&prometheus::Registry::new(), inflight).unwrap().flow("s", "l"))
}

fn arrival(flow: &Arc<FlowMetrics>, work: Work) -> Arrival {
    let (flow, schema) = (Arc::clone(flow), "s".into());
    Arrival { flow, schema, distinguisher: "".into(), work, is_watch: false }
}

/// A request of one seat by the client of this number.
async fn ask(set: &Arc<QueueSet>, flow: &Arc<FlowMetrics>, client: u64) -> Result<Seat, Refusal> {
    set.enter(arrival(flow, Work::ONE), client.wrapping_mul(0x9e37_79b9_7f4a_7c15), PATIENCE).await
}

fn counts(set: &QueueSet) -> (usize, usize, usize) {
    let state = set.state.lock();
    (state.waiting, state.executing, state.seats_in_use)
}

/// Lets spawned tasks run until they wait.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_fits_runs_and_the_rest_waits_its_turn() {
    let (set, flow) = (QueueSet::new(QUEUE, 2, Instant::now()), flow());
    let (first, second) = (ask(&set, &flow, 1).await.unwrap(), ask(&set, &flow, 1).await.unwrap());
    let (own, shown) = (Arc::clone(&set), Arc::clone(&flow));
    let third = tokio::spawn(async move { ask(&own, &shown, 1).await.map(|_| ()) });
    settle().await;
    assert_eq!(counts(&set), (1, 2, 2));
    drop(first);
    third.await.unwrap().unwrap();
    drop(second);
    assert_eq!(counts(&set), (0, 0, 0));
    assert!(set.is_idle());
    assert_eq!((flow.dispatched.get(), flow.executing_seats.get(), flow.inqueue_seats.get()), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused_and_leaves_nothing() {
    let (set, flow) = (QueueSet::new(QUEUE, 1, Instant::now()), flow());
    let running = ask(&set, &flow, 1).await.unwrap();
    assert_eq!(ask(&set, &flow, 1).await.err(), Some(Refusal::TimeOut));
    assert_eq!(counts(&set), (0, 1, 1));
    // A client that goes away leaves the queue too.
    let waiting = tokio::time::timeout(Duration::from_millis(1), ask(&set, &flow, 2)).await;
    assert!(waiting.is_err());
    assert_eq!(counts(&set), (0, 1, 1));
    drop(running);
    assert!(set.is_idle());
    assert_eq!(flow.timed_out.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let kind = Kind::Queue { queues: 1, hand: 1, length_max: 2 };
    let (set, flow) = (QueueSet::new(kind, 1, Instant::now()), flow());
    let _running = ask(&set, &flow, 1).await.unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (set, flow) = (Arc::clone(&set), Arc::clone(&flow));
            tokio::spawn(async move { ask(&set, &flow, 1).await.map(|_| ()) })
        })
        .collect();
    settle().await;
    assert_eq!(ask(&set, &flow, 1).await.err(), Some(Refusal::QueueFull));
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    assert_eq!(counts(&set), (0, 1, 1));
}

#[tokio::test]
async fn levels_without_queues_refuse_or_let_all_in() {
    let flow = flow();
    let reject = QueueSet::new(Kind::Reject, 1, Instant::now());
    let running = ask(&reject, &flow, 1).await.unwrap();
    assert_eq!(ask(&reject, &flow, 1).await.err(), Some(Refusal::ConcurrencyLimit));
    drop(running);
    assert!(ask(&reject, &flow, 1).await.is_ok());
    let exempt = QueueSet::new(Kind::Exempt, 0, Instant::now());
    let mut all = Vec::new();
    for client in 0..100 {
        all.push(ask(&exempt, &flow, client).await.unwrap());
    }
    assert_eq!(exempt.take_demand(Instant::now()).max, 100.0);
}

/// One client keeps hundreds of requests waiting; another, that asks now and then, is served almost at once.
#[tokio::test(start_paused = true)]
async fn a_flood_does_not_starve_a_quiet_client() {
    let kind = Kind::Queue { queues: 64, hand: 6, length_max: 50 };
    let (set, flow) = (QueueSet::new(kind, 4, Instant::now()), flow());
    let served = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let flood: Vec<_> = (0..200)
        .map(|_| {
            let (set, flow, served) = (Arc::clone(&set), Arc::clone(&flow), Arc::clone(&served));
            tokio::spawn(async move {
                loop {
                    let seat = ask(&set, &flow, 1).await;
                    if seat.is_ok() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    } else {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = served.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..20 {
        assert!(counts(&set).0 > 50, "the flood does not wait");
        let asked = served.load(std::sync::atomic::Ordering::Relaxed);
        let seat = ask(&set, &flow, 2).await.unwrap();
        let overtaken = served.load(std::sync::atomic::Ordering::Relaxed) - asked;
        // Those that run when it comes, and one of each of the flood's six queues, at most twice.
        assert!(overtaken <= 4 + 2 * 6, "{overtaken} requests of the flood went first");
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(seat);
    }
    let during = served.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(during >= 40, "the flood is served as well: {during}");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    assert!(set.is_idle());
}

#[tokio::test(start_paused = true)]
async fn wide_requests_wait_for_all_their_seats_and_linger() {
    let (set, flow) = (QueueSet::new(QUEUE, 4, Instant::now()), flow());
    let narrow = ask(&set, &flow, 1).await.unwrap();
    let wide = Work { initial: 1, last: 4, linger: Duration::from_millis(5) };
    let (own, shown) = (Arc::clone(&set), Arc::clone(&flow));
    let waiting = tokio::spawn(async move { own.enter(arrival(&shown, wide), 7, PATIENCE).await });
    settle().await;
    assert_eq!(counts(&set), (1, 1, 1));
    drop(narrow);
    let wide = waiting.await.unwrap().unwrap();
    assert_eq!(counts(&set), (0, 1, 4));
    drop(wide);
    assert_eq!(counts(&set), (0, 0, 4), "its events still go out");
    tokio::time::sleep(Duration::from_millis(6)).await;
    assert_eq!(counts(&set), (0, 0, 0));
    // Wider than the level: alone it may run.
    let all = Work { initial: 9, last: 0, linger: Duration::ZERO };
    drop(set.enter(arrival(&flow, all), 7, PATIENCE).await.unwrap());
    assert!(set.is_idle());
}

#[tokio::test(start_paused = true)]
async fn more_seats_let_more_in_and_fewer_queues_lose_no_one() {
    let (set, flow) = (QueueSet::new(QUEUE, 1, Instant::now()), flow());
    let running = ask(&set, &flow, 1).await.unwrap();
    let waiting: Vec<_> = (0..5)
        .map(|client| {
            let (set, flow) = (Arc::clone(&set), Arc::clone(&flow));
            tokio::spawn(async move { ask(&set, &flow, client).await })
        })
        .collect();
    settle().await;
    assert_eq!(counts(&set), (5, 1, 1));
    set.configure(Kind::Reject, 1, Instant::now());
    set.set_limit(6, Instant::now());
    let mut seats = Vec::new();
    for one in waiting {
        seats.push(one.await.unwrap().unwrap());
    }
    assert_eq!(counts(&set), (0, 6, 6));
    drop((seats, running));
    assert!(set.is_idle());
}

/// Random comings and goings keep every count right.
#[tokio::test(start_paused = true)]
async fn counts_stay_right_under_churn() {
    use rand::{Rng, SeedableRng};
    let (set, flow) = (QueueSet::new(QUEUE, 5, Instant::now()), flow());
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let tasks: Vec<_> = (0..40)
        .map(|client| {
            let (set, flow) = (Arc::clone(&set), Arc::clone(&flow));
            let seed = rng.random();
            tokio::spawn(async move {
                let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
                for _ in 0..50 {
                    let work = Work {
                        initial: rng.random_range(1..4),
                        last: rng.random_range(0..3),
                        linger: Duration::from_millis(rng.random_range(0..3)),
                    };
                    let patience = Duration::from_millis(rng.random_range(0..40));
                    if let Ok(seat) = set.enter(arrival(&flow, work), client, patience).await {
                        tokio::time::sleep(Duration::from_millis(rng.random_range(0..5))).await;
                        drop(seat);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let state = set.state.lock();
    assert_eq!((state.waiting, state.executing, state.seats_in_use, state.seats_waiting), (0, 0, 0, 0));
    assert_eq!((state.active, state.backlog.len()), (0, 0));
    assert!(state.queues.iter().all(|q| q.waiting.is_empty() && q.executing == 0 && q.seats_in_use == 0));
    let total = flow.dispatched.get() + flow.timed_out.get() + flow.queue_full.get();
    assert_eq!(total, 40 * 50);
    assert_eq!(
        (flow.executing_seats.get(), flow.inqueue_requests.get(), flow.inqueue_seats.get()),
        (0, 0, 0)
    );
}
