/* SPDX-License-Identifier: Apache-2.0 */
/*
 * where.h - which server a key is on, and why, in words.
 */
#pragma once
#include "proxy/conf.h"

struct where {
    const struct conf *conf;
    const char *pool;    /* NULL: every pool */
    /* Whether the server is ejected now. NULL: nobody is asked, all are taken for live. */
    bool (*is_ejected)(void *arg, uint32_t pool_index, uint32_t server_index);
    void *arg;
};

/* 0; ERR_NOT_FOUND: no such pool (nothing was printed). */
MUST_USE int where_print(const struct where *where, struct bytes key, conf_print_fn print, void *arg);
