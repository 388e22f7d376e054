/* SPDX-License-Identifier: Apache-2.0 */
/* The table itself, and the look-up of names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include "common/command/command.h"

static struct bytes upper(struct bytes name, char *out)
{
    for (size_t i = 0; i < name.len; i++)
        out[i] = (char)toupper((unsigned char)name.data[i]);
    return bytes_of(out, name.len);
}

/* The part of a row's name that is its own: "setinfo" of "client|setinfo". */
static struct bytes own_name(const struct command *row)
{
    struct bytes name = bytes_of(row->name, row->name_len);

    if (row->parent != COMMAND_none)
        name = bytes_skip(name, command_by_id(row->parent)->name_len + 1u);
    return name;
}

static const struct command *find(const struct command *row, struct bytes name)
{
    return row->parent == COMMAND_none ? command_find(name)
                                       : command_find_sub(command_by_id(row->parent), name);
}

static void test_every_row_is_found_in_any_case(void **state)
{
    (void)state;
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *row = command_by_id(id);
        struct bytes name = own_name(row);
        char text[64];

        assert_int_equal(row->id, id);
        assert_int_equal(row->name_len, strlen(row->name));
        assert_ptr_equal(find(row, name), row);
        assert_ptr_equal(find(row, upper(name, text)), row);
        text[0] = (char)tolower((unsigned char)text[0]);
        assert_ptr_equal(find(row, bytes_of(text, name.len)), row);
    }
}

/* One byte changed, added or missing: another row, or none, but never this one. */
static void test_near_misses_are_not_found(void **state)
{
    (void)state;
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *row = command_by_id(id);
        struct bytes name = own_name(row);
        char text[64];

        for (size_t i = 0; i < name.len; i++) {
            for (int byte = 0; byte < 256; byte++) {
                if (tolower(byte) == (unsigned char)name.data[i])
                    continue;
                memcpy(text, name.data, name.len);
                text[i] = (char)byte;
                assert_ptr_not_equal(find(row, bytes_of(text, name.len)), row);
            }
        }
        assert_ptr_not_equal(find(row, bytes_first(name, name.len - 1)), row);
        memcpy(text, name.data, name.len);
        text[name.len] = 's';
        assert_ptr_not_equal(find(row, bytes_of(text, name.len + 1)), row);
    }
}

static void test_strangers_are_not_found(void **state)
{
    static const struct bytes names[] = {
        BYTES(""), BYTES("\0"), BYTES("g"), BYTES("nosuch"), BYTES("client|setname"),
        BYTES("get\0"), BYTES("get "), BYTES("setname"), BYTES("help"),
        BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        BYTES("a-name-that-is-longer-than-that-of-any-command-there-is-or-will-ever-be"),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        assert_null(command_find(names[i]));
    assert_null(command_find_sub(command_by_id(COMMAND_client), BYTES("")));
    assert_null(command_find_sub(command_by_id(COMMAND_client), BYTES("nosuch")));
    assert_null(command_find_sub(command_by_id(COMMAND_get), BYTES("setname")));
    assert_null(command_find_sub(command_by_id(COMMAND_config), BYTES("setname")));
}

/* What every user of the table relies on. */
static void test_rows_are_consistent(void **state)
{
    (void)state;
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *row = command_by_id(id);
        const struct command *parent =
            row->parent != COMMAND_none ? command_by_id(row->parent) : NULL;

        assert_true(row->arity != 0);
        assert_true(row->summary[0] != '\0' && row->since[0] != '\0');
        assert_false((row->flags & CMD_READ) && (row->flags & CMD_WRITE));
        assert_false((row->flags & CMD_IDEMPOTENT) && (row->flags & (CMD_WRITE | CMD_BLOCKING)));
        assert_int_equal((row->flags & CMD_LATER) != 0, row->home == HOME_LATER);
        if (parent != NULL) {
            assert_true(parent->flags & CMD_HAS_SUBCOMMANDS);
            assert_int_equal(parent->parent, COMMAND_none);
            assert_memory_equal(row->name, parent->name, parent->name_len);
            assert_int_equal(row->name[parent->name_len], '|');
            assert_false(row->flags & CMD_HAS_SUBCOMMANDS);
            if (parent->flags & CMD_DENIED)
                assert_true(row->flags & CMD_DENIED);
        }
        /* A row that goes by its keys has some; a merge by keys has a plain range of them. */
        if (row->route == ROUTE_SPLIT_ORDER || row->route == ROUTE_SPLIT_OK ||
            row->route == ROUTE_SPLIT_SUM) {
            assert_int_equal(row->keys.kind, KEYS_RANGE);
            assert_int_equal(row->keys.last, -1);
        }
        if (row->route == ROUTE_ONE)
            assert_true(row->keys.kind != KEYS_NONE);
        if (row->route == ROUTE_LOCAL || row->route == ROUTE_ANY)
            assert_int_equal(row->keys.kind, KEYS_NONE);
    }
}

/* The decisions that protect the servers behind the proxy. */
static void test_dangerous_commands_are_denied(void **state)
{
    static const char *const denied[] = {
        "config", "debug", "module", "replicaof", "slaveof", "shutdown", "save", "bgsave",
        "bgrewriteaof", "migrate", "sync", "psync", "failover", "acl", "monitor", "replconf",
        "swapdb",
    };
    static const char *const writing[] = {
        "addslots", "addslotsrange", "bumpepoch", "delslots", "delslotsrange", "failover",
        "flushslots", "forget", "meet", "replicate", "reset", "saveconfig", "set-config-epoch",
        "setslot",
    };
    const struct command *cluster = command_find(BYTES("cluster"));

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(denied); i++)
        assert_true(command_find(bytes_of_string(denied[i]))->flags & CMD_DENIED);
    for (size_t i = 0; i < ARRAY_COUNT(writing); i++)
        assert_true(command_find_sub(cluster, bytes_of_string(writing[i]))->flags & CMD_DENIED);
    assert_false(command_find_sub(cluster, BYTES("slots"))->flags & CMD_DENIED);
    assert_false(command_find(BYTES("eval"))->flags & CMD_DENIED);
    assert_false(command_find(BYTES("flushall"))->flags & CMD_DENIED);
    assert_false(command_find(BYTES("keys"))->flags & CMD_DENIED);
}

static void test_arity(void **state)
{
    const struct command *get = command_find(BYTES("get"));
    const struct command *set = command_find(BYTES("set"));

    (void)state;
    assert_false(command_arity_fits(get, 1));
    assert_true(command_arity_fits(get, 2));
    assert_false(command_arity_fits(get, 3));
    assert_false(command_arity_fits(set, 2));
    assert_true(command_arity_fits(set, 3));
    assert_true(command_arity_fits(set, 9));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_found_in_any_case),
        cmocka_unit_test(test_near_misses_are_not_found),
        cmocka_unit_test(test_strangers_are_not_found),
        cmocka_unit_test(test_rows_are_consistent),
        cmocka_unit_test(test_dangerous_commands_are_denied),
        cmocka_unit_test(test_arity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
