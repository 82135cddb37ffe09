/* A cache of unlimited size per participant and the MESI protocol between them, fed with the memory accesses that
 * valgrind's lackey prints. See run.sh.
 *
 * usage: coherence MARKS INFO OBJECTFILE PARTICIPANTS   (addresses in hexadecimal; the trace from standard input)
 *
 * Since the caches forget nothing, each miss that it counts is one of coherence: a line that another participant has
 * written since. What misses in real caches for want of room comes on top, and does not grow with the processors.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64, MOST = 512, KINDS = 16, SETS = 1 << 22, WARM = 2, CAUSES = 17 };
static const char *const kinds[KINDS] = {"find", "find miss", "replace", "counter", "group of one key", "array get",
    "array set", "set, one chunk", "add", "remove", "one counter of all",
    "counter, alone"};
static const char *const causes[CAUSES] = {"header", "gate", "retired, spare", "slot directory", "page allocator", "arena",
    "slot", "page descriptors", "root: growth lock", "root: permitted", "root: rough count", "root: rest", "bucket",
    "counter line", "record, line", "other", "private memory"};
enum { HEADER, GATE, RETIRED, DIRECTORY, ALLOCATOR, ARENA, SLOT, DESCRIPTOR, GROWTH, PERMITTED, ROUGH, ROOT, BUCKET,
    COUNTER, RECORD, OTHER, PRIVATE };

struct line {
    uint64_t address; /* of the line, + 1; 0: not in use */
    int16_t writer;   /* the last one; -1 nobody */
    uint64_t has[MOST / 64];
    uint32_t moves[KINDS];
};
static struct line *lines;

struct tally { uint64_t operations, accesses, read, write, invalidations, cause[CAUSES]; };
static struct tally tallies[KINDS];

static uint64_t from, to;
static const unsigned char *object;
static uint64_t object_size;

static uint64_t word(uint64_t at) {
    uint64_t w = 0;
    if (at + 8 <= object_size) memcpy(&w, object + at, 8);
    return w;
}
/* Where the descriptor of a page is; see docs/design.md. */
static uint64_t descriptor(uint64_t page) {
    if (page < 1024) return 24 * 4096 + 32 * page;
    uint64_t first = 1024;
    while (first * 2 <= page) first *= 2;
    return first * 4096 + 32 * (page - first);
}
static int is_descriptor_page(uint64_t page) {
    if (page < 1024) return page >= 24 && page < 32;
    uint64_t first = 1024;
    while (first * 2 <= page) first *= 2;
    return page - first < first / 128;
}
static int cause_of_page(uint64_t page, uint64_t at) {
    /* A run has a descriptor at its first page only: go back to it. */
    for (uint64_t p = page; p >= 32 && page - p < 4096; p--) {
        uint64_t head = word(descriptor(p)), kind = head & 255, n = head >> 32;
        if (kind == 4 || kind == 5) return RECORD;
        if (kind != 3 || p + n <= page) continue;
        switch (head >> 8 & 255) {
        case 2: return BUCKET;
        case 3: return COUNTER;
        case 4: switch (at % 4096 / 64) {
            case 1: return GROWTH;
            case 2: return PERMITTED;
            case 3: return ROUGH;
            default: return ROOT;
            }
        case 5: return SLOT;
        default: return RECORD;
        }
    }
    return OTHER;
}
static int cause_of(uint64_t address) {
    if (address < from || address >= to) return PRIVATE;
    uint64_t at = address - from, page = at / 4096;
    if (page < 2) return HEADER;
    if (page == 2) return at % 4096 < 128 ? GATE : RETIRED;
    if (page == 3) return DIRECTORY;
    if (page == 4) return ALLOCATOR;
    if (page < 8) return ARENA;
    if (page < 24) return SLOT;
    if (is_descriptor_page(page)) return DESCRIPTOR;
    return cause_of_page(page, at);
}

static struct line *find(uint64_t address) {
    uint64_t h = (address >> 6) * 0x9e3779b97f4a7c15u >> 42;
    while (lines[h].address && lines[h].address != address + 1) h = (h + 1) % SETS;
    if (!lines[h].address) {
        lines[h].address = address + 1;
        lines[h].writer = -1;
    }
    return &lines[h];
}

static void access(struct tally *t, int kind, int p, uint64_t address, int write) {
    struct line *l = find(address / LINE * LINE);
    uint64_t *mine = &l->has[p / 64], bit = 1ull << p % 64;
    int here = (*mine & bit) != 0, others = 0;
    for (int i = 0; i < MOST / 64; i++) others += __builtin_popcountll(l->has[i]);
    others -= here;
    int missed = !here && l->writer >= 0 && l->writer != p, upgrade = write && here && others;
    if (t) {
        t->accesses++;
        t->read += missed && !write;
        t->write += (missed && write) || upgrade;
        if (write) t->invalidations += (uint64_t)others;
        if (missed || upgrade) {
            t->cause[cause_of(address)]++;
            l->moves[kind]++;
        }
    }
    *mine |= bit;
    if (write) {
        memset(l->has, 0, sizeof l->has);
        *mine = bit;
        l->writer = (int16_t)p;
    }
}

static void read_info(const char *info, const char *file) {
    FILE *f = fopen(info, "r"), *o = fopen(file, "rb");
    if (!f || !o || fscanf(f, "%" SCNx64 " %" SCNx64, &from, &to) != 2) exit(3);
    fclose(f);
    fseek(o, 0, SEEK_END);
    object_size = (uint64_t)ftell(o);
    rewind(o);
    free((void *)object);
    unsigned char *bytes = malloc(object_size);
    if (!bytes || fread(bytes, 1, object_size, o) != object_size) exit(3);
    object = bytes;
    fclose(o);
}

static void report(int participants) {
    printf("%d participants: misses of coherence per operation, and the line that moves most\n", participants);
    for (int k = 0; k < KINDS; k++) {
        struct tally *t = &tallies[k];
        if (!t->operations) continue;
        double n = (double)t->operations;
        uint64_t most = 0, where = 0;
        for (uint64_t i = 0; i < SETS; i++)
            if (lines[i].moves[k] > most) most = lines[i].moves[k], where = lines[i].address - 1;
        printf("  %-18s %5.0f accesses  read %5.2f  write %5.2f  invalidated %6.2f  hottest line %.3f (%s)\n", kinds[k],
               (double)t->accesses / n, (double)t->read / n, (double)t->write / n, (double)t->invalidations / n,
               (double)most / n, most ? causes[cause_of(where)] : "none");
        for (int c = 0; c < CAUSES; c++)
            if (t->cause[c]) printf("      %-24s %6.3f\n", causes[c], (double)t->cause[c] / n);
    }
}

int main(int argc, char **argv) {
    char text[256];
    if (argc != 5) return 2;
    uint64_t marks = strtoull(argv[1], NULL, 16), last = marks + KINDS * MOST;
    int participants = atoi(argv[4]), kind = -1, p = 0, known = 0;
    uint64_t seen[KINDS] = {0};
    lines = calloc(SETS, sizeof *lines);
    if (!lines) return 3;
    while (fgets(text, sizeof text, stdin)) {
        if (text[0] != ' ' || (text[1] != 'L' && text[1] != 'S' && text[1] != 'M')) continue;
        char *end;
        uint64_t address = strtoull(text + 3, &end, 16), size = strtoull(end + 1, NULL, 10);
        if (address >= marks && address <= last) {
            if (!known) read_info(argv[2], argv[3]), known = 1;
            if (address == last) {
                kind = -1;
                continue;
            }
            kind = (int)((address - marks) / MOST);
            p = (int)((address - marks) % MOST);
            seen[kind]++;
            if (seen[kind] > (uint64_t)(WARM * participants)) tallies[kind].operations++;
            continue;
        }
        if (kind < 0) continue;
        struct tally *t = seen[kind] > (uint64_t)(WARM * participants) ? &tallies[kind] : NULL;
        for (uint64_t at = address / LINE; at <= (address + size - 1) / LINE; at++)
            access(t, kind, p, at == address / LINE ? address : at * LINE, text[1] != 'L');
    }
    if (!known) return 4;
    read_info(argv[2], argv[3]);
    report(participants);
    return 0;
}
