//! Every mistake of a configuration at once, each with its place, what was meant and what to do.

use server::config::{Config, fuzz_config};

const NODE: &str = r#"
[[nodes]]
id = 1
peer_addr = "127.0.0.1:7101"
client_addr = "127.0.0.1:7001"
admin_addr = "127.0.0.1:7201"
"#;

fn errors(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::parse(text, "config.toml", &overrides).expect_err("mistakes").to_string()
}

/// A one-node file with `sections` behind the node.
fn with(sections: &str) -> String {
    format!("[cluster]\nreplication = 1\n{NODE}\n{sections}")
}

#[test]
fn many_mistakes_at_once() {
    let text = r#"[cluster]
name = ""
grups = 16
replication = 3

[[nodes]]
id = 1
peer_addr = "127.0.0.1:7101"
client_addr = "127.0.0.1:7101"
admin_addr = "localhost"

[[nodes]]
id = 1
peer_addr = "127.0.0.1:7102"
client_adr = "127.0.0.1:7002"
admin_addr = "127.0.0.1:7202"

[storage]
durability = "maybe"
segment_size = "64Mebibytes"

[paxos]
hartbeat_interval = "50ms"
lease = "500ms"
max_clock_drift = 2
window = "many"

[checkpoints]
engine = "fjall"

[limits]
max_batch_bytes = "1MiB"
max_value = -1
"#;
    let expected = r#"config.toml:2:8: `name` must be a text that is not empty, not ""
config.toml:3:1: unknown key `grups` in [cluster]; did you mean `groups`?
config.toml:4:15: replication is 3, but only 2 nodes are listed; add nodes or set it to 2 or less
config.toml:9:15: `client_addr` 127.0.0.1:7101 is taken already as `peer_addr` in line 8; each needs a port of its own
config.toml:10:14: `admin_addr` "localhost" has no port; write it as host:port
config.toml:12:1: this node lacks `client_addr`; every node needs all of them
config.toml:13:6: node id 1 is taken already in line 7; ids must differ
config.toml:15:1: unknown key `client_adr` in [[nodes]]; did you mean `client_addr`?
config.toml:19:14: `durability` must be "fsync" or "none", not "maybe"
config.toml:20:16: `segment_size` must be a size from "1MiB" to "1GiB" (units B, KiB, MiB, GiB, TiB), not "64Mebibytes"
config.toml:23:1: unknown key `hartbeat_interval` in [paxos]; did you mean `heartbeat_interval`?
config.toml:24:9: lease is 500ms, but must be shorter than election_timeout, which is 400ms: a new leader could be elected while the old one still answers reads
config.toml:25:19: `max_clock_drift` must be a percentage from "0%" to "50%", not the number 2
config.toml:26:10: `window` must be a whole number from 1 to 65536, not "many"
config.toml:28:2: unknown section [checkpoints]; did you mean [checkpoint]?
config.toml:32:1: `max_batch_bytes` belongs into section [paxos], not [limits]; move it there
config.toml:33:13: `max_value` must be a size from "1B" to "14MiB" (units B, KiB, MiB, GiB, TiB), not the number -1"#;
    assert_eq!(errors(text, &[]), expected);
}

#[test]
fn broken_syntax_hides_no_other_mistake() {
    let text = with(
        "[paxos]\nwindow = \nlease 5\nhartbeat_interval = \"1s\"\n[limits]\nmax_key = \"4KiB\nmax_valu = 1\n",
    );
    let errors = errors(&text, &[]);
    for expected in [
        "config.toml:11:",
        "config.toml:12:",
        "config.toml:15:",
        "did you mean `heartbeat_interval`?",
        "did you mean `max_value`?",
    ] {
        assert!(errors.contains(expected), "{expected} is missing in\n{errors}");
    }
    assert!(!errors.contains("`window`"), "a guess of the parser is reported:\n{errors}");
}

#[test]
fn one_mistake_each() {
    for (sections, expected) in [
        (
            "[paxos]\nheartbeat_interval = \"200ms\"",
            "config.toml:11:22: heartbeat_interval is 200ms, but must be less than half",
        ),
        (
            "[paxos]\nelection_timeout = \"250ms\"",
            "config.toml:11:20: lease is 300ms, but must be shorter than election_timeout",
        ),
        (
            "[paxos]\nwindow = 0",
            "config.toml:11:10: `window` must be a whole number from 1 to 65536, not the number 0",
        ),
        (
            "[paxos]\nmax_batch_bytes = \"32MiB\"",
            "config.toml:11:19: `max_batch_bytes` must be a size from \"1KiB\" to \"8MiB\"",
        ),
        (
            "[storage]\nsegment_size = \"8MiB\"",
            "config.toml:11:16: max_value is 8MiB and max_key is 4KiB, but together",
        ),
        (
            "[limits]\nmax_value = \"64MiB\"",
            "config.toml:11:13: `max_value` must be a size from \"1B\" to \"14MiB\"",
        ),
        (
            "[limits]\nmax_inflight_bytes = \"1MiB\"",
            "config.toml:11:22: max_inflight_bytes is 1MiB, less than one put",
        ),
        ("[limits]\nmax_value = 99999999999999999999", "not a number of that size"),
        (
            "[security]\nsecure = true",
            "config.toml:11:1: unknown key `secure` in [security]; did you mean `insecure`?",
        ),
        (
            "[security]\npassword = true",
            "config.toml:11:12: `password` must be a text that is not empty, not true",
        ),
        (
            "[checkpoint]\nengine = \"redb\"",
            "config.toml:11:10: `engine` must be \"fjall\" or \"sled\", not \"redb\"",
        ),
        (
            "[checkpoint]\nlog_keep_entries = -1",
            "`log_keep_entries` must be a whole number, not the number -1",
        ),
        ("[checkpoint]\nlog_keep_bytes = []", "not a value of type array"),
        ("[[paxos]]\nwindow = 1", "`paxos` must be a section: write [paxos]"),
        ("[zzzzz]", "unknown section or key `zzzzz`; known sections are [[nodes]], [cluster]"),
        ("[node]\nid = 1", "unknown section [node]; did you mean [[nodes]]?"),
        ("[paxos]\nwindow = 1\nwindow = 2", "config.toml:12:1: duplicate key"),
        (
            "[[nodes]]\nid = 2\npeer_addr = \"0.0.0.0:1\"\nclient_addr = \"10.0.0.1:2\"\nadmin_addr = \"10.0.0.1:3\"",
            "config.toml:12:13: `peer_addr` 0.0.0.0:1 is where the other nodes connect to",
        ),
        (
            "[[nodes]]\nid = 2\npeer_addr = \"[::1]:1\"\nclient_addr = \"10.0.0.1:2\"\nadmin_addr = \"10.0.0.1:3\"",
            "config.toml:13:15: `client_addr` 10.0.0.1:2 can be reached from other machines and nothing protects it",
        ),
        (
            "[[nodes]]\nid = 2\npeer_addr = \"db.example:1\"\nclient_addr = \"10.0.0.1:2\"\nadmin_addr = \"10.0.0.1:3\"\n\
             [security]\npassword = \"x\"",
            "config.toml:12:13: `peer_addr` db.example:1 can be reached",
        ),
        (
            "[[nodes]]\nid = 2\npeer_addr = \"[::1]:1\"\nclient_addr = \"[::1]:2\"\nadmin_addr = \"10.0.0.1:3\"",
            "config.toml:14:14: `admin_addr` 10.0.0.1:3 can be reached from other machines and nothing protects it; use a \
             loopback address, or set `password` in [security]",
        ),
        (
            "[[nodes]]\nid = 0",
            "config.toml:11:6: `id` must be a whole number of at least 1, not the number 0",
        ),
        ("[[nodes]]", "config.toml:10:1: this node lacks `id`, `peer_addr`, `client_addr`, `admin_addr`"),
        (
            "[[nodes]]\nid = 2\npeer_addr = 7001",
            "`peer_addr` must be a text like \"127.0.0.1:7001\", not the number 7001",
        ),
    ] {
        let errors = errors(&with(sections), &[]);
        assert!(errors.contains(expected), "{sections}\nshould give: {expected}\nbut gives:\n{errors}");
    }
    assert!(errors("", &[]).starts_with("config.toml: no node is listed; add a [[nodes]] entry"));
    assert!(errors("nodes = 3", &[]).contains("config.toml:1:1: `nodes` must be a list: write [[nodes]]"));
    assert!(
        errors("window = 3", &[])
            .contains("config.toml:1:1: `window` belongs into section [paxos]; move it there")
    );
    let twice = errors(&format!("[cluster]\nreplication = 1\n{NODE}{NODE}"), &[]);
    assert_eq!(twice.lines().count(), 4, "one id and three addresses:\n{twice}");
}

#[test]
fn overrides_are_checked_like_the_file() {
    let text = with("");
    for (text_override, expected) in [
        ("paxos.lease=9s", "--set paxos.lease=9s: lease is 9s, but must be shorter than election_timeout"),
        (
            "paxos.window=x",
            "--set paxos.window=x: `window` must be a whole number from 1 to 65536, not \"x\"",
        ),
        ("paxos.windw=1", "--set paxos.windw=1: unknown key; did you mean `paxos.window`?"),
        ("paxos.window", "--set paxos.window: has no `=`; write --set section.key=value"),
        ("nodes.1.id=2", "--set nodes.1.id=2: nodes cannot be set on the command line"),
    ] {
        assert!(errors(&text, &[text_override]).contains(expected), "{}", errors(&text, &[text_override]));
    }
    let overrides = [
        "paxos.window=8",
        "storage.data_dir=/x y",
        "limits.max_value=\"1MiB\"",
        "security.insecure=true",
        "paxos.window=9",
    ];
    let config = Config::parse(&text, "config.toml", &overrides.map(str::to_owned)).expect("a configuration");
    assert_eq!(config.paxos.window, 9);
    assert_eq!(config.storage.data_dir.to_str(), Some("/x y"));
    assert_eq!(config.limits.max_value.0, 1 << 20);
    assert!(config.security.insecure);
}

#[test]
fn warnings_do_not_refuse() {
    let text = format!(
        "[cluster]\nreplication = 2\n{NODE}{}[storage]\ndurability = \"none\"\n[paxos]\nlease = \"80ms\"",
        NODE.replace("id = 1", "id = 2").replace("127.0.0.1", "127.0.0.2"),
    );
    let config = Config::parse(&text, "config.toml", &[]).expect("a configuration");
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.iter().any(|warning| {
        warning.starts_with("config.toml:2:15: replication 2 tolerates no more failures than 1")
    }));
    assert!(warnings.iter().any(|warning| warning.contains("durability is none")));
    assert!(
        warnings.iter().any(|warning| warning.contains("lease is 80ms, of which a leader counts on 76800us"))
    );
}

#[test]
fn a_lease_that_lasts_between_busy_heartbeats_only_is_warned_of() {
    // Two intervals of 125 ms are less than 300 ms, but an idle worker looks up every 25 ms, and 12 ms are the clocks'.
    let warnings = |(interval, drift): (u64, u64)| {
        let text = format!(
            "[cluster]\nreplication = 1\n{NODE}[paxos]\nheartbeat_interval = \"{interval}ms\"\nlease = \"300ms\"\nmax_clock_drift = \"{drift}%\""
        );
        let config = Config::parse(&text, "config.toml", &[]).expect("a configuration");
        config.warnings.iter().map(ToString::to_string).filter(|w| w.contains("lease is")).count()
    };
    assert_eq!([(50, 2), (119, 2), (120, 2), (125, 2), (50, 40)].map(warnings), [0, 0, 1, 1, 1]);
}

#[test]
fn files_that_cannot_be_read() {
    let missing = Config::load("no/such/config.toml".as_ref(), &[]).expect_err("no file").to_string();
    assert!(missing.starts_with("no/such/config.toml: cannot be read: "), "{missing}");
    let directory = std::env::temp_dir().join(format!("pelago-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    for (content, expected) in [
        (&b"[cluster]\nname = \"\xff\""[..], "line 2 is not UTF-8"),
        (&vec![b'#'; 2 << 20], "is it the right file?"),
    ] {
        let path = directory.join("config.toml");
        std::fs::write(&path, content).expect("a file");
        let errors = Config::load(&path, &[]).expect_err("a bad file").to_string();
        assert!(errors.contains(expected), "{errors}");
    }
    std::fs::remove_dir_all(&directory).expect("removed");
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in ".*") {
        fuzz_config(text.as_bytes());
    }

    #[test]
    fn any_edit_of_the_shipped_file_is_answered(at in 0usize..4000, length in 0usize..40, insert in "[\\[\\]=\"a-z0-9\n. ]{0,12}") {
        let mut bytes = include_bytes!("../../config.toml").to_vec();
        let start = at.min(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, insert.bytes());
        fuzz_config(&bytes);
    }
}
