/* SPDX-License-Identifier: Apache-2.0 */
/* Files, the same tests over io_uring and over threads. */
#include "tests/unit/common/io/io_ev_test.h"
#include "tests/unit/threads_named.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct fixture {
    struct loop loop;
    char dir[64];
};

struct wait_op {
    struct io_op op;
    struct loop *loop;
    int *pending; /* may be NULL: each stops the loop */
    int done_count;
};

static void wait_done(struct io_op *op)
{
    struct wait_op *wait = CONTAINER_OF(op, struct wait_op, op);

    wait->done_count++;
    if (wait->pending == NULL || --*wait->pending == 0)
        io_stop(wait->loop->io);
}

static struct wait_op wait_init(struct fixture *f)
{
    return (struct wait_op){.op.done = wait_done, .loop = &f->loop};
}

static ssize_t wait_run(struct wait_op *wait)
{
    assert_int_equal(wait->done_count, 0); /* never from inside the call */
    loop_run(wait->loop);
    assert_int_equal(wait->done_count, 1);
    return wait->op.result;
}

/* One op, from its call to its result. */
#define DO(f, call, ...)                                                                           \
    ({                                                                                             \
        struct wait_op do_wait_ = wait_init(f);                                                    \
        call(__VA_ARGS__);                                                                         \
        wait_run(&do_wait_);                                                                       \
    })
#define OP (&do_wait_.op)

static struct io_file *open_file(struct fixture *f, const char *path, int flags)
{
    struct io_file *file;

    assert_int_equal(DO(f, io_file_open, f->loop.io, OP, path, flags, &file), 0);
    assert_non_null(file);
    return file;
}

#define NEW_FILE (IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE | IO_FILE_EXCLUSIVE)

static int setup_with(void **state, enum io_file_backend backend, const char *name)
{
    struct fixture *f = must_zalloc(sizeof(*f));

    snprintf(f->dir, sizeof(f->dir), "io_files.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    loop_open(&f->loop, (struct io_ev_options){.files = backend, .directory = f->dir});
    if (name != NULL)
        assert_string_equal(io_ev_files_name(f->loop.io), name);
    *state = f;
    return 0;
}

static int setup_uring(void **state)
{
    /* Where the kernel forbids rings this runs on threads, as a node would. */
    return setup_with(state, IO_FILES_BEST, NULL);
}

static int setup_threads(void **state)
{
    return setup_with(state, IO_FILES_THREADS, "threads");
}

static void remove_one(void *arg, const char *name)
{
    struct fixture *f = arg;
    char path[400];

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    if (unlink(path) != 0)
        assert_int_equal(rmdir(path), 0);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(DO(f, io_list, f->loop.io, OP, ".", remove_one, f), 0);
    loop_close(&f->loop);
    assert_int_equal(rmdir(f->dir), 0);
    mem_free(f);
    return 0;
}

/* ---- tests -------------------------------------------------------------------------------- */

static void test_write_read_size_truncate(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    char text[16] = "";

    assert_int_equal(DO(f, io_file_write, file, OP, "hello world", 11, 3), 11);
    assert_int_equal(DO(f, io_file_datasync, file, OP), 0);
    assert_int_equal(DO(f, io_file_size, file, OP), 14);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 5, 9), 5);
    assert_string_equal(text, "world");
    assert_int_equal(DO(f, io_file_truncate, file, OP, 8), 0);
    assert_int_equal(DO(f, io_file_size, file, OP), 8);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 0, 0), 0);
    io_file_close(file);
}

static void test_a_read_is_full_or_an_error(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    char text[16];

    assert_int_equal(DO(f, io_file_write, file, OP, "0123456789", 10, 0), 10);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 10, 0), 10);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 11, 0), ERR_EOF);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 1, 10), ERR_EOF);
    io_file_close(file);
}

static void test_errors_are_the_systems(void **state)
{
    struct fixture *f = *state;
    struct io_file *file;
    char text[4];

    assert_int_equal(DO(f, io_file_open, f->loop.io, OP, "absent", IO_FILE_READ, &file), -ENOENT);
    assert_null(file);
    file = open_file(f, "a", IO_FILE_WRITE | IO_FILE_CREATE);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 4, 0), -EBADF);
    io_file_close(file);
    assert_int_equal(DO(f, io_file_open, f->loop.io, OP, "a", NEW_FILE, &file), -EEXIST);
    file = open_file(f, "a", IO_FILE_READ);
    assert_int_equal(DO(f, io_file_write, file, OP, "x", 1, 0), -EBADF);
    io_file_close(file);
}

static void test_flags_of_open(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    char text[8] = "";

    assert_int_equal(DO(f, io_file_write, file, OP, "old", 3, 0), 3);
    io_file_close(file);
    file = open_file(f, "a", IO_FILE_READ | IO_FILE_WRITE | IO_FILE_APPEND);
    assert_int_equal(DO(f, io_file_write, file, OP, "er", 2, 0), 2);
    assert_int_equal(DO(f, io_file_read, file, OP, text, 5, 0), 5);
    assert_string_equal(text, "older");
    io_file_close(file);
    file = open_file(f, "a", IO_FILE_WRITE | IO_FILE_TRUNCATE);
    assert_int_equal(DO(f, io_file_size, file, OP), 0);
    io_file_close(file);
}

/* What a file takes is not left; nothing is known of what others do meanwhile. */
static void test_space_is_told(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    ssize_t space = DO(f, io_file_space, file, OP);

    assert_true(space > 0 || space == ERR_UNSUPPORTED);
    io_file_close(file);
}

static void test_allocate_reserves(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    ssize_t result = DO(f, io_file_allocate, file, OP, 4096, 8192);

    if (result == 0)
        assert_int_equal(DO(f, io_file_size, file, OP), 12288);
    else
        assert_int_equal(result, -EOPNOTSUPP); /* the file system's answer */
    io_file_close(file);
}

struct names {
    char last[64];
    int count;
};

static void collect(void *arg, const char *name)
{
    struct names *names = arg;

    names->count++;
    snprintf(names->last, sizeof(names->last), "%s", name);
}

static void test_paths(void **state)
{
    struct fixture *f = *state;
    struct io *io = f->loop.io;
    struct names names = {.count = 0};

    io_file_close(open_file(f, "one", NEW_FILE));
    assert_int_equal(DO(f, io_mkdir, io, OP, "d"), 0);
    assert_int_equal(DO(f, io_mkdir, io, OP, "d"), -EEXIST);
    assert_int_equal(DO(f, io_rename, io, OP, "one", "d/two"), 0);
    assert_int_equal(DO(f, io_rename, io, OP, "one", "d/two"), -ENOENT);
    assert_int_equal(DO(f, io_link, io, OP, "d/two", "three"), 0);
    assert_int_equal(DO(f, io_link, io, OP, "d/two", "three"), -EEXIST);
    assert_int_equal(DO(f, io_dirsync, io, OP, "d"), 0);
    assert_int_equal(DO(f, io_dirsync, io, OP, "."), 0);
    assert_int_equal(DO(f, io_dirsync, io, OP, "absent"), -ENOENT);
    assert_int_equal(DO(f, io_list, io, OP, "d", collect, &names), 0);
    assert_string_equal(names.last, "two");
    assert_int_equal(names.count, 1);
    assert_int_equal(DO(f, io_unlink, io, OP, "d/two"), 0);
    assert_int_equal(DO(f, io_unlink, io, OP, "d/two"), -ENOENT);
    assert_int_equal(DO(f, io_list, io, OP, "d", collect, &names), 0);
    assert_int_equal(names.count, 1); /* it is empty now */
    assert_int_equal(DO(f, io_list, io, OP, "absent", collect, &names), -ENOENT);
}

static void count_name(void *arg, const char *name)
{
    assert_int_equal(strlen(name), 40);
    ++*(int *)arg;
}

static void test_a_long_list(void **state)
{
    struct fixture *f = *state;
    char path[128];
    int count = 0;

    for (int i = 0; i < 300; i++) {
        int fd;

        snprintf(path, sizeof(path), "%s/%040d", f->dir, i);
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    assert_int_equal(DO(f, io_list, f->loop.io, OP, ".", count_name, &count), 0);
    assert_int_equal(count, 300);
}

/* More than the ring holds, all at once; then all read back. */
#define MANY 5000
static void test_many_at_once(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    struct wait_op *ops = must_zalloc(MANY * sizeof(*ops));
    uint32_t *numbers = must_zalloc(MANY * sizeof(*numbers));
    int pending = MANY;

    for (uint32_t i = 0; i < MANY; i++) {
        numbers[i] = i * 2654435761u;
        ops[i] = wait_init(f);
        ops[i].pending = &pending;
        io_file_write(file, &ops[i].op, &numbers[i], sizeof(numbers[i]), i * sizeof(numbers[i]));
    }
    loop_run(&f->loop);
    pending = MANY;
    memset(numbers, 0, MANY * sizeof(*numbers));
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(ops[i].op.result, 4);
        io_file_read(file, &ops[i].op, &numbers[i], sizeof(numbers[i]), i * sizeof(numbers[i]));
    }
    loop_run(&f->loop);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(ops[i].done_count, 2);
        assert_int_equal(numbers[i], i * 2654435761u);
    }
    io_file_close(file);
    mem_free(ops);
    mem_free(numbers);
}

/* A write that the system cuts short is continued; the error that then stops it is what is told. The
 * limit on the size of files does both: the first write() takes what fits, the second says EFBIG. */
static void test_short_writes_are_continued(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f, "a", NEW_FILE);
    struct rlimit before, limit;
    char *block = must_zalloc(100000);

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 65536;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(DO(f, io_file_write, file, OP, block, 100000, 0), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(DO(f, io_file_size, file, OP), 65536);
    assert_int_equal(DO(f, io_file_write, file, OP, block, 100000, 0), 100000);
    io_file_close(file);
    mem_free(block);
}

/* What is in the page cache can be read at once, but a large copy would hold the loop. */
static void test_large_reads_are_made_by_others(void **state)
{
    struct fixture *f = *state;
    struct io_file *file;
    char *block = must_zalloc(1 << 18), path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/a", f->dir);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, block, 1 << 18), 1 << 18);
    close(fd);
    file = open_file(f, "a", IO_FILE_READ);
    assert_int_equal(threads_named("iou-wrk-"), 0);
    assert_int_equal(DO(f, io_file_read, file, OP, block, 1 << 18, 0), 1 << 18);
    if (strcmp(io_ev_files_name(f->loop.io), "io_uring") == 0)
        assert_true(threads_named("iou-wrk-") > 0);
    io_file_close(file);
    mem_free(block);
}

/* Closing is allowed while ops run: they complete, then the descriptor goes. */
static void test_close_waits_for_ops(void **state)
{
    struct fixture *f = *state;
    struct wait_op ops[8];
    int pending = ARRAY_COUNT(ops);
    char *block = must_zalloc(1 << 20);

    for (int round = 0; round < 20; round++) {
        char path[16];
        struct io_file *file;

        snprintf(path, sizeof(path), "f%d", round);
        file = open_file(f, path, NEW_FILE);
        pending = ARRAY_COUNT(ops);
        for (size_t i = 0; i < ARRAY_COUNT(ops); i++) {
            ops[i] = wait_init(f);
            ops[i].pending = &pending;
            io_file_write(file, &ops[i].op, block, 1 << 17, i << 17);
        }
        io_file_close(file);
        loop_run(&f->loop);
        for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
            assert_int_equal(ops[i].op.result, 1 << 17);
        file = open_file(f, path, IO_FILE_READ);
        assert_int_equal(DO(f, io_file_size, file, OP), 1 << 20);
        io_file_close(file);
    }
    mem_free(block);
}

/* Slots of the ring are used again: more files than it has, one after the other. */
static void test_many_files_come_and_go(void **state)
{
    struct fixture *f = *state;
    char text[4];

    for (int i = 0; i < 1200; i++) {
        struct io_file *file = open_file(f, "a", IO_FILE_READ | IO_FILE_WRITE | IO_FILE_CREATE);

        if (i % 100 == 0) {
            assert_int_equal(DO(f, io_file_write, file, OP, "abcd", 4, 0), 4);
            assert_int_equal(DO(f, io_file_read, file, OP, text, 4, 0), 4);
            assert_memory_equal(text, "abcd", 4);
        }
        io_file_close(file);
    }
}

struct slow {
    struct wait_op wait;
    unsigned *in_turn;
};

struct turns {
    struct io_hook hook;
    unsigned in_turn, most, count;
};

/* Takes until the clock has moved. */
static void slow_done(struct io_op *op)
{
    struct slow *slow = CONTAINER_OF(op, struct slow, wait.op);
    uint64_t begun_us = io_clock_us(slow->wait.loop->io);

    while (io_clock_us(slow->wait.loop->io) == begun_us)
        ;
    ++*slow->in_turn;
    wait_done(op);
}

static void turns_count(struct io_hook *hook)
{
    struct turns *turns = CONTAINER_OF(hook, struct turns, hook);

    turns->most = MAX(turns->most, turns->in_turn);
    turns->count += turns->in_turn > 0;
    turns->in_turn = 0;
}

/* What ends together is told in several turns; no event tells of the rest, and none is needed. */
static void test_a_turn_tells_of_as_many_as_it_has_time_for(void **state)
{
    enum { READS = 64, AT_ONCE_MAX = 8 };
    struct fixture *f = *state, other = {0};
    struct turns turns = {.hook.run = turns_count};
    struct slow reads[READS];
    struct io_file *file;
    char bytes[READS];
    int pending = READS;

    loop_open(&other.loop, (struct io_ev_options){.files = IO_FILES_BEST, .directory = f->dir, .files_us = 1});
    file = open_file(&other, "a", NEW_FILE);
    assert_int_equal(DO(&other, io_file_write, file, OP, "x", 1, 0), 1);
    io_hook_add(other.loop.io, &turns.hook);
    for (size_t i = 0; i < READS; i++) {
        reads[i] = (struct slow){.wait = wait_init(&other), .in_turn = &turns.in_turn};
        reads[i].wait.op.done = slow_done;
        reads[i].wait.pending = &pending;
        io_file_read(file, &reads[i].wait.op, &bytes[i], 1, 0);
    }
    loop_run(&other.loop);
    for (size_t i = 0; i < READS; i++)
        assert_int_equal(reads[i].wait.done_count, 1);
    if (strcmp(io_ev_files_name(other.loop.io), "io_uring") == 0) {
        assert_true(turns.most <= AT_ONCE_MAX);
        assert_true(turns.count >= READS / AT_ONCE_MAX);
    }
    io_hook_remove(other.loop.io, &turns.hook);
    io_file_close(file);
    loop_close(&other.loop);
}

/* Buffers are the callers' again once the io is gone: what runs is waited for, nothing is told. */
static void test_destroy_waits_for_ops(void **state)
{
    struct fixture *f = *state;
    enum io_file_backend backend =
        strcmp(io_ev_files_name(f->loop.io), "threads") == 0 ? IO_FILES_THREADS : IO_FILES_BEST;
    struct fixture other = {0};
    struct wait_op ops[20];
    struct io_file *file;
    char *block = must_zalloc(1 << 20);

    memcpy(other.dir, f->dir, sizeof(other.dir));
    loop_open(&other.loop, (struct io_ev_options){
                               .files = backend, .directory = f->dir, .start_threads = true});
    file = open_file(&other, "a", NEW_FILE);
    for (size_t i = 0; i < ARRAY_COUNT(ops); i++) {
        ops[i] = wait_init(&other);
        io_file_write(file, &ops[i].op, block, 1 << 20, i << 20);
    }
    io_file_close(file);
    loop_close(&other.loop);
    mem_free(block);
    for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
        assert_int_equal(ops[i].done_count, 0);
}

static void test_without_a_backend_ops_are_refused(void **state)
{
    struct fixture f = {0};
    struct io_file *file;

    (void)state;
    loop_open(&f.loop, (struct io_ev_options){.files = IO_FILES_NONE});
    assert_string_equal(io_ev_files_name(f.loop.io), "none");
    assert_int_equal(DO(&f, io_file_open, f.loop.io, OP, "a", NEW_FILE, &file), ERR_UNSUPPORTED);
    assert_null(file);
    assert_int_equal(DO(&f, io_mkdir, f.loop.io, OP, "d"), ERR_UNSUPPORTED);
    assert_int_equal(DO(&f, io_touch, f.loop.io, OP, &f, 1), ERR_UNSUPPORTED);
    loop_close(&f.loop);
}

static void test_an_absent_directory_is_an_error(void **state)
{
    const struct io_ev_options options = {.files = IO_FILES_BEST, .directory = "absent/absent"};
    struct io *io;

    (void)state;
    assert_int_equal(io_ev_create(&options, &io), -ENOENT);
    assert_null(io);
}

/* Whatever was there: it is the caller's to know that nobody needs it. */
static void test_touched_memory_is_there(void **state)
{
    struct fixture *f = *state;
    char *memory = must_alloc(5 * 4096 + 1);

    memset(memory, 1, 5 * 4096 + 1);
    assert_true(DO(f, io_touch, f->loop.io, OP, memory, 5 * 4096 + 1) >= 0);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(memory[i * 4096], 0);
        assert_int_equal(memory[i * 4096 + 1], 1);
    }
    mem_free(memory);
}

#define BOTH(f)                                                                                    \
    {#f " (uring)", f, setup_uring, teardown, NULL}, {#f " (threads)", f, setup_threads, teardown, \
                                                      NULL}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* first: threads of rings outlive them for seconds */
        {"test_large_reads_are_made_by_others", test_large_reads_are_made_by_others, setup_uring, teardown, NULL},
        BOTH(test_write_read_size_truncate),
        BOTH(test_a_read_is_full_or_an_error),
        BOTH(test_errors_are_the_systems),
        BOTH(test_flags_of_open),
        BOTH(test_space_is_told),
        BOTH(test_allocate_reserves),
        BOTH(test_paths),
        BOTH(test_a_long_list),
        BOTH(test_many_at_once),
        BOTH(test_short_writes_are_continued),
        BOTH(test_close_waits_for_ops),
        BOTH(test_many_files_come_and_go),
        BOTH(test_destroy_waits_for_ops),
        BOTH(test_touched_memory_is_there),
        {"test_a_turn_tells_of_as_many_as_it_has_time_for", test_a_turn_tells_of_as_many_as_it_has_time_for, setup_uring,
         teardown, NULL},
        cmocka_unit_test(test_without_a_backend_ops_are_refused),
        cmocka_unit_test(test_an_absent_directory_is_an_error),
    };

    return cmocka_run_group_tests_name("io_files", tests, NULL, NULL);
}
