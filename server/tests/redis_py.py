"""Pipelines and transactions as programs for Redis use them, against nodes on the ports that are given.

Run by cluster_libraries.rs. Ends with "all well", or with an exception.
"""

import sys
import threading

import redis

PORTS = [int(port) for port in sys.argv[1:]]


def client(port, protocol):
    return redis.Redis(host="127.0.0.1", port=port, protocol=protocol, socket_timeout=10)


def expect(exception, call):
    try:
        result = call()
    except exception as error:
        return str(error)
    raise AssertionError(f"{result!r} instead of {exception}")


def conversation(r, other, tag):
    def key(name):
        return f"{{{tag}}}{name}"

    # A pipeline is a transaction unless it says otherwise.
    with r.pipeline() as pipe:
        pipe.set(key("a"), "1").incr(key("a")).get(key("a")).mget(key("a"), key("none")).delete(key("none"))
        assert pipe.execute() == [True, 2, b"2", [b"2", None], 0]
    with r.pipeline(transaction=True) as pipe:
        pipe.set(key("text"), "x").incr(key("text")).set(key("text"), "y")
        results = pipe.execute(raise_on_error=False)
        assert results[0] is True and isinstance(results[1], redis.ResponseError) and results[2] is True, results
        assert r.get(key("text")) == b"y"
    with r.pipeline() as pipe:
        pipe.set(key("a"), "aborted").execute_command("SET", key("a"))
        said = expect(redis.ResponseError, pipe.execute)
        assert "wrong number of arguments" in said or "discarded" in said, said
    assert r.get(key("a")) == b"2"
    with r.pipeline() as pipe:
        pipe.set("a", "1").set("b", "1")
        assert "same group" in expect(redis.ResponseError, pipe.execute)
    assert r.mget("a", "b") == [None, None]
    with r.pipeline() as pipe:
        assert pipe.execute() == []

    # WATCH: a change by another client, and none.
    with r.pipeline() as pipe:
        pipe.watch(key("a"))
        before = int(pipe.get(key("a")))
        other.set(key("a"), "7")
        pipe.multi()
        pipe.set(key("a"), before + 1)
        expect(redis.WatchError, pipe.execute)
    assert r.get(key("a")) == b"7"
    with r.pipeline() as pipe:
        pipe.watch(key("a"), key("b"))
        before = int(pipe.get(key("a")))
        pipe.multi()
        pipe.set(key("a"), before + 1).set(key("b"), before)
        assert pipe.execute() == [True, True]
    assert r.mget(key("a"), key("b")) == [b"8", b"7"]
    with r.pipeline() as pipe:
        pipe.watch(key("a"))
        pipe.unwatch()
        other.set(key("a"), "9")
        pipe.multi()
        pipe.get(key("a"))
        assert pipe.execute() == [b"9"]

    # A large one.
    with r.pipeline() as pipe:
        for n in range(5000):
            pipe.incr(key("n"))
        assert pipe.execute() == list(range(1, 5001))

    # What is not Redis.
    revision = r.execute_command("MULTIOP", "THEN", "PUT", key("m"), "v", "REV")[1][0]
    line = ["MULTIOP", "IF", key("m"), "REV", revision, "THEN", "PUT", key("m"), "THEN", "ELSE", "GET", key("m")]
    assert r.execute_command(*line) == [1, [b"OK"]], "the value is THEN"
    assert r.execute_command(*line) == [0, [b"THEN"]]
    token = r.execute_command("PUT", key("lock"), "me", "NX", "PX", 60_000, "REV")
    assert r.execute_command("PUT", key("f"), "new", "FENCE", token) == b"OK"
    late = expect(redis.ResponseError, lambda: other.execute_command("PUT", key("f"), "old", "FENCE", token - 1))
    assert "token=" in late and "newer holder" in late, late
    r.delete(*(key(name) for name in ["a", "b", "n", "m", "text", "lock", "f"]))


def counters(clients):
    """Every client adds a hundred under an optimistic lock; none is lost."""
    key, each = "{counted}", 100
    clients[0].delete(key)

    def work(r):
        def add(pipe):
            value = int(pipe.get(key) or 0)
            pipe.multi()
            pipe.set(key, value + 1)

        for _ in range(each):
            r.transaction(add, key)

    threads = [threading.Thread(target=work, args=(r,)) for r in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int(clients[0].get(key)) == each * len(clients), clients[0].get(key)


for protocol in [2, 3]:
    clients = [client(port, protocol) for port in PORTS]
    for index, r in enumerate(clients):
        conversation(r, clients[(index + 1) % len(clients)], f"py{protocol}{index}")
    counters(clients)
    print(f"redis-py {redis.__version__}, RESP{protocol}: {len(clients)} nodes")
print("all well")
