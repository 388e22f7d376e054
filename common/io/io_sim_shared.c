/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host gives its processes at once: random numbers, its boot id, shared memory. That survives the
 * processes, not a power cut. A dead process's view of it stays valid until the world ends: what a driver still
 * tears down may look at it.
 */
#include "common/io/io_sim_private.h"

#include <stdio.h>

struct sim_shared {
    struct list_node node;
    char *path;     /* owns */
    void *data;     /* owns */
    size_t size;
    bool is_foreign; /* another user owns it now */
    bool is_gone;   /* since a power cut, or replaced, or removed */
};

static struct sim_shared *shared_find(const struct sim_process *process, const char *path)
{
    LIST_FOR_EACH(&process->node->shared, at) {
        struct sim_shared *shared = CONTAINER_OF(at, struct sim_shared, node);

        if (!shared->is_gone && strcmp(shared->path, path) == 0)
            return shared;
    }
    return NULL;
}

int sim_shared_map(struct io *io, const char *path, size_t size, void **addr, bool *existed)
{
    struct sim_process *process = sim_process_of(io);
    struct sim_shared *shared;

    ASSERT(size > 0 && size % 4096 == 0);
    if (process->is_dead)
        return -EIO;
    shared = shared_find(process, path);
    if (shared != NULL && shared->is_foreign)
        return ERR_EXISTS;
    *existed = shared != NULL && shared->size == size;
    if (*existed) {
        *addr = shared->data;
        return 0;
    }
    if (shared != NULL)
        shared->is_gone = true;
    if (process->node->shared_max != 0 && size > process->node->shared_max)
        return -ENOSPC;
    shared = must_zalloc(sizeof(*shared));
    shared->path = must_strdup(path);
    shared->size = size;
    shared->data = mem_alloc_aligned(size, 4096);
    ASSERT(shared->data != NULL);
    memset(shared->data, 0, size);
    list_push_back(&process->node->shared, &shared->node);
    *addr = shared->data;
    return 0;
}

int sim_shared_size(struct io *io, const char *path, size_t *size)
{
    const struct sim_process *process = sim_process_of(io);
    const struct sim_shared *shared = process->is_dead ? NULL : shared_find(process, path);

    *size = shared != NULL ? shared->size : 0;
    return process->is_dead ? -EIO : shared == NULL ? -ENOENT : shared->is_foreign ? ERR_EXISTS : 0;
}

void sim_shared_why(struct io *io, const char *path, char *out, size_t size)
{
    const struct sim_shared *shared = shared_find(sim_process_of(io), path);

    (void)snprintf(out, size, "%s", shared != NULL && shared->is_foreign ? "it is of another user" : "it is not there");
}

void sim_shared_foreign_set(struct sim_node *node, bool is_foreign)
{
    LIST_FOR_EACH(&node->shared, at)
        CONTAINER_OF(at, struct sim_shared, node)->is_foreign = is_foreign;
}

void sim_shared_max_set(struct sim_node *node, size_t size)
{
    node->shared_max = size;
}

void sim_shared_unmap(struct io *io, void *addr, size_t size)
{
    (void)io, (void)addr, (void)size; /* another process may have it */
}

int sim_shared_remove(struct io *io, const char *path)
{
    struct sim_process *process = sim_process_of(io);
    struct sim_shared *shared = process->is_dead ? NULL : shared_find(process, path);

    if (process->is_dead)
        return -EIO;
    if (shared == NULL)
        return -ENOENT;
    shared->is_gone = true;
    return 0;
}

void sim_shared_host_ended(struct sim_node *node)
{
    LIST_FOR_EACH(&node->shared, at)
        CONTAINER_OF(at, struct sim_shared, node)->is_gone = true;
    node->boot_count++;
}

void sim_shared_free(struct sim_node *node)
{
    struct list_node *at;

    while ((at = list_pop_front(&node->shared)) != NULL) {
        struct sim_shared *shared = CONTAINER_OF(at, struct sim_shared, node);

        mem_free(shared->path);
        mem_free(shared->data);
        mem_free(shared);
    }
}

int sim_boot_id(struct io *io, unsigned char out[16])
{
    const struct sim_node *node = sim_process_of(io)->node;
    uint64_t words[2] = {sim_mix(node->sim->seed, node->id), sim_mix(node->id, node->boot_count)};

    memcpy(out, words, sizeof(words));
    return 0;
}

uint64_t sim_random64(struct io *io)
{
    return sim_prng_next(&sim_process_of(io)->random);
}
