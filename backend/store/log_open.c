/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a directory: lock, the file "shard", every segment's first and last pages, what "lock" tells, the ring, free
 * segments. And closing it.
 *
 * A header that does not verify is one that a power cut tore, when the segment was taken into use (again), or damage.
 * A footer is proof of damage. Page writes behind it may be those of its last life; but if it is a hot one, they say
 * themselves that they were durable, and what they have is newer than all that a recovery finds, it is damage
 * (log_replay_ring()), and the directory is refused (G8). A segment that is missing in the middle is noticed by the
 * one behind it, one that a checkpoint needs by the checkpoint.
 *
 * The file "lock" says "weiropen" from before the first append until all is durable at the end: if it does and there is no
 * log ring, changes may have been lost with that. What says so already is flushed, as whoever wrote it may have been killed
 * before, but not written again: a power cut could tear it while there is more in the ring than in the files.
 */
#include "backend/store/format_private.h"
#include "backend/store/log_private.h"
#include "common/base/path.h"

#include <stdio.h>

#define LOCK_TRIES_MAX 200
#define LOCK_PAUSE_MS  10

#define STATE_CLOSED   "weirshut"

struct log_open {
    struct store_log *log;
    void (*done)(void *arg, int err);
    void *arg;
    struct io_op op;
    struct io_timer timer;
    struct io_file *file;  /* owns */
    uint32_t *slots;       /* owns: files found */
    uint32_t slot_count, slot_cap, slot_at, lock_tries, close_at;
    uint64_t file_size, header_size;
    bool has_shard_file, has_rescue_file, is_flushed, is_dir_old;
    char *pages;           /* owns: two first pages, the last one */
    char state[LOCK_STATE_SIZE];
    void (*state_done)(struct io_op *op);
    struct segment *segment;
    struct log_scan scan;  /* of page writes behind a bad header */
    uint64_t scan_first, scan_mark;
    char path[LOG_PATH_MAX], path_to[LOG_PATH_MAX];
};

static void open_free(struct store_log *log)
{
    struct log_open *open = log->open;

    if (open == NULL)
        return;
    io_timer_stop(&open->timer);
    log_scan_deinit(&open->scan);
    if (open->segment != NULL)
        log_segment_destroy(open->segment);
    if (open->file != NULL)
        io_file_close(open->file);
    mem_free(open->slots);
    mem_free(open->pages);
    mem_free(open);
    log->open = NULL;
}

static void open_end(struct log_open *open, int err)
{
    struct store_log *log = open->log;
    void (*done)(void *, int) = open->done;
    void *arg = open->arg;

    open_free(log);
    log->state = err == 0 ? LOG_OPENED : LOG_CLOSED;
    done(arg, err);
}

static void open_failed(struct log_open *open, const char *what, int err)
{
    log_error(open->log->text, "store: the directory cannot be opened shard=%u dir=%s what=%s why=\"%s\"",
              open->log->options.shard, open->log->dir, what, err_text(err));
    open_end(open, err);
}

/* True: the step failed, and so has the opening. */
static bool op_failed(struct log_open *open, const char *what)
{
    if (open->op.result >= 0)
        return false;
    open_failed(open, what, (int)open->op.result);
    return true;
}

static void path_set(const struct log_open *open, char path[LOG_PATH_MAX], const char *name)
{
    (void)snprintf(path, LOG_PATH_MAX, "%s/%s", open->log->dir, name);
}

/* ---- what the file "lock" says ------------------------------------------------------------------ */

static void state_written(struct io_op *op)
{
    struct log_open *open = op->arg;

    op->done = open->state_done;
    if (op->result < 0)
        op->done(op);
    else
        io_file_datasync(open->log->lock_file, op);
}

static void state_write(struct log_open *open, const char state[LOCK_STATE_SIZE], void (*done)(struct io_op *op))
{
    memcpy(open->state, state, LOCK_STATE_SIZE);
    open->state_done = done;
    open->op.arg = open;
    open->op.done = state_written;
    io_file_write(open->log->lock_file, &open->op, open->state, LOCK_STATE_SIZE, 0);
}

/* ---- segments --------------------------------------------------------------------------------- */

static void slot_next(struct log_open *open);

/* An empty file: it was being made when the power failed. */
static void slot_unlinked(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op->result == -ENOENT)
        op->result = 0;
    if (!op_failed(open, "unlink"))
        slot_next(open);
}

static void slot_remove(struct log_open *open)
{
    log_segment_destroy(open->segment);
    open->segment = NULL;
    open->op.done = slot_unlinked;
    io_unlink(open->log->io, &open->op, open->path);
}

static void slot_is_free(struct log_open *open)
{
    struct store_log *log = open->log;
    struct segment *segment = open->segment;

    segment->info.state = SEGMENT_FREE;
    if (segment->info.size != log->options.segment_size) { /* removed when a higher sequence is on disk */
        segment->info.state = SEGMENT_CLEANED;
        segment->is_orphan = segment->is_hot = true;
        log_segment_use(log, segment);
    } else {
        log_segment_add_ready(log, segment);
    }
    open->segment = NULL;
    slot_next(open);
}

static void slot_is_used(struct log_open *open, const struct segment_header *header)
{
    struct store_log *log = open->log;
    struct segment *segment = open->segment;
    struct segment_info *info = &segment->info;
    struct segment_footer footer;
    struct page page;

    segment->header = *header;
    segment->has_header = true;
    segment->is_hot = header->kind == SEGMENT_HOT || (header->flags & SEGMENT_IS_HOT) != 0;
    segment->is_finished = true;
    info->sequence = header->sequence;
    segment->has_page = page_decode(open->pages + PAGE_SIZE_, &page) && log_page_belongs(segment, PAGE_SIZE_, &page);
    info->kind = header->kind;
    info->class = header->class;
    info->created_ms = header->created_ms;
    info->state = SEGMENT_SEALED;
    info->used_bytes = PAGE_SIZE_;
    if (segment_footer_decode(open->pages + 2 * PAGE_SIZE_, &footer) && footer.sequence == info->sequence &&
        memcmp(footer.uuid, log->shard.uuid, 16) == 0 && footer.used_bytes <= log_segment_end(segment)) {
        segment->is_footed = true;
        segment->record_count = footer.record_count;
        segment->chain_end = footer.chain;
        info->used_bytes = footer.used_bytes;
        info->record_bytes = footer.record_bytes;
        info->first_lsn = footer.first_lsn;
        info->last_lsn = footer.last_lsn;
        info->expire_max_ms = footer.expire_max_ms;
        log->given_lsn = MAX(log->given_lsn, footer.given_lsn);
    }
    if (log_segment_find(log, info->sequence) != NULL) {
        log_error(log->text, "store: two files are one segment shard=%u file=%s sequence=%llu", log->options.shard,
                  open->path, (unsigned long long)info->sequence);
        open_end(open, ERR_CORRUPT);
        return;
    }
    log_segment_use(log, segment);
    open->segment = NULL;
    slot_next(open);
}

/* ---- a header that does not verify ------------------------------------------------------------ */

static bool damage_page(struct log_scan *scan, const struct page *page, struct bytes data)
{
    struct log_open *open = scan->arg;
    struct frame frame;

    if (open->scan_first == 0 && frame_decode(bytes_skip(data, PAGE_HEADER_SIZE), &frame))
        open->scan_first = frame.first_lsn;
    open->scan_mark = MAX(open->scan_mark, page->mark);
    scan->off += page_size(page);
    return true;
}

static void damage_done(struct log_scan *scan, int err)
{
    struct log_open *open = scan->arg;

    if (err != 0 && err != ERR_CORRUPT) {
        open_failed(open, "read segment", err);
        return;
    }
    if (open->segment->is_hot && open->scan_first != 0 && open->scan_mark >= open->scan_first &&
        open->scan_first > open->log->suspect_lsn) {
        open->log->suspect_lsn = open->scan_first;
        open->log->suspect_slot = open->segment->info.slot;
    }
    open->log->next_sequence = MAX(open->log->next_sequence, open->segment->info.sequence + 1);
    slot_is_free(open);
}

static void slot_has_no_header(struct log_open *open)
{
    struct page page;
    struct segment *segment = open->segment;
    struct segment_footer footer;

    if (segment_footer_decode(open->pages + 2 * PAGE_SIZE_, &footer) &&
        memcmp(footer.uuid, open->log->shard.uuid, 16) == 0) {
        log_error(open->log->text, "store: a sealed segment's header is damaged, nothing is cut file=%s offset=0 "
                  "sequence=%llu", open->path, (unsigned long long)footer.sequence);
        open_end(open, ERR_CORRUPT);
        return;
    }
    if (!page_decode(open->pages + PAGE_SIZE_, &page) || page.block != 1 ||
        memcmp(page.uuid, open->log->shard.uuid, 16) != 0) {
        slot_is_free(open);
        return;
    }
    segment->info.sequence = page.sequence;
    segment->is_hot = page.kind == PAGE_HOT;
    open->scan_first = open->scan_mark = 0;
    open->scan.page = damage_page;
    open->scan.done = damage_done;
    open->scan.arg = open;
    log_scan_start(&open->scan, segment, PAGE_SIZE_, log_segment_end(segment));
}

static void slot_read(struct io_op *op)
{
    struct log_open *open = op->arg;
    struct store_log *log = open->log;
    struct segment_header header;

    if (op_failed(open, "read segment"))
        return;
    if (!segment_header_decode(open->pages, &header)) {
        slot_has_no_header(open);
        return;
    }
    if (memcmp(header.uuid, log->shard.uuid, 16) != 0 || header.shard != log->options.shard) {
        log_error(log->text, "store: a segment of another directory, nothing is touched shard=%u file=%s",
                  log->options.shard, open->path);
        open_end(open, ERR_CORRUPT);
        return;
    }
    if (header.size != open->segment->info.size) {
        log_error(log->text, "store: a segment was cut file=%s offset=%llu size_expected=%llu", open->path,
                  (unsigned long long)open->segment->info.size, (unsigned long long)header.size);
        open_end(open, ERR_CORRUPT);
        return;
    }
    open->segment->header = header;
    log->next_sequence = MAX(log->next_sequence, header.sequence + 1);
    log->given_lsn = MAX(log->given_lsn, header.given_lsn);
    open->segment->info.sequence = header.sequence;
    if (header.kind == SEGMENT_HEADER_FREE) {
        log->free_mark = MAX(log->free_mark, header.mark);
        slot_is_free(open);
        return;
    }
    slot_is_used(open, &header);
}

static void slot_head_read(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "read segment"))
        return;
    op->done = slot_read;
    io_file_read(open->segment->file, op, open->pages + 2 * PAGE_SIZE_, PAGE_SIZE_,
                 log_segment_end(open->segment));
}

static void slot_sized(struct io_op *op)
{
    struct log_open *open = op->arg;
    uint64_t size = (uint64_t)op->result;

    if (op_failed(open, "size of segment"))
        return;
    open->log->disk_bytes += size;
    open->segment->info.size = size;
    if (size == 0) {
        slot_remove(open);
        return;
    }
    if (size < 3 * PAGE_SIZE_ || size % PAGE_SIZE_ != 0) {
        log_error(open->log->text, "store: a segment was cut file=%s offset=%llu", open->path,
                  (unsigned long long)size);
        open_end(open, ERR_CORRUPT);
        return;
    }
    op->done = slot_head_read;
    io_file_read(open->segment->file, op, open->pages, 2 * PAGE_SIZE_, 0);
}

static void slot_opened(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "open segment"))
        return;
    op->done = slot_sized;
    io_file_size(open->segment->file, op);
}

static void ring_open(struct log_open *open);

static void given_opened(struct store_log *log, int err)
{
    if (err != 0)
        open_failed(log->open, "lock file", err);
    else
        ring_open(log->open);
}

static void slot_next(struct log_open *open)
{
    struct store_log *log = open->log;
    int flags = IO_FILE_READ | IO_FILE_WRITE | (log->options.direct ? IO_FILE_DIRECT : 0);

    if (open->slot_at == open->slot_count) {
        log_given_open(log, given_opened);
        return;
    }
    open->segment = log_segment_create(log, open->slots[open->slot_at++], 0);
    log_segment_path(log, open->segment->info.slot, open->path);
    open->op.done = slot_opened;
    io_file_open(log->io, &open->op, open->path, flags, &open->segment->file);
}

/* ---- ring, free segments ---------------------------------------------------------------------- */

/* Any free segment is enough to go on; the others are made meanwhile. */
void log_open_made(struct store_log *log)
{
    struct log_open *open = log->open;

    if (open == NULL || log->state != LOG_OPENING)
        return;
    if (log->error != 0) {
        open_end(open, log->error);
        return;
    }
    if (log->making == NULL || log->ready_count >= LOG_RESERVE_MIN)
        open_end(open, 0);
}

static void bound_opened(struct store_log *log, int err)
{
    MAYBE(err != 0); /* then it is not known */
    log_segments_make(log);
    log_open_made(log);
}

static void free_ones_make(struct store_log *log, int err)
{
    if (err != 0) {
        open_end(log->open, err);
        return;
    }
    log->next_sequence = MAX(log->next_sequence, 1u) + LOG_SEQUENCE_SKIP;
    log_bound_open(log, bound_opened);
}

static void ring_opened(struct log_open *open)
{
    struct store_log *log = open->log;

    if (log_ring_doubt(&log->ring))
        log_rescue_start(log, free_ones_make);
    else
        free_ones_make(log, 0);
}

/* A file system that has no room for it does not keep us from opening: what we have to tell is little. */
static void state_is_open(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op->result == -ENOSPC || !op_failed(open, "write lock file"))
        ring_opened(open);
}

static void ring_open(struct log_open *open)
{
    struct store_log *log = open->log;
    int err = log_ring_open(log);

    if (err != 0) {
        open_end(open, err);
        return;
    }
    log->is_ring_lost = log_ring_is_lost(&log->ring);
    if (!log->ring.is_shared) {
        ring_opened(open);
    } else if (log->was_open) {
        open->op.done = state_is_open;
        io_file_datasync(log->lock_file, &open->op);
    } else {
        state_write(open, LOCK_STATE_OPEN, state_is_open);
    }
}

/* ---- the file "shard" ------------------------------------------------------------------------- */

static void shard_synced(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (!op_failed(open, "dirsync"))
        slot_next(open);
}

static void shard_renamed(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "rename shard file"))
        return;
    op->done = shard_synced;
    io_dirsync(open->log->io, op, open->log->dir);
}

static void shard_flushed(struct io_op *op)
{
    struct log_open *open = op->arg;

    io_file_close(open->file);
    open->file = NULL;
    if (op_failed(open, "flush shard file"))
        return;
    path_set(open, open->path, "shard.tmp");
    path_set(open, open->path_to, "shard");
    op->done = shard_renamed;
    io_rename(open->log->io, op, open->path, open->path_to);
}

static void shard_written(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "write shard file"))
        return;
    op->done = shard_flushed;
    io_file_datasync(open->file, op);
}

static void shard_created(struct io_op *op)
{
    struct log_open *open = op->arg;
    struct store_log *log = open->log;
    uint64_t words[4];

    if (op_failed(open, "make shard file"))
        return;
    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        words[i] = io_random64(log->io);
    log->shard = (struct shard_file){.shard = log->options.shard, .shard_count = log->options.shard_count};
    memcpy(log->shard.uuid, words, 16);
    memcpy(log->shard.seed, words + 2, 16);
    shard_file_encode(&log->shard, open->pages);
    op->done = shard_written;
    io_file_write(open->file, op, open->pages, PAGE_SIZE_, 0);
}

static void shard_make(struct log_open *open)
{
    path_set(open, open->path, "shard.tmp");
    open->op.done = shard_created;
    io_file_open(open->log->io, &open->op, open->path, IO_FILE_WRITE | IO_FILE_CREATE | IO_FILE_TRUNCATE,
                 &open->file);
}

static int shard_check(struct log_open *open)
{
    struct store_log *log = open->log;

    if (!shard_file_decode(open->pages, &log->shard)) {
        log_error(log->text, "store: file does not verify file=%s offset=0", open->path);
        return ERR_CORRUPT;
    }
    if (log->shard.shard == log->options.shard && log->shard.shard_count == log->options.shard_count)
        return 0;
    log_error(log->text,
              "store: the directory was made for another count of workers, start with workers=%u, or move the data "
              "to a new directory dir=%s shard=%u shards=%u shard_now=%u shards_now=%u",
              log->shard.shard_count, log->dir, log->shard.shard, log->shard.shard_count, log->options.shard,
              log->options.shard_count);
    return ERR_INVALID;
}

static void shard_read(struct io_op *op)
{
    struct log_open *open = op->arg;
    int err;

    io_file_close(open->file);
    open->file = NULL;
    if (op->result == ERR_EOF)
        memset(open->pages, 0, PAGE_SIZE_); /* cut: does not verify */
    else if (op_failed(open, "read shard file"))
        return;
    err = shard_check(open);
    if (err != 0)
        open_end(open, err);
    else
        slot_next(open);
}

static void shard_opened(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "open shard file"))
        return;
    op->done = shard_read;
    io_file_read(open->file, op, open->pages, PAGE_SIZE_, 0);
}

/* ---- lock, names ------------------------------------------------------------------------------ */

/* "000017.seg" */
static bool slot_of_name(const char *name, uint32_t *slot)
{
    struct bytes digits = bytes_of(name, strcspn(name, "."));
    uint64_t number;

    if (strcmp(name + digits.len, ".seg") != 0 || digits.len < 6)
        return false;
    while (digits.len > 1 && digits.data[0] == '0')
        digits = bytes_skip(digits, 1);
    if (!bytes_to_u64(digits, UINT32_MAX - 1, &number))
        return false;
    *slot = (uint32_t)number;
    return true;
}

static void name_each(void *arg, const char *name)
{
    struct log_open *open = arg;
    uint32_t slot;

    if (strcmp(name, "shard") == 0)
        open->has_shard_file = true;
    if (strcmp(name, "rescue.tmp") == 0)
        open->has_rescue_file = true;
    if (!slot_of_name(name, &slot))
        return;
    if (open->slot_count == open->slot_cap) {
        open->slot_cap = MAX(64u, 2 * open->slot_cap);
        open->slots = must_realloc(open->slots, open->slot_cap * sizeof(*open->slots));
    }
    open->slots[open->slot_count++] = slot;
    open->log->next_slot = MAX(open->log->next_slot, slot + 1);
}

static void names_known(struct log_open *open)
{
    struct io_op *op = &open->op;

    if (!open->has_shard_file && open->slot_count > 0) {
        open_failed(open, "segments without a file \"shard\"", ERR_CORRUPT);
        return;
    }
    if (!open->has_shard_file) {
        shard_make(open);
        return;
    }
    path_set(open, open->path, "shard");
    op->done = shard_opened;
    io_file_open(open->log->io, op, open->path, IO_FILE_READ, &open->file);
}

static void rescue_file_removed(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (!op_failed(open, "unlink"))
        names_known(open);
}

static void names_listed(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "list"))
        return;
    if (!open->has_rescue_file) {
        names_known(open);
        return;
    }
    path_set(open, open->path, "rescue.tmp"); /* half a copy: whoever made it has died */
    op->done = rescue_file_removed;
    io_unlink(open->log->io, op, open->path);
}

/* What a killed predecessor made may be seen and not be durable yet: nothing is built on a name that a power cut takes
 * away. */
static void names_durable(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op_failed(open, "dirsync"))
        return;
    op->done = names_listed;
    io_list(open->log->io, op, open->log->dir, name_each, open);
}

static void state_read(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op->result != ERR_EOF && op_failed(open, "read lock file"))
        return;
    open->log->was_open = op->result >= 0 && memcmp(open->state, LOCK_STATE_OPEN, LOCK_STATE_SIZE) == 0;
    op->done = names_durable;
    io_dirsync(open->log->io, op, open->log->dir);
}

/* A dead predecessor's lock is let go of when the kernel has ended everything that it had submitted: threads end their
 * calls first, and a ring holds the lock's file, too, as long as it has requests. So nothing of it lands later in a free
 * segment that we take. (G6 does not rely on that.) */
static void lock_done(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (op->result == -EWOULDBLOCK) {
        if (++open->lock_tries < LOCK_TRIES_MAX) {
            io_timer_start(open->log->io, &open->timer, LOCK_PAUSE_MS);
            return;
        }
        log_error(open->log->text, "store: the directory is in use, by another weir-backend or by what has not ended yet of "
                                   "a killed one shard=%u dir=%s",
                  open->log->options.shard, open->log->dir);
        open_end(open, ERR_EXISTS);
        return;
    }
    if (op_failed(open, "lock"))
        return;
    op->done = state_read;
    io_file_read(open->log->lock_file, op, open->state, LOCK_STATE_SIZE, 0);
}

static void lock_again(struct io_timer *timer)
{
    struct log_open *open = timer->arg;

    open->op.done = lock_done;
    io_file_lock(open->log->lock_file, &open->op);
}

static void lock_opened(struct io_op *op)
{
    struct log_open *open = op->arg;

    if (!op_failed(open, "open lock file"))
        lock_again(&open->timer);
}

static void lock_open(struct log_open *open)
{
    path_set(open, open->path, "lock");
    open->op.done = lock_opened;
    io_file_open(open->log->io, &open->op, open->path, IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE,
                 &open->log->lock_file);
}

static void parent_synced(struct io_op *op)
{
    struct log_open *open = op->arg;

    /* One that was there may have a parent that is not ours to read. */
    if (open->is_dir_old || !op_failed(open, "dirsync of the parent"))
        lock_open(open);
}

/* Also one that was there: a predecessor may have made it and have been killed before this. */
static void dir_made(struct io_op *op)
{
    struct log_open *open = op->arg;
    int err;

    open->is_dir_old = op->result == -EEXIST;
    if (!open->is_dir_old && op_failed(open, "make directory"))
        return;
    err = path_parent(bytes_of_string(open->log->dir), open->path, sizeof(open->path));
    ASSERT(err == 0); /* store_log_create() refuses a longer one */
    op->done = parent_synced;
    io_dirsync(open->log->io, op, open->path);
}

void store_log_open(struct store_log *log, void (*done)(void *arg, int err), void *arg)
{
    struct log_open *open = must_zalloc(sizeof(*open));

    ASSERT(log->state == LOG_NEW);
    log->state = LOG_OPENING;
    log->open = open;
    open->log = log;
    open->done = done;
    open->arg = arg;
    open->timer = (struct io_timer){.fire = lock_again, .arg = open};
    open->pages = mem_alloc_aligned(3 * PAGE_SIZE_, PAGE_SIZE_);
    ASSERT(open->pages != NULL);
    memset(open->pages, 0, 3 * PAGE_SIZE_);
    open->op.arg = open;
    open->op.done = dir_made;
    io_mkdir(log->io, &open->op, log->dir);
}

/* ---- closing ---------------------------------------------------------------------------------- */

/* All that was appended is in the files. */
static bool is_whole(const struct store_log *log)
{
    return log->error == 0 || (log->is_given_up && log->marks.durable == log->marks.appended);
}

static void close_end(struct store_log *log, int err)
{
    struct log_open *open = log->open;
    void (*done)(void *, int) = open->done;
    void *arg = open->arg;

    for (uint32_t i = 0; i < log->used_count; i++) {
        if (log->used[i]->file != NULL)
            io_file_close(log->used[i]->file);
        log->used[i]->file = NULL;
    }
    for (uint32_t i = 0; i < log->ready_count; i++) {
        io_file_close(log->ready[i]->file);
        log->ready[i]->file = NULL;
    }
    if (err == 0 && is_whole(log))
        log_ring_remove(log);
    else if (is_whole(log))
        log_warn(log->text, "store: the directory cannot be closed, its log ring stays shard=%u dir=%s why=\"%s\"",
                 log->options.shard, log->dir, err_text(err));
    if (log->lock_file != NULL)
        io_file_close(log->lock_file);
    log->lock_file = NULL;
    io_timer_stop(&log->timer);
    io_timer_stop(&log->space_timer);
    io_timer_stop(&log->leave_timer);
    open_free(log);
    log->state = LOG_CLOSED;
    done(arg, err != 0 ? err : log->error);
}

/* Nothing that belongs to us is with io. */
bool log_is_quiet(const struct store_log *log)
{
    return log->making == NULL && log->freeing_count == 0 && !log->given.is_writing && !log->bound.is_asking &&
           log->writes_submitted == 0 && log->flush_count == 0 && log->reads_submitted == 0 && list_is_empty(&log->reads_done);
}

static bool is_closed(const struct store_log *log)
{
    return log_is_quiet(log) && (log->error != 0 || (list_is_empty(&log->hot.writes) &&
                                                     list_is_empty(&log->cold.writes) &&
                                                     list_is_empty(&log->sealing) && !log->is_flushing));
}

static void state_is_closed(struct io_op *op)
{
    struct log_open *open = op->arg;

    close_end(open->log, op->result < 0 ? (int)op->result : 0);
}

static void close_flushed(void *arg, int err)
{
    struct log_open *open = arg;
    struct store_log *log = open->log;

    if ((err != 0 || open->is_flushed) && is_closed(log)) {
        if (is_whole(log) && log->ring.is_shared)
            state_write(open, STATE_CLOSED, state_is_closed);
        else
            close_end(log, is_whole(log) ? 0 : err);
        return;
    }
    if (err != 0 || open->is_flushed) { /* files or footers on their way: once more when they are there */
        io_timer_start(log->io, &open->timer, LOCK_PAUSE_MS);
        return;
    }
    open->is_flushed = true;
    if (log->hot_segment != NULL)
        log_segment_finish(log->hot_segment);
    log_cold_end_all(log);
    log->hot_segment = NULL;
    log_segments_foot(log);
    store_log_flush(log, close_flushed, open);
}

static void close_again(struct io_timer *timer)
{
    struct log_open *open = timer->arg;

    store_log_flush(open->log, close_flushed, open);
}

void store_log_close(struct store_log *log, void (*done)(void *arg, int err), void *arg)
{
    struct log_open *open;

    if (log->state != LOG_RUNNING) { /* never opened, or not well */
        if (log->lock_file != NULL)
            io_file_close(log->lock_file);
        log->lock_file = NULL;
        log->state = LOG_CLOSED;
        done(arg, 0);
        return;
    }
    store_log_turn_end(log);
    open = must_zalloc(sizeof(*open));
    log->open = open;
    open->log = log;
    open->done = done;
    open->arg = arg;
    open->timer = (struct io_timer){.fire = close_again, .arg = open};
    log->state = LOG_CLOSING;
    store_log_flush(log, close_flushed, open);
}

void store_log_destroy(struct store_log **slot)
{
    struct store_log *log = *slot;
    struct list_node *node;

    if (log == NULL)
        return;
    *slot = NULL;
    io_timer_stop(&log->timer);
    io_timer_stop(&log->soon);
    io_timer_stop(&log->space_timer);
    io_timer_stop(&log->leave_timer);
    open_free(log);
    log_recover_free(log);
    log_rescue_free(log);
    if (log->page.data != NULL && log->page.ring_count == 0)
        mem_free(log->page.data);
    for (unsigned i = 0; i < LOG_CLASSES; i++)
        mem_free(log->classes[i].data);
    log_writes_destroy(log);
    log_walks_destroy(log);
    for (uint32_t i = 0; i < log->used_count; i++)
        log_segment_destroy(log->used[i]);
    for (uint32_t i = 0; i < log->ready_count; i++)
        log_segment_destroy(log->ready[i]);
    while ((node = list_first(&log->freeing)) != NULL)
        log_segment_destroy(CONTAINER_OF(node, struct segment, sealing)); /* takes it off the list */
    if (log->making != NULL)
        log_segment_destroy(log->making);
    if (log->lock_file != NULL)
        io_file_close(log->lock_file);
    log_ring_close(log);
    mem_free(log->used);
    mem_free(log->ready);
    mem_free(log->given.page);
    mem_free(log->dir);
    mem_free(log->ring_path);
    mem_free(log);
}
