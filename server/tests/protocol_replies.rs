//! Replies: how they look in both versions of RESP, and that our own clients read what our
//! servers write.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use server::protocol::{
    DecodeError, ErrorClass, ErrorReply, Reply, ReplyBuffer, ReplyDecoder, ReplyLimits, Version, fuzz_reply,
};

fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Reply>, DecodeError> {
    let mut decoder = ReplyDecoder::new(ReplyLimits { max_bulk: 1 << 20, max_elements: 1000 });
    let mut buffer = BytesMut::new();
    let mut replies = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        buffer.put_slice(piece);
        while let Some(reply) = decoder.next(&mut buffer)? {
            replies.push(reply);
        }
    }
    Ok(replies)
}

#[test]
fn both_versions() {
    let bulk = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
    for (reply, resp2, resp3) in [
        (Reply::ok(), "+OK\r\n", "+OK\r\n"),
        (Reply::Simple("a\r\nb".into()), "+a  b\r\n", "+a  b\r\n"),
        (ErrorReply::err("no").into(), "-ERR no\r\n", "-ERR no\r\n"),
        (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        (Reply::unsigned(u64::MAX), ":9223372036854775807\r\n", ":9223372036854775807\r\n"),
        (bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
        (Reply::Nil, "$-1\r\n", "_\r\n"),
        (Reply::NilArray, "*-1\r\n", "_\r\n"),
        (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
        (Reply::Array(vec![bulk("a"), Reply::Nil]), "*2\r\n$1\r\na\r\n$-1\r\n", "*2\r\n$1\r\na\r\n_\r\n"),
        (
            Reply::Map(vec![(bulk("a"), Reply::Integer(1))]),
            "*2\r\n$1\r\na\r\n:1\r\n",
            "%1\r\n$1\r\na\r\n:1\r\n",
        ),
        (Reply::Set(vec![Reply::Integer(1)]), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
        (Reply::Push(vec![bulk("a")]), "*1\r\n$1\r\na\r\n", ">1\r\n$1\r\na\r\n"),
        (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
        (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
        (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
        (Reply::BigNumber("123".into()), "$3\r\n123\r\n", "(123\r\n"),
        (Reply::text("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
    ] {
        assert_eq!(reply.to_bytes(Version::Resp2), resp2.as_bytes(), "{reply:?}");
        assert_eq!(reply.to_bytes(Version::Resp3), resp3.as_bytes(), "{reply:?}");
    }
}

#[test]
fn what_other_servers_write_is_read_too() {
    for (bytes, expected) in [
        ("|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n", Reply::Bulk("a".into())),
        ("*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:+2\r\n", Reply::Array(vec![Reply::Integer(1), Reply::Integer(2)])),
        ("!5\r\nERR x\r\n", ErrorReply::err("x").into()),
        ("-MOVED 1 host:1\r\n", ErrorReply::new(ErrorClass::Moved, "1 host:1").into()),
        ("-TRYAGAIN group=5 x\r\n", ErrorReply::new(ErrorClass::TryAgain, "group=5 x").into()),
        ("=8\r\nmkd:**hi\r\n", Reply::text("**hi")),
        (
            "(-3492890328409238509324850943850943825024385\r\n",
            Reply::BigNumber("-3492890328409238509324850943850943825024385".into()),
        ),
        ("%0\r\n", Reply::Map(vec![])),
    ] {
        for piece in [1, 2, bytes.len()] {
            assert_eq!(decode(bytes.as_bytes(), piece), Ok(vec![expected.clone()]), "{bytes:?}");
        }
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    for (bytes, expected) in [
        ("HTTP/1.1 400\r\n", DecodeError::UnknownType(b'H')),
        ("H", DecodeError::UnknownType(b'H')),
        ("+OK\n", DecodeError::Malformed("a line that does not end in CR LF")),
        ("\r\n", DecodeError::UnknownType(b'\r')),
        (":x\r\n", DecodeError::Malformed("an integer")),
        ("$x\r\n", DecodeError::Malformed("a length")),
        ("$-2\r\n", DecodeError::Malformed("a length")),
        ("$2\r\nabcd", DecodeError::Malformed("a binary string that does not end in CR LF")),
        ("$1048577\r\n", DecodeError::TooLarge("a binary string")),
        ("*1001\r\n", DecodeError::TooLarge("too many elements")),
        ("%9223372036854775807\r\n", DecodeError::TooLarge("too many elements")),
        ("#x\r\n", DecodeError::Malformed("null or boolean")),
        ("_x\r\n", DecodeError::Malformed("null or boolean")),
        (",x\r\n", DecodeError::Malformed("a floating point number")),
        ("(1.5\r\n", DecodeError::Malformed("a big number")),
        ("=2\r\nhi\r\n", DecodeError::Malformed("a text without its format")),
    ] {
        assert_eq!(decode(bytes.as_bytes(), bytes.len()), Err(expected), "{bytes:?}");
    }
    assert_eq!(decode("*1\r\n".repeat(17).as_bytes(), 100), Err(DecodeError::TooLarge("nested too deeply")));
    assert_eq!(decode("*999\r\n".repeat(2).as_bytes(), 100), Ok(vec![]));
    assert_eq!(
        decode("|1\r\n+a\r\n+b\r\n".repeat(400).as_bytes(), 100),
        Err(DecodeError::TooLarge("too many elements"))
    );
    assert_eq!(decode(&[b'+'; 100_000], 1000), Err(DecodeError::TooLarge("a line without an end")));
}

#[test]
fn large_values_are_shared_and_small_ones_copied() {
    let large = Bytes::from(vec![b'x'; 100_000]);
    let mut buffer = ReplyBuffer::new();
    let reply = Reply::Array(vec![
        Reply::Integer(1),
        Reply::Bulk(large.clone()),
        Reply::Bulk(large.clone()),
        Reply::Nil,
    ]);
    reply.encode(&mut buffer, Version::Resp2);
    assert_eq!(buffer.len(), reply.to_bytes(Version::Resp2).len());
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let count = buffer.chunks_vectored(&mut slices);
    assert_eq!(count, 5);
    assert_eq!(slices[1].as_ptr(), large.as_ptr());
    assert_eq!(slices[3].as_ptr(), large.as_ptr());
    // However it is taken out, it is the same.
    let mut taken = Vec::new();
    while buffer.has_remaining() {
        let now = buffer.chunk().len().min(33_333);
        taken.extend_from_slice(&buffer.chunk()[..now]);
        buffer.advance(now);
    }
    assert_eq!(taken, reply.to_bytes(Version::Resp2));
    assert!(buffer.is_empty());
}

fn line() -> impl Strategy<Value = String> {
    "[ -~é]{0,30}"
}

fn reply() -> impl Strategy<Value = Reply> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let leaf = prop_oneof![
        line().prop_map(|text| Reply::Simple(text.into())),
        line().prop_map(|text| Reply::Error(ErrorReply::new(ErrorClass::InDoubt, text))),
        any::<i64>().prop_map(Reply::Integer),
        bytes().prop_map(Reply::Bulk),
        Just(Reply::Bulk(vec![7; 20_000].into())),
        Just(Reply::Nil),
        prop::num::f64::NORMAL.prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Boolean),
        "-?[0-9]{1,60}".prop_map(|digits| Reply::BigNumber(digits.into())),
        bytes().prop_map(Reply::Text),
    ];
    leaf.prop_recursive(4, 60, 6, |inner| {
        let items = || prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items().prop_map(Reply::Array),
            items().prop_map(Reply::Set),
            items().prop_map(Reply::Push),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Reply::Map),
        ]
    })
}

proptest! {
    #[test]
    fn clients_read_what_servers_write(replies in prop::collection::vec(reply(), 1..5), piece in 1usize..80) {
        let mut buffer = ReplyBuffer::new();
        for reply in &replies {
            reply.encode(&mut buffer, Version::Resp3);
        }
        let length = buffer.remaining();
        let bytes = buffer.copy_to_bytes(length);
        prop_assert_eq!(decode(&bytes, piece), Ok(replies));
    }

    #[test]
    fn the_older_version_is_well_formed_too(reply in reply(), piece in 1usize..80) {
        let replies = decode(&reply.to_bytes(Version::Resp2), piece);
        prop_assert_eq!(replies.map(|replies| replies.len()), Ok(1));
    }

    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_reply(&bytes);
    }

    #[test]
    fn almost_replies_are_answered(bytes in "[+$*:_#,(!=%~>|0-9\r\nta-]{0,120}") {
        fuzz_reply(bytes.as_bytes());
    }
}
