/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_sim_disk_private.h - the parts of the simulated disk.
 *
 *     io_sim_file.c   images, inodes, sectors that are pending
 *     io_sim_disk.c   names, what is pending of them, the power cut
 *     io_sim_fault.c  what the driver sees and does (io_sim_disk.h)
 *     io_sim_op.c     the operations of struct io
 */
#pragma once
#include "common/io/io_sim_disk.h"
#include "common/io/io_sim_private.h"

#define SECTOR_SIZE 512
#define PAGE_SIZE_ 4096
#define SIM_PATH_MAX 1024
#define NAME_CHANGES_MAX 4096

/* The bytes of a file: pages, NULL for a hole. Nothing but zeros is behind `size`, but for sectors
 * of a power cut until its end. */
struct sim_image {
    char **pages; /* owns */
    uint64_t page_count, page_end, size; /* no page from page_end on */
};

void sim_image_write(struct sim_image *image, const void *data, size_t len, uint64_t off);
void sim_image_read(const struct sim_image *image, void *data, size_t len, uint64_t off);
void sim_image_resize(struct sim_image *image, uint64_t size);
void sim_image_copy(struct sim_image *to, const struct sim_image *from);
void sim_image_deinit(struct sim_image *image);

enum sim_pending_kind { SIM_PENDING_WRITE, SIM_PENDING_SIZE };

/* A change of a file's bytes or size that is not durable yet. */
struct sim_pending {
    struct list_node inode_, disk_;
    struct sim_inode *inode;
    uint64_t seq, sector, size_after;
    uint32_t sector_count;
    uint8_t kind;
    char data[]; /* of sector_count */
};

struct sim_inode {
    struct sim_disk *disk;
    struct list_node node; /* in disk->inodes */
    uint64_t id;
    uint32_t ref_count;  /* all that point here */
    uint32_t live_count; /* names that are seen, and open files: then its space is in use */
    bool is_dir;
    struct sim_image cache, durable, stale;
    uint64_t reserved_end; /* allocated up to here */
    uint64_t charged;      /* bytes counted in disk->used */
    uint64_t seq;          /* of the last change */
    struct list pending;   /* owns */
    int64_t write_shift, read_shift;
    uint32_t stale_reads;
    const void *lock_holder; /* an open file; NULL: nobody */
    uint32_t lock_life;      /* a dead process's: held until all that it had submitted has ended */
};

struct sim_entry {
    char *path; /* owns */
    struct sim_inode *inode;
};

struct sim_names { /* sorted by path */
    struct sim_entry *entries; /* owns */
    size_t count, cap;
};

/* A name that is not durable yet; those of one group happen together. */
struct sim_change {
    struct list_node node;
    uint64_t seq, group;
    struct sim_inode *inode; /* NULL: removed */
    char path[];
};

struct sim_fault {
    struct list_node node;
    enum sim_disk_op op;
    int err;
    uint32_t count;
    char path[SIM_PATH_MAX]; /* "": any */
};

struct sim_disk {
    struct sim *sim;
    struct sim_node *node;
    uint64_t capacity, used, pending_bytes, inode_next, name_seq, group_next, stall_until_us;
    struct list inodes;
    struct list pending; /* of all inodes, oldest first */
    struct sim_names names, durable_names;
    struct list changes; /* owns, oldest first */
    uint32_t change_count;
    struct list faults; /* owns */
    enum sim_disk_outcome outcome;
    bool crash_picks; /* sim_disk_crash_lose() */
    uint64_t crash_lost[2], crash_at;
};

static inline uint64_t sim_disk_left(const struct sim_disk *disk)
{
    return disk->used >= disk->capacity ? 0 : disk->capacity - disk->used;
}

/* "a//b/./c/" and "/a/b/c" become "/a/b/c". -ENAMETOOLONG. */
MUST_USE int sim_path_normalize(const char *path, char out[SIM_PATH_MAX]);

/* ---- io_sim_file.c ---- */
struct sim_inode *sim_inode_create(struct sim_disk *disk, bool is_dir);
void sim_inode_ref(struct sim_inode *inode);
void sim_inode_unref(struct sim_inode *inode);
void sim_inode_live(struct sim_inode *inode);   /* with a reference */
void sim_inode_unlive(struct sim_inode *inode); /* with a reference */
void sim_inode_charge(struct sim_inode *inode); /* counts its space anew */
ssize_t sim_inode_read(struct sim_inode *inode, void *data, size_t size, uint64_t off);
/* An error may leave a part of it written. `limit`: of the bytes that are written, then -EIO. */
ssize_t sim_inode_write(struct sim_inode *inode, const void *data, size_t size, uint64_t off,
                        size_t limit);
ssize_t sim_inode_truncate(struct sim_inode *inode, uint64_t size);
ssize_t sim_inode_allocate(struct sim_inode *inode, uint64_t off, uint64_t size);
/* The write that was last is durable, as by RWF_DSYNC, or (is_lost) gone. */
void sim_inode_flush_last(struct sim_inode *inode, bool is_lost);
/* What was pending up to `seq` is durable, or (is_lost) gone. */
void sim_inode_flush(struct sim_inode *inode, uint64_t seq, bool is_lost);
void sim_inode_crash(struct sim_inode *inode);

/* ---- io_sim_disk.c ---- */
/* How many names a file has that are seen. */
ssize_t sim_inode_names(const struct sim_inode *inode);
struct sim_inode *sim_names_find(const struct sim_names *names, const char *path);
void sim_names_set(struct sim_disk *disk, bool durable, const char *path, struct sim_inode *inode);
int sim_disk_open_inode(struct sim_disk *disk, const char *path, int flags, struct sim_inode **out);
/* `seq`: for a dirsync, what it covers. */
int sim_disk_path_op(struct sim_disk *disk, enum io_path_op kind, const char *from, const char *to,
                     uint64_t seq);
int sim_disk_list(struct sim_disk *disk, const char *path, char **names, size_t *len);
void sim_disk_changes_apply(struct sim_disk *disk, const char *dir, uint64_t seq); /* NULL: all */

/* ---- io_sim_fault.c ---- */
/* 0, or the error that this operation shall meet. `inode` may be NULL, `path` too. */
int sim_disk_fault(struct sim_disk *disk, enum sim_disk_op op, const struct sim_inode *inode,
                   const char *path);
uint64_t sim_disk_delay(struct sim_disk *disk, enum sim_disk_op op);
