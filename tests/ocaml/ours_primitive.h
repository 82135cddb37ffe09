/* The operations of ours_tables.c by a primitive table: the key's 4 bytes and the value's words are little-endian. */

static netshm_table *words_table;
static int32_t words[LONGEST / 4];

static int32_t word_at(const unsigned char *at)
{
    return (int32_t)((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
}

static void note_words(int32_t k, const int32_t *w, size_t n, int with_key, int with_value)
{
    static unsigned char out[LONGEST];
    netshm_slice left, right;
    unsigned char head[4];
    size_t i;
    for (i = 0; i < 4 * n; i++) out[i] = (unsigned char)((uint32_t)w[i / 4] >> 8 * (i % 4));
    for (i = 0; i < 4; i++) head[i] = (unsigned char)((uint32_t)k >> 8 * i);
    left.data = head;
    left.len = 4;
    right.data = out;
    right.len = 4 * n;
    if (with_key) note_binding(left, with_value ? &right : NULL);
    else note(hex(out, 4 * n));
}

static int seen_words(int32_t k, const int32_t *w, size_t n, void *arg)
{
    (void)arg;
    note_words(k, w, n, 1, 1);
    return NETSHM_CONTINUE;
}

static int seen_words_key(int32_t k, const int32_t *w, size_t n, void *arg)
{
    (void)w, (void)n, (void)arg;
    note_words(k, NULL, 0, 1, 0);
    return NETSHM_CONTINUE;
}

static int32_t words_key(void) { return word_at(key_bytes); }

static size_t words_value(void)
{
    size_t i;
    for (i = 0; i < value.len / 4; i++) words[i] = word_at(value_bytes + 4 * i);
    return i;
}

static void words_manage(netshm_object *o) { need(netshm_table_manage(o, NULL, &words_table), "manage"); }
static netshm_table *words_scope(void) { return words_table; }

static int words_add(void)
{
    size_t n = words_value();
    return netshm_table_add(words_table, words_key(), words, n);
}

static int words_replace(void)
{
    size_t n = words_value();
    return netshm_table_replace(words_table, words_key(), words, n);
}

static int words_remove(void) { return netshm_table_remove(words_table, words_key(), NULL); }
static int words_mem(int *there) { return netshm_table_mem(words_table, words_key(), there); }
static int words_length(uint64_t *n) { return netshm_table_length(words_table, n); }
static int words_iter(void) { return netshm_table_iter(words_table, seen_words, NULL); }
static int words_iter_keys(void) { return netshm_table_iter_keys(words_table, seen_words_key, NULL); }

static int words_find(void)
{
    size_t n;
    int code = netshm_table_find(words_table, words_key(), words, LONGEST / 4, &n);
    if (code == NETSHM_OK) note_words(0, words, n, 0, 1);
    return code;
}

static int words_find_all(void)
{
    netshm_words *all;
    size_t n, i;
    int code = netshm_table_find_all(words_table, words_key(), &all, &n);
    if (code != NETSHM_OK) return code;
    for (i = 0; i < n; i++) note_words(0, all[i].data, all[i].n, 0, 1);
    netshm_free(all);
    return code;
}

static const table primitive = {words_manage, words_scope, words_add, words_replace, words_remove, words_find,
    words_find_all, words_mem, words_length, words_iter, words_iter_keys};
