/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleaner_private.h - what choosing (cleaner_plan.c), doing (cleaner.c, cleaner_index.c) and giving back (cleaner_give.c)
 * share.
 */
#pragma once
#include "backend/store/cleaner.h"
#include "backend/store/store_private.h"

#define CLEAN_FETCHES_MAX 64u
#define CLEAN_URGENT      256u

enum cleaner_state { CLEANER_IDLE, CLEANER_LOOKING, CLEANER_WALKING, CLEANER_PAUSED, CLEANER_FETCHING };

/* How things stand, as of `made_ms`. */
struct clean_plan {
    uint64_t made_ms;
    uint64_t next_sequence; /* another segment has been taken since: it is out of date */
    bool is_made;      /* false: something has changed since */
    uint64_t victim;   /* sequence; 0: none is worth it */
    uint64_t free;     /* bytes that the log may take, now or in a moment; */
    uint64_t freeing;  /* of those: in a moment */
    uint64_t going;    /* that it may when it asks for a flush; */
    uint64_t leaving;  /* of `freeing`: the flush is under way */
    uint64_t emptied;  /* that it may when a checkpoint has come */
    uint64_t kept;     /* nothing lives there, but the last checkpoint could not free it */
    uint64_t closing;  /* in files of large records that died before they were written, and, where room is wanted, in open
                        * segments of copies that are all dead: victims in a moment */
    uint64_t dead;     /* that cleaning all that is worth it would give */
    uint64_t copy_room; /* in segments that copies go to already */
    bool is_short;     /* of free ones, emptied or not, there are few: what goes is to go at once */
    uint32_t urgency;  /* 0: nothing is to be done; CLEAN_URGENT: as fast as it goes, writers wait or soon will */
};

struct cleaner {
    uint8_t state;
    uint64_t victim, off;
    uint64_t index_cursor; /* where to look next whether anything lives in it */
    uint64_t failed;     /* the victim that was given up last; 0: none */
    uint64_t left_live;  /* records of this pass that are live still: another pass must follow */
    uint32_t passes;
    uint64_t next_ms;    /* of the next piece */
    uint64_t again_ms;   /* no victim before: the last one was given up */
    uint64_t hot_age;    /* records that were appended behind a hot segment until it was cleaned, on average; 0: not known */
    bool is_starved;     /* it stopped as there is no segment for its copies */
    int err;
    /* Deltas of cold chains in the victim: their keys come into memory first. */
    struct cleaner_fetch {
        struct store_waiter waiter;
        struct store *store;
    } fetches[CLEAN_FETCHES_MAX];
    uint32_t fetches_under_way;
    struct store_log_walk walk;
    uint64_t kept_again_ms; /* no checkpoint before for the sake of `kept` */
    struct clean_plan plan;
    bool is_giving;         /* the flush is under way */
    bool is_unlogged;       /* a checkpoint has begun since store->is_unlogged was set, and none has ended well */
    /* Scrubbing: */
    struct store_log_walk scrub;
    uint64_t scrub_sequence, scrub_off, scrub_next_ms;
    bool is_scrubbing;
};

/* Whether the index may show that nothing lives in it; then steps, until one of the last two comes. */
enum clean_look { LOOK_ON, LOOK_LIVE /* or it may */, LOOK_DEAD };
bool clean_index_may(const struct store *store, const struct segment_info *segment);
enum clean_look clean_index_look(struct store *store);
const struct clean_plan *clean_plan_of(const struct store *store);
/* What was emptied and can go is enough for a flush, or is wanted at once. */
bool clean_wants_flush(const struct store *store);
/* Once emptied, it could go before a checkpoint comes; and: it was, and can. */
bool clean_would_go(const struct store *store, const struct segment_info *segment);
bool clean_goes(const struct store *store, const struct segment_info *segment);
