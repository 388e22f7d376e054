/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "nginx-style-master/shm.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void shm_open_small(struct shm *shm)
{
    assert_int_equal(shm_create(shm, 1, "test-1", 100), 0);
    assert_int_equal(shm->table->slots_count, SHM_SLOTS_MIN);
}

static void test_slots_are_claimed_once_and_come_back(void **state)
{
    struct shm shm;
    uint32_t first;

    (void)state;
    shm_open_small(&shm);
    first = shm_slot_claim(&shm, 1, 1, 0, 64);
    for (uint32_t i = 1; i < SHM_SLOTS_MIN; i++)
        assert_int_not_equal(shm_slot_claim(&shm, 1, 1, i, 64), first);
    assert_int_equal(shm_slot_claim(&shm, 1, 1, 0, 64), WORKER_SLOT_NONE);
    shm_slot_move(&shm, first, WORKER_STATE_SERVING);
    shm_slot_move(&shm, first, WORKER_STATE_GONE);
    shm_slot_move(&shm, first, WORKER_STATE_STARTING); /* forked again: its place is its own */
    assert_int_equal(shm_slot_claim(&shm, 1, 1, 0, 64), WORKER_SLOT_NONE);
    shm_slot_move(&shm, first, WORKER_STATE_RETIRED);
    assert_int_equal(shm_slot_claim(&shm, 1, 1, 0, 64), WORKER_SLOT_NONE);
    shm_slot_move(&shm, first, WORKER_STATE_FREE);
    assert_int_equal(shm_slot_claim(&shm, 1, 2, 0, 64), first);
    shm_close(&shm);
}

static void test_illegal_moves_change_nothing(void **state)
{
    struct shm shm;

    (void)state;
    shm_open_small(&shm);
    shm_slot_move(&shm, 3, WORKER_STATE_SERVING); /* it is free */
    assert_int_equal(shm.table->slots[3].state, WORKER_STATE_FREE);
    assert_int_equal(shm_slot_claim(&shm, 1, 1, 0, 8), 0);
    shm_slot_move(&shm, 0, WORKER_STATE_RETIRED);
    shm_slot_move(&shm, 0, WORKER_STATE_SERVING); /* a late word of a worker that is gone */
    assert_int_equal(shm.table->slots[0].state, WORKER_STATE_RETIRED);
    shm_close(&shm);
}

static void test_a_claimed_segment_is_zero(void **state)
{
    struct shm shm;
    uint32_t slot;
    unsigned char *segment;

    (void)state;
    shm_open_small(&shm);
    slot = shm_slot_claim(&shm, 1, 1, 0, 100);
    segment = shm_segment(&shm, slot);
    memset(segment, 0xaa, shm.stats->segment_size);
    shm_slot_move(&shm, slot, WORKER_STATE_GONE);
    shm_slot_move(&shm, slot, WORKER_STATE_STARTING);
    assert_int_equal(segment[99], 0xaa); /* kept over a respawn */
    shm_slot_move(&shm, slot, WORKER_STATE_RETIRED);
    shm_slot_move(&shm, slot, WORKER_STATE_FREE);
    assert_int_equal(shm_slot_claim(&shm, 1, 2, 0, 100), slot);
    for (size_t i = 0; i < shm.stats->segment_size; i++)
        assert_int_equal(segment[i], 0);
    shm_close(&shm);
}

static void add(void *arg, void *base, size_t base_size, const void *stats, size_t stats_size)
{
    assert_true(stats_size <= base_size);
    *(uint64_t *)base += *(const uint64_t *)stats;
    if (arg != NULL)
        raise(SIGKILL); /* in the middle: the copy has changed, the base has not */
}

static uint32_t retired_with(struct shm *shm, uint64_t value)
{
    uint32_t slot = shm_slot_claim(shm, 1, 1, 0, sizeof(uint64_t));

    *(uint64_t *)shm_segment(shm, slot) = value;
    shm_slot_move(shm, slot, WORKER_STATE_RETIRED);
    return slot;
}

static uint64_t base_of(struct shm *shm)
{
    return *(const uint64_t *)shm_base(shm);
}

static void test_folds_add_up_and_free_the_slot(void **state)
{
    struct shm shm;

    (void)state;
    shm_open_small(&shm);
    for (uint64_t i = 1; i <= 100; i++) {
        uint32_t slot = retired_with(&shm, i);

        assert_true(shm_fold(&shm, slot, add, NULL));
        assert_int_equal(shm.table->slots[slot].state, WORKER_STATE_FREE);
        assert_false(shm_fold(&shm, slot, add, NULL));
        assert_int_equal(base_of(&shm), i * (i + 1) / 2);
    }
    shm_close(&shm);
}

/* A folder is killed half-way; the next one does it again, from the untouched base. */
static void test_a_killed_fold_counts_once(void **state)
{
    struct shm shm;
    uint32_t slot;
    pid_t pid;

    (void)state;
    shm_open_small(&shm);
    assert_true(shm_fold(&shm, retired_with(&shm, 5), add, NULL));
    slot = retired_with(&shm, 7);
    pid = fork();
    if (pid == 0) {
        MAYBE(shm_fold(&shm, slot, add, &shm));
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(base_of(&shm), 5);
    assert_int_equal(shm.table->slots[slot].state, WORKER_STATE_RETIRED);
    assert_true(shm_fold(&shm, slot, add, NULL));
    assert_int_equal(base_of(&shm), 12);
    /* Killed after the commit, before the slot was freed: the serial in the base tells. */
    slot = retired_with(&shm, 1);
    assert_true(shm_fold(&shm, slot, add, NULL));
    atomic_store(&shm.table->slots[slot].state, WORKER_STATE_RETIRED);
    assert_true(shm_fold(&shm, slot, add, NULL));
    assert_int_equal(base_of(&shm), 13);
    shm_close(&shm);
}

static void test_adopted_table_is_the_same_memory(void **state)
{
    struct shm shm, heir;

    (void)state;
    shm_open_small(&shm);
    assert_true(shm_fold(&shm, retired_with(&shm, 9), add, NULL));
    assert_int_equal(shm_adopt(&heir, dup(shm.table_fd), dup(shm.stats_fd), "test-1", 100), 0);
    assert_int_equal(base_of(&heir), 9);
    assert_int_equal(shm_slot_claim(&heir, 2, 2, 0, 8), 0);
    assert_int_equal(shm.table->slots[0].master_pid, 2);
    shm_close(&heir);
    /* Another layout: the slots are shared, the counters start again. */
    assert_int_equal(shm_adopt(&heir, dup(shm.table_fd), dup(shm.stats_fd), "test-2", 100), 0);
    assert_int_equal(base_of(&heir), 0);
    assert_null(shm_segment(&heir, 0));
    assert_int_equal(shm_slot_claim(&heir, 2, 2, 0, 8), 1);
    assert_non_null(shm_segment(&heir, 1));
    assert_null(shm_segment(&shm, 1));
    shm_close(&heir);
    shm_close(&shm);
}

static void test_strange_tables_are_refused(void **state)
{
    struct shm shm, heir;
    int fd, file = memfd_create("test", 0);

    (void)state;
    assert_int_equal(shm_adopt(&heir, file, -1, "test-1", 100), ERR_INVALID); /* empty */
    assert_int_equal(ftruncate(file, 100000), 0);
    assert_int_equal(shm_adopt(&heir, file, -1, "test-1", 100), ERR_INVALID); /* zeroes */
    close(file);
    shm_open_small(&shm);
    shm.table->version++;
    fd = dup(shm.table_fd);
    assert_int_equal(shm_adopt(&heir, fd, -1, "test-1", 100), ERR_INVALID);
    close(fd);
    shm.table->version--;
    shm.table->slots_count = 100000; /* would lie outside */
    fd = dup(shm.table_fd);
    assert_int_equal(shm_adopt(&heir, fd, -1, "test-1", 100), ERR_INVALID);
    close(fd);
    shm_close(&shm);
}

static void test_masters_register_and_see_each_other(void **state)
{
    struct shm shm;
    struct shm_master *self;
    int fds[2];
    char byte;
    pid_t pid;

    (void)state;
    shm_open_small(&shm);
    assert_int_equal(pipe(fds), 0);
    self = shm_master_register(&shm);
    assert_non_null(self);
    assert_int_equal(shm_master_other(&shm), 0);
    pid = fork();
    if (pid == 0) {
        bool is_fine = shm_master_register(&shm) != NULL && shm_master_other(&shm) == getppid();

        if (write(fds[1], is_fine ? "y" : "n", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(fds[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(shm_master_other(&shm), pid);
    kill(pid, SIGKILL);
    while (shm_pid_is_alive(pid, 0)) /* a zombie counts as dead */
        usleep(1000);
    assert_int_equal(shm_master_other(&shm), 0);
    MAYBE(waitpid(pid, NULL, 0));
    close(fds[0]);
    close(fds[1]);
    shm_close(&shm);
}

static void test_process_start_times(void **state)
{
    uint64_t start = shm_pid_start(getpid());

    (void)state;
    assert_int_not_equal(start, 0);
    assert_true(shm_pid_is_alive(getpid(), start));
    assert_true(shm_pid_is_alive(getpid(), 0));
    assert_false(shm_pid_is_alive(getpid(), start + 1)); /* another process had that number */
    assert_false(shm_pid_is_alive(0, 0));
    assert_false(shm_pid_is_alive(0x3fffffff, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_claimed_once_and_come_back),
        cmocka_unit_test(test_illegal_moves_change_nothing),
        cmocka_unit_test(test_a_claimed_segment_is_zero),
        cmocka_unit_test(test_folds_add_up_and_free_the_slot),
        cmocka_unit_test(test_a_killed_fold_counts_once),
        cmocka_unit_test(test_adopted_table_is_the_same_memory),
        cmocka_unit_test(test_strange_tables_are_refused),
        cmocka_unit_test(test_masters_register_and_see_each_other),
        cmocka_unit_test(test_process_start_times),
    };

    return cmocka_run_group_tests_name("shm", tests, NULL, NULL);
}
