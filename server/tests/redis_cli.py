"""redis-cli on a terminal of its own, as a person sits before it. Run by cluster_redis.rs with a port.

Ends with "all well", or with an exception.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

PORT = sys.argv[1]
PROMPT = f"127.0.0.1:{PORT}> ".encode()
PATIENCE = 10

pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp("redis-cli", ["redis-cli", "-p", PORT])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))


def read_until(text, seen=b""):
    end = time.monotonic() + PATIENCE
    while text not in seen:
        assert time.monotonic() < end, f"{text} did not come: {seen}"
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    return seen


def behind(answer):
    """Reads the answer, and then the next prompt on a line of its own."""
    seen = read_until(answer)
    read_until(b"\r\n" + PROMPT, seen[seen.index(answer) :])


def say(line, answer):
    os.write(terminal, line.encode() + b"\r")
    behind(b"\r\n" + answer)


read_until(PROMPT)
say("SET pty 1", b"OK")
say("INCR pty", b"(integer) 2")
say("GET nothing:there", b"(nil)")
say("INCR pty x", b"(error) ERR wrong number of arguments for 'incr' command")
# redis-cli shows that a transaction is open.
os.write(terminal, b"MULTI\r")
read_until(b"(TX)> ")
os.write(terminal, b"INCR pty\r")
read_until(b"(TX)> ", read_until(b"QUEUED").split(b"QUEUED")[1])
os.write(terminal, b"EXEC\r")
# Nothing may be typed before the next prompt: redis-cli throws away what came earlier.
behind(b"1) (integer) 3")
# The hint behind what is typed comes from COMMAND DOCS.
os.write(terminal, b"GETRANGE ")
read_until(b"key start end")
os.write(terminal, b"pty 0 0\r")
behind(b'"3"')
say("DEL pty", b"(integer) 1")
os.write(terminal, b"QUIT\r")
end = time.monotonic() + PATIENCE
while os.waitpid(pid, os.WNOHANG) == (0, 0):
    assert time.monotonic() < end, "redis-cli did not end"
    time.sleep(0.01)
print("all well")
