/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/range.h"

#include "common/base/err.h"
#include "ctl/cut.h"
#include "ctl/source.h"

/* The frame with the highest LSN, of those up to the first that reaches `lsn`; what does not verify nobody was promised. */
static int frame_find(struct shard *shard, const struct shard_segment *segment, uint64_t lsn, struct frame *out)
{
    uint64_t end = shard_segment_end(shard, segment), off = PAGE_SIZE_;
    int err = shard_load(shard, segment);

    *out = (struct frame){0};
    while (err == 0 && off < end && out->last_lsn < lsn) {
        struct shard_page page;
        bool has_header;
        size_t at = PAGE_HEADER_SIZE;

        if (shard_page_at(shard, segment, off, &page, &has_header) != NULL)
            break;
        while (at < page.data.len && out->last_lsn < lsn) {
            struct frame frame;
            bool is_frame = frame_decode(bytes_skip(page.data, at), &frame);

            ASSERT(is_frame);
            if (frame.last_lsn >= out->last_lsn)
                *out = frame;
            at += frame.size;
        }
        off += page_size(&page.page);
    }
    return err;
}

/* One record of the log, in a file of its own. */
static bool is_hot_blob(const struct shard_segment *segment)
{
    return !segment->is_free && segment->is_blob && segment->is_hot && segment->has_page;
}

/* When the change with that LSN was made: the time of the first frame that reaches it. */
static int lsn_time(struct shard *shard, uint64_t lsn, uint64_t *ms)
{
    struct frame first = {.last_lsn = UINT64_MAX}, found;
    int err = 0;

    for (uint32_t i = 0; i < shard->count; i++)
        if (is_hot_blob(&shard->segments[i]) && shard->segments[i].frame.last_lsn >= lsn &&
            shard->segments[i].frame.last_lsn < first.last_lsn)
            first = shard->segments[i].frame;
    for (uint32_t i = 0; i < shard->count && err == 0; i++) {
        const struct shard_segment *segment = &shard->segments[i];

        if (segment->is_blob || !segment->is_chained || (segment->next != NULL && segment->next->header.first_lsn <= lsn))
            continue;
        if (segment->header.first_lsn > first.last_lsn)
            break;
        err = frame_find(shard, segment, lsn, &found);
        if (found.last_lsn >= lsn && found.last_lsn < first.last_lsn)
            first = found;
    }
    *ms = first.wall_ms;
    return err;
}

int range_begin(struct shard *shard, const struct shard_checkpoint *base, struct range *out)
{
    uint64_t ms = 0;
    int err = 0;

    *out = (struct range){.from_lsn = cut_floor(shard, base), .from_ms = base != NULL ? base->meta.wall_ms : 0};
    if (out->from_lsn > (base != NULL ? base->lsn_max : 0))
        err = lsn_time(shard, out->from_lsn, &ms);
    out->to_lsn = out->from_lsn;
    out->from_ms = MAX(out->from_ms, ms);
    return err;
}

static int range_end(struct shard *shard, uint64_t *lsn)
{
    uint64_t first = UINT64_MAX;
    int err = 0;

    for (uint32_t i = 0; i < shard->count && err == 0; i++) {
        const struct shard_segment *segment = &shard->segments[i];
        struct frame last;

        if (segment->is_blob || !segment->is_chained) {
            if (is_hot_blob(segment) && segment->sequence > first)
                *lsn = MAX(*lsn, segment->frame.last_lsn);
            continue;
        }
        first = MIN(first, segment->sequence);
        if (segment->is_footed) {
            *lsn = MAX(*lsn, segment->footer.last_lsn);
            continue;
        }
        err = frame_find(shard, segment, STORE_LSN_MAX, &last);
        *lsn = MAX(*lsn, last.last_lsn);
    }
    return err;
}

int range_find(struct shard *shard, struct range *out)
{
    struct shard_checkpoint checkpoints[2];
    uint64_t damages = shard->report->damages;
    unsigned count = shard_checkpoints(shard, checkpoints);
    int err;

    *out = (struct range){0};
    shard->hot_from = count > 0 ? checkpoints[0].meta.hot_from : 0;
    shard_chain_find(shard);
    err = shard->report->damages != damages ? ERR_CORRUPT
                                            : range_begin(shard, count > 0 ? &checkpoints[0] : NULL, out);
    for (unsigned i = 0; i < count; i++)
        shard_checkpoint_free(&checkpoints[i]);
    return err != 0 ? err : range_end(shard, &out->to_lsn);
}

static void print_ranges(const struct source *source, const struct range *ranges)
{
    char from[TIME_TEXT_MAX], to[TIME_TEXT_MAX];
    uint64_t from_ms = 0;
    bool has_any = false;

    for (uint32_t i = 0; i < source->count; i++) {
        from_ms = MAX(from_ms, ranges[i].from_ms);
        has_any |= ranges[i].from_lsn < ranges[i].to_lsn;
    }
    if (!has_any) {
        printf("%s: nothing came after the checkpoint, or after what was given back: restore --until has nothing to choose "
               "from\n", source->dir);
        return;
    }
    printf("%s: restore --until can go back from %s to %s\n", source->dir, time_text(source->taken_ms, to),
           from_ms != 0 ? time_text(from_ms, from) : "the beginning");
    for (uint32_t i = 0; i < source->count; i++)
        printf("%s: shard %u: from lsn:%llu to lsn:%llu\n", source->dir, i, (unsigned long long)ranges[i].to_lsn,
               (unsigned long long)ranges[i].from_lsn);
}

void range_print(const char *backup)
{
    struct range ranges[SHARDS_MAX];
    struct source source;
    int err = source_open(&source, backup);

    if (err != 0)
        return;
    for (uint32_t i = 0; i < source.count && err == 0; i++) {
        err = range_find(&source.shards[i], &ranges[i]);
        if (err != 0)
            fprintf(stderr, "weirctl: %s: what restore --until can go back to is not known: %s\n", source.shards[i].dir,
                    err_text(err));
    }
    if (err == 0 && source.taken_ms != 0)
        print_ranges(&source, ranges);
    source_close(&source);
}
