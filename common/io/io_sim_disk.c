/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of a simulated disk: what is seen, what is durable, the changes in between; and power cuts.
 *
 * The tables hold whole paths, sorted. A change is one path that points to an inode or to nothing;
 * a rename is two changes of one group. Directories cannot be renamed: -EISDIR.
 */
#include "common/io/io_sim_disk_private.h"

#include "common/base/path.h"

#include <stdio.h>

/* ---- paths -------------------------------------------------------------------------------- */

int sim_path_normalize(const char *path, char out[SIM_PATH_MAX])
{
    size_t len = 0;

    while (*path != '\0') {
        size_t part = strcspn(path, "/");

        if (part == 0) {
            path++;
            continue;
        }
        if (!(part == 1 && path[0] == '.')) {
            if (len + part + 2 > SIM_PATH_MAX)
                return -ENAMETOOLONG;
            out[len++] = '/';
            memcpy(out + len, path, part);
            len += part;
        }
        path += part;
    }
    if (len == 0)
        out[len++] = '/';
    out[len] = '\0';
    return 0;
}

static void parent_of(const char *path, char out[SIM_PATH_MAX])
{
    int err = path_parent(bytes_of_string(path), out, SIM_PATH_MAX);

    ASSERT(err == 0); /* sim_path_normalize() */
}

/* ---- tables ------------------------------------------------------------------------------- */

static size_t names_place(const struct sim_names *names, const char *path, bool *is_there)
{
    size_t low = 0, high = names->count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(names->entries[middle].path, path);

        if (order == 0) {
            *is_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *is_there = false;
    return low;
}

struct sim_inode *sim_names_find(const struct sim_names *names, const char *path)
{
    bool is_there;
    size_t place = names_place(names, path, &is_there);

    return is_there ? names->entries[place].inode : NULL;
}

static void entry_remove(struct sim_names *names, size_t place)
{
    mem_free(names->entries[place].path);
    memmove(&names->entries[place], &names->entries[place + 1],
            (names->count - place - 1) * sizeof(struct sim_entry));
    names->count--;
}

static void entry_insert(struct sim_names *names, size_t place, const char *path,
                         struct sim_inode *inode)
{
    if (names->count == names->cap) {
        names->cap = MAX(names->cap * 2, (size_t)16);
        names->entries = must_realloc(names->entries, names->cap * sizeof(struct sim_entry));
    }
    memmove(&names->entries[place + 1], &names->entries[place],
            (names->count - place) * sizeof(struct sim_entry));
    names->entries[place] = (struct sim_entry){.path = must_strdup(path), .inode = inode};
    names->count++;
}

void sim_names_set(struct sim_disk *disk, bool durable, const char *path, struct sim_inode *inode)
{
    struct sim_names *names = durable ? &disk->durable_names : &disk->names;
    bool is_there;
    size_t place = names_place(names, path, &is_there);
    struct sim_inode *old = is_there ? names->entries[place].inode : NULL;

    if (inode != NULL)
        durable ? sim_inode_ref(inode) : sim_inode_live(inode);
    if (is_there && inode != NULL)
        names->entries[place].inode = inode;
    else if (is_there)
        entry_remove(names, place);
    else if (inode != NULL)
        entry_insert(names, place, path, inode);
    if (old != NULL)
        durable ? sim_inode_unref(old) : sim_inode_unlive(old);
}

static void names_clear(struct sim_disk *disk, bool durable)
{
    struct sim_names *names = durable ? &disk->durable_names : &disk->names;

    while (names->count > 0)
        sim_names_set(disk, durable, names->entries[names->count - 1].path, NULL);
    mem_free(names->entries);
    *names = (struct sim_names){0};
}

/* ---- changes ------------------------------------------------------------------------------ */

static void change_free(struct sim_disk *disk, struct sim_change *change)
{
    list_remove(&change->node);
    disk->change_count--;
    if (change->inode != NULL)
        sim_inode_unref(change->inode);
    mem_free(change);
}

/* What was pending of the same path from before is overtaken. */
static void change_apply(struct sim_disk *disk, struct sim_change *change)
{
    sim_names_set(disk, true, change->path, change->inode);
    LIST_FOR_EACH(&disk->changes, node) {
        struct sim_change *old = CONTAINER_OF(node, struct sim_change, node);

        if (old == change)
            break;
        if (strcmp(old->path, change->path) == 0)
            change_free(disk, old);
    }
    change_free(disk, change);
}

static void change_add(struct sim_disk *disk, const char *path, struct sim_inode *inode)
{
    size_t size = strlen(path) + 1;
    struct sim_change *change = must_alloc(sizeof(*change) + size);

    *change = (struct sim_change){
        .seq = ++disk->name_seq, .group = disk->group_next, .inode = inode};
    memcpy(change->path, path, size);
    if (inode != NULL)
        sim_inode_ref(inode);
    list_push_back(&disk->changes, &change->node);
    disk->change_count++;
    sim_names_set(disk, false, path, inode);
    if (disk->change_count > NAME_CHANGES_MAX)
        change_apply(disk, CONTAINER_OF(list_first(&disk->changes), struct sim_change, node));
}

static bool change_is_in(const struct sim_change *change, const char *dir)
{
    char parent[SIM_PATH_MAX];

    if (dir == NULL)
        return true;
    parent_of(change->path, parent);
    return strcmp(parent, dir) == 0;
}

/* A group goes as a whole (D3), also when only one of its two directories is synced. */
void sim_disk_changes_apply(struct sim_disk *disk, const char *dir, uint64_t seq)
{
    uint64_t group = 0;

    LIST_FOR_EACH(&disk->changes, node) {
        struct sim_change *change = CONTAINER_OF(node, struct sim_change, node);
        struct list_node *after = list_next(&disk->changes, node);
        const struct sim_change *next =
            after == NULL ? NULL : CONTAINER_OF(after, struct sim_change, node);

        if (change->seq > seq)
            return;
        if (change->group == group || change_is_in(change, dir) ||
            (next != NULL && next->group == change->group && change_is_in(next, dir))) {
            group = change->group;
            change_apply(disk, change);
        }
    }
}

/* ---- operations --------------------------------------------------------------------------- */

static int parent_check(const struct sim_disk *disk, const char *path)
{
    char parent[SIM_PATH_MAX];
    const struct sim_inode *inode;

    parent_of(path, parent);
    inode = sim_names_find(&disk->names, parent);
    if (inode == NULL)
        return -ENOENT;
    return inode->is_dir ? 0 : -ENOTDIR;
}

/* On a full disk nothing new is made, although an empty file takes no space here. */
static int create_check(const struct sim_disk *disk, const char *path)
{
    int err = parent_check(disk, path);

    if (err == 0 && disk->used + PAGE_SIZE_ > disk->capacity)
        err = -ENOSPC;
    return err;
}

int sim_disk_open_inode(struct sim_disk *disk, const char *path, int flags, struct sim_inode **out)
{
    struct sim_inode *inode = sim_names_find(&disk->names, path);
    int err;

    if (inode == NULL) {
        err = (flags & IO_FILE_CREATE) != 0 ? create_check(disk, path) : parent_check(disk, path);
        if (err == 0 && (flags & IO_FILE_CREATE) == 0)
            err = -ENOENT;
        if (err != 0)
            return err;
        inode = sim_inode_create(disk, false);
        disk->group_next++;
        change_add(disk, path, inode);
    } else if ((flags & IO_FILE_CREATE) != 0 && (flags & IO_FILE_EXCLUSIVE) != 0) {
        return -EEXIST;
    } else if (inode->is_dir) {
        return -EISDIR;
    } else if ((flags & IO_FILE_TRUNCATE) != 0 && inode->cache.size > 0) {
        MAYBE(sim_inode_truncate(inode, 0));
    }
    sim_inode_live(inode);
    *out = inode;
    return 0;
}

ssize_t sim_inode_names(const struct sim_inode *inode)
{
    const struct sim_names *names = &inode->disk->names;
    ssize_t count = 0;

    for (size_t i = 0; i < names->count; i++)
        count += names->entries[i].inode == inode;
    return count;
}

static int disk_rename(struct sim_disk *disk, const char *from, const char *to)
{
    struct sim_inode *inode = sim_names_find(&disk->names, from);
    struct sim_inode *target = sim_names_find(&disk->names, to);
    int err = parent_check(disk, to);

    if (inode == NULL)
        return -ENOENT;
    if (err != 0)
        return err;
    if (inode->is_dir || (target != NULL && target->is_dir))
        return -EISDIR;
    if (inode == target)
        return 0;
    disk->group_next++;
    change_add(disk, to, inode);
    change_add(disk, from, NULL);
    return 0;
}

static int disk_unlink(struct sim_disk *disk, const char *path)
{
    struct sim_inode *inode = sim_names_find(&disk->names, path);

    if (inode == NULL)
        return -ENOENT;
    if (inode->is_dir)
        return -EISDIR;
    disk->group_next++;
    change_add(disk, path, NULL);
    return 0;
}

static int disk_link(struct sim_disk *disk, const char *from, const char *to)
{
    struct sim_inode *inode = sim_names_find(&disk->names, from);
    int err = parent_check(disk, to);

    if (inode == NULL)
        return -ENOENT;
    if (err != 0)
        return err;
    if (inode->is_dir)
        return -EPERM;
    if (sim_names_find(&disk->names, to) != NULL)
        return -EEXIST;
    disk->group_next++;
    change_add(disk, to, inode);
    return 0;
}

static int disk_mkdir(struct sim_disk *disk, const char *path)
{
    int err;

    if (sim_names_find(&disk->names, path) != NULL)
        return -EEXIST;
    err = create_check(disk, path);
    if (err != 0)
        return err;
    disk->group_next++;
    change_add(disk, path, sim_inode_create(disk, true));
    return 0;
}

static int disk_dirsync(struct sim_disk *disk, const char *path, uint64_t seq)
{
    struct sim_inode *inode = sim_names_find(&disk->names, path);

    if (inode == NULL)
        return -ENOENT;
    if (!inode->is_dir)
        return -ENOTDIR;
    sim_disk_changes_apply(disk, path, seq);
    return 0;
}

int sim_disk_path_op(struct sim_disk *disk, enum io_path_op kind, const char *from, const char *to,
                     uint64_t seq)
{
    switch (kind) {
    case IO_OP_RENAME:
        return disk_rename(disk, from, to);
    case IO_OP_UNLINK:
        return disk_unlink(disk, from);
    case IO_OP_LINK:
        return disk_link(disk, from, to);
    case IO_OP_MKDIR:
        return disk_mkdir(disk, from);
    case IO_OP_DIRSYNC:
        return disk_dirsync(disk, from, seq);
    }
    UNREACHABLE("kind of path operation");
}

/* The last part of the path of an entry directly in `dir`, or NULL. */
static const char *entry_name_in(const char *path, const char *dir)
{
    size_t len = strcmp(dir, "/") == 0 ? 0 : strlen(dir);

    if (strncmp(path, dir, len) != 0 || path[len] != '/' || path[len + 1] == '\0')
        return NULL;
    return strchr(path + len + 1, '/') == NULL ? path + len + 1 : NULL;
}

/* Names one after the other, each with its NUL, in an order of chance: nobody may rely on one. */
int sim_disk_list(struct sim_disk *disk, const char *path, char **out, size_t *out_len)
{
    struct sim_inode *inode = sim_names_find(&disk->names, path);
    const char **names;
    size_t count = 0, len = 0;

    if (inode == NULL)
        return -ENOENT;
    if (!inode->is_dir)
        return -ENOTDIR;
    names = must_alloc((disk->names.count + 1) * sizeof(*names));
    for (size_t i = 0; i < disk->names.count; i++) {
        const char *name = entry_name_in(disk->names.entries[i].path, path);

        if (name == NULL)
            continue;
        names[count++] = name;
        len += strlen(name) + 1;
    }
    *out = must_alloc(len + 1);
    *out_len = 0;
    for (size_t i = count; i > 0; i--) {
        size_t pick = sim_random_below(disk->sim, SIM_RANDOM_DISK, i), size;
        const char *name = names[pick];

        names[pick] = names[i - 1];
        size = strlen(name) + 1;
        memcpy(*out + *out_len, name, size);
        *out_len += size;
    }
    mem_free(names);
    return 0;
}

/* ---- power cut ---------------------------------------------------------------------------- */

static void changes_crash(struct sim_disk *disk)
{
    struct sim *sim = disk->sim;
    struct list_node *first = list_first(&disk->changes), *node;
    bool in_order = sim->options.disk.crash_names_in_order, is_kept = false;
    uint64_t group = 0, low, keep = 0;

    if (first == NULL)
        return;
    low = CONTAINER_OF(first, struct sim_change, node)->group;
    if (disk->outcome == SIM_DISK_DRAWN)
        keep = low + sim_random_below(sim, SIM_RANDOM_CRASH, disk->group_next - low + 2);
    else if (disk->outcome != SIM_DISK_OLD)
        keep = UINT64_MAX;
    while ((node = list_first(&disk->changes)) != NULL) {
        struct sim_change *change = CONTAINER_OF(node, struct sim_change, node);

        if (change->group != group) {
            group = change->group;
            is_kept = group < keep;
            if (disk->outcome == SIM_DISK_DRAWN && !in_order)
                is_kept = sim_random(sim, SIM_RANDOM_CRASH) % 2 == 0;
        }
        if (is_kept)
            change_apply(disk, change);
        else
            change_free(disk, change);
    }
}

/* A name whose directory was lost is lost. */
static void orphans_drop(struct sim_disk *disk)
{
    struct sim_names *names = &disk->durable_names;

    for (size_t i = 1; i < names->count;) { /* sorted: parents come before their children */
        char parent[SIM_PATH_MAX];

        parent_of(names->entries[i].path, parent);
        if (sim_names_find(names, parent) == NULL)
            sim_names_set(disk, true, names->entries[i].path, NULL);
        else
            i++;
    }
}

void sim_disk_crash(struct sim_disk *disk)
{
    disk->crash_at = 0;
    changes_crash(disk);
    orphans_drop(disk);
    names_clear(disk, false);
    LIST_FOR_EACH(&disk->inodes, node)
        sim_inode_crash(CONTAINER_OF(node, struct sim_inode, node));
    for (size_t i = 0; i < disk->durable_names.count; i++) {
        const struct sim_entry *entry = &disk->durable_names.entries[i];

        sim_names_set(disk, false, entry->path, entry->inode);
    }
    if (disk->crash_picks)
        disk->outcome = SIM_DISK_DRAWN;
    disk->crash_picks = false;
}

/* ---- life --------------------------------------------------------------------------------- */

static void disk_format(struct sim_disk *disk)
{
    struct sim_inode *root = sim_inode_create(disk, true);

    sim_names_set(disk, false, "/", root);
    sim_names_set(disk, true, "/", root);
}

struct sim_disk *sim_disk_create(struct sim_node *node)
{
    struct sim_disk *disk = must_zalloc(sizeof(*disk));

    disk->sim = node->sim;
    disk->node = node;
    disk->capacity = node->sim->options.disk.capacity;
    list_init(&disk->inodes);
    list_init(&disk->pending);
    list_init(&disk->changes);
    list_init(&disk->faults);
    disk_format(disk);
    return disk;
}

static void disk_clear(struct sim_disk *disk)
{
    struct list_node *node;

    while ((node = list_first(&disk->changes)) != NULL)
        change_free(disk, CONTAINER_OF(node, struct sim_change, node));
    names_clear(disk, false);
    names_clear(disk, true);
    ASSERT(list_is_empty(&disk->inodes));
    ASSERT(disk->used == 0 && disk->pending_bytes == 0);
}

void sim_disk_destroy(struct sim_disk **diskp)
{
    struct sim_disk *disk = *diskp;
    struct list_node *node;

    disk_clear(disk);
    while ((node = list_pop_front(&disk->faults)) != NULL)
        mem_free(CONTAINER_OF(node, struct sim_fault, node));
    mem_free(disk);
    *diskp = NULL;
}

void sim_disk_wipe(struct sim_node *node)
{
    ASSERT(!sim_node_is_running(node));
    sim_op_host_ended(node);
    disk_clear(node->disk);
    disk_format(node->disk);
}

/* ---- copies ------------------------------------------------------------------------------- */

struct copy_entry {
    char *path; /* owns */
    size_t file; /* its index in `files` */
};

struct copy_file {
    struct sim_image image;
    const struct sim_inode *source; /* only while the copy is made */
    bool is_dir;
};

struct sim_disk_copy {
    struct copy_entry *entries; /* owns */
    struct copy_file *files;    /* owns */
    size_t entry_count, file_count;
};

struct sim_disk_copy *sim_disk_copy_create(const struct sim_node *node)
{
    const struct sim_names *names = &node->disk->durable_names;
    struct sim_disk_copy *copy = must_zalloc(sizeof(*copy));

    copy->entries = must_zalloc(names->count * sizeof(*copy->entries));
    copy->files = must_zalloc(names->count * sizeof(*copy->files));
    for (size_t i = 0; i < names->count; i++) {
        const struct sim_inode *inode = names->entries[i].inode;
        size_t file = 0;

        while (file < copy->file_count && copy->files[file].source != inode)
            file++;
        if (file == copy->file_count) {
            copy->files[file].source = inode;
            copy->files[file].is_dir = inode->is_dir;
            sim_image_copy(&copy->files[file].image, &inode->durable);
            copy->file_count++;
        }
        copy->entries[i] = (struct copy_entry){must_strdup(names->entries[i].path), file};
    }
    copy->entry_count = names->count;
    return copy;
}

void sim_disk_copy_restore(struct sim_node *node, const struct sim_disk_copy *copy)
{
    struct sim_disk *disk = node->disk;
    struct sim_inode **inodes = must_zalloc((copy->file_count + 1) * sizeof(struct sim_inode *));

    ASSERT(!sim_node_is_running(node));
    sim_op_host_ended(node);
    disk_clear(disk);
    for (size_t i = 0; i < copy->file_count; i++) {
        inodes[i] = sim_inode_create(disk, copy->files[i].is_dir);
        sim_image_copy(&inodes[i]->durable, &copy->files[i].image);
        sim_image_copy(&inodes[i]->cache, &copy->files[i].image);
    }
    for (size_t i = 0; i < copy->entry_count; i++) {
        const struct copy_entry *entry = &copy->entries[i];

        sim_names_set(disk, false, entry->path, inodes[entry->file]);
        sim_names_set(disk, true, entry->path, inodes[entry->file]);
    }
    mem_free(inodes);
}

void sim_disk_copy_destroy(struct sim_disk_copy **copyp)
{
    struct sim_disk_copy *copy = *copyp;

    if (copy == NULL)
        return;
    for (size_t i = 0; i < copy->entry_count; i++)
        mem_free(copy->entries[i].path);
    for (size_t i = 0; i < copy->file_count; i++)
        sim_image_deinit(&copy->files[i].image);
    mem_free(copy->entries);
    mem_free(copy->files);
    mem_free(copy);
    *copyp = NULL;
}

static const struct sim_image *copy_find(const struct sim_disk_copy *copy, const char *path)
{
    char full[SIM_PATH_MAX];

    if (sim_path_normalize(path, full) != 0)
        return NULL;
    for (size_t i = 0; i < copy->entry_count; i++)
        if (strcmp(copy->entries[i].path, full) == 0 && !copy->files[copy->entries[i].file].is_dir)
            return &copy->files[copy->entries[i].file].image;
    return NULL;
}

static struct sim_inode *file_find(struct sim_node *node, const char *path)
{
    char full[SIM_PATH_MAX];
    struct sim_inode *inode =
        sim_path_normalize(path, full) != 0 ? NULL : sim_names_find(&node->disk->names, full);

    ASSERT(inode != NULL && !inode->is_dir);
    return inode;
}

bool sim_disk_revert(struct sim_node *node, const char *path, const struct sim_disk_copy *copy,
                     const char *from, uint64_t off, uint64_t size)
{
    const struct sim_inode *inode = file_find(node, path);
    const struct sim_image *image = copy_find(copy, from);
    char old[SECTOR_SIZE], now[SECTOR_SIZE];
    bool is_changed = false;

    for (uint64_t end = MIN(off + size, inode->durable.size); image != NULL && off < end; off += SECTOR_SIZE) {
        size_t len = (size_t)MIN(end - off, (uint64_t)SECTOR_SIZE);

        sim_image_read(image, old, len, off);
        sim_image_read(&inode->durable, now, len, off);
        if (memcmp(old, now, len) == 0)
            continue;
        is_changed = true;
        sim_disk_overwrite(node, path, off, bytes_of(old, len));
    }
    return is_changed;
}

bool sim_disk_stale_mark_as(struct sim_node *node, const char *path,
                            const struct sim_disk_copy *copy)
{
    struct sim_inode *inode = file_find(node, path);
    const struct sim_image *image = copy_find(copy, path);

    if (image != NULL)
        sim_image_copy(&inode->stale, image);
    return image != NULL;
}
