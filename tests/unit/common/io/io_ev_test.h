/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_ev_test.h - one io a test, run until the test stops it; a guard ends what hangs.
 */
#pragma once
#include "tests/unit/test.h"

#include "common/io/io_ev.h"

struct loop {
    struct io *io;
    struct io_timer guard, soon;
    bool has_hung;
};

static inline void loop_guard_fire(struct io_timer *timer)
{
    struct loop *loop = timer->arg;

    loop->has_hung = true;
    io_stop(loop->io);
}

/* Runs until somebody calls io_stop(). */
static inline void loop_run(struct loop *loop)
{
    loop->has_hung = false;
    loop->guard = (struct io_timer){.fire = loop_guard_fire, .arg = loop};
    io_timer_start(loop->io, &loop->guard, 60000);
    io_run(loop->io);
    io_timer_stop(&loop->guard);
    assert_false(loop->has_hung);
}

static inline void loop_soon_fire(struct io_timer *timer)
{
    struct loop *loop = timer->arg;

    io_stop(loop->io);
}

/* Lets everything happen that is under way. */
static inline void loop_run_ms(struct loop *loop, uint64_t ms)
{
    loop->soon = (struct io_timer){.fire = loop_soon_fire, .arg = loop};
    io_timer_start(loop->io, &loop->soon, ms);
    loop_run(loop);
    io_timer_stop(&loop->soon); /* something else may have stopped it */
}

/* What takes several turns has as many, however late each comes on a busy machine. */
static inline void loop_run_turns(struct loop *loop, int count)
{
    while (count-- > 0)
        loop_run_ms(loop, 1);
}

static inline void loop_open(struct loop *loop, struct io_ev_options options)
{
    memset(loop, 0, sizeof(*loop));
    assert_int_equal(io_ev_create(&options, &loop->io), 0);
}

static inline void loop_close(struct loop *loop)
{
    io_ev_destroy(&loop->io);
    assert_null(loop->io);
}
