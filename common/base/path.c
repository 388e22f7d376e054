/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/path.h"

#include <errno.h>

struct bytes path_trimmed(struct bytes path)
{
    while (path.len > 1 && path.data[path.len - 1] == '/')
        path.len--;
    return path;
}

int path_parent(struct bytes path, char *out, size_t size)
{
    while (path.len > 0 && path.data[path.len - 1] != '/')
        path.len--;
    if (path.len == 0)
        path = BYTES(".");
    else if (path.len > 1)
        path.len--;
    if (path.len >= size)
        return -ENAMETOOLONG;
    memcpy(out, path.data, path.len);
    out[path.len] = '\0';
    return 0;
}
