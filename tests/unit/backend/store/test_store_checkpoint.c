/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the records of a checkpoint make together is what the index was: read here from the disk by the format alone, so
 * that neither replay nor the reading of the store can mend what is wrong.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/checkpoint_private.h"
#include "backend/store/log_private.h"

#include <stdlib.h>

#define MANY_DB   3u
#define MANY_MAX  9000u
#define NAME_MAX_ 40u
#define ENTRY_BYTES_MIN 20u /* with a name of world_other_key() */

/* What was met. */
static unsigned patch_count, full_count, kept_count, chain_count, moved_count, nameless_count;

/* ---- what is said of keys ----------------------------------------------------------------------- */

struct said {
    char name[NAME_MAX_];
    uint64_t lsn, address, expire_ms, base_lsn, image_lsn;
    uint32_t value_len;
    uint8_t db, type;
    bool has_chain;
};

struct said_list {
    struct said *items; /* owns */
    size_t count, cap;
};

static struct said *said_add(struct said_list *list, uint8_t db, struct bytes name)
{
    struct said *said;

    if (list->count == list->cap) {
        list->cap = list->cap == 0 ? 256 : list->cap * 2;
        list->items = must_realloc(list->items, sizeof(*list->items) * list->cap);
    }
    said = &list->items[list->count++];
    memset(said, 0, sizeof(*said));
    said->db = db;
    assert_true(name.len < NAME_MAX_);
    memcpy(said->name, name.data, name.len);
    return said;
}

static int said_compare(const void *a, const void *b)
{
    const struct said *x = a, *y = b;

    return x->db != y->db ? x->db - y->db : strcmp(x->name, y->name);
}

static void said_sort(struct said_list *list)
{
    if (list->count > 0)
        qsort(list->items, list->count, sizeof(*list->items), said_compare);
}

static struct said *said_find(const struct said_list *list, const struct said *key)
{
    return list->count == 0 ? NULL : bsearch(key, list->items, list->count, sizeof(*key), said_compare);
}

static void live_each(void *arg, struct entry *e)
{
    void **args = arg;
    struct store *store = args[0];
    struct said *said;

    if (entry_type(e) == STORE_NONE || store_is_flushed(store, e))
        return;
    said = said_add(args[1], entry_db(e), entry_key(e));
    said->lsn = entry_lsn(e);
    said->address = e->address;
    said->expire_ms = entry_expire_ms(e);
    said->type = (uint8_t)entry_type(e);
    said->value_len = entry_is_object(e) ? (uint32_t)entry_object(e)->image_bytes : entry_value_len(e);
    if (entry_is_object(e) && entry_object(e)->image_lsn != entry_lsn(e)) {
        said->has_chain = true;
        said->base_lsn = entry_object(e)->base_lsn;
        said->image_lsn = entry_object(e)->image_lsn;
    }
    if (entry_is_cold(e)) {
        const struct chain *chain = chain_find(store, index_hash(store->index, entry_db(e), entry_key(e)), e);

        if (chain != NULL) {
            said->has_chain = true;
            said->base_lsn = chain->base_lsn;
            said->image_lsn = chain->image_lsn;
        }
    }
}

static struct said_list live_list(struct world *w)
{
    struct said_list list = {0};
    void *args[2] = {w->store, &list};
    uint64_t at = 0;

    do
        at = index_sweep(w->store->index, at, live_each, args);
    while (at != 0);
    said_sort(&list);
    return list;
}

/* ---- what the disk says ------------------------------------------------------------------------- */

struct disk_checkpoint {
    struct checkpoint_slot slot;
    struct checkpoint_meta meta;
    struct checkpoint_table table;
    char path[96];
    unsigned place;
};

static struct checkpoint_slot newest_slot(struct world *w)
{
    struct checkpoint_slot slots[2] = {{0}};

    for (unsigned i = 0; i < 2; i++) {
        MAYBE(sim_disk_peek(w->node, WORLD_DIR "/MANIFEST", false, &slots[i], sizeof(slots[i]), i * 4096u) < 0);
        if (!checkpoint_slot_is_valid(&slots[i], i))
            slots[i].generation = 0;
    }
    return slots[slots[1].generation > slots[0].generation];
}

static char *disk_read(struct world *w, const char *path, uint64_t off, size_t len)
{
    char *data = must_alloc(len);

    assert_int_equal(sim_disk_peek(w->node, path, false, data, len, off), len);
    return data;
}

static void disk_open(struct world *w, struct disk_checkpoint *d)
{
    char *meta;

    memset(d, 0, sizeof(*d));
    d->slot = newest_slot(w);
    assert_true(d->slot.generation != 0);
    d->place = d->slot.generation % 2;
    (void)snprintf(d->path, sizeof(d->path), WORLD_DIR "/checkpoint.%llu", (unsigned long long)d->slot.file);
    meta = disk_read(w, d->path, d->slot.meta_off, d->slot.meta_len);
    assert_int_equal(checkpoint_meta_take(&d->slot, meta, &d->meta, &d->table), 0);
    mem_free(meta);
}

static void disk_close(struct disk_checkpoint *d)
{
    checkpoint_table_free(&d->table);
}

/* One more record of a page, as K1 has it. */
static void disk_record(struct said_list *page, struct checkpoint_record *record)
{
    uint64_t *kept = must_alloc(MAX(record->kept_count, (size_t)1) * 8);
    size_t left = 0;

    assert_true(checkpoint_kept_sort(record, kept));
    kept_count += record->kept_count > 0;
    for (size_t i = 0; i < page->count; i++)
        if (record->is_kept_all || checkpoint_kept_has(kept, record->kept_count, page->items[i].lsn))
            page->items[left++] = page->items[i];
    mem_free(kept);
    page->count = left;
    said_sort(page);
    for (uint32_t i = 0; i < record->entries; i++) {
        struct said wanted = {0}, *said = NULL;
        struct checkpoint_key key;

        assert_true(checkpoint_key_take(record, &key));
        wanted.db = key.db;
        if (key.is_moved) {
            for (size_t k = 0; k < left; k++)
                if (page->items[k].lsn == key.lsn && page->items[k].db == key.db)
                    said = &page->items[k];
            assert_true(said != NULL);
            nameless_count++;
        } else {
            memcpy(wanted.name, key.key.data, key.key.len);
            said = said_find(&(struct said_list){.items = page->items, .count = left}, &wanted);
        }
        if (said == NULL)
            said = said_add(page, key.db, key.key);
        said->lsn = key.lsn;
        said->address = key.address;
        said->expire_ms = key.expire_ms;
        said->type = key.type;
        said->value_len = key.value_len;
        said->has_chain = key.has_chain;
        said->base_lsn = key.base_lsn;
        said->image_lsn = key.image_lsn;
    }
    assert_int_equal(record->rest.len, 0);
}

/* A record with its place in the file. */
typedef void (*disk_record_fn)(void *arg, uint64_t off, struct checkpoint_record *record);

static void disk_each(struct world *w, const struct disk_checkpoint *d, disk_record_fn each, void *arg)
{
    for (uint32_t i = 0; i < d->table.extent_count; i++) {
        const struct checkpoint_extent *extent = &d->table.extents[i];
        char *data = disk_read(w, d->path, extent->off, extent->len);

        for (struct bytes cursor = bytes_of(data, extent->len); cursor.len > 0;) {
            uint64_t off = extent->off + extent->len - cursor.len;
            struct checkpoint_record record;

            assert_true(checkpoint_record_take(&cursor, d->meta.bits, &record));
            each(arg, off, &record);
        }
        mem_free(data);
    }
}

struct disk_pages {
    struct said_list *lists; /* owns: one a page */
    uint32_t *records;       /* owns: of each */
    uint64_t *lsns;          /* owns: of the newest */
};

static void disk_list_each(void *arg, uint64_t off, struct checkpoint_record *record)
{
    struct disk_pages *pages = arg;

    MAYBE(off);
    assert_true(record->lsn >= pages->lsns[record->page]);
    pages->lsns[record->page] = record->lsn;
    pages->records[record->page]++;
    disk_record(&pages->lists[record->page], record);
}

static struct said_list disk_list(struct world *w, const struct disk_checkpoint *d)
{
    struct said_list list = {0};
    struct disk_pages pages = {
        .lists = must_zalloc(sizeof(*pages.lists) * d->table.page_count),
        .records = must_zalloc(sizeof(*pages.records) * d->table.page_count),
        .lsns = must_zalloc(sizeof(*pages.lsns) * d->table.page_count),
    };

    disk_each(w, d, disk_list_each, &pages);
    for (uint32_t i = 0; i < d->table.page_count; i++) {
        const struct said_list *page = &pages.lists[i];

        assert_int_equal(pages.records[i], d->table.pages[i].records);
        assert_int_equal(pages.lsns[i], checkpoint_table_lsn(&d->table, i));
        for (size_t k = 0; k < page->count; k++)
            if (page->items[k].lsn >= d->meta.flush_lsn[page->items[k].db])
                *said_add(&list, page->items[k].db, bytes_of_string(page->items[k].name)) = page->items[k];
        mem_free(page->items);
    }
    mem_free(pages.lists);
    mem_free(pages.records);
    mem_free(pages.lsns);
    said_sort(&list);
    return list;
}

static bool is_same(const struct said *a, const struct said *b)
{
    return a->lsn == b->lsn && a->address == b->address && a->expire_ms == b->expire_ms && a->type == b->type &&
           a->value_len == b->value_len && a->has_chain == b->has_chain &&
           (!a->has_chain || (a->base_lsn == b->base_lsn && a->image_lsn == b->image_lsn));
}

/* ---- many keys ---------------------------------------------------------------------------------- */

static void many_set(struct world *w, unsigned k, uint64_t expire_ms)
{
    char name[32], value[64];
    struct store_key key;
    struct store_attributes attributes = {.expire_ms = expire_ms};

    if (store_may_write(w->store, true) != 0)
        return;
    world_fill(value, sizeof(value), k);
    store_find(w->store, MANY_DB, world_other_key(k, name), &key);
    MAYBE(store_put_string(w->store, &key, bytes_of(value, sizeof(value)), &attributes) != 0);
}

static void many_delete(struct world *w, unsigned k)
{
    char name[32];
    struct store_key key;

    store_find(w->store, MANY_DB, world_other_key(k, name), &key);
    MAYBE(store_delete(w->store, &key) != 0);
}

/* `count` of the first `range` keys are set, some to expire soon, a few deleted. */
static void many_live(struct world *w, unsigned count, unsigned range, bool takes_away)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned k = (unsigned)world_random(w, range);

        if (takes_away && i % 9 == 0)
            many_delete(w, k);
        else
            many_set(w, k, takes_away && i % 11 == 0 ? w->store->now_ms + 50 + world_random(w, 2000) : 0);
        if (i % 8 == 0)
            store_turn_end(w->store);
        if (i % 64 == 0)
            sim_run_for(w->sim, 2000);
    }
}

/* ---- the disk and memory ------------------------------------------------------------------------ */

/* Whether the place was written after the checkpoint began. */
static bool is_since(const struct checkpoint_meta *meta, uint64_t address)
{
    bool is_since = address_sequence(address) >= meta->next_sequence;

    for (unsigned i = 0; i < CHECKPOINT_CLASSES; i++)
        is_since |= address_sequence(address) == address_sequence(meta->cold_marks[i]) && address >= meta->cold_marks[i];
    return is_since;
}

/* A checkpoint while nothing changes: what it says of a key is what memory had before it or has after it, as an image may
 * be made or a value moved meanwhile, even more than once. */
static void checkpoint_and_compare(struct world *w)
{
    struct said_list before, after, said;
    struct disk_checkpoint d;

    for (unsigned i = 0; i < 1000 && (w->store->is_checkpoint_wanted || checkpoint_is_running(w->store)); i++)
        sim_run_for(w->sim, 10000); /* one that began earlier */
    before = live_list(w);
    world_checkpoint(w);
    after = live_list(w);
    disk_open(w, &d);
    said = disk_list(w, &d);
    for (size_t i = 0; i < said.count; i++) {
        const struct said *old = said_find(&before, &said.items[i]), *new = said_find(&after, &said.items[i]);

        if (new == NULL) { /* it has expired, and may have been moved before */
            assert_true(old != NULL && old->lsn == said.items[i].lsn && old->expire_ms != 0);
            continue;
        }
        assert_true((old != NULL && is_same(old, &said.items[i])) || is_same(new, &said.items[i]) ||
                    (said.items[i].lsn == new->lsn && is_since(&d.meta, said.items[i].address)));
        moved_count += old != NULL && new != NULL && old->address != new->address;
    }
    for (size_t i = 0; i < after.count; i++)
        assert_true(said_find(&said, &after.items[i]) != NULL);
    for (uint32_t i = 0; i < d.table.page_count; i++) {
        full_count += d.table.pages[i].records == 1;
        patch_count += d.table.pages[i].records > 1;
    }
    for (size_t i = 0; i < said.count; i++)
        chain_count += said.items[i].has_chain;
    disk_close(&d);
    mem_free(before.items);
    mem_free(after.items);
    mem_free(said.items);
}

/* Of keys that two lists both have, how many say another LSN; of others how many there are. */
static size_t differences(const struct said_list *a, const struct said_list *b)
{
    size_t count = 0;

    for (size_t i = 0; i < a->count; i++) {
        const struct said *other = said_find(b, &a->items[i]);

        count += other == NULL || other->lsn != a->items[i].lsn || other->expire_ms != a->items[i].expire_ms;
    }
    return count + (b->count > a->count ? b->count - a->count : 0);
}

/* A place that the checkpoint names, and that memory had, is the place after the start as well, wherever else a copy
 * lies. */
static void places_stay(struct world *w, const struct said_list *before, const struct said_list *after)
{
    struct disk_checkpoint d;
    struct said_list said;

    if (newest_slot(w).generation == 0)
        return;
    disk_open(w, &d);
    said = disk_list(w, &d);
    for (size_t i = 0; i < said.count; i++) {
        const struct said *old = said_find(before, &said.items[i]), *new = said_find(after, &said.items[i]);

        if (old != NULL && new != NULL && old->lsn == said.items[i].lsn && old->address == said.items[i].address &&
            new->address != old->address)
            assert_true(is_since(&d.meta, new->address));
    }
    disk_close(&d);
    mem_free(said.items);
}

static void restart(struct world *w, unsigned how)
{

    struct said_list before, after;

    store_turn_end(w->store); /* a key that has just expired */
    before = live_list(w);
    if (how == 0)
        world_close(w);
    else
        world_die(w, false);
    world_open(w);
    after = live_list(w);
    assert_int_equal(differences(&before, &after), 0);
    if (how != 0)
        places_stay(w, &before, &after);
    mem_free(before.items);
    mem_free(after.items);
}

/* Strings too large to get an image for a checkpoint: their chains are in it. */
static void large_live(struct world *w)
{
    uint16_t k = (uint16_t)(1 + world_random(w, 3));

    if (store_may_write(w->store, true) != 0)
        return;
    if (world_random(w, 3) == 0)
        world_set(w, 0, k, 1 + (uint32_t)world_random(w, 1000), 70000);
    for (unsigned i = 0; i < 3; i++)
        world_append(w, 0, (uint16_t)(1 + world_random(w, 3)), i + 1, 200);
}

/* Changes of everything, checkpoints, the cleaner, restarts; the many keys grow, so that pages are split. */
static void test_the_disk_says_what_memory_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(12); seed++) {
        struct world w;
        unsigned range = 300;

        world_init(&w, seed, NULL);
        w.options.segment_size = 128u << 10;
        w.options.disk_max = seed % 2 == 0 ? 96u * w.options.segment_size : 0;
        world_open(&w);
        for (unsigned round = 0; round < 14; round++) {
            world_live(&w, 20 + (unsigned)world_random(&w, 200));
            many_live(&w, (unsigned)world_random(&w, round % 4 == 3 ? 6000 : 200), range, round % 3 == 0);
            large_live(&w);
            range = MIN(range + (unsigned)world_random(&w, 1500), MANY_MAX);
            if (round % 5 == 4)
                world_flush(&w, (uint8_t)world_random(&w, 2));
            store_turn_end(w.store);
            checkpoint_and_compare(&w);
            if (world_random(&w, 3) == 0)
                restart(&w, (unsigned)world_random(&w, 2));
        }
        restart(&w, 0);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
    assert_true(patch_count > 100 && kept_count > 20 && full_count > 20 && chain_count > 10 && moved_count > 100 &&
                nameless_count > 100);
}

/* Keys whose copies a recovery does not see, while it sees where they were before. */
static unsigned seen_before_only(struct world *w)
{
    const struct checkpoint_meta *meta = &w->store->checkpoint->meta;
    const struct segment_info *first = store_log_segment_find(w->store->log, meta->hot_from);
    struct said_list live = live_list(w);
    unsigned count = 0;

    for (size_t i = 0; i < live.count && first != NULL; i++) {
        const struct segment_info *info = store_log_segment_find(w->store->log, address_sequence(live.items[i].address));

        count += info->kind == SEGMENT_COLD && info->sequence < meta->cold_from && live.items[i].lsn > first->first_lsn;
    }
    mem_free(live.items);
    return count;
}

/* The chain of a large value holds the log from far back on, where values lie that were moved since and that the newest
 * checkpoint knows at their new places. They stay there: where they were is given back one day. */
static void test_a_copy_is_not_left_for_the_original(void **state)
{
    unsigned hits = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct world w;

        world_init(&w, seed, NULL);
        w.options.segment_size = 128u << 10;
        w.options.disk_max = 15u * w.options.segment_size;
        world_open(&w);
        world_set(&w, 0, 1, 1, 70000);
        world_append(&w, 0, 1, 2, 200);
        for (uint16_t k = 2; k < 34; k++) /* so much lives beside the chain that the cleaner leaves it alone */
            world_set(&w, 0, k, k, 3500);
        for (unsigned i = 0; i < 2200; i++) {
            if (i % 16 == 0 && 34 + i / 16 < WORLD_KEYS)
                world_set(&w, 0, (uint16_t)(34 + i / 16), i + 1, 3000);
            if (store_may_write(w.store, true) == 0)
                world_set(&w, 0, 0, i + 1, 500);
            store_turn_end(w.store);
            sim_run_for(w.sim, 1000);
        }
        restart(&w, 1); /* ends the cold segment */
        world_checkpoint(&w);
        hits += seen_before_only(&w);
        restart(&w, 1);
        world_check(&w, UINT64_MAX);
        checkpoint_and_compare(&w);
        world_deinit(&w);
    }
    assert_true(hits > 5);
}

/* ---- how much is written ------------------------------------------------------------------------ */

static uint64_t checkpoint_bytes(struct world *w)
{
    const struct checkpoint *c = w->store->checkpoint;
    uint64_t before = c->file_end, file = c->file_number;

    world_checkpoint(w);
    return c->file_number == file ? c->file_end - before : c->file_end;
}

static void many_fill(struct world *w, unsigned count)
{
    for (unsigned k = 0; k < count; k++) {
        many_set(w, k, 0);
        if (k % 64 == 63) {
            store_turn_end(w->store);
            sim_run_for(w->sim, 2000);
        }
    }
    store_turn_end(w->store);
}

/* A checkpoint costs what has changed, also when keys went away, and also in the long run. */
static void test_a_checkpoint_costs_what_has_changed(void **state)
{
    struct world w;
    uint64_t full, sum = 0;

    (void)state;
    world_init(&w, 5, NULL);
    w.options.segment_size = 1u << 20;
    world_open(&w);
    many_fill(&w, 8000);
    full = checkpoint_bytes(&w);
    assert_true(full > 8000 * ENTRY_BYTES_MIN);
    many_live(&w, 80, 8000, false);
    assert_in_range(checkpoint_bytes(&w), 80 * ENTRY_BYTES_MIN, full / 20);
    for (unsigned k = 0; k < 80; k++)
        many_delete(&w, k * 100);
    assert_in_range(checkpoint_bytes(&w), 8, full / 4);
    for (unsigned i = 0; i < 100; i++) {
        many_live(&w, 80, 8000, false);
        sum += checkpoint_bytes(&w);
    }
    assert_true(sum < 10 * full);
    assert_true(checkpoint_bytes(&w) < 2 * CHECKPOINT_ALIGN); /* nothing has changed: META */
    checkpoint_and_compare(&w);
    world_deinit(&w);
}

static uint64_t checkpoint_file_size(struct world *w, uint64_t number)
{
    char path[64];

    (void)snprintf(path, sizeof(path), WORLD_DIR "/checkpoint.%llu", (unsigned long long)number);
    return (uint64_t)MAX(sim_disk_size(w->node, path, false), 0);
}

/* Room for a file of four times what all keys weigh, and for the one that takes its place, of which those that are there are
 * a part: so what is kept does not grow when one is made anew. */
static void test_what_checkpoints_may_come_to_want(void **state)
{
    struct world w;
    uint64_t full, number = 0;
    unsigned both = 0;

    (void)state;
    world_init(&w, 6, NULL);
    w.options.segment_size = 1u << 20;
    world_open(&w);
    many_fill(&w, 8000);
    assert_in_range(checkpoint_room(w.store), 5 * 8000 * ENTRY_BYTES_MIN, 5 * 8000 * 80);
    full = checkpoint_bytes(&w);
    for (unsigned i = 0; i < 150; i++) {
        const struct checkpoint *c = w.store->checkpoint;
        uint64_t files = checkpoint_file_size(&w, c->file_number) + checkpoint_file_size(&w, c->file_number - 1);

        both += number != 0 && c->file_number != number;
        number = c->file_number;
        assert_in_range(files + checkpoint_room(w.store), 5 * full, 5 * full + (768u << 10));
        many_live(&w, 1000, 8000, false);
        MAYBE(checkpoint_bytes(&w));
    }
    assert_true(both > 1);
    world_deinit(&w);
}

/* ---- damage ------------------------------------------------------------------------------------- */

struct disk_choice {
    struct world *w;
    uint64_t seen, off;
    uint32_t len, page;
};

/* Any of them, as likely as the others. */
static void disk_choose(void *arg, uint64_t off, struct checkpoint_record *record)
{
    struct disk_choice *choice = arg;

    if (world_random(choice->w, ++choice->seen) != 0)
        return;
    choice->off = off;
    choice->len = record->len;
    choice->page = record->page;
}

/* A bit flips in any of the records that a page is made of: the start is refused, whatever the others say. */
static void test_a_damaged_record_is_refused(void **state)
{
    unsigned of_many = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(4); seed++) {
        struct world w;
        struct disk_checkpoint d;

        world_init(&w, seed, NULL);
        world_open(&w);
        many_live(&w, 5000, 5000, false);
        for (unsigned i = 0; i < 5; i++) {
            many_live(&w, 50, 5000, i % 2 == 0);
            world_live(&w, 30);
            world_checkpoint(&w);
        }
        world_close(&w);
        disk_open(&w, &d);
        for (uint32_t i = 0; i < 20; i++) {
            struct disk_choice choice = {.w = &w};
            unsigned bit = (unsigned)world_random(&w, 8);
            uint64_t at;

            disk_each(&w, &d, disk_choose, &choice);
            at = choice.off + world_random(&w, choice.len);
            of_many += d.table.pages[choice.page].records > 1;
            sim_disk_flip_bit(w.node, d.path, at, bit);
            assert_int_equal(world_try_open(&w), ERR_CORRUPT);
            world_give_up(&w);
            sim_disk_flip_bit(w.node, d.path, at, bit);
        }
        disk_close(&d);
        world_open(&w);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
    assert_true(of_many > world_times(4) * 10);
}

/* ---- versions ----------------------------------------------------------------------------------- */

/* META of this version, in the place of the newest one. */
static void meta_put(struct world *w, struct disk_checkpoint *d, const struct buffer *meta)
{
    char page[4096] = {0};

    d->slot.meta_len = meta->len;
    d->slot.meta_hash = checkpoint_hash(meta->data, meta->len, CHECKPOINT_VERSION);
    checkpoint_slot_seal(&d->slot);
    memcpy(page, &d->slot, sizeof(d->slot));
    sim_disk_overwrite(w->node, d->path, d->slot.meta_off, buffer_bytes(meta));
    sim_disk_overwrite(w->node, WORLD_DIR "/MANIFEST", d->place * 4096u, bytes_of(page, sizeof(page)));
}

/* A record as it was before version 3. */
static void old_record(struct buffer *out, const struct checkpoint_page_header *header, const struct said_list *keys,
                       const struct said_list *kept)
{
    size_t start = out->len;
    struct checkpoint_page_header head = *header;

    buffer_append(out, header, sizeof(*header));
    for (size_t i = 0; i < keys->count; i++) {
        const struct said *said = &keys->items[i];
        struct checkpoint_entry entry = {
            .address = said->address, .lsn_low = (uint32_t)said->lsn, .lsn_high = (uint16_t)(said->lsn >> 32),
            .type = said->type, .db = said->db, .value_len = said->value_len, .key_len = (uint16_t)strlen(said->name),
            .flags = (uint8_t)((said->expire_ms != 0 ? CHECKPOINT_ENTRY_EXPIRES : 0) |
                               (said->has_chain ? CHECKPOINT_ENTRY_CHAIN : 0)),
        };

        buffer_append(out, &entry, sizeof(entry));
        if (said->expire_ms != 0)
            buffer_append(out, &said->expire_ms, 8);
        if (said->has_chain) {
            buffer_append(out, &said->base_lsn, 8);
            buffer_append(out, &said->image_lsn, 8);
        }
        buffer_append_string(out, said->name);
    }
    for (size_t i = 0; i < kept->count; i++)
        buffer_append(out, &kept->items[i].lsn, 8);
    head.entries = (uint32_t)keys->count;
    head.len = (uint32_t)(out->len - start);
    head.kept = header->version == 2 && kept->count > 0 ? (uint32_t)kept->count : 0;
    memcpy(out->data + start, &head, sizeof(head));
    head.hash = checkpoint_page_hash(out->data + start, head.len);
    memcpy(out->data + start, &head, sizeof(head));
}

struct old_pages {
    struct said_list lists[64];
    uint64_t lsns[64];
};

static void old_pages_each(void *arg, uint64_t off, struct checkpoint_record *record)
{
    struct old_pages *pages = arg;

    MAYBE(off);
    assert_true(record->page < 64);
    pages->lsns[record->page] = record->lsn;
    disk_record(&pages->lists[record->page], record);
}

/* A page's records: all of it, or (version 3) without the last keys, then those, while the others stay. */
static void old_page(struct buffer *file, struct buffer *rows, struct buffer *records, const struct disk_checkpoint *d,
                     const struct said_list *list, uint32_t page, uint32_t version)
{
    size_t last = version == 3 ? list->count / 3 : 0;
    struct said_list first = {.items = list->items, .count = list->count - last}, none = {0};
    struct said_list rest = {.items = list->items + first.count, .count = last};
    uint64_t lsn = checkpoint_table_lsn(&d->table, page), zero = 0;
    uint32_t count = last > 0 ? 2 : 1, keys = (uint32_t)list->count, number = (uint32_t)(records->len / 32);
    struct checkpoint_page_header header = {
        .magic = CHECKPOINT_MAGIC_PAGE, .version = version == 3 ? 2 : 1, .bits = (uint16_t)d->meta.bits, .page = page,
        .lsn = lsn,
    };

    for (uint32_t i = 0; i < count; i++) {
        uint64_t off = file->len;
        uint32_t len, entries = (uint32_t)(i == 0 ? first.count : rest.count);

        old_record(file, &header, i == 0 ? &first : &rest, i == 0 ? &none : &first);
        len = (uint32_t)(file->len - off);
        buffer_append(records, &off, 8);
        if (version == 3)
            buffer_append(records, &lsn, 8);
        buffer_append(records, &len, 4);
        buffer_append(records, &entries, 4);
        if (version == 3) {
            buffer_append(records, &page, 4);
            buffer_append(records, &zero, 4);
        } else {
            buffer_append(records, &lsn, 8);
            buffer_append(records, &d->table.pages[page].chain_sequence, 8);
        }
    }
    buffer_append(rows, &d->table.pages[page].chain_sequence, 8);
    buffer_append(rows, &keys, 4);
    buffer_append(rows, &number, 4);
    buffer_append(rows, &count, 4);
    buffer_append(rows, &keys, 4);
}

/* What a program of then would have written. */
static void make_old(struct world *w, uint32_t version)
{
    struct disk_checkpoint d;
    struct buffer file = {0}, meta = {0}, rows = {0}, records = {0};
    struct old_pages pages = {0};

    disk_open(w, &d);
    disk_each(w, &d, old_pages_each, &pages);
    for (uint32_t i = 0; i < d.table.page_count; i++) {
        struct said_list *list = &pages.lists[i];
        size_t left = 0;

        for (size_t k = 0; k < list->count; k++)
            if (list->items[k].lsn >= d.meta.flush_lsn[list->items[k].db])
                list->items[left++] = list->items[k];
        list->count = left;
        old_page(&file, &rows, &records, &d, list, i, version);
        mem_free(list->items);
    }
    d.meta.version = version;
    d.meta.rows = version < 3 ? 0 : (uint32_t)(records.len / 32);
    buffer_append(&meta, &d.meta, version == 1 ? 64 + 8 * STORE_DBS : version == 2 ? 64 + 8 * STORE_DBS + 24 : sizeof(d.meta));
    if (version == 3)
        buffer_append(&meta, rows.data, rows.len);
    buffer_append(&meta, records.data, records.len);
    d.slot.meta_off = file.len;
    buffer_append(&file, meta.data, meta.len);
    sim_disk_put(w->node, d.path, buffer_bytes(&file));
    meta_put(w, &d, &meta);
    buffer_deinit(&file);
    buffer_deinit(&meta);
    buffer_deinit(&rows);
    buffer_deinit(&records);
    disk_close(&d);
}

static void test_older_versions_are_read(void **state)
{
    (void)state;
    for (uint32_t version = 1; version < CHECKPOINT_META_VERSION; version++) {
        struct world w;

        world_init(&w, version, NULL);
        world_open(&w);
        for (unsigned i = 0; i < 300; i++)
            world_set(&w, 0, (uint16_t)world_random(&w, WORLD_KEYS), i + 1, 100);
        for (unsigned i = 0; i < 50; i++)
            world_field(&w, 0, (uint16_t)world_random(&w, WORLD_KEYS), (uint8_t)(i % WORLD_FIELDS), i);
        many_live(&w, 5000, 5000, true);
        world_close(&w);
        make_old(&w, version);
        world_open(&w);
        world_check(&w, UINT64_MAX);
        world_live(&w, 100);
        checkpoint_and_compare(&w);
        many_live(&w, 100, 5000, true);
        checkpoint_and_compare(&w);
        restart(&w, 0);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
}

/* Not even if the other slot would do: the start is refused, and says why. */
static void test_a_newer_version_is_refused(void **state)
{
    struct world w;
    struct disk_checkpoint d;
    struct buffer meta = {0};

    (void)state;
    world_init(&w, 9, NULL);
    world_open(&w);
    world_live(&w, 50);
    world_checkpoint(&w);
    world_close(&w);
    disk_open(&w, &d);
    d.meta.version = CHECKPOINT_META_VERSION + 1;
    buffer_append(&meta, &d.meta, sizeof(d.meta));
    meta_put(&w, &d, &meta);
    assert_int_equal(world_try_open(&w), ERR_UNSUPPORTED);
    world_give_up(&w);
    buffer_deinit(&meta);
    disk_close(&d);
    world_deinit(&w);
}

/* ---- a full disk -------------------------------------------------------------------------------- */

static int big_put(struct world *w, unsigned k, unsigned seed)
{
    char name[32], value[2000];
    struct store_key key;
    int err = store_may_write(w->store, sizeof(value));

    if (err == 0) {
        world_fill(value, sizeof(value), seed);
        store_find(w->store, MANY_DB, world_other_key(k, name), &key);
        err = store_put_string(w->store, &key, bytes_of(value, sizeof(value)), NULL);
    }
    store_turn_end(w->store);
    sim_run_for(w->sim, err == 0 ? 1000 : 20000);
    return err;
}

/* The file system has no byte left: no checkpoint fits, without which nothing is freed. Once something was deleted, service
 * goes on all the same, for as long as one likes, and what is there is found again. */
static void test_a_checkpoint_gets_room_on_a_full_disk(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++) {
        struct world w;
        unsigned count = 0;

        world_init(&w, seed, NULL);
        w.options.segment_size = 512u << 10;
        world_open(&w);
        if (seed != 1)
            world_checkpoint(&w);
        sim_disk_capacity_set(w.node, sim_disk_used(w.node) + 16 * w.options.segment_size);
        for (int err = 0; err != -ENOSPC; count += err == 0)
            err = big_put(&w, count, count);
        sim_run_for(w.sim, 5000000);
        sim_disk_capacity_set(w.node, sim_disk_used(w.node));
        for (unsigned k = 0; k < count; k++)
            if (k % 4 != 0 || k > count / 2)
                many_delete(&w, k);
        store_turn_end(w.store);
        sim_run_for(w.sim, 20000000);
        for (unsigned i = 0; i < 20000; i++) {
            unsigned tries = 0;

            while (big_put(&w, count + i % 500, i) != 0)
                assert_true(++tries < 1000);
        }
        checkpoint_and_compare(&w);
        restart(&w, seed % 2);
        assert_true(store_count(w.store, MANY_DB) > 500);
        world_deinit(&w);
    }
}

static unsigned encode_count;
static struct store_log *failing; /* it fails when the first image is made; NULL: it does not */

static void encode_counted(const struct object *object, struct buffer *out)
{
    encode_count++;
    if (failing != NULL)
        failing->error = -EIO;
    hash_ops.encode(object, out);
}

/* A hash with one field of 20,000 bytes, and a chain. */
static void hash_put(struct world *w, unsigned k)
{
    char name[32], *value = must_alloc(20000);
    struct bytes field = BYTES("field");
    struct store_key key;
    struct object *object;
    bool is_new;

    world_fill(value, 20000, k);
    store_find(w->store, MANY_DB, world_other_key(k, name), &key);
    object = store_object_open(w->store, &key, STORE_HASH, true);
    assert_int_equal(hash_set(object, field, bytes_of(value, 20000), &is_new), 0);
    effect_begin(store_effects(w->store), HASH_EFFECT_SET, 2);
    effect_bytes(store_effects(w->store), field);
    effect_bytes(store_effects(w->store), bytes_of(value, 20000));
    assert_int_equal(store_change(w->store, &key), 0);
    store_turn_end(w->store);
    sim_run_for(w->sim, 5000);
    mem_free(value);
}

/* The log has failed when the pages of a checkpoint are about to be written: the images that it wants are refused, and not
 * made again and again. */
static void test_images_that_are_refused_are_not_made_again(void **state)
{
    enum { OBJECTS = 300 };
    struct object_ops ops = hash_ops;
    struct world w;

    (void)state;
    ops.encode = encode_counted;
    world_init(&w, 1, NULL);
    w.options.types[STORE_HASH] = &ops;
    world_open(&w);
    for (unsigned k = 0; k < OBJECTS; k++)
        hash_put(&w, k);
    sim_run_for(w.sim, 1000000);
    encode_count = 0;
    failing = w.store->log;
    MAYBE(store_checkpoint(w.store));
    sim_run_for(w.sim, 60000000);
    failing = NULL;
    assert_int_equal(w.store->checkpoint->state, CHECKPOINT_IDLE);
    assert_in_range(encode_count, 1, OBJECTS);
    w.counts_lie = true;
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_disk_says_what_memory_does),
        cmocka_unit_test(test_a_copy_is_not_left_for_the_original),
        cmocka_unit_test(test_a_checkpoint_costs_what_has_changed),
        cmocka_unit_test(test_what_checkpoints_may_come_to_want),
        cmocka_unit_test(test_a_damaged_record_is_refused),
        cmocka_unit_test(test_older_versions_are_read),
        cmocka_unit_test(test_a_newer_version_is_refused),
        cmocka_unit_test(test_a_checkpoint_gets_room_on_a_full_disk),
        cmocka_unit_test(test_images_that_are_refused_are_not_made_again),
    };

    return cmocka_run_group_tests_name("store_checkpoint", tests, NULL, NULL);
}
