/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_private.h - the parts of the log.
 *
 *     log.c          appending: records, frames, page writes; the marks
 *     log_write.c    the queues of writes, flushes, failure
 *     log_cold.c     cold page writes
 *     log_seal.c     ending open segments early
 *     log_leave.c    closing where there is no room
 *     log_segment.c  the table of segments, free ones, opening and giving back
 *     log_ring.c     the log ring; ring.c: its format
 *     log_open.c     the directory; opening and closing
 *     log_rescue.c   the start after a flush that failed
 *     log_scan.c     page writes of a segment, one after the other
 *     log_recover.c  what a scan finds: chain, transactions, torn tails
 *     log_replay.c   the ring's frames, the end of a recovery
 *     log_read.c     single records, walks
 *
 * Two queues of writes, hot and cold, each in the order of submission. A write that is done is taken off when all
 * before it are done, so `written` is a prefix. A segment's header goes through its queue before its page writes.
 *
 * A cold page write waits until the LSNs in it are durable: a copy must not outlive what it was copied from, or a
 * change that was lost would come back with it.
 *
 * Blobs of the hot log: the record gets a segment of its own, with a higher sequence than the open one, which goes on
 * behind it. The chain tells recovery where the blob's frame belongs.
 */
#pragma once
#include "backend/store/frame.h"
#include "backend/store/ring.h"
#include "backend/store/segment.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define LOG_CLASSES        STORE_LOG_CLASSES
#define LOG_PAGE_MAX       (1u << 20)
#define LOG_COLD_BUFFER    (256u << 10)
#define LOG_WRITE_AT       (128u << 10) /* pending bytes that are written without waiting for the timer */
#define LOG_TIMER_MS       1000u
#define LOG_LEAVE_MS       3000u        /* of a close: so long it waits for room on the disk */
#define LOG_HEAP_MAX       (64u << 20)  /* of page writes outside of the ring: above, there is no room */
#define LOG_HELD_MAX       (4u << 20)   /* of cold page writes that wait: above, the hot log is flushed */
#define LOG_ZERO_SIZE      (256u << 10)
#define LOG_READY_TARGET   4u
/* Free segments that clients leave to deletes and the cleaner: a 64th of the disk, in these bounds. */
#define LOG_RESERVE_MIN    2u
#define LOG_RESERVE_MAX    16u
#define LOG_RESERVE_FULL   4u           /* without a bound on the disk: log_segment.c says for whom */
#define LOG_RESERVE_SHARED 3u           /* of so many one is a checkpoint's on a file system that is full */
#define LOG_RESERVE_SHARE  64u
#define LOG_SEQUENCE_SKIP  16u          /* of a start: names that a lost header may have used */
#define LOG_SEGMENT_SIZE   (64u << 20)
#define LOG_SEGMENT_MIN    (64u << 10)
#define LOG_RING_SIZE      (4u << 20)
#define LOG_PATH_MAX       1024
#define RECORD_AT          (PAGE_SIZE_ + PAGE_HEADER_SIZE + FRAME_HEADER_SIZE) /* first one of a segment */

struct segment {
    struct segment_info info; /* first */
    struct store_log *log;
    struct io_file *file;     /* owns; NULL: not there yet (a blob), or closed */
    struct list_node dirty;   /* on its queue's list: written, not flushed */
    struct list_node sealing; /* on log->sealing: a footer is due once `seal_no` is durable; on log->freeing */
    struct io_op flush_op;
    struct io_op op;          /* being made, given back */
    struct segment_header header;
    uint64_t record_count, seal_no, chain_end;
    uint64_t written_end, flushing_end, flushed_end; /* of page writes: prefix that is done, and flushed */
    uint64_t done_count, flushing_count; /* writes that want a flush; when the one under way began */
    uint32_t writes_left;     /* queued, not done */
    bool is_hot;
    bool is_footed;           /* a footer was read or written: all of it is durable */
    bool is_finished;         /* no more page writes: sealed with the last one */
    bool has_header;          /* on disk */
    bool has_page;            /* when it was opened, a page write's header was at its start */
    bool is_orphan;           /* hot, of no use to a recovery */
    bool is_stalled;          /* a blob that the disk had no room for */
    bool is_making;           /* its file is not there for certain yet: nothing is written to it */
    bool is_unallocated;      /* ... and may be refused its room: a blob's */
    bool is_going;            /* its file, once "lock" tells its header's given_lsn */
    char *scratch;            /* owns: a page for `op` */
    uint64_t zero_end;        /* prefix that is zeroed while it is made */
};

/* One write on its way: a page write, a header or a footer. */
struct log_write {
    struct io_op op;
    struct list_node node; /* in its queue */
    struct store_log *log;
    struct segment *segment;
    char *data; /* in the ring, or owns */
    size_t size;
    uint64_t off, no;
    uint64_t lsn_needed;   /* cold page writes: must be durable before */
    uint64_t committed_before, committed_lsn; /* hot page writes: last whole LSN before and with it; else 0 */
    uint32_t ring_page, ring_count, ring_skip; /* pages; count 0: heap */
    bool is_hot, is_page, is_done, is_submitted;
    bool is_durable; /* once it is done: the file is never dirty by it */
};

struct log_queue {
    struct list writes;                    /* of log_write: not written, or behind such a one */
    uint64_t next_no, done_no, durable_no; /* given, prefix written, prefix flushed */
    struct list dirty;                     /* of segments */
};

/* The open page write; data NULL: none. */
struct log_page {
    char *data;
    size_t cap, at, limit; /* records may go up to `limit` without another look; 0: the slow way */
    size_t found;          /* `limit`, once room was asked for behind the open frame's start, and was there; or 0 */
    size_t frame_at;       /* of the open frame; 0: none */
    size_t heap;           /* what it counts in log->heap_bytes; 0: it lies in the ring */
    uint32_t record_count, frame_count;
    uint64_t address;      /* of data[0] */
    uint64_t first_lsn;    /* of the open frame */
    uint64_t off, committed_before;
    struct segment *segment;
    uint32_t ring_page, ring_count, ring_skip;
};

struct log_cold {
    struct segment *segment;
    char *data; /* owns */
    size_t cap, at;
    uint32_t record_count, epoch;
    uint64_t first_lsn, last_lsn, off;
};

struct log_ring {
    char *base;             /* mapped or owns: header, table, pages */
    struct ring_entry *table;
    char *data;
    size_t map_size;
    uint32_t page_count, head, tail, used;
    bool is_shared, had_content;
};

struct log_waiter {
    struct list_node node;
    uint64_t hot_no, cold_no, full_no;
    void (*done)(void *arg, int err);
    void *arg;
};

/* What the start of a commit goes by; log_gather.c. Counts are of records, times of the loop's clock. */
struct log_gather {
    uint64_t lsn;           /* all up to here has its commit, done or under way */
    uint64_t last, before;  /* of the last commit, and the one before */
    uint64_t seen;          /* when the wait's last step began */
    uint64_t began_us, asked_us;
    uint32_t commit_us;     /* average of the last few; 0: none yet */
    uint32_t waited_us;
    uint32_t skip, backoff; /* commits that do not wait now; after the next wait in vain */
    uint32_t commit_count;
    bool is_under_way, is_waiting;
};

/* What the file "lock" tells; log_given.c. */
struct log_given {
    struct io_op op;
    char *page;           /* owns */
    uint64_t told_lsn;    /* durably */
    uint64_t lsn_written; /* by the write under way */
    void (*done)(struct store_log *log, int err); /* while the log opens */
    bool is_writing, is_untold;
};

/* Of the file system, where nobody has said how much is ours; log_bound.c. */
struct log_bound {
    struct io_op op;
    void (*done)(struct store_log *log, int err); /* while the log opens */
    uint64_t bytes;       /* for segments; 0: not known */
    uint64_t held_then;   /* bytes of segments when it was asked */
    uint64_t again_ms, again_bytes; /* then, or with so many bytes of segments, the answer is old */
    bool is_asking;
    bool is_short;        /* not even what is kept for checkpoints is left */
};

enum log_state { LOG_NEW, LOG_OPENING, LOG_OPENED, LOG_RECOVERING, LOG_RUNNING, LOG_CLOSING, LOG_CLOSED };

struct store_log {
    struct log_page page; /* hottest first */
    uint64_t last_lsn;
    uint32_t epoch;
    bool is_atomic, is_unit_open; /* unit: the last frame sealed said that it goes on */
    bool has_sealed;              /* frames in the open page write */
    uint64_t chain, sealed_lsn; /* last LSN of the last whole unit */
    uint64_t wall_ms;
    struct store_marks marks;

    struct store_log_options options;
    struct io *io;
    struct log *text;
    char *dir;                  /* owns */
    char *ring_path;            /* owns; options.ring_path */
    size_t page_max, blob_from; /* bytes of a record */
    uint32_t reserve;           /* segments */
    int error;
    uint8_t state;
    struct log_queue hot, cold;
    struct log_gather gather;
    struct mem_pool writes;
    struct log_ring ring;
    size_t held_bytes;          /* of cold page writes that wait for durable LSNs */
    size_t cold_bytes;          /* of cold writes in the queue, those too */
    size_t heap_bytes;          /* of page writes outside of the ring: what is in them, of the open one its size */
    uint32_t heap_count;        /* hot ones */
    struct log_cold classes[LOG_CLASSES];
    struct segment *hot_segment; /* open; NULL: none */

    struct segment **used;       /* owns; by sequence */
    uint32_t used_count, used_cap, last_found;
    struct segment **ready;      /* owns: free, at hand */
    uint32_t ready_count, ready_cap;
    struct list sealing, freeing; /* of segments: `sealing` */
    struct segment *making;      /* owns: a free one on its way */
    char *zeros;                 /* owns: LOG_ZERO_SIZE of them, once some were needed */
    uint64_t next_sequence;
    uint32_t next_slot, freeing_count;
    uint32_t unallocated_count;  /* blobs whose files have not got their room yet */
    uint64_t unallocated_bytes;  /* of them */
    uint64_t disk_bytes, hot_from;
    uint64_t prev_sequence, prev_end; /* the hot segment before the open one */
    bool is_out_of_space;        /* the file system said so; it is asked again in a while */
    bool is_full;                /* the last time that it was asked it had no room */
    bool is_segment_wanted;      /* a recovery waits for one, whatever disk_max says */
    bool is_space_given;         /* what is free on it is for others */
    uint64_t refused_bytes;      /* the file of a large copy that was last refused; 0: none was since one was made */
    uint64_t blob_bytes, blob_bytes_until_ms; /* of disk_max, kept so long for a large record that was told to wait for room */
    uint64_t copy_bytes;         /* of disk_max, kept for such a file; 0: nothing is */
    /* Of hot segments whose header does not verify, the one with the highest first LSN that was durable; 0: none. */
    uint64_t suspect_lsn;
    uint32_t suspect_slot;
    uint64_t free_mark; /* highest durable mark that a free segment knows of */
    uint64_t given_lsn; /* what was durable when store_log_give_back() last freed one; 0: never */
    struct log_given given;
    struct log_bound bound;
    uint64_t recovered_lsn; /* of the last change that was found at the start */
    bool was_open;      /* whoever had it last has not closed it */
    bool is_ring_lost;  /* ... and the ring is gone */

    struct io_timer timer, soon, space_timer, leave_timer;
    bool is_impatient;       /* it closes, and does not wait for room any more */
    bool is_given_up;        /* it has ended (`error`) without what had none */
    bool room_is_wanted;     /* somebody was told that there is none */
    bool was_full;
    bool has_successor;      /* of what a release may give back: a hot segment that a recovery would start with */
    /* The flush under way. */
    uint32_t flush_count, writes_submitted;
    uint32_t reads_submitted; /* of records, scans and walks */
    uint64_t flush_hot_no, flush_cold_no, flush_lsn;
    bool is_flushing, flush_is_full;
    uint64_t full_flushes; /* done, of both queues */
    struct list flushing;        /* of segments: `dirty` */
    uint64_t flush_wanted;       /* hot number */
    struct list waiters, waiters_done;
    struct list reads_done;
    struct list walks;           /* owns: walk_part */
    bool is_in_step;             /* one of them goes on */

    struct io_file *lock_file;   /* owns */
    struct shard_file shard;
    unsigned char boot[16];
    struct log_open *open;       /* owns; while it opens or closes */
    struct log_recover *recover; /* owns */
    struct log_rescue *rescue;   /* owns; while it opens */
    struct store_log_stats stats;
};

static inline uint64_t address_of(uint64_t sequence, uint64_t off)
{
    return sequence << STORE_LOG_OFF_BITS | off >> 4;
}

/* ---- log.c ---- */
void log_page_close(struct store_log *log); /* seals, pads, queues */
void log_frame_seal(struct store_log *log, bool continues);
void log_appended_update(struct store_log *log);
/* As store_log_flush(); `is_forced`: also what was found dirty, not only our own writes. */
void log_flush(struct store_log *log, bool is_forced, void (*done)(void *arg, int err), void *arg);
void log_arm_timer(struct store_log *log);
void log_page_header(const struct store_log *log, const struct segment *segment, uint64_t off, size_t used,
                     uint32_t frame_count, char *at);
void log_count_record(struct segment *segment, const struct record *record, size_t size);

/* ---- log_write.c ---- */
struct log_write *log_write_get(struct store_log *log, struct segment *segment, char *data, size_t size,
                                uint64_t off);
void log_write_queue(struct log_write *write);
void log_writes_submit(struct store_log *log); /* those that have waited: for a file, for durable LSNs */
void log_writes_destroy(struct store_log *log);
void log_pump(struct store_log *log);
void log_fail(struct store_log *log, int err, const struct segment *segment, const char *what);
void log_soon(struct store_log *log);
void log_soon_fire(struct io_timer *timer);

/* ---- log_cold.c ---- */
void log_cold_close(struct store_log *log, struct log_cold *cold);
void log_cold_close_all(struct store_log *log);
void log_cold_end_all(struct store_log *log); /* and their segments */
int log_blob_begin(struct store_log *log, size_t size, bool is_hot, struct segment **out);

/* ---- log_leave.c ---- */
bool log_is_held_up(const struct store_log *log);
void log_leave_check(struct store_log *log); /* the end, if it is time for it */
void log_leave_fire(struct io_timer *timer);

/* ---- log_gather.c ---- */
bool log_gather_waits(struct store_log *log); /* none is under way: the next commit is not to start in this turn */
void log_gather_began(struct store_log *log);
void log_gather_ended(struct store_log *log);

/* ---- log_segment.c ---- */
struct segment *log_segment_find(struct store_log *log, uint64_t sequence);
void log_segment_path(const struct store_log *log, uint32_t slot, char path[LOG_PATH_MAX]);
struct segment *log_segment_create(struct store_log *log, uint32_t slot, uint64_t size);
void log_segment_destroy(struct segment *segment);
void log_segment_use(struct store_log *log, struct segment *segment);
uint32_t log_used_place(const struct store_log *log, uint64_t sequence); /* of the first with at least this sequence */
void log_used_remove(struct store_log *log, uint32_t at);
void log_segment_add_ready(struct store_log *log, struct segment *segment);
/* Free ones that are left to a checkpoint, which makes others free, and has no room beside them (store_log_space_give()). */
uint32_t log_segments_staying(const struct store_log *log);
bool log_segment_available(const struct store_log *log, bool is_hot);
/* A page of its own, of that size. */
bool log_blob_fits(const struct store_log *log, size_t page_bytes);
bool log_blob_fits_without(const struct store_log *log, size_t page_bytes, uint64_t spare);
void log_blobs_place(struct store_log *log); /* those that wait for room */
/* G10: those whose files have no room yet would take the last free segments, were there none. */
bool log_blob_waits(const struct store_log *log);
void log_segment_begin(struct store_log *log, struct segment *segment, uint8_t kind, uint8_t class, bool is_hot);
struct segment *log_segment_take(struct store_log *log, uint8_t kind, uint8_t class, bool is_hot);
void log_segment_finish(struct segment *segment); /* no more page writes: its footer is due */
void log_segments_foot(struct store_log *log);    /* footers that may be written now */
void log_segments_make(struct store_log *log);    /* free ones, if there are too few */
void log_segment_make_file(struct store_log *log, struct segment *segment);
uint64_t log_segment_end(const struct segment *segment); /* where its last page write must end */
void log_space_fire(struct io_timer *timer);

/* ---- log_give.c ---- */
void log_segments_unlink(struct store_log *log); /* what is going, and told */
void log_spares_trim(struct store_log *log);     /* one at a time, if there are many */
/* There is no room for a free segment, and clients wait for one: one that a start found, of a size that new ones have not,
 * goes before a checkpoint comes, for which there may be no room either. */
void log_odd_remove(struct store_log *log);

/* ---- log_given.c ---- */
/* What "lock" tells, into given_lsn; one that tells nothing gets its page. Once, when the segments are known. */
void log_given_open(struct store_log *log, void (*done)(struct store_log *log, int err));
/* False: it is being told, and log_segments_unlink() follows. */
MUST_USE bool log_given_is_told(struct store_log *log, uint64_t lsn);

/* ---- log_bound.c ---- */
/* Once, before segments are made. */
void log_bound_open(struct store_log *log, void (*done)(struct store_log *log, int err));
void log_bound_look(struct store_log *log); /* asks, if the answer is old */
bool log_bound_may_grow(const struct store_log *log); /* as others leave room */

/* ---- log_ring.c ---- */
int log_ring_open(struct store_log *log);
/* From the size it was found with to that of the options. Empty; all that was in it is durable. */
MUST_USE int log_ring_resize(struct store_log *log);
void log_ring_close(struct store_log *log);
void log_ring_remove(struct store_log *log);
/* A run of pages with at least `min` bytes, at most `max`; false: no room. */
bool log_ring_take(struct log_ring *ring, size_t min, size_t max, struct log_page *page);
void log_ring_give_back(struct log_ring *ring, struct log_page *page, size_t used); /* of the last run taken */
void log_ring_release(struct log_ring *ring, const struct log_write *write); /* the first run */
void log_ring_sealed(struct log_ring *ring, const struct log_page *page);
void log_ring_appended_set(struct log_ring *ring, uint64_t lsn);
uint64_t log_ring_appended(const struct log_ring *ring);
void log_ring_reset(struct log_ring *ring);
/* Whether a flush of this or of a dead process has failed (log_rescue.c). */
void log_ring_doubt_set(struct log_ring *ring, bool is_doubt);
bool log_ring_doubt(const struct log_ring *ring);
/* Whether it took the place of one that was lost (W5); and: a recovery with it has ended. */
bool log_ring_is_lost(const struct log_ring *ring);
void log_ring_lost_forget(struct log_ring *ring);

/* ---- log_rescue.c ---- */
void log_rescue_start(struct store_log *log, void (*done)(struct store_log *log, int err));
void log_rescue_free(struct store_log *log);

/* ---- log_open.c ---- */
bool log_is_quiet(const struct store_log *log);
void log_open_made(struct store_log *log); /* a free segment came, or none can be had */

/* ---- log_scan.c ---- */
struct log_scan {
    struct segment *segment;
    uint64_t off, end;
    /* A page write whose header verifies and belongs there. True: go on; false: log_scan_go() will be called, with
     * `off` moved by whoever scans. */
    bool (*page)(struct log_scan *scan, const struct page *page, struct bytes data);
    /* 0: `end` was reached; ERR_CORRUPT: no page write at `off`; else the error of a read. */
    void (*done)(struct log_scan *scan, int err);
    void *arg;
    struct io_op op;
    char *buffer; /* owns */
    size_t cap, len;
    uint64_t buffer_off;
    uint32_t piece;  /* bytes read at once; 0: as many as is good */
    bool skips_bad;  /* looks for page writes anywhere */
};
void log_scan_start(struct log_scan *scan, struct segment *segment, uint64_t off, uint64_t end);
void log_scan_go(struct log_scan *scan);
void log_scan_deinit(struct log_scan *scan);
/* Whether every frame in it verifies, and nothing else is there. */
bool log_page_is_whole(const struct segment *segment, const struct page *page, struct bytes data);
bool log_page_belongs(const struct segment *segment, uint64_t off, const struct page *page);

/* ---- log_recover.c, log_replay.c ---- */
void log_recover_end(struct log_recover *recover, int err);
void log_replay_ring(struct log_recover *recover);
void log_replay_made(struct store_log *log); /* as log_open_made() */
void log_recover_soon(struct store_log *log);
void log_recover_free(struct store_log *log);

/* ---- log_read.c ---- */
void log_reads_deliver(struct store_log *log);
void log_walks_go(struct store_log *log); /* one that has paused */
void log_walks_destroy(struct store_log *log);
