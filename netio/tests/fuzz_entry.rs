//! The fuzz targets' entry points on stable Rust: seeds, their beginnings, random bytes, damaged
//! seeds. The memory they take is bounded.

#[path = "../../fuzz/support.rs"]
mod support;

use bytes::Bytes;
use groups::ids::{Boot, ClusterId, GroupId, NodeId, StorageId};
use netio::handshake::{Hello, Message, Refusal};
use netio::{FrameBatch, Lane, RefusalCode, fuzz};
use support::Entry;

/// A frame may announce 256 KiB, and the decoder holds an old buffer beside the new one, twice.
const FRAME: Entry = Entry { name: "frame", run: fuzz::frame, base: 2 << 20, times: 64 };
const HANDSHAKE: Entry = Entry { name: "handshake", run: fuzz::handshake, base: 64 << 10, times: 64 };

#[test]
fn frame() {
    FRAME.drive(20_000);
}

#[test]
fn handshake() {
    HANDSHAKE.drive(50_000);
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_seeds() {
    let mut batch = FrameBatch::new();
    let sizes = [(0, 0), (3, 0), (0, 40), (16, 200)];
    for (n, (head, payload)) in sizes.into_iter().enumerate() {
        batch.push(GroupId(n as u32), n as u8, &vec![1; head], &Bytes::from(vec![2; payload]));
    }
    let frames: Vec<u8> = batch.into_segments().flatten().collect();
    let keep_alive = [[0; 8], [1, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat();
    let streams = [frames[..].to_vec(), [&frames[..19], &keep_alive, &frames[..]].concat()];
    let seeds: Vec<Vec<u8>> =
        streams.iter().flat_map(|s| [[&[0], &s[..]].concat(), [&[15], &s[..]].concat()]).collect();
    FRAME.write_seeds(&seeds);

    let hello = |lane, cluster, expects| {
        Message::Hello(Hello {
            protocol_min: 1,
            protocol_max: 3,
            lane,
            node: NodeId(1),
            expects: NodeId(expects),
            boot: Boot(3),
            cluster: ClusterId(cluster),
            storage: StorageId(9),
            cluster_name: "local".into(),
        })
    };
    let reason = "node 2 is not in the configuration".into();
    let messages = [
        hello(Lane::Consensus, 0, 2),
        hello(Lane::Bulk, 7, 0),
        Message::Refusal(Refusal { code: RefusalCode::UnknownNode, reason }),
        Message::Ready { protocol: 3 },
    ];
    let mut seeds = Vec::new();
    for message in messages {
        let bytes = message.encode();
        seeds.push([&[1], &bytes[..]].concat());
        // With a checksum that follows the body, and with much in common.
        for mode in [0, 30] {
            seeds.push([&[mode, bytes[17]], &bytes[20..]].concat());
        }
    }
    HANDSHAKE.write_seeds(&seeds);
}
