/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log ring: page writes until they are written, in memory that outlives the process.
 *
 *     header (4096): magic, version, shard, boot, uuid, size, appended
 *     table: for each page of the ring, if a page write begins there: its place on disk, bytes of sealed frames
 *     pages
 *
 * Runs of pages are taken at the head and released at the tail, in order. kill -9 may come between any two stores:
 *
 *   W1  A frame's bytes are there before `sealed` says so; `sealed` is set before `appended`; that before any reply.
 *   W2  `sealed` of a run is 0 before its pages are used again.
 *   W3  What is beyond `sealed` is never looked at. A successor believes in a frame when its checksum fits and its
 *       chain continues what is on disk.
 *
 * Without a path the same memory is our own, and nothing survives.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

#define RING_MAGIC 0x474e4952474f4c57ull /* "WLOGRING" */
#define RING_VERSION 1u

struct ring_header {
    uint64_t magic;
    uint32_t version, shard;
    unsigned char boot[16], uuid[16];
    uint64_t size, appended;
    uint64_t doubt; /* 1: a flush has failed */
};

static struct ring_header *ring_header(const struct log_ring *ring)
{
    return (struct ring_header *)(void *)ring->base;
}

static bool ring_is_ours(const struct store_log *log)
{
    const struct ring_header *header = ring_header(&log->ring);

    return header->magic == RING_MAGIC && header->version == RING_VERSION &&
           header->shard == log->options.shard && header->size == log->ring.map_size &&
           memcmp(header->boot, log->boot, 16) == 0 && memcmp(header->uuid, log->shard.uuid, 16) == 0;
}

static void ring_format(struct store_log *log)
{
    struct ring_header *header = ring_header(&log->ring);

    __atomic_store_n(&header->magic, 0, __ATOMIC_RELEASE);
    memset(log->ring.table, 0, log->ring.page_count * sizeof(struct ring_entry));
    header->version = RING_VERSION;
    header->shard = log->options.shard;
    header->size = log->ring.map_size;
    header->appended = 0;
    header->doubt = 0;
    memcpy(header->boot, log->boot, 16);
    memcpy(header->uuid, log->shard.uuid, 16);
    __atomic_store_n(&header->magic, RING_MAGIC, __ATOMIC_RELEASE);
}

int log_ring_open(struct store_log *log)
{
    struct log_ring *ring = &log->ring;
    size_t table_size;
    void *base = NULL;
    bool existed = false;
    int err;

    ring->page_count = log->options.ring_size / PAGE_SIZE_;
    table_size = round_up(ring->page_count * sizeof(struct ring_entry), PAGE_SIZE_);
    ring->map_size = PAGE_SIZE_ + table_size + log->options.ring_size;
    if (log->options.ring_path != NULL) {
        err = io_boot_id(log->io, log->boot);
        if (err == 0)
            err = io_shared_map(log->io, log->options.ring_path, ring->map_size, &base, &existed);
        if (err != 0) {
            log_error(log->text, "store: the log ring cannot be mapped path=%s why=\"%s\"",
                      log->options.ring_path, err_text(err));
            return err;
        }
        ring->is_shared = true;
    } else {
        base = mem_alloc_aligned(ring->map_size, PAGE_SIZE_);
        if (base == NULL)
            return ERR_FULL;
    }
    ring->base = base;
    ring->table = (struct ring_entry *)(void *)(ring->base + PAGE_SIZE_);
    ring->data = ring->base + PAGE_SIZE_ + table_size;
    ring->had_content = existed && ring_is_ours(log);
    if (!ring->had_content)
        ring_format(log);
    return 0;
}

void log_ring_close(struct store_log *log)
{
    if (log->ring.base == NULL)
        return;
    if (log->ring.is_shared)
        io_shared_unmap(log->io, log->ring.base, log->ring.map_size);
    else
        mem_free(log->ring.base);
    log->ring.base = NULL;
}

/* For the end of an orderly close: all of it is on the disk. The directory is still locked, so nobody else has made a
 * ring of that name. */
void log_ring_remove(struct store_log *log)
{
    int err = log->ring.is_shared ? io_shared_remove(log->io, log->options.ring_path) : 0;

    if (err != 0 && err != -ENOENT)
        log_warn(log->text, "store: the log ring stays behind, remove it path=%s why=\"%s\"", log->options.ring_path,
                 err_text(err));
}

/* ---- runs ------------------------------------------------------------------------------------- */

bool log_ring_take(struct log_ring *ring, size_t min, size_t max, struct log_page *page)
{
    uint32_t pages = (uint32_t)(min / PAGE_SIZE_), skip = 0, at, room;

    if (ring->used == 0)
        ring->head = ring->tail = 0;
    at = ring->head;
    room = ring->used == ring->page_count ? 0
           : at >= ring->tail             ? ring->page_count - at
                                          : ring->tail - at;
    if (room < pages && at >= ring->tail && ring->used > 0) { /* what is left at the end is skipped */
        skip = ring->page_count - at;
        at = 0;
        room = ring->used + skip >= ring->page_count ? 0 : ring->tail;
    }
    if (room < pages)
        return false;
    room = (uint32_t)MIN((size_t)room, max / PAGE_SIZE_);
    page->data = ring->data + (size_t)at * PAGE_SIZE_;
    page->cap = (size_t)room * PAGE_SIZE_;
    page->ring_page = at;
    page->ring_count = room;
    page->ring_skip = skip;
    ring->head = (at + room) % ring->page_count;
    ring->used += room + skip;
    ASSERT(ring->used <= ring->page_count);
    return true;
}

void log_ring_give_back(struct log_ring *ring, struct log_page *page, size_t used)
{
    uint32_t keep = (uint32_t)(used / PAGE_SIZE_);

    ASSERT(keep > 0 && keep <= page->ring_count);
    ring->used -= page->ring_count - keep;
    ring->head = (page->ring_page + keep) % ring->page_count;
    page->ring_count = keep;
}

void log_ring_release(struct log_ring *ring, const struct log_write *write)
{
    uint32_t count = write->ring_count + write->ring_skip;

    __atomic_store_n(&ring->table[write->ring_page].sealed, 0, __ATOMIC_RELEASE);
    ASSERT(ring->used >= count);
    ring->used -= count;
    ring->tail = (write->ring_page + write->ring_count) % ring->page_count;
}

/* ---- what survives ---------------------------------------------------------------------------- */

void log_ring_sealed(struct log_ring *ring, const struct log_page *page)
{
    __atomic_store_n(&ring->table[page->ring_page].sealed, (uint32_t)page->at, __ATOMIC_RELEASE);
}

void log_ring_appended_set(struct log_ring *ring, uint64_t lsn)
{
    __atomic_store_n(&ring_header(ring)->appended, lsn, __ATOMIC_RELEASE);
}

uint64_t log_ring_appended(const struct log_ring *ring)
{
    return __atomic_load_n(&ring_header(ring)->appended, __ATOMIC_ACQUIRE);
}

void log_ring_doubt_set(struct log_ring *ring, bool is_doubt)
{
    if (ring->is_shared)
        __atomic_store_n(&ring_header(ring)->doubt, is_doubt ? 1 : 0, __ATOMIC_RELEASE);
}

bool log_ring_doubt(const struct log_ring *ring)
{
    return ring->had_content && __atomic_load_n(&ring_header(ring)->doubt, __ATOMIC_ACQUIRE) != 0;
}

void log_ring_reset(struct log_ring *ring)
{
    for (uint32_t i = 0; i < ring->page_count; i++)
        __atomic_store_n(&ring->table[i].sealed, 0, __ATOMIC_RELEASE);
    ring->head = ring->tail = ring->used = 0;
}
