/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a checkpoint at start.
 *
 *     MANIFEST -> the newer slot whose META verifies -> all its pages, in the order of the file, read ahead
 *
 * If the newer slot's META does not verify the older one is tried; whether the log still has what that one
 * needs is seen in the end (K5). A page that does not verify is corruption: nothing is guessed, the start is refused
 * with file and offset.
 */
#include "backend/store/checkpoint_private.h"

#include "common/base/mem.h"

#include <stdlib.h>

#define READ_SIZE   (2u << 20)
#define READ_AHEAD  3u

struct load_read {
    struct io_op op;
    struct store *store;
    struct buffer bytes;
    uint32_t first, count; /* rows of `order` that it has */
    uint64_t off;
};

struct checkpoint_load {
    void (*done)(struct store *store, int err);
    struct checkpoint_slot slots[2];
    unsigned slot;       /* the one being tried */
    unsigned tried;
    char *meta;          /* owns */
    uint32_t *order;     /* owns: page numbers by offset */
    uint32_t next, reads_under_way;
    struct load_read reads[READ_AHEAD];
    int err;
};

static void load_end(struct store *store, int err)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;
    void (*done)(struct store *, int) = load->done;

    for (unsigned i = 0; i < READ_AHEAD; i++)
        buffer_deinit(&load->reads[i].bytes);
    mem_free(load->meta);
    mem_free(load->order);
    mem_free(load);
    c->load = NULL;
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

static void load_more(struct store *store, struct load_read *read);

static void pages_read(struct io_op *op)
{
    struct load_read *read = op->arg;
    struct store *store = read->store;
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;

    load->reads_under_way--;
    if (op->result < 0 && load->err == 0) {
        load_corrupt(store, read->off, "it cannot be read");
        load->err = (int)op->result;
    }
    for (uint32_t i = 0; i < read->count && load->err == 0; i++) {
        uint32_t page = load->order[read->first + i];
        const struct checkpoint_page *row = &c->pages[page];

        load->err = checkpoint_page_parse(store, row, c->meta.bits, page,
                                          bytes_of(read->bytes.data + (row->off - read->off), row->len));
        if (load->err == ERR_CORRUPT)
            load_corrupt(store, row->off, "a page");
    }
    load_more(store, read);
}

static void load_more(struct store *store, struct load_read *read)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_load *load = c->load;
    uint64_t end;

    if (load->err != 0 || load->next == c->meta.page_count) {
        if (load->reads_under_way == 0)
            load_end(store, load->err);
        return;
    }
    read->first = load->next;
    read->off = c->pages[load->order[load->next]].off;
    end = read->off;
    while (load->next < c->meta.page_count) {
        const struct checkpoint_page *row = &c->pages[load->order[load->next]];

        /* At least one; not over a gap of pages that are out of date. */
        if (load->next > read->first && (row->off + row->len - read->off > READ_SIZE || row->off > end + 65536))
            break;
        end = MAX(end, row->off + row->len);
        load->next++;
    }
    read->count = load->next - read->first;
    buffer_clear(&read->bytes);
    if (buffer_reserve(&read->bytes, end - read->off) == NULL) {
        load->err = ERR_FULL;
        load_more(store, read);
        return;
    }
    load->reads_under_way++;
    read->op.done = pages_read;
    read->op.arg = read;
    read->store = store;
    io_file_read(c->file, &read->op, read->bytes.data, end - read->off, read->off);
}

struct order_row {
    uint64_t off;
    uint32_t page;
};

static int order_compare(const void *a, const void *b)
{
    uint64_t left = ((const struct order_row *)a)->off, right = ((const struct order_row *)b)->off;

    return left < right ? -1 : left > right;
}

static int pages_order(struct checkpoint *c)
{
    struct order_row *rows = mem_alloc(sizeof(*rows) * c->meta.page_count);

    c->load->order = mem_alloc(sizeof(uint32_t) * c->meta.page_count);
    if (rows == NULL || c->load->order == NULL) {
        mem_free(rows);
        return ERR_FULL;
    }
    for (uint32_t i = 0; i < c->meta.page_count; i++)
        rows[i] = (struct order_row){c->pages[i].off, i};
    qsort(rows, c->meta.page_count, sizeof(*rows), order_compare);
    for (uint32_t i = 0; i < c->meta.page_count; i++)
        c->load->order[i] = rows[i].page;
    mem_free(rows);
    return 0;
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
    size_t head, table;

    if (!checkpoint_meta_is_valid(slot, data))
        return ERR_CORRUPT;
    head = checkpoint_meta_take(data, &c->meta);
    table = slot->meta_len - head;
    c->pages = mem_alloc(table);
    c->dirty = mem_realloc(c->dirty, ((((size_t)1 << c->meta.bits) / 64) + 1) * 8);
    if (c->pages == NULL || c->dirty == NULL)
        return ERR_FULL;
    memset(c->dirty, 0, ((((size_t)1 << c->meta.bits) / 64) + 1) * 8);
    memcpy(c->pages, data + head, table);
    c->live_next = 0;
    for (uint32_t i = 0; i < c->meta.page_count; i++) {
        if (c->pages[i].len < CHECKPOINT_PAGE_HEADER || c->pages[i].off + c->pages[i].len > slot->meta_off)
            return ERR_CORRUPT;
        c->live_next += c->pages[i].len;
    }
    c->bits = c->meta.bits;
    c->generation = slot->generation;
    c->lsns[slot->generation % 2] = c->meta.lsn;
    c->file_number = c->next_file = slot->file;
    c->next_end = slot->meta_off + slot->meta_len;
    if (!store_places_set(store, c->meta.places, c->meta.swap_lsn))
        return ERR_CORRUPT;
    return pages_order(c);
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
    if (err != 0) {
        load_corrupt(store, slot->meta_off, "META");
        mem_free(c->pages);
        c->pages = NULL;
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
    /* Each read goes on by itself; the last one ends it. The first keeps the others from ending too early. */
    load->reads_under_way++;
    for (unsigned i = 1; i < READ_AHEAD; i++)
        if (load->next < c->meta.page_count)
            load_more(store, &load->reads[i]);
    load->reads_under_way--;
    load_more(store, &load->reads[0]);
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
