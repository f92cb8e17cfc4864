"""Other systems on the same machine, for scripts/bench-all: one Redis, and etcd with three members and a load for it.

Both come from the PATH and keep their own defaults, except that Redis syncs its log before every answer.
Python's standard library only.
"""
import contextlib, os, random, selectors, shutil, socket, struct, subprocess, tempfile, time

from bench_cluster import Connection, Failed, cpu_seconds, free_base, quantile, wait_for

KEYS, KEY_SIZE, VALUE_SIZE = 100_000, 16, 100


@contextlib.contextmanager
def directory(parent):
    path = tempfile.mkdtemp(prefix="pelago-rival-", dir=parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def processes(commands, log):
    """Runs them; kills them at the end."""
    running = []
    try:
        with open(log, "ab") as out:
            for command in commands:
                running.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
                )
        yield running
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


@contextlib.contextmanager
def redis(parent=None):
    """One Redis without replicas that syncs before it answers; yields its address, or None where there is no Redis."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with directory(parent) as path:
        port = free_base() + 1
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", path, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        with processes([command], f"{path}/log"):
            wait_for("Redis answers", lambda: answers_ping(port), 20)
            yield f"127.0.0.1:{port}"


def answers_ping(port):
    try:
        with Connection(port, timeout=2) as connection:
            return connection.command("PING") == "PONG"
    except OSError:
        return False


@contextlib.contextmanager
def etcd(parent=None):
    """Three members of etcd; yields their client ports, or None where there is no etcd."""
    program = shutil.which("etcd")
    if program is None:
        yield None
        return
    with directory(parent) as path:
        base = free_base()
        clients, peers = [base + node for node in (1, 2, 3)], [base + 100 + node for node in (1, 2, 3)]
        cluster = ",".join(f"m{at}=http://127.0.0.1:{port}" for at, port in enumerate(peers))
        commands = []
        for at, (client, peer) in enumerate(zip(clients, peers)):
            command = [program, "--name", f"m{at}", "--data-dir", f"{path}/m{at}", "--log-level", "error"]
            command += ["--listen-client-urls", f"http://127.0.0.1:{client}"]
            command += ["--advertise-client-urls", f"http://127.0.0.1:{client}"]
            command += ["--listen-peer-urls", f"http://127.0.0.1:{peer}"]
            command += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"]
            command += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
            commands.append(command)
        with processes(commands, f"{path}/log"):
            wait_for("every member of etcd takes a put", lambda: all(takes_put(port) for port in clients), 30)
            yield clients


def takes_put(port):
    try:
        return etcd_puts([port], 1, 0.0, 0.0, at_most=1)["ops"] == 1
    except (OSError, Failed):
        return False


# gRPC over HTTP/2, as little of it as a put needs: constant headers without Huffman coding, one stream at a time.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def text(value):
    return bytes([len(value)]) + value


# Indexed: POST and http. Literal: :path, :authority, content-type and te (RFC 7541, 6.2.2 and appendix A).
PUT_HEADERS = (
    b"\x83\x86\x04" + text(b"/etcdserverpb.KV/Put") + b"\x01" + text(b"localhost")
    + b"\x0f\x10" + text(b"application/grpc") + b"\x00" + text(b"te") + text(b"trailers")
)


class EtcdConnection:
    """One connection with one put under way."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The window of the whole connection is opened once and for all.
        opening = frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
        self.socket.sendall(PREFACE + opening)
        self.stream = -1
        self.received = b""
        self.has_body = False
        self.sent_at = 0.0

    def put(self, key, value, now):
        self.stream += 2
        self.has_body = False
        self.sent_at = now
        message = b"\x0a" + text(key) + b"\x12" + text(value)
        body = b"\x00" + struct.pack(">I", len(message)) + message
        self.socket.sendall(
            frame(HEADERS, END_HEADERS, self.stream, PUT_HEADERS) + frame(DATA, END_STREAM, self.stream, body)
        )

    def take(self):
        """Takes in what has come. True: the put is done; False: it was refused; None: not answered yet."""
        more = self.socket.recv(65536)
        if not more:
            raise Failed("etcd has closed a connection")
        self.received += more
        outcome = None
        while len(self.received) >= 9:
            length = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + length:
                break
            kind, flags = self.received[3], self.received[4]
            stream = int.from_bytes(self.received[5:9], "big")
            body, self.received = self.received[9 : 9 + length], self.received[9 + length :]
            answer = self.on_frame(kind, flags, stream, body)
            outcome = answer if answer is not None else outcome
        return outcome

    def on_frame(self, kind, flags, stream, body):
        if kind == GOAWAY:
            raise Failed(f"etcd ends a connection: {body[8:]!r}")
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, body if kind == PING else b""))
        if stream != self.stream or stream == 0:
            return None
        if kind == DATA and body:
            self.has_body = True
        # A refusal is trailers only, without a message.
        if kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
            return kind != RESET and self.has_body
        return None


def etcd_puts(ports, connections, seconds, warmup, at_most=None):
    """Closed loop of durable puts, connections spread over the members. One thread of Python: the generator's share of a
    core is told, for above a few thousand puts a second it would be what is measured."""
    choose = random.Random(1)
    opened = [EtcdConnection(ports[at % len(ports)]) for at in range(connections)]
    selector = selectors.DefaultSelector()
    value = b"x" * VALUE_SIZE

    def send(connection):
        connection.put(b"k%0*x" % (KEY_SIZE - 1, choose.randrange(KEYS)), value, time.monotonic())

    try:
        begin = time.monotonic() + warmup
        end = begin + seconds if at_most is None else begin + 5
        took, refused, used = [], 0, cpu_seconds(os.getpid())
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            send(connection)
        while (now := time.monotonic()) < end and len(took) != at_most:
            for key, _ in selector.select(end - now):
                outcome = key.data.take()
                if outcome is None:
                    continue
                now = time.monotonic()
                if now >= begin:
                    refused += not outcome
                    if outcome:
                        took.append((now - key.data.sent_at) * 1e6)
                send(key.data)
        used = cpu_seconds(os.getpid()) - used
    finally:
        for connection in opened:
            connection.socket.close()
        selector.close()
    if not took:
        raise Failed(f"etcd took no put ({refused} refused)")
    return {
        "ops": len(took), "ops_per_sec": len(took) / max(seconds, 0.001), "refused": refused,
        "p50": quantile(took, 0.5), "p99": quantile(took, 0.99), "generator_core": used / max(seconds + warmup, 0.001),
    }
