/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_private.h - one shard's store, for its own files.
 *
 *     open.c        life: opening, background work, closing
 *     store.c       look-ups, marks, walks
 *     change.c      every change of a key: record first, memory after
 *     fetch.c       cold values come back
 *     spill.c       hot values go; keys expire; memory is given back
 *     replay.c      records of the log become keys again
 *     checkpoint.c  the index on disk
 *     cleaner.c     dead space comes back
 *     backup.c      holding files still for whoever copies them
 */
#pragma once
#include "backend/store/expiry.h"
#include "backend/store/index.h"
#include "backend/store/log.h"
#include "backend/store/page_stock.h"
#include "backend/store/slab.h"
#include "backend/store/store.h"
#include "common/base/log.h"

struct backup;
struct chains;
struct checkpoint;
struct cleaner;
struct fetches;
struct replay;
struct residency;

enum store_state { STORE_OPENING, STORE_OPEN, STORE_CLOSING, STORE_CLOSED };

struct store {
    struct store_options options;
    struct io *io;
    struct page_stock stock; /* of index and slab */
    struct index *index;
    struct slab *slab;
    struct store_log *log; /* NULL: nothing is kept (no directory was given) */
    struct log *text_log;  /* borrows */
    uint64_t now_ms;
    uint64_t wall_ms, wall_at_ms; /* what it was when the host's clock was last not behind it, and when, by io_now_ms() */
    struct replay *replay;  /* while it opens */
    uint32_t epoch;         /* of this life */
    uint32_t lsn_gap;       /* to be left out before the next LSN */
    uint64_t memory_lsn;   /* without a log: LSNs come from here */
    uint64_t absent_lsn;   /* of the last record that took keys away */
    /* Databases by the number that records and entries have, and where the caller's numbers are among those:
     * all arrays here go by the former. One is the other's inverse. */
    uint8_t places[STORE_DBS], names[STORE_DBS];
    uint64_t swap_lsn;     /* of the record that made them so */
    uint64_t flush_lsn[STORE_DBS]; /* entries with a lower LSN are gone, whatever the index says */
    uint64_t counts[STORE_DBS], expiring[STORE_DBS]; /* keys that can be seen */
    uint64_t flushed_left;   /* entries of flushed databases still in the index, about */
    uint64_t others_bytes; /* as store_others_set() was told */
    uint64_t object_bytes;   /* of objects, as accounted */
    uint64_t cold_count;
    struct buffer effects;   /* of the change under way */
    struct store_key open_key; /* a new empty object that store_change() has not seen; entry NULL: none */
    struct buffer scratch;   /* for images */
    struct list dying;       /* of struct dying: objects freed in steps */
    uint32_t dying_count;
    uint64_t dying_bytes;    /* of object_bytes */
    struct chains *chains;   /* of objects that recovery found as image and deltas; NULL: none are left */
    struct fetches *fetches;
    struct residency *residency;
    struct expiry expiry;
    struct checkpoint *checkpoint;
    struct cleaner *cleaner;
    struct backup *backup; /* NULL: there was never one */
    struct io_timer work_timer;
    uint64_t work_at_ms;     /* when it fires */
    uint64_t sweep_at;       /* of the walk that frees what was flushed */
    struct store_stats stats;
    uint8_t state;           /* enum store_state */
    bool waits_for_cleaner;  /* some write was told to try again when there is room, */
    uint64_t blob_wanted;    /* or when there is so much for one record; bytes */
    bool is_replaying, is_expiry_paused, is_atomic, has_limits;
    struct object_limits limits;
    uint32_t hot_holds;      /* who wants nothing to go cold */
    uint64_t compact_at, compact_again_ms; /* of the walk that moves lonely entries */
    uint64_t shake_at;                     /* in checked builds */
    uint32_t sweep_rounds;
    uint64_t checkpoint_again_ms; /* not before, after one has failed */
    uint64_t checkpoints_begun, checkpoint_good; /* numbers: of the newest, and of the newest that was written */
    int checkpoint_err;           /* of the newest that has ended */
    bool is_checkpoint_wanted, is_last_checkpoint;
    bool has_places_gone; /* while it opens: the checkpoint names segments that are not there */
    bool is_unlogged;     /* a key has gone without a record, and no checkpoint has begun since */
    bool recount_needed; /* replay: tombstones, flushes or chains are about */
    void (*open_done)(void *arg, int err);
    void *open_arg;
    void (*close_done)(void *arg, int err);
    void *close_arg;
    int close_err;
};

/* ---- store.c ---- */

/* False: not a permutation. */
bool store_places_set(struct store *store, const uint8_t places[STORE_DBS], uint64_t lsn);

/* The entry that the index has, also one that is flushed or expired. */
static inline bool store_is_flushed(const struct store *store, const struct entry *e)
{
    return entry_lsn(e) < store->flush_lsn[entry_db(e)];
}

static inline bool store_is_expired(const struct store *store, const struct entry *e)
{
    uint64_t expire_ms = entry_expire_ms(e);

    return expire_ms != 0 && expire_ms <= store->now_ms;
}

uint64_t store_memory_bytes(const struct store *store);
uint64_t store_memory_staying(const struct store *store); /* without what is being freed */
/* An entry whose time is over goes, with a tombstone if one can be written. */
void store_expire(struct store *store, uint64_t hash, struct entry *e);
void store_tell_changed(struct store *store, uint8_t db, struct bytes key, enum store_change_kind kind);

/* ---- open.c ---- */

/* Memory and log have parted, or the log has failed: nothing more is changed in this life. */
void store_break(struct store *store, int err);
/* Background work goes on in so many milliseconds at the latest. */
void store_work_soon(struct store *store, uint64_t delay_ms);
/* Frees all entries and objects, at the end. */
void store_keys_destroy(struct store *store);

/* ---- change.c ---- */

/* Makes or remakes an entry out of its parts; *at is the old one (NULL: none) and becomes the new one. Counts keys,
 * expiring and cold ones; owns nothing of objects. ERR_FULL: nothing changed. */
MUST_USE int store_entry_put(struct store *store, uint64_t hash, struct entry **at,
                             const struct entry_parts *parts);
/* Takes an entry out of index, counts and slab. An object is left to the caller. */
void store_entry_drop(struct store *store, uint64_t hash, struct entry *e);
/* The same, and frees the object (in steps if it is large). */
void store_entry_destroy(struct store *store, uint64_t hash, struct entry *e);
void store_object_destroy(struct store *store, struct object *object);
/* Frees a bounded part of what is dying. True: more is left. */
bool store_dying_work(struct store *store, uint32_t elements_max);
/* A key of a cache goes away for want of memory. */
MUST_USE int store_evict(struct store *store, struct store_key *key);
/* Takes the new empty object back that was opened and not changed. */
void store_open_cancel(struct store *store);
/* Writes the image of a hot object whose chain is not empty: a local record, same LSN. */
MUST_USE int store_image(struct store *store, uint64_t hash, struct entry *e);
void store_object_account(struct store *store, struct object *object);
/* A tombstone for a key that has expired, if one can be written. */
int store_log_expired(struct store *store, const struct entry *e);
/* Appends, or counts where there is no log. The record's slot is filled in. */
MUST_USE int store_append(struct store *store, struct record *record, uint64_t *address);

/* What its record takes in the log, about: for the segments' counts of live bytes, which are hints (L8). */
size_t store_record_bytes(const struct entry *e);
void store_live_add(struct store *store, uint64_t address, size_t bytes);
void store_live_remove(struct store *store, uint64_t address, size_t bytes);

/* ---- fetch.c ---- */

MUST_USE int fetches_create(struct store *store);
void fetches_destroy(struct store *store);

/* An object that recovery found as an image and deltas, not yet put together. Its entry is cold. */
struct chain {
    struct chain *next;
    uint64_t hash, base_lsn;
    uint64_t image_lsn;       /* 0: no image, the first delta creates it */
    uint64_t chain_sequence;  /* of the oldest delta */
    struct chain_delta {
        uint64_t lsn, address, size;
    } *deltas;                /* owns; by LSN */
    uint32_t count, cap;
    uint8_t db;
    uint16_t key_len;
    char key[];
};
struct chain *chain_find(const struct store *store, uint64_t hash, const struct entry *e);
/* NULL: out of memory. */
struct chain *chain_add(struct store *store, uint64_t hash, uint8_t db, struct bytes key);
/* The object has the chain now. */
void chain_forget(struct store *store, uint64_t hash, const struct entry *e);
/* The same, and its records are dead. */
void chain_end(struct store *store, uint64_t hash, const struct entry *e);
/* Counts it as live. ERR_FULL. */
MUST_USE int chain_delta_add(struct store *store, struct chain *chain, uint64_t lsn, uint64_t address, size_t size);
void chain_image_set(struct store *store, struct chain *chain, uint64_t lsn); /* drops deltas up to it */
void chains_destroy(struct store *store);

/* ---- spill.c ---- */

/* A value has become hot. */
void spill_inserted(struct store *store, uint64_t hash, struct entry *e);
/* Makes a hot entry cold, if that may be: it has an address and no chain. Returns bytes gained; *e follows. */
size_t spill_entry(struct store *store, uint64_t hash, struct entry **e);
/* Gives memory back until maxmemory holds, looking at no more than `budget` entries. True: it gained some. */
bool spill_step(struct store *store, uint32_t budget);
/* A step. True: more is to do now. */
bool spill_work(struct store *store);
/* At the end of a turn: as much of it as the turn has time for. */
bool spill_turn(struct store *store, uint32_t budget);
MUST_USE int spill_create(struct store *store);
void spill_destroy(struct store *store);

/* ---- checkpoint.c ---- */

void checkpoint_mark(struct store *store, uint64_t hash, bool is_gone);
/* The key's entry is not as the last checkpoint has it: by a record with a new LSN, or by a copy in a cold segment. All
 * else that may happen to what a checkpoint tells of a key needs a call of its own. */
static inline void checkpoint_touch(struct store *store, uint64_t hash)
{
    if (LIKELY(store->checkpoint != NULL))
        checkpoint_mark(store, hash, false);
}
/* The key is not there any more. */
static inline void checkpoint_touch_gone(struct store *store, uint64_t hash)
{
    if (LIKELY(store->checkpoint != NULL))
        checkpoint_mark(store, hash, true);
}
/* Whether the key's page in the checkpoint may not know of a record with this LSN at this place. */
bool checkpoint_is_news(const struct store *store, uint64_t hash, uint64_t lsn, uint64_t address);
/* Recovery has changed the entry. */
void checkpoint_touch_replayed(struct store *store, uint64_t hash, const struct entry *e);

/* ---- cleaner.c ---- */

/* Which cold stream a record goes to, by how long it will live. */
unsigned cleaner_class(const struct store *store, uint64_t expire_ms, uint64_t lsn);
