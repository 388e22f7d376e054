/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_folder.h - a folder beside the test with shards' directories, shard-0, shard-1 ... as a node has them: what a simulated
 * disk has of them, and what is done to them.
 */
#pragma once
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "common/io/io_sim_disk.h"
#include "ctl/ctl.h"
#include "ctl/shard.h"
#include "ctl/tree.h"
#include "ctl/verify.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (4u << 20)

struct folder {
    char path[64];
    char in[80]; /* path/in: shard-0 ... */
};

static inline void folder_make(struct folder *folder)
{
    (void)snprintf(folder->path, sizeof(folder->path), "ctl-test.XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    (void)snprintf(folder->in, sizeof(folder->in), "%s/in", folder->path);
    assert_int_equal(mkdir(folder->in, 0700), 0);
}

static inline void folder_remove(struct folder *folder, unsigned shards)
{
    static const char *const parents[] = {"in", "out"};
    char path[160];

    for (size_t i = 0; i < ARRAY_COUNT(parents); i++) {
        for (unsigned k = 0; k < shards; k++) {
            (void)snprintf(path, sizeof(path), "%s/%s/shard-%u", folder->path, parents[i], k);
            if (access(path, F_OK) == 0)
                assert_int_equal(tree_remove(path), 0);
        }
        (void)snprintf(path, sizeof(path), "%s/%s", folder->path, parents[i]);
        if (access(path, F_OK) == 0)
            assert_int_equal(tree_remove(path), 0);
    }
    assert_int_equal(tree_remove(folder->path), 0);
}

static inline void file_put(const char *dir, const char *name, struct bytes data)
{
    char path[SHARD_PATH_MAX];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data.data, 1, data.len, file), data.len);
    assert_int_equal(fclose(file), 0);
}

static inline void file_write(const char *dir, const char *name, struct bytes data, uint64_t off)
{
    char path[SHARD_PATH_MAX];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data.data, data.len, (off_t)off), data.len);
    close(fd);
}

/* Turns one byte of it over. */
static inline void file_flip(const char *dir, const char *name, uint64_t off)
{
    char path[SHARD_PATH_MAX];
    unsigned char byte;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)off), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)off), 1);
    close(fd);
}

/* weirctl salvage. `told`: what it said, to be freed. */
static inline int salvage_run(const char *in, const char *out, char **told)
{
    FILE *file = tmpfile();
    int saved, code;
    size_t len;

    assert_non_null(file);
    (void)fflush(stdout);
    saved = dup(STDOUT_FILENO);
    assert_true(saved >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0);
    code = ctl_salvage(in, out);
    (void)fflush(stdout);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
    *told = must_zalloc(65536);
    rewind(file);
    len = fread(*told, 1, 65535, file);
    assert_true(len > 0);
    (void)fclose(file);
    return code;
}

static inline FILE *nowhere(void)
{
    FILE *file = fopen("/dev/null", "we");

    assert_non_null(file);
    return file;
}

struct disk_dump {
    struct sim_node *node;
    const char *from, *to;
};

static inline void disk_dump_each(void *arg, const char *path)
{
    struct disk_dump *dump = arg;
    size_t len = strlen(dump->from);
    ssize_t size = sim_disk_size(dump->node, path, false);
    char *data;

    if (strncmp(path, dump->from, len) != 0 || path[len] != '/' || size < 0)
        return;
    assert_true(size <= (ssize_t)FILE_MAX);
    data = must_alloc((size_t)size + 1);
    assert_int_equal(sim_disk_peek(dump->node, path, false, data, (size_t)size, 0), size);
    file_put(dump->to, path + len + 1, bytes_of(data, (size_t)size));
    mem_free(data);
}

/* The simulated disk's folder `from`, into the folder `to`, which is made. */
static inline void disk_dump(struct sim_node *node, const char *from, const char *to)
{
    struct disk_dump dump = {.node = node, .from = from, .to = to};

    assert_int_equal(mkdir(to, 0700), 0);
    sim_disk_each(node, false, disk_dump_each, &dump);
}
