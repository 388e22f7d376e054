/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_faulty.h - a store on a disk that is not as it should be: it fails (test_store_fault.c) or is full
 * (test_store_full.c). What such a store says at error level is counted, and what is opened after its end is judged.
 */
#pragma once
#include "tests/unit/backend/store/store_world.h"

#define SEGMENT (64u << 10)

struct faulty {
    struct world w;
    struct world_errors errors;
};

static inline void begin(struct faulty *f, uint64_t seed, enum store_fsync fsync)
{
    memset(f, 0, sizeof(*f));
    world_init(&f->w, seed, NULL);
    world_errors_init(&f->errors, &f->w);
    f->w.options.segment_size = SEGMENT;
    f->w.options.ring_size = 1u << 18;
    f->w.options.fsync = fsync;
}

static inline void end(struct faulty *f)
{
    world_deinit(&f->w);
    world_errors_deinit(&f->errors);
}

static inline void ops(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_random_op(w);
        if (world_random(w, 3) == 0)
            store_turn_end(w->store);
        if (world_random(w, 4) == 0)
            sim_run_for(w->sim, world_random(w, 3000));
        if (world_random(w, 50) == 0)
            store_checkpoint(w->store);
    }
    store_turn_end(w->store);
}

/* What is opened now holds a prefix, with all that was durable. */
static inline void judge_open(struct world *w)
{
    uint64_t lsn = store_marks_of(w->store).appended;

    assert_true(lsn >= w->marks.durable && lsn <= w->lsn_last);
    world_forget_after(w, lsn);
    world_check(w, lsn);
}

static inline void judge(struct world *w)
{
    world_open(w);
    judge_open(w);
}
