/* SPDX-License-Identifier: Apache-2.0 */
/*
 * no_memory.h - memory that runs out, once, at a place that the test chooses.
 *
 * For programs that are linked with no_memory_ldflags (Makefile.am), in one file of them. What calls must_alloc() and its
 * like is never refused.
 */
#pragma once
#include "tests/unit/test.h"

#include "common/base/base.h"

static struct {
    uint64_t left; /* allocations until one is refused; 0: none will be */
    uint64_t refused;
    bool spares_pages; /* mem_alloc_aligned() is never refused */
} no_memory;

void *__real_mem_alloc(size_t size);
void *__real_mem_zalloc(size_t size);
void *__real_mem_realloc(void *pointer, size_t size);
void *__real_mem_alloc_aligned(size_t size, size_t align);
void *__wrap_mem_alloc(size_t size);
void *__wrap_mem_zalloc(size_t size);
void *__wrap_mem_realloc(void *pointer, size_t size);
void *__wrap_mem_alloc_aligned(size_t size, size_t align);

static inline bool no_memory_now(void)
{
    bool is_now = no_memory.left > 0 && --no_memory.left == 0;

    no_memory.refused += is_now;
    return is_now;
}

void *__wrap_mem_alloc(size_t size)
{
    return no_memory_now() ? NULL : __real_mem_alloc(size);
}

void *__wrap_mem_zalloc(size_t size)
{
    return no_memory_now() ? NULL : __real_mem_zalloc(size);
}

void *__wrap_mem_realloc(void *pointer, size_t size)
{
    return no_memory_now() ? NULL : __real_mem_realloc(pointer, size);
}

void *__wrap_mem_alloc_aligned(size_t size, size_t align)
{
    return !no_memory.spares_pages && no_memory_now() ? NULL : __real_mem_alloc_aligned(size, align);
}
