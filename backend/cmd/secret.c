/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/secret.h"

#include "backend/cmd/settings.h"

static bool word_is(struct bytes word, const char *text)
{
    return bytes_equal_nocase(word, bytes_of_string(text));
}

/* HELLO version [AUTH user password] [SETNAME name]: in any order, and a name may be "auth". */
static bool hello_hides(const struct bytes *argv, uint32_t argc, uint32_t i)
{
    uint32_t at = 2;

    while (at < i) {
        if (word_is(argv[at], "auth")) {
            if (i <= at + 2)
                return true;
            at += 3;
        } else if (word_is(argv[at], "setname") && at + 1 < argc) {
            at += 2;
        } else {
            return false;
        }
    }
    return false;
}

struct bytes secret_shown(const struct bytes *argv, uint32_t argc, uint32_t i)
{
    bool is_hidden = false;

    if (i > 0 && word_is(argv[0], "auth"))
        is_hidden = true;
    else if (i > 2 && word_is(argv[0], "hello"))
        is_hidden = hello_hides(argv, argc, i);
    else if (i > 2 && i % 2 == 1 && word_is(argv[0], "config") && word_is(argv[1], "set"))
        is_hidden = setting_is_secret(argv[i - 1]);
    return is_hidden ? BYTES("(redacted)") : argv[i];
}
