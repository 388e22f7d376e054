/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_test.h - a shard's directory that the store's own log wrote, on the real disk: for what reads it from outside.
 *
 * The log runs on a simulated disk (tests/unit/backend/store/log_test.h); when it is closed, its files are put into a
 * folder beside the test, shard-0, shard-1 ... as a node has them.
 */
#pragma once
#include "tests/unit/backend/store/log_test.h"

#include "ctl/ctl.h"
#include "ctl/shard.h"
#include "ctl/tree.h"
#include "ctl/verify.h"

#include <sys/stat.h>

#define SLOTS_MAX 64u
#define FILE_MAX  (1u << 20)

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

/* The log's files into `dir`, which is made. */
static inline void world_dump(struct world *w, const char *dir)
{
    char *data = must_alloc(FILE_MAX), path[64];

    assert_int_equal(mkdir(dir, 0700), 0);
    for (unsigned slot = 0; slot <= SLOTS_MAX; slot++) {
        char name[32] = "shard";
        ssize_t size;

        if (slot < SLOTS_MAX)
            (void)snprintf(name, sizeof(name), "%06u.seg", slot);
        (void)snprintf(path, sizeof(path), LOG_DIR "/%s", name);
        size = sim_disk_size(w->node, path, false);
        if (size < 0)
            continue;
        assert_true(size <= (ssize_t)FILE_MAX);
        assert_int_equal(sim_disk_peek(w->node, path, false, data, (size_t)size, 0), size);
        file_put(dir, name, bytes_of(data, (size_t)size));
    }
    mem_free(data);
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
