/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.h - the errors that clients see, one table (error.def): id, text in both protocols, class.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

enum error_class { ERROR_CLASS_NOT_EXECUTED, ERROR_CLASS_UNKNOWN };

enum error_id {
    ERROR_NONE,
#define ERROR_ROW(id, redis, memcache, class, keep) ERROR_##id,
#include "common/base/error.def"
#undef ERROR_ROW
    ERROR_COUNT
};

struct error_info {
    const char *name;
    struct bytes redis;    /* "-ERR ...\r\n" */
    struct bytes memcache; /* "SERVER_ERROR ...\r\n" */
    uint8_t class;
    bool closes;
};

const struct error_info *error_info(enum error_id id);
/* Which error a negative err code of connect, send or receive is for a client. */
enum error_id error_of_errno(int err);
