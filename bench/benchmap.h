/* A hashbrown map in private memory, behind C calls: see bench/map. */
#ifndef BENCHMAP_H
#define BENCHMAP_H
#include <stddef.h>
#include <stdint.h>
typedef struct benchmap benchmap;
benchmap *benchmap_new(size_t expected);
void benchmap_free(benchmap *map);
void benchmap_add(benchmap *map, const void *key, size_t key_len, const void *value, size_t len);
void benchmap_put(benchmap *map, const void *key, size_t key_len, const void *value, size_t len);
int benchmap_find(const benchmap *map, const void *key, size_t key_len, void *into, size_t capacity, size_t *len);
int64_t benchmap_increment(benchmap *map, const void *key, size_t key_len, int64_t delta);
void benchmap_put_locked(benchmap *map, const void *key, size_t key_len, const void *value, size_t len);
int64_t benchmap_increment_locked(benchmap *map, const void *key, size_t key_len, int64_t delta);
void benchmap_change(benchmap *map, const void *key, size_t key_len, void (*change)(void *value, size_t len, void *arg),
                     void *arg);
void benchmap_iter(const benchmap *map,
                   void (*see)(const void *key, size_t key_len, const void *value, size_t len, void *arg), void *arg);
void benchlimit_find(const void *lines, uint64_t mask, const void *records, size_t record_len, const void *key,
                     size_t key_len, void *into, size_t len);
void benchlimit_find_busy(const void *lines, uint64_t mask, const void *records, size_t record_len, const void *key,
                          size_t key_len, void *into, size_t len);
void benchlimit_find_16(const void *lines, uint64_t mask, const void *records, size_t record_len, const void *keys,
                        size_t key_len, void *into, size_t len);
uint64_t benchlimit_miss(const void *lines, uint64_t mask, const void *key, size_t key_len);
void benchlimit_write(void *lines, uint64_t mask, void *records, size_t record_len, const void *key, size_t key_len,
                      const void *from, size_t len);
int64_t benchlimit_count(void *lines, uint64_t mask, void *records, size_t record_len, const void *key, size_t key_len,
                         int64_t delta);
void benchlimit_update(void *lines, uint64_t mask, void *records, size_t record_len, const void *key, size_t key_len,
                       uint64_t delta, void *buffer, size_t len);
/* `keys` and `values` are pairs of pointer and length. */
void benchlimit_write_16(void *lines, uint64_t mask, void *records, size_t record_len, const void *keys, const void *values);
void benchlimit_group(void *lines, uint64_t mask, void *records, size_t record_len, const void *keys, size_t n, uint64_t delta,
                      void *log, size_t len);
void benchlimit_link(void *lines, uint64_t n, const void *key, size_t key_len, uint64_t record);
int benchmap_remove(benchmap *map, const void *key, size_t key_len);
#endif
