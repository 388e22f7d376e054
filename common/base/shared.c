/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/shared.h"

/* As large as the heap's alignment, so that what lies behind is aligned as well. */
struct shared {
    uint64_t holders, spare;
    char data[];
};
_Static_assert(sizeof(struct shared) == 16, "data is aligned to 16 bytes");

static struct shared *shared_of(const char *data)
{
    return CONTAINER_OF(data, struct shared, data);
}

char *shared_alloc(size_t size)
{
    return shared_realloc(NULL, size);
}

char *shared_realloc(char *data, size_t size)
{
    struct shared *shared;

    ASSERT(data == NULL || shared_is_sole(data));
    shared = mem_realloc(data != NULL ? shared_of(data) : NULL, sizeof(*shared) + size);
    if (shared == NULL)
        return NULL;
    shared->holders = 1;
    return shared->data;
}

void shared_hold(char *data)
{
    shared_of(data)->holders++;
}

void shared_drop(char *data)
{
    struct shared *shared = data != NULL ? shared_of(data) : NULL;

    if (shared == NULL)
        return;
    ASSERT(shared->holders > 0);
    if (--shared->holders == 0)
        mem_free(shared);
}

bool shared_is_sole(const char *data)
{
    return shared_of(data)->holders == 1;
}
