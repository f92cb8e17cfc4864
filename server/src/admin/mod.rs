//! The admin port: HTTP for people, probes and Prometheus. `GET` and `HEAD` only; nothing here changes anything.
//!
//! ```text
//! /         a page for people, live                       routes.rs, page.html
//! /livez    is the process alive?                         ready.rs
//! /readyz   is the node of use, and if not, why?          ready.rs
//! /metrics  Prometheus                                    metrics.rs, exposition.rs
//! /status   what `STATUS JSON` says, or the whole cluster look.rs
//! ```
//!
//! It runs on a thread of its own, from before the node opens its data until the process ends, so that
//! neither a slow reader nor a large cluster costs a worker more than a report now and then: reports are kept
//! for [`look::OWN_FOR`], surveys of the other nodes for [`look::ALL_FOR`], and one of each is under way at a
//! time, however many ask.

mod auth;
mod exposition;
mod look;
pub mod metrics;
mod process;
mod ready;
mod routes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::time::{sleep, timeout};

use crate::config::LiveConfig;
use crate::connection::Shared;
use crate::runtime::worker::Post;
use look::Look;
use routes::Route;

/// Connections at once; more are told so and closed.
const CONNECTIONS: usize = 64;

/// A client has so long for the head of a request, and may be idle so long.
const HEAD: Duration = Duration::from_secs(5);

/// After so long a connection is closed behind the answer under way, and that has so long to be read.
const LIFE: Duration = Duration::from_secs(60);
const LAST: Duration = Duration::from_secs(10);

/// The head of a request, in bytes and in header lines.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;

/// What a node shows before it serves and while it does.
#[derive(Clone, Debug)]
pub enum Stage {
    /// The data is being opened.
    Opening,
    /// The cluster is not born; in words, what is waited for.
    Unborn(String),
    /// It serves.
    Serving(Serving),
    /// It ends.
    Ending,
}

/// Where the admin port finds what it shows.
#[derive(Clone, Debug)]
pub struct Serving {
    /// What connections share.
    pub shared: Arc<Shared>,
    /// The workers.
    pub posts: Vec<Arc<Post>>,
}

/// Where the rest of the process says what stage it is in.
#[derive(Debug)]
pub struct Board {
    stage: Mutex<Stage>,
    /// It was told to end, and hands over what it leads.
    leaving: AtomicBool,
    started: Instant,
}

impl Board {
    /// A board of a process that has just begun.
    #[must_use]
    pub fn new() -> Arc<Board> {
        let (stage, leaving) = (Mutex::new(Stage::Opening), AtomicBool::new(false));
        Arc::new(Board { stage, leaving, started: Instant::now() })
    }

    /// From now on this is shown.
    pub fn show(&self, stage: Stage) {
        *self.stage.lock() = stage;
    }

    /// The node serves on for a moment, but nobody should send it anything new.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn stage(&self) -> Stage {
        self.stage.lock().clone()
    }
}

/// What all connections of the admin port share, on its thread.
struct Desk {
    board: Arc<Board>,
    look: Look,
    live: Arc<LiveConfig>,
    /// Requests answered, by route and status code.
    answered: RefCell<BTreeMap<(Route, u16), u64>>,
    /// Connections now.
    open: Cell<usize>,
}

/// Starts the thread. It ends with the process.
///
/// # Errors
/// When the system refuses the thread.
pub fn start(listener: TcpListener, board: Arc<Board>, live: Arc<LiveConfig>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default());
        let listened = runtime.and_then(|runtime| {
            let desk = Rc::new(Desk {
                look: Look::new(Arc::clone(&live)),
                board,
                live,
                answered: RefCell::default(),
                open: Cell::new(0),
            });
            runtime.block_on(listen(listener, desk))
        });
        if let Err(e) = listened {
            tracing::error!("the admin port does not answer: {e}. The node serves on without it");
        }
    })?;
    Ok(())
}

async fn listen(listener: TcpListener, desk: Rc<Desk>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            // Nor is there time to tell everybody.
            Ok(_) if desk.open.get() >= 2 * CONNECTIONS => {}
            Ok((stream, _)) => {
                let full = desk.open.get() >= CONNECTIONS;
                desk.open.set(desk.open.get() + 1);
                let desk = Rc::clone(&desk);
                tokio::task::spawn_local(async move {
                    if full {
                        turn_away(stream).await
                    } else {
                        serve(stream, &desk).await
                    }
                    desk.open.set(desk.open.get() - 1);
                });
            }
            Err(e) => {
                // Out of descriptors, most likely: those that are open will be closed.
                tracing::debug!("the admin port cannot accept: {e}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says that there are too many, to a client that is quick to ask and to listen.
async fn turn_away(mut stream: TcpStream) {
    const BUSY: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 32\r\n\
        retry-after: 1\r\nconnection: close\r\n\r\ntoo many admin connections here\n";
    // A socket that is closed on unread bytes takes back what was written to it.
    let talk = async { (stream.read(&mut [0; 4096]).await, stream.write_all(BUSY).await) };
    let _ = timeout(Duration::from_millis(200), talk).await;
}

/// One connection. Whatever goes wrong with it is the client's to notice.
async fn serve(stream: TcpStream, desk: &Rc<Desk>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let desk = Rc::clone(desk);
        async move { Ok::<_, Infallible>(routes::answer(&desk, &request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    // `nc` closes its side after the request.
    http.half_close(true);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFE) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(LAST, connection).await;
}
