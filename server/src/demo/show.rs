//! `pelago demo`: a tour, then the live status until Ctrl-C.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Plan;
use super::cluster::{Cluster, program_name};
use super::directory::Directory;
use super::interrupt::Interrupt;
use super::ports::USUAL;
use super::waiting::{Stop, all_led, until};
use crate::cli::status::{line, look, table};
use crate::cli::{Failure, print};
use crate::client::{Client, Options};
use crate::protocol::Reply;

/// Where everything is kept unless something else is said.
const DATA: &str = "data/demo";
/// For birth and elections.
const START: Duration = Duration::from_secs(60);
/// Between two looks on a terminal, and between two lines elsewhere.
const LIVE: Duration = Duration::from_secs(1);
const LINES: Duration = Duration::from_secs(5);
/// A screen of 80 columns and 24 lines must hold the live status.
const COLUMNS: usize = 79;
const ROWS: usize = 22;

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
    say(&how_to_talk(directory, cluster))?;
    live(cluster, interrupt)
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

/// The status until somebody wants an end.
fn live(cluster: &mut Cluster<'_>, interrupt: &Interrupt) -> Result<(), Stop> {
    let terminal = io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let start = Instant::now();
    let mut drawn = 0;
    loop {
        for death in cluster.deaths() {
            drawn = 0;
            say(&format!("{}\n  the others go on; Ctrl-C and a new demo bring it back\n", death.text))?;
        }
        let overview = look(&cluster.addresses(), &Options::default());
        if terminal {
            let listed = ROWS.saturating_sub(9 + cluster.ids().len());
            let text = match &overview {
                Ok(overview) => table(overview, listed, colour),
                Err(error) => format!("{error}\n"),
            };
            let (block, lines) = screen(&format!("{text}\nCtrl-C ends the demo\n"));
            let back = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
            say(&format!("{back}{block}"))?;
            drawn = lines;
        } else {
            let text = match &overview {
                Ok(overview) => line(overview),
                Err(error) => error.to_string(),
            };
            say(&format!("{:>6.0} s  {text}\n", start.elapsed().as_secs_f64()))?;
        }
        if interrupt.wait(if terminal { LIVE } else { LINES }) {
            return Ok(());
        }
    }
}

/// Cuts a text to what a small screen holds, so that the cursor finds back to its start. Says
/// how many lines are left.
fn screen(text: &str) -> (String, usize) {
    let all = text.lines().count();
    let mut lines: Vec<String> = text.lines().take(ROWS).map(cut).collect();
    if all > ROWS
        && let Some(last) = lines.last_mut()
    {
        *last = format!("… {} more lines; see pelago status", all - ROWS + 1);
    }
    let count = lines.len();
    (lines.join("\n") + "\n", count)
}

/// Cuts a line to the columns that are seen; colours take none.
fn cut(line: &str) -> String {
    let mut out = String::new();
    let mut seen = 0;
    let mut escape = false;
    for letter in line.chars() {
        escape |= letter == '\x1b';
        if escape || seen < COLUMNS {
            out.push(letter);
        }
        if !escape {
            seen += 1;
        }
        escape &= letter != 'm';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_never_outgrows_a_small_terminal() {
        let (block, lines) = screen(&"x".repeat(200));
        assert_eq!((block.chars().count(), lines), (COLUMNS + 1, 1));
        let (block, lines) = screen(&"line\n".repeat(100));
        assert_eq!((block.lines().count(), lines), (ROWS, ROWS));
        assert!(block.ends_with("… 79 more lines; see pelago status\n"), "{block}");
    }

    #[test]
    fn colours_take_no_columns_and_are_never_left_open() {
        let line = format!("\x1b[31m{}\x1b[0mend", "x".repeat(COLUMNS + 10));
        assert_eq!(cut(&line), format!("\x1b[31m{}\x1b[0m", "x".repeat(COLUMNS)));
    }
}
