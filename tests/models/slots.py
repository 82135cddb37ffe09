#!/usr/bin/env python3
"""Slots, registrations and who recovers whom: can two be at one slot at once, or nobody be there for it ever?

All interleavings of processes that register, recover what names their registration, claim a slot, work in it, look after
the dead, and die at any step, recoverers included, while the registrations of the dead are given anew; breadth-first,
sequentially consistent. It follows Attachment::register, Engine::register, Engine::claim_slot, attachment::life_at,
recovery::recover and Engine::detach step by step. There is one slot, for which everybody competes.

The promises: from the compare-and-swap on that takes a slot nobody else who lives is at it, until it is free; a slot that
is claimed is empty; what was committed is made once; and at every end, where nobody can take a step any more, no slot of
the dead is left and nobody waits.

usage: slots.py [FAULT [PROCESSES [DEATHS]]]    FAULT: none; same-generation, where a recoverer takes the slot over in the
generation that he saw; no-scan, where a registrant leaves alone what names its registration; no-election, where the
recoverer stores the state; keep-generation, where a slot is freed in the generation that it had; free-first, where it is
freed before it is emptied. All have to be found. It ends with 1 if a promise is broken.
"""
import sys
from collections import deque

FAULTS = ("none", "same-generation", "no-scan", "no-election", "keep-generation", "free-first")
FAULT = sys.argv[1] if len(sys.argv) > 1 else "none"
PROCESSES = int(sys.argv[2]) if len(sys.argv) > 2 else 4
DEATHS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
FREE, ACTIVE, RECOVERING = "free", "active", "recovering"
IDLE, COMMITTED, APPLIED = "idle", "committed", "applied"
NOBODY = 0


def put(t, i, v):
    return t[:i] + (v,) + t[i + 1:]


# State: slot (state word (kind, registration, generation), phase, listed, owned by the slot: is the lock held?), value,
# commits, the registrations' holders (number - 1 -> process or NOBODY), processes (alive, pc, registration, what it saw,
# what it read of the phase, where to go on), deaths left. A process knows that it is process p + 1.
def steps(state):
    slot, value, commits, registered, procs, deaths = state
    word, phase, listed, held = slot
    for p, (alive, pc, number, seen, read, back) in enumerate(procs):
        if not alive or pc == "done":
            continue

        def to(pc, seen=seen, read=read, back=back, number=number, slot=slot, value=value, commits=commits,
               registered=registered):
            return slot, value, commits, registered, put(procs, p, (True, pc, number, seen, read, back)), deaths

        if deaths > 0:
            # The kernel drops the registration with the process.
            kept = tuple(NOBODY if holder == p + 1 else holder for holder in registered)
            yield slot, value, commits, kept, put(procs, p, (False, "dead", 0, None, None, None)), deaths - 1

        def is_dead(word):
            """life_at: by the registration; of a process's own it is never asked."""
            return word[0] != FREE and word[1] != number and registered[word[1] - 1] == NOBODY

        if pc == "start":
            # The lowest free number, under the creation byte.
            free = registered.index(NOBODY)
            yield to("scan", number=free + 1, registered=put(registered, free, p + 1))
        elif pc == "scan":
            if word[0] != FREE and word[1] == number and FAULT != "no-scan":
                yield to("take", seen=word, back="look")
            else:
                yield to("look")
        elif pc == "look":
            # claim_slot; a slot that others have is looked after.
            if word[0] == FREE:
                yield to("claim", seen=word)
            elif word[1] != number:
                yield to("judge", seen=word, back="look")
        elif pc == "judge":
            # The state was read before the registration is asked for.
            yield to("take" if is_dead(seen) else back)
        elif pc == "claim":
            if word == seen:
                assert not any(q[1] in ("list", "log", "commit", "apply", "applied", "release", "unlist", "idle", "free")
                               for i, q in enumerate(procs) if i != p and q[0]), "two own the slot"
                assert (phase, listed) == (IDLE, False), "a slot is not empty when it is claimed"
                yield to("list", slot=((ACTIVE, number, word[2]),) + slot[1:])
            else:
                yield to("look")
        elif pc == "list":
            yield to("lock", slot=(word, phase, True, held))
        elif pc == "lock":
            assert not held, "a lock names a slot that was free"
            yield to("log", slot=(word, phase, listed, True), read=value)
        elif pc == "log":
            yield to("commit")
        elif pc == "commit":
            yield to("apply", slot=(word, (COMMITTED, read + 1), listed, held), commits=commits + 1)
        elif pc == "apply":
            yield to("applied", value=read + 1)
        elif pc == "applied":
            yield to("release", slot=(word, APPLIED, listed, held))
        elif pc == "release":
            assert held, "somebody else has released the lock"
            yield to("unlist", slot=(word, phase, listed, False))
        elif pc == "unlist":
            yield to("idle", slot=(word, phase, False, held))
        elif pc == "idle":
            yield to("free", slot=(word, IDLE, listed, held))
        elif pc == "free":
            # detach: a plain store. The registration goes afterwards.
            generation = word[2] if FAULT == "keep-generation" else word[2] + 1
            yield to("leave", slot=((FREE, NOBODY, generation),) + slot[1:])
        elif pc == "leave":
            kept = tuple(NOBODY if holder == p + 1 else holder for holder in registered)
            yield to("done", number=0, seen=None, read=None, back=None, registered=kept)
        elif pc == "take":
            if word == seen or FAULT == "no-election":
                generation = seen[2] if FAULT == "same-generation" else seen[2] + 1
                yield to("replay", seen=(RECOVERING, number, generation), read=phase,
                         slot=((RECOVERING, number, generation),) + slot[1:])
            else:
                yield to(back)
        elif pc == "replay":
            if read[0] == COMMITTED:
                yield to("r-applied", value=read[1])
            else:
                yield to("r-release")
        elif pc == "r-applied":
            yield to("r-release", slot=(word, APPLIED, listed, held))
        elif pc == "r-release":
            freed = ((FREE, NOBODY, seen[2] + 1),) if FAULT == "free-first" else (word,)
            yield to("r-unlist", slot=freed + (phase, listed, held and not listed))
        elif pc == "r-unlist":
            yield to("r-idle", slot=(word, phase, False, held))
        elif pc == "r-idle":
            yield to("r-free", slot=(word, IDLE, listed, held))
        elif pc == "r-free":
            generation = seen[2] if FAULT == "keep-generation" else seen[2] + 1
            freed = word if FAULT == "free-first" else (FREE, NOBODY, generation)
            yield to(back, seen=None, read=None, back=None, slot=(freed,) + slot[1:])


RECOVERY = ("replay", "r-applied", "r-release", "r-unlist", "r-idle", "r-free")


def wrong(state, ended):
    slot, value, commits, _, procs, _ = state
    if sum(q[0] and q[1] in RECOVERY for q in procs) > 1:
        return "two recover the slot at once"
    if not ended:
        return None
    unmade = isinstance(slot[1], tuple) and slot[1][0] == COMMITTED
    if not commits - unmade <= value <= commits:
        return f"{commits} commits, but the value is {value}"
    if any(q[0] and q[1] != "done" for q in procs):
        return "somebody waits for ever"
    return None


def explore():
    start = (((FREE, NOBODY, 0), IDLE, False, False), 0, 0, (NOBODY,) * PROCESSES,
             ((True, "start", 0, None, None, None),) * PROCESSES, DEATHS)
    came_from, queue, ends = {start: None}, deque([start]), 0
    while queue:
        state = queue.popleft()
        ended = True
        try:
            for after in steps(state):
                ended = ended and after[5] != state[5]
                # Processes are alike: which of them is where makes no difference.
                after = after[:3] + alike(after[3], after[4]) + after[5:]
                if after not in came_from:
                    came_from[after] = state
                    queue.append(after)
        except AssertionError as fault:
            return came_from, ends, state, str(fault)
        ends += ended
        why = wrong(state, ended)
        if why:
            return came_from, ends, state, why
    return came_from, ends, None, None


def alike(registered, procs):
    """The same state with the processes in order."""
    order = sorted(range(len(procs)), key=lambda p: repr(procs[p]))
    place = {old + 1: new + 1 for new, old in enumerate(order)}
    return tuple(place.get(holder, NOBODY) for holder in registered), tuple(procs[p] for p in order)


assert FAULT in FAULTS, __doc__
came_from, ends, bad, why = explore()
print(f"slots.py: {FAULT}, {PROCESSES} processes, {DEATHS} deaths: {len(came_from)} states, {ends} ends: "
      f"{why or 'one at a time, and nobody is forgotten'}")
trace = []
while bad is not None:
    trace.append(bad)
    bad = came_from[bad]
for state in trace[::-1]:
    print("  slot %s %s%s value %s of %s  processes %s" % (
        state[0][0], state[0][1], " listed" if state[0][2] else "", state[1], state[2],
        [f"{q[1]}:{q[2]}" for q in state[4]]))
sys.exit(1 if why else 0)
