"""A cluster of real processes on this machine, for the scripts that measure one.

    with Cluster(groups=16, pelago="target/release/pelago") as cluster:
        cluster.start_all()
        cluster.wait_until_whole()
        with cluster.connect(1) as connection:
            connection.command("PUT", "greeting", "hello")

Whatever was started is killed when the `with` ends, also by an exception, Ctrl-C or SIGTERM (see `ended_by_signals`).
The directory of a run that failed is kept, because the nodes' logs are in it. Python's standard library only.
"""
import binascii, contextlib, itertools, json, os, shutil, signal, socket, subprocess, sys, tempfile, time

NODES = (1, 2, 3)
SLOTS = 16384
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Below the ports that the system hands out by itself.
FIRST_PORT, LAST_PORT, PORT_STEP = 21_000, 31_700, 300


class Failed(Exception):
    """A measurement that could not be made, and why."""


class Refused(str):
    """A server's answer that begins with a minus."""


def ended_by_signals():
    """Lets Ctrl-C, SIGTERM and SIGHUP end the script through every `finally`, so that no process stays behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))


def add_binaries(parser):
    """The options that say which programs are measured."""
    parser.add_argument("--pelago", default="target/release/pelago", help="the server [default: %(default)s]")
    parser.add_argument("--bench", default="target/release/pelago-bench", help="the load [default: %(default)s]")
    parser.add_argument("--dir", default="target", help="where the files lie meanwhile; a real disk [default: %(default)s]")


def progress(text):
    """A line for who watches, on stderr."""
    print(text, file=sys.stderr, flush=True)


def wait_for(what, done, seconds, pause=0.02):
    """Asks `done` until it says something true, and returns that; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := done()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(pause)
    return answer


class Connection:
    """One client connection, RESP2. Answers: str for a status, bytes, int, None, list, or a `Refused`."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.socket.makefile("rb", buffering=1 << 16)

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.close()

    def close(self):
        self.answers.close()
        self.socket.close()

    def command(self, *words):
        """Sends one command and returns its answer."""
        self.socket.sendall(encode(*words))
        return self.read()

    def pipeline(self, commands):
        """Sends all of them before it reads an answer; the answers come in their order."""
        self.socket.sendall(b"".join(encode(*words) for words in commands))
        return [self.read() for _ in commands]

    def read(self):
        line = self.answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.exactly(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        raise ConnectionError(f"not RESP2: {line!r}")

    def exactly(self, length):
        body = self.answers.read(length)
        if len(body) != length:
            raise ConnectionError("the server has closed the connection")
        return body


def encode(*words):
    """A command as RESP writes it."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def slot_of(tag):
    """The slot of a key with this text in braces: CRC16 as in Redis Cluster."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


class Cluster:
    """Three nodes on the loopback, each a process of its own with its own directory."""

    def __init__(self, groups, pelago, parent=None, more_config=""):
        self.groups, self.pelago = groups, pelago
        if parent is not None:
            os.makedirs(parent, exist_ok=True)
        self.dir = os.path.abspath(tempfile.mkdtemp(prefix="pelago-bench-", dir=parent))
        self.base = free_base()
        self.processes = {}
        self.keep = False
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(self.describe(more_config))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.kill_all()
        failed = kind is not None and issubclass(kind, Exception)
        if failed:
            progress(f"the nodes' logs are kept in {self.dir}")
            shutil.rmtree(f"{self.dir}/data", ignore_errors=True)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def config(self):
        return f"{self.dir}/config.toml"

    def describe(self, more):
        """The configuration: that of the repository, but for addresses, directory and number of groups."""
        text = f'[cluster]\nname = "measured"\ngroups = {self.groups}\nreplication = 3\n'
        for node in NODES:
            text += f'[[nodes]]\nid = {node}\npeer_addr = "127.0.0.1:{self.port(node) + 100}"\n'
            text += f'client_addr = "{self.address(node)}"\nadmin_addr = "127.0.0.1:{self.port(node) + 200}"\n'
        return text + f'[storage]\ndata_dir = "{self.dir}/data"\n{more}'

    def port(self, node):
        return self.base + node

    def address(self, node):
        return f"127.0.0.1:{self.port(node)}"

    def addresses(self, nodes=NODES):
        return ",".join(self.address(node) for node in nodes)

    def connect(self, node, timeout=30):
        return Connection(self.port(node), timeout)

    # Processes.

    def start(self, node):
        command = [self.pelago, "serve", "--config", self.config, "--node", str(node)]
        with open(f"{self.dir}/node-{node}.log", "ab") as log:
            # In a session of its own: Ctrl-C is for the script, which ends its nodes itself.
            self.processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def start_all(self):
        for node in NODES:
            self.start(node)

    def kill(self, node):
        """kill -9, and until the process is gone."""
        self.processes[node].kill()
        self.processes.pop(node).wait()

    def kill_all(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def stop_all(self, seconds=60):
        """SIGTERM to all, and until they have ended by themselves."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for node, process in self.processes.items():
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise Failed(f"node {node} does not end within {seconds} s of SIGTERM") from None
        self.processes.clear()

    def pids(self):
        return [self.processes[node].pid for node in NODES if node in self.processes]

    def pids_option(self):
        return ",".join(map(str, self.pids()))

    def check_running(self):
        """Nobody waits for a node that has ended by itself."""
        for node, process in self.processes.items():
            if process.poll() is not None:
                with open(f"{self.dir}/node-{node}.log", encoding="utf-8", errors="replace") as log:
                    last = log.read().strip().rpartition("\n")[2]
                raise Failed(f"node {node} has ended with {process.returncode}: {last}")

    # What the nodes say.

    def status_text(self, node):
        """STATUS JSON of a node as bytes, or None while it does not answer."""
        self.check_running()
        try:
            with self.connect(node, timeout=20) as connection:
                answer = connection.command("STATUS", "JSON")
        except OSError:
            return None
        return answer if isinstance(answer, bytes) else None

    def status(self, node):
        """STATUS JSON of a node, or None while it does not answer."""
        text = self.status_text(node)
        return json.loads(text) if text else None

    def group_lines(self, node):
        """What a node says of each of its groups, by the group's number; empty while it does not answer."""
        status = self.status(node)
        return {line["group"]: line for line in status["groups"]} if status else {}

    def has_leaders(self, node=1):
        """Whether a node knows a leader of every group. Cheap enough for many groups: nothing is parsed."""
        text = self.status_text(node) or b""
        return text.count(b'"group":') >= self.groups and b'"leader":null' not in text

    def wait_for_leaders(self, node=1, seconds=120, pause=0.02):
        """Until a node knows a leader of every group."""
        wait_for("every group has a leader", lambda: self.has_leaders(node), seconds, pause)

    def is_placed(self, node):
        """Whether as far as a node knows every group is led by who is placed first."""
        lines = self.group_lines(node)
        return len(lines) == self.groups and all(line["leader"] == line["wanted"][0] for line in lines.values())

    def is_whole(self, slack=100):
        """Whether all groups are led by who is placed first, vote on every node, and no node is far behind."""
        views = [self.group_lines(node) for node in NODES]
        if any(len(view) != self.groups for view in views):
            return False
        for lines in zip(*(view.values() for view in views)):
            first = lines[0]["wanted"][0]
            applied = [line["applied"] for line in lines]
            settled = all(line["leader"] == first and line["votes"] and not line["rebuilding"] for line in lines)
            if not settled or max(applied) - min(applied) > slack:
                return False
        return True

    def wait_until_whole(self, seconds=120, pause=0.1):
        wait_for("every group is whole on all nodes and led by who should lead it", self.is_whole, seconds, pause)

    def tags(self):
        """For each group a text that in braces makes a key of that group, by the slots that STATUS tells."""
        owner = [None] * SLOTS
        for line in self.group_lines(1).values():
            for slot in range(line["first_slot"], line["last_slot"] + 1):
                owner[slot] = line["group"]
        found = {}
        for number in itertools.count():
            group = owner[slot_of(f"t{number}")]
            if group is not None:
                found.setdefault(group, f"t{number}")
            if len(found) == self.groups:
                break
        self.check_tag(*next(iter(found.items())))
        return [found[group] for group in range(self.groups)]

    def check_tag(self, group, tag):
        """The server's own word for one of them: slots are reckoned here as there."""
        with self.connect(1) as connection:
            where = connection.command("WHERE", f"{{{tag}}}")
        told = dict(zip(where[::2], where[1::2]))[b"group"]
        if told != group:
            raise Failed(f"the key {{{tag}}} should be in group {group}, but WHERE says {told}")


HANDED_OUT = set()


def free_base():
    """A port below nine that nobody listens on: client ports +1..3, peer ports 100 and admin ports 200 above. Never the
    same twice, for whoever was given it may not listen yet."""
    first = FIRST_PORT + os.getpid() * PORT_STEP % (LAST_PORT - FIRST_PORT)
    choices = range(FIRST_PORT, LAST_PORT, PORT_STEP)
    start = (first - FIRST_PORT) // PORT_STEP
    for at in range(len(choices)):
        base = choices[(start + at) % len(choices)]
        if base not in HANDED_OUT and all(is_free(base + node + above) for node in NODES for above in (0, 100, 200)):
            HANDED_OUT.add(base)
            return base
    raise Failed("no nine ports are free")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def output_of(command, seconds, wanted=(0,)):
    """What a command prints. It is ended with SIGTERM, which our scripts answer by ending what they have started, and
    waited for when this script ends before it."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, errors = process.communicate(timeout=seconds)
    except BaseException as why:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if isinstance(why, subprocess.TimeoutExpired):
            raise Failed(f"not done within {seconds} s: {' '.join(command)}") from None
        raise
    if process.returncode not in wanted:
        last = " ".join(errors.strip().splitlines()[-3:])
        raise Failed(f"{' '.join(command)} ended with {process.returncode}: {last}")
    return out


def rss_bytes(pid):
    """Memory of a process that is in RAM."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def cpu_seconds(pid):
    """Processor time that a process has used, in user and kernel mode."""
    return named_cpu_seconds(f"/proc/{pid}/stat")[1]


def cpu_seconds_of_threads(pid):
    """The same for each kind of thread that it has now, by the thread's name."""
    spent = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        # One that has ended meanwhile is not there any more.
        with contextlib.suppress(OSError):
            name, seconds = named_cpu_seconds(f"/proc/{pid}/task/{thread}/stat")
            spent[name] = spent.get(name, 0) + seconds
    return spent


def named_cpu_seconds(path):
    """Name and processor time of the process or thread with this `stat`."""
    with open(path, encoding="utf-8") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(")")
    fields = rest.split()
    return name, (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def quantile(values, share):
    """The smallest value that at least this share of them does not exceed."""
    values = sorted(values)
    return values[max(0, min(len(values) - 1, -int(-share * len(values) // 1) - 1))]


def spread(values, digits=1):
    """p50, p99 and max of some figures."""
    return {
        name: round(quantile(values, share), digits) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    } if values else None
