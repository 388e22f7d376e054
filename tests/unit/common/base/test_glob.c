/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "common/base/glob.h"

/* Answers taken from redis-server 7.0 (KEYS over one key). */
static void test_patterns_match_as_in_redis(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"*", "a", true},          {"*", "", false},         {"", "", true},
        {"", "a", false},          {"a", "a", true},         {"a", "b", false},
        {"a", "ab", false},        {"ab", "a", false},       {"a*", "a", true},
        {"a**", "a", true},        {"*a", "bca", true},      {"*a", "ab", false},
        {"*a*b*", "xaxxb", true},  {"*a*b*", "xbxxa", false},{"a?c", "abc", true},
        {"a?c", "ac", false},      {"??", "a", false},       {"*?", "a", true},
        {"[abc]", "b", true},      {"[abc]", "d", false},    {"[^abc]", "d", true},
        {"[^abc]", "a", false},    {"[a-c]x", "bx", true},   {"[c-a]x", "bx", true},
        {"[a-c]", "d", false},     {"[a", "a", true},        {"[a", "b", false},
        {"[]a]", "a", false},      {"[\\]]", "]", true},     {"[a-]", "a", true},
        {"[", "a", false},         {"[^", "a", true},        {"\\*", "*", true},
        {"\\*", "a", false},       {"\\", "\\", true},       {"a\\", "a\\", true},
        {"h[ae]llo", "hello", true}, {"h*o*", "hello world", true}, {"*[0-9]", "key7", true},
        {"*[0-9]", "key", false},  {"A", "a", false},        {"*.*.*", "a.b", false},
        {"*.*.*", "a.b.", true},   {"**a**", "a", true},     {"*ab*ab", "abxab", true},
        {"*ab*ab", "xab", false},  {"*aab", "aaaab", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(glob_matches(bytes_of_string(cases[i].pattern),
                                      bytes_of_string(cases[i].text), false),
                         cases[i].matches);
}

static void test_case_is_ignored_when_asked(void **state)
{
    (void)state;
    assert_true(glob_matches(BYTES("ABC*"), BYTES("abcd"), true));
    assert_true(glob_matches(BYTES("[A-C]"), BYTES("b"), true));
    assert_false(glob_matches(BYTES("[\\B]"), BYTES("b"), true));
}

/* Exponential in naive matchers; here at most pattern times text steps. */
static void test_many_stars_end(void **state)
{
    static char text[4000], pattern[2001];

    (void)state;
    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i + 1 < sizeof(pattern); i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[sizeof(pattern) - 1] = 'b';
    assert_false(glob_matches(bytes_of(pattern, sizeof(pattern)), bytes_of(text, sizeof(text)),
                              false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns_match_as_in_redis),
        cmocka_unit_test(test_case_is_ignored_when_asked),
        cmocka_unit_test(test_many_stars_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
