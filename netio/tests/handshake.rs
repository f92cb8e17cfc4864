//! The handshake messages: golden bytes, limits, damage.

use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use netio::Lane;
use netio::handshake::{Hello, MAX_BODY, MAX_MESSAGE, Malformed, Message, Refusal, RefusalCode};
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 2,
        lane: Lane::Bulk,
        node: NodeId(3),
        expects: NodeId(4),
        boot: Boot(5),
        cluster: ClusterId(6),
        storage: StorageId(7),
        cluster_name: "local".to_owned(),
    }
}

#[test]
fn the_bytes_of_a_hello_stay_what_they_are() {
    #[rustfmt::skip]
    let golden = [
        &b"pelago>n"[..],
        &[63, 0, 0, 0], &[0x6C, 0xE8, 0xDE, 0x0E],  // length, crc32
        &[1, 1, 0, 0],                              // version, type, reserved
        &[1, 0, 2, 0, 2, 0, 0, 0],                  // protocols, lane, zero
        &[3, 0, 0, 0, 4, 0, 0, 0],                  // node, expects
        &[5, 0, 0, 0, 0, 0, 0, 0],                  // boot
        &[6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0], b"local",
    ]
    .concat();
    assert_eq!(Message::Hello(hello()).encode(), golden);
    assert_eq!(Message::decode(&golden), Ok(Some((Message::Hello(hello()), golden.len()))));
}

fn any_message() -> impl Strategy<Value = Message> {
    let hello = (any::<(u16, u16, bool, u32)>(), 1..u32::MAX, any::<(u64, u128, u128)>(), ".{0,60}")
        .prop_map(|((a, b, bulk, expects), node, (boot, cluster, storage), cluster_name)| {
            Message::Hello(Hello {
                protocol_min: a.min(b),
                protocol_max: a.max(b),
                lane: if bulk { Lane::Bulk } else { Lane::Consensus },
                node: NodeId(node),
                expects: NodeId(expects),
                boot: Boot(boot),
                cluster: ClusterId(cluster),
                storage: StorageId(storage),
                cluster_name,
            })
        });
    prop_oneof![
        hello,
        "[ -~]{0,200}".prop_map(|reason| Message::Refusal(Refusal { code: RefusalCode::Idle, reason })),
        any::<u16>().prop_map(|protocol| Message::Ready { protocol }),
    ]
}

proptest! {
    #[test]
    fn a_message_comes_back_and_every_prefix_waits(message in any_message(), extra in 0usize..40) {
        let mut bytes = message.encode();
        let length = bytes.len();
        prop_assert!(length <= MAX_MESSAGE);
        for end in 0..length {
            prop_assert_eq!(Message::decode(&bytes[..end]), Ok(None));
        }
        bytes.resize(length + extra, 0xAB);
        prop_assert_eq!(Message::decode(&bytes), Ok(Some((message, length))));
    }

    #[test]
    fn no_single_bit_flip_passes(message in any_message()) {
        let good = message.encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes.resize(MAX_MESSAGE, 0);
            prop_assert!(Message::decode(&bytes).is_err(), "bit {}", bit);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() > 8 {
            bytes[..8].copy_from_slice(b"pelago>n");
        }
        prop_assert!(!matches!(Message::decode(&bytes), Ok(Some(_))));
    }
}

#[test]
fn foreign_bytes_are_known_by_the_first() {
    assert_eq!(Message::decode(b"G"), Err(Malformed::Magic));
    assert_eq!(Message::decode(b"PING\r\n"), Err(Malformed::Magic));
    assert_eq!(Message::decode(b"pelagos!"), Err(Malformed::Magic));
}

#[test]
fn a_long_envelope_is_refused_by_its_header() {
    let mut bytes = Message::Ready { protocol: 1 }.encode();
    let long = u32::try_from(MAX_BODY + 1).unwrap();
    bytes[8..12].copy_from_slice(&long.to_le_bytes());
    assert_eq!(Message::decode(&bytes[..20]), Err(Malformed::TooLong(long)));
}

#[test]
fn a_reason_is_cut_and_loses_its_control_characters() {
    let reason = format!("\x1b[31m{}", "ä".repeat(600));
    let bytes = Message::Refusal(Refusal { code: RefusalCode::Other(999), reason }).encode();
    let Ok(Some((Message::Refusal(refusal), _))) = Message::decode(&bytes) else { panic!("no refusal") };
    assert_eq!(refusal.code, RefusalCode::Other(999));
    assert!(refusal.reason.len() <= 512 && refusal.reason.starts_with(" [31mää"));
}
