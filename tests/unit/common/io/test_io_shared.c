/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that outlives the process, locks and synchronous writes: on Linux and in the simulator.
 */
#include "tests/unit/common/io/io_ev_test.h"

#include "common/base/mem.h"
#include "common/io/io_sim_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SIZE 8192
#define RW   (IO_FILE_READ | IO_FILE_WRITE)

static void scratch(char out[64], const char *name)
{
    (void)snprintf(out, 64, "/dev/shm/weir-test-%ld-%s", (long)getpid(), name);
}

static void test_shared_memory_is_found_again(void **state)
{
    struct loop loop;
    struct stat stat_;
    char path[64];
    void *addr;
    bool existed;

    (void)state;
    scratch(path, "again");
    for (int i = 0; i < 3; i++) {
        loop_open(&loop, (struct io_ev_options){0});
        assert_int_equal(io_shared_map(loop.io, path, SIZE, &addr, &existed), 0);
        assert_int_equal(existed, i > 0);
        assert_int_equal(((char *)addr)[SIZE - 1], i);
        ((char *)addr)[SIZE - 1] = (char)(i + 1);
        io_shared_unmap(loop.io, addr, SIZE);
        loop_close(&loop);
    }
    assert_int_equal(stat(path, &stat_), 0);
    assert_int_equal(stat_.st_mode & 0777, 0600);
    assert_int_equal(unlink(path), 0);
}

/* What is there is told before it is mapped with a size that would replace it; what is not ours is said to be so. */
static void test_the_size_of_shared_memory_is_found(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    char path[64];
    struct loop loop;

    (void)state;
    loop_open(&loop, (struct io_ev_options){0});
    scratch(path, "size");
    for (unsigned i = 0; i < 2; i++) {
        struct io *io = i == 0 ? loop.io : sim_node_io(node);
        size_t size;
        void *addr;
        bool existed;

        assert_int_equal(io_shared_size(io, path, &size), -ENOENT);
        assert_int_equal(io_shared_map(io, path, 3 * SIZE, &addr, &existed), 0);
        assert_int_equal(io_shared_size(io, path, &size), 0);
        assert_int_equal(size, 3 * SIZE);
        io_shared_unmap(io, addr, 3 * SIZE);
        if (i == 0) {
            assert_int_equal(chmod(path, 0644), 0);
            assert_int_equal(io_shared_size(io, path, &size), ERR_EXISTS);
            assert_int_equal(chmod(path, 0600), 0);
            assert_int_equal(truncate(path, SIZE + 1), 0);
            assert_int_equal(io_shared_size(io, path, &size), 0);
            assert_int_equal(size, SIZE + 1);
            assert_int_equal(truncate(path, 0), 0);
            assert_int_equal(io_shared_size(io, path, &size), -ENOENT);
        }
        assert_int_equal(io_shared_remove(io, path), 0);
        assert_int_equal(io_shared_size(io, path, &size), -ENOENT);
    }
    loop_close(&loop);
    sim_destroy(&sim);
}

static void test_shared_memory_of_another_size_is_replaced(void **state)
{
    struct loop loop;
    char path[64];
    void *addr;
    bool existed;

    (void)state;
    scratch(path, "resized");
    loop_open(&loop, (struct io_ev_options){0});
    for (size_t size = SIZE; size <= 2 * SIZE; size += SIZE) {
        assert_int_equal(io_shared_map(loop.io, path, size, &addr, &existed), 0);
        assert_false(existed);
        assert_int_equal(((char *)addr)[0], 0);
        memset(addr, 'x', size);
        io_shared_unmap(loop.io, addr, size);
    }
    loop_close(&loop);
    assert_int_equal(unlink(path), 0);
}

enum other { OTHER_MODE, OTHER_GROUP, OTHER_OWNER, OTHER_LINK, OTHER_DIRECTORY, OTHER_COUNT };

static void other_make(enum other kind, const char *path, const char *target)
{
    if (kind == OTHER_LINK || kind == OTHER_DIRECTORY)
        assert_int_equal(rename(path, target), 0);
    switch (kind) {
    case OTHER_MODE:
        assert_int_equal(chmod(path, 0644), 0);
        break;
    case OTHER_GROUP:
        assert_int_equal(chmod(path, 0620), 0);
        break;
    case OTHER_OWNER:
        assert_int_equal(chown(path, 65534, (gid_t)-1), 0);
        break;
    case OTHER_LINK:
        assert_int_equal(symlink(target, path), 0);
        break;
    case OTHER_DIRECTORY:
        assert_int_equal(mkdir(path, 0700), 0);
        break;
    case OTHER_COUNT:
        break;
    }
}

static void other_undo(enum other kind, const char *path, const char *target)
{
    if (kind == OTHER_LINK)
        assert_int_equal(unlink(path), 0);
    if (kind == OTHER_DIRECTORY)
        assert_int_equal(rmdir(path), 0);
    if (kind == OTHER_LINK || kind == OTHER_DIRECTORY)
        assert_int_equal(rename(target, path), 0);
    if (kind == OTHER_OWNER)
        assert_int_equal(chown(path, geteuid(), (gid_t)-1), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

/* Rights for others, another owner, a link, a directory: said in words, with any size that is asked for; what it holds is
 * there when it is ours again. */
static void test_shared_memory_that_is_not_ours_is_refused_and_stays(void **state)
{
    static const char *const words[OTHER_COUNT] = {
        "a file of uid %u with mode 0644,", "a file of uid %u with mode 0620,", "a file of uid 65534 with mode 0600,",
        "a symbolic link of uid %u ", "a directory of uid %u with mode 0700,",
    };
    struct loop loop;
    char path[64], target[64], text[128], why[256];
    void *addr;
    bool existed;
    size_t size;

    (void)state;
    scratch(path, "other");
    scratch(target, "target");
    loop_open(&loop, (struct io_ev_options){0});
    for (enum other kind = 0; kind < OTHER_COUNT; kind++) {
        if (kind == OTHER_OWNER && geteuid() != 0)
            continue;
        assert_int_equal(io_shared_map(loop.io, path, SIZE, &addr, &existed), 0);
        ((char *)addr)[17] = 'x';
        io_shared_unmap(loop.io, addr, SIZE);
        other_make(kind, path, target);
        assert_int_equal(io_shared_size(loop.io, path, &size), ERR_EXISTS);
        assert_int_equal(io_shared_map(loop.io, path, SIZE, &addr, &existed), ERR_EXISTS);
        assert_int_equal(io_shared_map(loop.io, path, 2 * SIZE, &addr, &existed), ERR_EXISTS);
        (void)snprintf(text, sizeof(text), words[kind], (unsigned)geteuid());
        io_shared_why(loop.io, path, why, sizeof(why));
        assert_non_null(strstr(why, text));
        other_undo(kind, path, target);
        assert_int_equal(io_shared_map(loop.io, path, SIZE, &addr, &existed), 0);
        assert_true(existed);
        assert_int_equal(((char *)addr)[17], 'x');
        io_shared_unmap(loop.io, addr, SIZE);
        assert_int_equal(unlink(path), 0);
    }
    loop_close(&loop);
}

static void test_simulated_shared_memory_of_others_is_refused_and_stays(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io *io = sim_node_io(node);
    void *addr;
    bool existed;
    size_t size;
    char why[64];

    (void)state;
    assert_int_equal(io_shared_map(io, "/s", SIZE, &addr, &existed), 0);
    ((char *)addr)[17] = 'x';
    sim_shared_foreign_set(node, true);
    assert_int_equal(io_shared_size(io, "/s", &size), ERR_EXISTS);
    assert_int_equal(io_shared_map(io, "/s", SIZE, &addr, &existed), ERR_EXISTS);
    assert_int_equal(io_shared_map(io, "/s", 2 * SIZE, &addr, &existed), ERR_EXISTS);
    io_shared_why(io, "/s", why, sizeof(why));
    assert_string_equal(why, "it is of another user");
    sim_shared_foreign_set(node, false);
    assert_int_equal(io_shared_map(io, "/s", SIZE, &addr, &existed), 0);
    assert_true(existed);
    assert_int_equal(((char *)addr)[17], 'x');
    sim_destroy(&sim);
}

static void test_boot_id_is_the_same_until_the_host_starts_again(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    unsigned char first[16], second[16];
    struct loop loop;

    (void)state;
    loop_open(&loop, (struct io_ev_options){0});
    assert_int_equal(io_boot_id(loop.io, first), 0);
    assert_int_equal(io_boot_id(loop.io, second), 0);
    assert_memory_equal(first, second, 16);
    loop_close(&loop);

    assert_int_equal(io_boot_id(sim_node_io(node), first), 0);
    sim_node_kill(node);
    assert_int_equal(io_boot_id(sim_node_start(node), second), 0);
    assert_memory_equal(first, second, 16);
    sim_node_power_cut(node);
    assert_int_equal(io_boot_id(sim_node_start(node), second), 0);
    assert_memory_not_equal(first, second, 16);
    sim_destroy(&sim);
}

static void test_simulated_shared_memory_ends_with_the_host(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    char *first;
    void *addr;
    bool existed;

    (void)state;
    assert_int_equal(io_shared_map(sim_node_io(node), "/s", SIZE, &addr, &existed), 0);
    assert_false(existed);
    first = addr;
    first[17] = 'x';
    sim_node_kill(node);
    assert_int_equal(io_shared_map(sim_node_start(node), "/s", SIZE, &addr, &existed), 0);
    assert_true(existed);
    assert_int_equal(((char *)addr)[17], 'x');
    sim_node_power_cut(node);
    assert_int_equal(io_shared_map(sim_node_start(node), "/s", SIZE, &addr, &existed), 0);
    assert_false(existed);
    assert_int_equal(((char *)addr)[17], 0);
    sim_destroy(&sim);
}

static void test_removed_shared_memory_is_not_found_again(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    char path[64];
    struct loop loop;

    (void)state;
    loop_open(&loop, (struct io_ev_options){0});
    scratch(path, "removed");
    for (unsigned i = 0; i < 2; i++) {
        struct io *io = i == 0 ? loop.io : sim_node_io(node);
        void *addr, *again;
        bool existed;

        assert_int_equal(io_shared_map(io, path, SIZE, &addr, &existed), 0);
        ((char *)addr)[17] = 'x';
        assert_int_equal(io_shared_remove(io, path), 0);
        assert_int_equal(io_shared_remove(io, path), -ENOENT);
        assert_int_equal(((char *)addr)[17], 'x');
        assert_int_equal(io_shared_map(io, path, SIZE, &again, &existed), 0);
        assert_false(existed);
        assert_int_equal(((char *)again)[17], 0);
        io_shared_unmap(io, addr, SIZE);
        io_shared_unmap(io, again, SIZE);
        assert_int_equal(io_shared_remove(io, path), 0);
    }
    loop_close(&loop);
    sim_destroy(&sim);
}

/* ---- files -------------------------------------------------------------------------------- */

struct call {
    struct io_op op;
    struct loop *loop; /* NULL: simulated */
    bool is_done;
};

static void call_done(struct io_op *op)
{
    struct call *call = CONTAINER_OF(op, struct call, op);

    call->is_done = true;
    if (call->loop != NULL)
        io_stop(call->loop->io);
}

static ssize_t wait_sim(struct sim *sim, struct call *call)
{
    assert_true(sim_run_while_not(sim, &call->is_done, 1000000000));
    return call->op.result;
}

static ssize_t wait_ev(struct call *call)
{
    loop_run(call->loop);
    assert_true(call->is_done);
    return call->op.result;
}

static struct io_file *open_ev(struct loop *loop, const char *path, int flags)
{
    struct call call = {.op.done = call_done, .loop = loop};
    struct io_file *file;

    io_file_open(loop->io, &call.op, path, flags, &file);
    assert_int_equal(wait_ev(&call), 0);
    return file;
}

static ssize_t lock_ev(struct loop *loop, struct io_file *file)
{
    struct call call = {.op.done = call_done, .loop = loop};

    io_file_lock(file, &call.op);
    return wait_ev(&call);
}

static void lock_once(enum io_file_backend files)
{
    char path[64];
    struct loop loop;
    struct io_file *one, *two;
    ssize_t got = -EWOULDBLOCK;

    scratch(path, "lock");
    loop_open(&loop, (struct io_ev_options){.files = files});
    one = open_ev(&loop, path, RW | IO_FILE_CREATE);
    two = open_ev(&loop, path, RW);
    assert_int_equal(lock_ev(&loop, one), 0);
    assert_int_equal(lock_ev(&loop, one), 0);
    assert_int_equal(lock_ev(&loop, two), -EWOULDBLOCK);
    io_file_close(one); /* by a thread, when it gets to run */
    for (int i = 0; i < 20000 && got == -EWOULDBLOCK; i++) {
        loop_run_ms(&loop, 1);
        got = lock_ev(&loop, two);
    }
    assert_int_equal(got, 0);
    io_file_close(two);
    loop_close(&loop);
    assert_int_equal(unlink(path), 0);
}

static void test_a_lock_has_one_holder(void **state)
{
    (void)state;
    lock_once(IO_FILES_THREADS);
    lock_once(IO_FILES_BEST);
}

/* Where O_DIRECT is refused the file is opened without; synchronous writes arrive all the same. */
static void test_direct_synchronous_writes_arrive(void **state)
{
    static const char *const paths[] = {"/dev/shm", "."};
    char *data = mem_alloc_aligned(4096, 4096);

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        char path[64];
        struct loop loop;
        struct io_file *file;
        struct call call = {.op.done = call_done, .loop = &loop};

        (void)snprintf(path, sizeof(path), "%s/weir-test-direct-%ld", paths[i], (long)getpid());
        loop_open(&loop, (struct io_ev_options){.files = IO_FILES_BEST});
        file = open_ev(&loop, path,
                       RW | IO_FILE_CREATE | IO_FILE_EXCLUSIVE | IO_FILE_DIRECT);
        memset(data, 'd', 4096);
        io_file_write_durable(file, &call.op, data, 4096, 4096);
        assert_int_equal(wait_ev(&call), 4096);
        call.is_done = false;
        memset(data, 0, 4096);
        io_file_read(file, &call.op, data, 4096, 4096);
        assert_int_equal(wait_ev(&call), 4096);
        assert_int_equal(data[4095], 'd');
        io_file_close(file);
        loop_close(&loop);
        assert_int_equal(unlink(path), 0);
    }
    mem_free(data);
}

struct linger_hook {
    struct io_hook hook;
    struct io *io;
    int count, can_count;
};

static void linger_run(struct io_hook *hook)
{
    struct linger_hook *linger = CONTAINER_OF(hook, struct linger_hook, hook);
    bool can = linger->count < 5 && io_linger(linger->io, 50, true);

    linger->count++;
    linger->can_count += can;
    if (!can)
        io_stop(linger->io);
}

/* Nothing else would make a turn. */
static void test_a_turn_follows_a_linger(void **state)
{
    struct linger_hook linger = {.hook.run = linger_run};
    struct loop loop;

    (void)state;
    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_URING});
    linger.io = loop.io;
    io_hook_add(loop.io, &linger.hook);
    io_run(loop.io);
    assert_true(linger.can_count == 5 || linger.can_count == 0); /* none without a ring */
    assert_int_equal(linger.count, linger.can_count + 1);
    io_hook_remove(loop.io, &linger.hook);
    loop_close(&loop);
}

struct submit_hook {
    struct io_hook hook;
    struct io *io;
    struct io_file *file;
    struct call write;
    const char *path;
    char *data;
    bool is_submitted, was_seen;
};

static void submit_run(struct io_hook *hook)
{
    struct submit_hook *submit = CONTAINER_OF(hook, struct submit_hook, hook);
    int fd;

    if (submit->is_submitted)
        return;
    submit->is_submitted = true;
    io_file_write(submit->file, &submit->write.op, submit->data, 4096, 0);
    io_submit(submit->io);
    fd = open(submit->path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (int i = 0; i < 2000 && !submit->was_seen; i++) {
        char got;

        submit->was_seen = pread(fd, &got, 1, 4095) == 1 && got == 'd';
        if (!submit->was_seen)
            usleep(1000);
    }
    close(fd);
}

/* The hook that submits is still running when the file has it. */
static void test_what_is_submitted_does_not_wait_for_the_turn(void **state)
{
    struct submit_hook submit = {.hook.run = submit_run, .write = {.op.done = call_done}};
    char path[64];
    struct loop loop;

    (void)state;
    scratch(path, "submit");
    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_BEST});
    submit.io = loop.io;
    submit.path = path;
    submit.write.loop = &loop;
    submit.data = mem_alloc_aligned(4096, 4096);
    memset(submit.data, 'd', 4096);
    submit.file = open_ev(&loop, path, RW | IO_FILE_CREATE | IO_FILE_EXCLUSIVE);
    io_hook_add(loop.io, &submit.hook);
    io_wake(loop.io);
    assert_int_equal(wait_ev(&submit.write), 4096);
    assert_true(submit.was_seen);
    io_hook_remove(loop.io, &submit.hook);
    io_file_close(submit.file);
    loop_close(&loop);
    mem_free(submit.data);
    assert_int_equal(unlink(path), 0);
}

static struct io_file *open_sim(struct sim *sim, struct io *io, int flags)
{
    struct call call = {.op.done = call_done};
    struct io_file *file;

    io_file_open(io, &call.op, "/f", flags, &file);
    assert_int_equal(wait_sim(sim, &call), 0);
    return file;
}

static ssize_t lock_sim(struct sim *sim, struct io_file *file)
{
    struct call call = {.op.done = call_done};

    io_file_lock(file, &call.op);
    return wait_sim(sim, &call);
}

static void test_a_simulated_lock_ends_with_its_process(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io_file *one = open_sim(sim, sim_node_io(node), RW | IO_FILE_CREATE);
    struct io_file *two = open_sim(sim, sim_node_io(node), RW);

    (void)state;
    assert_int_equal(lock_sim(sim, one), 0);
    assert_int_equal(lock_sim(sim, two), -EWOULDBLOCK);
    io_file_close(one);
    assert_int_equal(lock_sim(sim, two), 0);
    sim_node_kill(node);
    one = open_sim(sim, sim_node_start(node), RW);
    assert_int_equal(lock_sim(sim, one), 0);
    sim_destroy(&sim);
}

/* D1: of a plain and a durable write the cut takes the plain one alone; one that could not be flushed has an error. */
static void test_a_simulated_synchronous_write_is_durable(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io_file *file;
    struct call failed = {.op.done = call_done};
    char data[1024], seen[1024];

    (void)state;
    memset(data, 'n', sizeof(data));
    sim_disk_put(node, "/f", bytes_of(memset(seen, 'o', sizeof(seen)), sizeof(seen)));
    file = open_sim(sim, sim_node_io(node), RW);
    for (int i = 0; i < 2; i++) {
        struct call call = {.op.done = call_done};

        (i == 0 ? io_file_write : io_file_write_durable)(file, &call.op, data, 512, i * 512u);
        assert_int_equal(wait_sim(sim, &call), 512);
    }
    sim_disk_fail(node, SIM_DISK_DATASYNC, "f", -EIO, 1);
    io_file_write_durable(file, &failed.op, data, 512, 0);
    assert_int_equal(wait_sim(sim, &failed), -EIO);
    sim_disk_crash_set(node, SIM_DISK_OLD);
    sim_node_power_cut(node);
    assert_int_equal(sim_disk_peek(node, "/f", true, seen, sizeof(seen), 0), sizeof(seen));
    assert_int_equal(seen[0], 'o');
    assert_int_equal(seen[512], 'n');
    sim_destroy(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_memory_is_found_again),
        cmocka_unit_test(test_the_size_of_shared_memory_is_found),
        cmocka_unit_test(test_shared_memory_of_another_size_is_replaced),
        cmocka_unit_test(test_shared_memory_that_is_not_ours_is_refused_and_stays),
        cmocka_unit_test(test_simulated_shared_memory_of_others_is_refused_and_stays),
        cmocka_unit_test(test_boot_id_is_the_same_until_the_host_starts_again),
        cmocka_unit_test(test_simulated_shared_memory_ends_with_the_host),
        cmocka_unit_test(test_removed_shared_memory_is_not_found_again),
        cmocka_unit_test(test_a_lock_has_one_holder),
        cmocka_unit_test(test_direct_synchronous_writes_arrive),
        cmocka_unit_test(test_a_turn_follows_a_linger),
        cmocka_unit_test(test_what_is_submitted_does_not_wait_for_the_turn),
        cmocka_unit_test(test_a_simulated_lock_ends_with_its_process),
        cmocka_unit_test(test_a_simulated_synchronous_write_is_durable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
