/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading around damage.
 *
 *     a page write that verifies          its records
 *     one whose header verifies           frames that verify, then single records (each has a checksum of its own)
 *     none at that place                  the same, up to the next page write of this segment
 *     behind the last one                 the same; in a segment without a footer that may be its end, or what the file had
 *                                         in its former life: the checkpoint knows that as dead, a hot log by its LSNs
 *
 * Single records have no chain that ties them to the log, and a value may hold bytes that look like a record. So such a one
 * counts only where a record is expected: behind a header or another record, with the slot of its key, and with an LSN that
 * the frame (or the frames before and after) can have.
 */
#include "ctl/salvage.h"

#include "backend/store/key_hash.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "ctl/source.h"

#include <stdlib.h>

struct reading {
    struct salvage *salvage;
    struct shard_segment *segment;
    uint32_t index;
    /* The hot log: */
    uint64_t last_lsn;      /* of the last frame */
    uint64_t last_sequence; /* of the last segment */
    uint64_t chain, pending_chain; /* behind the last whole unit; behind the last frame */
    size_t unit_at;         /* items before the unit that is not whole yet */
    bool is_broken;         /* something between it and the next frame could not be read */
    bool is_tail;           /* what is read now is behind the last page write that verifies */
};

/* Of the hot log itself: LSNs rise. Blobs lie beside it. */
static bool is_log(const struct reading *reading)
{
    return reading->segment->is_hot && !reading->segment->is_blob;
}

/* Nothing lower can come here. */
static uint64_t lsn_low(const struct reading *reading)
{
    return is_log(reading) ? reading->last_lsn + 1 : 1;
}

static void damage(struct salvage *salvage, const struct shard_segment *segment, uint64_t off, uint64_t lost,
                   const char *what)
{
    char path[SHARD_PATH_MAX];

    salvage->lost_places++;
    salvage->lost_bytes += lost;
    progress_clear(salvage->progress);
    shard_path(salvage->shard, segment->name, path);
    report_damage(salvage->shard->report, path, off, "%s: %llu bytes cannot be used", what, (unsigned long long)lost);
}

/* ---- records ---------------------------------------------------------------------------------- */

static void epoch_note(struct salvage *salvage, uint32_t epoch, uint64_t lsn)
{
    salvage->epoch_max = MAX(salvage->epoch_max, epoch);
    if (epoch >= 1u << 24)
        return;
    if (epoch >= salvage->epoch_cap) {
        uint32_t cap = MAX(64u, MAX(epoch + 1, 2 * salvage->epoch_cap));

        salvage->epoch_ends = must_realloc(salvage->epoch_ends, cap * sizeof(*salvage->epoch_ends));
        memset(salvage->epoch_ends + salvage->epoch_cap, 0, (cap - salvage->epoch_cap) * sizeof(*salvage->epoch_ends));
        salvage->epoch_cap = cap;
    }
    salvage->epoch_ends[epoch] = MAX(salvage->epoch_ends[epoch], lsn);
}

static void keyless_take(struct salvage *salvage, const struct record *record)
{
    for (uint8_t db = 0; record->type == RECORD_FLUSH && db < STORE_DBS; db++)
        if (record->db == db || record->db == STORE_DBS)
            salvage->flush_lsn[db] = MAX(salvage->flush_lsn[db], record->lsn);
    if (record->type == RECORD_SWAP && record->value.len == sizeof(salvage->places) && record->lsn > salvage->swap_lsn) {
        salvage->swap_lsn = record->lsn;
        memcpy(salvage->places, record->value.data, sizeof(salvage->places));
    }
}

static void item_add(struct reading *reading, const struct record *record, uint64_t off, size_t size)
{
    struct salvage *salvage = reading->salvage;
    bool is_hot = reading->segment->is_hot;

    salvage->records++;
    salvage->lsn_max = MAX(salvage->lsn_max, record->lsn);
    if (is_hot)
        epoch_note(salvage, record->epoch, record->lsn);
    else
        salvage->epoch_max = MAX(salvage->epoch_max, record->epoch);
    if (record->type == RECORD_FLUSH || record->type == RECORD_SWAP || record->type == RECORD_NOP) {
        keyless_take(salvage, record);
        return;
    }
    if (record->db >= STORE_DBS)
        return;
    if (salvage->count == salvage->cap) {
        size_t cap = MAX((size_t)4096, salvage->cap + salvage->cap / 2);
        struct salvage_item *grown = mem_realloc(salvage->items, cap * sizeof(*grown));

        if (grown == NULL) {
            salvage->is_out_of_memory = true;
            return;
        }
        salvage->items = grown;
        salvage->cap = cap;
    }
    salvage->items[salvage->count++] = (struct salvage_item){
        .hash = key_hash(shard_hash_seed(salvage->shard), record->db, record->key),
        .lsn = record->lsn,
        .base = record->base_lsn != 0 ? record->base_lsn : record->lsn,
        .segment = reading->index,
        .at = (uint32_t)(off >> 4),
        .size = (uint32_t)size,
        .epoch = record->epoch,
        .type = record->type,
        .db = record->db,
        .is_cold = !is_hot,
        .is_tail = reading->is_tail,
    };
}

static void frame_records_take(struct reading *reading, const struct frame *frame, uint64_t off)
{
    struct bytes rest = frame_records(bytes_of(reading->salvage->shard->data + off, frame->size), frame);

    off += FRAME_HEADER_SIZE;
    while (rest.len > 0) {
        struct record record;
        size_t size = record_decode(rest, &record);

        if (size == 0)
            return;
        item_add(reading, &record, off, size);
        off += size;
        rest = bytes_skip(rest, size);
    }
}

/* ---- the hot log's holes ---------------------------------------------------------------------- */

static void range_add(struct salvage *salvage, uint64_t first, uint64_t last)
{
    if (salvage->range_count < SALVAGE_RANGES_MAX)
        salvage->ranges[salvage->range_count] = (struct salvage_range){first, last};
    salvage->range_count++;
}

static void frame_seen(struct reading *reading, const struct frame *frame)
{
    if (!is_log(reading))
        return;
    if (reading->is_broken && reading->last_lsn != 0 && frame->first_lsn > reading->last_lsn + 1)
        range_add(reading->salvage, reading->last_lsn + 1, frame->first_lsn - 1);
    /* A transaction that never ended was let go of by the process that came after. */
    if (!reading->is_broken && frame->chain_before != reading->pending_chain && frame->chain_before == reading->chain &&
        reading->unit_at < reading->salvage->count)
        reading->salvage->count = reading->unit_at;
    reading->is_broken = false;
    reading->last_lsn = MAX(reading->last_lsn, frame->last_lsn);
}

/* Its records are there. */
static void frame_taken(struct reading *reading, const struct frame *frame)
{
    if (!is_log(reading))
        return;
    reading->pending_chain = frame->chain;
    if ((frame->flags & FRAME_CONTINUES) != 0)
        return;
    reading->chain = frame->chain;
    reading->unit_at = reading->salvage->count;
}

/* ---- a damaged stretch ------------------------------------------------------------------------ */

static bool record_is_ours(const struct record *record, uint64_t low, uint64_t high)
{
    bool has_key = record->type != RECORD_FLUSH && record->type != RECORD_SWAP && record->type != RECORD_NOP;

    return record->lsn >= low && record->lsn <= high && (!has_key || record->slot == key_slot(record->key));
}

static bool is_zero(const char *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* Bytes of the thing at `data` that is no record which verifies: its whole size where something follows that fits. */
static size_t unit_skip(struct bytes data, bool *is_lost)
{
    size_t size = data.len >= RECORD_HEADER_SIZE ? record_size_announced(data) : 0;
    struct record record;
    struct frame frame;
    struct bytes next;

    *is_lost = !is_zero(data.data, RECORD_ALIGN);
    if (!*is_lost || size == 0 || size > data.len)
        return RECORD_ALIGN;
    next = bytes_skip(data, size);
    if (next.len < RECORD_ALIGN || record_decode(next, &record) != 0 ||
        (next.len >= FRAME_HEADER_SIZE && frame_header_decode(next.data, &frame)))
        return size;
    return RECORD_ALIGN;
}

/* Of a frame or a page write, whatever else it says. */
static bool is_head(struct bytes data)
{
    return data.len >= FRAME_HEADER_SIZE && (memcmp(data.data, "WFRM", 4) == 0 || memcmp(data.data, "WPAG", 4) == 0);
}
_Static_assert(FRAME_HEADER_SIZE == PAGE_HEADER_SIZE, "either is skipped");

/* Frames and records between two offsets. Returns bytes that could not be used. */
static uint64_t stretch_read(struct reading *reading, uint64_t from, uint64_t to, uint64_t low, uint64_t high)
{
    const char *data = reading->salvage->shard->data;
    uint64_t lost = 0;

    while (from + RECORD_ALIGN <= to) {
        struct bytes rest = bytes_of(data + from, (size_t)(to - from));
        struct frame frame;
        struct record record;
        bool is_lost;
        size_t size;

        if (frame_decode(rest, &frame) && frame.first_lsn >= low && frame.last_lsn <= high) {
            frame_records_take(reading, &frame, from);
            if (is_log(reading))
                low = reading->last_lsn = MAX(reading->last_lsn, frame.last_lsn);
            from += frame.size;
            continue;
        }
        if (is_head(rest)) { /* into it */
            from += FRAME_HEADER_SIZE;
            continue;
        }
        size = record_decode(rest, &record);
        if (size != 0 && record_is_ours(&record, low, high)) {
            item_add(reading, &record, from, size);
            low = is_log(reading) ? record.lsn + 1 : low;
        } else {
            size = unit_skip(rest, &is_lost);
            lost += is_lost ? size : 0;
        }
        from += size;
    }
    return lost;
}

/* The first LSN of what comes behind a stretch: of the next page write's first frame. */
static uint64_t lsn_behind(const struct reading *reading, uint64_t off, uint64_t end)
{
    struct frame frame;

    if (!is_log(reading) || off >= end ||
        !frame_header_decode(reading->salvage->shard->data + off + PAGE_HEADER_SIZE, &frame))
        return STORE_LSN_MAX;
    return frame.first_lsn;
}

static void stretch_take(struct reading *reading, uint64_t from, uint64_t used_end, uint64_t next, uint64_t end,
                         const char *what)
{
    uint64_t high = lsn_behind(reading, next, end), lost;

    reading->is_broken |= is_log(reading);
    lost = stretch_read(reading, from, used_end, lsn_low(reading), high);
    damage(reading->salvage, reading->segment, from, lost, what);
}

/* Whether it is of this life, what is chosen of it will show. */
static void tail_take(struct reading *reading, uint64_t from, uint64_t end)
{
    uint64_t records = reading->salvage->records;

    reading->is_tail = true;
    MAYBE(stretch_read(reading, from, end, lsn_low(reading), STORE_LSN_MAX) > 0);
    reading->is_tail = false;
    reading->is_broken |= is_log(reading) && reading->salvage->records > records;
}

/* ---- segments --------------------------------------------------------------------------------- */

static void page_take(struct reading *reading, const struct shard_page *page)
{
    struct salvage *salvage = reading->salvage;
    bool is_hot = reading->segment->is_hot;
    size_t at = PAGE_HEADER_SIZE;

    if (is_hot)
        salvage->durable_lsn = MAX(salvage->durable_lsn, page->page.mark);
    while (at < page->data.len) {
        struct frame frame;

        if (!frame_decode(bytes_skip(page->data, at), &frame))
            return;
        if (is_hot)
            salvage->hot_lsn = MAX(salvage->hot_lsn, frame.last_lsn);
        frame_seen(reading, &frame);
        frame_records_take(reading, &frame, page->off + at);
        frame_taken(reading, &frame);
        at += frame.size;
    }
}

static void segment_read(struct reading *reading)
{
    const struct shard *shard = reading->salvage->shard;
    const struct shard_segment *segment = reading->segment;
    uint64_t end = shard_segment_end(shard, segment), off = PAGE_SIZE_;
    bool is_ended = segment->is_footed || segment->next != NULL; /* all up to `end` is of this life */

    while (off < end) {
        struct shard_page page;
        bool has_header;
        const char *what = shard_page_at(shard, segment, off, &page, &has_header);
        uint64_t next;

        if (what == NULL) {
            page_take(reading, &page);
            off += page_size(&page.page);
            continue;
        }
        next = has_header ? off + page_size(&page.page) : shard_page_find(shard, segment, off + PAGE_SIZE_, end);
        if (!has_header && next == end && !is_ended) {
            tail_take(reading, off, end);
            return;
        }
        stretch_take(reading, has_header ? off + PAGE_HEADER_SIZE : off, has_header ? off + page.page.used : next, next,
                     end, what);
        off = next;
    }
}

/* Neither its header nor its first page write verifies: others may. A file that says it is free has none. */
static void identity_find(struct shard *shard, struct shard_segment *segment)
{
    struct page page;

    for (uint64_t off = PAGE_SIZE_; off + PAGE_SIZE_ < segment->size; off += PAGE_SIZE_) {
        if (!page_decode(shard->data + off, &page) || (uint64_t)page.block * PAGE_SIZE_ != off ||
            page.shard != shard->file.shard || memcmp(page.uuid, shard->file.uuid, 16) != 0)
            continue;
        segment->is_free = false;
        segment->sequence = page.sequence;
        segment->is_hot = page.kind == PAGE_HOT;
        return;
    }
}

static int by_sequence(const void *a, const void *b)
{
    const struct shard_segment *x = a, *y = b;

    if (x->is_free != y->is_free)
        return x->is_free ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static int identities_find(struct salvage *salvage)
{
    struct shard *shard = salvage->shard;

    for (uint32_t i = 0; i < shard->count; i++) {
        struct shard_segment *segment = &shard->segments[i];

        if (!segment->is_free || segment->has_header || !source_keeps(shard, segment))
            continue;
        if (shard_load(shard, segment) == ERR_FULL)
            return ERR_FULL;
        identity_find(shard, segment);
        if (!segment->is_free)
            shard->bytes += segment->size;
    }
    if (shard->count > 0)
        qsort(shard->segments, shard->count, sizeof(*shard->segments), by_sequence);
    return 0;
}

/* Opened by a process that died before anything in it counted: the log goes past it. */
static bool is_passed(const struct shard *shard, const struct shard_segment *segment)
{
    uint64_t first = 0, last = 0;

    if (!segment->is_hot || segment->is_blob || segment->is_chained || !segment->has_header)
        return false;
    for (uint32_t i = 0; i < shard->count; i++) {
        if (!shard->segments[i].is_chained || shard->segments[i].is_blob)
            continue;
        first = first == 0 ? shard->segments[i].sequence : first;
        last = shard->segments[i].sequence;
    }
    return segment->sequence > first && segment->sequence < last;
}

static void hot_begins(struct reading *reading)
{
    const struct shard_segment *segment = reading->segment;

    if (!is_log(reading))
        return;
    if (reading->last_sequence != 0 && (!segment->has_header || segment->header.prev_sequence != reading->last_sequence))
        reading->is_broken = true; /* one before it is missing, or this one cannot say */
    reading->last_sequence = segment->sequence;
}

static int segment_take(struct reading *reading)
{
    struct salvage *salvage = reading->salvage;
    struct shard_segment *segment = reading->segment;
    int err;

    if (segment->is_free || is_passed(salvage->shard, segment))
        return 0;
    hot_begins(reading);
    err = shard_load(salvage->shard, segment);
    if (err != 0) {
        damage(salvage, segment, 0, segment->size, err_text(err));
        return err == ERR_FULL ? err : 0;
    }
    progress_add(salvage->progress, segment->size);
    if (!segment->has_header)
        damage(salvage, segment, 0, PAGE_SIZE_, "the header does not verify");
    segment_read(reading);
    return salvage->is_out_of_memory ? ERR_FULL : 0;
}

/* What the next segment, a free one or MANIFEST knows to have been durable, where the log does not come to it: the newest
 * segment is missing. */
static void end_check(struct salvage *salvage, const struct reading *reading)
{
    struct shard *shard = salvage->shard;
    uint64_t last = MAX(salvage->hot_lsn, salvage->has_checkpoint ? salvage->checkpoint.lsn_max : 0);

    for (uint32_t i = 0; i < shard->count; i++)
        if (shard->segments[i].has_header && (shard->segments[i].is_hot || shard->segments[i].is_free))
            salvage->durable_lsn = MAX(salvage->durable_lsn, shard->segments[i].header.mark);
    if (salvage->durable_lsn > last) {
        report_damage(shard->report, shard->dir, 0, "the log ends at lsn %llu, and %llu was durable: a segment is missing",
                      (unsigned long long)last, (unsigned long long)salvage->durable_lsn);
        range_add(salvage, last + 1, 0);
    } else if (reading->is_broken) {
        range_add(salvage, reading->last_lsn + 1, 0);
    }
}

/* ---- the checkpoint --------------------------------------------------------------------------- */

static int known_add(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash)
{
    struct salvage *salvage = arg;

    MAYBE(page);
    if (salvage->known_count == salvage->known_cap) {
        size_t cap = MAX((size_t)1024, 2 * salvage->known_cap);
        struct salvage_known *grown = mem_realloc(salvage->known, cap * sizeof(*grown));

        if (grown == NULL)
            return ERR_FULL;
        salvage->known = grown;
        salvage->known_cap = cap;
    }
    salvage->known[salvage->known_count++] = (struct salvage_known){
        .hash = hash, .lsn = key->lsn, .image_lsn = key->image_lsn, .base_lsn = key->base_lsn,
        .db = key->db, .has_chain = key->has_chain,
    };
    return 0;
}

static int by_hash(const void *a, const void *b)
{
    uint64_t x = ((const struct salvage_known *)a)->hash, y = ((const struct salvage_known *)b)->hash;

    return x < y ? -1 : x > y;
}

struct salvage_known *salvage_known_find(struct salvage *salvage, uint64_t hash)
{
    struct salvage_known wanted = {.hash = hash};

    if (salvage->known_count == 0)
        return NULL;
    return bsearch(&wanted, salvage->known, salvage->known_count, sizeof(wanted), by_hash);
}

static int checkpoint_read(struct salvage *salvage)
{
    struct shard_checkpoint found[2];
    unsigned count;
    int err;

    if (salvage->shard->file.shard_count == 0) /* the seed that its pages go by is lost with the file "shard" */
        return 0;
    count = shard_checkpoints(salvage->shard, found);
    if (count > 1)
        shard_checkpoint_free(&found[1]);
    if (count == 0)
        return 0;
    salvage->checkpoint = found[0];
    err = shard_checkpoint_each(salvage->shard, &salvage->checkpoint, known_add, salvage);
    if (err == ERR_FULL)
        return err;
    if (err != 0) /* the file cannot be opened: told by nobody yet */
        return 0;
    salvage->has_checkpoint = true;
    salvage->durable_lsn = checkpoint_slot_durable(&salvage->checkpoint.slot);
    memcpy(salvage->flush_lsn, salvage->checkpoint.meta.flush_lsn, sizeof(salvage->flush_lsn));
    memcpy(salvage->places, salvage->checkpoint.meta.places, sizeof(salvage->places));
    salvage->swap_lsn = salvage->checkpoint.meta.swap_lsn;
    salvage->lsn_max = MAX(salvage->checkpoint.lsn_max, salvage->checkpoint.meta.lsn);
    salvage->epoch_max = salvage->checkpoint.meta.epoch;
    if (salvage->known_count > 0)
        qsort(salvage->known, salvage->known_count, sizeof(*salvage->known), by_hash);
    return 0;
}

static bool is_log_whole(const struct shard *shard)
{
    for (uint32_t i = 0; i < shard->count; i++) {
        const struct shard_segment *segment = &shard->segments[i];

        if (segment->is_chained && !segment->is_blob)
            return segment->header.prev_sequence == 0 || segment->header.prev_sequence < shard->hot_from ||
                   segment->sequence <= shard->hot_from;
    }
    return false;
}

int salvage_read(struct salvage *salvage)
{
    struct shard *shard = salvage->shard;
    struct reading reading = {.salvage = salvage};
    int err = checkpoint_read(salvage);

    if (err == 0)
        err = identities_find(salvage);
    shard->hot_from = salvage->has_checkpoint ? salvage->checkpoint.meta.hot_from : 0;
    shard_chain_find(shard);
    salvage->is_log_whole = is_log_whole(shard);
    progress_start(salvage->progress, "reading", shard->bytes);
    for (uint32_t i = 0; i < shard->count && err == 0; i++) {
        reading.segment = &shard->segments[i];
        reading.index = i;
        err = segment_take(&reading);
    }
    progress_clear(salvage->progress);
    end_check(salvage, &reading);
    return err;
}
