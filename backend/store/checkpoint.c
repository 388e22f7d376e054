/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing checkpoints, a page at a time between commands.
 *
 *     IDLE -> OPENING -> PAGES (a page a step) -> META -> FLUSHING (data file, log) -> MANIFEST -> ENDING -> IDLE
 *
 * The pages are not of one moment: each is true at its own LSN, and replay mends the rest. So nothing is
 * copied, forked or stopped. An object whose chain is not empty gets an image before its page is written,
 * if that is cheap; a large one keeps its chain, and the log from the chain's first delta on is kept for it.
 */
#include "backend/store/checkpoint_private.h"

#include "common/base/mem.h"

#define BUFFER_SIZE        (1u << 20)
#define IMAGE_CHEAP_BYTES  (64u << 10)
#define IMAGE_BUDGET_BYTES (256u << 10) /* a step */
#define PAGE_PASSES_MAX    64u
#define PAGE_KEYS_WANTED   2048u
#define DUE_BYTES_MIN      (1ull << 30)
#define CHAIN_AGE_MAX      16u /* segments: an older chain gets its image whatever it costs */

/* ---- what is dirty ---------------------------------------------------------------------------- */

static size_t dirty_words(unsigned bits)
{
    return ((size_t)1 << bits) / 64 + 1;
}

void checkpoint_mark(struct store *store, uint64_t hash)
{
    struct checkpoint *c = store->checkpoint;
    uint64_t page = hash & ((1ull << c->bits) - 1);

    c->dirty[page / 64] |= 1ull << (page % 64);
}

static bool dirty_take(struct checkpoint *c, uint32_t page)
{
    uint64_t bit = 1ull << (page % 64);
    bool was = (c->dirty[page / 64] & bit) != 0;

    c->dirty[page / 64] &= ~bit;
    return was;
}

/* ---- life ------------------------------------------------------------------------------------- */

int checkpoint_create(struct store *store)
{
    struct checkpoint *c = mem_zalloc(sizeof(*c));

    if (c == NULL)
        return ERR_FULL;
    c->dirty = mem_zalloc(dirty_words(0) * 8);
    c->slot = mem_alloc_aligned(CHECKPOINT_SLOT_SIZE, CHECKPOINT_SLOT_SIZE);
    for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
        c->buffers[i].store = store;
    if (c->dirty == NULL || c->slot == NULL) {
        mem_free(c->dirty);
        mem_free(c->slot);
        mem_free(c);
        return ERR_FULL;
    }
    store->checkpoint = c;
    return 0;
}

void checkpoint_destroy(struct store *store)
{
    struct checkpoint *c = store->checkpoint;

    if (c == NULL)
        return;
    if (c->file != NULL)
        io_file_close(c->file);
    if (c->manifest != NULL)
        io_file_close(c->manifest);
    for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
        buffer_deinit(&c->buffers[i].bytes);
    mem_free(c->pages);
    mem_free(c->next_pages);
    mem_free(c->dirty);
    mem_free(c->slot);
    mem_free(c);
    store->checkpoint = NULL;
}

uint64_t checkpoint_hot_from(const struct store *store)
{
    return store->checkpoint->generation == 0 ? 0 : store->checkpoint->meta.hot_from;
}

uint64_t checkpoint_cold_from(const struct store *store)
{
    return store->checkpoint->generation == 0 ? 0 : store->checkpoint->meta.cold_from;
}

uint64_t checkpoint_lsn(const struct store *store)
{
    return store->checkpoint->generation == 0 ? 0 : store->checkpoint->meta.lsn;
}

uint64_t checkpoint_durable_lsn(const struct store *store)
{
    return store->checkpoint->durable_lsn;
}

uint32_t checkpoint_epoch(const struct store *store)
{
    return store->checkpoint->generation == 0 ? 0 : store->checkpoint->meta.epoch;
}

uint64_t checkpoint_page_lsn(const struct store *store, uint64_t hash)
{
    const struct checkpoint *c = store->checkpoint;

    if (c->generation == 0)
        return 0;
    /* An unchanged page is true at the checkpoint's LSN as well (K4). */
    return MAX(c->pages[hash & ((1ull << c->meta.bits) - 1)].lsn, c->meta.lsn);
}

uint64_t checkpoint_horizon(const struct store *store)
{
    return MIN(store->checkpoint->lsns[0], store->checkpoint->lsns[1]);
}

bool checkpoint_is_running(const struct store *store)
{
    return store->checkpoint->state != CHECKPOINT_IDLE;
}

static uint64_t hot_bytes(const struct store *store)
{
    struct store_log_stats stats;

    store_log_stats_get(store->log, &stats);
    return stats.record_bytes_hot;
}

bool checkpoint_is_due(const struct store *store)
{
    return hot_bytes(store) - store->checkpoint->hot_bytes_then >=
           MAX(DUE_BYTES_MIN, 4 * index_bytes(store->index));
}

/* ---- the end of one --------------------------------------------------------------------------- */

static void checkpoint_end(struct store *store, int err)
{
    struct checkpoint *c = store->checkpoint;
    void (*done)(struct store *, int) = c->done;

    c->done = NULL;
    c->state = CHECKPOINT_IDLE;
    for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
        buffer_deinit(&c->buffers[i].bytes);
    if (err == 0) {
        mem_free(c->pages);
        c->pages = c->next_pages;
        c->meta = c->next;
        store->stats.checkpoints++;
        store->stats.checkpoint_lsn = c->meta.lsn;
        store_log_release(store->log, c->meta.hot_from, c->meta.cold_from);
    } else {
        /* What was taken off the dirty list is not on disk: everything counts as changed. */
        mem_free(c->next_pages);
        memset(c->dirty, 0xff, dirty_words(c->bits) * 8);
        c->is_broken = true;
        log_error(store->text_log, "store: no checkpoint was written shard=%u why=\"%s\"",
                  store->options.shard, err_text(err));
    }
    c->next_pages = NULL;
    if (done != NULL)
        done(store, err);
}

static void old_file_removed(struct io_op *op)
{
    struct store *store = op->arg;

    MAYBE(op->result < 0); /* it is looked for again at the next start */
    checkpoint_end(store, 0);
}

static void manifest_durable(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;
    unsigned slot = (unsigned)(c->generation + 1) % 2;
    uint64_t old_file = c->file_numbers[slot];
    char path[CHECKPOINT_PATH_MAX];

    if (op->result < 0) {
        store_log_doubt(store->log); /* the slot may be seen, and gone after a power cut */
        checkpoint_end(store, (int)op->result);
        return;
    }
    c->generation++;
    c->file_numbers[slot] = c->next_file;
    c->lsns[slot] = c->next.lsn;
    c->file_number = c->next_file;
    c->hot_bytes_then = c->hot_bytes_next;
    c->state = CHECKPOINT_ENDING;
    if (old_file == 0 || old_file == c->file_numbers[1 - slot] || old_file == c->next_file) {
        checkpoint_end(store, 0);
        return;
    }
    checkpoint_path(store, old_file, path);
    c->op.done = old_file_removed;
    io_unlink(store->io, &c->op, path);
}

static void manifest_written(struct io_op *op)
{
    struct store *store = op->arg;

    if (op->result < 0) {
        checkpoint_end(store, (int)op->result);
        return;
    }
    store->stats.bytes_written += CHECKPOINT_SLOT_SIZE;
    op->done = manifest_durable;
    io_file_datasync(store->checkpoint->manifest, op);
}

static void log_flushed(void *arg, int err)
{
    struct store *store = arg;
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_slot slot = {
        .magic = CHECKPOINT_MAGIC_SLOT,
        .version = CHECKPOINT_VERSION,
        .generation = c->generation + 1,
        .file = c->next_file,
        .meta_off = c->meta_off,
        .meta_len = c->meta_len,
        .meta_hash = c->meta_hash,
        .durable_lsn = store_log_marks(store->log).durable,
    };

    if (err != 0) {
        checkpoint_end(store, err);
        return;
    }
    c->state = CHECKPOINT_MANIFEST;
    checkpoint_slot_seal(&slot);
    memset(c->slot, 0, CHECKPOINT_SLOT_SIZE);
    memcpy(c->slot, &slot, sizeof(slot));
    c->op.done = manifest_written;
    io_file_write(c->manifest, &c->op, c->slot, CHECKPOINT_SLOT_SIZE,
                  slot.generation % 2 * CHECKPOINT_SLOT_SIZE);
}

static void names_durable(struct io_op *op)
{
    struct store *store = op->arg;

    if (op->result < 0)
        checkpoint_end(store, (int)op->result);
    else
        store_log_flush(store->log, log_flushed, store); /* K2 */
}

static void data_durable(struct io_op *op)
{
    struct store *store = op->arg;

    if (op->result < 0) {
        checkpoint_end(store, (int)op->result);
        return;
    }
    op->done = names_durable;
    io_dirsync(store->io, op, store->options.dir);
}

/* ---- pages ------------------------------------------------------------------------------------ */

static void buffer_written(struct io_op *op)
{
    struct checkpoint_buffer *buffer = op->arg;
    struct store *store = buffer->store;

    buffer->is_busy = false;
    if (op->result < 0 && store->checkpoint->err == 0)
        store->checkpoint->err = (int)op->result;
    else
        store->stats.bytes_written += buffer->bytes.len;
    buffer_clear(&buffer->bytes);
    store_work_soon(store, 0);
}

static void buffer_send(struct store *store, struct checkpoint_buffer *buffer)
{
    struct checkpoint *c = store->checkpoint;

    if (buffer->bytes.len == 0)
        return;
    ASSERT(!buffer->is_busy);
    buffer->is_busy = true;
    buffer->op.done = buffer_written;
    buffer->op.arg = buffer;
    io_file_write(c->file, &buffer->op, buffer->bytes.data, buffer->bytes.len, buffer->off);
    c->filling = (c->filling + 1) % CHECKPOINT_BUFFERS;
}

/* The buffer to fill, or NULL while all are on their way. */
static struct checkpoint_buffer *buffer_get(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_buffer *buffer = &c->buffers[c->filling];

    if (buffer->is_busy)
        return NULL;
    if (buffer->bytes.len >= BUFFER_SIZE) {
        buffer_send(store, buffer);
        return buffer_get(store);
    }
    if (buffer->bytes.len == 0)
        buffer->off = c->next_end;
    return buffer;
}

struct imaging {
    struct store *store;
    uint64_t bytes;
    bool is_left;
};

static void page_image_each(void *arg, struct entry *e)
{
    struct imaging *imaging = arg;
    struct store *store = imaging->store;
    const struct object *object;
    uint64_t size;

    if (!entry_is_object(e) || store_is_flushed(store, e))
        return;
    object = entry_object(e);
    if (object->base_lsn == 0 || object->image_lsn == entry_lsn(e))
        return;
    size = store->options.types[object->type]->bytes(object);
    if (size > IMAGE_CHEAP_BYTES && object->chain_sequence + CHAIN_AGE_MAX >= store_log_hot_sequence(store->log))
        return;
    if (imaging->bytes >= IMAGE_BUDGET_BYTES && !store->checkpoint->is_urgent) {
        imaging->is_left = true;
        return;
    }
    imaging->bytes += size + 512;
    MAYBE(store_image(store, index_hash(store->index, entry_db(e), entry_key(e)), e) != 0);
}

/* One page, or a part of the images that it wants before. */
static void page_step(struct store *store, struct checkpoint_buffer *buffer)
{
    struct checkpoint *c = store->checkpoint;
    struct imaging imaging = {.store = store};
    struct checkpoint_page *row = &c->next_pages[c->page];
    uint32_t page = c->page;
    uint64_t off;

    index_page_each(store->index, c->next.bits, page, page_image_each, &imaging);
    if (imaging.is_left && ++c->passes < PAGE_PASSES_MAX)
        return;
    c->passes = 0;
    MAYBE(dirty_take(c, page));
    off = c->next_end;
    checkpoint_page_compose(store, c->next.bits, page, store_lsn(store), &buffer->bytes, row);
    row->off = off;
    c->next_end += row->len;
    c->page++;
    if (buffer->bytes.failed)
        c->err = ERR_FULL;
}

static bool pages_step(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    uint32_t skipped = 0;

    while (c->page < c->next.page_count && !c->is_full) {
        const struct checkpoint_page *row = &c->pages[c->page];
        bool is_old = row->chain_sequence != 0 &&
                      row->chain_sequence + CHAIN_AGE_MAX < store_log_hot_sequence(store->log);

        if (is_old || (c->dirty[c->page / 64] & 1ull << (c->page % 64)) != 0)
            break;
        c->next_pages[c->page] = *row; /* K4 */
        c->page++;
        if (++skipped == 4096)
            return true;
    }
    if (c->page < c->next.page_count) {
        struct checkpoint_buffer *buffer = buffer_get(store);

        if (buffer == NULL)
            return false;
        page_step(store, buffer);
        return true;
    }
    c->state = CHECKPOINT_META;
    return true;
}

/* K3: from where on records are needed. */
static void meta_froms(struct store *store)
{
    struct checkpoint *c = store->checkpoint;

    c->live_next = 0;
    c->next.keys = 0;
    for (uint32_t i = 0; i < c->next.page_count; i++) {
        const struct checkpoint_page *row = &c->next_pages[i];

        c->live_next += row->len;
        c->next.keys += row->entries;
        if (row->chain_sequence != 0)
            c->next.hot_from = MIN(c->next.hot_from, row->chain_sequence);
    }
}

static bool meta_step(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_buffer *buffer = buffer_get(store);
    size_t table = sizeof(*c->next_pages) * c->next.page_count, start;

    if (buffer == NULL)
        return false;
    meta_froms(store);
    memcpy(c->next.flush_lsn, store->flush_lsn, sizeof(c->next.flush_lsn));
    memcpy(c->next.places, store->places, sizeof(c->next.places));
    c->next.swap_lsn = store->swap_lsn;
    c->next.wall_ms = store->now_ms;
    start = buffer->bytes.len;
    c->meta_off = c->next_end;
    buffer_append(&buffer->bytes, &c->next, sizeof(c->next));
    buffer_append(&buffer->bytes, c->next_pages, table);
    if (buffer->bytes.failed) {
        c->err = ERR_FULL;
        return true;
    }
    c->meta_len = sizeof(c->next) + table;
    c->meta_hash = checkpoint_hash(buffer->bytes.data + start, c->meta_len, CHECKPOINT_VERSION);
    c->next_end += c->meta_len;
    buffer_send(store, buffer);
    c->state = CHECKPOINT_FLUSHING;
    return true;
}

/* All buffers are on disk before the flush is asked for. */
static bool flush_step(struct store *store)
{
    struct checkpoint *c = store->checkpoint;

    for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
        if (c->buffers[i].is_busy)
            return false;
    if (c->is_flushing)
        return false;
    c->is_flushing = true;
    c->op.done = data_durable;
    io_file_datasync(c->file, &c->op);
    return false;
}

bool checkpoint_work(struct store *store)
{
    struct checkpoint *c = store->checkpoint;

    if (c->err != 0 && c->state >= CHECKPOINT_PAGES && c->state <= CHECKPOINT_FLUSHING && !c->is_flushing) {
        for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
            if (c->buffers[i].is_busy)
                return false;
        checkpoint_end(store, c->err);
        return false;
    }
    switch ((enum checkpoint_state)c->state) {
    case CHECKPOINT_PAGES: return pages_step(store);
    case CHECKPOINT_META: return meta_step(store);
    case CHECKPOINT_FLUSHING: return flush_step(store);
    case CHECKPOINT_IDLE:
    case CHECKPOINT_OPENING:
    case CHECKPOINT_MANIFEST:
    case CHECKPOINT_ENDING:
        break;
    }
    return false;
}

/* ---- the start -------------------------------------------------------------------------------- */

static void data_opened(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;

    if (op->result < 0) {
        c->file = NULL;
        checkpoint_end(store, (int)op->result);
        return;
    }
    c->state = CHECKPOINT_PAGES;
    store_work_soon(store, 0);
}

static void data_open(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    char path[CHECKPOINT_PATH_MAX];

    if (c->file != NULL)
        io_file_close(c->file);
    c->file = NULL;
    c->op.done = data_opened;
    checkpoint_path(store, c->next_file, path);
    io_file_open(store->io, &c->op, path,
                 IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE | (c->is_full ? IO_FILE_TRUNCATE : 0), &c->file);
}

static void full_begin(struct checkpoint *c)
{
    c->is_full = true;
    c->next_file = MAX(c->file_numbers[0], c->file_numbers[1]) + 1;
    c->next_end = 0;
}

/* K6: with another name it may be another store's as well. */
static void links_known(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;

    if (op->result < 0) {
        checkpoint_end(store, (int)op->result);
    } else if (op->result > 1) {
        full_begin(c);
        data_open(store);
    } else {
        c->state = CHECKPOINT_PAGES;
    }
}

static void manifest_opened(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;

    if (op->result < 0) {
        c->manifest = NULL;
        checkpoint_end(store, (int)op->result);
        return;
    }
    if (c->file != NULL && !c->is_full) {
        op->done = links_known;
        io_file_links(c->file, op);
        return;
    }
    data_open(store);
}

static unsigned bits_wanted(const struct store *store, unsigned bits)
{
    uint64_t keys = index_count(store->index);

    while (bits < CHECKPOINT_BITS_MAX && keys >> bits > CHECKPOINT_PAGE_KEYS_MAX * 3 / 4)
        bits++;
    while (bits > 0 && keys >> bits < PAGE_KEYS_WANTED / 8)
        bits--;
    return bits;
}

/* Other pages than the last one had: all are written, into a new file. False: no memory. */
static bool pages_remake(struct store *store, unsigned bits)
{
    struct checkpoint *c = store->checkpoint;
    uint64_t *dirty = mem_alloc(dirty_words(bits) * 8);

    if (dirty == NULL)
        return false;
    memset(dirty, 0xff, dirty_words(bits) * 8);
    mem_free(c->dirty);
    c->dirty = dirty;
    c->bits = bits;
    return true;
}

void checkpoint_start(struct store *store, bool is_urgent, void (*done)(struct store *store, int err))
{
    struct checkpoint *c = store->checkpoint;
    unsigned bits = bits_wanted(store, c->bits);
    char path[CHECKPOINT_PATH_MAX];

    ASSERT(c->state == CHECKPOINT_IDLE);
    c->is_full = c->generation == 0 || c->is_broken || bits != c->bits || c->next_end > 2 * c->live_next + BUFFER_SIZE;
    c->is_broken = false;
    c->is_urgent = is_urgent;
    c->is_flushing = false;
    c->err = 0;
    c->done = done;
    c->page = c->passes = 0;
    c->hot_bytes_next = hot_bytes(store);
    c->next = (struct checkpoint_meta){
        .magic = CHECKPOINT_MAGIC_META,
        .version = CHECKPOINT_META_VERSION,
        .lsn = store_lsn(store),
        .hot_from = store_log_hot_sequence(store->log),
        .cold_from = store_log_cold_sequence(store->log),
        .bits = bits,
        .page_count = 1u << bits,
        .epoch = store->epoch,
    };
    c->state = CHECKPOINT_OPENING;
    c->next_pages = mem_zalloc(sizeof(*c->next_pages) * c->next.page_count);
    if (c->next_pages == NULL || (bits != c->bits && !pages_remake(store, bits))) {
        checkpoint_end(store, ERR_FULL);
        return;
    }
    if (c->is_full)
        full_begin(c);
    /* A write that is torn by a power cut must not touch a sector of the one before. */
    c->next_end = (c->next_end + CHECKPOINT_ALIGN - 1) / CHECKPOINT_ALIGN * CHECKPOINT_ALIGN;
    c->op.arg = store;
    if (c->manifest != NULL) {
        c->op.result = 0;
        manifest_opened(&c->op);
        return;
    }
    c->op.done = manifest_opened;
    checkpoint_path(store, 0, path);
    io_file_open(store->io, &c->op, path, IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE, &c->manifest);
}
