"""The demo: a C, a C++, a Rust and a Python process count the words of text files together into one shared table.

    drive.py [--kill c|cpp|rust|python|any] [FILE_OR_FOLDER...]        (`make demo` sets the environment)

One of them is killed with SIGKILL in the middle of its work, and another one takes over the rest. Nothing but the
table is shared: it holds the counts, the list of the work, and the progress. What this program does is to prepare
the list, to kill, to watch, and to compare the result with a count that does not use netshm.

Words      are runs of the letters A-Z and a-z, made lower case; only the first 64 letters count. A word is the key of
           its count. All other keys contain a colon.

Shares     The text is cut between words into chunks, which are dealt to four shares, one for each worker:
           size:SHARE         number of chunks of the share
           chunk:SHARE:I      "OFFSET LENGTH" in the text; it disappears when the chunk is counted
           given:SHARE        number of chunks that may be counted by now
           done:SHARE         number of chunks counted
           owner:SHARE        the worker that counts it; empty if that one has died
           orphan:            a share whose owner has died
           ready:             number of workers that have started
           finished:          there is nothing to do any more
           words:WORKER       number of words counted, by process
           increments:WORKER  number of increments made

Worker     It counts a chunk privately. Then one group removes chunk:SHARE:I, increments the counts of all its words,
           and adds to words:, increments: and done:. So each chunk is counted once or not at all, whenever a worker
           is killed; and if the chunk is not there any more, nothing is to be done. When its own share is done, it
           takes over an orphan, by compare-and-replace of owner:SHARE.

Order      All workers increment in the same order, alphabetically, so that their groups seldom wait for each other
           in a circle. It happens all the same, since several keys share a lock; then netshm_group_retry() begins
           again. (In orders of their own, they would spend most of the time on that.)

Giving     given:SHARE is always less than a sixth of the share ahead of done:SHARE. Nobody waits for it if there is
           much text; if there is little, the victim cannot run away from its killer.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time

import netshm

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(HERE)
LANGUAGES = {"c": "C", "cpp": "C++", "rust": "Rust", "python": "Python"}
WORD_BYTES = 64

CHUNK_BYTES = 16 << 10
CHUNKS = 200  # at least; chunks are smaller if there is little text
TEXT_BYTES = 20 << 10  # at least
KILL_AT = 0.55  # of the share
AHEAD = 0.15  # of the share: see "Giving"
STALL_SECONDS = 60  # without any progress: something is wrong

# The text that the machine has: where it is looked for, and how much is taken from each place.
PLACES = ["/usr/share/doc", "/usr/share/common-licenses", "/usr/share/perl", os.path.dirname(os.__file__),
          "/usr/include", os.path.join(os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")), "registry/src")]
PLACE_BYTES = 12 << 20
SOURCES = (".md", ".rs", ".c", ".h", ".cpp", ".hpp", ".py", ".pl", ".pm", ".pod", ".txt", "")


# ---- The text

def files_under(folder):
    """Files of text, by their names, in an order that is always the same."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f[0] != "." and f not in ("target", "build", "__pycache__"))
        yield from (os.path.join(path, name) for name in sorted(names) if os.path.splitext(name)[1] in SOURCES)


def read_text(path):
    """The bytes of a text file; nothing if it is something else, or cannot be read."""
    try:
        if os.path.islink(path) or not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            text = file.read()
        return b"" if b"\0" in text else text
    except OSError:
        return b""


def read_place(folder, most):
    """The text under a folder; for the sake of variety, no file may be more than a sixteenth of it."""
    texts, large = [], most // 16
    for path in files_under(folder):
        text = read_text(path)
        if len(text) <= min(most, large):
            texts.append(text)
            most -= len(text)
        if most < CHUNK_BYTES:
            break
    return [text for text in texts if text]


def collect(paths):
    """All text. It is kept in memory, so that it stays what it is until the end."""
    texts = []
    for path in paths:
        if os.path.isdir(path):
            texts += read_place(path, sys.maxsize)
        else:
            with open(path, "rb") as file:  # whatever it is: it was asked for
                texts.append(file.read())
    if not paths:
        for place in [REPOSITORY] + PLACES:
            texts += read_place(place, PLACE_BYTES)
    text = b"\n".join(texts)
    print(f"{len(text) / 1e6:.1f} MB of text in {len(texts):,} files")
    if len(text) < TEXT_BYTES:
        sys.exit(f"That is too little to share it out: {TEXT_BYTES:,} bytes are needed.")
    return text


def cut(text):
    """Cuts the text between words into chunks: (offset, length)."""
    letters = frozenset(string.ascii_letters.encode())
    step = min(CHUNK_BYTES, len(text) // CHUNKS)
    chunks, start = [], 0
    while start < len(text):
        end = min(start + step, len(text))
        while end < len(text) and text[end] in letters:
            end += 1
        chunks.append((start, end - start))
        start = end
    if len(chunks) < CHUNKS / 2 or letters.isdisjoint(text):
        sys.exit("That is not text: it has too few words.")
    return chunks


def count_sequentially(text):
    """What the result has to be, without netshm."""
    letters = bytes(b | 0x20 if chr(b) in string.ascii_letters else 0x20 for b in range(256))
    counts = collections.Counter()
    for line in text.split(b"\n"):
        counts.update(word[:WORD_BYTES] for word in line.translate(letters).split())
    return counts


# ---- The work

class Progress:
    """A line that is overwritten on a terminal, and comes now and then elsewhere."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.interval = 0.1 if self.terminal else 1.0
        self.shown = 0.0

    def show(self, line, force=False):
        now = time.monotonic()
        if force or now - self.shown >= self.interval:
            self.shown = now
            print(f"\r{line:<100}" if self.terminal else line, end="" if self.terminal else "\n", flush=True)

    def say(self, line):
        print(f"\r{line:<100}" if self.terminal else line, flush=True)


class Demo:
    def __init__(self, folder, text, victim):
        self.victim = victim
        self.names = os.path.join(folder, "object"), f"/netshm-demo-{os.getpid()}"
        self.text_file = os.path.join(folder, "text")
        with open(self.text_file, "wb") as file:
            file.write(text)
        self.table = netshm.Table(*self.names, create=True)
        self.workers = {}
        self.killed_at = None
        self.busy_until = dict.fromkeys(LANGUAGES, 0.0)
        self.words = dict.fromkeys(LANGUAGES, 0)
        self.size = dict.fromkeys(LANGUAGES, 0)
        self.progress = Progress()

    def prepare(self, chunks):
        """Deals the chunks out, well mixed, so that the shares are alike."""
        random.Random(1).shuffle(chunks)
        for number, share in enumerate(LANGUAGES):
            mine = chunks[number::len(LANGUAGES)]
            self.size[share] = len(mine)
            for i, (offset, length) in enumerate(mine):
                self.table.replace(b"chunk:%s:%d" % (share.encode(), i), b"%d %d" % (offset, length))
            self.table.incr(b"size:" + share.encode(), len(mine))
            self.table.replace(b"owner:" + share.encode(), share.encode())

    def start(self):
        """Starts the workers, and waits until all are there, so that they begin together."""
        programs = {"c": ["worker_c"], "cpp": ["worker_cpp"], "rust": ["worker_rust"],
                    "python": [sys.executable, "-B", os.path.join(HERE, "worker.py")]}
        for name, (program, *more) in programs.items():
            command = [os.path.join(os.environ["DEMO_PROGRAMS"], program), *more, name, *self.names, self.text_file]
            # A session of its own: Ctrl-C is for this program, which ends the others.
            self.workers[name] = subprocess.Popen(command, start_new_session=True)
        while self.table.number(b"ready:") < len(self.workers):
            self.look_for_the_dead()
            time.sleep(0.002)

    def look_for_the_dead(self):
        """Nobody ends before the work does, unless killed by this program."""
        for name, worker in self.workers.items():
            if worker.poll() is not None and not (name == self.victim and self.killed_at):
                sys.exit(f"\nThe {LANGUAGES[name]} worker has failed, with {worker.returncode}.")

    def number(self, family, name):
        return self.table.number(f"{family}:{name}".encode())

    def run(self):
        """Gives work and watches until all is done. Takes the time."""
        begun = time.monotonic()
        done = dict.fromkeys(LANGUAGES, 0)
        while done != self.size:
            for share, size in self.size.items():
                done[share] = self.number("done", share)
                given = min(size, done[share] + max(1, int(size * AHEAD)))
                self.table.incr(b"given:" + share.encode(), given - self.number("given", share))
            if self.killed_at is None and done[self.victim] >= KILL_AT * self.size[self.victim]:
                self.kill()
            self.look_for_the_dead()
            self.watch(done, time.monotonic() - begun)
            time.sleep(0.002)
        self.seconds = time.monotonic() - begun
        self.table.replace(b"finished:", b"")
        for name, worker in self.workers.items():
            if worker.wait(STALL_SECONDS) and name != self.victim:
                sys.exit(f"The {LANGUAGES[name]} worker ended with {worker.returncode}.")

    def kill(self):
        worker, share = self.workers[self.victim], self.victim.encode()
        worker.send_signal(signal.SIGKILL)
        if worker.wait() != -signal.SIGKILL:
            sys.exit(f"The {LANGUAGES[self.victim]} worker was to be killed, but ended with {worker.returncode}.")
        self.killed_at = self.number("done", self.victim) / self.size[self.victim]
        self.progress.say(f"kill -9 {worker.pid}: the {LANGUAGES[self.victim]} process is dead, "
                          f"after {self.killed_at:.0%} of its share")
        self.table.replace(b"owner:" + share, b"")
        self.table.replace(b"orphan:", share)

    def watch(self, done, seconds):
        for name, words in self.words.items():
            self.words[name] = self.number("words", name)
            if self.words[name] != words:
                self.busy_until[name] = seconds
        if seconds - max(self.busy_until.values()) > STALL_SECONDS:
            sys.exit(f"\nNothing has happened for {STALL_SECONDS} s.")
        part, words = sum(done.values()) / sum(self.size.values()), sum(self.words.values())
        line = f"{part:4.0%}  {words:>12,} words  {words / seconds / 1e6:.2f} million/s "
        each = "".join(f"  {LANGUAGES[share]} {done[share] / self.size[share]:.0%}" for share in self.size)
        self.progress.show(line + "  shares:" + each, force=part == 1 and self.progress.terminal)

    def close(self):
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.table.unlink()
        self.table.close()


# ---- The result

def report(demo):
    """Prints who did what, and gives the complaints."""
    total = sum(demo.words.values())
    increments = {name: demo.number("increments", name) for name in LANGUAGES}
    heir = (demo.table.find(b"owner:" + demo.victim.encode()) or b"").decode()
    complaints = []
    print(f"\n\n{'process':<8} {'pid':>8} {'words':>12} {'share':>7} {'words/s':>12} {'increments/s':>13}")
    for name, words in demo.words.items():
        seconds = demo.busy_until[name] or demo.seconds
        remark = f"killed after {demo.killed_at:.0%} of its share" if name == demo.victim else ""
        if name == heir:
            remark = f"took over the rest from {LANGUAGES[demo.victim]}"
        print(f"{LANGUAGES[name]:<8} {demo.workers[name].pid:>8} {words:>12,} {words / total:>7.1%} "
              f"{words / seconds:>12,.0f} {increments[name] / seconds:>13,.0f}  {remark}".rstrip())
        if words < total / 10:
            complaints.append(f"{LANGUAGES[name]} has contributed less than a tenth")
    print(f"{'all':<8} {'':>8} {total:>12,} {'':>7} {total / demo.seconds:>12,.0f} "
          f"{sum(increments.values()) / demo.seconds:>13,.0f}  in {demo.seconds:.2f} s")
    if not 0.2 <= demo.killed_at <= 0.8:
        complaints.append(f"the {LANGUAGES[demo.victim]} process was not killed in the middle of its work")
    if heir == demo.victim or heir not in LANGUAGES:
        complaints.append("nobody has taken over the dead process's share")
    print(f"The table takes {demo.table.size() / 1e6:.1f} MB of shared memory.")
    return complaints


def compare(demo, text):
    """Compares the whole table with a sequential count, prints the top of it, and gives the complaints."""
    begun = time.monotonic()
    expected = count_sequentially(text)
    seconds = time.monotonic() - begun
    total = sum(expected.values())
    counted, left = {}, 0
    for key, value in demo.table.items():
        if b":" not in key:
            counted[key] = int.from_bytes(value, "little")
        left += key.startswith(b"chunk:")
    print("\nThe most frequent words:\n")
    for word, times in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:15]:
        print(f"{times:>12,}  {word.decode()}")
    print(f"\nSequential count in Python, without netshm: {total / seconds:,.0f} words/s")
    complaints = []
    if left:
        complaints.append(f"{left} chunks are left in the table")
    if sum(demo.words.values()) != total:
        complaints.append(f"the processes say {sum(demo.words.values()):,} words, but there are {total:,}")
    if counted == expected:
        print(f"Equal to the sequential count: {len(expected):,} distinct words, {total:,} occurrences")
    else:
        wrong = sorted(w for w in counted.keys() | expected.keys() if counted.get(w, 0) != expected[w])
        complaints.append(f"{len(wrong)} words differ from the sequential count; the first one is "
                          f"{wrong[0].decode()}: {counted.get(wrong[0], 0)}, expected {expected[wrong[0]]}")
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kill", choices=[*LANGUAGES, "any"], default="cpp", help="the process to be killed")
    parser.add_argument("paths", nargs="*", metavar="FILE_OR_FOLDER")
    arguments = parser.parse_args()
    victim = random.choice(list(LANGUAGES)) if arguments.kill == "any" else arguments.kill
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))

    text = collect(arguments.paths)
    folder, demo = tempfile.mkdtemp(prefix="netshm-demo-"), None
    try:
        demo = Demo(folder, text, victim)
        demo.prepare(cut(text))
        demo.start()
        demo.run()
        complaints = report(demo) + compare(demo, text)
        damages = demo.table.check()
        print(f"The checker finds {len(damages) or 'no'} damage in the table, after a process was killed in it")
    finally:
        if demo:
            demo.close()
        shutil.rmtree(folder, ignore_errors=True)
    for complaint in complaints + damages:
        print("FAILED:", complaint)
    return 1 if complaints or damages else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
    except (OSError, subprocess.TimeoutExpired, netshm.Error) as e:
        sys.exit(f"the demo failed: {e}")
