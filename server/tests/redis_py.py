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


def cluster(ports, protocol, redirect, tag):
    """A client that computes slots and goes to their leaders; with redirects and without."""

    def ask_for_redirects(connection):
        connection.send_command("CLIENT", "REDIRECT", "ON" if redirect else "OFF")
        assert connection.read_response() in (b"OK", "OK")

    r = redis.RedisCluster(
        startup_nodes=[redis.cluster.ClusterNode("127.0.0.1", port) for port in ports[:1]],
        protocol=protocol,
        socket_timeout=10,
        redis_connect_func=ask_for_redirects,
    )
    found = sorted(node.port for node in r.get_primaries())
    assert found == sorted(ports), f"the nodes are those of CLUSTER SLOTS: {found}"
    keys = [f"{tag}:{n}" for n in range(300)]
    for n, key in enumerate(keys):
        assert r.set(key, n) is True
    for n, key in enumerate(keys):
        assert r.get(key) == str(n).encode()
    assert r.mget_nonatomic(*keys) == [str(n).encode() for n in range(300)]
    assert r.mset_nonatomic({key: "x" for key in keys}), "MSET by slots"
    pipe = r.pipeline()
    for key in keys:
        pipe.append(key, "y").strlen(key)
    assert pipe.execute() == [2] * 600
    assert r.incr("{%s}n" % tag) == 1
    slot = r.cluster_keyslot("{%s}n" % tag)
    assert r.keyslot("{%s}n" % tag) == slot, "both compute the same"
    assert r.cluster_countkeysinslot(slot) == 1
    assert r.cluster_get_keys_in_slot(slot, 10) == [("{%s}n" % tag).encode()] or r.cluster_get_keys_in_slot(
        slot, 10
    ) == ["{%s}n" % tag]
    info = r.cluster_info(target_nodes=redis.RedisCluster.RANDOM)
    assert info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384", info
    assert len(r.execute_command("CLUSTER NODES", target_nodes=redis.RedisCluster.RANDOM)) == len(ports)
    # Any node tells of the whole key space.
    scanned = {key.decode() for key in r.scan_iter(match=f"{tag}:*", count=1000, target_nodes=r.get_primaries()[0])}
    assert scanned == set(keys), len(scanned)
    assert sum(r.delete(key) for key in keys) == len(keys)
    r.delete("{%s}n" % tag)
    r.close()


for protocol in [2, 3]:
    for redirect in [False, True]:
        cluster(PORTS, protocol, redirect, f"pc{protocol}{redirect}")
    print(f"redis-py {redis.__version__}, RedisCluster, RESP{protocol}: {len(PORTS)} nodes")
    clients = [client(port, protocol) for port in PORTS]
    for index, r in enumerate(clients):
        conversation(r, clients[(index + 1) % len(clients)], f"py{protocol}{index}")
    counters(clients)
    print(f"redis-py {redis.__version__}, RESP{protocol}: {len(clients)} nodes")
print("all well")
