/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf_live.h - the few values that can be changed while the program runs: `weirctl set KEY VALUE`.
 *
 * Each process changes its own copy of the configuration; nobody keeps a copy of these values. What is set
 * lasts until the file is read again.
 *
 *     slowlog.threshold hotkeys.sample bigkeys.size limits.*     as in the file
 *     pool.NAME.timeout (and the other times of a pool)          NAME "*": all pools
 */
#pragma once
#include "proxy/conf.h"

#define CONF_LIVE_KEY_MAX   320u
#define CONF_LIVE_VALUE_MAX 32u

struct conf_live_change {
    char key[CONF_LIVE_KEY_MAX];
    char from[CONF_LIVE_VALUE_MAX], to[CONF_LIVE_VALUE_MAX]; /* as the file would say it */
};

/* `text`: "KEY VALUE". 0, ERR_NOT_FOUND (no such key or pool) or ERR_INVALID (the value), with *error filled
 * in and nothing changed. `change` may be NULL. */
MUST_USE int conf_live_set(struct conf *conf, struct bytes text, struct conf_live_change *change,
                           struct conf_error *error);
/* Prints "KEY VALUE" for every key, a line each. */
void conf_live_list(const struct conf *conf, conf_print_fn print, void *arg);
