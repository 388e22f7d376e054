/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated disk from outside: delays and errors of its operations, and all that io_sim_disk.h
 * offers to a driver to prepare it, to look at it, to damage it.
 */
#include "common/io/io_sim_disk_private.h"

#include <stdio.h>

/* ---- for the operations ------------------------------------------------------------------- */

uint64_t sim_disk_delay(struct sim_disk *disk, enum sim_disk_op op)
{
    struct sim *sim = disk->sim;
    const struct sim_options *o = &sim->options;
    bool is_flush = op == SIM_DISK_DATASYNC || op == SIM_DISK_DIRSYNC;
    uint64_t delay_us = is_flush ? sim_draw_delay(sim, SIM_RANDOM_DISK, o->disk.flush_min_us,
                                                  o->disk.flush_mean_us)
                                 : sim_draw_delay(sim, SIM_RANDOM_DISK, o->disk.latency_min_us,
                                                  o->disk.latency_mean_us);

    if (sim_random_chance(sim, SIM_RANDOM_DISK, o->disk.stall_ppm))
        delay_us += o->disk.stall_us;
    if (disk->stall_until_us > sim->now_us)
        delay_us += disk->stall_until_us - sim->now_us;
    return delay_us;
}

static bool fault_matches(const struct sim_disk *disk, const struct sim_fault *fault,
                          enum sim_disk_op op, const struct sim_inode *inode, const char *path)
{
    if (fault->op != op)
        return false;
    if (fault->path[0] == '\0')
        return true;
    if (inode != NULL)
        return sim_names_find(&disk->names, fault->path) == inode;
    return path != NULL && strcmp(fault->path, path) == 0;
}

static uint32_t error_ppm(const struct sim_options *o, enum sim_disk_op op)
{
    switch (op) {
    case SIM_DISK_READ:
        return o->disk.read_error_ppm;
    case SIM_DISK_WRITE:
        return o->disk.write_error_ppm;
    case SIM_DISK_DATASYNC:
    case SIM_DISK_DIRSYNC:
        return o->disk.flush_error_ppm;
    case SIM_DISK_ALLOCATE:
    case SIM_DISK_TRUNCATE:
    case SIM_DISK_SIZE:
    case SIM_DISK_OPEN:
    case SIM_DISK_RENAME:
    case SIM_DISK_UNLINK:
    case SIM_DISK_LINK:
    case SIM_DISK_MKDIR:
    case SIM_DISK_LIST:
        return 0;
    }
    UNREACHABLE("kind of disk operation");
}

int sim_disk_fault(struct sim_disk *disk, enum sim_disk_op op, const struct sim_inode *inode,
                   const char *path)
{
    LIST_FOR_EACH(&disk->faults, node) {
        struct sim_fault *fault = CONTAINER_OF(node, struct sim_fault, node);
        int err = fault->err;

        if (!fault_matches(disk, fault, op, inode, path))
            continue;
        if (--fault->count == 0) {
            list_remove(&fault->node);
            mem_free(fault);
        }
        return err;
    }
    return sim_random_chance(disk->sim, SIM_RANDOM_DISK, error_ppm(&disk->sim->options, op))
               ? -EIO
               : 0;
}

/* ---- prepare ------------------------------------------------------------------------------ */

static void normalize(const char *path, char out[SIM_PATH_MAX])
{
    int err = sim_path_normalize(path, out);

    ASSERT(err == 0);
}

static void name_set_both(struct sim_disk *disk, const char *path, struct sim_inode *inode)
{
    sim_names_set(disk, false, path, inode);
    sim_names_set(disk, true, path, inode);
}

void sim_disk_mkdir(struct sim_node *node, const char *path)
{
    char full[SIM_PATH_MAX];

    normalize(path, full);
    for (char *at = full + 1; full[1] != '\0'; at++) {
        char end = *at;

        if (end != '/' && end != '\0')
            continue;
        *at = '\0';
        if (sim_names_find(&node->disk->names, full) == NULL)
            name_set_both(node->disk, full, sim_inode_create(node->disk, true));
        *at = end;
        if (end == '\0')
            break;
    }
}

void sim_disk_put(struct sim_node *node, const char *path, struct bytes content)
{
    struct sim_inode *inode = sim_inode_create(node->disk, false);
    char full[SIM_PATH_MAX];

    normalize(path, full);
    name_set_both(node->disk, full, inode);
    sim_image_write(&inode->cache, content.data, content.len, 0);
    inode->cache.size = content.len;
    sim_image_copy(&inode->durable, &inode->cache);
    sim_inode_charge(inode);
}

void sim_disk_sync(struct sim_node *node)
{
    sim_disk_changes_apply(node->disk, NULL, UINT64_MAX);
    LIST_FOR_EACH(&node->disk->inodes, at)
        sim_inode_flush(CONTAINER_OF(at, struct sim_inode, node), UINT64_MAX, false);
}

void sim_disk_capacity_set(struct sim_node *node, uint64_t capacity)
{
    node->disk->capacity = capacity;
}

/* ---- look --------------------------------------------------------------------------------- */

static struct sim_inode *find(const struct sim_node *node, const char *path, bool durable)
{
    char full[SIM_PATH_MAX];

    normalize(path, full);
    return sim_names_find(durable ? &node->disk->durable_names : &node->disk->names, full);
}

ssize_t sim_disk_peek(const struct sim_node *node, const char *path, bool durable, void *data,
                      size_t size, uint64_t off)
{
    const struct sim_inode *inode = find(node, path, durable);
    const struct sim_image *image;
    size_t len;

    if (inode == NULL)
        return -ENOENT;
    image = durable ? &inode->durable : &inode->cache;
    len = off >= image->size ? 0 : (size_t)MIN((uint64_t)size, image->size - off);
    sim_image_read(image, data, len, off);
    return (ssize_t)len;
}

ssize_t sim_disk_size(const struct sim_node *node, const char *path, bool durable)
{
    const struct sim_inode *inode = find(node, path, durable);

    if (inode == NULL)
        return -ENOENT;
    return (ssize_t)(durable ? inode->durable.size : inode->cache.size);
}

uint64_t sim_disk_used(const struct sim_node *node)
{
    return node->disk->used;
}

uint64_t sim_disk_pending(const struct sim_node *node)
{
    return node->disk->pending_bytes;
}

uint32_t sim_disk_pending_names(const struct sim_node *node)
{
    return node->disk->change_count;
}

void sim_disk_each(const struct sim_node *node, bool durable,
                   void (*each)(void *arg, const char *path), void *arg)
{
    const struct sim_names *names = durable ? &node->disk->durable_names : &node->disk->names;

    for (size_t i = 0; i < names->count; i++)
        each(arg, names->entries[i].path);
}

/* ---- damage ------------------------------------------------------------------------------- */

static struct sim_inode *must_find(struct sim_node *node, const char *path)
{
    struct sim_inode *inode = find(node, path, false);

    ASSERT(inode != NULL && !inode->is_dir);
    return inode;
}

void sim_disk_fail(struct sim_node *node, enum sim_disk_op op, const char *path, int err,
                   uint32_t count)
{
    struct sim_fault *fault = must_zalloc(sizeof(*fault));

    ASSERT(err < 0 && count > 0);
    fault->op = op;
    fault->err = err;
    fault->count = count;
    if (path != NULL)
        normalize(path, fault->path);
    list_push_back(&node->disk->faults, &fault->node);
}

bool sim_disk_is_to_fail(const struct sim_node *node)
{
    return !list_is_empty(&node->disk->faults);
}

void sim_disk_fail_no_more(struct sim_node *node)
{
    struct list_node *fault;

    while ((fault = list_pop_front(&node->disk->faults)) != NULL)
        mem_free(CONTAINER_OF(fault, struct sim_fault, node));
}

static void overwrite(struct sim_image *image, uint64_t off, struct bytes data)
{
    if (off < image->size)
        sim_image_write(image, data.data, MIN((uint64_t)data.len, image->size - off), off);
}

void sim_disk_overwrite(struct sim_node *node, const char *path, uint64_t off, struct bytes data)
{
    struct sim_inode *inode = must_find(node, path);

    overwrite(&inode->cache, off, data);
    overwrite(&inode->durable, off, data);
    sim_inode_charge(inode);
}

void sim_disk_flip_bit(struct sim_node *node, const char *path, uint64_t off, unsigned bit)
{
    struct sim_inode *inode = must_find(node, path);
    struct sim_image *images[2] = {&inode->cache, &inode->durable};

    for (int i = 0; i < 2; i++) {
        char byte;

        sim_image_read(images[i], &byte, 1, off);
        byte = (char)(byte ^ (1u << (bit % 8)));
        overwrite(images[i], off, bytes_of(&byte, 1));
    }
    sim_inode_charge(inode);
}

void sim_disk_cut_file(struct sim_node *node, const char *path, uint64_t size)
{
    struct sim_inode *inode = must_find(node, path);

    sim_image_resize(&inode->cache, MIN(size, inode->cache.size));
    sim_image_resize(&inode->durable, MIN(size, inode->durable.size));
    sim_inode_charge(inode);
}

void sim_disk_misdirect_write(struct sim_node *node, const char *path, int64_t shift)
{
    must_find(node, path)->write_shift = shift;
}

void sim_disk_misdirect_read(struct sim_node *node, const char *path, int64_t shift)
{
    must_find(node, path)->read_shift = shift;
}

void sim_disk_stale_mark(struct sim_node *node, const char *path)
{
    struct sim_inode *inode = must_find(node, path);

    sim_image_copy(&inode->stale, &inode->cache);
}

void sim_disk_stale_reads(struct sim_node *node, const char *path, uint32_t count)
{
    must_find(node, path)->stale_reads = count;
}

void sim_disk_stall(struct sim_node *node, uint64_t until_us)
{
    node->disk->stall_until_us = until_us;
}

void sim_disk_crash_set(struct sim_node *node, enum sim_disk_outcome outcome)
{
    node->disk->outcome = outcome;
}

void sim_disk_crash_lose(struct sim_node *node, uint64_t a, uint64_t b)
{
    node->disk->outcome = SIM_DISK_NEW; /* for names and sizes */
    node->disk->crash_picks = true;
    node->disk->crash_lost[0] = a;
    node->disk->crash_lost[1] = b;
}
