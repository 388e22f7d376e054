/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weirctl verify: everything that has a checksum or refers to something else.
 *
 *     MANIFEST ──> META ──> pages ──> every key's address ──────┐
 *     segments, by sequence: header, footer, page writes,       v
 *         frames, records ──> is there a record with that key and LSN at that place?
 *     hot log: each frame's chain continues the one before it, over segments and blobs; each segment's link
 *
 * The rules are recovery's (backend/store/log_recover.c), with two differences: nothing is stopped by damage, what is
 * behind it is looked at as well; and what a recovery would not read is checked too. A tail that does not verify is
 * torn, not damaged, if no page write anywhere knows an LSN as durable that is missing then.
 *
 * Addresses wait, sorted, until the walk comes by: 24 bytes a key.
 *
 *   W1  A segment that the newest checkpoint names may be gone, as the cleaner gives one back when the log says what became
 *       of the keys in it (backend/store/cleaner_give.c). So a place in it is no damage if the log since the checkpoint
 *       has that key's record elsewhere (a copy: the same LSN), a later record that does not build on it, or a later flush
 *       of its database.
 *   W2  Such places wait by hash; only if there are any is every record's key hashed. A delta builds on what lies there,
 *       if it is of the same incarnation. A copy counts where a recovery takes it for news, not one that lay there when
 *       the checkpoint chose another place.
 *   W3  Of a node that runs, what is given back or begun during the walk is not judged; nor is, then, a place without a
 *       record: its copy may lie where the walk has been. It is looked at again.
 *   W4  What only the log ring of a killed node has is no damage, and no part of the directory: it is told. A ring that
 *       does not verify, or lacks what it promises, is damage: a start may be refused for it. So is a ring with rights for
 *       others, or a node.id that does not name one.
 */
#include "ctl/verify.h"

#include "backend/store/key_hash.h"
#include "backend/store/ring.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "ctl/ctl.h"
#include "ctl/range.h"
#include "ctl/ring.h"
#include "ctl/source.h"

#include <stdlib.h>

struct place {
    uint64_t address; /* 0: W1, and one of its records was met */
    uint64_t lsn : 56, db : 8;
    uint64_t hash;
};
_Static_assert(sizeof(struct place) == 24 && STORE_LSN_MAX < 1ull << 56, "as the manual says");

struct verify {
    struct shard *shard;
    struct progress *progress;
    struct verify_summary *sum;
    struct place *places; /* owns; by address */
    size_t place_count, place_cap, place_at;
    struct place *gone;   /* owns; by hash: W1 */
    size_t gone_count;
    uint64_t flush_lsn[STORE_DBS]; /* of records that were met */
    struct checkpoint_meta base;   /* of the newest checkpoint */
    bool has_vanished;    /* W3 */
    /* The hot log, as log_recover.c has it: behind the last whole unit, and behind the last frame. */
    uint64_t chain, lsn, pending_chain, pending_lsn;
    bool has_chain;       /* it is known what must come next */
    uint64_t mark;        /* highest LSN that is known to have been durable */
    const struct shard_segment *torn_in;
    uint64_t torn_at;
};

static void damage(struct verify *v, const struct shard_segment *segment, uint64_t off, const char *what)
{
    char path[SHARD_PATH_MAX];

    progress_clear(v->progress);
    shard_path(v->shard, segment->name, path);
    report_damage(v->shard->report, path, off, "%s", what);
}

/* ---- what the checkpoint says ----------------------------------------------------------------- */

static int place_add(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash)
{
    struct verify *v = arg;

    MAYBE(page);
    if (key->has_chain && key->image_lsn == 0) /* its first delta creates it */
        return 0;
    if (v->place_count == v->place_cap) {
        size_t cap = MAX((size_t)1024, 2 * v->place_cap);
        struct place *grown = mem_realloc(v->places, cap * sizeof(*grown));

        if (grown == NULL)
            return ERR_FULL;
        v->places = grown;
        v->place_cap = cap;
    }
    v->places[v->place_count++] = (struct place){
        .address = key->address, .lsn = key->has_chain ? key->image_lsn : key->lsn, .db = key->db, .hash = hash,
    };
    return 0;
}

static int by_address(const void *a, const void *b)
{
    uint64_t x = ((const struct place *)a)->address, y = ((const struct place *)b)->address;

    return x < y ? -1 : x > y;
}

static int by_hash(const void *a, const void *b)
{
    uint64_t x = ((const struct place *)a)->hash, y = ((const struct place *)b)->hash;

    return x < y ? -1 : x > y;
}

static bool is_there(const struct shard *shard, uint64_t sequence)
{
    uint32_t low = 0, high = shard->count;

    while (low < high) { /* free ones come first */
        uint32_t middle = low + (high - low) / 2;

        if (shard->segments[middle].is_free || shard->segments[middle].sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < shard->count && shard->segments[low].sequence == sequence;
}

/* Those whose segment is not there, to a list of their own (W1). */
static int places_part(struct verify *v)
{
    size_t kept = 0, gone = 0;

    for (size_t i = 0; i < v->place_count; i++)
        gone += !is_there(v->shard, address_sequence(v->places[i].address));
    if (gone == 0)
        return 0;
    v->gone = mem_alloc(gone * sizeof(*v->gone));
    if (v->gone == NULL)
        return ERR_FULL;
    for (size_t i = 0; i < v->place_count; i++) {
        if (is_there(v->shard, address_sequence(v->places[i].address)))
            v->places[kept++] = v->places[i];
        else
            v->gone[v->gone_count++] = v->places[i];
    }
    v->place_count = kept;
    qsort(v->gone, v->gone_count, sizeof(*v->gone), by_hash);
    return 0;
}

static int checkpoints_check(struct verify *v)
{
    struct shard_checkpoint checkpoints[2];
    unsigned count = shard_checkpoints(v->shard, checkpoints);
    int err = 0;

    for (unsigned i = 0; i < count; i++) {
        struct shard_checkpoint *c = &checkpoints[i];

        if (i == 0) {
            v->shard->hot_from = c->meta.hot_from;
            v->sum->keys = c->meta.keys;
            v->sum->generation = c->slot.generation;
            v->base = c->meta;
        }
        /* The older one's pages lie in the same file, or in one that may be out of date: only its places are not
         * asked for, as what they name may have been given back. */
        if (err == 0)
            err = shard_checkpoint_each(v->shard, c, i == 0 ? place_add : NULL, v);
        shard_checkpoint_free(c);
    }
    if (v->place_count > 0)
        qsort(v->places, v->place_count, sizeof(*v->places), by_address);
    return err != 0 ? err : places_part(v);
}

/* The generation that the MANIFEST has now. */
static uint64_t generation_now(struct shard *shard)
{
    struct shard_checkpoint checkpoints[2];
    struct report silent = *shard->report, *told = shard->report;
    unsigned count;
    uint64_t generation;

    silent.lines_max = 1;
    silent.damages = 1;
    shard->report = &silent;
    count = shard_checkpoints(shard, checkpoints);
    shard->report = told;
    generation = count > 0 ? checkpoints[0].slot.generation : 0;
    for (unsigned i = 0; i < count; i++)
        shard_checkpoint_free(&checkpoints[i]);
    return generation;
}

static void place_missing(struct verify *v, const struct shard_segment *segment, const struct place *place)
{
    char path[SHARD_PATH_MAX];

    if (segment != NULL)
        shard_path(v->shard, segment->name, path);
    else
        (void)snprintf(path, sizeof(path), "%s/(segment %llu)", v->shard->dir,
                       (unsigned long long)address_sequence(place->address));
    progress_clear(v->progress);
    report_damage(v->shard->report, path, address_off(place->address),
                  "a key of the checkpoint has no record here: lsn %llu", (unsigned long long)place->lsn);
}

/* Places before `address` were not met. */
static void places_skip(struct verify *v, const struct shard_segment *segment, uint64_t address)
{
    for (; v->place_at < v->place_count && v->places[v->place_at].address < address; v->place_at++)
        place_missing(v, segment != NULL && segment->sequence == address_sequence(v->places[v->place_at].address)
                             ? segment
                             : NULL,
                      &v->places[v->place_at]);
}

static void place_check(struct verify *v, const struct shard_segment *segment, uint64_t address,
                        const struct record *record)
{
    places_skip(v, segment, address);
    for (; v->place_at < v->place_count && v->places[v->place_at].address == address; v->place_at++) {
        const struct place *place = &v->places[v->place_at];

        if (record->lsn != place->lsn ||
            key_hash(shard_hash_seed(v->shard), record->db, record->key) != place->hash)
            place_missing(v, segment, place);
    }
}

/* ---- places that are gone (W1) ---------------------------------------------------------------- */

/* Whether a recovery finds the key by this record, or knows by it that what lay at the place is out of date. */
static bool is_answer(const struct verify *v, const struct place *place, const struct record *record, uint64_t address,
                      bool is_cold)
{
    if (record->db != place->db)
        return false;
    switch ((enum record_type)record->type) {
    case RECORD_SET:
    case RECORD_IMAGE:
        return record->lsn > place->lsn ||
               (record->lsn == place->lsn && is_cold && checkpoint_meta_is_since(&v->base, address));
    case RECORD_TOMB:
        return record->lsn > place->lsn;
    case RECORD_DELTA:
        return (record->base_lsn != 0 ? record->base_lsn : record->lsn) > place->lsn; /* W2 */
    case RECORD_NONE:
    case RECORD_FLUSH:
    case RECORD_NOP:
    case RECORD_SWAP:
    case RECORD_TYPE_COUNT:
        break;
    }
    return false;
}

static size_t gone_find(const struct verify *v, uint64_t hash)
{
    size_t low = 0, high = v->gone_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (v->gone[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void gone_check(struct verify *v, const struct shard_segment *segment, uint64_t address,
                       const struct record *record)
{
    uint64_t hash;

    if (v->gone_count == 0 || segment->sequence < (segment->is_hot ? v->base.hot_from : v->base.cold_from))
        return;
    if (record->type == RECORD_FLUSH) {
        for (uint8_t db = 0; db < STORE_DBS; db++)
            if (record->db == db || record->db == STORE_DBS)
                v->flush_lsn[db] = MAX(v->flush_lsn[db], record->lsn);
        return;
    }
    hash = key_hash(shard_hash_seed(v->shard), record->db, record->key);
    for (size_t i = gone_find(v, hash); i < v->gone_count && v->gone[i].hash == hash; i++)
        if (is_answer(v, &v->gone[i], record, address, !segment->is_hot))
            v->gone[i].address = 0;
}

/* When all records were met. */
static void gone_judge(struct verify *v)
{
    if (v->gone_count > 0)
        qsort(v->gone, v->gone_count, sizeof(*v->gone), by_address);
    for (size_t i = 0; i < v->gone_count; i++) {
        if (v->gone[i].address != 0 && v->gone[i].lsn > v->flush_lsn[v->gone[i].db])
            place_missing(v, NULL, &v->gone[i]);
        else
            v->sum->gone++;
    }
}

/* ---- a page write ----------------------------------------------------------------------------- */

static void frame_count(struct verify *v, const struct shard_page *page, const struct frame *frame, size_t at)
{
    struct bytes rest = frame_records(bytes_skip(page->data, at), frame);
    uint64_t off = page->off + at + FRAME_HEADER_SIZE;

    v->sum->frames++;
    if (frame->wall_ms != 0 && page->segment->is_hot) {
        if (v->sum->wall_first_ms == 0 || frame->wall_ms < v->sum->wall_first_ms)
            v->sum->wall_first_ms = frame->wall_ms;
        v->sum->wall_last_ms = MAX(v->sum->wall_last_ms, frame->wall_ms);
    }
    while (rest.len > 0) {
        struct record record;
        size_t size = record_decode(rest, &record);
        uint64_t address = page->segment->sequence << STORE_LOG_OFF_BITS | off >> 4;

        place_check(v, page->segment, address, &record);
        gone_check(v, page->segment, address, &record);
        v->sum->records++;
        v->sum->record_bytes += size;
        off += size;
        rest = bytes_skip(rest, size);
    }
}

/* ---- the hot log ------------------------------------------------------------------------------ */

static bool frame_fits(const struct verify *v, const struct frame *frame)
{
    uint64_t lsn = v->pending_lsn;

    if (frame->chain_before != v->pending_chain) {
        if (frame->chain_before != v->chain)
            return false;
        lsn = v->lsn;
    }
    return frame->first_lsn > lsn || (frame->record_count == 0 && frame->first_lsn == lsn);
}

static void frame_take(struct verify *v, const struct frame *frame)
{
    v->pending_chain = frame->chain;
    v->pending_lsn = frame->last_lsn;
    if ((frame->flags & FRAME_CONTINUES) == 0) {
        v->chain = v->pending_chain;
        v->lsn = v->pending_lsn;
    }
}

/* Blobs whose frames come next. Their bytes are checked when the walk comes to their segments. */
static bool blobs_take(struct verify *v)
{
    bool has_any = false;

    for (uint32_t i = 0; i < v->shard->count; i++) {
        struct shard_segment *blob = &v->shard->segments[i];

        if (blob->is_free || !blob->is_blob || !blob->is_hot || !blob->has_page || blob->is_chained ||
            blob->frame.chain == 0 || blob->header.chain_before != v->pending_chain || !frame_fits(v, &blob->frame))
            continue;
        blob->is_chained = true;
        frame_take(v, &blob->frame);
        has_any = true;
        i = UINT32_MAX; /* the next one may have any sequence */
    }
    return has_any;
}

/* Whether what is behind `off` was let go of when the next segment was opened. */
static bool was_cut(const struct verify *v, const struct shard_segment *segment, uint64_t off)
{
    const struct shard_segment *next = segment->next;

    return next != NULL && next->header.prev_end == off &&
           (next->header.chain_before == v->pending_chain || next->header.chain_before == v->chain);
}

/* What a recovery would not read, or what comes after damage: the chain starts anew. */
static void chain_restart(struct verify *v, const struct frame *frame)
{
    v->chain = v->pending_chain = frame->chain_before;
    v->lsn = v->pending_lsn = frame->first_lsn - (frame->record_count > 0 && frame->first_lsn > 0);
    v->has_chain = true;
}

/* The frames of a hot page write. False: the log ended inside of it. */
static bool hot_frames(struct verify *v, const struct shard_page *page)
{
    const struct shard_segment *segment = page->segment;
    uint64_t end = page->off + page_size(&page->page);
    size_t at = PAGE_HEADER_SIZE;

    while (at < page->data.len) {
        struct frame frame;
        bool is_frame = frame_decode(bytes_skip(page->data, at), &frame);

        ASSERT(is_frame);
        if (!v->has_chain)
            chain_restart(v, &frame);
        if (!frame_fits(v, &frame) && !(blobs_take(v) && frame_fits(v, &frame))) {
            if (was_cut(v, segment, end))
                return false;
            if (segment->next == NULL && !segment->is_footed) {
                v->torn_in = segment;
                v->torn_at = page->off;
                return false;
            }
            if (segment->sequence >= v->shard->hot_from)
                damage(v, segment, page->off + at, "a frame does not continue the one before it");
            chain_restart(v, &frame);
        }
        frame_take(v, &frame);
        frame_count(v, page, &frame, at);
        at += frame.size;
    }
    return true;
}

/* At the end of a hot segment, what comes next must fit. */
static void hot_ended(struct verify *v, const struct shard_segment *segment, uint64_t off)
{
    const struct shard_segment *next = segment->next;

    if (!v->has_chain)
        return;
    while (!was_cut(v, segment, off) && blobs_take(v))
        ;
    if (next == NULL)
        return;
    if (next->header.chain_before != v->pending_chain && next->header.chain_before != v->chain) {
        if (next->sequence > v->shard->hot_from && segment->sequence >= v->shard->hot_from)
            damage(v, next, 0, "it does not continue the segment before it");
        v->has_chain = false;
    } else if (next->header.chain_before != v->pending_chain) { /* a unit that never ended was let go of */
        v->pending_chain = v->chain;
        v->pending_lsn = v->lsn;
    }
}

static void hot_begins(struct verify *v, const struct shard_segment *segment)
{
    v->mark = MAX(v->mark, segment->header.mark);
    if (v->has_chain && segment->is_chained && segment->header.chain_before == v->pending_chain)
        return;
    v->has_chain = segment->has_header;
    v->chain = v->pending_chain = segment->header.chain_before;
    v->lsn = v->pending_lsn = segment->header.first_lsn > 0 ? segment->header.first_lsn - 1 : 0;
}

/* ---- a segment -------------------------------------------------------------------------------- */

static void marks_see(struct verify *v, const struct shard_segment *segment, const struct page *page, uint64_t *cold)
{
    if (segment->is_hot)
        v->mark = MAX(v->mark, page->mark);
    else
        *cold = MAX(*cold, page->mark);
}

/* The frames of a cold one, of a blob, of one that the hot log does not lead through. */
static void loose_frames(struct verify *v, const struct shard_page *page)
{
    size_t at = PAGE_HEADER_SIZE;

    while (at < page->data.len) {
        struct frame frame;

        if (!frame_decode(bytes_skip(page->data, at), &frame))
            return;
        frame_count(v, page, &frame, at);
        at += frame.size;
    }
}

/* The rest of a segment that has no footer and whose page write at `off` is none. */
static void tail_check(struct verify *v, const struct shard_segment *segment, uint64_t off, uint64_t cold_mark)
{
    uint64_t end = segment->size - PAGE_SIZE_, at = off;

    for (;;) {
        struct page page;

        at = shard_page_find(v->shard, segment, at, end);
        if (at >= end || !page_decode(v->shard->data + at, &page))
            break;
        marks_see(v, segment, &page, &cold_mark);
        at += page_size(&page);
    }
    if (segment->is_blob && segment->is_hot) {
        if (segment->is_chained && (v->lsn > segment->frame.last_lsn || v->mark >= segment->frame.first_lsn))
            damage(v, segment, off, "a page write that was durable does not verify");
        else
            v->sum->torn++;
    } else if (segment->is_hot && segment->is_chained && segment->next == NULL) {
        v->torn_in = segment; /* judged at the end, when all marks are known */
        v->torn_at = off;
    } else if (!segment->is_hot && cold_mark > off && !v->shard->is_running) {
        damage(v, segment, off, "a page write that was durable does not verify");
    }
}

/* A power cut may take a segment's beginning before anything in it is durable; page writes behind it know of more. */
static bool is_begin_torn(const struct verify *v, const struct shard_segment *segment)
{
    uint64_t end = segment->size - PAGE_SIZE_, off = PAGE_SIZE_, mark = 0, first = 0;
    struct page page;
    struct frame frame;

    while ((off = shard_page_find(v->shard, segment, off, end)) < end && page_decode(v->shard->data + off, &page)) {
        if (first == 0 && frame_header_decode(v->shard->data + off + PAGE_HEADER_SIZE, &frame))
            first = frame.first_lsn;
        mark = MAX(mark, page.mark);
        off += page_size(&page);
    }
    return first == 0 || (segment->is_hot ? mark < first : mark == 0);
}

/* False: nothing in it counts. */
static bool header_check(struct verify *v, const struct shard_segment *segment)
{
    if (!segment->has_header && !segment->is_footed && is_begin_torn(v, segment)) {
        v->sum->torn++;
        return false;
    }
    if (!segment->has_header) {
        damage(v, segment, 0, "a segment's header does not verify");
        return true;
    }
    if (segment->is_foot_bad)
        damage(v, segment, segment->size - PAGE_SIZE_, "a footer does not verify");
    if (segment->is_footed &&
        (segment->footer.kind != segment->header.kind || segment->footer.shard != segment->header.shard))
        damage(v, segment, segment->size - PAGE_SIZE_, "a footer of another segment");
    return true;
}

static void footer_check(struct verify *v, const struct shard_segment *segment, uint64_t records_before,
                         uint64_t bytes_before, bool is_whole)
{
    const struct segment_footer *footer = &segment->footer;

    if (!segment->is_footed || !is_whole)
        return;
    if (footer->record_count != v->sum->records - records_before ||
        footer->record_bytes != v->sum->record_bytes - bytes_before)
        damage(v, segment, segment->size - PAGE_SIZE_, "the footer counts other records than there are");
}

/* Given back or begun meanwhile, by a node that runs (W3). */
static void pass_over(struct verify *v, const struct shard_segment *segment)
{
    v->has_vanished = true;
    while (v->place_at < v->place_count && address_sequence(v->places[v->place_at].address) == segment->sequence)
        v->place_at++;
}

static void segment_walk(struct verify *v, const struct shard_segment *segment)
{
    bool is_log = segment->is_hot && !segment->is_blob && segment->is_chained, is_whole = true;
    uint64_t end = shard_segment_end(v->shard, segment), off = PAGE_SIZE_, cold_mark = 0;
    uint64_t records = v->sum->records, bytes = v->sum->record_bytes;

    if (is_log)
        hot_begins(v, segment);
    while (off < end) {
        struct shard_page page;
        bool has_header;
        const char *what = shard_page_at(v->shard, segment, off, &page, &has_header);

        if (what == NULL) {
            marks_see(v, segment, &page.page, &cold_mark);
            v->sum->pages++;
            if (!is_log)
                loose_frames(v, &page);
            else if (!hot_frames(v, &page))
                is_whole = false;
            off += page_size(&page.page);
            if (is_whole || !is_log)
                continue;
            break;
        }
        is_whole = false;
        if (!segment->is_footed && (!is_log || segment->next == NULL)) {
            tail_check(v, segment, off, cold_mark);
            break;
        }
        damage(v, segment, off, what);
        v->has_chain = false; /* what comes next has lost what was before it */
        off = has_header ? off + page_size(&page.page) : shard_page_find(v->shard, segment, off + PAGE_SIZE_, end);
    }
    if (is_log)
        hot_ended(v, segment, off);
    footer_check(v, segment, records, bytes, is_whole && off == segment->footer.used_bytes);
    places_skip(v, segment, (segment->sequence + 1) << STORE_LOG_OFF_BITS);
}

/* Hot, and the log does not lead through it: opened by a process that died before it wrote, or cut off. */
static bool is_abandoned(const struct shard *shard, const struct shard_segment *segment)
{
    uint64_t first = UINT64_MAX;

    if (!segment->is_hot || segment->is_blob || segment->is_chained || !segment->has_header)
        return false;
    for (uint32_t i = 0; i < shard->count && first == UINT64_MAX; i++)
        if (shard->segments[i].is_chained && !shard->segments[i].is_blob)
            first = shard->segments[i].sequence;
    return segment->sequence >= first;
}

/* Nothing was in it yet when the directory was looked at, and the log had not come to it. */
static bool is_newest_hot(const struct shard *shard, const struct shard_segment *segment)
{
    if (!segment->is_hot || segment->is_blob || segment->is_chained)
        return false;
    for (uint32_t i = 0; i < shard->count; i++)
        if (shard->segments[i].is_chained && !shard->segments[i].is_blob &&
            shard->segments[i].sequence >= segment->sequence)
            return false;
    return true;
}

static int segment_check(struct verify *v, struct shard_segment *segment)
{
    int err;

    if (segment->is_free) {
        v->sum->free_segments++;
        return 0;
    }
    places_skip(v, NULL, segment->sequence << STORE_LOG_OFF_BITS);
    err = shard_load(v->shard, segment);
    if (v->shard->is_running && (err == -ENOENT || (err == 0 && !shard_is_still(v->shard, segment)))) {
        pass_over(v, segment);
        return 0;
    }
    if (err != 0)
        return err;
    if (v->shard->is_running && is_newest_hot(v->shard, segment)) {
        pass_over(v, segment);
    } else if (is_abandoned(v->shard, segment)) {
        v->sum->abandoned++;
        if (!is_begin_torn(v, segment))
            damage(v, segment, PAGE_SIZE_, "page writes that were durable, which nothing leads to");
    } else {
        v->sum->segments++;
        if (header_check(v, segment))
            segment_walk(v, segment);
    }
    progress_add(v->progress, segment->size);
    return 0;
}

/* ---- all of it -------------------------------------------------------------------------------- */

static void torn_judge(struct verify *v)
{
    if (v->torn_in == NULL)
        return;
    if (v->mark > v->lsn && !v->shard->is_running)
        damage(v, v->torn_in, v->torn_at, "the log ends before an LSN that was durable");
    else
        v->sum->torn++;
}

/* W4, when all of the log was seen. */
static void ring_judge(struct verify *v, const struct ring *ring)
{
    uint64_t bad_off, lsn = MAX(v->lsn, v->base.lsn);
    uint32_t count;
    struct ring_frame *frames = ring_frames(ring->data, ring->page_count, &count, &bad_off);

    count = ring_frames_choose(frames, count, v->chain, v->pending_chain);
    for (uint32_t i = 0; i < count; i++)
        v->sum->ring_records += frames[i].frame.record_count;
    if (count > 0)
        lsn = MAX(lsn, frames[count - 1].frame.last_lsn);
    if ((ring->mode & 077) != 0)
        report_damage(v->shard->report, ring->path, 0, "its mode is %04o, a start refuses it until that is 0600", ring->mode);
    if (bad_off != 0)
        report_damage(v->shard->report, ring->path, bad_off, "a frame in the log ring does not verify");
    if (lsn < ring->appended)
        report_damage(v->shard->report, ring->path, 0, "the log ring promises lsn %llu, and it and the files end at %llu",
                      (unsigned long long)ring->appended, (unsigned long long)lsn);
    v->sum->ring_lsn = count > 0 ? lsn : 0;
    mem_free(frames);
}

static int ring_check(struct verify *v)
{
    struct ring ring;
    int err;

    if (v->shard->is_running)
        return 0;
    err = ring_open(v->shard, &ring);
    v->sum->has_ring = ring.state == RING_THERE;
    if (err == 0 && ring.state == RING_THERE)
        ring_judge(v, &ring);
    if (err == 0 && ring.state == RING_DAMAGED)
        report_damage(v->shard->report, ring.path, 0, "the log ring's header or size is damaged: a start is refused");
    (void)snprintf(v->sum->ring_path, sizeof(v->sum->ring_path), "%s",
                   ring.state == RING_THERE || ring.state == RING_FOREIGN ? ring.path : "");
    ring_close(&ring);
    return err == ERR_CORRUPT ? 0 : err;
}

static void twins_check(struct verify *v)
{
    const struct shard *shard = v->shard;

    for (uint32_t i = 1; i < shard->count; i++)
        if (!shard->segments[i].is_free && !shard->segments[i - 1].is_free &&
            shard->segments[i].sequence == shard->segments[i - 1].sequence)
            damage(v, &shard->segments[i], 0, "another file has the same sequence");
}

int verify_shard(struct shard *shard, struct progress *progress, struct verify_summary *out)
{
    struct verify v = {.shard = shard, .progress = progress, .sum = out};
    uint64_t generation, damages;
    int err;

    *out = (struct verify_summary){0};
    err = checkpoints_check(&v);
    shard_chain_find(shard);
    twins_check(&v);
    generation = out->generation;
    damages = shard->report->damages;
    for (uint32_t i = 0; i < shard->count && err == 0; i++)
        err = segment_check(&v, &shard->segments[i]);
    places_skip(&v, NULL, UINT64_MAX);
    gone_judge(&v);
    torn_judge(&v);
    if (err == 0)
        err = ring_check(&v);
    out->lsn = v.lsn;
    out->lsn_durable = v.mark;
    mem_free(v.places);
    mem_free(v.gone);
    if (err == 0 && shard->is_running && shard->report->damages > damages &&
        (v.has_vanished || generation_now(shard) != generation))
        err = ERR_AGAIN; /* what it gave back meanwhile looks like damage */
    return err;
}

/* ---- the command ------------------------------------------------------------------------------ */

static void summary_print(FILE *out, const struct shard *shard, const struct verify_summary *sum, uint64_t damages)
{
    char bytes[SIZE_TEXT_MAX], first[TIME_TEXT_MAX], last[TIME_TEXT_MAX];

    fprintf(out, "%s: shard %u of %u%s\n", shard->dir, shard->file.shard, shard->file.shard_count,
            shard->is_running ? ", in use by a node: its newest part is still moving" : "");
    fprintf(out, "  segments    %llu in use, %llu free%s\n", (unsigned long long)sum->segments,
            (unsigned long long)sum->free_segments, sum->abandoned > 0 ? ", some abandoned by an earlier start" : "");
    fprintf(out, "  records     %llu, %s\n", (unsigned long long)sum->records, size_text(sum->record_bytes, bytes));
    if (sum->generation != 0)
        fprintf(out, "  checkpoint  generation %llu, %llu keys\n", (unsigned long long)sum->generation,
                (unsigned long long)sum->keys);
    else
        fprintf(out, "  checkpoint  none\n");
    if (sum->gone > 0)
        fprintf(out, "  given back  the segments of %llu of these keys: the log has their copies, or what came later\n",
                (unsigned long long)sum->gone);
    fprintf(out, "  last lsn    %llu\n", (unsigned long long)sum->lsn);
    if (sum->wall_last_ms != 0)
        fprintf(out, "  written     %s to %s\n", time_text(sum->wall_first_ms, first),
                time_text(sum->wall_last_ms, last));
    if (sum->ring_lsn != 0)
        fprintf(out, "  log ring    %llu changes, up to lsn %llu, are only in %s: the next start on this host takes them over\n",
                (unsigned long long)sum->ring_records, (unsigned long long)sum->ring_lsn, sum->ring_path);
    else if (sum->ring_path[0] != '\0')
        fprintf(out, "  log ring    %s %s\n", sum->ring_path,
                sum->has_ring ? "has nothing that the files lack"
                              : "is from before a restart of the host, or has nothing in it: a start does not use it");
    if (sum->torn > 0)
        fprintf(out, "  torn tails  %llu: what was being written when the node ended; nothing durable is missing\n",
                (unsigned long long)sum->torn);
    fprintf(out, "  damage      %llu\n", (unsigned long long)damages);
}

#define TRIES_MAX 5
#define LINES_MAX 100u

/* A node that runs gives segments back while we read: then it is looked at again. */
static int verify_try(const char *dir, FILE *out, uint64_t *damages)
{
    struct report report = {.out = out, .lines_max = LINES_MAX};
    struct progress progress;
    struct verify_summary sum;
    struct shard shard;
    int err = shard_open(dir, &report, &shard);

    *damages = report.damages;
    if (err != 0)
        return err;
    progress_start(&progress, "verify", shard.bytes);
    err = verify_shard(&shard, &progress, &sum);
    progress_clear(&progress);
    if (err == 0)
        summary_print(out, &shard, &sum, report.damages);
    shard_close(&shard);
    *damages = report.damages;
    return err;
}

int verify_directory(const char *dir, FILE *out)
{
    uint64_t damages = 0;
    int err = ERR_AGAIN;

    for (unsigned i = 0; i < TRIES_MAX && err == ERR_AGAIN; i++) {
        char *text = NULL;
        size_t len = 0;
        FILE *memory = open_memstream(&text, &len);

        ASSERT(memory != NULL);
        err = verify_try(dir, memory, &damages);
        fclose(memory);
        if (err != ERR_AGAIN || i + 1 == TRIES_MAX)
            fwrite(text, 1, len, out);
        free(text);
    }
    if (err == ERR_CORRUPT)
        return VERIFY_DAMAGED; /* the file "shard": told */
    if (err != 0) {
        fprintf(stderr, "weirctl: %s: %s\n", dir,
                err == ERR_AGAIN ? "a node that is very busy has it open; verify a backup instead" : err_text(err));
        return VERIFY_UNREADABLE;
    }
    return damages > 0 ? VERIFY_DAMAGED : VERIFY_CLEAN;
}

static int verify_each(void *arg, const char *dir)
{
    int *worst = arg, code;

    code = verify_directory(dir, stdout);
    *worst = MAX(*worst, code);
    return 0;
}

int ctl_verify(const char *dir)
{
    int worst = VERIFY_CLEAN;
    int err = shards_each(dir, stdout, verify_each, &worst);

    if (err == ERR_CORRUPT)
        worst = MAX(worst, (int)VERIFY_DAMAGED);
    else if (err != 0)
        worst = VERIFY_UNREADABLE;
    if (worst == VERIFY_CLEAN && source_taken_ms(dir) != 0)
        range_print(dir);
    return worst;
}
