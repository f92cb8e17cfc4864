//! What is at which path.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::ready::{Readiness, hangs, readiness};
use super::{Desk, Stage, auth, metrics};
use crate::runtime::random_id;

/// A path that is answered, as the metric of answered requests has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// The page.
    Page,
    /// Liveness.
    Live,
    /// Readiness.
    Ready,
    /// Metrics.
    Metrics,
    /// Status.
    Status,
    /// Nothing is there.
    Unknown,
}

impl Route {
    const ALL: [Route; 5] = [Route::Page, Route::Live, Route::Ready, Route::Metrics, Route::Status];

    /// Its path; of what is not there, a word for it.
    pub fn path(self) -> &'static str {
        match self {
            Route::Page => "/",
            Route::Live => "/livez",
            Route::Ready => "/readyz",
            Route::Metrics => "/metrics",
            Route::Status => "/status",
            Route::Unknown => "other",
        }
    }

    fn of(path: &str) -> Route {
        Route::ALL.into_iter().find(|route| route.path() == path).unwrap_or(Route::Unknown)
    }

    /// The switches that may stand behind its `?`.
    fn switches(self) -> &'static [&'static str] {
        match self {
            Route::Metrics => &["groups"],
            Route::Status => &["cluster", "brief"],
            Route::Page | Route::Live | Route::Ready | Route::Unknown => &[],
        }
    }

    /// Probes carry no password, and what they are told is no secret.
    fn is_open(self) -> bool {
        matches!(self, Route::Live | Route::Ready)
    }
}

/// The whole body of an answer, in one piece.
#[derive(Debug)]
pub struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An answer without the headers that all have.
struct Answer {
    code: StatusCode,
    kind: &'static str,
    body: Bytes,
    more: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    fn new(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
        Answer { code, kind, body: body.into(), more: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Answer {
        // Every value here is made of visible letters.
        self.more.extend(value.try_into().ok().map(|value| (name, value)));
        self
    }

    fn json(code: StatusCode, value: &impl serde::Serialize) -> Answer {
        match serde_json::to_vec(value) {
            Ok(body) => Answer::new(code, JSON, body),
            Err(e) => Answer::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("the answer cannot be written as JSON: {e}\n"),
            ),
        }
    }
}

/// Answers one request, and counts it.
pub(super) async fn answer(desk: &Desk, request: &Request<Incoming>) -> Response<Whole> {
    let route = Route::of(request.uri().path());
    let Answer { code, kind, body, more } = find(desk, route, request).await;
    *desk.answered.borrow_mut().entry((route, code.as_u16())).or_insert(0) += 1;
    let mut response = Response::new(Whole(Some(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // The page has a policy of its own; nothing else is to be rendered.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // In the place of what all have: a browser obeys every policy that it is sent.
    for (name, value) in more {
        headers.insert(name, value);
    }
    response
}

async fn find(desk: &Desk, route: Route, request: &Request<Incoming>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = format!("{} is not done here: this port only shows; use GET\n", request.method());
        return Answer::new(StatusCode::METHOD_NOT_ALLOWED, TEXT, text).with(header::ALLOW, "GET, HEAD");
    }
    let proof = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let in_force = desk.live.now();
    if let Some(password) = in_force.0.security.password.as_deref().filter(|_| !route.is_open())
        && !auth::proves(proof, password)
    {
        let text = "this node has a password (security.password): send it with any user name\n";
        return Answer::new(StatusCode::UNAUTHORIZED, TEXT, text)
            .with(header::WWW_AUTHENTICATE, "Basic realm=\"pelago\", charset=\"UTF-8\"");
    }
    if route == Route::Unknown {
        let known: Vec<String> = Route::ALL.iter().map(|route| format!("  {}\n", route.path())).collect();
        let text = format!("nothing is at this path; there are\n{}", known.concat());
        return Answer::new(StatusCode::NOT_FOUND, TEXT, text);
    }
    let switches = match switches(request.uri().query().unwrap_or(""), route.switches()) {
        Ok(switches) => switches,
        Err(why) => return Answer::new(StatusCode::BAD_REQUEST, TEXT, why),
    };
    let on = |name| switches.contains(&name);
    match route {
        Route::Page | Route::Unknown => page(),
        Route::Live => live(desk),
        Route::Ready => {
            let readiness = readiness(desk).await;
            let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Answer::json(code, &readiness)
        }
        Route::Metrics => Answer::new(StatusCode::OK, PROMETHEUS, metrics::text(desk, on("groups")).await),
        Route::Status => status(desk, on("cluster"), on("brief")).await,
    }
}

/// Which of the known switches a query turns on.
fn switches(query: &str, known: &'static [&'static str]) -> Result<Vec<&'static str>, String> {
    let mut on = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, "1"));
        let Some(known) = known.iter().find(|known| **known == name) else {
            return Err(match known {
                [] => "this path takes nothing behind a ?\n".to_owned(),
                known => format!("unknown parameter; this path takes {}=1\n", known.join("=1 and ")),
            });
        };
        match value {
            "1" => on.push(*known),
            "0" => {}
            _ => return Err(format!("{known} is 1 or 0\n")),
        }
    }
    Ok(on)
}

/// The page, whose policy lets it run its own script, use its own style and ask its own node.
fn page() -> Answer {
    const PAGE: &str = include_str!("page.html");
    let Ok(nonce) = random_id() else {
        return Answer::new(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no random number for the page\n");
    };
    let nonce = format!("{nonce:032x}");
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Answer::new(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace("{{nonce}}", &nonce))
        .with(header::CONTENT_SECURITY_POLICY, policy)
}

fn live(desk: &Desk) -> Answer {
    let hangs = match desk.board.stage() {
        Stage::Serving(serving) => hangs(&serving),
        Stage::Opening | Stage::Unborn(_) | Stage::Ending => None,
    };
    match hangs {
        None => Answer::new(StatusCode::OK, TEXT, "alive\n"),
        Some(why) => Answer::new(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

async fn status(desk: &Desk, cluster: bool, brief: bool) -> Answer {
    if brief && !cluster {
        return Answer::new(StatusCode::BAD_REQUEST, TEXT, "brief=1 goes with cluster=1\n");
    }
    let stage = desk.board.stage();
    let Stage::Serving(serving) = stage else {
        // No status yet, or none any more: the reasons are what there is to say.
        return Answer::json(StatusCode::SERVICE_UNAVAILABLE, &Readiness::before(&stage));
    };
    let silent =
        |why: String| Answer::json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "error": why }));
    match cluster {
        false => match desk.look.own(&serving).await {
            Ok(own) => Answer::json(StatusCode::OK, &own.status),
            Err(why) => silent(why),
        },
        true => match desk.look.all(serving).await {
            Ok(all) if brief => Answer::new(StatusCode::OK, JSON, all.brief.clone()),
            Ok(all) => Answer::json(StatusCode::OK, &all.overview),
            Err(why) => silent(why),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_known_and_on_or_off() {
        let known: &[&str] = &["cluster", "brief"];
        assert_eq!(switches("", known), Ok(vec![]));
        assert_eq!(switches("cluster=1&brief", known), Ok(vec!["cluster", "brief"]));
        assert_eq!(switches("cluster=0&", known), Ok(vec![]));
        for query in ["cluster=2", "clusters=1", "cluster=1&x=<script>", "=1"] {
            let why = switches(query, known).expect_err("it is refused");
            assert!(!why.contains('<'), "what was sent is not sent back: {why}");
        }
        assert!(switches("groups=1", &[]).is_err());
    }

    #[test]
    fn the_page_is_one_file_that_asks_only_its_own_node() {
        let page = include_str!("page.html");
        for foreign in
            ["http://", "https://", "//cdn", "@import", "url(", "eval(", "innerHTML", " style=", " onclick="]
        {
            let found = page.match_indices(foreign).find(|(at, _)| {
                // The name of the SVG language is no address.
                !page[*at..].starts_with("http://www.w3.org/2000/svg")
            });
            assert_eq!(found, None, "{foreign}");
        }
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("<style").count(), 1);
        assert_eq!(page.matches("nonce=\"{{nonce}}\"").count(), 2);
        assert!(page.len() < 64 << 10, "{} bytes", page.len());
    }
}
