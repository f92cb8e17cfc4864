//! Pipelines and transactions as programs for Redis use them, against nodes on the ports that are given.
//!
//! Run by cluster_libraries.rs. Ends with "all well", or with an error.

use std::error::Error;

use redis::cluster::ClusterClient;
use redis::{Client, Commands, Connection, RedisResult, Value, cmd, pipe, transaction};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let ports: Vec<u16> = std::env::args().skip(1).map(|port| port.parse()).collect::<Result<_, _>>()?;
    for protocol in ["resp2", "resp3"] {
        let connect = |at: usize| -> RedisResult<Connection> {
            let port = ports[at % ports.len()];
            Client::open(format!("redis://127.0.0.1:{port}/?protocol={protocol}"))?.get_connection()
        };
        for at in 0..ports.len() {
            conversation(&mut connect(at)?, &mut connect(at + 1)?, &format!("rs{protocol}{at}"))?;
        }
        println!("redis-rs, {protocol}: {} nodes", ports.len());
    }
    cluster(&ports)?;
    println!("redis-rs, cluster: {} nodes", ports.len());
    println!("all well");
    Ok(())
}

fn conversation(r: &mut Connection, other: &mut Connection, tag: &str) -> Outcome {
    let key = |name: &str| format!("{{{tag}}}{name}");

    let bytes: &[u8] = &[0, 13, 10, 255];
    () = r.set(key("bytes"), bytes)?;
    assert_eq!(other.get::<_, Vec<u8>>(key("bytes"))?, bytes);
    assert_eq!(r.getrange::<_, Vec<u8>>(key("bytes"), 1, -2)?, [13, 10]);
    assert!(r.set_nx::<_, _, bool>(key("nx"), 1)?);
    assert!(!r.set_nx::<_, _, bool>(key("nx"), 2)?);
    assert!(r.expire::<_, bool>(key("nx"), 100)?);
    let ttl: i64 = r.ttl(key("nx"))?;
    assert!(ttl > 90 && ttl <= 100, "ttl {ttl}");
    assert_eq!(r.get::<_, Option<String>>(key("none"))?, None);

    // A pipeline over all groups, and one as a transaction.
    let mut many = pipe();
    for n in 0..500 {
        many.set(format!("{tag}-{n}"), n).ignore().get(format!("{tag}-{n}"));
    }
    assert_eq!(many.query::<Vec<i64>>(r)?, (0..500).collect::<Vec<_>>());
    let (a, sum): (String, i64) =
        pipe().atomic().cmd("SET").arg(key("a")).arg(1).cmd("INCR").arg(key("a")).query(r)?;
    assert_eq!((a.as_str(), sum), ("OK", 2));
    let crossed: RedisResult<Value> = pipe().atomic().set("a", 1).set("b", 1).query(r);
    // The library has words of its own for an EXEC that is answered by an error.
    assert!(crossed.is_err(), "two groups have no transaction: {crossed:?}");
    assert!(!r.exists::<_, bool>("a")? && !r.exists::<_, bool>("b")?, "and nothing of it was applied");
    let text: RedisResult<i64> = r.incr(key("bytes"), 1);
    assert!(text.is_err_and(|e| e.to_string().contains("not an integer")));

    // An optimistic lock that another client breaks once.
    let mut tries = 0;
    let (set,): (i64,) = transaction(r, &[key("a")], |r, pipe| {
        tries += 1;
        let value: i64 = r.get(key("a"))?;
        if tries == 1 {
            () = other.set(key("a"), 40)?;
        }
        pipe.set(key("a"), value + 1).ignore().get(key("a")).query(r)
    })?;
    assert_eq!((tries, set), (2, 41));

    // What is not Redis.
    let swapped: i64 = cmd("CAS").arg(key("a")).arg(41).arg(42).query(r)?;
    assert_eq!(swapped, 1);
    let names: Vec<String> = ["bytes", "nx", "a"].map(key).to_vec();
    assert_eq!(r.del::<_, i64>(names)?, 3);
    Ok(())
}

/// A client that computes slots and goes to their leaders.
fn cluster(ports: &[u16]) -> Outcome {
    let client = ClusterClient::new(vec![format!("redis://127.0.0.1:{}", ports[0])])?;
    let mut r = client.get_connection()?;
    for n in 0..300 {
        () = r.set(format!("rc:{n}"), n)?;
    }
    for n in 0..300 {
        assert_eq!(r.get::<_, i64>(format!("rc:{n}"))?, n);
    }
    let mut many = redis::cluster::cluster_pipe();
    for n in 0..300 {
        many.incr(format!("rc:{n}"), 1);
    }
    assert_eq!(many.query::<Vec<i64>>(&mut r)?, (1..=300).collect::<Vec<_>>());
    assert_eq!(r.mget::<_, Vec<Option<i64>>>(&["{rc}x", "{rc}y"])?, [None, None]);
    for n in 0..300 {
        assert_eq!(r.del::<_, i64>(format!("rc:{n}"))?, 1);
    }
    Ok(())
}
