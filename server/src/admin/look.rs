//! What the admin port has lately seen of the node and of the cluster. Bounded work, however many ask: each kind
//! of look is kept for a while, and one of a kind is under way at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::Serving;
use crate::client::Options;
use crate::client::overview::Overview;
use crate::client::survey;
use crate::config::LiveConfig;
use crate::connection::node_commands;
use crate::runtime::worker::{Letter, ShardReport};
use crate::status::NodeStatus;

/// How long a look at this node is good for.
pub const OWN_FOR: Duration = Duration::from_millis(250);

/// How long a look at all nodes is good for.
pub const ALL_FOR: Duration = Duration::from_millis(900);

/// How long the workers may take, together.
const WORKERS: Duration = Duration::from_secs(2);

/// How long another node may take.
const NODES: Duration = Duration::from_secs(1);

/// This node at one instant.
#[derive(Debug)]
pub struct Own {
    /// What its workers said.
    pub reports: Vec<ShardReport>,
    /// What comes of that.
    pub status: NodeStatus,
}

/// The cluster at about one instant.
#[derive(Debug)]
pub struct All {
    /// What the nodes' statuses say together.
    pub overview: Overview,
    /// The same as JSON, without what each node says of each group: what the page needs.
    pub brief: Bytes,
}

struct Kept<T> {
    at: Instant,
    what: Result<T, String>,
}

impl<T: Clone> Kept<T> {
    fn fresh(kept: Option<&Kept<T>>, good_for: Duration) -> Option<Result<T, String>> {
        kept.filter(|kept| kept.at.elapsed() < good_for).map(|kept| kept.what.clone())
    }
}

/// The looks that are kept.
pub struct Look {
    own: Mutex<Option<Kept<Rc<Own>>>>,
    all: Mutex<Option<Kept<Arc<All>>>>,
    live: Arc<LiveConfig>,
}

impl Look {
    /// Nothing seen yet. Other nodes are shown the password that is in force.
    pub fn new(live: Arc<LiveConfig>) -> Look {
        Look { own: Mutex::new(None), all: Mutex::new(None), live }
    }

    /// This node.
    ///
    /// # Errors
    /// When a worker does not answer in time, in words.
    pub async fn own(&self, serving: &Serving) -> Result<Rc<Own>, String> {
        let mut kept = self.own.lock().await;
        if let Some(fresh) = Kept::fresh(kept.as_ref(), OWN_FOR) {
            return fresh;
        }
        let what = ask(serving).await.map(Rc::new);
        *kept = Some(Kept { at: Instant::now(), what: what.clone() });
        what
    }

    /// All nodes.
    ///
    /// # Errors
    /// As [`Look::own`].
    pub async fn all(&self, serving: Serving) -> Result<Arc<All>, String> {
        let mut kept = self.all.lock().await;
        if let Some(fresh) = Kept::fresh(kept.as_ref(), ALL_FOR) {
            return fresh;
        }
        let own = self.own(&serving).await;
        // A node that ends waits for whoever holds on to it; other nodes may take a while.
        drop(serving);
        let what = match own {
            Ok(own) => self.survey(own.status.clone()).await.map(Arc::new),
            Err(why) => Err(why),
        };
        *kept = Some(Kept { at: Instant::now(), what: what.clone() });
        what
    }

    /// Asks the other nodes at their client ports, as `pelago status` does.
    async fn survey(&self, own: NodeStatus) -> Result<All, String> {
        let options = Options { password: self.live.now().0.security.password.clone(), ..Options::default() };
        let asked = tokio::task::spawn_blocking(move || {
            let mut overview = Overview::of(survey::around(own, &options, NODES));
            let groups: Vec<_> = overview.nodes.iter_mut().map(|n| std::mem::take(&mut n.groups)).collect();
            let brief = serde_json::to_vec(&overview).map_err(|e| e.to_string())?;
            for (node, groups) in overview.nodes.iter_mut().zip(groups) {
                node.groups = groups;
            }
            Ok(All { overview, brief: brief.into() })
        });
        asked.await.unwrap_or_else(|e| Err(format!("the survey failed: {e}")))
    }
}

async fn ask(serving: &Serving) -> Result<Own, String> {
    let mut answers = Vec::with_capacity(serving.posts.len());
    for post in &serving.posts {
        let (sender, receiver) = oneshot::channel();
        post.mail.push(Letter::Report(sender));
        answers.push(receiver);
    }
    let mut reports = Vec::with_capacity(answers.len());
    let all = async {
        for answer in answers {
            reports.push(answer.await.map_err(|_| "a worker has ended".to_owned())?);
        }
        Ok(())
    };
    timeout(WORKERS, all)
        .await
        .unwrap_or_else(|_| Err(format!("a worker has not answered within {} s", WORKERS.as_secs())))?;
    let status = node_commands::status(&serving.shared, &reports);
    Ok(Own { reports, status })
}
