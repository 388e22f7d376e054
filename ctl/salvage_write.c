/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fresh directory out of chosen records: one hot log, as if one process had written all of it in its first life.
 *
 *   D1  Records keep their LSNs and go in their order; all are of one epoch, each page write's mark is the LSN before it.
 *   D2  An IMAGE becomes a SET: in a new log it is the beginning of an incarnation, and its deltas name it as their base.
 *   D3  A record over an eighth of a segment gets a blob, as in backend/store/log_cold.c.
 *   D4  At the end is a NOP with an LSN that was not seen: no LSN is given twice. Every segment has its footer: what was
 *       written here and does not verify later is damage.
 *   D5  Each record is checked again as it is read; the frame around it is new.
 */
#include "ctl/salvage.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define SEGMENT_SIZE  (64u << 20)
#define SEGMENT_LEAST (64u << 10)
#define PAGE_BYTES    (128u << 10) /* of a page write; each has one frame */

struct writer {
    struct salvage *salvage;
    struct tree *tree;
    int to;
    struct shard_file file;
    uint32_t epoch, slot;
    uint64_t wall_ms, sequence, chain, lsn;
    /* The open hot segment. */
    char *data;           /* owns; NULL: none is open */
    uint64_t size, used;
    struct segment_header header;
    struct segment_footer footer;
    uint64_t prev_sequence, prev_end;
    /* Its open page write: from `used` on. */
    uint64_t at;          /* bytes of it; 0: none */
    uint32_t records;
    uint64_t first_lsn;
    /* The segment that is read from. */
    int from;
    uint32_t from_index;
    char *record;         /* owns */
    size_t record_cap;
};

static uint64_t round_page(uint64_t bytes)
{
    return (bytes + PAGE_SIZE_ - 1) / PAGE_SIZE_ * PAGE_SIZE_;
}

/* ---- segments --------------------------------------------------------------------------------- */

static int segment_put(struct writer *w, char *data, uint64_t size, const struct segment_footer *footer)
{
    char name[24];

    segment_footer_encode(footer, data + size - PAGE_SIZE_);
    (void)snprintf(name, sizeof(name), "%06u.seg", w->slot++);
    return tree_put(w->tree, w->to, name, bytes_of(data, (size_t)size), size, w->salvage->shard->dir_fd);
}

static void segment_begin(struct writer *w, uint8_t kind, uint64_t size, struct segment_header *header,
                          struct segment_footer *footer)
{
    bool is_blob = kind == SEGMENT_BLOB;

    *header = (struct segment_header){
        .kind = kind,
        .shard = w->file.shard,
        .epoch = w->epoch,
        .flags = is_blob ? SEGMENT_IS_HOT : 0,
        .sequence = ++w->sequence,
        .size = size,
        .prev_sequence = is_blob ? w->header.sequence : w->prev_sequence,
        .prev_end = is_blob ? 0 : w->prev_end,
        .chain_before = w->chain,
        .first_lsn = w->lsn + 1,
        .created_ms = w->wall_ms,
        .mark = w->lsn,
    };
    *footer = (struct segment_footer){
        .kind = kind, .shard = w->file.shard, .sequence = header->sequence, .created_ms = w->wall_ms,
        .chain = w->chain,
    };
    memcpy(header->uuid, w->file.uuid, 16);
    memcpy(footer->uuid, w->file.uuid, 16);
}

static void record_count(struct segment_footer *footer, const struct record *record, size_t size)
{
    footer->record_count++;
    footer->record_bytes += size;
    footer->first_lsn = footer->first_lsn == 0 ? record->lsn : MIN(footer->first_lsn, record->lsn);
    footer->last_lsn = MAX(footer->last_lsn, record->lsn);
    footer->expire_max_ms = MAX(footer->expire_max_ms, record->expire_ms != 0 ? record->expire_ms : UINT64_MAX);
}

/* One page write with one frame of `used` bytes, headers included, at `off` of a segment. */
static void page_close(struct writer *w, char *data, uint64_t off, uint64_t used, uint32_t records, uint64_t mark,
                       uint64_t first_lsn, struct segment_footer *footer)
{
    struct frame frame = {
        .size = (uint32_t)(used - PAGE_HEADER_SIZE),
        .record_count = records,
        .epoch = w->epoch,
        .first_lsn = first_lsn,
        .last_lsn = w->lsn,
        .chain_before = w->chain,
        .wall_ms = w->wall_ms,
    };
    struct page page = {
        .sequence = footer->sequence, .mark = mark, .block = (uint32_t)(off / PAGE_SIZE_), .used = (uint32_t)used,
        .frame_count = 1, .shard = w->file.shard, .kind = PAGE_HOT,
    };

    memcpy(page.uuid, w->file.uuid, 16);
    frame_seal(&frame, data + off + PAGE_HEADER_SIZE);
    page_seal(&page, data + off);
    w->chain = frame.chain;
    footer->chain = frame.chain;
    footer->used_bytes = off + round_page(used);
}

static void open_page_close(struct writer *w)
{
    if (w->at == 0)
        return;
    page_close(w, w->data, w->used, w->at, w->records, w->first_lsn - 1, w->first_lsn, &w->footer);
    w->used = w->footer.used_bytes;
    w->at = 0;
}

static int open_segment_close(struct writer *w)
{
    int err;

    if (w->data == NULL)
        return 0;
    open_page_close(w);
    w->footer.used_bytes = w->used;
    err = segment_put(w, w->data, w->size, &w->footer);
    w->prev_sequence = w->header.sequence;
    w->prev_end = w->used;
    mem_free(w->data);
    w->data = NULL;
    return err;
}

static int open_segment_begin(struct writer *w)
{
    w->data = mem_alloc_aligned((size_t)w->size, PAGE_SIZE_);
    if (w->data == NULL)
        return ERR_FULL;
    memset(w->data, 0, (size_t)w->size);
    segment_begin(w, SEGMENT_HOT, w->size, &w->header, &w->footer);
    segment_header_encode(&w->header, w->data);
    w->used = PAGE_SIZE_;
    return 0;
}

/* ---- records ---------------------------------------------------------------------------------- */

static int blob_write(struct writer *w, const struct record *record, size_t size)
{
    uint64_t used = PAGE_HEADER_SIZE + FRAME_HEADER_SIZE + size, total = round_page(used) + 2 * PAGE_SIZE_;
    struct segment_header header;
    struct segment_footer footer;
    char *data = mem_alloc_aligned((size_t)total, PAGE_SIZE_);
    uint64_t mark = w->lsn;
    int err;

    if (data == NULL)
        return ERR_FULL;
    memset(data, 0, (size_t)total);
    open_page_close(w);
    segment_begin(w, SEGMENT_BLOB, total, &header, &footer);
    segment_header_encode(&header, data);
    record_encode(record, data + PAGE_SIZE_ + PAGE_HEADER_SIZE + FRAME_HEADER_SIZE);
    record_count(&footer, record, size);
    w->lsn = record->lsn;
    page_close(w, data, PAGE_SIZE_, used, 1, mark, record->lsn, &footer);
    err = segment_put(w, data, total, &footer);
    mem_free(data);
    return err;
}

static int record_write(struct writer *w, struct record *record)
{
    size_t size = record_size(record);
    int err = 0;

    ASSERT(record->lsn > w->lsn);
    record->epoch = w->epoch;
    if (w->data != NULL && size <= w->size / 8 &&
        w->used + round_page((w->at == 0 ? PAGE_HEADER_SIZE + FRAME_HEADER_SIZE : w->at) + size) > w->size - PAGE_SIZE_)
        err = open_segment_close(w);
    if (err == 0 && w->data == NULL)
        err = open_segment_begin(w);
    if (err != 0)
        return err;
    if (size > w->size / 8)
        return blob_write(w, record, size);
    if (w->at == 0) {
        w->at = PAGE_HEADER_SIZE + FRAME_HEADER_SIZE;
        w->records = 0;
        w->first_lsn = record->lsn;
    }
    record_encode(record, w->data + w->used + w->at);
    record_count(&w->footer, record, size);
    w->at += size;
    w->records++;
    w->lsn = record->lsn;
    if (w->at >= MIN((uint64_t)PAGE_BYTES, w->size / 8))
        open_page_close(w);
    return 0;
}

static int read_at(struct writer *w, const struct salvage_item *item)
{
    const struct shard *shard = w->salvage->shard;

    if (w->from < 0 || w->from_index != item->segment) {
        if (w->from >= 0)
            close(w->from);
        w->from = openat(shard->dir_fd, shard->segments[item->segment].name, O_RDONLY | O_CLOEXEC);
        w->from_index = item->segment;
        if (w->from < 0)
            return -errno;
    }
    if (item->size > w->record_cap) {
        mem_free(w->record);
        w->record_cap = item->size;
        w->record = must_alloc(w->record_cap);
    }
    for (size_t done = 0; done < item->size;) {
        ssize_t got = pread(w->from, w->record + done, item->size - done, (off_t)(((uint64_t)item->at << 4) + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? ERR_EOF : -errno;
        done += (size_t)got;
    }
    return 0;
}

static int item_write(struct writer *w, const struct salvage_item *item)
{
    struct record record;
    int err = read_at(w, item);

    if (err == 0 && (record_decode(bytes_of(w->record, item->size), &record) != item->size || record.lsn != item->lsn))
        err = ERR_CORRUPT; /* D5 */
    if (err != 0) {
        fprintf(stderr, "weirctl: %s/%s: a record could be read at first, and not again: %s\n", w->salvage->shard->dir,
                w->salvage->shard->segments[item->segment].name, err_text(err));
        return err;
    }
    if (record.type == RECORD_IMAGE) {
        record.type = RECORD_SET;
        record.base_lsn = 0;
    } else if (record.type == RECORD_DELTA && item->base != item->lsn) {
        record.base_lsn = item->base;
    }
    progress_add(w->salvage->progress, item->size);
    return record_write(w, &record);
}

/* What has no key: the databases' places; and the end (D4). */
static int swap_write(struct writer *w)
{
    struct record record = {
        .type = RECORD_SWAP, .lsn = w->salvage->swap_lsn,
        .value = bytes_of((const char *)w->salvage->places, sizeof(w->salvage->places)),
    };

    return record_write(w, &record);
}

static int all_write(struct writer *w)
{
    struct salvage *salvage = w->salvage;
    struct record last = {.type = RECORD_NOP, .lsn = salvage->lsn_max + 1};
    bool has_swap = salvage->swap_lsn != 0;
    int err = 0;

    for (size_t i = 0; i < salvage->count && err == 0; i++) {
        if (has_swap && salvage->items[i].lsn > salvage->swap_lsn) {
            err = swap_write(w);
            has_swap = false;
        }
        if (err == 0)
            err = item_write(w, &salvage->items[i]);
    }
    if (err == 0 && has_swap)
        err = swap_write(w);
    if (err == 0)
        err = record_write(w, &last);
    if (err == 0)
        err = open_segment_close(w);
    return err;
}

/* ---- the folder ------------------------------------------------------------------------------- */

static int file_write(struct tree *tree, int to, int like, uint32_t shard, uint32_t shard_count, struct shard_file *out)
{
    char page[PAGE_SIZE_];

    *out = (struct shard_file){.shard = shard, .shard_count = shard_count};
    if (getrandom(out->uuid, sizeof(out->uuid), 0) != (ssize_t)sizeof(out->uuid) ||
        getrandom(out->seed, sizeof(out->seed), 0) != (ssize_t)sizeof(out->seed)) {
        fprintf(stderr, "weirctl: no random numbers: %s\n", err_text(-errno));
        return -EIO;
    }
    shard_file_encode(out, page);
    return tree_put(tree, to, "shard", bytes_of(page, sizeof(page)), sizeof(page), like);
}

int salvage_write_empty(struct tree *tree, int to, int like, uint32_t shard, uint32_t shard_count)
{
    struct shard_file file;

    return file_write(tree, to, like, shard, shard_count, &file);
}

/* That of most segments there are, so that the node can use its files again. */
static uint64_t segment_size(const struct shard *shard)
{
    for (uint32_t i = shard->count; i > 0; i--) {
        const struct shard_segment *segment = &shard->segments[i - 1];

        if (segment->has_header && !segment->is_blob && !segment->is_free && segment->size >= SEGMENT_LEAST &&
            segment->size <= SEGMENT_SIZE)
            return segment->size;
    }
    return SEGMENT_SIZE;
}

static uint64_t chosen_bytes(const struct salvage *salvage)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < salvage->count; i++)
        bytes += salvage->items[i].size;
    return bytes;
}

int salvage_write(struct salvage *salvage, struct tree *tree, int to, uint32_t shard_count)
{
    struct writer w = {
        .salvage = salvage, .tree = tree, .to = to, .epoch = salvage->epoch_max + 1, .from = -1,
        .size = segment_size(salvage->shard),
    };
    int err = file_write(tree, to, salvage->shard->dir_fd, salvage->shard->file.shard, shard_count, &w.file);

    progress_start(salvage->progress, "writing", chosen_bytes(salvage));
    if (err == 0)
        err = all_write(&w);
    progress_clear(salvage->progress);
    if (err == ERR_FULL)
        fprintf(stderr, "weirctl: %s: not enough memory\n", salvage->shard->dir);
    if (w.from >= 0)
        close(w.from);
    mem_free(w.data);
    mem_free(w.record);
    return err;
}
