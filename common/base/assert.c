/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void assert_failed(const char *what, const char *file, int line, const char *function)
{
    char text[512];
    int len = snprintf(text, sizeof(text), "assertion failed: %s at %s:%d in %s\n", what, file,
                       line, function);

    /* The logger may be what is broken, so this goes to stderr by itself. */
    if (len > 0 && write(STDERR_FILENO, text, MIN((size_t)len, sizeof(text) - 1)) < 0)
        MAYBE(len);
    abort();
}
