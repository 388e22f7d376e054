/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "nginx-style-master/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char error[MASTER_ERROR_SIZE];

static void test_lines_survive_the_way(void **state)
{
    struct inherit sent = {0}, got;
    char text[4096];
    size_t len = (size_t)snprintf(text, sizeof(text), "%s\n", inherit_version());

    (void)state;
    for (unsigned kind = 0; kind < INHERIT_KIND_MAX_; kind++) {
        char word[40];

        snprintf(word, sizeof(word), "text %u with blanks", kind);
        inherit_add(&sent, (enum inherit_kind)kind, (int)kind * 1000, word);
        len += inherit_line(&sent.entries[kind], text + len, sizeof(text) - len);
    }
    assert_int_equal(inherit_parse(bytes_of(text, len), &got, error), 0);
    assert_int_equal(got.count, sent.count);
    for (uint32_t i = 0; i < got.count; i++) {
        assert_int_equal(got.entries[i].kind, sent.entries[i].kind);
        assert_int_equal(got.entries[i].fd, sent.entries[i].fd);
        assert_string_equal(got.entries[i].text, sent.entries[i].text);
    }
    inherit_free(&sent, false);
    inherit_free(&got, false);
}

static int parse(const char *lines)
{
    struct inherit got;
    char text[1024];
    int err;

    snprintf(text, sizeof(text), "%s\n%s", inherit_version(), lines);
    err = inherit_parse(bytes_of_string(text), &got, error);
    if (err == 0)
        inherit_free(&got, false);
    return err;
}

static void test_bad_lists_are_refused(void **state)
{
    struct inherit got;

    (void)state;
    assert_int_equal(inherit_parse(BYTES(""), &got, error), ERR_INVALID);
    assert_int_equal(inherit_parse(BYTES("weir-inherit 2\n"), &got, error), ERR_INVALID);
    assert_non_null(strstr(error, "weir-inherit 2"));
    assert_int_equal(parse(""), 0);
    assert_int_equal(parse("listener 3 127.0.0.1:1\n"), 0);
    assert_int_equal(parse("ring 3 0\n"), 0); /* a later version's: left out */
    assert_int_equal(parse("listener\n"), ERR_INVALID);
    assert_int_equal(parse("listener x y\n"), ERR_INVALID);
    assert_int_equal(parse("listener -1 y\n"), ERR_INVALID);
    assert_int_equal(parse("listener 99999999999 y\n"), ERR_INVALID);
    assert_int_equal(parse(" 3 y\n"), ERR_INVALID);
    assert_int_equal(parse("\n"), ERR_INVALID);
}

static int inherited_from(const char *text, struct inherit *out)
{
    int fd = memfd_create("test", 0);
    char number[16];

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    snprintf(number, sizeof(number), "%d", fd);
    setenv("WEIR_INHERIT", number, 1);
    return upgrade_inherited(out, error);
}

static void test_environment(void **state)
{
    struct inherit got;
    char text[128];

    (void)state;
    unsetenv("WEIR_INHERIT");
    assert_int_equal(upgrade_inherited(&got, error), 0);
    assert_int_equal(got.count, 0);
    setenv("WEIR_INHERIT", "hello", 1);
    assert_int_equal(upgrade_inherited(&got, error), ERR_INVALID);
    setenv("WEIR_INHERIT", "1000000", 1);
    assert_int_equal(upgrade_inherited(&got, error), ERR_INVALID);
    snprintf(text, sizeof(text), "%s\nlistener 2 a\n", inherit_version());
    assert_int_equal(inherited_from(text, &got), 0);
    assert_int_equal(got.count, 1);
    assert_null(getenv("WEIR_INHERIT")); /* not for the workers' children */
    inherit_free(&got, false);
    snprintf(text, sizeof(text), "%s\nlistener 900000 a\n", inherit_version());
    assert_int_equal(inherited_from(text, &got), ERR_INVALID);
    assert_non_null(strstr(error, "900000"));
    unsetenv("WEIR_INHERIT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_survive_the_way),
        cmocka_unit_test(test_bad_lists_are_refused),
        cmocka_unit_test(test_environment),
    };

    return cmocka_run_group_tests_name("upgrade", tests, NULL, NULL);
}
