/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.h - an intrusive doubly linked list, and an intrusive FIFO queue.
 *
 * A node knows whether it is on a list (`list_node_is_linked`), so that membership can be asserted.
 * Every operation is O(1); there is no way to count by walking.
 */
#pragma once
#include "common/base/base.h"

struct list_node {
    struct list_node *prev, *next; /* NULL while on no list */
};

struct list {
    struct list_node head; /* a ring through the head */
};

static inline void list_init(struct list *list)
{
    list->head.prev = list->head.next = &list->head;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->head.next == &list->head;
}

static inline bool list_node_is_linked(const struct list_node *node)
{
    return node->next != NULL;
}

static inline void list_insert_after_(struct list_node *at, struct list_node *node)
{
    ASSERT(!list_node_is_linked(node));
    node->prev = at;
    node->next = at->next;
    at->next->prev = node;
    at->next = node;
}

static inline void list_push_back(struct list *list, struct list_node *node)
{
    list_insert_after_(list->head.prev, node);
}

static inline void list_push_front(struct list *list, struct list_node *node)
{
    list_insert_after_(&list->head, node);
}

static inline void list_remove(struct list_node *node)
{
    ASSERT(list_node_is_linked(node));
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}

/* NULL when empty. */
static inline struct list_node *list_first(const struct list *list)
{
    return list_is_empty(list) ? NULL : list->head.next;
}

static inline struct list_node *list_last(const struct list *list)
{
    return list_is_empty(list) ? NULL : list->head.prev;
}

static inline struct list_node *list_next(const struct list *list, const struct list_node *node)
{
    return node->next == &list->head ? NULL : node->next;
}

static inline struct list_node *list_pop_front(struct list *list)
{
    struct list_node *node = list_first(list);

    if (node != NULL)
        list_remove(node);
    return node;
}

/* Appends all of `source` to `target`; source is empty then. */
static inline void list_move_all(struct list *source, struct list *target)
{
    if (list_is_empty(source))
        return;
    source->head.next->prev = target->head.prev;
    target->head.prev->next = source->head.next;
    source->head.prev->next = &target->head;
    target->head.prev = source->head.prev;
    list_init(source);
}

#define LIST_FIRST(list, type, member)                                                             \
    ({                                                                                             \
        struct list_node *list_first_ = list_first(list);                                          \
        list_first_ ? CONTAINER_OF(list_first_, type, member) : NULL;                              \
    })

/* The body may remove `node` itself, nothing else. */
#define LIST_FOR_EACH(list, node)                                                                  \
    for (struct list_node *node = (list)->head.next, *list_next_ = node->next;                     \
         node != &(list)->head; node = list_next_, list_next_ = node->next)

/* A FIFO through single links: half the memory of a list, no removal from the middle. */
struct queue_node {
    struct queue_node *next;
};

struct queue {
    struct queue_node *first, **last;
};

static inline void queue_init(struct queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

static inline bool queue_is_empty(const struct queue *queue)
{
    return queue->first == NULL;
}

static inline void queue_push(struct queue *queue, struct queue_node *node)
{
    node->next = NULL;
    *queue->last = node;
    queue->last = &node->next;
}

static inline struct queue_node *queue_pop(struct queue *queue)
{
    struct queue_node *node = queue->first;

    if (node != NULL) {
        queue->first = node->next;
        if (queue->first == NULL)
            queue->last = &queue->first;
    }
    return node;
}
