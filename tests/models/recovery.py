#!/usr/bin/env python3
"""Commits of two words and their recovery: is one ever made in part, twice, or lost, whoever dies wherever?

All interleavings of changers and a reader on two buckets with one word each, breadth-first, sequentially consistent, with
deaths at every step and the recovery of the dead, recoverers included. Each bucket's word counts the commits that changed
it. The steps are those of Writer::commit_sealed, fast::{lock, write, conclude}, fast_update::overwrite_locked with
in_group::lock, and recovery::recover. Who takes a dead slot over is decided in one step here; slots.py has that at length.

usage: recovery.py [FAULT [KINDS [DEATHS]]]    KINDS: G a group that adds 1 to both; U an update by callback of the
first one, which locks without a mark; S the short way, which marks with the lock; R a reader of both, twice; L who looks
after the dead and does nothing else, as a new process does first.
FAULT: none; no-applied, where a recoverer releases without APPLIED before; release-first, where he releases before he has
replayed; no-mark, where he replays without marking; mark-late, where a group or an update marks after its changes;
keep-version, where he releases with the version that was there. All have to be found, each with the kinds named in run.mk.
It ends with 1 if a promise is broken.
"""
import sys
from collections import deque

FAULTS = ("none", "no-applied", "release-first", "no-mark", "mark-late", "keep-version")
FAULT = sys.argv[1] if len(sys.argv) > 1 else "none"
assert FAULT in FAULTS, __doc__
KINDS = sys.argv[2] if len(sys.argv) > 2 else "GUR"
DEATHS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
NOBODY = -1
IDLE, COMMITTED, APPLIED = "idle", "committed", "applied"
# A slot: who recovers it, phase, log (bucket -> value), listed buckets.
EMPTY = (NOBODY, IDLE, (), ())
BUCKETS = {"G": (0, 1), "U": (0,), "S": (0,)}


def put(t, i, v):
    return t[:i] + (v,) + t[i + 1:]


# What an owner does, in order: the name of a step and the bucket that it is about.
def programme(kind):
    b = BUCKETS[kind]
    each = lambda step: [(step, n) for n in b]
    if kind == "S":
        return [("look", 0), ("list", 0), ("prove", 0), ("commit", 0), ("store", 0), ("applied", 0), ("release", 0),
                ("unlist", 0), ("idle", 0)]
    start = [("look", 0), ("list", 0), ("prove", 0), ("read", 0)] if kind == "U" else \
        [s for n in b for s in (("list", n), ("take", n), ("read", n))]
    change = each("store") + each("mark") if FAULT == "mark-late" else each("mark") + each("store")
    end = [("applied", 0)] + each("release") + [("unlist", 0), ("idle", 0)]
    return start + [("commit", 0)] + change + end


PROGRAMMES = {kind: programme(kind) for kind in BUCKETS}


def recovery(phase, listed):
    """What a recoverer does with a slot that he has taken over."""
    each = lambda step: [(step, b) for b in listed]
    release = each("r-release")
    if phase == COMMITTED:
        mark = [] if FAULT == "no-mark" else each("r-mark")
        replay = each("r-replay") + ([] if FAULT == "no-applied" else [("r-applied", 0)])
        return mark + (release + replay if FAULT == "release-first" else replay + release) + [("r-free", 0)]
    return release + [("r-free", 0)]


# State: locks (owner, writing, version) and values of both buckets, commits of each, slots, processes (alive, place in
# the programme, what it saw, recovery under way: (dead, phase seen, steps left) or none), deaths left.
def steps(state):
    locks, values, commits, slots, procs, deaths = state
    for p, (alive, at, seen, rescue) in enumerate(procs):
        kind = KINDS[p]
        if not alive or at is None:
            continue

        def to(at=at, seen=seen, rescue=rescue, locks=locks, values=values, commits=commits, slots=slots):
            return locks, values, commits, slots, put(procs, p, (True, at, seen, rescue)), deaths

        if deaths > 0 and (kind not in "RL" or rescue):
            yield locks, values, commits, slots, put(procs, p, (False, at, seen, rescue)), deaths - 1

        def slot(of, by=None, phase=None, log=None, listed=None):
            old = slots[of]
            new = tuple(o if n is None else n for o, n in zip(old, (by, phase, log, listed)))
            return put(slots, of, new)

        if rescue:
            dead, phase, left = rescue
            step, b = left[0]
            on = (dead, phase, left[1:]) if len(left) > 1 else None
            owner, writing, version = locks[b]
            if step == "r-mark":
                yield to(rescue=on, locks=put(locks, b, (owner, 1, version)) if owner == dead else locks)
            elif step == "r-replay":
                logged = dict(slots[dead][2])
                yield to(rescue=on, values=put(values, b, logged[b]) if b in logged else values)
            elif step == "r-applied":
                yield to(rescue=on, slots=slot(dead, phase=APPLIED))
            elif step == "r-release":
                bump = 0 if FAULT == "keep-version" else writing or phase != IDLE
                free = (NOBODY, 0, version + bool(bump))
                yield to(rescue=on, locks=put(locks, b, free) if owner == dead else locks)
            else:
                yield to(rescue=on, slots=put(slots, dead, EMPTY))
            continue

        def in_the_way(owner):
            """The step of whoever finds a lock taken: nothing, or the takeover of a dead slot."""
            by, phase, _, listed = slots[owner]
            if not procs[owner][0] and (by == NOBODY or not procs[by][0]):
                yield to(rescue=(owner, phase, tuple(recovery(phase, listed))), slots=slot(owner, by=p))

        if kind == "L":
            for q, s in enumerate(slots):
                if s != EMPTY:
                    yield from in_the_way(q)
            continue
        if kind == "R":
            # seen: (round, bucket, word, value, what it has found so far)
            rounds, b, word, value, found = seen
            if word is None:
                if locks[b][1]:
                    yield from in_the_way(locks[b][0])
                else:
                    yield to(seen=(rounds, b, locks[b], None, found))
            elif value is None:
                yield to(seen=(rounds, b, word, values[b], found))
            elif locks[b][1:] != word[1:]:
                yield to(seen=(rounds, b, None, None, found))
            else:
                assert b >= len(found) or value >= found[b], "a reader sees a value fall"
                found = found[:b] + (value,) + found[b + 1:]
                # A group changes both: who saw it in the first one sees it in the second.
                alone = sum(k in "US" for k in KINDS)
                assert b == 0 or value >= found[0] - alone, "a reader sees a part of a group"
                last = b == 1 and rounds == 1
                yield to(at=None if last else at, seen=(rounds + b, 1 - b, None, None, found))
            continue

        step, b = PROGRAMMES[kind][at]
        owner, writing, version = locks[b]
        on = at + 1 if at + 1 < len(PROGRAMMES[kind]) else None
        if step == "look":
            if owner != NOBODY:
                yield from in_the_way(owner)
            else:
                # The short way reads before it locks; both are one step for whoever then proves it by the same word.
                yield to(on, seen=(locks[b], ((b, values[b] + 1),)))
        elif step == "list":
            yield to(on, slots=slot(p, listed=slots[p][3] + (b,)))
        elif step == "prove":
            if locks[b] == seen[0]:
                yield to(on, locks=put(locks, b, (p, int(kind == "S"), version)))
            else:
                yield to(at=0, slots=slot(p, listed=()))
        elif step == "take":
            if owner == NOBODY:
                yield to(on, locks=put(locks, b, (p, 0, version)))
            else:
                yield from in_the_way(owner)
        elif step == "read":
            log = () if b == 0 else seen[1]
            yield to(on, seen=(None, log + ((b, values[b] + 1),)))
        elif step == "commit":
            made = commits
            for n in BUCKETS[kind]:
                made = put(made, n, made[n] + 1)
            yield to(on, commits=made, slots=slot(p, phase=COMMITTED, log=seen[1]))
        elif step == "mark":
            assert owner == p, "somebody else has the lock"
            yield to(on, locks=put(locks, b, (p, 1, version)))
        elif step == "store":
            yield to(on, values=put(values, b, dict(slots[p][2])[b]))
        elif step == "applied":
            yield to(on, slots=slot(p, phase=APPLIED))
        elif step == "release":
            assert owner == p, "somebody else has the lock"
            yield to(on, locks=put(locks, b, (NOBODY, 0, version + 1)))
        elif step == "unlist":
            yield to(on, slots=slot(p, listed=()))
        elif step == "idle":
            yield to(on, slots=slot(p, phase=IDLE))


def wrong_end(state):
    _, values, commits, slots, procs, _ = state
    for b in (0, 1):
        # A commit whose owner is dead is made by whoever needs its bucket next, who may be none of these.
        unmade = sum(s[1] == COMMITTED and b in dict(s[2]) for s in slots)
        if not commits[b] - unmade <= values[b] <= commits[b]:
            return f"{commits[b]} commits have changed bucket {b}, but its value is {values[b]}"
    if any(alive and at is not None and kind != "L" for kind, (alive, at, _, _) in zip(KINDS, procs)):
        return "somebody waits for ever"
    return None


def explore():
    first = tuple((True, 0, (0, 0, None, None, ()) if k == "R" else None, None) for k in KINDS)
    start = (((NOBODY, 0, 0),) * 2, (0, 0), (0, 0), (EMPTY,) * len(KINDS), first, DEATHS)
    came_from, queue, ends = {start: None}, deque([start]), 0
    while queue:
        state = queue.popleft()
        ended = True
        try:
            for after in steps(state):
                ended = ended and after[5] != state[5]
                if after not in came_from:
                    came_from[after] = state
                    queue.append(after)
        except AssertionError as fault:
            return came_from, ends, state, str(fault)
        if ended:
            ends += 1
            why = wrong_end(state)
            if why:
                return came_from, ends, state, why
    return came_from, ends, None, None


came_from, ends, bad, why = explore()
print(f"recovery.py: {FAULT}, {KINDS}, {DEATHS} deaths: {len(came_from)} states, {ends} ends: "
      f"{why or 'all or nothing, and once'}")
trace = []
while bad is not None:
    trace.append(bad)
    bad = came_from[bad]
for state in trace[::-1]:
    names = ["dead" if not alive else rescue[2][0][0] if rescue else "done" if at is None else
             PROGRAMMES[k][at][0] if k in PROGRAMMES else k for k, (alive, at, _, rescue) in zip(KINDS, state[4])]
    print("  locks %s values %s of %s phases %s: %s" % (*state[:3], [s[1] for s in state[3]], names))
sys.exit(1 if why else 0)
