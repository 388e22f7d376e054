/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes of up to 8 KiB in a chain, items one behind the other in each, with room at either side:
 *
 *     head                                                    tail
 *     [ ....items] <-> [items..] <-> [items] <-> ... <-> [items      ]
 *
 *     cell = length varint | bytes | length varint, its bytes in reverse          an item in a node
 *
 * So a push or a pop at an end moves nothing but what it adds or takes, and a walk goes either way. The
 * price is two bytes for each short item. An item that is larger than a node has one of its own.
 *
 *   D1  No node is empty. count is the sum of the nodes', bytes the sum of their blocks.
 *   D2  A node of several items holds at most NODE_LEN_MAX bytes of them.
 *
 * Why not an array of nodes: LINDEX far inside would cost less, but growing the array of a very long list
 * would be a pause.
 */
#include "backend/types/deque.h"
#include "backend/types/item.h"
#include "common/base/mem.h"

struct deque_node {
    struct deque_node *prev, *next;
    uint32_t start, end; /* of the items in data */
    uint32_t cap, count;
    char data[];
};

#define NODE_SIZE_MAX 8192u /* a heap class */
#define NODE_LEN_MAX  (NODE_SIZE_MAX - (uint32_t)sizeof(struct deque_node))
#define NODE_SIZE_MIN 64u
/* Two neighbours become one when together they fill no more than this: the next insert does not split it. */
#define NODE_LEN_MERGED (NODE_LEN_MAX * 3 / 4)

/* ---- cells -------------------------------------------------------------------------------------- */

static uint64_t cell_size(size_t len)
{
    return (uint64_t)len + 2 * item_length_size(len);
}

/* Both lengths and the bytes, at `at`. */
static void cell_write(char *at, struct bytes item)
{
    size_t len = item.len;
    char *back = at + cell_size(len) - 1;

    while (len >= 0x80) {
        *at++ = *back-- = (char)(len | 0x80);
        len >>= 7;
    }
    *at++ = *back = (char)len;
    if (item.len > 0)
        memcpy(at, item.data, item.len);
}

/* Returns the offset behind the item at `off`. */
static inline uint32_t cell_read(const struct deque_node *node, uint32_t off, struct bytes *item)
{
    const unsigned char *at = (const unsigned char *)node->data + off;
    size_t len = *at & 0x7f;
    uint32_t head = 1;

    ASSERT(off >= node->start && off < node->end);
    for (unsigned shift = 7; UNLIKELY(*at++ & 0x80); shift += 7, head++)
        len |= (size_t)(*at & 0x7f) << shift;
    *item = bytes_of(at, len);
    off += (uint32_t)len + 2 * head;
    ASSERT(off <= node->end);
    return off;
}

/* The offset of the item that ends at `end`. */
static inline uint32_t cell_before(const struct deque_node *node, uint32_t end)
{
    const unsigned char *at = (const unsigned char *)node->data + end - 1;
    size_t len = *at & 0x7f;
    uint32_t head = 1;

    ASSERT(end > node->start && end <= node->end);
    for (unsigned shift = 7; UNLIKELY(*at-- & 0x80); shift += 7, head++)
        len |= (size_t)(*at & 0x7f) << shift;
    ASSERT(len + 2 * head <= end - node->start);
    return end - (uint32_t)len - 2 * head;
}

/* ---- nodes -------------------------------------------------------------------------------------- */

static inline uint32_t node_len(const struct deque_node *node)
{
    return node->end - node->start;
}

/* Room for `len` bytes in a block of one of the heap's size classes, so that no byte of it is lost to us. */
static uint64_t cap_of(uint64_t len)
{
    uint64_t size = heap_class(sizeof(struct deque_node) + len);

    return MAX(size, (uint64_t)NODE_SIZE_MIN) - sizeof(struct deque_node);
}

static struct deque_node *node_create(struct deque *deque, uint64_t len)
{
    uint64_t cap = cap_of(len);
    struct deque_node *node;

    if (cap > UINT32_MAX)
        return NULL;
    node = mem_alloc(sizeof(*node) + cap);
    if (node == NULL)
        return NULL;
    *node = (struct deque_node){.cap = (uint32_t)cap};
    deque->bytes += sizeof(*node) + cap;
    return node;
}

/* Puts it behind `prev`; NULL: at the head. */
static void node_link(struct deque *deque, struct deque_node *node, struct deque_node *prev)
{
    struct deque_node *next = prev == NULL ? deque->head : prev->next;

    node->prev = prev;
    node->next = next;
    if (prev == NULL)
        deque->head = node;
    else
        prev->next = node;
    if (next == NULL)
        deque->tail = node;
    else
        next->prev = node;
}

static void node_free(struct deque *deque, struct deque_node *node)
{
    if (node->prev == NULL)
        deque->head = node->next;
    else
        node->prev->next = node->next;
    if (node->next == NULL)
        deque->tail = node->prev;
    else
        node->next->prev = node->prev;
    deque->bytes -= sizeof(*node) + node->cap;
    mem_free(node);
}

/* Another block; the items move to `start` in it. NULL: no memory, the node is as it was. */
static struct deque_node *node_resize(struct deque *deque, struct deque_node *node, uint64_t cap,
                                      uint32_t start)
{
    uint32_t len = node_len(node);
    struct deque_node *prev = node->prev, *now;

    ASSERT(start + (uint64_t)len <= cap);
    if (cap > UINT32_MAX)
        return NULL;
    now = mem_alloc(sizeof(*now) + cap);
    if (now == NULL)
        return NULL;
    *now = (struct deque_node){
        .start = start, .end = start + len, .cap = (uint32_t)cap, .count = node->count};
    memcpy(now->data + start, node->data + node->start, len);
    deque->bytes += sizeof(*now) + cap;
    node_free(deque, node);
    node_link(deque, now, prev);
    return now;
}

/* A single node grows by heap classes, as most lists are small; the next ones fill up soon: by doubling. */
static uint64_t grown_cap(const struct deque *deque, const struct deque_node *node, uint64_t len)
{
    uint64_t cap = cap_of(len);

    if (deque->head != deque->tail && cap < NODE_LEN_MAX)
        cap = MIN(MAX(cap, cap_of(2ull * node->cap)), (uint64_t)NODE_LEN_MAX);
    return cap;
}

/* Makes room for `size` bytes at that end. All that is free goes there: pushes come in series. */
static struct deque_node *node_room(struct deque *deque, struct deque_node *node,
                                    enum deque_end end, uint64_t size)
{
    uint32_t len = node_len(node);
    uint32_t gap = end == DEQUE_HEAD ? node->start : node->cap - node->end;
    uint32_t start;

    if (LIKELY(gap >= size))
        return node;
    if (node->cap - len < size) {
        uint64_t cap = grown_cap(deque, node, len + size);

        return node_resize(deque, node, cap, end == DEQUE_HEAD ? (uint32_t)cap - len : 0);
    }
    start = end == DEQUE_HEAD ? node->cap - len : 0;
    memmove(node->data + start, node->data + node->start, len);
    node->start = start;
    node->end = start + len;
    return node;
}

static bool node_takes(const struct deque_node *node, uint64_t size)
{
    return node != NULL && node_len(node) + size <= NODE_LEN_MAX;
}

/* There must be room at that end. */
static void node_add(struct deque *deque, struct deque_node *node, enum deque_end end,
                     struct bytes item)
{
    uint32_t size = (uint32_t)cell_size(item.len);

    if (end == DEQUE_HEAD) {
        node->start -= size;
        cell_write(node->data + node->start, item);
    } else {
        cell_write(node->data + node->end, item);
        node->end += size;
    }
    node->count++;
    deque->count++;
}

/* A node and its successor become one if that is small. NULL: they did not. */
static struct deque_node *node_join(struct deque *deque, struct deque_node *node)
{
    struct deque_node *next = node->next;

    if (next == NULL || node_len(node) + node_len(next) > NODE_LEN_MERGED)
        return NULL;
    node = node_room(deque, node, DEQUE_TAIL, node_len(next));
    if (node == NULL)
        return NULL; /* no memory: two small nodes are as good */
    memcpy(node->data + node->end, next->data + next->start, node_len(next));
    node->end += node_len(next);
    node->count += next->count;
    node_free(deque, next);
    return node;
}

static void node_shrink(struct deque *deque, struct deque_node *node)
{
    uint32_t len = node_len(node);

    if (node->cap > 128 && len < node->cap / 4)
        MAYBE(node_resize(deque, node, cap_of(len + len / 4), 0) == NULL);
}

/* After a removal: gives back what is idle, joins a node that has become small with a neighbour. */
static void node_tidy(struct deque *deque, struct deque_node *node)
{
    struct deque_node *joined;

    if (node->count == 0) {
        node_free(deque, node);
        return;
    }
    joined = node_join(deque, node);
    if (joined == NULL && node->prev != NULL)
        joined = node_join(deque, node->prev);
    node_shrink(deque, joined == NULL ? node : joined);
}

/* ---- the whole ---------------------------------------------------------------------------------- */

void deque_init(struct deque *deque)
{
    *deque = (struct deque){0};
}

void deque_deinit(struct deque *deque)
{
    bool is_empty = deque_deinit_step(deque, UINT64_MAX);

    ASSERT(is_empty);
}

bool deque_deinit_step(struct deque *deque, uint64_t items_max)
{
    uint64_t freed = 0;

    while (deque->head != NULL && freed < items_max) {
        /* One for the node itself: nodes of one large item cost more than an item. */
        freed += deque->head->count + 1ull;
        deque->count -= deque->head->count;
        node_free(deque, deque->head);
    }
    ASSERT(deque->head != NULL || (deque->count == 0 && deque->bytes == 0));
    return deque->head == NULL;
}

int deque_push(struct deque *deque, enum deque_end end, struct bytes item)
{
    struct deque_node *node = end == DEQUE_HEAD ? deque->head : deque->tail;
    uint64_t size = cell_size(item.len);

    if (LIKELY(node_takes(node, size))) {
        node = node_room(deque, node, end, size);
        if (node == NULL)
            return ERR_FULL;
    } else {
        uint64_t len = size;

        if (deque->head != NULL)
            len = MAX(size, MIN(4 * size, (uint64_t)NODE_LEN_MAX / 4));
        node = node_create(deque, len);
        if (node == NULL)
            return ERR_FULL;
        node->start = node->end = end == DEQUE_HEAD ? node->cap : 0;
        node_link(deque, node, end == DEQUE_HEAD ? NULL : deque->tail);
    }
    node_add(deque, node, end, item);
    return 0;
}

struct bytes deque_peek(const struct deque *deque, enum deque_end end)
{
    const struct deque_node *node = end == DEQUE_HEAD ? deque->head : deque->tail;
    struct bytes item;

    ASSERT(node != NULL);
    cell_read(node, end == DEQUE_HEAD ? node->start : cell_before(node, node->end), &item);
    return item;
}

void deque_pop(struct deque *deque, enum deque_end end, uint64_t count)
{
    ASSERT(count <= deque->count);
    deque->count -= count;
    while (count > 0) {
        struct deque_node *node = end == DEQUE_HEAD ? deque->head : deque->tail;
        struct bytes item;

        if (count >= node->count) {
            count -= node->count;
            node_free(deque, node);
            continue;
        }
        node->count -= (uint32_t)count;
        for (; count > 0; count--) {
            if (end == DEQUE_HEAD)
                node->start = cell_read(node, node->start, &item);
            else
                node->end = cell_before(node, node->end);
        }
        if (deque->head == deque->tail)
            node_tidy(deque, node);
    }
}

/* ---- inside ------------------------------------------------------------------------------------- */

struct deque_cursor deque_seek(const struct deque *deque, uint64_t index)
{
    const struct deque_node *node = deque->head;
    struct bytes item;
    uint32_t off;

    ASSERT(index < deque->count);
    if (index < deque->count / 2) {
        while (index >= node->count) {
            index -= node->count;
            node = node->next;
        }
    } else {
        uint64_t first = deque->count;

        node = deque->tail;
        while (index < first - node->count) {
            first -= node->count;
            node = node->prev;
        }
        index -= first - node->count;
    }
    if (index <= node->count / 2) {
        off = node->start;
        for (; index > 0; index--)
            off = cell_read(node, off, &item);
    } else {
        off = node->end;
        for (index = node->count - index; index > 0; index--)
            off = cell_before(node, off);
    }
    return (struct deque_cursor){.node = node, .off = off};
}

struct bytes deque_item(const struct deque_cursor *cursor)
{
    struct bytes item;

    cell_read(cursor->node, cursor->off, &item);
    return item;
}

struct bytes deque_walk(struct deque_cursor *cursor, enum deque_end towards)
{
    const struct deque_node *node = cursor->node;
    struct bytes item;
    uint32_t next = cell_read(node, cursor->off, &item);

    if (towards == DEQUE_TAIL) {
        cursor->off = next;
        if (next == node->end) {
            cursor->node = node->next;
            cursor->off = node->next == NULL ? 0 : node->next->start;
        }
    } else if (cursor->off != node->start) {
        cursor->off = cell_before(node, cursor->off);
    } else {
        cursor->node = node->prev;
        cursor->off = node->prev == NULL ? 0 : cell_before(node->prev, node->prev->end);
    }
    return item;
}

/* `index` is that of the item at `off` in its node. What is from there on becomes a node of its own. */
static int node_split(struct deque *deque, struct deque_node *node, uint32_t off, uint32_t index)
{
    uint32_t len = node->end - off;
    struct deque_node *right = node_create(deque, len);

    ASSERT(index > 0 && index < node->count);
    if (right == NULL)
        return ERR_FULL;
    memcpy(right->data, node->data + off, len);
    right->end = len;
    right->count = node->count - index;
    node->end = off;
    node->count = index;
    node_link(deque, right, node);
    return 0;
}

/* The index of the item at `off` in its node. */
static uint32_t index_in_node(const struct deque_node *node, uint32_t off)
{
    uint32_t index = 0;
    struct bytes item;

    for (uint32_t at = node->start; at != off; index++)
        at = cell_read(node, at, &item);
    return index;
}

/* In front of the item at `off`, in its node, which takes it. */
static int insert_inside(struct deque *deque, struct deque_node *node, uint32_t off,
                         struct bytes item)
{
    uint32_t size = (uint32_t)cell_size(item.len), into = off - node->start;
    /* The shorter side moves; room is made at its end. */
    enum deque_end end = into < node_len(node) / 2 ? DEQUE_HEAD : DEQUE_TAIL;

    node = node_room(deque, node, end, size);
    if (node == NULL)
        return ERR_FULL;
    off = node->start + into;
    if (end == DEQUE_HEAD) {
        memmove(node->data + node->start - size, node->data + node->start, into);
        node->start -= size;
        off -= size;
    } else {
        memmove(node->data + off + size, node->data + off, node->end - off);
        node->end += size;
    }
    cell_write(node->data + off, item);
    node->count++;
    deque->count++;
    return 0;
}

int deque_insert(struct deque *deque, uint64_t index, struct bytes item)
{
    uint64_t size = cell_size(item.len);
    struct deque_cursor at;
    struct deque_node *node, *between;
    int err;

    ASSERT(index <= deque->count);
    if (index == 0 || index == deque->count)
        return deque_push(deque, index == 0 ? DEQUE_HEAD : DEQUE_TAIL, item);
    at = deque_seek(deque, index);
    node = (struct deque_node *)at.node;
    if (node_takes(node, size))
        return insert_inside(deque, node, at.off, item);
    if (at.off != node->start) {
        err = node_split(deque, node, at.off, index_in_node(node, at.off));
        if (err != 0)
            return err;
    } else {
        node = node->prev;
    }
    /* It goes between `node` and its successor. */
    if (node_takes(node, size) || node_takes(node->next, size)) {
        enum deque_end end = node_takes(node, size) ? DEQUE_TAIL : DEQUE_HEAD;

        node = node_room(deque, end == DEQUE_TAIL ? node : node->next, end, size);
        if (node == NULL)
            return ERR_FULL;
        node_add(deque, node, end, item);
        return 0;
    }
    between = node_create(deque, size);
    if (between == NULL)
        return ERR_FULL;
    node_link(deque, between, node);
    node_add(deque, between, DEQUE_TAIL, item);
    return 0;
}

/* Removes the bytes [from, to) of a node: `count` items. */
static void node_cut(struct deque *deque, struct deque_node *node, uint32_t from, uint32_t to,
                     uint32_t count)
{
    if (from - node->start < node->end - to) {
        memmove(node->data + node->start + (to - from), node->data + node->start,
                from - node->start);
        node->start += to - from;
    } else {
        memmove(node->data + from, node->data + to, node->end - to);
        node->end -= to - from;
    }
    node->count -= count;
    deque->count -= count;
}

int deque_set(struct deque *deque, uint64_t index, struct bytes item)
{
    struct deque_cursor at = deque_seek(deque, index);
    struct deque_node *node = (struct deque_node *)at.node;
    struct bytes old;
    uint32_t end = cell_read(node, at.off, &old);
    int err;

    if (old.len == item.len) {
        cell_write(node->data + at.off, item);
        return 0;
    }
    if (cell_size(item.len) <= end - at.off) {
        uint32_t size = (uint32_t)cell_size(item.len);

        cell_write(node->data + at.off, item);
        node_cut(deque, node, at.off + size, end, 0);
        node_tidy(deque, node);
        return 0;
    }
    err = deque_insert(deque, index, item);
    if (err != 0)
        return err;
    at = deque_seek(deque, index + 1);
    node = (struct deque_node *)at.node;
    node_cut(deque, node, at.off, cell_read(node, at.off, &old), 1);
    node_tidy(deque, node);
    return 0;
}

/* Removes up to `max` items of a node from `off` on that are equal to `item`: what stays moves down once. */
static uint64_t node_remove_equal(struct deque *deque, struct deque_node *node, uint32_t off,
                                  struct bytes item, uint64_t max)
{
    uint32_t to = off, removed = 0;

    while (off < node->end && removed < max) {
        struct bytes here;
        uint32_t next = cell_read(node, off, &here);

        if (bytes_equal(here, item)) {
            removed++;
        } else {
            if (to != off)
                memmove(node->data + to, node->data + off, next - off);
            to += next - off;
        }
        off = next;
    }
    if (removed > 0)
        node_cut(deque, node, to, off, removed);
    return removed;
}

/* Where the last `count` items equal to `item` begin; the head if there are fewer. */
static struct deque_cursor last_equal(const struct deque *deque, struct bytes item, uint64_t count)
{
    struct deque_cursor cursor = deque_seek(deque, deque->count - 1), at = cursor;

    while (cursor.node != NULL && count > 0) {
        at = cursor;
        if (bytes_equal(deque_walk(&cursor, DEQUE_HEAD), item))
            count--;
    }
    return at;
}

/* After many removals anywhere. */
static void join_small(struct deque *deque)
{
    for (struct deque_node *node = deque->head; node != NULL;) {
        struct deque_node *next = node->next, *joined = node_join(deque, node);

        if (joined == NULL) {
            node_shrink(deque, node);
            node = next;
        } else {
            node = joined;
        }
    }
}

uint64_t deque_remove_equal(struct deque *deque, struct bytes item, int64_t count)
{
    uint64_t max = count > 0 ? (uint64_t)count : UINT64_MAX, removed = 0;
    struct deque_cursor from;

    if (deque->count == 0)
        return 0;
    from = count < 0 ? last_equal(deque, item, 0 - (uint64_t)count) : deque_seek(deque, 0);
    for (struct deque_node *node = (struct deque_node *)from.node; node != NULL && removed < max;) {
        struct deque_node *next = node->next;
        uint32_t off = node == from.node ? from.off : node->start;
        uint64_t here = node_remove_equal(deque, node, off, item, max - removed);

        if (node->count == 0)
            node_free(deque, node);
        removed += here;
        node = next;
    }
    if (removed > 0)
        join_small(deque);
    return removed;
}
