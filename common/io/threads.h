/* SPDX-License-Identifier: Apache-2.0 */
/*
 * threads.h - a few threads for what the kernel offers only as blocking calls. For common/io alone.
 *
 * work() runs in a thread and touches nothing but its job; finish() runs in the loop, out of
 * threads_reap(), exactly once for each job that was submitted and not canceled.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/list.h"

struct io_job {
    struct list_node node;
    void (*work)(struct io_job *job);
    void (*finish)(struct io_job *job);
};

struct io_threads;

/* `notify` is called from the threads, when there is something to reap. queue_max 0: no bound (the
 * jobs themselves are bounded). Errors: of pthread_create. */
MUST_USE int threads_create(unsigned thread_count, unsigned queue_max, void (*notify)(void *arg),
                            void *arg, struct io_threads **out);
/* Drops queued jobs. is_joined: waits for those that run; else they end by themselves, and their jobs
 * are passed to drop() in their thread, if it is not NULL. Queued and finished jobs go to drop() too. */
void threads_destroy(struct io_threads **threads, bool is_joined,
                     void (*drop)(struct io_job *job));
/* ERR_FULL. */
MUST_USE int threads_submit(struct io_threads *threads, struct io_job *job);
/* True: the job had not begun, and is the caller's again. */
bool threads_try_cancel(struct io_threads *threads, struct io_job *job);
void threads_reap(struct io_threads *threads);
