#!/usr/bin/env python3
"""Waiting for change, exhaustively: can anybody sleep for ever?

All interleavings of watchers, writers and lockers on one lock word with its kernel queue, breadth-first, sequentially
consistent; the protocol is that of docs/design.md. A watcher that has seen the last version or none after it may sleep
for ever, nobody else: at every end, where nobody can take a step, no watcher sleeps with an old stamp, and no locker
sleeps while the lock is free. Sleeps end by wake-ups alone here: the time limits of the real ones hide nothing.

usage: watch_wakeup.py [FAULT [KINDS]]    FAULT: none, no-recheck, clear-late, wake-one, keep-on-release; each of the
four has to be found, which takes no more than one process of each kind: WCL. It ends with 1 if somebody sleeps for ever.
"""
import sys
from collections import deque

FAULTS = ("none", "no-recheck", "clear-late", "wake-one", "keep-on-release")
FAULT = sys.argv[1] if len(sys.argv) > 1 else "none"
# Who takes part: W watches until it has seen the version 2; C changes twice; L locks, and changes nothing.
KINDS = sys.argv[2] if len(sys.argv) > 2 else "WWCLL"
CHANGES = 2
NAME = "the protocol" if FAULT == "none" else FAULT

# State: the word (owner, waiters, watch, version), the queue of sleepers, and for each process (pc, registers).
# Registers: what it saw of the word, and how much is left to do.
FREE = -1


def put(t, i, v):
    return t[:i] + (v,) + t[i + 1:]


def wake(queue, procs, count):
    """Wakes the first sleepers: they look again."""
    woken, queue = queue[:count], queue[count:]
    for p in woken:
        pc, seen, left = procs[p]
        procs = put(procs, p, ("look", seen, left))
    return queue, procs


def steps(state):
    word, queue, procs = state
    owner, waiters, watch, version = word
    for p, (pc, seen, left) in enumerate(procs):
        kind = KINDS[p]

        def to(pc, seen=seen, left=left, word=word, queue=queue, procs=procs):
            return (word, queue, put(procs, p, (pc, seen, left)))

        if pc in ("asleep", "done"):
            continue
        if kind == "W":
            # left: the stamp that the watcher has.
            if pc == "look":
                if version != left:
                    yield to("done" if version == CHANGES else "look", None, version)
                else:
                    yield to("ask", word)
            elif pc == "ask":
                if FAULT == "no-recheck":
                    yield to("sleep", word[:2] + (1,) + word[3:], word=put(word, 2, 1))
                elif word != seen:
                    yield to("look", None)
                else:
                    asked = put(word, 2, 1)
                    yield to("sleep", asked, word=asked)
            elif pc == "sleep":
                # The kernel compares and queues in one step.
                if word != seen and FAULT != "no-recheck":
                    yield to("look", None)
                else:
                    yield to("asleep", None, queue=queue + (p,))
            continue
        # Lockers and changers. seen: (word, slept); left: rounds.
        slept = bool(seen and seen[1])
        if pc == "look":
            if owner == FREE:
                yield to("hold", None, word=(p, 1 if slept else waiters, watch, version))
            else:
                yield to("mark", (word, slept))
        elif pc == "mark":
            if word != seen[0]:
                yield to("look", (None, slept))
            else:
                marked = put(word, 1, 1)
                yield to("sleep", (marked, slept), word=marked)
        elif pc == "sleep":
            if word != seen[0]:
                yield to("look", (None, slept))
            else:
                yield to("asleep", (None, True), queue=queue + (p,))
        elif pc == "hold":
            # The release, one compare-and-swap; wake-ups follow as a step of their own.
            bump = kind == "C"
            free = (FREE, 0, 0 if bump else watch, version + 1 if bump else version)
            if FAULT == "clear-late" and bump:
                free = put(free, 2, watch)
            if FAULT == "keep-on-release" and not bump:
                free = put(free, 2, 0)
            yield to("wake", (waiters, watch, bump), word=free)
        elif pc == "wake":
            waited, watched, bump = seen
            count = 0
            if watched:
                count = len(queue) if bump or waited else 0
                if FAULT == "wake-one" and count:
                    count = 1
            elif waited:
                count = 1
            q, ps = wake(queue, procs, count)
            now = word
            if FAULT == "clear-late" and bump:
                now = put(word, 2, 0)
            rest = left - 1
            yield (now, q, put(ps, p, ("look", None, rest) if rest else ("done", None, 0)))


def wrong(state):
    word, _, procs = state
    for p, (pc, _, left) in enumerate(procs):
        if pc == "done":
            continue
        if KINDS[p] == "W" and pc == "asleep" and left == word[3]:
            return None if left == CHANGES else "changes are missing"
        return "process %d (%s) is %s with %s, the word is %s" % (p, KINDS[p], pc, left, word)
    return None


def main():
    if FAULT not in FAULTS or not set(KINDS) <= set("WCL"):
        print(__doc__)
        return 2
    rounds = {"W": 0, "C": CHANGES, "L": 1}
    first = ((FREE, 0, 0, 0), (), tuple(("look", None, rounds[k]) for k in KINDS))
    before = {first: None}
    todo = deque([first])
    ends = 0
    while todo:
        state = todo.popleft()
        successors = list(steps(state))
        if not successors:
            ends += 1
            what = wrong(state)
            if what:
                print("%s: %s" % (NAME, what))
                path = []
                while state:
                    path.append(state)
                    state = before[state]
                for s in reversed(path):
                    print("  word %s queue %s %s" % (s[0], s[1], [x[0] for x in s[2]]))
                return 1
        for s in successors:
            if s not in before:
                before[s] = state
                todo.append(s)
    print("%s: %d states, %d ends, nobody sleeps for ever" % (NAME, len(before), ends))
    return 0


sys.exit(main())
