/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: a queue, a list of finished jobs, one mutex.
 *
 * The pool is counted (the owner and each thread), so that its owner can leave while a name server
 * that does not answer still holds a thread.
 */
#include "common/io/threads.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <pthread.h>
#include <signal.h>

#define THREADS_MAX 8

struct io_threads {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct list queued, finished;
    unsigned queued_count, queue_max;
    unsigned ref_count; /* the owner and each running thread */
    bool is_closed;     /* the owner has left: no more notify() */
    void (*notify)(void *arg);
    void *arg;
    void (*drop)(struct io_job *job);
    pthread_t ids[THREADS_MAX];
    unsigned id_count;
};

static void threads_free(struct io_threads *t)
{
    pthread_cond_destroy(&t->cond);
    pthread_mutex_destroy(&t->mutex);
    mem_free(t);
}

/* With the mutex held; true: it was the last, the mutex is released and the pool gone. */
static bool threads_unref(struct io_threads *t)
{
    ASSERT(t->ref_count > 0);
    if (--t->ref_count > 0)
        return false;
    pthread_mutex_unlock(&t->mutex);
    threads_free(t);
    return true;
}

static void threads_finished(struct io_threads *t, struct io_job *job)
{
    bool is_first = list_is_empty(&t->finished);

    if (t->is_closed) {
        if (t->drop != NULL)
            t->drop(job);
        return;
    }
    list_push_back(&t->finished, &job->node);
    if (is_first)
        t->notify(t->arg);
}

static void *thread_main(void *arg)
{
    struct io_threads *t = arg;

    pthread_mutex_lock(&t->mutex);
    while (!t->is_closed) {
        struct io_job *job;
        struct list_node *node = list_pop_front(&t->queued);

        if (node == NULL) {
            pthread_cond_wait(&t->cond, &t->mutex);
            continue;
        }
        t->queued_count--;
        job = CONTAINER_OF(node, struct io_job, node);
        pthread_mutex_unlock(&t->mutex);
        job->work(job);
        pthread_mutex_lock(&t->mutex);
        threads_finished(t, job);
    }
    if (!threads_unref(t))
        pthread_mutex_unlock(&t->mutex);
    return NULL;
}

/* Signals are the loop's: a thread that takes one would run its handler beside the loop. */
static int thread_start(struct io_threads *t)
{
    sigset_t all, before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&t->ids[t->id_count], NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return -err;
    t->id_count++;
    return 0;
}

int threads_create(unsigned thread_count, unsigned queue_max, void (*notify)(void *arg), void *arg,
                   struct io_threads **out)
{
    struct io_threads *t = must_zalloc(sizeof(*t));
    int err = 0;

    ASSERT(thread_count >= 1 && thread_count <= THREADS_MAX);
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->cond, NULL);
    list_init(&t->queued);
    list_init(&t->finished);
    t->queue_max = queue_max;
    t->notify = notify;
    t->arg = arg;
    t->ref_count = 1;

    pthread_mutex_lock(&t->mutex);
    while (t->id_count < thread_count) {
        err = thread_start(t);
        if (err != 0)
            break;
        t->ref_count++;
    }
    pthread_mutex_unlock(&t->mutex);
    if (t->id_count == 0) {
        threads_free(t);
        return err;
    }
    *out = t; /* fewer threads than asked for are enough */
    return 0;
}

static void threads_drop(struct list *jobs, void (*drop)(struct io_job *job))
{
    struct list_node *node;

    while ((node = list_pop_front(jobs)) != NULL) {
        if (drop != NULL)
            drop(CONTAINER_OF(node, struct io_job, node));
    }
}

void threads_destroy(struct io_threads **slot, bool is_joined, void (*drop)(struct io_job *job))
{
    struct io_threads *t = *slot;
    pthread_t ids[THREADS_MAX];
    unsigned id_count;

    *slot = NULL;
    if (t == NULL)
        return;
    pthread_mutex_lock(&t->mutex);
    memcpy(ids, t->ids, sizeof(ids));
    id_count = t->id_count;
    t->is_closed = true;
    t->drop = drop;
    threads_drop(&t->queued, drop);
    threads_drop(&t->finished, drop);
    pthread_cond_broadcast(&t->cond);
    /* From here on the pool may be freed by its last thread. */
    if (!threads_unref(t))
        pthread_mutex_unlock(&t->mutex);
    for (unsigned i = 0; i < id_count; i++) {
        if (is_joined)
            pthread_join(ids[i], NULL);
        else
            pthread_detach(ids[i]);
    }
}

int threads_submit(struct io_threads *t, struct io_job *job)
{
    int err = 0;

    pthread_mutex_lock(&t->mutex);
    if (t->queue_max != 0 && t->queued_count >= t->queue_max) {
        err = ERR_FULL;
    } else {
        list_push_back(&t->queued, &job->node);
        t->queued_count++;
        pthread_cond_signal(&t->cond);
    }
    pthread_mutex_unlock(&t->mutex);
    return err;
}

bool threads_try_cancel(struct io_threads *t, struct io_job *job)
{
    bool is_queued = false;

    pthread_mutex_lock(&t->mutex);
    LIST_FOR_EACH(&t->queued, node) {
        if (node != &job->node)
            continue;
        list_remove(node);
        t->queued_count--;
        is_queued = true;
        break;
    }
    pthread_mutex_unlock(&t->mutex);
    return is_queued;
}

void threads_reap(struct io_threads *t)
{
    struct list batch;
    struct list_node *node;

    list_init(&batch);
    pthread_mutex_lock(&t->mutex);
    list_move_all(&t->finished, &batch);
    pthread_mutex_unlock(&t->mutex);
    /* A job may be submitted again, or freed, by its finish(). */
    while ((node = list_pop_front(&batch)) != NULL) {
        struct io_job *job = CONTAINER_OF(node, struct io_job, node);

        job->finish(job);
    }
}
