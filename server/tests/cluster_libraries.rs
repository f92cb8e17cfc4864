//! Client libraries for Redis, unchanged, as programs that were written for it use them. They are installed below
//! the build's own directory, once; where that cannot be done the test says so and is skipped.

mod cluster;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, Recipe, turn};

/// What an installation may take; a registry that does not answer must not hold the tests up.
const INSTALL: Duration = Duration::from_secs(40);

/// What a program may take.
const RUN: Duration = Duration::from_secs(60);

/// How a program ended and what it said, or why not.
fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let scratch = cluster::TestDir::new();
    let (out, errors) = (scratch.path().join("out"), scratch.path().join("errors"));
    let file = |path: &Path| fs::File::create(path).map_err(|e| e.to_string());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file(&out)?)
        .stderr(file(&errors)?)
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break Some(status),
            None if begun.elapsed() > limit => {
                // It may have ended just now.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    match status {
        Some(status) if status.success() => Ok(text(&out)),
        Some(status) => Err(format!("{name} ended with {status}: {}{}", text(&out), text(&errors))),
        None => Err(format!("{name} took more than {limit:?}: {}{}", text(&out), text(&errors))),
    }
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("libraries").join(name)
}

/// A Python that has the library `redis`: the one that `PELAGO_PYTHON` names, the machine's, or one of our own.
fn python() -> Result<PathBuf, String> {
    let has = |python: &Path| run(Command::new(python).args(["-c", "import redis"]), INSTALL).is_ok();
    let named = std::env::var_os("PELAGO_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let own = place("python");
    let ours = own.join("bin/python");
    if let Some(found) = [named.clone(), ours.clone()].into_iter().find(|python| has(python)) {
        return Ok(found);
    }
    run(Command::new(&named).args(["-m", "venv", "--clear"]).arg(&own), INSTALL)?;
    let mut pip = Command::new(&ours);
    pip.args([
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--retries",
        "0",
        "--timeout",
        "10",
    ]);
    run(pip.arg("redis>=5,<9"), INSTALL)?;
    Ok(ours)
}

/// A directory of node modules that has `ioredis`.
fn ioredis() -> Result<PathBuf, String> {
    let own = place("node");
    let modules = own.join("node_modules");
    let has = |modules: &Path| {
        let mut node = Command::new("node");
        run(node.args(["-e", "require('ioredis')"]).env("NODE_PATH", modules), INSTALL)
    };
    if has(&modules).is_ok() {
        return Ok(modules);
    }
    fs::create_dir_all(&own).map_err(|e| e.to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--prefix"]);
    run(npm.arg(&own).arg("ioredis@5"), INSTALL)?;
    has(&modules).map(|_| modules)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Runs a program with the ports of a cluster.
fn converse(mut program: Command) {
    let cluster = Cluster::start(Recipe::default());
    // Who computes slots goes to leaders, and right after the birth one node may have all of them.
    cluster.wait_whole(Duration::from_secs(20));
    program.args(cluster.addresses().iter().map(|address| address.port().to_string()));
    let begun = Instant::now();
    let out = run(&mut program, RUN).unwrap_or_else(|why| panic!("{why}"));
    assert!(out.ends_with("all well\n"), "{out}");
    println!("{out}in {:?}", begun.elapsed());
    cluster.wait_same(Duration::from_secs(5));
}

#[test]
fn redis_py_pipelines_and_transactions_run_through_three_nodes() {
    // The story: a program that was written for Redis, with its optimistic locks.
    let _turn = turn();
    match python() {
        Ok(python) => {
            let mut program = Command::new(python);
            program.arg(script("redis_py.py"));
            converse(program);
        }
        Err(why) => {
            println!("SKIPPED: no Python with the library \"redis\" (PELAGO_PYTHON may name one): {why}")
        }
    }
}

#[test]
fn ioredis_pipelines_and_transactions_run_through_three_nodes() {
    // The story: the same with the library that most programs for Node.js use, which packs commands into
    // pipelines by itself.
    let _turn = turn();
    match ioredis() {
        Ok(modules) => {
            let mut program = Command::new("node");
            program.arg(script("ioredis.js")).env("NODE_PATH", modules);
            converse(program);
        }
        Err(why) => println!("SKIPPED: no Node.js with the library \"ioredis\": {why}"),
    }
}

/// What compiling the library's crates may take.
const BUILD: Duration = Duration::from_secs(150);

/// The program that uses `redis-rs`, which is a package of its own: its crates are compiled here and nowhere
/// else.
fn redis_rs() -> Result<PathBuf, String> {
    let (package, target) = (script("redis_rs"), place("redis-rs"));
    let mut cargo =
        Command::new(std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(package.join("Cargo.toml"));
    // Flags that are meant for the workspace, as for its fuzz targets, are not for it.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").arg("--target-dir").arg(&target);
    run(&mut cargo, BUILD)?;
    Ok(target.join("debug/redis_rs"))
}

#[test]
fn redis_rs_pipelines_and_transactions_run_through_three_nodes() {
    // The story: the same in Rust, with the client that knows where keys are, and with the one that does not.
    let _turn = turn();
    match redis_rs() {
        Ok(program) => converse(Command::new(program)),
        Err(why) if why.contains("error[E") || why.contains("error: could not compile `redis_rs`") => {
            panic!("{why}")
        }
        Err(why) => println!("SKIPPED: the crate \"redis\" cannot be had: {why}"),
    }
}
