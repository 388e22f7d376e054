/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing checkpoints, a page at a time between commands.
 *
 *     IDLE -> OPENING -> PAGES (a few a step) -> META -> FLUSHING (data file, log) -> MANIFEST -> ENDING -> IDLE
 *
 * The pages are not of one moment: each is true at its own LSN, and replay mends the rest. So nothing is
 * copied, forked or stopped. Of a page that has changed only the difference is written (K4), until the file
 * weighs too much and is made anew: a checkpoint costs what has changed since the last one, not what there is.
 * An object whose chain is not empty gets an image before its page is written, if that is cheap; a large one
 * keeps its chain, and the log from the chain's first delta on is kept for it.
 */
#include "backend/store/checkpoint_private.h"

#include "common/base/mem.h"

#define BUFFER_SIZE        (256u << 10)
#define BUFFER_KEEP        (512u << 10) /* from one checkpoint to the next: fresh memory costs more than what is put there */
#define IMAGE_CHEAP_BYTES  (64u << 10)
#define IMAGE_BUDGET_BYTES (64u << 10) /* a look */
#define PAGE_PART_BITS     5u        /* of what is looked at before a page is composed, at a time */
#define PAGE_PASSES_MAX    1024u     /* looks at the same part again, of a page */
/* Keys of a page, on average: a page is composed in one go, which takes 50 to 200 us for so many. */
#define PAGE_KEYS_HIGH     384u
#define PAGE_KEYS_LOW      32u
#define STEP_US            150u /* what a step takes at most, beside the last part of it */
#define STEP_PARTS_MAX     (16u << PAGE_PART_BITS) /* where the clock stands still */
#define SKIPPED_MAX        512u
#define DUE_BYTES_MIN      (1ull << 30)
#define FILE_WEIGHT_MAX    4u        /* of the file, in what full records of all pages weigh: above, it is made anew */
#define KEY_BYTES          64u       /* of a key of which no record tells, in a full one */
#define META_STEP          (256u << 10)
#define REMAKE_AGAIN_MS    60000u
#define CHAIN_AGE_MAX      16u /* segments: an older chain gets its image whatever it costs */

/* ---- what has changed ------------------------------------------------------------------------- */

static size_t bits_words(unsigned bits)
{
    return ((size_t)1 << bits) / 64 + 1;
}

/* Nothing is marked. False: no memory, nothing has changed. */
bool checkpoint_bits_make(struct checkpoint *c, unsigned bits)
{
    size_t words = bits_words(bits);
    uint64_t *all = mem_zalloc(words * 4 * 8);

    if (all == NULL)
        return false;
    mem_free(c->marks.changed);
    c->marks = (struct checkpoint_bits){all, all + words, all + 2 * words, all + 3 * words};
    c->bits = bits;
    return true;
}

void checkpoint_bits_clear(struct checkpoint *c)
{
    memset(c->marks.changed, 0, bits_words(c->bits) * 4 * 8);
}

static bool bit_is_set(const uint64_t *bits, uint32_t page)
{
    return (bits[page / 64] & 1ull << (page % 64)) != 0;
}

static void bit_move(uint64_t *from, uint64_t *to, uint32_t page)
{
    uint64_t bit = 1ull << (page % 64);

    to[page / 64] |= from[page / 64] & bit;
    from[page / 64] &= ~bit;
}

/* What was taken is not on disk. */
static void bits_give_back(struct checkpoint *c)
{
    for (size_t i = 0; i < bits_words(c->bits); i++) {
        c->marks.changed[i] |= c->marks.taken[i];
        c->marks.gone[i] |= c->marks.taken_gone[i];
    }
}

void checkpoint_mark(struct store *store, uint64_t hash, bool is_gone)
{
    struct checkpoint *c = store->checkpoint;
    uint64_t page = hash & ((1ull << c->bits) - 1);

    c->marks.changed[page / 64] |= 1ull << (page % 64);
    if (is_gone)
        c->marks.gone[page / 64] |= 1ull << (page % 64);
}

bool checkpoint_is_news(const struct store *store, uint64_t hash, uint64_t lsn, uint64_t address)
{
    const struct checkpoint *c = store->checkpoint;
    uint32_t page = (uint32_t)(hash & ((1ull << c->meta.bits) - 1));

    return c->generation == 0 || checkpoint_is_since(c, checkpoint_table_lsn(&c->table, page), lsn, address);
}

void checkpoint_touch_replayed(struct store *store, uint64_t hash, const struct entry *e)
{
    if (!checkpoint_is_news(store, hash, entry_lsn(e), e->address))
        store->checkpoint->is_broken = true; /* no patch would tell */
    checkpoint_mark(store, hash, false);
}

/* ---- life ------------------------------------------------------------------------------------- */

int checkpoint_create(struct store *store)
{
    struct checkpoint *c = mem_zalloc(sizeof(*c));

    if (c == NULL)
        return ERR_FULL;
    c->slot = mem_alloc_aligned(CHECKPOINT_SLOT_SIZE, CHECKPOINT_SLOT_SIZE);
    for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
        c->buffers[i].store = store;
    if (!checkpoint_bits_make(c, 0) || c->slot == NULL) {
        mem_free(c->marks.changed);
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
    checkpoint_load_free(c);
    buffer_deinit(&c->kept);
    buffer_deinit(&c->moved);
    checkpoint_table_free(&c->table);
    checkpoint_table_free(&c->next_table);
    checkpoint_table_free(&c->spare_table);
    mem_free(c->marks.changed);
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
    return MAX(checkpoint_table_lsn(&c->table, (uint32_t)(hash & ((1ull << c->meta.bits) - 1))), c->meta.lsn);
}

uint64_t checkpoint_horizon(const struct store *store)
{
    return MIN(store->checkpoint->lsns[0], store->checkpoint->lsns[1]);
}

bool checkpoint_is_running(const struct store *store)
{
    return store->checkpoint->state != CHECKPOINT_IDLE;
}

static uint64_t log_bytes(const struct store *store)
{
    struct store_log_stats stats;

    store_log_stats_get(store->log, &stats);
    return stats.record_bytes_hot + store->stats.cleaner_bytes;
}

uint64_t checkpoint_log_bytes(const struct store *store)
{
    return log_bytes(store) - store->checkpoint->log_bytes_then;
}

bool checkpoint_is_due(const struct store *store)
{
    return checkpoint_log_bytes(store) >= MAX(DUE_BYTES_MIN, 4 * index_bytes(store->index));
}

bool checkpoint_has_got_room(const struct store *store)
{
    return store->checkpoint->is_room_given;
}

/* ---- the end of one --------------------------------------------------------------------------- */

static bool is_no_room(int err)
{
    return err == -ENOSPC || err == -EDQUOT;
}

bool checkpoint_was_in_vain(const struct store *store)
{
    return store->checkpoint->was_in_vain;
}

static bool would_free(const struct store *store)
{
    for (uint32_t i = 0; i < store_log_segment_count(store->log); i++)
        if (store_log_segment(store->log, i)->state == SEGMENT_CLEANED)
            return true;
    return false;
}

static void checkpoint_end(struct store *store, int err)
{
    struct checkpoint *c = store->checkpoint;
    void (*done)(struct store *, int) = c->done;

    c->done = NULL;
    c->state = CHECKPOINT_IDLE;
    c->was_in_vain = is_no_room(err) && !would_free(store);
    c->is_room_given = is_no_room(err) && !c->was_in_vain && store_log_space_give(store->log); /* K7 */
    if (!c->is_room_given)
        store_log_space_take(store->log);
    for (unsigned i = 0; i < CHECKPOINT_BUFFERS; i++)
        if (c->buffers[i].bytes.cap > BUFFER_KEEP)
            buffer_deinit(&c->buffers[i].bytes);
        else
            buffer_clear(&c->buffers[i].bytes);
    buffer_deinit(&c->kept);
    if (err == 0) {
        c->spare_table = c->table;
        c->table = c->next_table;
        c->meta = c->next;
        c->old_file_end = c->is_full ? c->file_end : 0; /* what was before that has gone */
        c->file_end = c->next_end;
        c->is_broken = false;
        store->stats.checkpoints++;
        store->stats.checkpoint_lsn = c->meta.lsn;
        store_log_release(store->log, c->meta.hot_from, c->meta.cold_from);
    } else {
        if (c->next_table.pages != NULL) /* else it ended before it had one */
            c->spare_table = c->next_table;
        bits_give_back(c);
        c->is_broken |= !is_no_room(err) || c->is_flushing;
        log_error(store->text_log, "store: no checkpoint was written shard=%u why=\"%s\"",
                  store->options.shard, err_text(err));
    }
    c->next_table = (struct checkpoint_table){0};
    if (done != NULL)
        done(store, err);
}

static void new_file_removed(struct io_op *op)
{
    struct store *store = op->arg;

    MAYBE(op->result < 0);
    checkpoint_end(store, store->checkpoint->err);
}

/* Nothing has been flushed yet. Of a new file nothing is left, as it would fill the disk. */
static void checkpoint_give_up(struct store *store, int err)
{
    struct checkpoint *c = store->checkpoint;
    char path[CHECKPOINT_PATH_MAX];

    if (!is_no_room(err) || !c->is_full) {
        checkpoint_end(store, err);
        return;
    }
    c->remake_again_ms = store->now_ms + REMAKE_AGAIN_MS;
    if (c->file != NULL)
        io_file_close(c->file);
    c->file = NULL;
    c->err = err;
    c->state = CHECKPOINT_ENDING;
    c->op.done = new_file_removed;
    c->op.arg = store;
    checkpoint_path(store, c->next_file, path);
    io_unlink(store->io, &c->op, path);
}

static void bytes_count(struct store *store, uint64_t bytes)
{
    store->stats.bytes_written += bytes;
    store->stats.checkpoint_bytes += bytes;
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
    c->log_bytes_then = c->log_bytes_next;
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
    bytes_count(store, CHECKPOINT_SLOT_SIZE);
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
        bytes_count(store, buffer->bytes.len);
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
    bool is_left, has_failed;
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
    if (imaging->has_failed) /* nor will there be room for others: the page keeps their chains */
        return;
    if (imaging->bytes >= IMAGE_BUDGET_BYTES && !store->checkpoint->is_urgent) {
        imaging->is_left = true;
        return;
    }
    imaging->bytes += size + 512;
    imaging->has_failed = store_image(store, index_hash(store->index, entry_db(e), entry_key(e)), e) != 0;
}

/* A patch that is no larger than all of it. */
static bool page_patch(struct store *store, struct buffer *out, struct checkpoint_page *row, bool *has_record)
{
    struct checkpoint *c = store->checkpoint;
    size_t start = out->len;

    *has_record = checkpoint_page_compose(store, c->page, true, out, row);
    if (*has_record && (out->failed || out->len - start >= row->full_len)) {
        out->len = start;
        return false;
    }
    row->records = c->table.pages[c->page].records + *has_record;
    if (!*has_record)
        row->lsn = c->table.pages[c->page].lsn;
    return true;
}

/* All keys of a page are looked at before it is composed, a part of them at a time: some want an image, and each lies
 * somewhere else in memory, where a first access takes up to 10 us. It is composed in one go, with all of them near. False: more
 * are to be looked at. */
static bool page_look(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct imaging imaging = {.store = store};

    index_page_each(store->index, c->next.bits + PAGE_PART_BITS, c->page | c->part << c->next.bits, page_image_each,
                    &imaging);
    if (imaging.is_left && !imaging.has_failed && ++c->passes < PAGE_PASSES_MAX)
        return false;
    c->part = (c->part + 1) % (1u << PAGE_PART_BITS);
    if (c->part == 0)
        c->passes = 0;
    return c->part == 0;
}

/* META is to say of all pages what this one's row says: how many keys, and, K3, from where on records are needed. */
static void page_row_set(struct checkpoint *c)
{
    const struct checkpoint_page *row = &c->next_table.pages[c->page];

    c->next.keys += row->keys;
    if (row->chain_sequence != 0)
        c->next.hot_from = MIN(c->next.hot_from, row->chain_sequence);
    c->page++;
}

/* K8. `record`: the page's new one; NULL: there is none. */
static void page_sum(const struct checkpoint *c, struct checkpoint_page *row, const char *record)
{
    uint32_t before = c->is_full ? 0 : c->table.pages[c->page].sum;
    struct checkpoint_page_header header;

    row->sum = before;
    if (record == NULL || (before == 0 && !c->is_full))
        return;
    memcpy(&header, record, sizeof(header));
    row->sum = checkpoint_sum(before, header.hash);
}

/* One page, or a look at a part of it before. */
static void page_step(struct store *store, struct checkpoint_buffer *buffer)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_page *row = &c->next_table.pages[c->page];
    size_t start = buffer->bytes.len;
    bool has_record = true;

    if (!page_look(store))
        return;
    if (c->is_full || !page_patch(store, &buffer->bytes, row, &has_record)) {
        MAYBE(checkpoint_page_compose(store, c->page, false, &buffer->bytes, row));
        row->records += c->is_full ? 0 : c->table.pages[c->page].records;
    }
    bit_move(c->marks.changed, c->marks.taken, c->page);
    bit_move(c->marks.gone, c->marks.taken_gone, c->page);
    page_sum(c, row, has_record && !buffer->bytes.failed ? buffer->bytes.data + start : NULL);
    page_row_set(c);
    if (buffer->bytes.failed ||
        (has_record && !checkpoint_table_add(&c->next_table, c->next_end, (uint32_t)(buffer->bytes.len - start))))
        c->err = ERR_FULL;
    c->next_end += buffer->bytes.len - start;
}

static bool pages_step(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    uint32_t skipped = 0;

    while (c->page < c->next.page_count && !c->is_full) {
        const struct checkpoint_page *row = &c->table.pages[c->page];
        bool is_old = row->chain_sequence != 0 &&
                      row->chain_sequence + CHAIN_AGE_MAX < store_log_hot_sequence(store->log);

        if (is_old || bit_is_set(c->marks.changed, c->page))
            break;
        c->next_table.pages[c->page] = *row; /* K4 */
        page_row_set(c);
        if (++skipped == SKIPPED_MAX)
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

static bool pages_work(struct store *store)
{
    const struct checkpoint *c = store->checkpoint;
    uint64_t until_us = io_step_begin(store->io, STEP_US);
    unsigned left = STEP_PARTS_MAX;
    bool is_busy;

    do {
        is_busy = pages_step(store);
    } while (is_busy && c->state == CHECKPOINT_PAGES && c->err == 0 && --left > 0 && io_clock_us(store->io) < until_us);
    io_step_end(store->io);
    return is_busy;
}

/* ---- META ------------------------------------------------------------------------------------- */

static size_t meta_pages_size(const struct checkpoint *c)
{
    return sizeof(struct checkpoint_page) * c->next_table.page_count;
}

static size_t meta_size(const struct checkpoint *c)
{
    return sizeof(c->next) + meta_pages_size(c) + sizeof(struct checkpoint_extent) * c->next_table.extent_count;
}

static void meta_head_fill(struct store *store)
{
    struct checkpoint *c = store->checkpoint;

    memcpy(c->next.flush_lsn, store->flush_lsn, sizeof(c->next.flush_lsn));
    memcpy(c->next.places, store->places, sizeof(c->next.places));
    c->next.swap_lsn = store->swap_lsn;
    c->next.wall_ms = store->now_ms;
    c->next.rows = c->next_table.extent_count;
}

/* The part of META from `at` on, as far as it lies in one piece of memory. */
static struct bytes meta_part(const struct checkpoint *c, size_t at)
{
    size_t head = sizeof(c->next), pages = head + meta_pages_size(c);

    if (at < head)
        return bytes_skip(bytes_of(&c->next, head), at);
    if (at < pages)
        return bytes_skip(bytes_of(c->next_table.pages, pages - head), at - head);
    return bytes_skip(bytes_of(c->next_table.extents, meta_size(c) - pages), at - pages);
}

/* META goes into one write, a part at a time. */
static bool meta_step(struct store *store)
{
    struct checkpoint *c = store->checkpoint;
    struct checkpoint_buffer *buffer = c->meta_len == 0 ? buffer_get(store) : &c->buffers[c->filling];
    struct bytes part;

    if (buffer == NULL)
        return false;
    if (c->meta_len == 0) {
        meta_head_fill(store);
        c->meta_off = c->next_end;
        if (buffer_reserve(&buffer->bytes, meta_size(c)) == NULL) {
            c->err = ERR_FULL;
            return true;
        }
    }
    part = meta_part(c, c->meta_len);
    part = bytes_first(part, MIN(part.len, META_STEP));
    buffer_append(&buffer->bytes, part.data, part.len);
    c->meta_len += part.len;
    if (c->meta_len < meta_size(c))
        return true;
    c->meta_hash = checkpoint_hash(buffer->bytes.data + buffer->bytes.len - c->meta_len, c->meta_len,
                                   CHECKPOINT_VERSION);
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
        checkpoint_give_up(store, c->err);
        return false;
    }
    switch ((enum checkpoint_state)c->state) {
    case CHECKPOINT_PAGES: return pages_work(store);
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

static void links_known(struct io_op *op);

static void data_opened(struct io_op *op)
{
    struct store *store = op->arg;
    struct checkpoint *c = store->checkpoint;

    if (op->result < 0) {
        c->file = NULL;
        checkpoint_give_up(store, (int)op->result);
        return;
    }
    if (!c->is_full) {
        op->done = links_known;
        io_file_links(c->file, op);
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
    c->next_table.extent_count = 0;
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
        store_work_soon(store, 0);
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

    while (bits < CHECKPOINT_BITS_MAX && keys >> bits > PAGE_KEYS_HIGH)
        bits++;
    while (bits > 0 && keys >> bits < PAGE_KEYS_LOW)
        bits--;
    return bits;
}

/* Other pages than the last one had: all are written. False: no memory. */
static bool pages_remake(struct checkpoint *c, unsigned bits)
{
    if (!checkpoint_bits_make(c, bits))
        return false;
    memset(c->marks.changed, 0xff, bits_words(bits) * 8);
    memset(c->marks.gone, 0xff, bits_words(bits) * 8);
    return true;
}

static uint64_t full_bytes(const struct checkpoint_table *table)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < table->page_count; i++)
        bytes += table->pages[i].full_len;
    return bytes;
}

uint64_t checkpoint_room(const struct store *store)
{
    const struct checkpoint *c = store->checkpoint;
    uint64_t keys = store->index != NULL ? index_count(store->index) : 0;
    uint64_t full = full_bytes(&c->table) + KEY_BYTES * (keys - MIN(keys, c->meta.keys));
    uint64_t wanted = (FILE_WEIGHT_MAX + 1) * full + 2 * BUFFER_SIZE;
    uint64_t there = c->file_end + c->old_file_end + (c->state != CHECKPOINT_IDLE && c->is_full ? c->next_end : 0);

    return wanted - MIN(wanted, there);
}

/* Begins with what is in the file already. Each of its rows is set before META. */
static bool next_table_make(struct checkpoint *c)
{
    struct checkpoint_table *table = &c->next_table;
    uint32_t count = c->is_full ? 0 : c->table.extent_count;

    *table = c->spare_table;
    c->spare_table = (struct checkpoint_table){0};
    table->extent_count = 0;
    if (table->page_count != c->next.page_count) {
        checkpoint_table_free(table);
        table->page_count = c->next.page_count;
        table->pages = mem_zalloc(sizeof(*table->pages) * c->next.page_count);
    }
    if (table->pages == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!checkpoint_table_add(table, c->table.extents[i].off, c->table.extents[i].len))
            return false;
    return true;
}

static void next_begin(struct store *store, unsigned bits)
{
    struct checkpoint *c = store->checkpoint;

    c->next = (struct checkpoint_meta){
        .magic = CHECKPOINT_MAGIC_META,
        .version = CHECKPOINT_META_VERSION,
        .lsn = store_lsn(store),
        .hot_from = store_log_hot_sequence(store->log),
        .cold_from = store_log_cold_sequence(store->log),
        .bits = bits,
        .page_count = 1u << bits,
        .epoch = store->epoch,
        .next_sequence = store_log_next_sequence(store->log),
    };
    store_log_cold_marks(store->log, c->next.cold_marks);
    c->log_bytes_next = log_bytes(store);
    c->page = c->passes = c->part = 0;
    c->meta_len = 0;
    c->err = 0;
    c->is_flushing = false;
    memset(c->marks.taken, 0, bits_words(c->bits) * 2 * 8);
}

void checkpoint_start(struct store *store, bool is_urgent, void (*done)(struct store *store, int err))
{
    struct checkpoint *c = store->checkpoint;
    bool may_wait = c->generation != 0 && !c->is_broken && store->now_ms < c->remake_again_ms; /* K7 */
    unsigned bits = may_wait ? c->meta.bits : bits_wanted(store, c->bits);
    char path[CHECKPOINT_PATH_MAX];

    ASSERT(c->state == CHECKPOINT_IDLE);
    c->is_full = !may_wait && (c->generation == 0 || c->is_broken || bits != c->meta.bits ||
                               c->file_end > FILE_WEIGHT_MAX * full_bytes(&c->table) + BUFFER_SIZE);
    c->is_urgent = is_urgent;
    c->done = done;
    c->state = CHECKPOINT_OPENING;
    if (bits != c->bits && !pages_remake(c, bits)) {
        checkpoint_end(store, ERR_FULL);
        return;
    }
    next_begin(store, bits);
    if (!next_table_make(c)) {
        checkpoint_end(store, ERR_FULL);
        return;
    }
    c->next_file = c->file_number;
    /* A write that is torn by a power cut must not touch a sector of the one before. */
    c->next_end = (c->file_end + CHECKPOINT_ALIGN - 1) / CHECKPOINT_ALIGN * CHECKPOINT_ALIGN;
    if (c->is_full)
        full_begin(c);
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
