//! The demo on a terminal: the status screen, with keys that do to the cluster what happens to clusters.

use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bench::{self, Told};
use super::cluster::Cluster;
use super::interrupt::Interrupt;
use super::waiting::Stop;
use crate::cli::logging::colour;
use crate::cli::status::screen::{Live, Looker, Screen, Source, Tone};
use crate::client::Options;

/// Between two looks: a demo is watched closely.
const EVERY: Duration = Duration::from_millis(500);

const KEYS: &[(char, &str, &str)] = &[
    ('k', "kill", "end the node that leads most groups with SIGKILL"),
    ('p', "partition", "cut the node that leads most groups off from all others"),
    ('h', "heal", "let all nodes hear each other again"),
    ('r', "restart", "start again whatever does not run"),
    ('b', "bench", "write for three seconds: puts per second, and how long they take"),
    ('v', "verify", "compare all replicas, and look for rot in memory, mirrors and logs"),
];

/// Shows the screen until somebody wants an end. `about` is said in its help.
///
/// # Errors
/// When the terminal cannot be used.
pub fn live(cluster: &mut Cluster<'_>, interrupt: &Interrupt, about: &str) -> Result<(), Stop> {
    let about = about.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned);
    let mut screen = Screen::new(colour(true)).with(KEYS, about.collect());
    screen.say(Tone::Plain, "the cluster is up; ? says how to talk to it");
    let source = Source::new(cluster.addresses().into());
    let (sender, words) = bounded(16);
    let stage = Stage {
        cluster,
        source: Arc::clone(&source),
        cut_off: None,
        struck: None,
        sender,
        words,
        busy: false,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let stop = Arc::clone(&stage.stop);
    let stage = std::cell::RefCell::new(stage);
    let show = || -> io::Result<()> {
        let looker = Looker::start(source, Options::default(), EVERY)?;
        Live::open()?.run(
            &mut screen,
            &looker,
            interrupt,
            |screen, key| stage.borrow_mut().key(screen, key),
            |screen| stage.borrow_mut().step(screen),
        )
    };
    let shown = show();
    stop.store(true, Ordering::Relaxed);
    shown.map_err(|error| Stop::Failed(format!("the terminal cannot be used: {error}")))
}

/// What a thread beside the screen tells.
enum Word {
    Doing(String),
    Ended(Tone, String),
}

struct Stage<'a, 'b> {
    cluster: &'a mut Cluster<'b>,
    /// Where the looks ask: nodes that run, those first that are not cut off.
    source: Source,
    cut_off: Option<u32>,
    /// A node that was taken away from its groups and when, until they have other leaders.
    struck: Option<(u32, Instant)>,
    sender: Sender<Word>,
    words: Receiver<Word>,
    /// A bench or a verification runs.
    busy: bool,
    /// The demo ends.
    stop: Arc<AtomicBool>,
}

impl Stage<'_, '_> {
    fn key(&mut self, screen: &mut Screen, key: char) {
        let done = match key {
            'k' => self.kill(screen),
            'p' => self.partition(screen),
            'h' => self.heal(),
            'r' => self.restart(),
            'b' => self.bench(screen),
            'v' => self.verify(screen),
            other => Err(format!("{other} is no key of this screen; ? lists them")),
        };
        match done {
            Ok(Some((tone, text))) => screen.say(tone, text),
            Ok(None) => {}
            Err(why) => screen.say(Tone::Bad, why),
        }
        self.ask();
    }

    /// Takes note of what has happened since. Says whether that shows.
    fn step(&mut self, screen: &mut Screen) -> bool {
        let mut changed = false;
        for death in self.cluster.deaths() {
            let first = death.text.lines().next().unwrap_or_default();
            screen.say(Tone::Bad, format!("{first}; see its log. r starts it again"));
            self.ask();
            changed = true;
        }
        while let Ok(word) = self.words.try_recv() {
            match word {
                Word::Doing(text) => screen.doing(Some(text)),
                Word::Ended(tone, text) => {
                    self.busy = false;
                    screen.doing(None);
                    screen.say(tone, text);
                }
            }
            changed = true;
        }
        if let Some((node, since)) = self.struck
            && let Some(overview) = screen.overview()
        {
            let summary = &overview.summary;
            let others =
                overview.groups.iter().all(|group| group.leader.is_some_and(|leader| leader != node));
            if others && summary.groups > 0 {
                self.struck = None;
                let took = since.elapsed().as_secs_f64();
                screen.say(Tone::Good, format!("seen {took:.1} s later: all groups have other leaders"));
                changed = true;
            }
        }
        changed
    }

    /// Who shall be asked from now on.
    fn ask(&mut self) {
        let mut addresses = self.cluster.addresses();
        if let Some(node) = self.cut_off {
            let behind = self.cluster.address(node);
            addresses.sort_by_key(|address| *address == behind);
        }
        *self.source.lock() = addresses;
    }

    /// The node that leads most, of those that run and are heard, and how many groups that are.
    fn busiest(&self, screen: &Screen) -> Result<(u32, usize), String> {
        let leads = screen.overview().map(|overview| overview.summary.leads.clone()).unwrap_or_default();
        leads
            .into_iter()
            .filter(|(node, leads)| {
                *leads > 0 && self.cluster.pid(*node).is_some() && self.cut_off != Some(*node)
            })
            .max_by_key(|(_, leads)| *leads)
            .ok_or_else(|| "no node leads anything now; r starts what does not run, h heals".to_owned())
    }

    fn kill(&mut self, screen: &Screen) -> Result<Option<(Tone, String)>, String> {
        let (node, leads) = self.busiest(screen)?;
        let pid = self.cluster.pid(node).unwrap_or(0);
        self.cluster.kill(node).map_err(|failure| failure.message)?;
        self.struck = Some((node, Instant::now()));
        Ok(Some((
            Tone::Bad,
            format!("kill -9 {pid}: node {node}, which led {leads} groups; r starts it again"),
        )))
    }

    fn restart(&mut self) -> Result<Option<(Tone, String)>, String> {
        let down: Vec<u32> =
            self.cluster.ids().into_iter().filter(|node| self.cluster.pid(*node).is_none()).collect();
        if down.is_empty() {
            return Err("every node runs: there is nothing to start".to_owned());
        }
        for node in &down {
            self.cluster.start_node(*node).map_err(|failure| failure.message)?;
        }
        // Whoever starts hears everybody.
        self.tell_cut()?;
        Ok(Some((Tone::Good, format!("started {}", crate::client::overview::nodes(&down)))))
    }

    fn partition(&mut self, screen: &Screen) -> Result<Option<(Tone, String)>, String> {
        if let Some(node) = self.cut_off {
            return Err(format!("node {node} is cut off already; h heals"));
        }
        if self.cluster.ids().len() < 2 {
            return Err("there is no other node to cut it off from".to_owned());
        }
        let (node, leads) = self.busiest(screen)?;
        self.cut_off = Some(node);
        self.tell_cut()?;
        self.struck = Some((node, Instant::now()));
        Ok(Some((
            Tone::Bad,
            format!(
                "cut node {node} off, which led {leads} groups: it and the others drop what they send each other; h heals"
            ),
        )))
    }

    fn heal(&mut self) -> Result<Option<(Tone, String)>, String> {
        let Some(node) = self.cut_off.take() else {
            return Err("nothing is cut off".to_owned());
        };
        self.tell_cut()?;
        Ok(Some((Tone::Good, format!("healed: node {node} and the others hear each other again"))))
    }

    /// Every node that runs drops what comes from the other side.
    fn tell_cut(&mut self) -> Result<(), String> {
        for node in self.cluster.ids() {
            if self.cluster.pid(node).is_none() {
                continue;
            }
            let line = match self.cut_off {
                None => "heal".to_owned(),
                Some(off) if off == node => {
                    let others = self.cluster.ids().into_iter().filter(|other| *other != node);
                    format!("cut {}", others.map(|other| other.to_string()).collect::<Vec<_>>().join(" "))
                }
                Some(off) => format!("cut {off}"),
            };
            self.cluster.tell(node, &line).map_err(|failure| failure.message)?;
        }
        Ok(())
    }

    fn bench(&mut self, screen: &mut Screen) -> Result<Option<(Tone, String)>, String> {
        let addresses: Vec<String> = self.source.lock().clone();
        let stop = Arc::clone(&self.stop);
        self.beside(screen, "bench: starting", move |tell| {
            bench::run(&addresses, &stop, |told| match told {
                Told::Running(text) => tell(Word::Doing(text)),
                Told::Ended(text, well) => tell(Word::Ended(if well { Tone::Good } else { Tone::Bad }, text)),
            });
        })
    }

    fn verify(&mut self, screen: &mut Screen) -> Result<Option<(Tone, String)>, String> {
        let program = self.cluster.program().to_owned();
        let addresses = self.source.lock().join(",");
        self.beside(screen, "verify: every node hashes its states, reads mirrors and logs", move |tell| {
            let words = ["admin", "verify", "--addr", &addresses];
            let ran = Command::new(program).args(words).stdin(Stdio::null()).output();
            let (tone, text) = match ran {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let tone = if output.status.success() { Tone::Good } else { Tone::Bad };
                    let wrong = said.lines().find(|line| line.starts_with("WRONG"));
                    let last = said.lines().rfind(|line| !line.is_empty()).map(str::to_owned);
                    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    (tone, wrong.map(str::to_owned).or(last).unwrap_or(error))
                }
                Err(error) => (Tone::Bad, format!("could not run: {error}")),
            };
            tell(Word::Ended(tone, format!("verify: {text}")));
        })
    }

    /// Does something on a thread of its own, one thing at a time.
    fn beside(
        &mut self,
        screen: &mut Screen,
        doing: &str,
        work: impl FnOnce(&dyn Fn(Word) -> bool) + Send + 'static,
    ) -> Result<Option<(Tone, String)>, String> {
        if self.busy {
            return Err("one thing at a time: what runs is not over yet".to_owned());
        }
        let sender = self.sender.clone();
        let body = move || work(&|word| sender.send(word).is_ok());
        let started = thread::Builder::new().name("beside".to_owned()).spawn(body);
        started.map_err(|error| format!("could not start a thread: {error}"))?;
        self.busy = true;
        screen.doing(Some(doing.to_owned()));
        Ok(None)
    }
}
