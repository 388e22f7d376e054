/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes of a kilobyte:
 *
 *     inner   [least pair of the subtree | child | entries in it] x 31
 *     leaf    [score | item] x 62, linked to its neighbours
 *
 *   B1  A branch's pair is exactly the least of its subtree, so no pair outlives its item.
 *   B2  A branch's count is the number of entries below it.
 *   B3  No node is empty. One that a removal leaves with less than a quarter of its places used is merged
 *       with a neighbour under the same parent, if it fits.
 *
 * Scores lie in the leaves, so a search looks at no item but where scores are equal. A node is split on
 * the way down, while it is full anyway: what runs out of memory leaves a whole tree. At the ends of the order it
 * is split unevenly, so that what comes in order fills the nodes. Against a skip list with spans: 18 to 26 bytes
 * an item instead of 40 and more, and a tenth of the cache misses.
 */
#include "backend/types/btree.h"
#include "backend/types/item.h"
#include "common/base/mem.h"

#define LEAF_CAP   62u
#define INNER_CAP  31u
#define HEIGHT_MAX 16u

struct btree_leaf {
    uint32_t count; /* first in both */
    struct btree_leaf *prev, *next;
    struct btree_entry entries[LEAF_CAP];
};

struct branch {
    struct btree_entry least;
    void *child;
    uint64_t count;
};

struct inner {
    uint32_t count;
    struct branch branches[INNER_CAP];
};
_Static_assert(sizeof(struct btree_leaf) <= 1024 && sizeof(struct inner) <= 1024,
               "a node is a kilobyte");
#define NODE_SIZE 1024u

struct pair {
    double score;
    struct bytes key;
};

/* The way down, by level: an inner node, and the branch taken. (Not a struct of two arrays: gcc 12.2 -O2, in its
 * -fipa-modref, then takes descend() for a function that stores nothing there.) */
struct step {
    struct inner *node;
    uint32_t taken;
};

static inline struct bytes key_of(const char *item)
{
    struct bytes key;

    item_read(item, &key);
    return key;
}

static inline struct pair pair_of(double score, const char *item)
{
    return (struct pair){.score = score, .key = key_of(item)};
}

/* Of an entry to a pair. */
static inline int compare(const struct btree_entry *entry, const struct pair *pair)
{
    struct bytes key;
    int order;

    if (LIKELY(entry->score != pair->score))
        return entry->score < pair->score ? -1 : 1;
    key = key_of(entry->item);
    order = memcmp(key.data, pair->key.data, MIN(key.len, pair->key.len));
    if (order != 0)
        return order;
    return key.len < pair->key.len ? -1 : key.len > pair->key.len;
}

static inline uint32_t node_count(const void *node)
{
    return *(const uint32_t *)node;
}

static inline bool node_is_full(const void *node, uint32_t level)
{
    return node_count(node) == (level == 0 ? LEAF_CAP : INNER_CAP);
}

static struct btree_entry node_least(const void *node, uint32_t level)
{
    return level == 0 ? ((const struct btree_leaf *)node)->entries[0]
                      : ((const struct inner *)node)->branches[0].least;
}

static void *node_alloc(struct btree *tree)
{
    void *node = mem_alloc(NODE_SIZE);

    if (node != NULL) {
        *(uint32_t *)node = 0;
        tree->bytes += NODE_SIZE;
    }
    return node;
}

static void node_free(struct btree *tree, void *node)
{
    mem_free(node);
    tree->bytes -= NODE_SIZE;
}

static void leaf_unlink(struct btree_leaf *leaf)
{
    if (leaf->prev != NULL)
        leaf->prev->next = leaf->next;
    if (leaf->next != NULL)
        leaf->next->prev = leaf->prev;
}

/* The first entry that is not less than the pair. */
static uint32_t leaf_find(const struct btree_leaf *leaf, const struct pair *pair)
{
    uint32_t low = 0, high = leaf->count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (compare(&leaf->entries[middle], pair) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The branch where the pair is, or would be. */
static uint32_t inner_find(const struct inner *inner, const struct pair *pair)
{
    uint32_t low = 1, high = inner->count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (compare(&inner->branches[middle].least, pair) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

void btree_init(struct btree *tree)
{
    *tree = (struct btree){0};
}

/* True: the node is gone. */
static bool free_some(struct btree *tree, void *node, uint32_t level, uint32_t *budget)
{
    struct inner *inner = node;

    while (level > 0 && inner->count > 0) {
        if (!free_some(tree, inner->branches[inner->count - 1].child, level - 1, budget))
            return false;
        inner->count--;
    }
    if (*budget == 0)
        return false;
    (*budget)--;
    node_free(tree, node);
    return true;
}

bool btree_deinit_step(struct btree *tree, uint32_t nodes_max)
{
    uint32_t budget = MAX(nodes_max, 1u);

    if (tree->root == NULL)
        return true;
    if (!free_some(tree, tree->root, tree->height, &budget))
        return false;
    ASSERT(tree->bytes == 0);
    btree_init(tree);
    return true;
}

void btree_deinit(struct btree *tree)
{
    bool is_empty = btree_deinit_step(tree, UINT32_MAX);

    ASSERT(is_empty);
}

/* ---- inserting ---------------------------------------------------------------------------------- */

/* How many stay on the left of a full node. */
static uint32_t split_point(const struct inner *parent, uint32_t at, uint32_t level,
                            const struct pair *pair)
{
    const void *child = parent->branches[at].child;
    uint32_t count = node_count(child);
    const struct btree_entry *last =
        level == 0 ? &((const struct btree_leaf *)child)->entries[count - 1]
                   : &((const struct inner *)child)->branches[count - 1].least;

    if (at == parent->count - 1 && compare(last, pair) < 0)
        return count - 1;
    if (at == 0 && compare(&parent->branches[0].least, pair) > 0)
        return 1;
    return count / 2;
}

static void leaf_split(struct btree_leaf *leaf, struct btree_leaf *right, uint32_t left_count)
{
    right->count = leaf->count - left_count;
    memcpy(right->entries, leaf->entries + left_count, right->count * sizeof(right->entries[0]));
    leaf->count = left_count;
    right->prev = leaf;
    right->next = leaf->next;
    if (right->next != NULL)
        right->next->prev = right;
    leaf->next = right;
}

/* Returns how many entries went to the right. */
static uint64_t inner_split(struct inner *inner, struct inner *right, uint32_t left_count)
{
    uint64_t moved = 0;

    right->count = inner->count - left_count;
    memcpy(right->branches, inner->branches + left_count,
           right->count * sizeof(right->branches[0]));
    inner->count = left_count;
    for (uint32_t i = 0; i < right->count; i++)
        moved += right->branches[i].count;
    return moved;
}

/* Splits the full child `at`, which is on `level`. The parent has room. */
static int child_split(struct btree *tree, struct inner *parent, uint32_t at, uint32_t level,
                       const struct pair *pair)
{
    uint32_t left_count = split_point(parent, at, level, pair);
    void *child = parent->branches[at].child, *right = node_alloc(tree);
    uint64_t moved;

    ASSERT(parent->count < INNER_CAP);
    if (right == NULL)
        return ERR_FULL;
    if (level == 0) {
        leaf_split(child, right, left_count);
        moved = node_count(right);
    } else {
        moved = inner_split(child, right, left_count);
    }
    memmove(parent->branches + at + 2, parent->branches + at + 1,
            (parent->count - at - 1) * sizeof(parent->branches[0]));
    parent->count++;
    parent->branches[at].count -= moved;
    parent->branches[at + 1] =
        (struct branch){.least = node_least(right, level), .child = right, .count = moved};
    return 0;
}

/* A root that has room, whatever is below it. */
static int root_make_room(struct btree *tree, const struct pair *pair)
{
    struct inner *root;

    if (tree->root == NULL) {
        struct btree_leaf *leaf = node_alloc(tree);

        if (leaf == NULL)
            return ERR_FULL;
        leaf->prev = leaf->next = NULL;
        tree->root = leaf;
        tree->height = 0;
        return 0;
    }
    if (!node_is_full(tree->root, tree->height))
        return 0;
    ASSERT(tree->height + 1 < HEIGHT_MAX);
    root = node_alloc(tree);
    if (root == NULL)
        return ERR_FULL;
    root->count = 1;
    root->branches[0] = (struct branch){.least = node_least(tree->root, tree->height),
                                        .child = tree->root, .count = tree->count};
    if (child_split(tree, root, 0, tree->height, pair) != 0) {
        node_free(tree, root);
        return ERR_FULL;
    }
    tree->root = root;
    tree->height++;
    return 0;
}

/* Down to the leaf of the pair, splitting what is full. NULL: no memory. */
static struct btree_leaf *descend_for_insert(struct btree *tree, const struct pair *pair,
                                             struct step *path)
{
    void *node;

    if (root_make_room(tree, pair) != 0)
        return NULL;
    node = tree->root;
    for (uint32_t level = tree->height; level > 0; level--) {
        struct inner *inner = node;
        uint32_t at = inner_find(inner, pair);

        if (node_is_full(inner->branches[at].child, level - 1)) {
            if (child_split(tree, inner, at, level - 1, pair) != 0)
                return NULL;
            at = inner_find(inner, pair);
        }
        path[level] = (struct step){.node = inner, .taken = at};
        node = inner->branches[at].child;
    }
    return node;
}

int btree_insert(struct btree *tree, double score, char *item)
{
    struct pair pair = pair_of(score, item);
    struct step path[HEIGHT_MAX];
    struct btree_leaf *leaf = descend_for_insert(tree, &pair, path);
    uint32_t at;

    if (leaf == NULL)
        return ERR_FULL;
    at = leaf_find(leaf, &pair);
    ASSERT(leaf->count < LEAF_CAP);
    memmove(leaf->entries + at + 1, leaf->entries + at,
            (leaf->count - at) * sizeof(leaf->entries[0]));
    leaf->entries[at] = (struct btree_entry){.score = score, .item = item};
    leaf->count++;
    tree->count++;
    for (uint32_t level = 1; level <= tree->height; level++) {
        struct branch *branch = &path[level].node->branches[path[level].taken];

        branch->count++;
        branch->least = node_least(branch->child, level - 1);
    }
    return 0;
}

/* ---- removing ----------------------------------------------------------------------------------- */

/* Down to the leaf that has the pair, which must be there; its place in it. */
static struct btree_leaf *descend(const struct btree *tree, const struct pair *pair,
                                  struct step *path, uint32_t *at)
{
    void *node = tree->root;
    struct btree_leaf *leaf;

    ASSERT(node != NULL);
    for (uint32_t level = tree->height; level > 0; level--) {
        struct inner *inner = node;

        path[level] = (struct step){.node = inner, .taken = inner_find(inner, pair)};
        node = inner->branches[path[level].taken].child;
    }
    leaf = node;
    *at = leaf_find(leaf, pair);
    ASSERT(*at < leaf->count && compare(&leaf->entries[*at], pair) == 0);
    return leaf;
}

static void branch_remove(struct inner *inner, uint32_t at)
{
    inner->count--;
    memmove(inner->branches + at, inner->branches + at + 1,
            (inner->count - at) * sizeof(inner->branches[0]));
}

/* Children `at` and its successor, on `level`, become one if they fit. */
static bool children_merge(struct btree *tree, struct inner *parent, uint32_t at, uint32_t level)
{
    void *left = parent->branches[at].child, *right = parent->branches[at + 1].child;
    uint32_t left_count = node_count(left), right_count = node_count(right);

    if (left_count + right_count > (level == 0 ? LEAF_CAP : INNER_CAP))
        return false;
    if (level == 0) {
        memcpy(((struct btree_leaf *)left)->entries + left_count,
               ((struct btree_leaf *)right)->entries, right_count * sizeof(struct btree_entry));
        leaf_unlink(right);
    } else {
        memcpy(((struct inner *)left)->branches + left_count, ((struct inner *)right)->branches,
               right_count * sizeof(struct branch));
    }
    *(uint32_t *)left = left_count + right_count;
    parent->branches[at].count += parent->branches[at + 1].count;
    node_free(tree, right);
    branch_remove(parent, at + 1);
    return true;
}

/* After a removal below child `at`, which is on `level`. */
static void child_tidy(struct btree *tree, struct inner *parent, uint32_t at, uint32_t level)
{
    void *child = parent->branches[at].child;
    uint32_t count = node_count(child);

    if (count == 0) {
        if (level == 0)
            leaf_unlink(child);
        node_free(tree, child);
        branch_remove(parent, at);
        return;
    }
    parent->branches[at].least = node_least(child, level);
    if (count >= (level == 0 ? LEAF_CAP : INNER_CAP) / 4)
        return;
    if (at + 1 < parent->count && children_merge(tree, parent, at, level))
        return;
    if (at > 0)
        MAYBE(children_merge(tree, parent, at - 1, level));
}

static void root_tidy(struct btree *tree)
{
    while (tree->height > 0 && node_count(tree->root) == 1) {
        struct inner *root = tree->root;

        tree->root = root->branches[0].child;
        tree->height--;
        node_free(tree, root);
    }
    if (node_count(tree->root) == 0) {
        node_free(tree, tree->root);
        ASSERT(tree->bytes == 0 && tree->count == 0);
        btree_init(tree);
    }
}

void btree_remove(struct btree *tree, double score, const char *item)
{
    struct pair pair = pair_of(score, item);
    struct step path[HEIGHT_MAX];
    uint32_t at;
    struct btree_leaf *leaf = descend(tree, &pair, path, &at);

    leaf->count--;
    memmove(leaf->entries + at, leaf->entries + at + 1,
            (leaf->count - at) * sizeof(leaf->entries[0]));
    tree->count--;
    for (uint32_t level = 1; level <= tree->height; level++) {
        path[level].node->branches[path[level].taken].count--;
        child_tidy(tree, path[level].node, path[level].taken, level - 1);
    }
    root_tidy(tree);
}

bool btree_rescore(struct btree *tree, double score, const char *item, double now)
{
    struct pair pair = pair_of(score, item), wanted = {.score = now, .key = pair.key};
    struct step path[HEIGHT_MAX];
    uint32_t at;
    struct btree_leaf *leaf = descend(tree, &pair, path, &at);
    const struct btree_entry *before = NULL, *after = NULL;

    if (at > 0)
        before = &leaf->entries[at - 1];
    else if (leaf->prev != NULL)
        before = &leaf->prev->entries[leaf->prev->count - 1];
    if (at + 1 < leaf->count)
        after = &leaf->entries[at + 1];
    else if (leaf->next != NULL)
        after = &leaf->next->entries[0];
    if ((before != NULL && compare(before, &wanted) >= 0) ||
        (after != NULL && compare(after, &wanted) <= 0))
        return false;
    leaf->entries[at].score = now;
    for (uint32_t level = 1; level <= tree->height && at == 0; level++) {
        at = path[level].taken;
        path[level].node->branches[at].least.score = now;
    }
    return true;
}

/* ---- ranks and walks ---------------------------------------------------------------------------- */

static uint64_t count_left_of(const struct inner *inner, uint32_t at)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < at; i++)
        count += inner->branches[i].count;
    return count;
}

uint64_t btree_rank(const struct btree *tree, double score, const char *item)
{
    struct pair pair = pair_of(score, item);
    struct step path[HEIGHT_MAX];
    uint32_t at;
    uint64_t rank = 0;

    MAYBE(descend(tree, &pair, path, &at) == NULL);
    for (uint32_t level = 1; level <= tree->height; level++)
        rank += count_left_of(path[level].node, path[level].taken);
    return rank + at;
}

uint64_t btree_count_before(const struct btree *tree, btree_before_fn is_before, const void *bound)
{
    const void *node = tree->root;
    uint64_t rank = 0;
    const struct btree_leaf *leaf;
    uint32_t low, high;

    if (node == NULL)
        return 0;
    for (uint32_t level = tree->height; level > 0; level--) {
        const struct inner *inner = node;

        /* The last branch whose least is before: the bound is in it, or at its end. */
        for (low = 1, high = inner->count; low < high;) {
            uint32_t middle = (low + high) / 2;
            const struct btree_entry *least = &inner->branches[middle].least;

            if (is_before(bound, least->score, least->item))
                low = middle + 1;
            else
                high = middle;
        }
        rank += count_left_of(inner, low - 1);
        node = inner->branches[low - 1].child;
    }
    leaf = node;
    for (low = 0, high = leaf->count; low < high;) {
        uint32_t middle = (low + high) / 2;

        if (is_before(bound, leaf->entries[middle].score, leaf->entries[middle].item))
            low = middle + 1;
        else
            high = middle;
    }
    return rank + low;
}

struct btree_cursor btree_at(const struct btree *tree, uint64_t rank)
{
    const void *node = tree->root;

    ASSERT(rank < tree->count);
    for (uint32_t level = tree->height; level > 0; level--) {
        const struct branch *branch = ((const struct inner *)node)->branches;

        for (; rank >= branch->count; branch++)
            rank -= branch->count;
        node = branch->child;
    }
    return (struct btree_cursor){.leaf = node, .index = (uint32_t)rank};
}

struct btree_entry btree_next(struct btree_cursor *cursor)
{
    const struct btree_leaf *leaf = cursor->leaf;
    struct btree_entry entry = leaf->entries[cursor->index];

    ASSERT(cursor->index < leaf->count);
    if (++cursor->index == leaf->count) {
        cursor->leaf = leaf->next;
        cursor->index = 0;
    }
    return entry;
}

struct btree_entry btree_prev(struct btree_cursor *cursor)
{
    const struct btree_leaf *leaf = cursor->leaf;
    struct btree_entry entry = leaf->entries[cursor->index];

    ASSERT(cursor->index < leaf->count);
    if (cursor->index-- == 0) {
        cursor->leaf = leaf->prev;
        cursor->index = leaf->prev == NULL ? 0 : leaf->prev->count - 1;
    }
    return entry;
}

/* Returns how many entries are below; `last` is the greatest seen so far. */
static uint64_t check_node(const void *node, uint32_t level, const struct btree_leaf **leaf,
                           struct btree_entry *last)
{
    const struct inner *inner = node;
    uint64_t count = 0;

    ASSERT(node_count(node) > 0);
    if (level == 0) {
        const struct btree_leaf *now = node;

        ASSERT(now->prev == *leaf && (*leaf == NULL || (*leaf)->next == now));
        *leaf = now;
        for (uint32_t i = 0; i < now->count; i++) {
            struct pair pair = pair_of(now->entries[i].score, now->entries[i].item);

            ASSERT(last->item == NULL || compare(last, &pair) < 0);
            *last = now->entries[i];
        }
        return now->count;
    }
    for (uint32_t i = 0; i < inner->count; i++) {
        struct btree_entry least = node_least(inner->branches[i].child, level - 1);

        ASSERT(least.item == inner->branches[i].least.item);
        ASSERT(least.score == inner->branches[i].least.score);
        ASSERT(check_node(inner->branches[i].child, level - 1, leaf, last) ==
               inner->branches[i].count);
        count += inner->branches[i].count;
    }
    return count;
}

void btree_check(const struct btree *tree)
{
    const struct btree_leaf *leaf = NULL;
    struct btree_entry last = {0};

    if (tree->root == NULL) {
        ASSERT(tree->count == 0 && tree->bytes == 0);
        return;
    }
    ASSERT(check_node(tree->root, tree->height, &leaf, &last) == tree->count);
    ASSERT(leaf->next == NULL);
}
