//! Requests on the wire: what is understood, what is refused, and that neither depends on how
//! the bytes were cut into reads.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use server::protocol::{
    Args, Command, Excess, Oversized, ProtocolError, Request, RequestLimits, RequestParser, SizeLimits,
    fuzz_request,
};

const SIZES: SizeLimits = SizeLimits { max_key: 16, max_value: 64 };

fn limits() -> RequestLimits {
    RequestLimits { max_word: 128, max_request: 1024, max_words: 1024 * 1024 }
}

/// All requests of a stream that arrives in pieces of `piece` bytes.
fn read(stream: &[u8], piece: usize) -> (Vec<Request>, Option<ProtocolError>) {
    let mut parser = RequestParser::new(limits());
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in stream.chunks(piece) {
        buffer.put_slice(piece);
        loop {
            match parser.next(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(parser.next(&mut buffer), Err(error.clone()), "an error is final");
                    return (requests, Some(error));
                }
            }
        }
    }
    (requests, None)
}

fn words(words: &[&str]) -> Request {
    Request::Command(Args::from_words(words))
}

fn resp(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn arrays_and_lines_share_a_connection() {
    let stream = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nget k\r\n\r\n\n*0\r\n*-1\r\n  \r\nset \"a b\" 'c'\n*1\r\n$0\r\n\r\n*1\r\n$4\r\n\r\n\0\xff\r\n";
    let mut expected =
        vec![words(&["GET", "k"]), words(&["get", "k"]), words(&["set", "a b", "c"]), words(&[""])];
    expected.push(Request::Command(Args::from_words([b"\r\n\0\xff"])));
    for piece in 1..stream.len() {
        assert_eq!(read(stream, piece), (expected.clone(), None), "in pieces of {piece}");
    }
}

#[test]
fn what_is_out_of_step_is_named_and_final() {
    for (stream, text) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\n$4\r\nPING\r\n", "invalid multibulk length"),
        (b"*1\rx", "invalid multibulk length"),
        (b"*11111111111111111111111111111111111", "too big mbulk count string"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"*1\r\n\r\n", "expected '$', got '\\r'"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$2147483648\r\n", "invalid bulk length"),
        (b"*1\r\n$11111111111111111111111111111111111", "too big bulk count string"),
        (b"*1\r\n$4\r\nPINGG\r\n", "expected CR LF after a bulk string"),
        (b"*2\r\n$500\r\n*1\r\n$4\r\n", ""),
        (b"POST / HTTP/1.1\r\nSET a b\r\n", "HTTP on the client port; the admin port speaks HTTP"),
        (b"Host: localhost:7001\r\n", "HTTP on the client port; the admin port speaks HTTP"),
    ] {
        for piece in [1, 3, stream.len()] {
            let (requests, error) = read(stream, piece);
            assert_eq!(requests, [], "{}", stream.escape_ascii());
            let expected = (!text.is_empty()).then(|| format!("Protocol error: {text}"));
            assert_eq!(error.map(|error| error.to_string()), expected, "{}", stream.escape_ascii());
        }
    }
}

#[test]
fn lines_end_within_64_kib() {
    let fits = [&vec![b'x'; 64 * 1024][..], b"\n"].concat();
    assert_eq!(read(&fits, 1000).0.len(), 1);
    for stream in [[&vec![b'x'; 64 * 1024 + 1][..], b"\n"].concat(), vec![b'x'; 10 << 20]] {
        let (requests, error) = read(&stream, 4096);
        assert_eq!(requests, []);
        assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            Some("Protocol error: too big inline request")
        );
    }
}

#[test]
fn open_quotes_spoil_one_line_only() {
    let (requests, error) = read(b"set k \"open\r\nget k\r\n", 5);
    assert_eq!(
        requests,
        [Request::Malformed("Protocol error: unbalanced quotes in request"), words(&["get", "k"])]
    );
    assert_eq!(error, None);
}

#[test]
fn too_large_is_read_past_and_the_connection_goes_on() {
    let big = vec![b'v'; 200];
    let ping = resp(&[b"PING"]);
    for (request, expected) in [
        (
            resp(&[b"SET", b"k", &big]),
            "TOOBIG max=64 the value has 200 bytes; nothing was applied; the limit is limits.max_value in config.toml",
        ),
        (
            resp(&[b"GET", &big]),
            "TOOBIG max=16 the key has 200 bytes; nothing was applied; the limit is limits.max_key in config.toml",
        ),
        (
            resp(&[b"MSET", b"a", b"1", &big, b"2"]),
            "TOOBIG max=16 the key has 200 bytes; nothing was applied; the limit is limits.max_key in config.toml",
        ),
        (
            resp(&[b"MSET", b"a", &big, b"b", b"2"]),
            "TOOBIG max=64 the value has 200 bytes; nothing was applied; the limit is limits.max_value in config.toml",
        ),
        (
            resp(&[b"DEL", b"a", b"b", &big]),
            "TOOBIG max=16 the key has 200 bytes; nothing was applied; the limit is limits.max_key in config.toml",
        ),
        (
            resp(&[&big, b"k"]),
            "TOOBIG max=64 the value has 200 bytes; nothing was applied; the limit is limits.max_value in config.toml",
        ),
        (
            resp(&[&[&b"MGET"[..]][..], &[&big[..100]; 20]].concat()),
            "TOOBIG max=1024 the request has 1093 bytes; nothing was applied; the limit is the smaller of limits.max_inflight_bytes and half of storage.segment_size in config.toml",
        ),
    ] {
        let stream = [&request[..], &ping].concat();
        for piece in [1, 7, 150, stream.len()] {
            let (requests, error) = read(&stream, piece);
            assert_eq!(error, None);
            let [Request::Oversized(oversized), after] = &requests[..] else { panic!("{requests:?}") };
            assert_eq!(Command::oversized(oversized, &SIZES).to_string(), expected);
            assert_eq!(after, &words(&["PING"]));
        }
    }
}

#[test]
fn two_gigabytes_in_a_header_cost_nothing() {
    let mut parser = RequestParser::new(RequestLimits::new(4096, 8 << 20, 64 << 20));
    let mut buffer = BytesMut::from(&b"*1048576\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n"[..]);
    assert_eq!(parser.next(&mut buffer), Ok(None));
    // The whole half gigabyte, in reads of 64 KiB into one buffer.
    for _ in 0..(512 << 20) / (64 << 10) {
        buffer.put_bytes(b'v', 64 << 10);
        assert_eq!(parser.next(&mut buffer), Ok(None));
        assert!(buffer.capacity() <= 256 << 10, "{} bytes are buffered", buffer.capacity());
    }
    assert_eq!(parser.held(), 0);
    let mut small = RequestParser::new(RequestLimits::new(4096, 8 << 20, 64 << 20));
    let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$536870912\r\n"[..]);
    assert_eq!(small.next(&mut buffer), Ok(None));
    buffer.put_bytes(b'k', 512 << 20);
    buffer.put_slice(b"\r\n");
    let expected = Oversized { name: "GET".into(), excess: Excess::Word { index: 1, length: 512 << 20 } };
    assert_eq!(small.next(&mut buffer), Ok(Some(Request::Oversized(expected))));
}

#[test]
fn a_count_alone_reserves_nothing() {
    let mut parser = RequestParser::new(RequestLimits::new(4096, 8 << 20, 64 << 20));
    let mut buffer = BytesMut::from(&b"*1048576\r\n"[..]);
    assert_eq!(parser.next(&mut buffer), Ok(None));
    assert_eq!(parser.held(), 0);
    for _ in 0..1000 {
        buffer.put_slice(b"$0\r\n\r\n");
        assert_eq!(parser.next(&mut buffer), Ok(None));
    }
    assert!(parser.held() <= 16 * 1024, "{} bytes are held for 1000 words", parser.held());
}

#[test]
fn clients_are_kept_small_until_they_authenticate() {
    for (stream, expected) in [
        (resp(&[b"AUTH", b"secret"]), None),
        (resp(&[&b"x"[..]; 11]), Some("Protocol error: unauthenticated multibulk length")),
        (b"*1\r\n$16385\r\n".to_vec(), Some("Protocol error: unauthenticated bulk length")),
    ] {
        let mut parser = RequestParser::new(RequestLimits::new(4096, 8 << 20, 64 << 20));
        parser.set_authenticated(false);
        let error = parser.next(&mut BytesMut::from(&stream[..])).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected);
    }
}

#[test]
fn the_hint_for_the_next_read() {
    let mut parser = RequestParser::new(RequestLimits::new(4096, 8 << 20, 64 << 20));
    let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$1000\r\nabc"[..]);
    assert_eq!(parser.next(&mut buffer), Ok(None));
    assert_eq!(parser.missing(buffer.len()), 1000 - 3 + 2);
    buffer.put_bytes(b'x', 997);
    buffer.put_slice(b"\r\n");
    assert!(matches!(parser.next(&mut buffer), Ok(Some(Request::Command(args))) if args.len() == 2));
    assert_eq!(parser.missing(buffer.len()), 1);
}

#[test]
fn words_share_the_read_buffer() {
    let mut parser = RequestParser::new(RequestLimits::new(4096, 8 << 20, 64 << 20));
    let mut buffer = BytesMut::from(&resp(&[b"SET", b"key", b"value"])[..]);
    let within = buffer.as_ptr_range();
    let Ok(Some(Request::Command(args))) = parser.next(&mut buffer) else { panic!("a command") };
    let value = args.bytes(2).expect("a value");
    assert!(within.contains(&value.as_ptr()), "the value was copied");
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..24), Just(b"SET".to_vec()), Just(vec![b'x'; 200])]
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_reads_the_same(
        requests in prop::collection::vec(prop::collection::vec(word(), 1..9), 1..12),
        piece in 1usize..64,
    ) {
        let stream: Vec<u8> = requests
            .iter()
            .flat_map(|words| resp(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        let (whole, error) = read(&stream, stream.len());
        prop_assert_eq!(error, None);
        prop_assert_eq!(whole.len(), requests.len());
        for (request, words) in whole.iter().zip(&requests) {
            match request {
                Request::Command(args) => prop_assert!(args.iter().eq(words.iter().map(Vec::as_slice))),
                Request::Oversized(_) => prop_assert!(words.iter().any(|word| word.len() > 128)
                    || words.iter().map(Vec::len).sum::<usize>() > 512),
                Request::Malformed(text) => prop_assert!(false, "{}", text),
            }
        }
        prop_assert_eq!(whole, read(&stream, piece).0);
    }

    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_request(&bytes);
    }

    #[test]
    fn almost_requests_are_answered(bytes in "[*$0-9\r\na-zA-Z \"'\\\\x-]{0,200}") {
        fuzz_request(bytes.as_bytes());
    }

    #[test]
    fn broken_requests_are_answered(
        words in prop::collection::vec(word(), 1..6),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut stream = resp(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let at = at.index(stream.len());
        stream[at] = byte;
        stream.insert(0, byte);
        fuzz_request(&stream);
    }
}
