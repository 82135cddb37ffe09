"""A worker of the demo in Python. What all workers do is told at the top of drive.py.

    worker.py NAME FILE_NAME MEM_NAME TEXT
"""

import collections
import os
import re
import sys
import time

import netshm

WORD_BYTES = 64
WORD = re.compile(rb"[a-z]+")


class Worker:
    def __init__(self, name, file_name, mem_name, text):
        self.name = name.encode()
        self.table = netshm.Table(file_name, mem_name)
        self.text = open(text, "rb", buffering=0)
        self.driver = os.getppid()

    def nap(self):
        if os.getppid() != self.driver:
            sys.exit("the driver is gone")
        time.sleep(0.002)

    def count_chunk(self, share, key, offset, length):
        """Counts privately, then adds all to the table in one group, which also takes the chunk off the list."""
        words = collections.Counter(
            word[:WORD_BYTES] for word in WORD.findall(os.pread(self.text.fileno(), length, offset).lower()))
        in_order = sorted(words.items())  # see "Order" in drive.py

        def body():
            if not self.table.remove(key):
                return  # it has been counted
            for word, times in in_order:
                self.table.incr(word, times)
            self.table.incr(b"words:" + self.name, sum(words.values()))
            self.table.incr(b"increments:" + self.name, len(in_order))
            self.table.incr(b"done:" + share, 1)

        self.table.group(body)

    def count_share(self, share):
        for number in range(self.table.number(b"size:" + share)):
            while self.table.number(b"given:" + share) <= number:
                self.nap()
            key = b"chunk:%s:%d" % (share, number)
            chunk = self.table.find(key)
            if chunk:
                offset, length = map(int, chunk.split())
                self.count_chunk(share, key, offset, length)

    def run(self):
        self.table.incr(b"ready:", 1)
        self.count_share(self.name)
        while not self.table.contains(b"finished:"):
            share = self.table.find(b"orphan:")
            if share and self.table.compare_and_replace(b"owner:" + share, b"", self.name):
                self.count_share(share)
            else:
                self.nap()
        self.table.close()


if __name__ == "__main__":
    Worker(*sys.argv[1:]).run()
