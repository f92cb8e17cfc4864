use std::net::TcpListener;
use std::time::Duration;

use super::fake::{Act, Fake};
use super::{Client, ClientError, Options};
use crate::protocol::{ErrorClass, Reply};

fn options() -> Options {
    Options { deadline: Duration::from_secs(2), ..Options::default() }
}

fn client(servers: &[&Fake]) -> Client {
    let addresses: Vec<String> = servers.iter().map(|server| server.address.clone()).collect();
    Client::connect(&addresses, options()).expect("a connection")
}

/// Where nobody listens, and nobody will: the port is taken and not listened on. Once it was only let go
/// again, and another test's server took it in that moment.
fn nobody() -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a port");
    let address = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("its address");
    // Held until the process ends.
    std::mem::forget(socket);
    address.to_string()
}

#[test]
fn a_reply_of_every_shape() {
    let fake = Fake::start(&[Act::Say("+OK\r\n"), Act::Say("$5\r\nhello\r\n"), Act::Say("$-1\r\n")]);
    let mut client = client(&[&fake]);
    assert_eq!(client.call(&[b"PUT", b"k", b"hello"]).unwrap(), Reply::ok());
    assert_eq!(client.call(&[b"GET", b"k"]).unwrap(), Reply::bulk("hello"));
    assert_eq!(client.call(&[b"GET", b"x"]).unwrap(), Reply::Nil);
    assert_eq!(fake.seen(), ["PUT k hello", "GET k", "GET x"]);
}

#[test]
fn the_next_address_when_one_does_not_listen() {
    let fake = Fake::start(&[Act::Say("+PONG\r\n")]);
    let mut client = Client::connect(&[nobody(), fake.address.clone()], options()).unwrap();
    assert_eq!(client.call(&[b"PING"]).unwrap(), Reply::Simple("PONG".into()));
    assert_eq!(client.address(), fake.address);
}

#[test]
fn nobody_at_all_says_who_was_tried_and_that_nothing_was_applied() {
    let address = nobody();
    let short = Options { deadline: Duration::from_millis(100), ..Options::default() };
    let error = Client::connect(std::slice::from_ref(&address), short).unwrap_err();
    assert!(!error.maybe_applied());
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("Nothing was applied"), "{text}");
}

#[test]
fn not_an_address() {
    let error = Client::connect(&["7001".into()], options()).unwrap_err();
    assert!(matches!(error, ClientError::BadAddress { .. }), "{error}");
}

#[test]
fn moving_leadership_is_waited_for() {
    let moving = Act::Say("-TRYAGAIN group=5 leader moving\r\n");
    let fake = Fake::start(&[moving, moving, Act::Say("+OK\r\n")]);
    assert_eq!(client(&[&fake]).call(&[b"PUT", b"k", b"v"]).unwrap(), Reply::ok());
    assert_eq!(fake.seen().len(), 3);
}

#[test]
fn a_node_without_a_quorum_is_left_for_another() {
    let alone = Fake::start(&[Act::Say("-CLUSTERDOWN group=5 1 of 3 answer\r\n")]);
    let fine = Fake::start(&[Act::Say("+OK\r\n")]);
    assert_eq!(client(&[&alone, &fine]).call(&[b"PUT", b"k", b"v"]).unwrap(), Reply::ok());
    assert_eq!((alone.seen().len(), fine.seen().len()), (1, 1));
}

#[test]
fn the_last_refusal_is_handed_out_at_the_deadline() {
    let fake = Fake::start(&[Act::Say("-CLUSTERDOWN group=5 1 of 3 answer\r\n"); 100]);
    let short = Options { deadline: Duration::from_millis(200), ..Options::default() };
    let mut client = Client::connect(std::slice::from_ref(&fake.address), short).unwrap();
    match client.call(&[b"PUT", b"k", b"v"]).unwrap() {
        Reply::Error(error) => assert_eq!(error.class(), ErrorClass::ClusterDown),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_whose_connection_is_lost_is_repeated_elsewhere() {
    let bad = Fake::start(&[Act::Close]);
    let good = Fake::start(&[Act::Say("$1\r\nv\r\n")]);
    assert_eq!(client(&[&bad, &good]).call(&[b"GET", b"k"]).unwrap(), Reply::bulk("v"));
}

#[test]
fn a_write_whose_connection_is_lost_is_in_doubt_and_not_repeated() {
    for act in [Act::Close, Act::SayAndClose("+O"), Act::Say("what?\r\n")] {
        let bad = Fake::start(&[act]);
        let good = Fake::start(&[]);
        let error = client(&[&bad, &good]).call(&[b"INCR", b"k"]).unwrap_err();
        assert!(error.maybe_applied(), "{error}");
        assert!(error.to_string().contains("unknown whether"), "{error}");
        assert_eq!(good.seen(), [""; 0]);
    }
}

/// `TRACE` was taken for a read, whatever stood behind it: after a lost connection the shell sent
/// `TRACE INCR k` to the next node, and the counter rose twice.
#[test]
fn a_traced_write_whose_connection_is_lost_is_not_repeated() {
    let (bad, good) = (Fake::start(&[Act::Close]), Fake::start(&[]));
    let error = client(&[&bad, &good]).call(&[b"trace", b"INCR", b"k"]).unwrap_err();
    assert!(error.maybe_applied(), "{error}");
    assert_eq!(good.seen(), [""; 0]);
    let (bad, good) = (Fake::start(&[Act::Close]), Fake::start(&[Act::Say("+OK\r\n")]));
    assert!(client(&[&bad, &good]).call(&[b"TRACE", b"GET", b"k"]).is_ok());
}

#[test]
fn a_connection_closed_while_idle_is_replaced_and_not_in_doubt() {
    let fake = Fake::start(&[Act::SayAndClose("+OK\r\n"), Act::Say("+OK\r\n")]);
    let mut client = client(&[&fake]);
    assert_eq!(client.call(&[b"PUT", b"k", b"1"]).unwrap(), Reply::ok());
    // The end of the connection arrives some time after the reply.
    while client.connection.as_ref().is_some_and(|connection| connection.is_open()) {
        std::thread::yield_now();
    }
    assert_eq!(client.call(&[b"PUT", b"k", b"2"]).unwrap(), Reply::ok());
}

#[test]
fn a_silent_server_is_not_waited_for_longer_than_said() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let short = Options { reply: Duration::from_millis(50), ..options() };
    let mut client = Client::connect(&[address], short).unwrap();
    let error = client.call(&[b"PUT", b"k", b"v"]).unwrap_err();
    assert!(error.maybe_applied() && error.to_string().contains("no answer in time"), "{error}");
}

#[test]
fn a_pipeline_longer_than_a_piece_comes_back_in_order() {
    let fake = Fake::start(&[Act::Say(":1\r\n"), Act::Say("-ERR no\r\n"), Act::Say(":3\r\n")]);
    let value = vec![b'x'; super::PIECE_BYTES];
    let put: &[&[u8]] = &[b"APPEND", b"k", &value];
    let replies = client(&[&fake]).pipeline(&[put, &[b"INCR", b"k"], put]).unwrap();
    assert_eq!((&replies[0], &replies[2]), (&Reply::Integer(1), &Reply::Integer(3)));
    assert!(matches!(&replies[1], Reply::Error(_)));
}

#[test]
fn the_password_goes_first() {
    let fake = Fake::start(&[Act::Say("+OK\r\n"), Act::Say("+PONG\r\n"), Act::Say("-WRONGPASS no\r\n")]);
    let with = |password: &str| Options { password: Some(password.into()), ..options() };
    let mut client = Client::connect(std::slice::from_ref(&fake.address), with("secret")).unwrap();
    client.call(&[b"PING"]).unwrap();
    assert_eq!(fake.seen(), ["AUTH secret", "PING"]);
    drop(client);
    let error = Client::connect(std::slice::from_ref(&fake.address), with("wrong")).unwrap_err();
    assert!(matches!(error, ClientError::Password { .. }), "{error}");
    assert!(!format!("{:?}", with("secret")).contains("secret"));
}
