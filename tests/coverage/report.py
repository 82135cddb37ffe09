#!/usr/bin/env python3
"""Lines and branches reached, per room of src/, from an lcov file. With rooms named: their branches with a side never taken."""
import collections
import sys


def read(path):
    """For each file: lines {number: hits} and branches {(line, block, branch): hits}; test modules are left out."""
    files = collections.defaultdict(lambda: (collections.Counter(), collections.Counter()))
    for row in open(path):
        kind, _, rest = row.strip().partition(":")
        if kind == "SF":
            name = rest.split("/src/", 1)[-1]
            lines, branches = files[name]
            end = first_line_of_tests(rest)
        elif kind == "DA":
            number, hits = rest.split(",")[:2]
            if int(number) < end:
                lines[int(number)] += int(hits)
        elif kind == "BRDA":
            line, block, branch, hits = rest.split(",")
            if int(line) < end:
                branches[(int(line), block, branch)] += 0 if hits == "-" else int(hits)
    return {name: pair for name, pair in files.items() if "test" not in name.rsplit("/", 1)[-1]}


def first_line_of_tests(path):
    for number, line in enumerate(open(path), 1):
        if line.startswith("mod tests {"):
            return number
    return sys.maxsize


def missed_sides(branches):
    """For each line: the sides that were never taken, of which condition of the line if there are several."""
    conditions, missed = collections.defaultdict(set), collections.defaultdict(list)
    for line, condition, _ in branches:
        conditions[line].add(condition)
    for (line, condition, side), hits in sorted(branches.items()):
        if not hits:
            which = f" ({int(condition) + 1})" if len(conditions[line]) > 1 else ""
            missed[line].append(("false" if int(side) % 2 else "true") + which)
    return missed


def share(hits):
    return f"{sum(1 for h in hits if h)}/{len(hits)}  {100 * sum(1 for h in hits if h) / len(hits):5.1f}%" if hits else "-"


def main():
    files = read(sys.argv[1])
    rooms = collections.defaultdict(lambda: ([], []))
    for name, (lines, branches) in files.items():
        room = name.split("/", 1)[0].removesuffix(".rs")
        for to in (rooms[room], rooms["all"]):
            to[0].extend(lines.values())
            to[1].extend(branches.values())
    print(f"{'room':14} {'lines':>20} {'sides of branches':>24}")
    for room in sorted(rooms, key=lambda room: (room == "all", room)):
        print(f"{room:14} {share(rooms[room][0]):>20} {share(rooms[room][1]):>24}")
    for wanted in sys.argv[2:]:
        for name in sorted(files):
            if name.split("/", 1)[0].removesuffix(".rs") != wanted:
                continue
            source = open(f"src/{name}").read().splitlines()
            for line, sides in sorted(missed_sides(files[name][1]).items()):
                print(f"src/{name}:{line}: never {', '.join(sides)}: {source[line - 1].strip()}")


main()
