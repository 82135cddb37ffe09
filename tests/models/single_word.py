#!/usr/bin/env python3
"""A group that changes a single word does not mark its bucket WRITING: is anything lost, or seen to go backwards?

All interleavings of groups, short ways and readers on one bucket with one word in it, breadth-first, sequentially
consistent, with deaths at every step and the recovery of the dead, recoverers included; the protocol is that of
docs/design.md. A group locks the bucket and adds 1. A short way reads lock word and value without a lock and then
takes the lock by a compare-and-swap from the word that it saw, which has to prove that the value is still the one
that it read. A reader reads twice and may not see the value fall. At every end the value is the number of commits.

usage: single_word.py [FAULT [KINDS [DEATHS]]]    FAULT: none; keep-version, where a lock whose owner died after its change
is released with the version that it had; no-log, where recovery does not make the change again. Both have to be found.
It ends with 1 if something is lost.
"""
import sys
from collections import deque

FAULTS = ("none", "keep-version", "no-log")
FAULT = sys.argv[1] if len(sys.argv) > 1 else "none"
assert FAULT in FAULTS
# G: a group; S: a short way; R: a reader.
KINDS = sys.argv[2] if len(sys.argv) > 2 else "GSSR"
DEATHS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
FREE, OWNED, RECOVERING = "free", "owned", "recovering"
IDLE, COMMITTED, APPLIED = "idle", "committed", "applied"
NOBODY = -1
NEW_SLOT = (FREE, NOBODY, IDLE, 0, False)


def put(t, i, v):
    return t[:i] + (v,) + t[i + 1:]


# State: lock word (owner, writing, version), value, commits, slots (state, recoverer, phase, logged value, is the lock
# listed?), processes (alive, pc, what it saw: word, value, slot that it recovers and where it goes on), deaths left.
def steps(state):
    lock, value, commits, slots, procs, deaths = state
    for p, (alive, pc, seen) in enumerate(procs):
        if not alive or pc == "done":
            continue
        kind = KINDS[p]

        def to(pc, seen=seen, lock=lock, value=value, commits=commits, slots=slots):
            return lock, value, commits, slots, put(procs, p, (True, pc, seen)), deaths

        def slot(of=p, **fields):
            old = dict(zip(("state", "by", "phase", "log", "listed"), slots[of]))
            return put(slots, of, tuple({**old, **fields}.values()))

        if deaths > 0 and kind != "R":
            yield lock, value, commits, slots, put(procs, p, (False, pc, seen)), deaths - 1
        def dead(owner):
            return not procs[owner][0] and (slots[owner][0] == OWNED or not procs[slots[owner][1]][0])

        if kind == "R" and pc.startswith(("start", "again")):
            word, before = seen[:2]
            if pc == "start" or pc == "again":
                if not lock[1]:
                    yield to(pc + "-value", (lock, before))
                elif dead(lock[0]):
                    yield to("recover", (before, lock[0], pc), slots=slot(lock[0], state=RECOVERING, by=p))
            elif pc.endswith("-value"):
                yield to(pc[:-6] + "-check", (word, before, value))
            elif lock[1] or lock[2] != word[2]:
                yield to(pc[:-6], (None, before))
            else:
                assert seen[2] >= before, "a reader sees the value fall"
                yield to("again" if pc == "start-check" else "done", (None, seen[2]))
            continue
        me = slots[p]
        if pc == "start":
            yield to("look" if kind == "S" else "list", slots=slot(state=OWNED))
        elif pc in ("look", "take") and lock[0] != NOBODY:
            # Whoever is in the way is waited for, or recovered if it is dead.
            if dead(lock[0]):
                yield to("recover", (None, lock[0], pc), slots=slot(lock[0], state=RECOVERING, by=p))
        elif pc == "look":
            yield to("read", (lock, None))
        elif pc == "read":
            yield to("log", (seen[0], value))
        elif pc == "list":
            yield to("take", slots=slot(listed=True))
        elif pc == "take":
            yield to("log", (lock, value), lock=(p, 0, lock[2]))
        elif pc == "log" and kind == "G":
            yield to("commit", slots=slot(log=seen[1] + 1))
        elif pc == "log":
            yield to("prove", slots=slot(log=seen[1] + 1, listed=True))
        elif pc == "prove":
            if lock == seen[0]:
                yield to("commit", lock=(p, 1, lock[2]))
            else:
                yield to("look", slots=slot(listed=False))
        elif pc == "commit":
            yield to("apply", commits=commits + 1, slots=slot(phase=COMMITTED))
        elif pc == "apply":
            yield to("applied", value=me[3])
        elif pc == "applied":
            yield to("release", slots=slot(phase=APPLIED))
        elif pc == "release":
            assert lock[0] == p, "somebody else has the lock"
            yield to("leave", lock=(NOBODY, 0, lock[2] + 1))
        elif pc == "leave":
            yield to("done", slots=put(slots, p, NEW_SLOT))
        elif pc == "recover":
            _, dead, back = seen
            phase = slots[dead][2]
            yield to("mark" if phase == COMMITTED else "give-back", seen)
        elif pc == "mark":
            yield to("replay", lock=(lock[0], 1, lock[2]) if lock[0] == seen[1] else lock)
        elif pc == "replay":
            yield to("replayed", value=value if FAULT == "no-log" else slots[seen[1]][3])
        elif pc == "replayed":
            yield to("give-back", slots=slot(seen[1], phase=APPLIED))
        elif pc == "give-back":
            new = lock
            if lock[0] == seen[1]:
                changed = lock[1] or (slots[seen[1]][2] == APPLIED and FAULT != "keep-version")
                new = (NOBODY, 0, lock[2] + (1 if changed else 0))
            yield to("free", lock=new)
        elif pc == "free":
            yield to(seen[2], (None, seen[0]), slots=put(slots, seen[1], NEW_SLOT))


def explore():
    start = ((NOBODY, 0, 0), 0, 0, (NEW_SLOT,) * len(KINDS),
             tuple((True, "start", (None, 0) if k == "R" else (None, None)) for k in KINDS), DEATHS)
    came_from, queue, ends = {start: None}, deque([start]), 0
    while queue:
        state = queue.popleft()
        ended = True
        try:
            for after in steps(state):
                # That nobody lives to die is no step.
                ended = ended and after[5] != state[5]
                if after not in came_from:
                    came_from[after] = state
                    queue.append(after)
        except AssertionError as fault:
            return came_from, ends, state, str(fault)
        lock, value, commits, slots, procs, _ = state
        if ended:
            ends += 1
            # A commit whose owner is dead is made by whoever needs the bucket next, who may be none of these.
            unmade = sum(s[2] == COMMITTED for s in slots)
            if not commits - unmade <= value <= commits:
                return came_from, ends, state, f"{commits} commits, of which {unmade} are to be made, but the value is {value}"
            if any(alive and pc != "done" for alive, pc, _ in procs):
                return came_from, ends, state, "somebody waits for ever"
    return came_from, ends, None, None


came_from, ends, bad, why = explore()
print(f"single_word.py: {FAULT}, {KINDS}, {DEATHS} deaths: {len(came_from)} states, {ends} ends: {why or 'nothing is lost'}")
trace = []
while bad is not None:
    trace.append(bad)
    bad = came_from[bad]
for before, after in zip(trace[::-1], trace[::-1][1:]):
    for p, (old, new) in enumerate(zip(before[4], after[4])):
        if old != new:
            print(f"  {KINDS[p]}{p}: {old[1]}{'' if new[0] else ' KILLED'}   lock {after[0]} value {after[1]} commits {after[2]}")
sys.exit(1 if why else 0)
