/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_test.h - a shard's directory that the store's own log wrote, on the real disk: for what reads it from outside.
 *
 * The log runs on a simulated disk (tests/unit/backend/store/log_test.h); when it is closed, its files are put into a
 * folder beside the test.
 */
#pragma once
#include "tests/unit/backend/store/log_test.h"
#include "tests/unit/ctl/ctl_folder.h"

/* The log's files into `dir`, which is made. */
static inline void world_dump(struct world *w, const char *dir)
{
    disk_dump(w->node, LOG_DIR, dir);
}
