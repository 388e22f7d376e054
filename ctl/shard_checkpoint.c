/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/shard.h"

#include "backend/store/key_hash.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_whole(int fd, char *data, size_t size, uint64_t off)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = pread(fd, data + at, size - at, (off_t)(off + at));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? ERR_EOF : -errno;
        at += (size_t)got;
    }
    return 0;
}

void shard_checkpoint_free(struct shard_checkpoint *checkpoint)
{
    checkpoint_table_free(&checkpoint->table);
    mem_free(checkpoint->pages_bad);
    checkpoint->pages_bad = NULL;
}

/* META with its rows. False: told why not. */
static bool meta_read(struct shard *shard, struct shard_checkpoint *c)
{
    const struct checkpoint_slot *slot = &c->slot;
    char path[SHARD_PATH_MAX], *data = NULL;
    const char *what = NULL;
    int fd, err = 0;

    shard_path(shard, c->name, path);
    fd = openat(shard->dir_fd, c->name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        report_damage(shard->report, path, 0, "cannot be opened: %s", err_text(-errno));
        return false;
    }
    data = must_alloc((size_t)slot->meta_len);
    err = read_whole(fd, data, (size_t)slot->meta_len, slot->meta_off);
    close(fd);
    if (err == 0)
        err = checkpoint_meta_take(slot, data, &c->meta, &c->table);
    if (err == ERR_CORRUPT)
        what = "META does not verify";
    else if (err == ERR_UNSUPPORTED)
        what = "a newer version of this program wrote it";
    else if (err != 0)
        what = err_text(err);
    if (what == NULL) {
        c->pages_bad = must_zalloc(c->meta.page_count);
        for (uint32_t i = 0; i < c->meta.page_count; i++)
            c->lsn_max = MAX(c->lsn_max, checkpoint_table_lsn(&c->table, i));
    }
    mem_free(data);
    if (what != NULL) {
        report_damage(shard->report, path, slot->meta_off, "%s", what);
        shard_checkpoint_free(c);
    }
    return what == NULL;
}

static bool is_blank(const char *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

unsigned shard_checkpoints(struct shard *shard, struct shard_checkpoint out[2])
{
    char page[CHECKPOINT_SLOT_SIZE], path[SHARD_PATH_MAX];
    struct checkpoint_slot slots[2] = {{0}};
    int fd = openat(shard->dir_fd, "MANIFEST", O_RDONLY | O_CLOEXEC);
    unsigned count = 0, newer;

    memset(out, 0, 2 * sizeof(out[0]));
    shard_path(shard, "MANIFEST", path);
    if (fd < 0) {
        if (errno != ENOENT)
            report_damage(shard->report, path, 0, "cannot be opened: %s", err_text(-errno));
        return 0;
    }
    for (unsigned i = 0; i < 2; i++) {
        int err = read_whole(fd, page, sizeof(page), (uint64_t)i * sizeof(page));

        if (err == ERR_EOF) /* made, and not written yet */
            continue;
        memcpy(&slots[i], page, sizeof(slots[i]));
        if (err != 0 || (!is_blank(page, sizeof(page)) && !checkpoint_slot_is_valid(&slots[i], i))) {
            report_damage(shard->report, path, (uint64_t)i * sizeof(page), "a slot does not verify");
            slots[i].generation = 0;
        }
    }
    close(fd);
    newer = slots[1].generation > slots[0].generation;
    for (unsigned i = 0; i < 2; i++) {
        struct shard_checkpoint *c = &out[count];

        *c = (struct shard_checkpoint){.slot = slots[i == 0 ? newer : 1 - newer]};
        (void)snprintf(c->name, sizeof(c->name), "checkpoint.%llu", (unsigned long long)c->slot.file);
        if (c->slot.generation != 0 && meta_read(shard, c))
            count++;
    }
    return count;
}

/* ---- pages ------------------------------------------------------------------------------------ */

struct page_key {
    struct checkpoint_key key;
    uint64_t hash;
    bool is_gone;
};

/* Where a record lies. */
struct record_place {
    uint64_t off, hash;
    uint32_t page, len, entries;
};

struct record_list {
    struct record_place *items; /* owns: page by page, oldest first */
    size_t count, cap;
};

/* A page being put together from its records, oldest first. */
struct page_walk {
    struct shard_checkpoint *checkpoint;
    struct shard *shard;
    const char *path;
    int fd;
    uint64_t seed;
    struct record_list records;
    size_t next;           /* of `records`: the page's first one */
    uint32_t page;
    char *data;            /* owns: all records of the page */
    struct page_key *keys; /* owns */
    uint32_t *places;      /* owns: open addressing by hash; 1 + index into `keys`, 0: free */
    uint32_t *lsns;        /* owns: the same by the LSN of then: what it says may have another one now */
    uint64_t *kept;        /* owns */
    size_t data_cap, place_cap, key_cap, kept_cap;
    uint32_t count;
};

static void walk_free(struct page_walk *walk)
{
    mem_free(walk->data);
    mem_free(walk->keys);
    mem_free(walk->places);
    mem_free(walk->lsns);
    mem_free(walk->kept);
    mem_free(walk->records.items);
}

/* Room for `count` items of `size`; what was there is lost. */
static void *walk_room(void *old, size_t *cap, size_t count, size_t size)
{
    if (count <= *cap)
        return old;
    mem_free(old);
    *cap = count;
    return must_alloc(count * size);
}

/* Where the key is, or would be. */
static uint32_t *key_place(struct page_walk *walk, const struct checkpoint_key *key, uint64_t hash)
{
    size_t mask = walk->place_cap - 1, at = (size_t)(hash >> 20) & mask;

    for (;; at = (at + 1) & mask) {
        const struct page_key *found;

        if (walk->places[at] == 0)
            return &walk->places[at];
        found = &walk->keys[walk->places[at] - 1];
        if (found->hash == hash && found->key.db == key->db && bytes_equal(found->key.key, key->key))
            return &walk->places[at];
    }
}

static size_t lsn_place(const struct page_walk *walk, uint64_t lsn)
{
    return (size_t)((lsn * 0x9e3779b97f4a7c15u) >> 32) & (walk->place_cap - 1);
}

static void lsn_add(struct page_walk *walk, uint32_t at)
{
    size_t place = lsn_place(walk, walk->keys[at].key.lsn);

    while (walk->lsns[place] != 0)
        place = (place + 1) & (walk->place_cap - 1);
    walk->lsns[place] = at + 1;
}

/* The key that has this LSN; NULL: none does. */
static struct page_key *lsn_find(struct page_walk *walk, const struct checkpoint_key *key)
{
    for (size_t place = lsn_place(walk, key->lsn); walk->lsns[place] != 0; place = (place + 1) & (walk->place_cap - 1)) {
        struct page_key *found = &walk->keys[walk->lsns[place] - 1];

        if (found->key.lsn == key->lsn && found->key.db == key->db && !found->is_gone)
            return found;
    }
    return NULL;
}

/* Those that are not named are gone. */
static bool record_keep(struct page_walk *walk, const struct checkpoint_record *record)
{
    walk->kept = walk_room(walk->kept, &walk->kept_cap, MAX(record->kept_count, (size_t)1), 8);
    if (!checkpoint_kept_sort(record, walk->kept))
        return false;
    for (uint32_t i = 0; i < walk->count; i++)
        if (!checkpoint_kept_has(walk->kept, record->kept_count, walk->keys[i].key.lsn))
            walk->keys[i].is_gone = true;
    return true;
}

static bool key_apply(struct page_walk *walk, struct page_key *item)
{
    uint32_t *place;

    if (item->key.is_moved) {
        struct page_key *found = lsn_find(walk, &item->key);

        if (found == NULL)
            return false;
        item->key.key = found->key.key;
        item->hash = found->hash;
        *found = *item;
        return true;
    }
    item->hash = key_hash(walk->seed, item->key.db, item->key.key);
    if ((item->hash & ((1ull << walk->checkpoint->meta.bits) - 1)) != walk->page)
        return false;
    place = key_place(walk, &item->key, item->hash);
    if (*place == 0)
        *place = ++walk->count;
    walk->keys[*place - 1] = *item;
    lsn_add(walk, *place - 1);
    return true;
}

static bool record_apply(struct page_walk *walk, bool is_first, struct bytes data)
{
    struct checkpoint_record record;

    if (!checkpoint_record_take(&data, walk->checkpoint->meta.bits, &record) || data.len > 0 ||
        (is_first && !checkpoint_record_is_full(&record)))
        return false;
    if (!record.is_kept_all && !record_keep(walk, &record))
        return false;
    for (uint32_t i = 0; i < record.entries; i++) {
        struct page_key item = {0};

        if (!checkpoint_key_take(&record, &item.key) || !key_apply(walk, &item))
            return false;
    }
    return record.rest.len == 0;
}

/* A flush since the page was written hides what was there before. */
static bool is_flushed(const struct page_walk *walk, const struct page_key *item)
{
    return item->key.lsn < walk->checkpoint->meta.flush_lsn[item->key.db];
}

static bool page_has_all(const struct page_walk *walk)
{
    const struct shard_checkpoint *c = walk->checkpoint;
    uint64_t lsn = checkpoint_table_lsn(&c->table, walk->page);
    uint32_t keys = 0;

    for (unsigned db = 0; db < STORE_DBS; db++)
        if (c->meta.flush_lsn[db] > lsn)
            return true;
    for (uint32_t i = 0; i < walk->count; i++)
        keys += !walk->keys[i].is_gone && !is_flushed(walk, &walk->keys[i]);
    return keys == c->table.pages[walk->page].keys;
}

static void page_room(struct page_walk *walk, size_t len, size_t entries)
{
    size_t places = 64;

    while (places < 2 * entries)
        places *= 2;
    walk->data = walk_room(walk->data, &walk->data_cap, len, 1);
    walk->keys = walk_room(walk->keys, &walk->key_cap, MAX(entries, (size_t)1), sizeof(*walk->keys));
    if (walk->place_cap != places) {
        mem_free(walk->places);
        mem_free(walk->lsns);
        walk->places = must_alloc(sizeof(*walk->places) * places);
        walk->lsns = must_alloc(sizeof(*walk->lsns) * places);
        walk->place_cap = places;
    }
    memset(walk->places, 0, sizeof(*walk->places) * places);
    memset(walk->lsns, 0, sizeof(*walk->lsns) * places);
    walk->count = 0;
}

/* NULL: the page is put together; else what is wrong, with the record at *off. */
static const char *page_read(struct page_walk *walk, uint64_t *off)
{
    const struct checkpoint_page *page = &walk->checkpoint->table.pages[walk->page];
    const struct record_place *records = &walk->records.items[walk->next];
    size_t len = 0, entries = 0, at = 0, count = 0;
    uint32_t sum = 0;

    for (; walk->next < walk->records.count && records[count].page == walk->page; count++, walk->next++) {
        len += records[count].len;
        entries += records[count].entries;
    }
    *off = count > 0 ? records[0].off : 0;
    if (count != page->records)
        return "not all of its records are there";
    page_room(walk, len, entries);
    for (size_t i = 0; i < count; at += records[i++].len) {
        int err = read_whole(walk->fd, walk->data + at, records[i].len, records[i].off);

        *off = records[i].off;
        if (err != 0)
            return err_text(err);
        if (!record_apply(walk, i == 0, bytes_of(walk->data + at, records[i].len)))
            return "it does not verify";
        sum = checkpoint_sum(sum, records[i].hash);
    }
    if (page->sum != 0 && page->sum != sum)
        return "one of its records is not the one that was written";
    return page_has_all(walk) ? NULL : "its records do not make what it was";
}

/* ---- records ---------------------------------------------------------------------------------- */

static void record_add(struct record_list *list, const struct checkpoint_record *record, uint64_t off)
{
    if (list->count == list->cap) {
        list->cap = list->cap * 2 + 256;
        list->items = must_realloc(list->items, list->cap * sizeof(*list->items));
    }
    list->items[list->count++] = (struct record_place){off, record->hash, record->page, record->len, record->entries};
}

/* All records of an extent that verify. Where one does not, the next one that does is looked for. */
static void extent_scan(struct page_walk *walk, const struct checkpoint_extent *extent, const char *data)
{
    const struct bytes all = bytes_of(data, extent->len);
    bool is_bad = false;

    for (struct bytes cursor = all; cursor.len > 0;) {
        uint64_t off = extent->off + (all.len - cursor.len);
        struct checkpoint_record record;

        if (checkpoint_record_take(&cursor, walk->checkpoint->meta.bits, &record)) {
            record_add(&walk->records, &record, off);
            is_bad = false;
            continue;
        }
        if (!is_bad)
            report_damage(walk->shard->report, walk->path, off, "a record of the checkpoint: it does not verify");
        is_bad = true;
        cursor = bytes_skip(cursor, 1);
    }
}

static int place_compare(const void *a, const void *b)
{
    const struct record_place *x = a, *y = b;

    if (x->page != y->page)
        return x->page < y->page ? -1 : 1;
    return x->off < y->off ? -1 : x->off > y->off;
}

static void records_find(struct page_walk *walk)
{
    const struct checkpoint_table *table = &walk->checkpoint->table;
    char *data = NULL;
    size_t cap = 0;

    for (uint32_t i = 0; i < table->extent_count; i++) {
        const struct checkpoint_extent *extent = &table->extents[i];
        int err;

        data = walk_room(data, &cap, extent->len, 1);
        err = read_whole(walk->fd, data, extent->len, extent->off);
        if (err != 0)
            report_damage(walk->shard->report, walk->path, extent->off, "records of the checkpoint: %s", err_text(err));
        else
            extent_scan(walk, extent, data);
    }
    mem_free(data);
    if (walk->records.count > 0)
        qsort(walk->records.items, walk->records.count, sizeof(*walk->records.items), place_compare);
}

int shard_checkpoint_each(struct shard *shard, struct shard_checkpoint *c,
                          int (*each)(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash),
                          void *arg)
{
    struct page_walk walk = {.checkpoint = c, .shard = shard, .seed = shard_hash_seed(shard)};
    char path[SHARD_PATH_MAX];
    int err = 0;

    shard_path(shard, c->name, path);
    walk.path = path;
    walk.fd = openat(shard->dir_fd, c->name, O_RDONLY | O_CLOEXEC);
    if (walk.fd < 0)
        return -errno;
    records_find(&walk);
    for (uint32_t i = 0; i < c->meta.page_count && err == 0; i++) {
        uint64_t off;
        const char *what;

        walk.page = i;
        what = page_read(&walk, &off);
        if (what != NULL) {
            report_damage(shard->report, path, off, "a page of the checkpoint: %s", what);
            c->pages_bad[i] = 1;
            continue;
        }
        for (uint32_t k = 0; k < walk.count && each != NULL && err == 0; k++)
            if (!walk.keys[k].is_gone && !is_flushed(&walk, &walk.keys[k]))
                err = each(arg, i, &walk.keys[k].key, walk.keys[k].hash);
    }
    close(walk.fd);
    walk_free(&walk);
    return err;
}
