/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "common/base/mem.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifdef HAVE_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

void *mem_alloc(size_t size)
{
    return malloc(size);
}

void *mem_zalloc(size_t size)
{
    return calloc(1, size);
}

void *mem_realloc(void *pointer, size_t size)
{
    return realloc(pointer, size);
}

void *mem_alloc_aligned(size_t size, size_t align)
{
    ASSERT(align >= sizeof(void *) && (align & (align - 1)) == 0);
    return aligned_alloc(align, (size + align - 1) & ~(align - 1));
}

void mem_free(void *pointer)
{
    free(pointer);
}

void *must_alloc(size_t size)
{
    void *pointer = malloc(size);

    ASSERT(pointer != NULL);
    return pointer;
}

void *must_zalloc(size_t size)
{
    void *pointer = calloc(1, size);

    ASSERT(pointer != NULL);
    return pointer;
}

void *must_realloc(void *pointer, size_t size)
{
    void *grown = realloc(pointer, size);

    ASSERT(grown != NULL);
    return grown;
}

char *must_strdup(const char *string)
{
    return must_strndup(string, strlen(string));
}

char *must_strndup(const char *data, size_t len)
{
    char *copy = must_alloc(len + 1);

    memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

size_t mem_usable(const void *pointer)
{
    return malloc_usable_size((void *)pointer);
}

#ifdef DCHECK_ON
/* From the heap: the leak checker does not follow pointers that lie in mappings. */
void *mem_region_get(bool is_whole)
{
    (void)is_whole;
    return aligned_alloc(MEM_REGION_SIZE, MEM_REGION_SIZE);
}

void mem_region_put(void *region)
{
    free(region);
}

void mem_region_purge(void *region, void *part, size_t size)
{
    ASSERT((char *)part >= (char *)region && (char *)part + size <= (char *)region + MEM_REGION_SIZE);
}

void mem_region_whole(void *region)
{
    ASSERT(region != NULL);
}
#else
void *mem_region_get(bool is_whole)
{
    size_t wide = 2 * (size_t)MEM_REGION_SIZE, before;
    char *map = mmap(NULL, wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *region;

    if (map == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)map & (MEM_REGION_SIZE - 1);
    region = map + before;
    if (before > 0)
        MAYBE(munmap(map, before));
    MAYBE(munmap(region + MEM_REGION_SIZE, MEM_REGION_SIZE - before));
    MAYBE(madvise(region, MEM_REGION_SIZE, is_whole ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
    return region;
}

void mem_region_put(void *region)
{
    int err = munmap(region, MEM_REGION_SIZE);

    ASSERT(err == 0);
}

void mem_region_purge(void *region, void *part, size_t size)
{
    MAYBE(madvise(region, MEM_REGION_SIZE, MADV_NOHUGEPAGE));
    MAYBE(madvise(part, size, MADV_DONTNEED));
}

void mem_region_whole(void *region)
{
    MAYBE(madvise(region, MEM_REGION_SIZE, MADV_HUGEPAGE));
}
#endif

void mem_purge_aside(void)
{
#ifdef HAVE_JEMALLOC
    size_t threads = 1;
    bool is_on = true;

    MAYBE(mallctl("max_background_threads", NULL, NULL, &threads, sizeof(threads)));
    MAYBE(mallctl("background_thread", NULL, NULL, &is_on, sizeof(is_on)));
#endif
}

void mem_trim(void)
{
#ifdef HAVE_JEMALLOC
    char name[64];

    (void)snprintf(name, sizeof(name), "arena.%u.purge", (unsigned)MALLCTL_ARENAS_ALL);
    MAYBE(mallctl("thread.tcache.flush", NULL, NULL, NULL, 0));
    MAYBE(mallctl(name, NULL, NULL, NULL, 0));
#else
    malloc_trim(0);
#endif
}

#ifdef HAVE_JEMALLOC
static uint64_t mem_statistic(const char *name)
{
    size_t value = 0, size = sizeof(value);

    return mallctl(name, &value, &size, NULL, 0) == 0 ? value : 0;
}
#endif

void mem_usage_get(struct mem_usage *out)
{
#ifdef HAVE_JEMALLOC
    uint64_t epoch = 1;

    MAYBE(mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)));
    out->allocated = mem_statistic("stats.allocated");
    out->active = mem_statistic("stats.active");
    out->resident = mem_statistic("stats.resident");
#else
    struct mallinfo2 info = mallinfo2();

    out->allocated = info.uordblks + info.hblkhd;
    out->active = out->resident = info.arena + info.hblkhd;
#endif
}

void mem_pool_init(struct mem_pool *pool, size_t object_size, uint32_t idle_max)
{
    ASSERT(object_size >= sizeof(void *));
    *pool = (struct mem_pool){.object_size = object_size, .idle_max = idle_max};
}

void mem_pool_deinit(struct mem_pool *pool)
{
    ASSERT(pool->live_count == 0);
    mem_pool_trim(pool, 0);
}

void *mem_pool_get_slow(struct mem_pool *pool)
{
    void *object = mem_alloc(pool->object_size);

    if (object != NULL)
        pool->live_count++;
    return object;
}

void mem_pool_put(struct mem_pool *pool, void *object)
{
    ASSERT(pool->live_count > 0);
    pool->live_count--;
#ifdef DCHECK_ON
    /* The sanitizer finds uses after the return only when the heap gets the object at once. */
    mem_free(object);
#else
    if (pool->idle_count >= pool->idle_max) {
        mem_free(object);
        return;
    }
    *(void **)object = pool->idle;
    pool->idle = object;
    pool->idle_count++;
#endif
}

void mem_pool_trim(struct mem_pool *pool, uint32_t keep)
{
    while (pool->idle_count > keep) {
        void *object = pool->idle;

        pool->idle = *(void **)object;
        pool->idle_count--;
        mem_free(object);
    }
}
