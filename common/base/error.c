/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/error.h"
#include "common/base/err.h"

enum { KEEP, CLOSE };

static const struct error_info rows[ERROR_COUNT] = {
#define ERROR_ROW(id, redis_text, memcache_text, class_id, keep)                                   \
    [ERROR_##id] = {.name = #id,                                                                   \
                    .redis = {"-" redis_text "\r\n", sizeof("-" redis_text "\r\n") - 1},           \
                    .memcache = {memcache_text "\r\n", sizeof(memcache_text "\r\n") - 1},          \
                    .class = ERROR_CLASS_##class_id,                                               \
                    .closes = (keep) == CLOSE},
#include "common/base/error.def"
#undef ERROR_ROW
};

const struct error_info *error_info(enum error_id id)
{
    ASSERT(id > ERROR_NONE && id < ERROR_COUNT);
    return &rows[id];
}

enum error_id error_of_errno(int err)
{
    switch (err) {
    case -ECONNREFUSED:
    case -ENOENT: /* of a unix socket */
        return ERROR_refused;
    case ERR_TIMEOUT:
    case -ETIMEDOUT:
        return ERROR_timeout;
    case -EHOSTDOWN:
    case ERR_NOT_FOUND: /* name resolution */
        return ERROR_host_down;
    case -EHOSTUNREACH:
    case -ENETUNREACH:
        return ERROR_unreachable;
    case ERR_CORRUPT:
        return ERROR_backend_protocol;
    case ERR_FULL:
        return ERROR_queue_full;
    case -ENOMEM:
        return ERROR_out_of_memory;
    default:
        return ERROR_reset;
    }
}
