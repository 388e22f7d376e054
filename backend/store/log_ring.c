/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log ring: page writes until they are written, in memory that outlives the process.
 *
 *     header (4096): magic, version, shard, boot, uuid, size; appended, doubt, lost; a hash of the first six (ring.h)
 *     table: for each page of the ring, if a page write begins there: its place on disk, bytes of sealed frames
 *     pages
 *
 * Runs of pages are taken at the head and released at the tail, in order. kill -9 may come between any two stores:
 *
 *   W1  A frame's bytes are there before `sealed` says so; `sealed` is set before `appended`; that before any reply.
 *   W2  `sealed` of a run is 0 before its pages are used again.
 *   W3  What is beyond `sealed` is never looked at. A successor believes in a frame when its checksum fits and its
 *       chain continues what is on disk.
 *   W4  A ring is read with the size that it has. If the settings say another, a new one takes its place when all that
 *       was in it is durable, and nothing was appended since.
 *   W5  A ring made in the place of one that was lost says so until a recovery with it has ended: a start that fails leaves
 *       the next one what it has to tell.
 *   W6  A file that has the ring's name and others could have written to ends the start, and stays: it may be what a process
 *       of before has answered, under another user or with a mode that was changed. So does one whose header or size is
 *       damaged, if the node did not stop cleanly: that it is of another boot a header's hash vouches for, and what was
 *       never begun has nothing behind its header.
 *
 * Without a path the same memory is our own, and nothing survives.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"

static struct ring_header *ring_header(const struct log_ring *ring)
{
    return (struct ring_header *)(void *)ring->base;
}

static void ring_lay_out(struct log_ring *ring, void *base, uint32_t page_count)
{
    ring->base = base;
    ring->page_count = page_count;
    ring->map_size = ring_size(page_count);
    ring->table = (struct ring_entry *)(void *)(ring->base + PAGE_SIZE_);
    ring->data = ring->base + PAGE_SIZE_ + ring_table_size(page_count);
}

static enum ring_kind ring_kind(const struct store_log *log)
{
    return ring_kind_of(log->ring.base, log->ring.page_count, log->options.shard, log->boot, log->shard.uuid);
}

static void ring_format(struct store_log *log, bool is_lost)
{
    memset(log->ring.table, 0, ring_table_size(log->ring.page_count));
    ring_header_make(ring_header(&log->ring), log->options.shard, log->ring.map_size, log->boot, log->shard.uuid, is_lost);
}

/* Tells of it, and returns what the start ends with. */
static int ring_error(const struct store_log *log, int err)
{
    char why[256];

    if (err == ERR_EXISTS) {
        io_shared_why(log->io, log->options.ring_path, why, sizeof(why));
        log_error(log->text, "store: the log ring is not to be trusted, and the changes that only it has are not to be lost; "
                  "chown and chmod it, or remove it to go on without them shard=%u ring=%s why=\"%s\"",
                  log->options.shard, log->options.ring_path, why);
        return -EPERM;
    }
    log_error(log->text, "store: the log ring cannot be mapped shard=%u ring=%s why=\"%s\"", log->options.shard,
              log->options.ring_path, err_text(err));
    return err;
}

/* What is there with that count of pages, or another in its place. */
static int ring_map(struct store_log *log, uint32_t page_count)
{
    struct log_ring *ring = &log->ring;
    void *base = NULL;
    bool existed = false;
    int err = io_shared_map(log->io, log->options.ring_path, ring_size(page_count), &base, &existed);

    if (err != 0)
        return ring_error(log, err);
    ring_lay_out(ring, base, page_count);
    ring->is_shared = true;
    ring->had_content = existed && ring_kind(log) == RING_KIND_OURS;
    return 0;
}

/* W6. After a clean stop there was none, or nothing in it. */
static int ring_damaged(const struct store_log *log, const char *what)
{
    if (!log->was_open)
        return 0;
    log_error(log->text, "store: the log ring is damaged, and the changes that only it has are not to be lost unasked; "
              "remove it to go on without them shard=%u ring=%s what=\"%s\"", log->options.shard, log->options.ring_path, what);
    return ERR_CORRUPT;
}

/* Maps the ring of a killed process, whatever its size (W4). 0, too, if there is none. */
static int ring_find(struct store_log *log)
{
    size_t size;
    int err = io_shared_size(log->io, log->options.ring_path, &size);
    uint32_t page_count = err == 0 ? ring_page_count(size) : 0;

    if (err == -ENOENT)
        return 0;
    if (err != 0)
        return ring_error(log, err);
    if (page_count == 0)
        return ring_damaged(log, "its size");
    err = ring_map(log, page_count);
    if (err != 0 || log->ring.had_content)
        return err;
    if (ring_kind(log) == RING_KIND_DAMAGED)
        err = ring_damaged(log, "its header");
    log_ring_close(log);
    return err;
}

static uint32_t pages_wanted(const struct store_log *log)
{
    return log->options.ring_size / PAGE_SIZE_;
}

int log_ring_open(struct store_log *log)
{
    void *base;
    int err;

    if (log->options.ring_path == NULL) {
        base = mem_alloc_aligned(ring_size(pages_wanted(log)), PAGE_SIZE_);
        if (base == NULL)
            return ERR_FULL;
        ring_lay_out(&log->ring, base, pages_wanted(log));
        ring_format(log, false);
        return 0;
    }
    err = io_boot_id(log->io, log->boot);
    if (err != 0) {
        log_error(log->text, "store: the host's boot id cannot be read, and the log ring is not used without path=%s "
                  "why=\"%s\"", log->options.ring_path, err_text(err));
        return err;
    }
    err = ring_find(log);
    if (err != 0)
        return err;
    if (log->ring.base != NULL) {
        if (log->ring.page_count != pages_wanted(log))
            log_info(log->text, "store: the log ring of the process before is read first, then it gets its new size "
                     "shard=%u ring_size=%u before=%llu", log->options.shard, log->options.ring_size,
                     (unsigned long long)log->ring.page_count * PAGE_SIZE_);
        return 0;
    }
    err = ring_map(log, pages_wanted(log));
    if (err == 0)
        ring_format(log, log->was_open);
    return err;
}

int log_ring_resize(struct store_log *log)
{
    uint32_t page_count = pages_wanted(log), before = log->ring.page_count;
    bool is_doubt = log_ring_doubt(&log->ring);
    int err;

    ASSERT(log->ring.used == 0);
    if (before == page_count)
        return 0;
    log_ring_close(log); /* first: there may be no room for both */
    err = ring_map(log, page_count);
    /* The start fails, and one with nothing in it stays: the next would miss it, and tell of changes that may be missing. */
    if (err != 0 && ring_map(log, before) != 0)
        return err;
    ring_format(log, false);
    log_ring_doubt_set(&log->ring, is_doubt);
    return err;
}

void log_ring_close(struct store_log *log)
{
    if (log->ring.base == NULL)
        return;
    if (log->ring.is_shared)
        io_shared_unmap(log->io, log->ring.base, log->ring.map_size);
    else
        mem_free(log->ring.base);
    log->ring = (struct log_ring){0};
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

bool log_ring_is_lost(const struct log_ring *ring)
{
    return __atomic_load_n(&ring_header(ring)->lost, __ATOMIC_ACQUIRE) != 0;
}

void log_ring_lost_forget(struct log_ring *ring)
{
    __atomic_store_n(&ring_header(ring)->lost, 0, __ATOMIC_RELEASE);
}

void log_ring_reset(struct log_ring *ring)
{
    for (uint32_t i = 0; i < ring->page_count; i++)
        __atomic_store_n(&ring->table[i].sealed, 0, __ATOMIC_RELEASE);
    ring->head = ring->tail = ring->used = 0;
}
