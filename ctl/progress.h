/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - a bar for what takes longer than a second, on a terminal: share, rate, time left.
 */
#pragma once
#include "common/base/base.h"

struct progress {
    const char *what;     /* borrows: "verify" */
    uint64_t total, done; /* bytes */
    double start_s, shown_s;
    bool is_terminal, is_shown;
};

void progress_start(struct progress *progress, const char *what, uint64_t total);
void progress_add(struct progress *progress, uint64_t bytes);
/* Takes the bar away: before a line is printed, and at the end. */
void progress_clear(struct progress *progress);
/* "1.5 GiB" */
#define SIZE_TEXT_MAX 24
const char *size_text(uint64_t bytes, char out[SIZE_TEXT_MAX]);
/* Milliseconds of the epoch as "2026-01-31 23:59:59.123Z". */
#define TIME_TEXT_MAX 40
const char *time_text(uint64_t ms, char out[TIME_TEXT_MAX]);
