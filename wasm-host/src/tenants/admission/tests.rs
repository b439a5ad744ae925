use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

fn settings(permits: usize) -> AdmissionSettings {
    AdmissionSettings {
        permits,
        queue_per_tenant: 100,
        queue: 1000,
    }
}

/// A gate whose tenants all have these limits.
fn gate(limits: TenantLimits, settings: AdmissionSettings) -> Admission {
    Admission::new(Tenants::new(limits, BTreeMap::new()).unwrap(), settings)
}

fn in_a_minute() -> Instant {
    Instant::now() + 60_000 * MS
}

/// A request that runs for `run` in a task of its own, and what became of it.
fn request(
    gate: &Admission,
    tenant: &'static str,
    run: Duration,
) -> tokio::task::JoinHandle<Result<Duration, Refusal>> {
    let (gate, deadline) = (gate.clone(), in_a_minute());
    tokio::spawn(async move {
        let permit = gate.enter(tenant, deadline).await?;
        sleep(run).await;
        Ok(permit.waited())
    })
}

/// Lets the other tasks come as far as they can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_lets_a_burst_through_and_then_its_share() {
    let limits = TenantLimits {
        requests_per_second: Some(10.0),
        burst: Some(3),
        ..TenantLimits::default()
    };
    let gate = gate(limits, settings(4));
    for _ in 0..3 {
        gate.enter("a", in_a_minute()).await.unwrap();
    }
    let refused = gate.enter("a", in_a_minute()).await.unwrap_err();
    assert_eq!(
        refused,
        Refusal::Rate {
            retry_after: 100 * MS
        }
    );
    assert_eq!(refused.retry_after_seconds(), Some(1));
    // Another tenant has a rate of its own.
    gate.enter("b", in_a_minute()).await.unwrap();
    let mut answered = 0;
    for _ in 0..1000 {
        sleep(10 * MS).await;
        answered += usize::from(gate.enter("a", in_a_minute()).await.is_ok());
    }
    assert!((99..=101).contains(&answered), "{answered} in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn compute_time_is_a_rate_too() {
    let limits = TenantLimits {
        compute_ms_per_second: Some(100.0),
        ..TenantLimits::default()
    };
    let gate = gate(limits, settings(1));
    // Ten seconds' worth are saved, which this run uses, and as much again.
    request(&gate, "a", 2000 * MS).await.unwrap().unwrap();
    let refused = gate.enter("a", in_a_minute()).await.unwrap_err();
    let Refusal::Rate { retry_after } = refused else {
        panic!("{refused}");
    };
    assert!(
        retry_after.abs_diff(Duration::from_millis(10_000)) < 250 * MS,
        "{retry_after:?}"
    );
    sleep(retry_after).await;
    gate.enter("a", in_a_minute()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_may() {
    let limits = TenantLimits {
        concurrent: Some(2),
        ..TenantLimits::default()
    };
    let gate = gate(limits, settings(3));
    let at_once = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut tasks = Vec::new();
    for i in 0..40 {
        let (gate, at_once) = (gate.clone(), at_once.clone());
        tasks.push(tokio::spawn(async move {
            let permit = gate.enter(["a", "b"][i % 2], in_a_minute()).await;
            let permit = permit.unwrap();
            let own = at_once[i % 2].fetch_add(1, Ordering::SeqCst) + 1;
            let all: usize = at_once.iter().map(|n| n.load(Ordering::SeqCst)).sum();
            sleep((3 + i as u32 % 5) * MS).await;
            at_once[i % 2].fetch_sub(1, Ordering::SeqCst);
            drop(permit);
            (own, all)
        }));
    }
    let mut most = (0, 0);
    for task in tasks {
        let (own, all) = task.await.unwrap();
        most = (most.0.max(own), most.1.max(all));
    }
    assert_eq!(most, (2, 3), "of one tenant, and of all");
    let AdmissionStats {
        running, waiting, ..
    } = gate.stats();
    assert_eq!((running, waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_floods_does_not_delay_another() {
    let gate = gate(TenantLimits::default(), settings(1));
    let flood: Vec<_> = (0..90).map(|_| request(&gate, "flood", 10 * MS)).collect();
    settle().await;
    // One quiet request after the other: each waits for no more than the run that has begun.
    for i in 0..20 {
        sleep(7 * MS).await;
        let waited = request(&gate, "quiet", 10 * MS).await.unwrap().unwrap();
        assert!(waited <= 10 * MS, "request {i} waited {waited:?}");
    }
    let mut longest = Duration::ZERO;
    for request in flood {
        longest = longest.max(request.await.unwrap().unwrap());
    }
    assert!(
        longest >= 1000 * MS,
        "the flood waited for itself: {longest:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn shares_are_of_compute_time_and_not_of_requests() {
    let gate = gate(TenantLimits::default(), settings(1));
    let done = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    for (i, (tenant, run)) in [("long", 30 * MS), ("short", 3 * MS)]
        .into_iter()
        .enumerate()
    {
        // Always three of each that wait.
        for _ in 0..3 {
            let (gate, done) = (gate.clone(), done.clone());
            tokio::spawn(async move {
                loop {
                    request(&gate, tenant, run).await.unwrap().unwrap();
                    done[i].fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    }
    sleep(6000 * MS).await;
    let [long, short] = [0, 1].map(|i| done[i].load(Ordering::SeqCst));
    // Three seconds each.
    assert!((95..=105).contains(&long), "{long}");
    assert!((950..=1050).contains(&short), "{short}");
}

#[tokio::test(start_paused = true)]
async fn who_rested_has_saved_no_turns() {
    let gate = gate(TenantLimits::default(), settings(1));
    request(&gate, "rested", MS).await.unwrap().unwrap();
    for _ in 0..100 {
        request(&gate, "busy", 10 * MS).await.unwrap().unwrap();
    }
    // Both come with twenty: they take turns, although one has used a thousand times as much.
    let both = ["rested", "busy"].map(|tenant| {
        let many = (0..20).map(|_| request(&gate, tenant, 10 * MS));
        many.collect::<Vec<_>>()
    });
    let mut means = Vec::new();
    for many in both {
        let mut sum = Duration::ZERO;
        for request in many {
            sum += request.await.unwrap().unwrap();
        }
        means.push(sum / 20);
    }
    assert!(means[0].abs_diff(means[1]) < 60 * MS, "{means:?}");
}

#[tokio::test(start_paused = true)]
async fn queues_have_an_end() {
    let settings = AdmissionSettings {
        permits: 1,
        queue_per_tenant: 3,
        queue: 5,
    };
    let gate = gate(TenantLimits::default(), settings);
    let requests: Vec<_> = ["a", "a", "a", "a", "a", "b", "b", "b"]
        .map(|tenant| request(&gate, tenant, 10 * MS))
        .into();
    settle().await;
    assert_eq!(gate.stats().waiting, 5);
    let mut found = Vec::new();
    for request in requests {
        let refused = request.await.unwrap().err();
        found.push(refused.map_or("run", |refusal| refusal.name()));
    }
    let full = "queue_full";
    assert_eq!(
        found,
        ["run", "run", "run", "run", full, "run", "run", full]
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_in_time_is_refused_at_once() {
    let gate = gate(TenantLimits::default(), settings(2));
    // So the gate knows what a run takes.
    request(&gate, "a", 100 * MS).await.unwrap().unwrap();
    let running: Vec<_> = (0..12).map(|_| request(&gate, "a", 100 * MS)).collect();
    settle().await;
    let before = Instant::now();
    let refused = gate.enter("a", before + 300 * MS).await.unwrap_err();
    assert_eq!(Instant::now(), before, "without waiting");
    let Refusal::Overloaded { retry_after } = refused else {
        panic!("{refused}");
    };
    assert!(
        (200 * MS..=500 * MS).contains(&retry_after),
        "{retry_after:?}"
    );
    // Who has more time waits, and another tenant has less to wait for.
    let patient = gate.clone();
    let patient = tokio::spawn(async move { patient.enter("a", before + 2000 * MS).await });
    gate.enter("b", before + 300 * MS).await.unwrap();
    patient.await.unwrap().unwrap();
    for request in running {
        request.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn latency_does_not_collapse_under_overload() {
    // Twice as much as can be done, with deadlines of half a second: goodput must stay.
    let gate = gate(TenantLimits::default(), settings(2));
    let (mut tasks, deadline) = (Vec::new(), 500 * MS);
    for _ in 0..800 {
        let gate = gate.clone();
        tasks.push(tokio::spawn(async move {
            let arrived = Instant::now();
            let Ok(_permit) = gate.enter("a", arrived + deadline).await else {
                return false;
            };
            sleep(20 * MS).await;
            arrived.elapsed() <= deadline
        }));
        sleep(5 * MS).await;
    }
    let mut in_time = 0;
    for task in tasks {
        in_time += usize::from(task.await.unwrap());
    }
    // Four seconds of two permits make 400 runs.
    assert!(in_time >= 380, "{in_time} were answered in time");
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_does_not_lock_its_tenant_out() {
    // One that is longer than later requests have time, and one that is nearly as long.
    for (slow, patience) in [(10_000 * MS, 1000 * MS), (900 * MS, 910 * MS)] {
        let gate = gate(TenantLimits::default(), settings(1));
        request(&gate, "a", slow).await.unwrap().unwrap();
        // Others keep the only permit taken, so that there is always somebody to wait for.
        let others = gate.clone();
        let others = tokio::spawn(async move {
            loop {
                let one = request(&others, "b", 10 * MS);
                request(&others, "b", 10 * MS).await.unwrap().unwrap();
                one.await.unwrap().unwrap();
            }
        });
        sleep(15_000 * MS).await;
        let mut attempts = 0;
        while gate.enter("a", Instant::now() + patience).await.is_err() {
            attempts += 1;
            assert!(attempts < 100, "locked out after a run of {slow:?}");
            sleep(10 * MS).await;
        }
        assert!(attempts > 0, "the first attempt was refused");
        others.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_the_queue() {
    let gate = gate(TenantLimits::default(), settings(1));
    let first = gate.enter("a", in_a_minute()).await.unwrap();
    let waiting: Vec<_> = ["a", "a", "b"]
        .map(|tenant| request(&gate, tenant, MS))
        .into();
    settle().await;
    assert_eq!(gate.stats().waiting, 3);
    for request in &waiting {
        request.abort();
    }
    settle().await;
    assert_eq!(gate.stats().waiting, 0);
    // And one who hangs up when the turn has been given, but not been taken yet.
    let taken = request(&gate, "a", MS);
    settle().await;
    drop(first);
    taken.abort();
    settle().await;
    assert_eq!(gate.stats().running, 0);
    gate.enter("b", in_a_minute()).await.unwrap();
    gate.idle().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_the_deadline() {
    let gate = gate(TenantLimits::default(), settings(1));
    let _running = gate.enter("a", in_a_minute()).await.unwrap();
    let before = Instant::now();
    let refused = gate.enter("a", before + 50 * MS).await.unwrap_err();
    assert_eq!(refused.name(), "overloaded");
    assert_eq!(before.elapsed().as_millis() / 2, 25);
    assert_eq!(gate.stats().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_what_waits() {
    let gate = gate(TenantLimits::default(), settings(1));
    let requests: Vec<_> = (0..5).map(|_| request(&gate, "a", 10 * MS)).collect();
    settle().await;
    gate.drain();
    let refused = gate.enter("a", in_a_minute()).await.unwrap_err();
    assert_eq!(
        (refused, refused.retry_after_seconds()),
        (Refusal::Draining, None)
    );
    let before = Instant::now();
    gate.idle().await;
    assert!(before.elapsed() >= 45 * MS);
    for request in requests {
        request.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn tenants_that_do_nothing_are_forgotten() {
    let limits = TenantLimits {
        requests_per_second: Some(1.0),
        ..TenantLimits::default()
    };
    let gate = gate(limits, settings(2));
    for i in 0..20_000 {
        let permit = gate.enter(&format!("tenant-{i}"), in_a_minute()).await;
        sleep(MS).await;
        drop(permit.unwrap());
    }
    assert!(gate.stats().tenants <= 2 * ACCOUNTS, "{:?}", gate.stats());
    // One that has used its rate is not: it would get it anew.
    gate.enter("used", in_a_minute()).await.unwrap();
    for i in 0..5000 {
        drop(gate.enter(&format!("other-{i}"), in_a_minute()).await);
    }
    assert!(gate.enter("used", in_a_minute()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn limits_can_change() {
    let limits = |concurrent| TenantLimits {
        concurrent: Some(concurrent),
        ..TenantLimits::default()
    };
    let gate = gate(limits(1), settings(4));
    let _requests: Vec<_> = (0..4).map(|_| request(&gate, "a", 10 * MS)).collect();
    settle().await;
    assert_eq!(gate.stats().running, 1);
    gate.set_limits(Tenants::new(limits(3), BTreeMap::new()).unwrap());
    settle().await;
    assert_eq!(gate.stats().running, 3);
}

/// What entering and leaving costs where nobody waits. A bound with room for a busy machine: the
/// point is that there is no wait, no system call and no pass over all tenants.
#[tokio::test]
async fn entering_takes_microseconds() {
    let gate = gate(TenantLimits::default(), settings(2));
    let deadline = in_a_minute();
    let mut fastest = Duration::MAX;
    for _ in 0..50 {
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            drop(gate.enter("a", deadline).await.unwrap());
        }
        fastest = fastest.min(start.elapsed() / 1000);
    }
    eprintln!("enter and leave: {fastest:?}");
    assert!(fastest < Duration::from_micros(5), "{fastest:?}");
}
