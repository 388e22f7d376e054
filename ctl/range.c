/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/range.h"

#include "common/base/err.h"
#include "ctl/progress.h"
#include "ctl/source.h"

/* Of a segment without a footer: up to what does not verify, which nobody was promised. */
static int open_end(struct shard *shard, const struct shard_segment *segment, uint64_t *lsn)
{
    uint64_t end = shard_segment_end(shard, segment), off = PAGE_SIZE_;
    int err = shard_load(shard, segment);

    while (err == 0 && off < end) {
        struct shard_page page;
        bool has_header;
        size_t at = PAGE_HEADER_SIZE;

        if (shard_page_at(shard, segment, off, &page, &has_header) != NULL)
            break;
        while (at < page.data.len) {
            struct frame frame;
            bool is_frame = frame_decode(bytes_skip(page.data, at), &frame);

            ASSERT(is_frame);
            *lsn = MAX(*lsn, frame.last_lsn);
            at += frame.size;
        }
        off += page_size(&page.page);
    }
    return err;
}

int range_find(struct shard *shard, struct range *out)
{
    struct shard_checkpoint checkpoints[2];
    uint64_t damages = shard->report->damages, first = UINT64_MAX;
    unsigned count = shard_checkpoints(shard, checkpoints);
    int err = 0;

    *out = (struct range){0};
    shard->hot_from = 0;
    if (count > 0) {
        *out = (struct range){checkpoints[0].lsn_max, checkpoints[0].lsn_max, checkpoints[0].meta.wall_ms};
        shard->hot_from = checkpoints[0].meta.hot_from;
    }
    for (unsigned i = 0; i < count; i++)
        shard_checkpoint_free(&checkpoints[i]);
    shard_chain_find(shard);
    if (shard->report->damages != damages)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < shard->count && err == 0; i++) {
        const struct shard_segment *segment = &shard->segments[i];

        if (segment->is_blob || !segment->is_chained) {
            if (!segment->is_free && segment->is_blob && segment->is_hot && segment->has_page &&
                segment->sequence > first) /* one record of the log, in a file of its own */
                out->to_lsn = MAX(out->to_lsn, segment->frame.last_lsn);
            continue;
        }
        first = MIN(first, segment->sequence);
        if (segment->is_footed)
            out->to_lsn = MAX(out->to_lsn, segment->footer.last_lsn);
        else
            err = open_end(shard, segment, &out->to_lsn);
    }
    return err;
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
        printf("%s: nothing came after the checkpoint: restore --until has nothing to choose from\n", source->dir);
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
