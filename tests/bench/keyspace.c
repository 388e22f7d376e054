/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyspace by itself: nanoseconds of CPU time for each find, insert, replace and remove, and bytes a key.
 *
 *     keyspace [KEYS = 5000000] [VALUE-BYTES = 100]
 *
 * Keys of 16 bytes, looked up in an order that has nothing to do with that of their insertion. "far" is
 * over all keys: memory decides. "near" is over 2,000 of them, which the processor's caches hold.
 */
#include "backend/store/index.h"
#include "backend/store/slab.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NEAR_KEYS 2000u
#define ROUNDS    4000000u
#define BATCH     16u

struct keyspace {
    struct index *index;
    struct slab *slab;
    uint64_t count;
    size_t value_size;
    uint64_t found; /* so that nothing is optimised away */
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double resident_mib(void)
{
    unsigned long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL || fscanf(f, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    if (f != NULL)
        fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static struct bytes key_of(uint64_t number, char room[17])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 15; i >= 0; i--, number >>= 4)
        room[i] = digits[number & 15];
    return bytes_of(room, 16);
}

/* The i-th of `count` numbers in a scattered order: 2654435761 is prime. */
static uint64_t scattered(uint64_t i, uint64_t count)
{
    return i * 2654435761u % count;
}

static void print_row(const char *what, double begun, uint64_t times)
{
    printf("%-36s %7.1f ns\n", what, (now() - begun) * 1e9 / (double)times);
}

static struct entry *entry_make(struct keyspace *ks, struct bytes key)
{
    static char value[65536];
    struct entry_parts parts = {.address = 1, .lsn = 1, .type = STORE_STRING, .key = key,
                                .value = bytes_of(value, ks->value_size)};
    struct entry *entry = slab_get(ks->slab, entry_size_of(&parts));

    ASSERT(entry != NULL);
    entry_compose(entry, &parts);
    return entry;
}

static void bench_insert(struct keyspace *ks)
{
    double begun = now(), worst = 0, before, bytes = 0;
    char room[17];

    for (uint64_t i = 0; i < ks->count; i++) {
        struct bytes key = key_of(i, room);
        uint64_t hash = index_hash(ks->index, 0, key);
        int err = index_insert(ks->index, hash, entry_make(ks, key));

        ASSERT(err == 0);
        if (i % 10000 == 0 && i >= ks->count / 4) {
            bytes = (double)index_bytes(ks->index) / (double)(i + 1);
            worst = MAX(worst, bytes);
        }
    }
    print_row("insert, with slab and entry", begun, ks->count);
    printf("%-36s %7.2f bytes a key (at most %.2f)\n", "index", bytes, worst);
    printf("%-36s %7.2f bytes a key\n", "slab, charged",
           (double)slab_used_bytes(ks->slab) / (double)ks->count);
    before = (double)(slab_page_bytes(ks->slab) + index_bytes(ks->index));
    printf("%-36s %7.2f bytes a key\n", "slab's pages and index", before / (double)ks->count);
    printf("%-36s %7.2f bytes a key\n", "resident",
           resident_mib() * 1048576 / (double)ks->count);
}

static void bench_find(struct keyspace *ks, const char *what, uint64_t among, uint64_t base)
{
    double begun = now();
    char room[17];

    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct bytes key = key_of(base + scattered(i, among), room);
        struct entry *entry = index_find(ks->index, index_hash(ks->index, 0, key), 0, key);

        ks->found += entry != NULL;
    }
    print_row(what, begun, ROUNDS);
}

/* What is in every row but the sweep's. */
static void bench_hash(struct keyspace *ks)
{
    double begun = now();
    char room[17];

    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct bytes key = key_of(scattered(i, NEAR_KEYS), room);

        ks->found += index_hash(ks->index, 0, key) & 1;
    }
    print_row("a key made and hashed (in all rows)", begun, ROUNDS);
}

/* As a turn of the loop with pipelined requests does it: first all hashes, then all buckets, then all entries. */
static void bench_find_batch(struct keyspace *ks)
{
    double begun = now();
    char rooms[BATCH][17];
    uint64_t hashes[BATCH];

    for (uint64_t i = 0; i < ROUNDS; i += BATCH) {
        for (uint64_t k = 0; k < BATCH; k++) {
            struct bytes key = key_of(scattered(i + k, ks->count), rooms[k]);

            hashes[k] = index_hash(ks->index, 0, key);
            index_prefetch(ks->index, hashes[k]);
        }
        for (uint64_t k = 0; k < BATCH; k++)
            index_prefetch_entry(ks->index, hashes[k]);
        for (uint64_t k = 0; k < BATCH; k++)
            ks->found += index_find(ks->index, hashes[k], 0, bytes_of(rooms[k], 16)) != NULL;
    }
    print_row("find hit, far, batches of 16", begun, ROUNDS);
}

static void bench_replace(struct keyspace *ks)
{
    double begun = now();
    char room[17];

    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct bytes key = key_of(scattered(i, ks->count), room);
        uint64_t hash = index_hash(ks->index, 0, key);
        struct entry *old = index_find(ks->index, hash, 0, key);

        ASSERT(old != NULL);
        index_replace(ks->index, hash, old, entry_make(ks, key));
        slab_put(ks->slab, old, entry_size(old));
    }
    print_row("find and replace, far", begun, ROUNDS);
}

static void each_count(void *arg, struct entry *entry)
{
    struct keyspace *ks = arg;

    ks->found += entry_is_cold(entry);
}

static void bench_sweep(struct keyspace *ks)
{
    double begun = now();
    uint64_t at = 0;

    do
        at = index_sweep(ks->index, at, each_count, ks);
    while (at != 0);
    print_row("sweep, an entry", begun, ks->count);
}

static void bench_remove(struct keyspace *ks)
{
    double begun = now();
    char room[17];

    for (uint64_t i = 0; i < ks->count; i++) {
        struct bytes key = key_of(scattered(i, ks->count), room);
        uint64_t hash = index_hash(ks->index, 0, key);
        struct entry *entry = index_find(ks->index, hash, 0, key);

        ASSERT(entry != NULL);
        index_remove(ks->index, hash, entry);
        slab_put(ks->slab, entry, entry_size(entry));
    }
    print_row("find and remove, far", begun, ks->count);
    printf("%-36s %7.1f MiB\n", "resident then", resident_mib());
}

int main(int argc, char **argv)
{
    struct keyspace ks = {.count = 5000000, .value_size = 100};

    if (argc > 1)
        ks.count = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        ks.value_size = strtoull(argv[2], NULL, 10);
    if (ks.count < NEAR_KEYS || ks.value_size > STRING_INLINE_MAX || argc > 3) {
        fprintf(stderr, "usage: keyspace [KEYS >= %u] [VALUE-BYTES <= %u]\n", NEAR_KEYS,
                STRING_INLINE_MAX);
        return 2;
    }
    if (index_create(1, NULL, &ks.index) != 0 || slab_create(NULL, false, &ks.slab) != 0)
        return 1;
    bench_insert(&ks);
    bench_hash(&ks);
    bench_find(&ks, "find hit, near", NEAR_KEYS, 0);
    bench_find(&ks, "find hit, far", ks.count, 0);
    bench_find_batch(&ks);
    bench_find(&ks, "find miss, near", NEAR_KEYS, ks.count);
    bench_find(&ks, "find miss, far", ks.count, ks.count);
    bench_replace(&ks);
    bench_sweep(&ks);
    bench_remove(&ks);
    ASSERT(index_count(ks.index) == 0 && ks.found > 0);
    index_destroy(&ks.index);
    slab_destroy(&ks.slab);
    return 0;
}
