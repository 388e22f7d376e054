/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/shard.h"

#include "backend/store/key_hash.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
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

/* A page being put together from its records, oldest first. */
struct page_walk {
    struct shard_checkpoint *checkpoint;
    uint64_t seed;
    uint32_t page;
    char *data;            /* owns: all records of the page */
    struct page_key *keys; /* owns */
    uint32_t *places;      /* owns: open addressing by hash; 1 + index into `keys`, 0: free */
    uint64_t *kept;        /* owns */
    size_t data_cap, place_cap, key_cap, kept_cap;
    uint32_t count;
};

static void walk_free(struct page_walk *walk)
{
    mem_free(walk->data);
    mem_free(walk->keys);
    mem_free(walk->places);
    mem_free(walk->kept);
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

/* Those that are not named are gone. */
static void record_keep(struct page_walk *walk, struct bytes kept)
{
    walk->kept = walk_room(walk->kept, &walk->kept_cap, kept.len / 8, 8);
    checkpoint_kept_sort(kept, walk->kept);
    for (uint32_t i = 0; i < walk->count; i++)
        if (!checkpoint_kept_has(walk->kept, kept.len / 8, walk->keys[i].key.lsn))
            walk->keys[i].is_gone = true;
}

static bool record_apply(struct page_walk *walk, const struct checkpoint_record *record, bool is_first, struct bytes data)
{
    struct checkpoint_record_view view;

    if (!checkpoint_record_take(data, record, walk->checkpoint->meta.bits, &view) ||
        is_first != (!view.is_kept_all && view.kept.len == 0))
        return false;
    if (!view.is_kept_all)
        record_keep(walk, view.kept);
    for (uint32_t i = 0; i < record->entries; i++) {
        struct page_key item = {0};
        uint32_t *place;

        if (!checkpoint_key_take(&view.entries, &item.key))
            return false;
        item.hash = key_hash(walk->seed, item.key.db, item.key.key);
        if ((item.hash & ((1ull << walk->checkpoint->meta.bits) - 1)) != walk->page)
            return false;
        place = key_place(walk, &item.key, item.hash);
        if (*place == 0)
            *place = ++walk->count;
        walk->keys[*place - 1] = item;
    }
    return view.entries.len == 0;
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

/* NULL: the page is put together; else what is wrong, with the record at *off. */
static const char *page_read(struct page_walk *walk, int fd, uint64_t *off)
{
    const struct checkpoint_table *table = &walk->checkpoint->table;
    const struct checkpoint_page *page = &table->pages[walk->page];
    const struct checkpoint_record *records = &table->records[page->first];
    size_t len = 0, entries = 0, places = 64, at = 0;

    for (uint32_t i = 0; i < page->count; i++) {
        len += records[i].len;
        entries += records[i].entries;
    }
    *off = records[0].off;
    if (entries > len / CHECKPOINT_ENTRY_SIZE)
        return "it does not verify";
    while (places < 2 * entries)
        places *= 2;
    walk->data = walk_room(walk->data, &walk->data_cap, len, 1);
    walk->keys = walk_room(walk->keys, &walk->key_cap, MAX(entries, (size_t)1), sizeof(*walk->keys));
    if (walk->place_cap != places) {
        mem_free(walk->places);
        walk->places = must_alloc(sizeof(*walk->places) * places);
        walk->place_cap = places;
    }
    memset(walk->places, 0, sizeof(*walk->places) * places);
    walk->count = 0;
    for (uint32_t i = 0; i < page->count; at += records[i++].len) {
        int err = read_whole(fd, walk->data + at, records[i].len, records[i].off);

        *off = records[i].off;
        if (err != 0)
            return err_text(err);
        if (!record_apply(walk, &records[i], i == 0, bytes_of(walk->data + at, records[i].len)))
            return "it does not verify";
    }
    return page_has_all(walk) ? NULL : "its records do not make what it was";
}

int shard_checkpoint_each(struct shard *shard, struct shard_checkpoint *c,
                          int (*each)(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash),
                          void *arg)
{
    struct page_walk walk = {.checkpoint = c, .seed = shard_hash_seed(shard)};
    char path[SHARD_PATH_MAX];
    int fd, err = 0;

    shard_path(shard, c->name, path);
    fd = openat(shard->dir_fd, c->name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (uint32_t i = 0; i < c->meta.page_count && err == 0; i++) {
        uint64_t off;
        const char *what;

        walk.page = i;
        what = page_read(&walk, fd, &off);
        if (what != NULL) {
            report_damage(shard->report, path, off, "a page of the checkpoint: %s", what);
            c->pages_bad[i] = 1;
            continue;
        }
        for (uint32_t k = 0; k < walk.count && each != NULL && err == 0; k++)
            if (!walk.keys[k].is_gone && !is_flushed(&walk, &walk.keys[k]))
                err = each(arg, i, &walk.keys[k].key, walk.keys[k].hash);
    }
    walk_free(&walk);
    close(fd);
    return err;
}
