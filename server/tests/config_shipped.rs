//! The configuration in the repository and the defaults that the contract names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use groups::ids::NodeId;
use server::config::{Config, Durability, Engine, reference};

const SHIPPED: &str = include_str!("../../config.toml");

fn shipped() -> Config {
    Config::parse(SHIPPED, "config.toml", &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn is_what_the_contract_says() {
    let config = shipped();
    assert_eq!(
        (&config.cluster.name[..], config.cluster.groups, config.cluster.replication),
        ("local", 16, 3)
    );
    for (node, id) in config.nodes.iter().zip(1u32..) {
        assert_eq!(node.id, NodeId(id));
        assert_eq!(node.peer_addr.to_string(), format!("127.0.0.1:710{id}"));
        assert_eq!(node.client_addr.to_string(), format!("127.0.0.1:700{id}"));
        assert_eq!(node.admin_addr.to_string(), format!("127.0.0.1:720{id}"));
    }
    assert_eq!(config.nodes.len(), 3);
    assert_eq!(config.storage.data_dir, PathBuf::from("data"));
    assert_eq!(config.node_dir(NodeId(2)), Path::new("data/node-2"));
    assert_eq!(config.storage.durability, Durability::Fsync);
    assert_eq!(config.storage.segment_size.0, 64 << 20);
    assert_eq!(config.paxos.heartbeat_interval, Duration::from_millis(50));
    assert_eq!(config.paxos.election_timeout, Duration::from_millis(400));
    assert_eq!(config.paxos.lease, Duration::from_millis(300));
    assert_eq!(config.paxos.max_clock_drift.of(config.paxos.lease), Duration::from_millis(6));
    assert_eq!((config.paxos.window, config.paxos.max_batch_bytes.0), (256, 256 << 10));
    assert_eq!(config.checkpoint.engine, Engine::Fjall);
    assert_eq!((config.checkpoint.interval_entries, config.checkpoint.log_keep_entries), (100_000, 10_000));
    assert_eq!(
        (config.checkpoint.log_keep_bytes.0, config.checkpoint.transfer_bytes_per_sec.0),
        (1 << 30, 0)
    );
    assert_eq!((config.limits.max_key.0, config.limits.max_value.0), (4 << 10, 8 << 20));
    assert_eq!((config.limits.max_connections, config.limits.max_inflight_bytes.0), (10_000, 64 << 20));
    assert_eq!((config.limits.min_free_disk.0, config.limits.max_state_bytes.0), (256 << 20, 0));
    assert!(!config.security.insecure && config.security.password.is_none());
    assert_eq!(config.warnings, []);
    assert_eq!(config.node(NodeId(4)), None);
    let requests = config.request_limits();
    assert!(requests.max_word >= 8 << 20 && requests.max_request >= requests.max_word + (4 << 10));
    assert!(requests.max_request <= 32 << 20, "a request fits into half a segment");
}

#[test]
fn what_is_left_out_has_the_same_value() {
    let shipped = shipped();
    let nodes = SHIPPED.split("[[nodes]]").skip(1).map(|node| node.split("\n[").next().unwrap_or(node));
    let text: String = nodes.map(|node| format!("[[nodes]]{node}\n")).collect();
    assert_eq!(Config::parse(&text, "nodes.toml", &[]).expect("a configuration"), shipped);
}

#[test]
fn every_key_stands_in_the_file_and_in_the_reference() {
    let reference = reference();
    for (name, _) in shipped().settings().iter().filter(|(name, _)| name.contains('.')) {
        let (_, key) = name.split_once('.').expect("a section");
        let written =
            SHIPPED.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
        assert!(written, "{name} is not in config.toml");
        assert!(reference.contains(&format!("| `{key}` |")), "{name} is not in the reference");
    }
}

/// `PELAGO_BLESS=1` writes it anew.
#[test]
fn the_document_is_what_the_program_prints() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("PELAGO_BLESS").is_some() {
        std::fs::write(&file, reference()).expect("written");
    }
    let text = std::fs::read_to_string(&file).expect("docs/configuration.md");
    assert!(
        text == reference(),
        "docs/configuration.md is not what the keys say; write it with: pelago config reference > docs/configuration.md"
    );
}

#[test]
fn settings_show_no_secret() {
    let overrides = ["security.password=hunter2".to_owned()];
    let config = Config::parse(SHIPPED, "config.toml", &overrides).expect("a configuration");
    assert!(!format!("{config:?} {:?}", config.settings()).contains("hunter2"));
}

#[test]
fn the_fingerprint_is_of_what_must_agree() {
    let fingerprint = shipped().fingerprint();
    assert_eq!(fingerprint.to_string(), "8c848b47e5370fa1", "it may not change between versions");
    let with = |text: &str, overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Config::parse(text, "config.toml", &overrides).expect("a configuration").fingerprint()
    };
    for same in [&["paxos.window=1"][..], &["storage.data_dir=elsewhere"], &["limits.max_key=1KiB"]] {
        assert_eq!(with(SHIPPED, same), fingerprint, "{same:?}");
    }
    assert_eq!(with(&SHIPPED.replace("7001", "7999"), &[]), fingerprint, "client addresses may differ");
    for other in [&["cluster.name=x"][..], &["cluster.groups=17"], &["cluster.replication=1"]] {
        assert_ne!(with(SHIPPED, other), fingerprint, "{other:?}");
    }
    assert_ne!(with(&SHIPPED.replace("7101", "7999"), &[]), fingerprint);
    assert_ne!(with(&SHIPPED.replace("id = 3", "id = 4"), &[]), fingerprint);
}
