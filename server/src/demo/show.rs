//! `pelago demo`: a tour, then the live status until Ctrl-C.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Plan;
use super::cluster::{Cluster, program_name};
use super::directory::Directory;
use super::interrupt::Interrupt;
use super::ports::USUAL;
use super::stage;
use super::waiting::{Stop, all_led, until};
use crate::cli::status::{line, look, screen};
use crate::cli::{Failure, print};
use crate::client::{Client, Options};
use crate::protocol::Reply;

/// Where everything is kept unless something else is said.
const DATA: &str = "data/demo";
/// For birth and elections.
const START: Duration = Duration::from_secs(60);
/// Between two lines where there is no terminal.
const LINES: Duration = Duration::from_secs(5);

/// Runs the demo until somebody ends it.
///
/// # Errors
/// With exit code 2 when it could not start, 1 when something went wrong.
pub fn show(plan: &Plan) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let path = plan.data.as_deref().unwrap_or(Path::new(DATA));
    let directory = Directory::prepare(plan, path, USUAL)?;
    for note in &directory.notes {
        print(format!("{note}\n"))?;
    }
    print(opening(&directory))?;
    let mut cluster = Cluster::start(&directory)?;
    let outcome = tour_and_live(&directory, &mut cluster, &interrupt);
    let (outcome, words) = match outcome {
        Ok(()) => (Ok(()), "\nending the nodes"),
        Err(Stop::Interrupted) => (Ok(()), "\nending the nodes"),
        Err(Stop::Failed(why)) => (Err(Failure::no(why)), "ending the nodes"),
    };
    let start = Instant::now();
    let said = print(format!("{words}\n"));
    let mut text = String::new();
    for note in cluster.stop(Some(&interrupt)) {
        text += &format!("{note}\n");
    }
    text += &format!(
        "ended after {:.1} s; the data stays in {} and the next demo goes on with it (--fresh begins anew)\n",
        start.elapsed().as_secs_f64(),
        path.display()
    );
    outcome.and(said).and_then(|()| print(text))
}

fn opening(directory: &Directory) -> String {
    let config = &directory.config;
    format!(
        "{} {} nodes with {} Paxos groups of {} members in {}: real processes, real files, durability {}\n",
        if directory.reused { "starting again" } else { "starting" },
        config.nodes.len(),
        config.cluster.groups,
        config.cluster.replication,
        directory.path.display(),
        config.storage.durability.name(),
    )
}

fn tour_and_live(
    directory: &Directory,
    cluster: &mut Cluster<'_>,
    interrupt: &Interrupt,
) -> Result<(), Stop> {
    let start = Instant::now();
    let nodes = cluster.ids().len();
    let found = until("all leaders", cluster, interrupt, START, |overview| all_led(overview, nodes))?;
    say(&format!("{found} after {:.1} s\n\n", start.elapsed().as_secs_f64()))?;
    tour(cluster)?;
    let about = how_to_talk(directory, cluster);
    say(&about)?;
    match screen::is_there() {
        true => stage::live(cluster, interrupt, &about),
        false => live(cluster, interrupt),
    }
}

/// The tour goes to stdout; when nobody reads it any more, the demo ends.
fn say(text: &str) -> Result<(), Stop> {
    print(text).map_err(|failure| match failure.message.is_empty() {
        true => Stop::Interrupted,
        false => Stop::Failed(failure.message),
    })
}

/// A put through the first node and a get through the last.
fn tour(cluster: &Cluster<'_>) -> Result<(), Stop> {
    let ids = cluster.ids();
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
    let program = program_name();
    let steps: [(u32, &[&[u8]], String); 2] = [
        (*first, &[b"PUT", b"greeting", b"hello"], "put greeting hello".to_owned()),
        (*last, &[b"GET", b"greeting"], "get greeting".to_owned()),
    ];
    for (node, words, typed) in steps {
        let address = cluster.address(node);
        let reply = Client::connect(std::slice::from_ref(&address), Options::default())
            .and_then(|mut client| client.call(words))
            .map_err(|error| Stop::Failed(error.to_string()))?;
        let answer = match reply {
            Reply::Simple(text) => text.into_owned(),
            Reply::Bulk(value) => String::from_utf8_lossy(&value).into_owned(),
            Reply::Error(error) => return Err(Stop::Failed(format!("node {node} answered: {error}"))),
            other => return Err(Stop::Failed(format!("node {node} answered something else: {other:?}"))),
        };
        say(&format!("$ {program} {typed} --addr {address}\n{answer}\n"))?;
    }
    Ok(())
}

fn how_to_talk(directory: &Directory, cluster: &Cluster<'_>) -> String {
    let program = program_name();
    let Some(first) = directory.config.nodes.first() else { return String::new() };
    let page = &first.admin_addr;
    let (host, port) = (first.client_addr.host(), first.client_addr.port());
    let all = cluster.addresses().join(",");
    let pids: Vec<String> =
        cluster.ids().iter().filter_map(|node| Some(format!("{node}: {}", cluster.pid(*node)?))).collect();
    format!(
        "\ntalk to it:\n\
         \x20 nc {host} {port}            then type PUT greeting hello, GET greeting, STATUS, HELP\n\
         \x20 redis-cli -h {host} -p {port}\n\
         \x20 export PELAGO_ADDR={all}\n\
         \x20 {program} get greeting\n\
         \x20 {program} status\n\
         \x20 http://{page}/           the status page, for a browser\n\
         process ids by node: {}; kill -9 one and watch\n\n",
        pids.join(", ")
    )
}

/// A line about the status now and then, until somebody wants an end.
fn live(cluster: &mut Cluster<'_>, interrupt: &Interrupt) -> Result<(), Stop> {
    let start = Instant::now();
    loop {
        for death in cluster.deaths() {
            say(&format!("{}\n  the others go on; Ctrl-C and a new demo bring it back\n", death.text))?;
        }
        let text = match look(&cluster.addresses(), &Options::default()) {
            Ok(overview) => line(&overview),
            Err(error) => error.to_string(),
        };
        say(&format!("{:>6.0} s  {text}\n", start.elapsed().as_secs_f64()))?;
        if interrupt.wait(LINES) {
            return Ok(());
        }
    }
}
