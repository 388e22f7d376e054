/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only the last star needs to be remembered: what stood before it has matched the shortest way, and no
 * other way could help what follows. So there is one place to go back to, and no recursion.
 */
#include "common/base/glob.h"

static unsigned char fold(char c, bool ignore_case)
{
    return (unsigned char)(ignore_case ? ascii_lower(c) : c);
}

/* The class behind '[' at *at; *at moves behind its ']', or to the end of a pattern that lacks it. */
static bool class_matches(struct bytes pattern, size_t *at, char c, bool ignore_case)
{
    size_t i = *at;
    unsigned char wanted = fold(c, ignore_case);
    bool is_negated = i < pattern.len && pattern.data[i] == '^';
    bool matched = false;

    if (is_negated)
        i++;
    for (; i < pattern.len && pattern.data[i] != ']'; i++) {
        if (pattern.data[i] == '\\' && pattern.len - i >= 2) {
            i++;
            matched |= pattern.data[i] == c; /* the case counts here, as in Redis */
        } else if (pattern.len - i >= 3 && pattern.data[i + 1] == '-') {
            unsigned char low = (unsigned char)pattern.data[i];
            unsigned char high = (unsigned char)pattern.data[i + 2];

            /* The ends are put in order before their case is folded, as in Redis. */
            matched |= wanted >= fold((char)MIN(low, high), ignore_case) &&
                       wanted <= fold((char)MAX(low, high), ignore_case);
            i += 2;
        } else {
            matched |= fold(pattern.data[i], ignore_case) == wanted;
        }
    }
    *at = i < pattern.len ? i + 1 : i;
    return matched != is_negated;
}

/* One character of the pattern, not a star, against one of the text. */
static bool one_matches(struct bytes pattern, size_t *at, char c, bool ignore_case)
{
    char p = pattern.data[(*at)++];

    switch (p) {
    case '?':
        return true;
    case '[':
        return class_matches(pattern, at, c, ignore_case);
    case '\\':
        if (*at < pattern.len)
            p = pattern.data[(*at)++];
        FALLTHROUGH;
    default:
        return fold(p, ignore_case) == fold(c, ignore_case);
    }
}

bool glob_matches(struct bytes pattern, struct bytes text, bool ignore_case)
{
    size_t p = 0, t = 0;
    size_t star = SIZE_MAX; /* where the pattern goes on behind the last star */
    size_t star_text = 0;   /* and where the text does, at the next try */

    if (text.len == 0)
        return pattern.len == 0; /* not even by a star: Redis has it so */
    while (t < text.len) {
        if (p < pattern.len && pattern.data[p] == '*') {
            star = ++p;
            star_text = t;
            continue;
        }
        if (p < pattern.len && one_matches(pattern, &p, text.data[t], ignore_case)) {
            t++;
            continue;
        }
        if (star == SIZE_MAX)
            return false;
        p = star;
        t = ++star_text;
    }
    while (p < pattern.len && pattern.data[p] == '*')
        p++;
    return p == pattern.len;
}
