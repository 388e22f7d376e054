/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_sim_disk.h - a node's disk, as the test driver sees it: to prepare, to look at, to damage.
 *
 *     write ──> cache (what reads see)      datasync ──> durable image
 *                 └─> pending sectors ───────────┘
 *     create, rename, unlink ──> names ──> pending changes ── dirsync ──> durable names
 *
 * A disk survives the death of its node's process, and of its host but for what was pending:
 *
 *   D1  A datasync makes durable what writes had completed before it was submitted, nothing else.
 *   D2  At a power cut each pending sector of 512 bytes is left as it was, new, zero or garbage,
 *       each on its own; the file's size is that of some moment in between.
 *   D3  A name (created, renamed, linked, removed) is durable after a dirsync of its directory that
 *       was submitted after it; not by a datasync of the file. A rename happens wholly or not at
 *       all.
 *   D4  A datasync, or a durable write's, that fails has lost its data: reads go on to see it, the next datasync succeeds,
 *       and after a power cut it is gone. That is what Linux does.
 *
 * Paths are absolute; relative ones are taken from "/". All calls are for the driver, take effect
 * at once, take no simulated time and may be used while the process runs or is dead.
 */
#pragma once
#include "common/io/io_sim.h"

enum sim_disk_op {
    SIM_DISK_READ, SIM_DISK_WRITE, SIM_DISK_DATASYNC, SIM_DISK_ALLOCATE, SIM_DISK_TRUNCATE,
    SIM_DISK_SIZE, SIM_DISK_OPEN, SIM_DISK_RENAME, SIM_DISK_UNLINK, SIM_DISK_LINK, SIM_DISK_MKDIR,
    SIM_DISK_DIRSYNC, SIM_DISK_LIST,
};

/* ---- prepare ------------------------------------------------------------------------------ */

/* A directory with its parents; a file with its content (replaced if it is there). Both durable. */
void sim_disk_mkdir(struct sim_node *node, const char *path);
void sim_disk_put(struct sim_node *node, const char *path, struct bytes content);
/* Everything pending becomes durable. */
void sim_disk_sync(struct sim_node *node);
/* Nothing is left but "/". The process must be dead. */
void sim_disk_wipe(struct sim_node *node);
void sim_disk_capacity_set(struct sim_node *node, uint64_t capacity);

/* A copy of the durable state, and the return to it (an old image restored). The process must be
 * dead for the latter. */
struct sim_disk_copy;
struct sim_disk_copy *sim_disk_copy_create(const struct sim_node *node);
void sim_disk_copy_restore(struct sim_node *node, const struct sim_disk_copy *copy);
void sim_disk_copy_destroy(struct sim_disk_copy **copy);
/* Bytes of `path` that a write since the copy has changed are on the medium as they were then, in the copy's file `from`
 * (zeros where it had nothing), as if that write had never come there. False: they are the same anyway, or the copy has no
 * such file. */
bool sim_disk_revert(struct sim_node *node, const char *path, const struct sim_disk_copy *copy,
                     const char *from, uint64_t off, uint64_t size);

/* ---- look --------------------------------------------------------------------------------- */

/* What a read sees, or (durable) what a power cut would leave at least if all pending were lost.
 * Count of bytes read (0 at the end), or -ENOENT. */
ssize_t sim_disk_peek(const struct sim_node *node, const char *path, bool durable, void *data,
                      size_t size, uint64_t off);
ssize_t sim_disk_size(const struct sim_node *node, const char *path, bool durable); /* or -ENOENT */
uint64_t sim_disk_used(const struct sim_node *node);          /* bytes */
uint64_t sim_disk_pending(const struct sim_node *node);       /* bytes not durable yet */
uint32_t sim_disk_pending_names(const struct sim_node *node); /* changes not durable yet */
/* Every name, with its path, in the order of strcmp(). */
void sim_disk_each(const struct sim_node *node, bool durable,
                   void (*each)(void *arg, const char *path), void *arg);

/* ---- damage ------------------------------------------------------------------------------- */

/* The next `count` operations of this kind on this path (NULL: on any) fail with `err`. A write or
 * allocation that fails may have been done in part. */
void sim_disk_fail(struct sim_node *node, enum sim_disk_op op, const char *path, int err,
                   uint32_t count);
bool sim_disk_is_to_fail(const struct sim_node *node); /* some of them have not come yet */
void sim_disk_fail_no_more(struct sim_node *node);
/* On the medium: in what is read and in what is durable. The file must be there. */
void sim_disk_flip_bit(struct sim_node *node, const char *path, uint64_t off, unsigned bit);
void sim_disk_overwrite(struct sim_node *node, const char *path, uint64_t off, struct bytes data);
void sim_disk_cut_file(struct sim_node *node, const char *path, uint64_t size);
/* The next write or read of the file goes `shift` bytes away (at least to offset 0). */
void sim_disk_misdirect_write(struct sim_node *node, const char *path, int64_t shift);
void sim_disk_misdirect_read(struct sim_node *node, const char *path, int64_t shift);
/* Keeps a copy of the file as it is now, or as it was in the copy (false: it was not there); sim_disk_stale_reads() lets
 * the next `count` reads see it. */
void sim_disk_stale_mark(struct sim_node *node, const char *path);
bool sim_disk_stale_mark_as(struct sim_node *node, const char *path,
                            const struct sim_disk_copy *copy);
void sim_disk_stale_reads(struct sim_node *node, const char *path, uint32_t count);
/* Operations that are submitted before `until_us` (true time) end after it. */
void sim_disk_stall(struct sim_node *node, uint64_t until_us);

enum sim_disk_outcome {
    SIM_DISK_DRAWN, /* by the weights of the options */
    SIM_DISK_OLD, SIM_DISK_NEW, SIM_DISK_ZERO, SIM_DISK_GARBAGE,
};
/* What the next power cuts leave of every pending sector. OLD loses all pending names, too; the
 * others keep them. */
void sim_disk_crash_set(struct sim_node *node, enum sim_disk_outcome outcome);
/* The next power cut keeps everything that is pending but these two sectors (one, if they are the same), counted over
 * all files in the order of their making, each in the order of its writes. */
void sim_disk_crash_lose(struct sim_node *node, uint64_t a, uint64_t b);
