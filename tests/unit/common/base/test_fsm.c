/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/fsm.h"

enum door_state { DOOR_OPEN, DOOR_SHUT, DOOR_LOCKED };

/* OPEN <-> SHUT <-> LOCKED: nobody locks an open door. */
static const struct fsm_state door_states[] = {
    [DOOR_OPEN] = {"open", FSM_TO(DOOR_SHUT)},
    [DOOR_SHUT] = {"shut", FSM_TO(DOOR_OPEN) | FSM_TO(DOOR_LOCKED)},
    [DOOR_LOCKED] = {"locked", FSM_TO(DOOR_SHUT)},
};

static void test_moves_along_the_drawn_edges(void **state)
{
    static const uint8_t path[] = {DOOR_SHUT, DOOR_LOCKED, DOOR_SHUT, DOOR_OPEN};
    uint8_t door = DOOR_OPEN;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(path); i++) {
        assert_true(fsm_may_move(door_states, door, path[i]));
        fsm_move(&door, door_states, path[i]);
        assert_int_equal(door, path[i]);
    }
}

static void lock_an_open_door(void *arg)
{
    fsm_move(arg, door_states, DOOR_LOCKED);
}

static void test_any_other_move_is_a_bug(void **state)
{
    uint8_t door = DOOR_OPEN;

    (void)state;
    assert_false(fsm_may_move(door_states, DOOR_OPEN, DOOR_LOCKED));
    assert_false(fsm_may_move(door_states, DOOR_OPEN, DOOR_OPEN)); /* staying is an edge too */
    assert_true(test_aborts(lock_an_open_door, &door));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves_along_the_drawn_edges),
        cmocka_unit_test(test_any_other_move_is_a_bug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
