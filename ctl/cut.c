/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/cut.h"

#include "common/base/err.h"

struct walk {
    struct shard *shard;
    struct progress *progress;
    struct cut_limit limit;
    /* As log_recover.c has it: behind the last whole unit, and behind the last frame. */
    uint64_t chain, lsn, pending_chain, pending_lsn;
    /* Behind the last frame of the log itself (blobs lie elsewhere). */
    const struct shard_segment *segment;
    uint64_t page_off;
    uint32_t frames, used;
    bool is_over; /* the next unit is not within the limit */
    struct cut *cut;
};

/* ---- frames ----------------------------------------------------------------------------------- */

static bool is_within(const struct walk *w, const struct frame *frame)
{
    return w->limit.is_time ? frame->wall_ms <= w->limit.value : frame->last_lsn <= w->limit.value;
}

static bool fits(const struct walk *w, const struct frame *frame)
{
    return frame->chain_before == w->pending_chain || frame->chain_before == w->chain;
}

static void frame_take(struct walk *w, const struct frame *frame)
{
    struct cut *cut = w->cut;

    if (!is_within(w, frame)) {
        w->is_over = true;
        cut->next_ms = frame->wall_ms;
        return;
    }
    w->pending_chain = frame->chain;
    w->pending_lsn = frame->last_lsn;
    if ((frame->flags & FRAME_CONTINUES) != 0)
        return;
    w->chain = frame->chain;
    w->lsn = frame->last_lsn;
    cut->lsn = w->lsn;
    cut->wall_ms = frame->wall_ms;
    cut->segment = w->segment;
    cut->page_off = w->page_off;
    cut->frames = w->frames;
    cut->used = w->used;
}

/* The blobs whose frames come next. */
static bool blobs_take(struct walk *w)
{
    bool has_any = false;

    for (uint32_t i = 0; i < w->shard->count && !w->is_over; i++) {
        struct shard_segment *blob = &w->shard->segments[i];

        if (blob->is_free || !blob->is_blob || !blob->is_hot || !blob->has_page || blob->is_chained ||
            blob->frame.chain == 0 || blob->header.chain_before != w->pending_chain || !fits(w, &blob->frame))
            continue;
        blob->is_chained = true;
        frame_take(w, &blob->frame);
        has_any = true;
        i = UINT32_MAX; /* the next one may have any sequence */
    }
    return has_any;
}

static int damage(struct walk *w, const struct shard_segment *segment, uint64_t off, const char *what)
{
    char path[SHARD_PATH_MAX];

    progress_clear(w->progress);
    shard_path(w->shard, segment->name, path);
    report_damage(w->shard->report, path, off, "%s", what);
    return ERR_CORRUPT;
}

/* Whether what is behind `off` was let go of when the next segment was opened. */
static bool was_cut(const struct walk *w, const struct shard_segment *segment, uint64_t off)
{
    const struct shard_segment *next = segment->next;

    return next != NULL && next->header.prev_end == off &&
           (next->header.chain_before == w->pending_chain || next->header.chain_before == w->chain);
}

/* ERR_EOF: the log ended inside of it. */
static int page_walk(struct walk *w, const struct shard_page *page)
{
    const struct shard_segment *segment = page->segment;
    size_t at = PAGE_HEADER_SIZE;

    for (uint32_t i = 0; at < page->data.len && !w->is_over; i++) {
        struct frame frame;
        bool is_frame = frame_decode(bytes_skip(page->data, at), &frame);

        ASSERT(is_frame);
        if (!fits(w, &frame) && !(blobs_take(w) && (w->is_over || fits(w, &frame)))) {
            if (was_cut(w, segment, page->off + page_size(&page->page)) ||
                (segment->next == NULL && !segment->is_footed))
                return ERR_EOF;
            return damage(w, segment, page->off + at, "a frame does not continue the one before it");
        }
        if (w->is_over)
            break;
        at += frame.size;
        w->segment = segment;
        w->page_off = page->off;
        w->frames = i + 1;
        w->used = (uint32_t)at;
        frame_take(w, &frame);
    }
    return 0;
}

static int segment_walk(struct walk *w, const struct shard_segment *segment)
{
    uint64_t end = shard_segment_end(w->shard, segment), off = PAGE_SIZE_;
    int err = shard_load(w->shard, segment);

    w->segment = segment;
    w->page_off = 0;
    w->frames = w->used = 0;
    while (err == 0 && off < end && !w->is_over) {
        struct shard_page page;
        bool has_header;
        const char *what = shard_page_at(w->shard, segment, off, &page, &has_header);

        if (what != NULL && !segment->is_footed && segment->next == NULL)
            break; /* torn: nothing of it was durable, or verify would say so */
        if (what != NULL)
            return damage(w, segment, off, what);
        err = page_walk(w, &page);
        off += page_size(&page.page);
    }
    progress_add(w->progress, segment->size);
    if (err != 0 && err != ERR_EOF)
        return err;
    while (!w->is_over && !was_cut(w, segment, off) && blobs_take(w))
        ;
    return 0;
}

/* ---- the log ---------------------------------------------------------------------------------- */

static struct shard_segment *first_of(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->count; i++)
        if (shard->segments[i].is_chained && !shard->segments[i].is_blob &&
            shard->segments[i].sequence >= shard->hot_from)
            return &shard->segments[i];
    return NULL;
}

static uint64_t bytes_from(const struct shard_segment *segment)
{
    uint64_t bytes = 0;

    for (; segment != NULL; segment = segment->next)
        bytes += segment->size;
    return bytes;
}

uint64_t cut_floor(const struct shard *shard, const struct shard_checkpoint *base)
{
    return MAX(base != NULL ? base->lsn_max : 0, shard->given_lsn);
}

int cut_find(struct shard *shard, const struct shard_checkpoint *base, const struct cut_limit *limit,
             struct progress *progress, struct cut *out)
{
    struct walk w = {.shard = shard, .progress = progress, .limit = *limit, .cut = out};
    uint64_t damages = shard->report->damages;
    struct shard_segment *first;
    int err = 0;

    shard->hot_from = base != NULL ? base->meta.hot_from : 0;
    shard_chain_find(shard);
    first = first_of(shard);
    *out = (struct cut){.is_whole = true, .lsn = base != NULL ? base->lsn_max : 0};
    if (shard->report->damages != damages)
        return ERR_CORRUPT;
    if (first == NULL) /* nothing since the checkpoint */
        return limit->is_time || cut_floor(shard, base) <= limit->value ? 0 : ERR_INVALID;
    if (base == NULL && first->header.prev_sequence != 0)
        return damage(&w, first, 0, "the beginning of the log is missing, and there is no checkpoint");
    out->first_sequence = first->sequence;
    out->lsn = first->header.first_lsn - (first->header.first_lsn > 0);
    w.chain = w.pending_chain = first->header.chain_before;
    w.lsn = w.pending_lsn = out->lsn;
    progress_start(progress, "reading", bytes_from(first));
    for (const struct shard_segment *s = first; s != NULL && err == 0 && !w.is_over; s = s->next)
        err = segment_walk(&w, s);
    progress_clear(progress);
    out->is_whole = !w.is_over;
    if (err == 0 && w.is_over && out->lsn < cut_floor(shard, base)) /* Q2 */
        err = ERR_INVALID;
    return err;
}

/* ---- what stays ------------------------------------------------------------------------------- */

enum cut_part cut_part_of(const struct cut *cut, const struct shard_segment *segment)
{
    if (cut->is_whole || !segment->is_hot)
        return CUT_ALL;
    if (segment->is_blob)
        return segment->has_page && segment->frame.last_lsn <= cut->lsn ? CUT_ALL : CUT_NONE;
    if (segment->sequence < cut->first_sequence)
        return CUT_ALL;
    if (!segment->is_chained || cut->segment == NULL || segment->sequence > cut->segment->sequence)
        return CUT_NONE;
    return segment->sequence == cut->segment->sequence ? CUT_SOME : CUT_ALL;
}

static void footer_count(struct segment_footer *footer, const struct shard_page *page)
{
    struct bytes rest = bytes_skip(page->data, PAGE_HEADER_SIZE);

    while (rest.len > 0) {
        struct frame frame;
        struct bytes records;
        bool is_frame = frame_decode(rest, &frame);

        ASSERT(is_frame);
        footer->chain = frame.chain;
        for (records = frame_records(rest, &frame); records.len > 0;) {
            struct record record;
            size_t size = record_decode(records, &record);

            ASSERT(size > 0);
            footer->record_count++;
            footer->record_bytes += size;
            footer->first_lsn = footer->first_lsn == 0 ? record.lsn : MIN(footer->first_lsn, record.lsn);
            footer->last_lsn = MAX(footer->last_lsn, record.lsn);
            footer->expire_max_ms =
                MAX(footer->expire_max_ms, record.expire_ms != 0 ? record.expire_ms : UINT64_MAX);
            records = bytes_skip(records, size);
        }
        rest = bytes_skip(rest, frame.size);
    }
}

int cut_compose(struct shard *shard, const struct cut *cut)
{
    const struct shard_segment *segment = cut->segment;
    struct segment_footer footer = {
        .kind = segment->header.kind, .class = segment->header.class, .shard = segment->header.shard,
        .sequence = segment->sequence, .created_ms = segment->header.created_ms, .used_bytes = PAGE_SIZE_,
        .chain = segment->header.chain_before,
        .given_lsn = shard->given_lsn, /* what knows it may not stay */
    };
    struct page page;
    int err = shard_load(shard, segment);

    if (err != 0)
        return err;
    if (cut->page_off != 0) {
        char *last = shard->data + cut->page_off;
        bool is_page = page_decode(last, &page);

        ASSERT(is_page && cut->used <= page.used);
        page.used = cut->used;
        page.frame_count = cut->frames;
        page_seal(&page, last);
        footer.used_bytes = cut->page_off + page_size(&page);
        memset(last + page.used, 0, (size_t)(segment->size - cut->page_off - page.used));
    } else { /* only blobs are behind its beginning */
        memset(shard->data + PAGE_SIZE_, 0, (size_t)(segment->size - PAGE_SIZE_));
    }
    memcpy(footer.uuid, segment->header.uuid, sizeof(footer.uuid));
    for (uint64_t off = PAGE_SIZE_; off < footer.used_bytes;) {
        struct shard_page at;
        bool has_header;

        if (shard_page_at(shard, segment, off, &at, &has_header) != NULL)
            return ERR_CORRUPT; /* it did verify when the cut was looked for */
        footer_count(&footer, &at);
        off += page_size(&at.page);
    }
    segment_footer_encode(&footer, shard->data + segment->size - PAGE_SIZE_);
    return 0;
}
