/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a checkpoint at start.
 *
 *     MANIFEST -> the newer slot whose META verifies -> the extents that it names, in the order of the file, read ahead
 *
 * The records in them lie in the order in which they were written, so each mends what those before it have left
 * (K1); only one file is read, from its start to its end. What a record names may have been given back since: whether
 * that matters is known when the log has been read, too.
 *
 * If the newer slot's META does not verify the older one is tried; whether the log still has what that one
 * needs is seen in the end (K5). A record that does not verify is corruption: nothing is guessed, the start is refused
 * with file and offset. So is one that a newer version wrote, whatever the other slot says.
 */
#include "backend/store/checkpoint_private.h"

#include "common/base/mem.h"

#define READ_SIZE   (2u << 20)
#define READ_AHEAD  3u
#define READ_GAP    65536u /* of records that are out of date: a longer one is not read */

struct load_read {
    struct io_op op;
    struct store *store;
    struct buffer bytes;
    uint32_t first, count; /* extents that it has */
    uint64_t off;
    bool is_done;
};

struct checkpoint_load {
    void (*done)(struct store *store, int err);
    struct checkpoint_slot slots[2];
    unsigned slot;       /* the one being tried */
    unsigned tried;
    char *meta;          /* owns */
    struct checkpoint_page_load *pages; /* owns */
    uint32_t next;       /* extent, to be read next */
    uint32_t reads_under_way;
    unsigned oldest;     /* of `reads`: they are applied in turn */
    struct load_read reads[READ_AHEAD];
    int err;
};

void checkpoint_load_free(struct checkpoint *c)
{
    struct checkpoint_load *load = c->load;

    if (load == NULL)
        return;
    for (unsigned i = 0; i < READ_AHEAD; i++)
        buffer_deinit(&load->reads[i].bytes);
    mem_free(load->meta);
    mem_free(load->pages);
    mem_free(load);
    c->load = NULL;
}

static void load_end(struct store *store, int err)
{
    struct checkpoint *c = store->checkpoint;
    void (*done)(struct store *, int) = c->load->done;

    checkpoint_load_free(c);
    buffer_deinit(&c->kept);
    buffer_deinit(&c->moved);
    checkpoint_bits_clear(c); /* it is as it was written */
    done(store, err);
}

static void load_corrupt(struct store *store, uint64_t off, const char *what)
{
    char path[CHECKPOINT_PATH_MAX];

    checkpoint_path(store, store->checkpoint->load->slots[store->checkpoint->load->slot].file, path);
    log_error(store->text_log, "store: the checkpoint does not verify shard=%u file=%s offset=%llu what=\"%s\"",
              store->options.shard, path, (unsigned long long)off, what);
    store->stats.corrupt_records++;
}

/* ---- pages ------------------------------------------------------------------------------------ */

/* The page has all of its records, which are those that META means (K8). Its keys are those that it had then. A flush since
 * may have taken some. Where the segment is gone, the log must tell of another place, or of a later change (replay.c, Y6). */
static int page_check(struct store *store, uint32_t page)
{
    const struct checkpoint *c = store->checkpoint;
    const struct checkpoint_page_load *load = &c->load->pages[page];
    uint32_t sum = c->table.pages[page].sum;
    uint64_t lsn = checkpoint_table_lsn(&c->table, page);
    bool is_flushed = false;

    store->has_places_gone |= load->missing > 0;
    for (unsigned db = 0; db < STORE_DBS; db++)
        is_flushed |= store->flush_lsn[db] > lsn;
    if (load->lsn != lsn || (sum != 0 && load->sum != sum))
        return ERR_CORRUPT;
    return is_flushed || load->keys == c->table.pages[page].keys ? 0 : ERR_CORRUPT;
}

/* Its records, one after the other. */
static void extent_apply(struct store *store, const struct load_read *read, const struct checkpoint_extent *extent)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;
    struct bytes cursor = bytes_of(read->bytes.data + (extent->off - read->off), extent->len);

    while (cursor.len > 0 && load->err == 0) {
        uint64_t off = extent->off + extent->len - cursor.len;
        struct checkpoint_record record;

        load->err = checkpoint_record_take(&cursor, c->meta.bits, &record)
                        ? checkpoint_record_apply(store, &record, &load->pages[record.page]) : ERR_CORRUPT;
        if (load->err == 0 && load->pages[record.page].records == c->table.pages[record.page].records)
            load->err = page_check(store, record.page);
        if (load->err == ERR_CORRUPT)
            load_corrupt(store, off, "a page");
    }
}

/* All extents were there, but they may not have all records. */
static void pages_check(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;

    for (uint32_t i = 0; i < c->table.page_count && load->err == 0; i++) {
        if (load->pages[i].records == c->table.pages[i].records)
            continue;
        load->err = ERR_CORRUPT;
        load_corrupt(store, load->slots[load->slot].meta_off, "the records of a page");
    }
}

static void read_start(struct store *store, struct load_read *read);

/* Applies what has come, in order, and reads on. The last one ends it. */
static void load_step(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;

    for (struct load_read *read; (read = &load->reads[load->oldest])->is_done; load->oldest = (load->oldest + 1) % READ_AHEAD) {
        for (uint32_t i = 0; i < read->count && load->err == 0; i++)
            extent_apply(store, read, &c->table.extents[read->first + i]);
        read->is_done = false;
        read_start(store, read);
    }
    if (load->reads_under_way > 0)
        return;
    pages_check(store);
    load_end(store, load->err);
}

static void record_read(struct io_op *op)
{
    struct load_read *read = op->arg;
    struct store *store = read->store;
    struct checkpoint_load *load = store->checkpoint->load;

    load->reads_under_way--;
    read->is_done = true;
    if (op->result < 0 && load->err == 0) {
        load_corrupt(store, read->off, "it cannot be read");
        load->err = (int)op->result;
    }
    load_step(store);
}

/* The next extents, unless there are none. */
static void read_start(struct store *store, struct load_read *read)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;
    uint64_t end;

    if (load->err != 0 || load->next == c->table.extent_count)
        return;
    read->first = load->next;
    read->off = end = c->table.extents[load->next].off;
    while (load->next < c->table.extent_count) {
        const struct checkpoint_extent *extent = &c->table.extents[load->next];

        if (load->next > read->first && (extent->off + extent->len - read->off > READ_SIZE || extent->off > end + READ_GAP))
            break;
        end = extent->off + extent->len;
        load->next++;
    }
    read->count = load->next - read->first;
    buffer_clear(&read->bytes);
    if (buffer_reserve(&read->bytes, end - read->off) == NULL) {
        load->err = ERR_FULL;
        return;
    }
    load->reads_under_way++;
    read->op.done = record_read;
    read->op.arg = read;
    read->store = store;
    io_file_read(c->file, &read->op, read->bytes.data, end - read->off, read->off);
}

/* ---- META ------------------------------------------------------------------------------------- */

static void slot_try(struct store *store);

static void slot_failed(struct store *store)
{
    struct checkpoint *c = store->checkpoint;

    if (c->file != NULL)
        io_file_close(c->file);
    c->file = NULL;
    slot_try(store);
}

static int meta_accept(struct store *store, const struct checkpoint_slot *slot, const char *data)
{
    struct checkpoint *c = store->checkpoint;
    int err = checkpoint_meta_take(slot, data, &c->meta, &c->table);

    if (err != 0)
        return err;
    if (!checkpoint_bits_make(c, c->meta.bits))
        return ERR_FULL;
    c->generation = slot->generation;
    c->lsns[slot->generation % 2] = c->meta.lsn;
    c->file_number = slot->file;
    c->file_end = slot->meta_off + slot->meta_len;
    if (!store_places_set(store, c->meta.places, c->meta.swap_lsn))
        return ERR_CORRUPT;
    c->load->pages = mem_zalloc(sizeof(*c->load->pages) * c->table.page_count);
    return c->load->pages == NULL ? ERR_FULL : 0;
}

static void load_newer(struct store *store, uint64_t off)
{
    load_corrupt(store, off, "a newer version of this program wrote it");
    load_end(store, ERR_UNSUPPORTED);
}

static void meta_read(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;
    const struct checkpoint_slot *slot = &load->slots[load->slot];
    int err = op->result < 0 ? (int)op->result : meta_accept(store, slot, load->meta);

    if (err == ERR_FULL) {
        load_end(store, err);
        return;
    }
    if (err == ERR_UNSUPPORTED) {
        load_newer(store, slot->meta_off);
        return;
    }
    if (err != 0) {
        load_corrupt(store, slot->meta_off, "META");
        checkpoint_table_free(&c->table);
        c->generation = 0;
        slot_failed(store);
        return;
    }
    memcpy(store->flush_lsn, c->meta.flush_lsn, sizeof(store->flush_lsn));
    store_now_set(store, c->meta.wall_ms); /* S8 */
    store->stats.checkpoint_lsn = c->meta.lsn;
    if (index_reserve(store->index, c->meta.keys) != 0) {
        load_end(store, ERR_FULL);
        return;
    }
    for (unsigned i = 0; i < READ_AHEAD; i++)
        read_start(store, &load->reads[i]);
    load_step(store);
}

static void data_opened_to_load(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint_load *load = store->checkpoint->load;
    const struct checkpoint_slot *slot = &load->slots[load->slot];

    if (op->result < 0) {
        store->checkpoint->file = NULL;
        load_corrupt(store, 0, "the file cannot be opened");
        slot_failed(store);
        return;
    }
    mem_free(load->meta);
    load->meta = mem_alloc(slot->meta_len);
    if (load->meta == NULL) {
        load_end(store, ERR_FULL);
        return;
    }
    op->done = meta_read;
    io_file_read(store->checkpoint->file, op, load->meta, slot->meta_len, slot->meta_off);
}

/* The newest slot that was not tried yet. */
static void slot_try(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;
    uint64_t generations[2];
    char path[CHECKPOINT_PATH_MAX];

    for (unsigned i = 0; i < 2; i++)
        generations[i] = (load->tried & 1u << i) ? 0 : load->slots[i].generation;
    if (generations[0] == 0 && generations[1] == 0) {
        load_end(store, load->slots[0].generation != 0 || load->slots[1].generation != 0 ? ERR_CORRUPT : 0);
        return;
    }
    load->slot = generations[1] > generations[0];
    load->tried |= 1u << load->slot;
    c->op.done = data_opened_to_load;
    checkpoint_path(store, load->slots[load->slot].file, path);
    io_file_open(store->io, &c->op, path, IO_FILE_READ | IO_FILE_WRITE, &c->file);
}

/* ---- MANIFEST --------------------------------------------------------------------------------- */

static void slot_check(struct checkpoint *c, unsigned i, const char *data)
{
    struct checkpoint_slot *slot = &c->load->slots[i];

    memcpy(slot, data, sizeof(*slot));
    if (!checkpoint_slot_is_valid(slot, i))
        *slot = (struct checkpoint_slot){0};
    else
        c->durable_lsn = MAX(c->durable_lsn, checkpoint_slot_durable(slot)); /* K5 */
    c->file_numbers[i] = slot->file;
}

static void manifest_slot_read(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;

    /* Too short: it was made and never written. The other slot may be there. */
    if (op->result >= 0)
        slot_check(c, c->load->slot, c->slot);
    else if (op->result != ERR_EOF) {
        load_end(store, (int)op->result);
        return;
    }
    if (++c->load->slot < 2) {
        io_file_read(c->manifest, op, c->slot, CHECKPOINT_SLOT_SIZE, CHECKPOINT_SLOT_SIZE);
        return;
    }
    slot_try(store);
}

static void manifest_seen_durable(struct io_op *op)
{
    struct store *store = op->arg;

    if (op->result < 0) {
        load_end(store, (int)op->result);
        return;
    }
    op->done = manifest_slot_read;
    io_file_read(store->checkpoint->manifest, op, store->checkpoint->slot, CHECKPOINT_SLOT_SIZE, 0);
}

/* What a killed predecessor wrote last may be seen and not be durable yet: the next checkpoint would be written over the
 * only one that is. */
static void manifest_opened_to_load(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;

    if (op->result < 0) {
        c->manifest = NULL;
        load_end(store, op->result == -ENOENT ? 0 : (int)op->result);
        return;
    }
    op->done = manifest_seen_durable;
    io_file_datasync(c->manifest, op);
}

void checkpoint_load(struct store *store, void (*done)(struct store *store, int err))
{
    struct checkpoint *c = store->checkpoint;
    char path[CHECKPOINT_PATH_MAX];

    c->load = must_zalloc(sizeof(*c->load));
    c->load->done = done;
    c->op.done = manifest_opened_to_load;
    c->op.arg = store;
    checkpoint_path(store, 0, path);
    io_file_open(store->io, &c->op, path, IO_FILE_READ | IO_FILE_WRITE, &c->manifest);
}
