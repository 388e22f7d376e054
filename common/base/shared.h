/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared.h - a run of bytes on the heap that several hold: a value, and the connections that it is being sent to.
 *
 * Who wants to change it asks shared_is_sole() first, and makes a copy otherwise. Of one thread.
 */
#pragma once
#include "common/base/mem.h"

/* Held once. NULL: out of memory. */
MUST_USE char *shared_alloc(size_t size);
/* Of a sole holder; may move. NULL: out of memory, `data` is untouched. `data` NULL: as shared_alloc(). */
MUST_USE char *shared_realloc(char *data, size_t size);
void shared_hold(char *data);
/* The last one frees it. NULL is allowed. */
void shared_drop(char *data);
bool shared_is_sole(const char *data);
