//! What a cluster costs while nobody asks it anything.

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use cluster::{Cluster, Recipe, turn, within};

/// How often each thread of a process has gone to sleep and been woken.
fn wakes(pid: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let mut wakes = BTreeMap::new();
    for task in tasks.flatten() {
        // A thread that has ended meanwhile has no file any more.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let name = field("Name:").expect("a thread has a name");
        let count = field("voluntary_ctxt_switches:").and_then(|n| n.parse::<u64>().ok());
        *wakes.entry(name).or_default() += count.expect("the kernel counts switches");
    }
    wakes
}

#[test]
fn nobody_is_woken_often_for_nothing() {
    // The story: a worker without work was to look up every 25 ms, but the timer that it had set anew for that went
    // back to its own five behind the first time: 245 wakes a second, and twice the processor time. The mirror
    // looked up fifty times a second with nothing on its way. Heartbeats come 40 times a second from two peers; a
    // machine that is busy wakes nobody more often, so this holds on any.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 16, ..Recipe::default() });
    cluster.wait_whole(Duration::from_secs(30));
    // What an opening leaves to do is over at some time.
    let (rates, _) = within(Duration::from_secs(30), "a second in which nobody is woken often", || {
        let before = wakes(cluster.pid(1));
        std::thread::sleep(Duration::from_secs(1));
        let after = wakes(cluster.pid(1));
        let rate = |name: &str| after.get(name).zip(before.get(name)).map(|(a, b)| a - b);
        let rates = (rate("worker-0"), rate("mirror"));
        match rates {
            (Some(worker), Some(mirror)) if worker < 150 && mirror < 25 => Ok(rates),
            (None, _) | (_, None) => panic!("the threads have other names now: {:?}", after.keys()),
            _ => Err(format!("wakes of the worker and of the mirror: {rates:?}")),
        }
    });
    assert!(rates.0 > Some(0), "the worker sends heartbeats, or this counts nothing: {rates:?}");
}
