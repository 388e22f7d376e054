/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/path.h"

#include <errno.h>

static void test_the_folder_of_a_path(void **state)
{
    static const struct {
        const char *path, *parent;
    } cases[] = {
        {"/a/b", "/a"}, {"a/b", "a"},   {"/a/b/c.d", "/a/b"}, {"./a", "."},  {"../a", ".."}, {"a", "."}, {"", "."},
        {"..", "."},    {"/a", "/"},    {"/", "/"},           {"//a", "/"},  {"a//b", "a/"},
        {"a/", "a"},    {"/a/", "/a"}, /* a name is missing */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char parent[16];

        assert_int_equal(path_parent(bytes_of_string(cases[i].path), parent, sizeof(parent)), 0);
        assert_string_equal(parent, cases[i].parent);
    }
}

/* As a folder's path may be written. */
static void test_a_trimmed_path(void **state)
{
    static const struct {
        const char *path, *trimmed, *parent;
    } cases[] = {
        {"/a/b/", "/a/b", "/a"}, {"a///", "a", "."}, {"/a/", "/a", "/"}, {"/a", "/a", "/"},
        {"///", "/", "/"},       {"/", "/", "/"},    {"a/b", "a/b", "a"}, {"", "", "."},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct bytes trimmed = path_trimmed(bytes_of_string(cases[i].path));
        char parent[16];

        assert_true(bytes_equal(trimmed, bytes_of_string(cases[i].trimmed)));
        assert_int_equal(path_parent(trimmed, parent, sizeof(parent)), 0);
        assert_string_equal(parent, cases[i].parent);
    }
}

/* Only the folder must fit. */
static void test_a_folder_with_a_long_name(void **state)
{
    char parent[5];

    (void)state;
    assert_int_equal(path_parent(BYTES("/abc/a-long-name"), parent, sizeof(parent)), 0);
    assert_string_equal(parent, "/abc");
    assert_int_equal(path_parent(BYTES("/abcd/a"), parent, sizeof(parent)), -ENAMETOOLONG);
    assert_int_equal(path_parent(BYTES("a"), parent, 1), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_folder_of_a_path),
        cmocka_unit_test(test_a_trimmed_path),
        cmocka_unit_test(test_a_folder_with_a_long_name),
    };

    return cmocka_run_group_tests_name("path", tests, NULL, NULL);
}
